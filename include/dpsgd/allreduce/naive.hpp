/// Naive: everybody sends everything to one member, which adds it up and sends the sum back to all.
///
///   0 <-- 1, 0 <-- 2, 0 <-- 3     round 0, each arrow the whole vector
///   0 --> 1, 0 --> 2, 0 --> 3     round 1
///
/// P members, n elements: 2 rounds; 2(P-1) messages; the root receives and sends (P-1)n elements each, so 2(P-1)n are
/// on the critical path, where the optimum is 2n(P-1)/P. Use it as the reference to test against; never for speed,
/// except that for a few bytes at P = 2 nothing is much better.
#pragma once

#include "dpsgd/allreduce/schedule.hpp"

namespace dpsgd::allreduce {

/// Gather at member 0, broadcast from member 0. A whole algorithm of one block.
struct naive {
  constexpr int blocks(int) const { return 1; }
  constexpr void all_reduce(member me, auto&& send) const {
    if (me.rank != 0) return send(0, 0, 0);
    for (int to = 1; to < me.size; ++to) send(1, to, 0, on_receive::replace);
  }
};
static_assert(whole_algorithm<naive>);
static_assert(prove(naive{}, 1) && prove(naive{}, 2) && prove(naive{}, 7));  // 1 to 64: tests/allreduce/schedule.cpp

}  // namespace dpsgd::allreduce
