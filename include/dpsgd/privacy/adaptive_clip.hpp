/// A clip bound that follows a quantile of the gradients' norms, privately.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>

#include "dpsgd/core/error.hpp"
#include "dpsgd/privacy/clip.hpp"

namespace dpsgd {

/// Adaptive clipping (Andrew, Thakkar, McMahan and Ramaswamy 2021): clips as flat_clip does, to a bound C that moves
/// after each step by how many of the step's gradients were no longer than it:
///   C <- C exp(-rate (fraction - quantile)),   kept in [least, most]
///
/// The count is one more coordinate of the vector that travels, to which an example gives share C (b - 1/2), where b is
/// 1 if its norm is at most C, else 0. So an example moves gradient and count together by at most C sqrt(1 + share^2/4),
/// which is the sensitivity: one event whose noise multiplier is the trainer's. The gradient alone then has noise of
/// z_g = z sqrt(1 + share^2/4) bounds, and the count one of z_b = 2 z_g / share times its sensitivity: as it must be,
/// z = (z_g^-2 + z_b^-2)^-1/2. A share of 0.1 adds an eighth of a percent to the noise on the gradient.
///
/// The fraction is counted per expected batch of B examples: its noise has standard deviation z_g / (share B), plus
/// 1 / (2 sqrt B) at most for who happens to be drawn.
///
/// The paper's quantile is the median. A classifier that is right most of the time has gradients near zero for most
/// examples, and the median sinks with them (docs/decisions/clips-with-coordinates.md): hence 0.8.
struct adaptive_clip {
  static constexpr std::size_t extra = 1;  // the count

  double bound = 1.0;               // C at first, in units of the gradient; public, in [least, most]
  double quantile = 0.8;            // of the examples, how many are to be no longer than C; in (0, 1)
  double rate = 0.2;                // how fast C moves: by a factor of at most about e^rate a step; positive
  double share = 0.1;               // of the count beside the gradient, in [1e-6, 10]
  double least = 1e-6, most = 1e6;  // C stays between; public, in [1e-12, 1e12]

  double factor(double norm) const { return norm > bound ? bound / norm : 1.0; }
  double contribution(double norm, std::size_t) const { return share * bound * (norm <= bound ? 0.5 : -0.5); }
  l2_sensitivity<zero_out> sensitivity() const { return {bound * std::sqrt(1 + share * share / 4)}; }

  double next(std::size_t, double mean) const {
    const double fraction = mean / (share * bound) + 0.5;
    return std::clamp(bound * std::exp(-rate * (fraction - quantile)), least, most);
  }
  void load(std::size_t, double value) { bound = value; }
  double value(std::size_t) const { return bound; }

  void check(std::size_t) const {
    require(least >= 1e-12 && least <= most && most <= 1e12,
            "the range of an adaptive clip's bound must lie in [1e-12, 1e12]; got [", least, ", ", most, "]");
    require(bound >= least && bound <= most, "an adaptive clip's first bound must lie in its range [", least, ", ",
            most, "]; got ", bound);
    require(quantile > 0 && quantile < 1, "an adaptive clip's quantile must lie in (0, 1); got ", quantile);
    require(rate > 0 && rate <= 100, "an adaptive clip's rate must lie in (0, 100]; got ", rate);
    // A larger one would be noise on the gradient alone, and in a wide model what rounding may take off a norm would
    // leave the gradient no room beside the count.
    require(share >= 1e-6 && share <= 10, "the share of an adaptive clip's count must lie in [1e-6, 10]; got ", share);
  }
};
static_assert(clip_with_coordinates<adaptive_clip>);

}  // namespace dpsgd
