/// What to train with for a promise: batch size, noise and learning rate, from the number of records and the target, all
/// of them public. The rule of `account --advise`; docs/accuracy.md says where it comes from and how it was checked.
///
/// How much noise is left of a run's T steps at batch B, when the steps' mean gradients are averaged, is
///   noise = multiplier / (B sqrt T)        standard deviation of a coordinate, in units of the clip bound.
/// For T steps it falls as the batch grows, to what one step on all records would leave for the same promise (Ponomareva
/// et al. 2023, "How to DP-fy ML", 5.4: larger batches until it hurts the run time). So the smallest batch that is close to
/// it is advised: more records a step would cost time and buy nothing.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "dpsgd/accounting/calibrate.hpp"
#include "dpsgd/accounting/events.hpp"
#include "dpsgd/accounting/pld.hpp"
#include "dpsgd/core/error.hpp"

namespace advice {

/// What is known before training. Steps or epochs; neither: `usual_steps`.
struct wish {
  std::uint64_t records = 0;  // to train on
  dpsgd::privacy_target target;
  std::optional<std::uint64_t> steps;
  std::optional<double> epochs;
};

/// One batch size, with the least noise that keeps the promise.
struct setting {
  double batch, rate;  // rate: of sampling
  std::uint64_t steps;
  double multiplier, noise;
  double epochs() const { return rate * static_cast<double>(steps); }
};

struct answer {
  std::vector<setting> settings;  // by batch size, the last one all records
  std::size_t best = 0;           // the one that is advised
  double parameters = 0;          // a network of more has more noise in its gradient than `loud` allows
  double linear_rate = 0, network_rate = 0;
};

inline constexpr std::uint64_t usual_steps = 400;
inline constexpr double close = 1.05;  // of the least noise: not worth a larger batch
inline constexpr double loud = 0.1;    // noise of all coordinates together, in units of the clip bound

/// Learning rate x sqrt(steps), of Adam at a constant rate. Where noise rules, each step moves a coordinate by about the
/// rate in a direction that is nearly the noise's, and so all steps by sqrt(steps) times as much, whatever epsilon is.
inline constexpr double linear_walk = 0.35, network_walk = 0.2;

/// Batches of N, N / 2, N / 4, ... records. Throws dpsgd::error where the target cannot be met. Cost: a calibration for each.
inline answer advise(const wish& asked) {
  using namespace dpsgd;
  require(asked.records > 0, "there are no records to train on");
  require(asked.steps.value_or(1) > 0, "steps must be above 0");
  require(!asked.epochs || (*asked.epochs > 0 && *asked.epochs <= 1e6),
          "epochs must be above 0, and at most 10^6; got ", asked.epochs.value_or(0));
  const auto n = static_cast<double>(asked.records);
  answer a;
  for (double batch = n; batch >= std::min(n, 32.0) && a.settings.size() < 12; batch = std::round(batch / 2)) {
    if (!a.settings.empty() && batch == a.settings.back().batch) break;  // half of one record

    const double rate = batch / n;
    const auto steps =
        asked.epochs ? static_cast<std::uint64_t>(std::ceil(*asked.epochs / rate)) : asked.steps.value_or(usual_steps);
    const double multiplier = smallest_multiplier<pld_accountant>(asked.target, steps, [&](double z) {
      return poisson_sampled{rate, gaussian_event<zero_out>{z}};
    });
    a.settings.push_back(
        {batch, rate, steps, multiplier, multiplier / (batch * std::sqrt(static_cast<double>(steps)))});
  }
  std::reverse(a.settings.begin(), a.settings.end());
  double least = a.settings.back().noise;
  for (const auto& s : a.settings) least = std::min(least, s.noise);
  while (a.settings[a.best].noise > close * least) ++a.best;
  const auto& best = a.settings[a.best];
  a.parameters = std::pow(loud / best.noise, 2);
  const double walk = std::sqrt(static_cast<double>(best.steps));
  a.linear_rate = linear_walk / walk, a.network_rate = network_walk / walk;
  return a;
}

}  // namespace advice
