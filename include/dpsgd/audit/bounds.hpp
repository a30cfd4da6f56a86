/// What an attack proves: lower bounds on epsilon from how often an adversary tells two data sets apart.
///
/// An accountant bounds epsilon from above, by mathematics about what the program is meant to do. An audit bounds it from
/// below, by watching what it does. A lower bound above the claim means that the claim is false (or that the audit was
/// unlucky, with the stated probability); one below it proves nothing, but shows how much of the claim an attack uses.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>
#include <vector>

#include "dpsgd/core/error.hpp"

namespace dpsgd::audit {

namespace detail {

/// P[X = k] for X binomial(n, p), 0 < p < 1.
inline double binomial_mass(std::uint64_t k, std::uint64_t n, double p) {
  const auto x = static_cast<double>(k), all = static_cast<double>(n);
  return std::exp(std::lgamma(all + 1) - std::lgamma(x + 1) - std::lgamma(all - x + 1) + x * std::log(p) +
                  (all - x) * std::log1p(-p));
}

}  // namespace detail

/// P[X >= k] for X binomial(n, p). Cost: O(sqrt(n)) terms, summed away from the mean. To a relative 1e-8 for n up to
/// 10^7.
inline double binomial_tail(std::uint64_t k, std::uint64_t n, double p) {
  if (k == 0 || p >= 1) return k <= n ? 1 : 0;
  if (k > n || p <= 0) return 0;
  const double odds = p / (1 - p);
  const bool upper = static_cast<double>(k) > static_cast<double>(n) * p;
  double sum = 0;
  if (upper) {
    double mass = detail::binomial_mass(k, n, p);
    for (std::uint64_t i = k;; ++i) {
      sum += mass;
      if (i == n || mass <= sum * 1e-17) return sum;
      mass *= static_cast<double>(n - i) / static_cast<double>(i + 1) * odds;
    }
  }
  double mass = detail::binomial_mass(k - 1, n, p);
  for (std::uint64_t i = k - 1;; --i) {
    sum += mass;
    if (i == 0 || mass <= sum * 1e-17) return std::max(0.0, 1 - sum);
    mass *= static_cast<double>(i) / (static_cast<double>(n - i + 1) * odds);
  }
}

/// The probability p of something that came `hits` times in `trials` is at least this, with probability 1 - alpha
/// (Clopper and Pearson 1934; exact, so true for any number of trials).
inline double probability_at_least(std::uint64_t hits, std::uint64_t trials, double alpha) {
  require(hits <= trials && alpha > 0 && alpha < 1, "a bound needs hits <= trials and alpha in (0, 1); got ", hits,
          " of ", trials, ", alpha ", alpha);
  if (hits == 0) return 0;
  double low = 0, high = 1;  // so many hits are too rare at low, and not at high
  for (int i = 0; i < 80 && low < high; ++i) {
    const double middle = (low + high) / 2;
    (binomial_tail(hits, trials, middle) <= alpha ? low : high) = middle;
  }
  return low;
}

/// ... and at most this.
inline double probability_at_most(std::uint64_t hits, std::uint64_t trials, double alpha) {
  return 1 - probability_at_least(trials - hits, trials, alpha);
}

/// Epsilon is at least this, with probability `confidence`: an event (a set of outputs, fixed beforehand) came `on` times
/// in `on_trials` runs on one data set and `off` times in `off_trials` runs on its neighbour. At the true probabilities
/// (epsilon, delta)-DP says on <= e^epsilon off + delta. 0 when nothing is shown.
inline double epsilon_at_least(std::uint64_t on, std::uint64_t on_trials, std::uint64_t off, std::uint64_t off_trials,
                               double delta, double confidence) {
  const double alpha = (1 - confidence) / 2;  // each of the two bounds may fail
  const double often = probability_at_least(on, on_trials, alpha) - delta;
  const double seldom = probability_at_most(off, off_trials, alpha);
  return often > seldom ? std::log(often / seldom) : 0;
}

/// How an adversary decides from a score: present if it is at or above `threshold`, or if it is below.
struct decision {
  double threshold = 0;
  bool above = true;
};

/// Scores of runs with the record and of runs without it. Larger or smaller ones speak for its presence.
struct scores {
  std::vector<double> present, absent;
};

namespace detail {
inline std::uint64_t count_above(std::span<const double> values, double threshold) {
  return static_cast<std::uint64_t>(
      std::count_if(values.begin(), values.end(), [&](double v) { return v >= threshold; }));
}
}  // namespace detail

/// Epsilon is at least this, with probability `confidence`, by a decision that was fixed on other runs. The mirror image
/// (the record's absence gives itself away) is an event like any other, and is what !above tests.
inline double epsilon_at_least(const scores& s, const decision& d, double delta, double confidence) {
  const auto with = detail::count_above(s.present, d.threshold), without = detail::count_above(s.absent, d.threshold);
  const auto all_with = s.present.size(), all_without = s.absent.size();
  if (d.above) return epsilon_at_least(with, all_with, without, all_without, delta, confidence);
  return epsilon_at_least(all_without - without, all_without, all_with - with, all_with, delta, confidence);
}

/// The decision that shows most on these runs. Judge it on others: on these it is flattered.
inline decision best_decision(const scores& s, double delta, double confidence) {
  auto sorted = s.absent;
  sorted.insert(sorted.end(), s.present.begin(), s.present.end());
  std::sort(sorted.begin(), sorted.end());
  decision best;
  double most = -1;
  const auto consider = [&](std::size_t place) {
    for (const bool above : {true, false}) {
      const decision d{sorted[place], above};
      if (const double shown = epsilon_at_least(s, d, delta, confidence); shown > most) most = shown, best = d;
    }
  };
  require(!sorted.empty(), "there are no scores to decide by");
  for (std::size_t i = 0; i < sorted.size(); i = i + 1 + i / 8) consider(i), consider(sorted.size() - 1 - i);
  return best;
}

/// One run with `canaries` records, each present or not by the toss of a coin, of which the adversary guessed `guesses`
/// and got `correct` right: if epsilon were smaller than what this returns, that would have happened with probability
/// below 1 - confidence. (Steinke, Nasr and Jagielski 2023, "Privacy Auditing with One (1) Training Run", theorem 5.2.)
/// How many to guess must have been fixed beforehand. Weaker than many runs by nature: one run cannot show a large
/// epsilon with few canaries.
inline double epsilon_at_least_one_run(std::uint64_t canaries, std::uint64_t guesses, std::uint64_t correct,
                                       double delta, double confidence) {
  require(correct <= guesses && guesses <= canaries, "an audit by one run needs correct <= guesses <= canaries; got ",
          correct, ", ", guesses, ", ", canaries);
  require(delta >= 0 && delta < 1 && confidence > 0 && confidence < 1,
          "an audit needs delta in [0, 1) and a confidence in (0, 1); got ", delta, ", ", confidence);
  // The probability of so many right guesses, were the run (epsilon, delta)-DP: each is right with probability at most
  // that of randomised response, save what delta may change.
  const auto chance = [&](double epsilon) {
    const double p = 1 / (1 + std::exp(-epsilon));
    const double tail = binomial_tail(correct, guesses, p);
    double slope = 0, just_below = 0;  // max over i of P[correct - i <= X < correct] / i
    for (std::uint64_t i = 1; delta > 0 && i <= correct; ++i) {
      const double mass = detail::binomial_mass(correct - i, guesses, p);
      just_below += mass;
      slope = std::max(slope, just_below / static_cast<double>(i));
      if (mass < 1e-18 && static_cast<double>(correct - i) < static_cast<double>(guesses) * p)
        break;  // the rest is less
    }
    return tail + 2 * delta * static_cast<double>(canaries) * slope;
  };
  if (correct == 0 || chance(0) > 1 - confidence) return 0;
  double low = 0, high = 1;
  while (chance(high) <= 1 - confidence && high < 64) low = high, high *= 2;
  for (int i = 0; i < 60; ++i) {
    const double middle = (low + high) / 2;
    (chance(middle) <= 1 - confidence ? low : high) = middle;
  }
  return low;
}

/// A number that was estimated, and where the true one lies.
struct interval {
  double value = 0, low = 0, high = 0;
};

namespace detail {
/// P[|T| <= t] for Student's T with `freedom` degrees of freedom (Abramowitz and Stegun 26.7.3 and 26.7.4).
inline double student_within(double t, int freedom) {
  const double angle = std::atan(t / std::sqrt(static_cast<double>(freedom))), c = std::cos(angle);
  const bool odd = freedom % 2 == 1;
  double term = odd ? c : 1, sum = freedom > 1 ? term : 0;
  for (int k = odd ? 3 : 2; k < freedom; k += 2) term *= c * c * (k - 1) / k, sum += term;
  return odd ? 2 / 3.14159265358979323846 * (angle + std::sin(angle) * sum) : std::sin(angle) * sum;
}
}  // namespace detail

/// The mean of independent repetitions, and Student's interval around it: exact for normal ones, near enough for means
/// of many records. Throws dpsgd::error for fewer than two.
inline interval mean_interval(std::span<const double> repetitions, double confidence) {
  const auto n = static_cast<double>(repetitions.size());
  require(repetitions.size() >= 2 && confidence > 0 && confidence < 1,
          "an interval around a mean needs two repetitions or more, and a confidence in (0, 1); got ",
          repetitions.size(), " and ", confidence);
  double mean = 0, square = 0;
  for (const double v : repetitions) mean += v / n;
  for (const double v : repetitions) square += (v - mean) * (v - mean);
  double low = 0, high = 1e9;
  for (int i = 0; i < 100; ++i) {
    const double t = (low + high) / 2;
    (detail::student_within(t, static_cast<int>(repetitions.size()) - 1) < confidence ? low : high) = t;
  }
  const double reach = high * std::sqrt(square / (n - 1) / n);
  return {mean, mean - reach, mean + reach};
}

}  // namespace dpsgd::audit
