/// A clipping policy of your own, next to the usual flat clip: one without a corner.
///
///   flat clip      factor = min(1, C / norm)              short gradients keep their length, long ones are cut to C
///   smooth         factor = C / sqrt(norm^2 + C^2)        the longer, the more it is shortened; none comes out as long as C
///
/// The law of a clip is norm * factor(norm) <= sensitivity(). It cannot be read off the type, so check_clip tries it,
/// and the trainer applies min(factor, sensitivity / norm) all the same: a wrong factor costs accuracy, not privacy.
/// (privacy/clip.hpp has the clips of the literature: automatic, PSAC, by layer.)
#include <cmath>
#include <iostream>
#include <vector>

#include "dpsgd/dpsgd.hpp"
#include "dpsgd/testing/laws.hpp"

struct smooth_clip {
  double bound = 1.0;
  double factor(double norm) const { return bound / std::hypot(norm, bound); }
  constexpr dpsgd::l2_sensitivity<dpsgd::zero_out> sensitivity() const { return {bound}; }
};
static_assert(dpsgd::clip_policy<smooth_clip>);

/// Forgets that a gradient may be long.
struct wrong_clip : smooth_clip {
  constexpr double factor(double) const { return bound; }
};

/// 4,000 records with 8 features in [-1, 1]; the class is 1 when the first two have the same sign. The rest is noise.
dpsgd::dataset records() {
  dpsgd::random_words words({dpsgd::random_key::from_seed(1), dpsgd::domain::synthetic, 0, 0});
  std::vector<float> features(4000 * 8), labels(4000);
  for (auto& f : features) f = static_cast<float>(2 * words.uniform() - 1);
  for (std::size_t i = 0; i < labels.size(); ++i) labels[i] = features[8 * i] * features[8 * i + 1] > 0 ? 1.0f : 0.0f;
  return dpsgd::dataset::from(features, 8, labels);
}

/// Trains the same model with this clip, with a step as large as the bound is small. The claim depends on the noise
/// relative to the sensitivity, so it is the same for every clip and bound.
template <dpsgd::clip_policy Clip>
void train_with(const char* name, Clip clip) {
  const auto [train, test] = dpsgd::split(records(), {.test_fraction = 0.2, .seed = 1});
  dpsgd::mlp model({8, 32, 1});
  dpsgd::trainer trainer{clip, dpsgd::gaussian_noise{.multiplier = 2.0}, dpsgd::poisson_sampling{.rate = 0.05}};
  const auto rate = 1.0 / clip.bound;
  const auto report = trainer.fit(model, train, {.steps = 400, .learning_rate = rate, .delta = 1e-5});
  std::cout << "  " << name << ": accuracy " << dpsgd::accuracy(model, test) << ", epsilon " << report.claim.epsilon
            << '\n';
}

int main() {
  dpsgd::testing::check_clip(smooth_clip{});
  try {
    dpsgd::testing::check_clip(wrong_clip{});
    return 1;
  } catch (const dpsgd::error& e) {
    std::cout << "a wrong clip is found out: " << e.what() << "\n\n";
  }
  for (const double bound :
       {0.1, 1.0, 10.0}) {  // a bound that is too large costs the flat clip: the noise grows with it
    std::cout << "bound " << bound << '\n';
    train_with("flat_clip  ", dpsgd::flat_clip{.bound = bound});
    train_with("smooth_clip", smooth_clip{.bound = bound});
  }
}
