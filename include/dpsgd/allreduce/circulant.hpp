/// Circulant: each round sends the far part of the blocks still in hand to the members that far round the circle.
///
/// A member has in hand the blocks at distance 0 .. left-1 from its own rank, all of them at first. With skip =
/// ceil(left / 2) it sends those at distance skip .. left-1 to the member at distance skip, for whom they are the near
/// ones, and is left with `skip` of them; in the end with its own block alone.
///
///   P = 7, member 0 (distances = blocks):   0 1 2 3 | 4 5 6 --> member 4
///                                           0 1 | 2 3 --> member 2
///                                           0 | 1 --> member 1
///
/// With degree k it cuts what it has into k parts instead of 2, and sends all but the first:
///
///   k = 3, P = 7, member 0:   0 1 2 | 3 4 5 --> member 3 | 6 --> member 6
///                             0 | 1 --> member 1 | 2 --> member 2
///
/// 2 ceil(log_k P) rounds; at most 2P(k-1) ceil(log_k P) messages, and exactly that for k = 2 and for P = k^m; each
/// member sends and receives 2n(P-1)/P elements: optimal in both, for every P, not only for powers of k. The first
/// choice for all but the smallest messages; k > 2 where several messages can leave at a time.
///
/// Source: Jesper Larsson Träff, Optimal, Non-pipelined Reduce-scatter and Allreduce Algorithms (2024),
/// arXiv:2410.14234.
#pragma once

#include <algorithm>

#include "dpsgd/allreduce/schedule.hpp"

namespace dpsgd::allreduce {

/// Shrinking distances round the circle. A scatter algorithm; member r owns block r.
struct circulant {
  at_least<2> k = 2;
  constexpr void reduce_scatter(member me, auto&& send) const {
    for (int left = me.size, round = 0; left > 1; ++round) {
      const int skip = (left - 1) / k + 1;
      for (int at = skip; at < left; at += skip) send(round, me.at(at), {me.at(at), std::min(skip, left - at)});
      left = skip;
    }
  }
};
static_assert(scatter_algorithm<circulant>);
static_assert(prove(circulant{}, 1) && prove(circulant{}, 2) && prove(circulant{}, 7));  // more: tests/allreduce
static_assert(owned(circulant{}, {2, 5}) == block_range(2));

}  // namespace dpsgd::allreduce
