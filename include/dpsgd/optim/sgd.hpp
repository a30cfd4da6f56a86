/// Stochastic gradient descent, with momentum if wanted.
#pragma once

#include "dpsgd/optim/optimizer.hpp"

namespace dpsgd {

/// m = momentum m + g; w -= learning_rate m (as torch.optim.SGD). Momentum 0 is plain SGD.
struct sgd {
  static constexpr int moments = 1;
  double momentum = 0;  // in [0, 1)

  struct update {
    float rate, momentum;
    constexpr float step(float weight, float gradient, float* moment) const {
      moment[0] = momentum * moment[0] + gradient;
      return weight - rate * moment[0];
    }
  };
  constexpr update rule(const step_facts& facts) const {
    return {static_cast<float>(facts.learning_rate), static_cast<float>(momentum)};
  }
};
static_assert(optimizer<sgd>);

}  // namespace dpsgd
