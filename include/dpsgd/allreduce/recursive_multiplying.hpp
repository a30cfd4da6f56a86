/// Recursive multiplying: recursive doubling with groups of k in place of pairs.
///
///   k = 3, P = 9, each line of three exchanges whole vectors, everybody with everybody:
///   round 1:  0 1 2   3 4 5   6 7 8
///   round 2:  0 3 6   1 4 7   2 5 8
///
/// With q = k^m the largest power of k that is at most P, members q .. P-1 first fold their vector into that of member
/// rank mod q (round 0), and get the result from there in the end. (A k above P counts as P.)
/// m rounds (m + 2 when P > q); q(k-1)m + 2(P-q) messages; a member sends n(k-1)m elements, and n more for each member
/// that folds into it. Use it for small messages where a member can send k-1 of them in about the time of one:
/// several ports, or start-up costs that overlap. k = 2 is recursive doubling, k = P all to all.
///
/// Source: Ruefenacht, Bull, Booth, Generalisation of Recursive Doubling for AllReduce (2017), Parallel Computing 69.
#pragma once

#include <algorithm>

#include "dpsgd/allreduce/schedule.hpp"

namespace dpsgd::allreduce {

/// Whole vectors in groups of k at distances 1, k, k^2, ... A whole algorithm of one block.
struct recursive_multiplying {
  at_least<2> k = 4;
  constexpr int blocks(int) const { return 1; }
  constexpr void all_reduce(member me, auto&& send) const {
    const int degree = std::min<int>(k, std::max(me.size, 2));
    int power = 1, round = 1;
    while (power <= me.size / degree) power *= degree;
    if (me.rank >= power) return send(0, me.rank % power, 0);
    for (int distance = 1; distance < power; distance *= degree, ++round) {
      const int digit = me.rank / distance % degree;
      for (int other = 0; other < degree; ++other)
        if (other != digit) send(round, me.rank + (other - digit) * distance, 0);
    }
    for (int folded = me.rank + power; folded < me.size; folded += power) send(round, folded, 0, on_receive::replace);
  }
};
static_assert(whole_algorithm<recursive_multiplying>);
static_assert(prove(recursive_multiplying{}, 1) && prove(recursive_multiplying{2}, 3) &&
              prove(recursive_multiplying{3}, 7));  // more: tests/allreduce

}  // namespace dpsgd::allreduce
