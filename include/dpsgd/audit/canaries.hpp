/// Canaries: records made to be found. Whether a canary was in the data is what an attack has to tell.
///
/// Canary j's gradient points along one coordinate of its own and is longer than any clip bound, so what travels of it
/// is the bound itself, the most that one record may change. The adversary sees what is released of every step (white
/// box): he sits in the optimizer's place, which by the law of optimizers sees nothing else.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string_view>
#include <vector>

#include "dpsgd/data/dataset.hpp"
#include "dpsgd/nn/losses.hpp"
#include "dpsgd/nn/mlp.hpp"
#include "dpsgd/optim/optimizer.hpp"
#include "dpsgd/privacy/clip.hpp"
#include "dpsgd/privacy/noise.hpp"
#include "dpsgd/privacy/sampling.hpp"
#include "dpsgd/train/trainer.hpp"

namespace dpsgd::audit {

/// What the adversary makes of the released values of his coordinate.
enum class statistic {
  likelihood,  ///< the logarithm of their likelihood with the canary over that without it, for the event that is claimed:
               ///< by Neyman and Pearson the best there is where the claim is true
  spread       ///< the largest less the smallest: finds noise that repeats
};

/// An optimizer that learns nothing and watches: weights stay as they are until the last step, which puts each
/// coordinate's statistic in the place of its weight.
struct spy {
  static constexpr int moments = 2;

  audit::statistic statistic = statistic::likelihood;
  std::uint64_t steps = 1;         // of the run
  double rate = 1;                 // of sampling, as claimed
  double multiplier = 1;           // of noise, as claimed
  double gradients_per_bound = 1;  // what the averaged gradient is multiplied by: then the canary's share is 1

  struct update {
    bool spread, first, last;
    double rate, variance, scale;
    float step(float weight, float gradient, float* moment) const {
      const double value = gradient * scale;
      if (spread) {
        if (first) moment[0] = moment[1] = static_cast<float>(value);
        moment[0] = std::max(moment[0], static_cast<float>(value));
        moment[1] = std::min(moment[1], static_cast<float>(value));
        return last ? moment[0] - moment[1] : weight;
      }
      // N(1, variance) with probability rate, else N(0, variance), against N(0, variance).
      const double power = (value - 0.5) / variance;
      moment[0] += static_cast<float>(power > 700 ? std::log(rate) + power : std::log1p(rate * std::expm1(power)));
      return last ? moment[0] : weight;
    }
  };
  update rule(const step_facts& facts) const {
    return {statistic == audit::statistic::spread,
            facts.step == 1,
            facts.step == steps,
            rate,
            multiplier * multiplier,
            gradients_per_bound};
  }
};
static_assert(optimizer<spy>);

/// For runs whose epsilon nobody asks: it answers infinity, so that no claim comes of it.
struct unasked_accountant {
  static constexpr std::string_view name = "no accountant";
  struct answer {
    double epsilon;
  };
  template <privacy_event Event>
  void add(const Event&, std::uint64_t) {}
  answer spent(double) const { return {std::numeric_limits<double>::infinity()}; }
};

/// One row for each canary. Where present[j], row j's gradient (at zero weights, squared error) is a thousand along
/// weight j; where not, the row contributes nothing at all, as the neighbour under zero-out adjacency has it.
inline dataset canaries(const std::vector<bool>& present) {
  const std::size_t n = present.size();
  std::vector<float> features(n * n), labels(n);
  for (std::size_t j = 0; j < n; ++j)
    if (present[j]) features[j * n + j] = 1000, labels[j] = -1;
  return dataset::from(features, n, labels, label_kind::regression);
}

/// Trains once on canaries, with these policies, and returns the statistic of each canary's coordinate.
/// `rate`: of the sampling, as claimed. Cost: the trainer's, with a model of present.size() weights on as many rows.
template <clip_policy Clip, noise_policy Noise, class Sampling>
std::vector<double> canary_scores(const Clip& clip, const Noise& noise, const Sampling& sampling, double rate,
                                  std::uint64_t steps, statistic what, const std::vector<bool>& present) {
  const auto data = canaries(present);
  mlp model({present.size(), 1}, {.loss = any_loss{squared_error{}}});
  for (auto& weight : model.parameters()) weight = 0;
  const double bound = clip.sensitivity().value;
  const double batch = sampling.expected_batch(data.all());
  trainer t{clip, noise, sampling, unasked_accountant{},
            spy{what, steps, rate, std::sqrt(noise.variance(bound)) / bound, batch / bound}};
  t.fit(model, data, {.steps = steps, .learning_rate = 1, .delta = 0.5});
  const auto weights = model.parameters().first(present.size());
  return {weights.begin(), weights.end()};
}

}  // namespace dpsgd::audit
