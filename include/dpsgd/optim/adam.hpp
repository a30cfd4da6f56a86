/// Adam (Kingma and Ba 2015).
#pragma once

#include <cmath>

#include "dpsgd/core/numeric.hpp"
#include "dpsgd/optim/optimizer.hpp"

namespace dpsgd {

/// m and v are running means of g and g^2, both corrected for having begun at zero; w -= learning_rate m / (sqrt v +
/// epsilon).
struct adam {
  static constexpr int moments = 2;
  double beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8;

  struct update {
    float rate, beta1, beta2, epsilon, correction1, correction2;
    constexpr float step(float weight, float gradient, float* moment) const {
      moment[0] = beta1 * moment[0] + (1 - beta1) * gradient;
      moment[1] = beta2 * moment[1] + (1 - beta2) * gradient * gradient;
      return weight - rate * (moment[0] * correction1) / (square_root(moment[1] * correction2) + epsilon);
    }
  };
  update rule(const step_facts& facts) const {
    const auto correction = [&](double beta) {
      return static_cast<float>(1 / (1 - std::pow(beta, static_cast<double>(facts.step))));
    };
    return {static_cast<float>(facts.learning_rate),
            static_cast<float>(beta1),
            static_cast<float>(beta2),
            static_cast<float>(epsilon),
            correction(beta1),
            correction(beta2)};
  }
};
static_assert(optimizer<adam>);

}  // namespace dpsgd
