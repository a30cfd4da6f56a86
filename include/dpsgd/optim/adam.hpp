/// Adam (Kingma and Ba 2015), and Adam that takes the noise of DP-SGD out of its second moment (Tang and Lécuyer 2023).
#pragma once

#include <algorithm>
#include <cmath>

#include "dpsgd/core/error.hpp"
#include "dpsgd/core/numeric.hpp"
#include "dpsgd/optim/optimizer.hpp"

namespace dpsgd {

/// m and v are running means of g and g^2, both corrected for having begun at zero; w -= learning_rate m / (sqrt v +
/// epsilon).
///
/// Noise of variance N on g makes v too large by N. Where the noise is much larger than the gradients, all v are about N,
/// and Adam is SGD with momentum at the rate learning_rate / sqrt N. correct_noise takes N out again (DP-AdamBC, Tang and
/// Lécuyer 2023): max(v - N, noise_floor N) stands for v. v is known to about N sqrt(1 - beta2), 0.03 N, so a floor much
/// below that divides by chance; with floor f, a coordinate that is all noise moves sqrt(1 / f) times as far as Adam would
/// move it. N is public, so neither costs privacy; without noise both are the same, bit by bit.
struct adam {
  static constexpr int moments = 2;
  double beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8;
  bool correct_noise = false;
  double noise_floor = 0.1;  // of correct_noise: above 0, in units of the noise's variance

  struct update {
    float rate, beta1, beta2, epsilon, correction1, correction2, noise, floor;

    /// What stands for the mean square of a coordinate's gradient, given its moments[1].
    constexpr float mean_square(float moment) const { return std::max(moment * correction2 - noise, floor); }

    constexpr float step(float weight, float gradient, float* moment) const {
      moment[0] = beta1 * moment[0] + (1 - beta1) * gradient;
      moment[1] = beta2 * moment[1] + (1 - beta2) * gradient * gradient;
      return weight - rate * (moment[0] * correction1) / (square_root(mean_square(moment[1])) + epsilon);
    }
  };
  /// Throws dpsgd::error when noise_floor is not above 0.
  update rule(const step_facts& facts) const {
    require(noise_floor > 0 && std::isfinite(noise_floor),
            "adam's noise_floor, in units of the noise's variance, must be above 0; got ", noise_floor);
    const auto correction = [&](double beta) {
      return static_cast<float>(1 / (1 - std::pow(beta, static_cast<double>(facts.step))));
    };
    const double noise = correct_noise ? facts.noise_variance : 0;
    return {static_cast<float>(facts.learning_rate),
            static_cast<float>(beta1),
            static_cast<float>(beta2),
            static_cast<float>(epsilon),
            correction(beta1),
            correction(beta2),
            static_cast<float>(noise),
            static_cast<float>(noise_floor * noise)};
  }
};
static_assert(optimizer<adam>);

}  // namespace dpsgd
