/// Gaussian DP's central-limit figure: quick and often near, but AN APPROXIMATION THAT CAN BE TOO LOW. For comparison
/// alone: it is no accountant, and no claim can be made of it.
#pragma once

#include <cmath>
#include <concepts>
#include <cstdint>
#include <limits>
#include <string_view>

#include "dpsgd/accounting/claim.hpp"
#include "dpsgd/accounting/events.hpp"
#include "dpsgd/core/error.hpp"

namespace dpsgd {

/// Takes many sampled Gaussian steps for one Gaussian release, which they approach as the steps grow and the rates
/// shrink (Bu, Dong, Long and Su 2020, "Deep learning with Gaussian differential privacy"):
///   mu^2 = sum over the steps of rate^2 (e^(1/multiplier^2) - 1)
///   delta(epsilon) = Phi(mu/2 - epsilon/mu) - e^epsilon Phi(-mu/2 - epsilon/mu)
/// It has estimate(), not spent(), so that it satisfies `accountant` nowhere.
class gdp_approximation {
 public:
  static constexpr std::string_view name = "GDP";
  static constexpr std::string_view warning = "an approximation that can be too low";

  /// Throws dpsgd::error on impossible numbers (NaN, a rate above 1, ...).
  void add(const poisson_sampled<gaussian_event<zero_out>>& event, std::uint64_t steps) {
    event.check();
    require(rows_of(event) == 1, "the GDP figure is not known for several rows of one owner; use pld_accountant");
    if (steps == 0 || event.is_free()) return;
    const double noise = event.event.multiplier;
    mu_square_ += static_cast<double>(steps) * event.rate * event.rate * std::expm1(1 / (noise * noise));
  }

  /// All steps of one key: one Gaussian, of which the figure is exact where nothing else was added.
  template <one_release_event Event>
  requires std::same_as<typename Event::adjacency, zero_out>
  void add(const Event& event, std::uint64_t steps) {
    event.check();
    if (steps == 0 || event.is_free()) return;
    const double noise = event.release(steps).multiplier;
    mu_square_ += 1 / (noise * noise);
  }

  /// The epsilon at which the approximate delta is `delta`, by bisection to 1e-12; 0 where that suffices alone. Throws
  /// dpsgd::error when delta is negative or NaN.
  double estimate(double delta) const {
    require(delta >= 0, "delta must be a number >= 0; got ", delta);
    constexpr double infinity = std::numeric_limits<double>::infinity();
    if (mu_square_ == 0 || delta >= 1) return 0;
    const double mu = std::sqrt(mu_square_);
    const auto delta_at = [&](double epsilon) {
      return normal(mu / 2 - epsilon / mu) - std::exp(epsilon) * normal(-mu / 2 - epsilon / mu);
    };
    if (delta_at(0) <= delta) return 0;
    if (delta == 0 || !(mu < 30)) return infinity;  // e^epsilon would overflow
    double low = 0, high = 1;
    while (delta_at(high) > delta && high < 700) high *= 2;
    while (high - low > 1e-12 * high) {
      const double middle = (low + high) / 2;
      if (middle == low || middle == high) break;
      (delta_at(middle) > delta ? low : high) = middle;
    }
    return high;
  }

 private:
  static double normal(double z) { return std::erfc(-z * 0.707106781186547524) / 2; }

  double mu_square_ = 0;
};
static_assert(!accountant<gdp_approximation>);

/// There is no such claim.
template <privacy_event Event>
claim make_claim(const gdp_approximation&, const Event&, double, exposure = {}) {
  static_assert(!std::same_as<Event, Event>,
                "dpsgd: the GDP figure is an approximation that can be too low, so nothing may be claimed by it; use "
                "pld_accountant");
  return {};
}

}  // namespace dpsgd
