/// Halving and doubling (Rabenseifner): swap halves of the vector with a partner far away, then quarters with a nearer
/// one, ...; the way back doubles what everybody has.
///
///   P = 4, member 0:   0 1 | 2 3 --> member 2      round 1: the half that holds the partner's block
///                      0 | 1 --> member 1          round 2
///
/// With q the largest power of two that is at most P, members q .. P-1 first fold their whole vector into that of
/// member rank - q (round 0), and get the result from there in the end.
/// 2 log2 q rounds (2 more when P > q); 2q log2 q + 2(P-q) messages; each member sends and receives 2n(q-1)/q
/// elements, and n more each way where one folds: optimal for powers of two, half as much again in between. Use it for
/// medium and large messages among a power of two of members; for others circulant moves the optimum.
///
/// Source: Rolf Rabenseifner, Optimization of Collective Reduction Operations (2004), ICCS.
#pragma once

#include <bit>

#include "dpsgd/allreduce/schedule.hpp"

namespace dpsgd::allreduce {

/// Halves with partners at halving distance. A scatter algorithm of q blocks; member r < q owns block r.
struct halving_doubling {
  constexpr int blocks(int size) const { return static_cast<int>(std::bit_floor(static_cast<unsigned>(size))); }
  constexpr void reduce_scatter(member me, auto&& send) const {
    const int power = blocks(me.size);
    if (me.rank >= power) return send(0, me.rank - power, {0, power});
    int round = 1;
    for (int half = power / 2; half > 0; half /= 2) {
      const int partner = me.rank ^ half;
      send(round++, partner, {partner / half * half, half});  // the aligned blocks around the partner's own
    }
  }
};
static_assert(scatter_algorithm<halving_doubling>);
static_assert(prove(halving_doubling{}, 1) && prove(halving_doubling{}, 4) &&
              prove(halving_doubling{}, 7));  // more: tests/allreduce

}  // namespace dpsgd::allreduce
