/// Recursive doubling: exchange the whole vector with a partner at distance 1, 2, 4, ...; every sum doubles its
/// members.
///
///   round 1:  0 <-> 1   2 <-> 3   4 <-> 5   6 <-> 7     each arrow the whole vector
///   round 2:  0 <-> 2   1 <-> 3   4 <-> 6   5 <-> 7
///   round 3:  0 <-> 4   1 <-> 5   2 <-> 6   3 <-> 7
///
/// When P is not a power of two, with q the largest power below it, members q .. P-1 first fold their vector into that
/// of member rank - q (round 0), and get the result from there in the end.
/// log2 P rounds of n elements (at other P: floor(log2 P) + 2); P log2 P messages (q log2 q + 2(P - q)); each member
/// sends and receives n log2 P elements (n log2 q, and n more each way where one folds). Nothing has fewer rounds: use
/// it for small messages. For large ones it moves log2(P) P / (2(P-1)) times the optimum.
///
/// Source: Thakur, Rabenseifner, Gropp, Optimization of Collective Communication Operations in MPICH (2005), section 4.
#pragma once

#include <bit>

#include "dpsgd/allreduce/schedule.hpp"

namespace dpsgd::allreduce {

/// Whole vectors with partners at doubling distance. A whole algorithm of one block.
struct recursive_doubling {
  constexpr int blocks(int) const { return 1; }
  constexpr void all_reduce(member me, auto&& send) const {
    const int power = static_cast<int>(std::bit_floor(static_cast<unsigned>(me.size)));
    if (me.rank >= power) return send(0, me.rank - power, 0);
    int round = 1;
    for (int distance = 1; distance < power; distance *= 2) send(round++, me.rank ^ distance, 0);
    if (me.rank + power < me.size) send(round, me.rank + power, 0, on_receive::replace);
  }
};
static_assert(whole_algorithm<recursive_doubling>);
static_assert(prove(recursive_doubling{}, 1) && prove(recursive_doubling{}, 2) &&
              prove(recursive_doubling{}, 7));  // 1 to 64: tests/allreduce/schedule.cpp

}  // namespace dpsgd::allreduce
