/// Round robin (pairwise exchange): every member hands every other one the block that is theirs, one pair at a time.
///
///   P = 4, the rounds of the reduce-scatter (member b owns block b; every arrow carries its receiver's block):
///   round 0:  0 --> 1   1 --> 2   2 --> 3   3 --> 0
///   round 1:  0 <-> 2   1 <-> 3
///   round 2:  0 --> 3   3 --> 2   2 --> 1   1 --> 0
///
/// 2(P-1) rounds of one block; 2P(P-1) messages; each member sends and receives 2n(P-1)/P elements, which is optimal.
/// As the ring, but a block goes straight to its owner: no partial sums travel, and the order of addition is one's own.
/// Use it for large messages where every pair has an equally good link (a crossbar); a ring only loads neighbours.
///
/// Source: Thakur, Rabenseifner, Gropp, Optimization of Collective Communication Operations in MPICH (2005), pairwise
/// exchange.
#pragma once

#include "dpsgd/allreduce/schedule.hpp"

namespace dpsgd::allreduce {

/// To each member its block, one member a round. A scatter algorithm; member r owns block r.
struct round_robin {
  constexpr void reduce_scatter(member me, auto&& send) const {
    for (int i = 1; i < me.size; ++i) send(i - 1, me.at(i), me.at(i));
  }
};
static_assert(scatter_algorithm<round_robin>);
static_assert(prove(round_robin{}, 1) && prove(round_robin{}, 2) && prove(round_robin{}, 7));  // more: tests/allreduce

}  // namespace dpsgd::allreduce
