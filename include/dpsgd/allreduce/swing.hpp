/// Swing: partners alternate between left and right at distances 1, 1, 3, 5, 11, ..., so that on a ring or torus of
/// links messages stay nearer than those of halving and doubling.
///
///   P = 8:   round 1:  0 <-> 1   2 <-> 3   4 <-> 5   6 <-> 7     even ranks go right by 1
///            round 2:  0 <-> 7   2 <-> 1   4 <-> 3   6 <-> 5     left by 1
///            round 3:  0 <-> 3   2 <-> 5   4 <-> 7   6 <-> 1     right by 3
///
/// A message carries the blocks that the partner, and not the sender, will still reach: up to P/2 of them, which do not
/// lie side by side and are packed. An odd last member folds its whole vector into member 0's (round 0).
/// 2 ceil(log2 P) rounds (odd: 2 ceil(log2 (P-1)) + 2); P messages a round (fewer where P is no power of two and some
/// have nothing new to say), and 2 for the fold; with p = P or P-1, the even one, each member sends and receives
/// 2n(p-1)/p elements, member 0 n more each way when P is odd. Optimal for even P. Use it on tori with large messages,
/// where the distance that a message travels is bandwidth; elsewhere circulant has the same cost without packing.
///
/// Source: De Sensi, Bonato, Saam, Hoefler, Swing: Short-cutting Rings for Higher Bandwidth Allreduce (2024), NSDI.
#pragma once

#include <bit>
#include <vector>

#include "dpsgd/allreduce/schedule.hpp"

namespace dpsgd::allreduce {

/// Partners to the left and the right by turns. A scatter algorithm; of P blocks (odd P: P-1) member r owns block r.
struct swing {
  constexpr int blocks(int size) const { return size == 1 ? 1 : size / 2 * 2; }
  constexpr void reduce_scatter(member me, auto&& send) const {
    const int even = blocks(me.size), rounds = std::bit_width(static_cast<unsigned>(even - 1));
    if (me.rank == even) return send(0, 0, {0, even});
    for (int t = 0; t < rounds; ++t) {
      const int to = partner({me.rank, even}, t);
      auto mine = std::vector<char>(static_cast<std::size_t>(even), 0), theirs = mine;
      reach({me.rank, even}, t + 1, rounds, mine), reach({to, even}, t + 1, rounds, theirs);
      for (int b = 0, count = 0; b <= even; ++b) {
        const auto at = static_cast<std::size_t>(b);
        if (b < even && theirs[at] && !mine[at]) ++count;
        else if (count > 0) send(t + 1, to, {b - count, count}), count = 0;
      }
    }
  }

 private:
  static constexpr int partner(member me, int round) {
    int distance = 1;  // 1, -1, 3, -5, 11, ...
    for (int t = 0; t < round; ++t) distance = 1 - 2 * distance;
    return me.at(me.rank % 2 == 0 ? distance : -distance);
  }
  // Marks the members that `me` reaches, itself and through others, from round `t` on.
  static constexpr void reach(member me, int t, int rounds, std::vector<char>& mark) {
    mark[static_cast<std::size_t>(me.rank)] = 1;
    for (; t < rounds; ++t) reach({partner(me, t), me.size}, t + 1, rounds, mark);
  }
};
static_assert(scatter_algorithm<swing>);
static_assert(prove(swing{}, 1) && prove(swing{}, 4) && prove(swing{}, 7));  // more: tests/allreduce

}  // namespace dpsgd::allreduce
