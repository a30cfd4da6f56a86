/// An allreduce algorithm of your own, in ten lines: a ring that runs to the left.
///
/// An algorithm never sees the data. It says, for one member, in which round it sends which blocks to whom; receives,
/// the way back and freedom from deadlock follow from these lines. Left to prove is that each contribution is counted
/// exactly once in every block: the compiler does it.
#include <iostream>
#include <vector>

#include "dpsgd/dpsgd.hpp"

using dpsgd::allreduce::member;

/// Each block's growing sum travels once round the circle. P = 3 members, one block each:
///
///   member 0 <--block-- member 1 <--block-- member 2 <--block-- member 0
///
///   round 0:  0 sends block 1 to 2    1 sends block 2 to 0    2 sends block 0 to 1
///   round 1:  0 sends block 2 to 2    1 sends block 0 to 0    2 sends block 1 to 1
///
/// P-1 rounds of one block, and as many back; each member sends 2n(P-1)/P of n elements, which is optimal.
struct left_ring {
  constexpr void reduce_scatter(member me, auto&& send) const {
    for (int t = 0; t < me.size - 1; ++t) send(t, me.at(-1), me.at(t + 1));  // round, to whom, which blocks
  }
};
static_assert(dpsgd::allreduce::prove(left_ring{}, 2) && dpsgd::allreduce::prove(left_ring{}, 7));
static_assert(dpsgd::allreduce::prove(left_ring{}, 16));  // a flaw would be a compile error that names it

/// The same with a slip: the direction is turned, the blocks are not. `static_assert(prove(crossed_ring{}, 16))` would
/// stop the compiler, g++ with "the_schedule_is_wrong() [with dpsgd::allreduce::flaw What =
/// dpsgd::allreduce::flaw::missing]".
struct crossed_ring {
  constexpr void reduce_scatter(member me, auto&& send) const {
    for (int t = 0; t < me.size - 1; ++t) send(t, me.at(+1), me.at(t + 1));
  }
};
/// And one in a hurry: everything in round 0, though a block can only be passed on once it has arrived.
struct hasty_ring {
  constexpr void reduce_scatter(member me, auto&& send) const {
    for (int t = 0; t < me.size - 1; ++t) send(0, me.at(-1), me.at(t + 1));
  }
};

template <class Algorithm>
void judge(const char* name, const Algorithm& algorithm, int size) {
  const auto v = dpsgd::allreduce::verify(algorithm, size);
  std::cout << name << " among " << size << " members: " << describe(v.flaw);
  if (v.round >= 0) std::cout << ", in round " << v.round;
  if (v.rank >= 0) std::cout << ", at member " << v.rank << " in block " << v.block;
  std::cout << '\n';
}

int main() {
  judge("left_ring", left_ring{}, 4);
  judge("crossed_ring", crossed_ring{}, 4);
  judge("hasty_ring", hasty_ring{}, 4);

  // One member's own view: what the executor carries out.
  const auto schedule = dpsgd::allreduce::derive(left_ring{}, 4);
  std::cout << "\nwhat member 0 of 4 does to add up\n";
  for (const auto& round : plan_for(0, schedule.reduce))
    std::cout << "  round " << round.round << ": block " << round.sends[0].pieces[0].blocks.first << " to "
              << round.sends[0].peer << ", block " << round.receives[0].pieces[0].blocks.first << " from "
              << round.receives[0].peer << '\n';
  std::cout << "then it owns block " << owned(schedule, 0).first
            << ", and the same rounds backwards spread the sums\n\n";

  // Four ranks, threads of this process. Under MPI it is the same with dpsgd::mpi::world.
  bool right = true;
  dpsgd::threads::run(4, [&](auto& world) {
    std::vector<float> v(1000, static_cast<float>(world.rank() + 1));
    auto ring = dpsgd::bind<float>(left_ring{}, world, v.size());
    ring.all_reduce(v.data());
    if (world.rank() != 0) return;
    for (const float x : v) right = right && x == 1 + 2 + 3 + 4;
  });
  std::cout << "4 ranks added up 1 + 2 + 3 + 4: " << (right ? "10 everywhere" : "WRONG") << '\n';
  // In a trainer it is one more policy: dpsgd::trainer{world, clip, noise, sampling, left_ring{}}.
  return right ? 0 : 1;
}
