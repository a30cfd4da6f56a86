/// The inverse questions: which noise multiplier reaches a target epsilon, and how many steps fit into one.
///
/// Both work with any accountant and any event, and both answer on the safe side: what they answer spends at most the
/// target. `before` holds what is already spent on the same data (ledger::add_to), and counts against the target.
#pragma once

#include <cmath>
#include <concepts>
#include <cstdint>
#include <limits>

#include "dpsgd/accounting/events.hpp"
#include "dpsgd/core/error.hpp"

namespace dpsgd {

/// What a run may spend: at most `epsilon` at `delta`.
struct privacy_target {
  double epsilon = 0;
  double delta = 0;
};

namespace detail {
inline void check(const privacy_target& target) {
  require(target.epsilon > 0, "a target epsilon must be a number > 0; got ", target.epsilon);
  require(target.delta > 0 && target.delta < 1, "a target needs a delta in (0, 1); got ", target.delta);
}

template <class Accountant, class Event>
double spent_after(Accountant spent, const Event& event, std::uint64_t steps, double delta) {
  spent.add(event, steps);
  return spent.spent(delta).epsilon;
}
}  // namespace detail

/// The smallest noise multiplier at which `steps` steps of `event_of(multiplier)` keep the target, to a relative 1e-6
/// above the true minimum and never below it. event_of: double -> event, e.g.
///   smallest_multiplier<rdp_accountant>({3, 1e-5}, 4688, [](double m) { return poisson_sampled{0.01,
///   gaussian_event<zero_out>{m}}; })
/// Multipliers between 1e-5 and 1e9 are tried; a target so large that less noise would do gets 1e-5. Throws
/// dpsgd::error when no multiplier reaches the target (too much was spent before, or the accountant cannot show so
/// small an epsilon). Cost: some 45 questions to the accountant, each about a new event (RDP: 30 to 70 ms).
template <accountant Accountant, std::invocable<double> EventOf>
double smallest_multiplier(const privacy_target& target, std::uint64_t steps, EventOf&& event_of,
                           const Accountant& before = {}) {
  static_assert(accounts<Accountant, std::invoke_result_t<EventOf, double>>,
                "dpsgd: this accountant cannot account for this event");
  detail::check(target);
  const auto keeps = [&](double multiplier) {
    return detail::spent_after(before, event_of(multiplier), steps, target.delta) <= target.epsilon;
  };
  constexpr double least = 1e-5, most = 1e9;
  // Doubling from 1 finds a factor of two around the answer: `low` misses the target, `high` keeps it.
  double low = 1, high = 1;
  if (keeps(1)) {
    while (high > least && keeps(low = high / 2)) high = low;
    if (high <= least) return high;
  } else {
    do {
      low = high;
      if (high > most)
        fail("no noise multiplier up to ", most, " keeps epsilon ", target.epsilon, " at delta ", target.delta,
             " over ", steps, " steps: ", before.spent(target.delta).epsilon, " was spent on this data before; the ",
             Accountant::name, " accountant says at least ",
             detail::spent_after(before, event_of(high), steps, target.delta),
             "; raise the target, or take another data set");
      high *= 2;
    } while (!keeps(high));
  }
  while (high / low > 1 + 1e-6) {
    const double middle = std::sqrt(low * high);
    (keeps(middle) ? high : low) = middle;
  }
  return high;
}

/// The largest number of steps of `event` that keep the target, at most `limit`; 0 when there is no room for one more.
/// Cost: up to 2 log2(steps) questions to the accountant about one event (RDP: about 20 ms).
template <accountant Accountant, privacy_event Event>
std::uint64_t most_steps(const privacy_target& target, const Event& event, const Accountant& before = {},
                         std::uint64_t limit = std::uint64_t{1} << 40) {
  static_assert(accounts<Accountant, Event>, "dpsgd: this accountant cannot account for this event");
  detail::check(target);
  if (limit == 0) return 0;
  Accountant first = before;  // with one step, so that what the accountant remembers of the event serves all questions
  first.add(event, 1);
  if (!(first.spent(target.delta).epsilon <= target.epsilon)) return 0;
  const auto keeps = [&](std::uint64_t steps) {
    return detail::spent_after(first, event, steps - 1, target.delta) <= target.epsilon;
  };
  std::uint64_t low = 1, high = 1;  // low keeps the target; high is not known to
  while (high < limit && keeps(high)) low = high, high = high > limit / 2 ? limit : high * 2;
  if (high == limit && keeps(limit)) return limit;
  while (high - low > 1) {
    const std::uint64_t middle = low + (high - low) / 2;
    (keeps(middle) ? low : high) = middle;
  }
  return low;
}

}  // namespace dpsgd
