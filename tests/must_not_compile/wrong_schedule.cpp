// EXPECT: the_schedule_is_wrong
// EXPECT: flaw::two_owners
// ERRORS: 1
// A ring that forgets its last round: the compiler quotes the flaw.
#include "dpsgd/allreduce/schedule.hpp"

using namespace dpsgd::allreduce;

struct short_ring {
  constexpr void reduce_scatter(member me, auto&& send) const {
#ifdef DPSGD_WRONG
    for (int t = 0; t < me.size - 2; ++t) send(t, me.at(+1), me.at(-t - 1));
#else
    for (int t = 0; t < me.size - 1; ++t) send(t, me.at(+1), me.at(-t - 1));
#endif
  }
};
static_assert(prove(short_ring{}, 4));

int main() {}
