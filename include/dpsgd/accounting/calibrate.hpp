/// The inverse questions: which noise multiplier, how many steps or which sampling rate keep a target epsilon.
///
/// They work with any accountant and any event, and answer on the safe side: what they answer spends at most the
/// target, by the accountant's own figure. `before` holds what is already spent on the same data (ledger::add_to), and
/// counts against the target.
#pragma once

#include <algorithm>
#include <cmath>
#include <concepts>
#include <cstdint>
#include <limits>

#include "dpsgd/accounting/events.hpp"
#include "dpsgd/core/error.hpp"

namespace dpsgd {

/// What a run may spend: at most `epsilon` at `delta`.
struct privacy_target {
  double epsilon = 0;  // in (0, 1000]: e^1000 promises nothing, and accountants cannot tell such figures apart
  double delta = 0;    // in (0, 1)
};

namespace detail {
inline void check(const privacy_target& target) {
  require(target.epsilon > 0 && target.epsilon <= 1000, "a target epsilon must lie in (0, 1000]; got ", target.epsilon);
  require(target.delta > 0 && target.delta < 1, "a target needs a delta in (0, 1); got ", target.delta);
}

template <class Accountant, class Event>
Accountant after(Accountant spent, const Event& event, std::uint64_t steps) {
  spent.add(event, steps);
  return spent;
}

/// Whether what was spent keeps the target. An accountant may answer that faster than what epsilon is.
template <class Accountant>
bool keeps(const Accountant& spent, const privacy_target& target) {
  if constexpr (requires {
                  { spent.keeps(target.epsilon, target.delta) } -> std::same_as<bool>;
                })
    return spent.keeps(target.epsilon, target.delta);
  else return spent.spent(target.delta).epsilon <= target.epsilon;
}

/// The end of [low, high] that keeps the target, after halving their ratio until it is below 1 + 1e-6. `low` and
/// `high` are on two sides of it; `good` is the one that keeps it.
template <class Keeps>
double boundary(double good, double bad, Keeps&& keeps) {
  while (std::max(good, bad) / std::min(good, bad) > 1 + 1e-6) {
    const double middle = std::sqrt(good * bad);
    (keeps(middle) ? good : bad) = middle;
  }
  return good;
}
}  // namespace detail

/// The smallest noise multiplier at which `steps` steps of `event_of(multiplier)` keep the target, to a relative 1e-6
/// above where the accountant's figure crosses it. event_of: double -> event, e.g.
///   smallest_multiplier<pld_accountant>({3, 1e-5}, 4688, [](double m) {
///     return poisson_sampled{0.01, gaussian_event<zero_out>{m}};
///   })
/// Multipliers between 1e-5 and 1e9 are tried; a target so large that less noise would do gets 1e-5. Throws
/// dpsgd::error when no multiplier reaches the target (too much was spent before, or the accountant cannot show so
/// small an epsilon). Cost: some 45 questions to the accountant, each about a new event (PLD: a tenth of a second for
/// some thousand steps, a second for a million).
template <accountant Accountant, std::invocable<double> EventOf>
double smallest_multiplier(const privacy_target& target, std::uint64_t steps, EventOf&& event_of,
                           const Accountant& before = {}) {
  static_assert(accounts<Accountant, std::invoke_result_t<EventOf, double>>,
                "dpsgd: this accountant cannot account for this event");
  detail::check(target);
  const auto keeps = [&](double multiplier) {
    return detail::keeps(detail::after(before, event_of(multiplier), steps), target);
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
             detail::after(before, event_of(high), steps).spent(target.delta).epsilon,
             "; raise the target, or take another data set");
      high *= 2;
    } while (!keeps(high));
  }
  return detail::boundary(high, low, keeps);
}

/// The largest sampling rate at which `steps` steps of `event_of(rate)` keep the target, to a relative 1e-6 below where
/// the accountant's figure crosses it; 1 when every rate does. event_of: double -> event. Rates down to 1e-12 are
/// tried. Throws dpsgd::error when none of them keeps the target. Cost: some 40 questions to the accountant.
template <accountant Accountant, std::invocable<double> EventOf>
double largest_rate(const privacy_target& target, std::uint64_t steps, EventOf&& event_of,
                    const Accountant& before = {}) {
  static_assert(accounts<Accountant, std::invoke_result_t<EventOf, double>>,
                "dpsgd: this accountant cannot account for this event");
  detail::check(target);
  const auto keeps = [&](double rate) { return detail::keeps(detail::after(before, event_of(rate), steps), target); };
  if (keeps(1)) return 1;
  constexpr double least = 1e-12;
  double good = 0.5, bad = 1;
  while (!keeps(good)) {
    bad = good, good /= 4;
    if (bad < least)
      fail("no sampling rate down to ", least, " keeps epsilon ", target.epsilon, " at delta ", target.delta, " over ",
           steps, " steps: ", before.spent(target.delta).epsilon,
           " was spent on this data before; raise the target or the noise");
  }
  return detail::boundary(good, bad, keeps);
}

/// The largest number of steps of `event` that keep the target, at most `limit`; 0 when there is no room for one more.
/// Steps are counted from where a key is drawn. Cost: up to 2 log2(steps) questions to the accountant about one event.
template <accountant Accountant, privacy_event Event>
std::uint64_t most_steps(const privacy_target& target, const Event& event, const Accountant& before = {},
                         std::uint64_t limit = std::uint64_t{1} << 40) {
  static_assert(accounts<Accountant, Event>, "dpsgd: this accountant cannot account for this event");
  detail::check(target);
  if (limit == 0) return 0;
  if constexpr (epoch_event<Event>) {  // all steps of the epochs that keep it
    event.check();
    const auto epoch = static_cast<std::uint64_t>(event.epoch);
    const auto epochs = most_steps(target, event.event, before, event.releases(limit));
    return std::min(limit, epochs * epoch);
  }
  Accountant first = before;  // with one step, so that what the accountant remembers of the event serves all questions
  first.add(event, 1);
  if (!detail::keeps(first, target)) return 0;
  const auto keeps = [&](std::uint64_t steps) {
    if constexpr (one_release_event<Event>) return detail::keeps(detail::after(before, event, steps), target);
    else return detail::keeps(detail::after(first, event, steps - 1), target);
  };
  if constexpr (one_release_event<Event>) limit = std::min(limit, Event::most_steps);
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
