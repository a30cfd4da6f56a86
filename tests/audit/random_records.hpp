/// Records whose labels are tossed coins, so that there is nothing to learn but the records themselves; and a model that
/// does so.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "dpsgd/dpsgd.hpp"

namespace test {

inline constexpr std::size_t random_width = 6;

/// Features in [-1, 1], but the last one, which is -1 or 1 by the toss of a coin. Labels are coins, too, or numbers in
/// [-1, 1].
inline dpsgd::dataset random_records(std::size_t n, std::uint64_t seed, bool numbers = false) {
  dpsgd::random_words draw({dpsgd::random_key::from_seed(seed), dpsgd::domain::user, 0, 0});
  std::vector<float> features(n * random_width), labels(n);
  for (std::size_t i = 0; i < n; ++i) {
    for (std::size_t c = 0; c < random_width; ++c)
      features[i * random_width + c] = static_cast<float>(2 * draw.uniform() - 1);
    features[(i + 1) * random_width - 1] = draw.below(2) ? 1.0f : -1.0f;
    labels[i] = numbers ? static_cast<float>(2 * draw.uniform() - 1) : static_cast<float>(draw.below(2));
  }
  return dpsgd::dataset::from(features, random_width, labels,
                              numbers ? dpsgd::label_kind::regression : dpsgd::label_kind::two_classes);
}

/// Trained on `members`, without privacy, until it knows all of them.
inline dpsgd::mlp by_heart(const dpsgd::dataset& members, const dpsgd::any_loss& loss = {}) {
  dpsgd::mlp model({random_width, 64, 1}, {.activation = dpsgd::relu{}, .loss = loss, .seed = 1});
  dpsgd::trainer t{dpsgd::no_clip{}, dpsgd::no_noise{}, dpsgd::poisson_sampling{1}, dpsgd::adam{}};
  t.fit(model, members, {.steps = 2000, .learning_rate = 0.01, .delta = 1e-3, .insecure_seed = 1});
  return model;
}

}  // namespace test
