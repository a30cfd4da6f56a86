/// A clipping policy of your own: automatic clipping (Bu, Wang, Zha and Karypis 2023), next to the usual flat clip.
///
///   flat clip      factor = min(1, C / norm)       short gradients keep their length, long ones are cut to C
///   automatic      factor = C / (norm + gamma)     all gradients come out nearly C long, and C needs no tuning
///
/// The law of a clip is norm * factor(norm) <= sensitivity(). It cannot be read off the type, so check_clip tries it,
/// and the trainer applies min(factor, sensitivity / norm) all the same: a wrong factor costs accuracy, not privacy.
#include <iostream>
#include <vector>

#include "dpsgd/dpsgd.hpp"
#include "dpsgd/testing/laws.hpp"

struct automatic_clip {
  double bound = 1.0,
         gamma = 0.01;  // gamma keeps tiny gradients, that of an example learnt already, from being blown up
  constexpr double factor(double norm) const { return bound / (norm + gamma); }
  constexpr dpsgd::l2_sensitivity<dpsgd::zero_out> sensitivity() const { return {bound}; }
};
static_assert(dpsgd::clip_policy<automatic_clip>);

/// Forgets that a gradient may be long.
struct wrong_clip : automatic_clip {
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
  dpsgd::testing::check_clip(automatic_clip{});
  try {
    dpsgd::testing::check_clip(wrong_clip{});
    return 1;
  } catch (const dpsgd::error& e) {
    std::cout << "a wrong clip is found out: " << e.what() << "\n\n";
  }
  for (const double bound :
       {0.1, 1.0, 10.0}) {  // a bound that is too large costs the flat clip: the noise grows with it
    std::cout << "bound " << bound << '\n';
    train_with("flat_clip     ", dpsgd::flat_clip{.bound = bound});
    train_with("automatic_clip", automatic_clip{.bound = bound});
  }
}
