/// Binomial tree: sums move down to member 0 by clearing the lowest bit of the rank, and the sum moves up again.
///
///   0 <-- 1   2 <-- 3   4 <-- 5   6 <-- 7     round 0, each arrow the whole vector
///   0 <------ 2         4 <------ 6           round 1
///   0 <------------------ 4                   round 2; then the same backwards
///
/// 2 ceil(log2 P) rounds; 2(P-1) messages, the fewest there can be; the root receives, and later sends, n ceil(log2 P)
/// elements. Use it where messages are small and each costs the network something (many members on a shared link);
/// otherwise recursive doubling has half the rounds, and circulant the same rounds with less in them.
///
/// Source: Thakur, Rabenseifner, Gropp, Optimization of Collective Communication Operations in MPICH (2005).
#pragma once

#include <bit>

#include "dpsgd/allreduce/schedule.hpp"

namespace dpsgd::allreduce {

/// Reduce to member 0; the way back is the broadcast. A scatter algorithm of one block, which member 0 owns.
struct binomial_tree {
  constexpr int blocks(int) const { return 1; }
  constexpr void reduce_scatter(member me, auto&& send) const {
    const int r = me.rank;
    if (r != 0) send(std::countr_zero(static_cast<unsigned>(r)), r & (r - 1), 0);  // r & (r - 1): lowest bit cleared
  }
};
static_assert(scatter_algorithm<binomial_tree>);
static_assert(prove(binomial_tree{}, 1) && prove(binomial_tree{}, 2) && prove(binomial_tree{}, 7));  // more: tests

}  // namespace dpsgd::allreduce
