/// Ring: each block's growing sum travels once round the circle, and the whole sum once more.
///
///   member 0 --block--> member 1 --block--> member 2 --block--> member 0
///
/// P = 3, the rounds of the reduce-scatter (owner of block b: member b):
///   round 0:  0 --block 2--> 1   1 --block 0--> 2   2 --block 1--> 0
///   round 1:  0 --block 1--> 1   1 --block 2--> 2   2 --block 0--> 0
///
/// 2(P-1) rounds of one block; 2P(P-1) messages; each member sends and receives 2n(P-1)/P elements, which is optimal.
/// Use it for large messages, and where neighbours have the best links. Its latency grows with P: circulant moves the
/// same bytes in ceil(log2 P) rounds each way.
///
/// Source: Patarasu, Yuan, Bandwidth Optimal All-reduce Algorithms for Clusters of Workstations (2009).
#pragma once

#include "dpsgd/allreduce/schedule.hpp"

namespace dpsgd::allreduce {

/// A growing partial sum moves right. A scatter algorithm; member r owns block r.
struct ring {
  constexpr void reduce_scatter(member me, auto&& send) const {
    for (int t = 0; t < me.size - 1; ++t) send(t, me.at(+1), me.at(-t - 1));  // round, to, blocks
  }
};
static_assert(scatter_algorithm<ring>);
static_assert(prove(ring{}, 1) && prove(ring{}, 2) && prove(ring{}, 7));  // 1 to 64: tests/allreduce/schedule.cpp
static_assert(owned(ring{}, {2, 5}) == block_range(2));

}  // namespace dpsgd::allreduce
