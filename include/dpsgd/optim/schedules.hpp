/// Learning-rate schedules: factors of the learning rate by step.
#pragma once

#include <cmath>
#include <cstdint>

#include "dpsgd/optim/optimizer.hpp"

namespace dpsgd {

/// The same rate all the way.
struct constant_rate {
  constexpr double factor(std::uint64_t, std::uint64_t) const { return 1; }
};

/// Rises from 0 over the first `warmup` share of the steps, then falls along half a cosine to `last` of the rate
/// (Loshchilov and Hutter 2017).
struct cosine_decay {
  double warmup = 0, last = 0;
  double factor(std::uint64_t step, std::uint64_t steps) const {
    const double at = (static_cast<double>(step) + 1) / static_cast<double>(steps);
    if (at < warmup) return at / warmup;
    const double rest = warmup < 1 ? (at - warmup) / (1 - warmup) : 1;
    return last + (1 - last) * 0.5 * (1 + std::cos(3.14159265358979 * rest));
  }
};

/// Falls in a straight line to `last` of the rate.
struct linear_decay {
  double last = 0;
  constexpr double factor(std::uint64_t step, std::uint64_t steps) const {
    return 1 - (1 - last) * static_cast<double>(step) / static_cast<double>(steps);
  }
};

/// Multiplied by `by` after every `every` steps.
struct step_decay {
  std::uint64_t every = 1000;
  double by = 0.1;
  double factor(std::uint64_t step, std::uint64_t) const { return std::pow(by, static_cast<double>(step / every)); }
};

static_assert(learning_rate_schedule<constant_rate> && learning_rate_schedule<cosine_decay>);
static_assert(learning_rate_schedule<linear_decay> && learning_rate_schedule<step_decay>);

}  // namespace dpsgd
