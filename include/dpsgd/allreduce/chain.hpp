/// Chain: the vector travels down the chain of members in chunks, each member adding its own as they pass; the sum
/// travels back up.
///
///   P = 4, 3 chunks:   0 <--a-- 1 <--a-- 2 <--a-- 3     chunk a in rounds 2, 1, 0 from the left
///                      0 <--b-- 1 <--b-- 2 <--b-- 3     chunk b one round behind it
///                      0 <--c-- 1 <--c-- 2 <--c-- 3
///
/// 2(P - 2 + chunks) rounds of n / chunks elements; 2(P-1) chunks messages; a member inside the chain sends and
/// receives 2n elements, whatever P: with many chunks within a factor P/(P-1) of the optimum. Use it for very large
/// messages where only neighbours have good links; about sqrt(n (P-2) beta / alpha) chunks are best. The sum is added
/// up from the last rank to the first. (Circulant and ring need no such choice.)
///
/// Source: Sanders, Speck, Träff, Two-tree algorithms for full bandwidth broadcast, reduction and scan (2009), on the
/// linear pipeline.
#pragma once

#include "dpsgd/allreduce/schedule.hpp"

namespace dpsgd::allreduce {

/// A pipeline towards member 0. A scatter algorithm of `chunks` blocks, which all are member 0's.
struct chain {
  at_least<1> chunks = 8;
  constexpr int blocks(int) const { return chunks; }
  constexpr void reduce_scatter(member me, auto&& send) const {
    for (int c = 0; me.rank > 0 && c < chunks; ++c) send(c + me.size - 1 - me.rank, me.rank - 1, c);
  }
};
static_assert(scatter_algorithm<chain>);
static_assert(prove(chain{3}, 1) && prove(chain{1}, 2) && prove(chain{3}, 5));  // more: tests/allreduce

}  // namespace dpsgd::allreduce
