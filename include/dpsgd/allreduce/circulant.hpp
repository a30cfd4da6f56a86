/// Circulant: each round sends the far half of the blocks still in hand to the member that far round the circle.
///
/// A member has in hand the blocks at distance 0 .. left-1 from its own rank, all of them at first. With
/// skip = ceil(left / 2) it sends those at distance skip .. left-1 to the member at distance skip, for whom they are
/// the near ones, and is left with `skip` of them; in the end with its own block alone.
///
///   P = 7, member 0 (distances = blocks):   0 1 2 3 | 4 5 6 --> member 4
///                                           0 1 | 2 3 --> member 2
///                                           0 | 1 --> member 1
///
/// 2 ceil(log2 P) rounds; 2P ceil(log2 P) messages; each member sends and receives 2n(P-1)/P elements: optimal in both,
/// for every P, not only for powers of two. The first choice for all but the smallest messages.
/// Source: Jesper Larsson Träff, Optimal, Non-pipelined Reduce-scatter and Allreduce Algorithms (2024),
/// arXiv:2410.14234.
#pragma once

#include "dpsgd/allreduce/schedule.hpp"

namespace dpsgd::allreduce {

/// Halving distances round the circle. A scatter algorithm; member r owns block r.
struct circulant {
  constexpr void reduce_scatter(member me, auto&& send) const {
    for (int left = me.size, round = 0; left > 1; ++round) {
      const int skip = (left + 1) / 2;
      send(round, me.at(skip), {me.at(skip), left - skip});
      left = skip;
    }
  }
};
static_assert(scatter_algorithm<circulant>);
static_assert(prove(circulant{}, 1) && prove(circulant{}, 2) &&
              prove(circulant{}, 7));  // 1 to 64: tests/allreduce/schedule.cpp
static_assert(owned(circulant{}, {2, 5}) == block_range(2));

}  // namespace dpsgd::allreduce
