/// An average of the parameters over the steps of training. The noise that each step adds largely cancels in it, and it
/// costs no privacy: all parameters that it is made of are released (docs/privacy.md).
///
///   dpsgd::parameter_average average{.decay = 0.99};
///   trainer.fit(model, data, {.steps = 1000, .on_step = std::ref(average)});
///   average.store(model);    // instead of the parameters after the last step
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "dpsgd/core/error.hpp"

namespace dpsgd {

/// Exponential moving average (EMA; for DP-SGD De et al. 2022): the parameters of i steps ago weigh decay^i times as much
/// as the last ones, all weights together 1. With decay 1 all weigh the same: from half of the steps on, say, this is
/// tail averaging (Jain et al. 2018).
///   {.decay = 0.99}    EMA, over about the last 100 steps
///   {.first = 501}     the mean of the parameters after step 501 and later
/// Each rank that gives it to its fit has the same bits. It is no part of a checkpoint: after a resume it begins anew.
/// Memory: a double for each parameter; cost: one pass over them each step.
struct parameter_average {
  double decay = 1;         // in [0, 1]
  std::uint64_t first = 1;  // step; the first one is 1, resumed ones count

  std::uint64_t steps = 0;  // that are in it
  std::vector<double> average{};

  /// Adds the parameters after a step. Throws dpsgd::error when decay is out of range.
  void operator()(std::uint64_t step, std::span<const float> parameters) {
    require(decay >= 0 && decay <= 1, "the decay of an average must lie in [0, 1]; got ", decay);
    if (step < first) return;
    average.resize(parameters.size());
    const auto n = static_cast<double>(++steps);
    const double weight = decay == 1 ? 1 / n : (1 - decay) / (1 - std::pow(decay, n));
    for (std::size_t i = 0; i < average.size(); ++i) average[i] += weight * (parameters[i] - average[i]);
  }

  /// Gives the model the average for its parameters; where no step is in it, the model stays as it is. Throws
  /// dpsgd::error when it is the average of another model.
  template <class Model>
  void store(Model& model) const {
    require(steps == 0 || average.size() == model.parameters().size(), "an average of ", average.size(),
            " parameters does not fit a model of ", model.parameters().size());
    std::transform(average.begin(), average.end(), model.parameters().begin(),
                   [](double v) { return static_cast<float>(v); });
  }
};

}  // namespace dpsgd
