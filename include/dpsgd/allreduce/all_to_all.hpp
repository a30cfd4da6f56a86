/// All to all: everybody sends everything to everybody, and adds up for himself.
///
///   round 0:  0 <-> 1   0 <-> 2   1 <-> 2     each arrow the whole vector
///
/// 1 round; P(P-1) messages; each member sends and receives n(P-1) elements, P/2 times the optimum, and holds as many
/// until it has added them. Nothing has fewer rounds: use it for a few bytes among a few members.
///
/// Source: folklore; MPI_Allgather of the whole vectors followed by a local sum.
#pragma once

#include "dpsgd/allreduce/schedule.hpp"

namespace dpsgd::allreduce {

/// Everything to everybody in one round. A whole algorithm of one block.
struct all_to_all {
  constexpr int blocks(int) const { return 1; }
  constexpr void all_reduce(member me, auto&& send) const {
    for (int i = 1; i < me.size; ++i) send(0, me.at(i), 0);
  }
};
static_assert(whole_algorithm<all_to_all>);
static_assert(prove(all_to_all{}, 1) && prove(all_to_all{}, 2) && prove(all_to_all{}, 7));  // more: tests/allreduce

}  // namespace dpsgd::allreduce
