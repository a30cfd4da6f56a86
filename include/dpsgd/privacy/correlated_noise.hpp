/// Noise that is correlated over the steps: each step takes back a part of what earlier steps added, so that sums over
/// many steps, which is what a model is made of, carry less noise than the steps' own would add up to.
///
///   trainer t{world, flat_clip{1.0}, banded_noise{.multiplier = 4, .bands = 32}, cyclic_sampling{.batches = 100}};
///
/// With independent standard normal w_0, w_1, ... on each coordinate, step t adds
///   multiplier x sensitivity x sum over lags of weight(lag) w_{t - lag},      weight(0) = 1, w before the key's begin: 0.
/// A step's w are words of the stream at (key, step), so they are drawn again rather than kept: the noise has no state,
/// any rank draws any coordinate of any step, and a checkpoint holds nothing of it. The whole combination goes by this
/// step's sensitivity, whatever the clip's was earlier: sums are released in units of it, and in those no row ever adds
/// more than 1.
///
///   banded_noise   the first `bands` coefficients of (1 - x)^(1/2)        costs `bands` times what gaussian_noise does
///   tree_noise     the binary mechanism                                   twice as much, on average
///
/// All steps of a key are one Gaussian release of what a row adds to all of them (accounting/participation.hpp). For that
/// it must be known which steps a row joins: cyclic_sampling says so, and no other sampling compiles.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "dpsgd/accounting/events.hpp"
#include "dpsgd/accounting/participation.hpp"
#include "dpsgd/core/error.hpp"
#include "dpsgd/core/normal.hpp"
#include "dpsgd/core/numeric.hpp"
#include "dpsgd/core/random.hpp"
#include "dpsgd/privacy/noise.hpp"
#include "dpsgd/privacy/sensitivity.hpp"

namespace dpsgd {

namespace detail {

/// out += weight x the words of a step. (By itself, so that the compiler sees loops it can vectorise.)
[[gnu::noinline]] inline void add_words(const random_stream& words, std::uint32_t block, float weight, float* out) {
  alignas(64) float word[normal_block_size];
  normal_block(words, block, word);
  for (std::size_t i = 0; i < normal_block_size; ++i) out[i] = fma(weight, word[i], out[i]);
}

/// out = deviation x the noise's combination at `words.step`. Noise::terms(step, use) gives use(lag, weight), lag 0
/// first.
template <class Noise>
void draw_combination(const Noise& noise, const random_stream& words, std::uint32_t block, double deviation,
                      float* out) {
  std::fill_n(out, normal_block_size, 0.0f);
  noise.terms(words.step, [&](std::uint64_t lag, float weight) {
    auto of_step = words;
    of_step.step -= lag;
    add_words(of_step, block, weight, out);
  });
  const auto scale = static_cast<float>(deviation);
  for (std::size_t i = 0; i < normal_block_size; ++i) out[i] *= scale;
}

/// One part of it, for devices: use(place, value), with the same bits.
template <class Noise, class Use>
constexpr void draw_combination_part(const Noise& noise, const random_stream& words, std::uint32_t block,
                                     std::uint32_t part, double deviation, Use&& use) {
  constexpr std::size_t count = normal_block_size / normal_parts;
  float sum[count]{};
  std::size_t places[count]{};
  noise.terms(words.step, [&](std::uint64_t lag, float weight) {
    auto earlier = words;
    earlier.step -= lag;
    std::size_t i = 0;
    normal_part(earlier, block, part, [&](std::size_t place, float word) {
      places[i] = place;
      sum[i] = fma(weight, word, sum[i]);
      ++i;
    });
  });
  for (std::size_t i = 0; i < count; ++i) use(places[i], sum[i] * static_cast<float>(deviation));
}

/// The covariance of two steps' combinations. Cost: the words of one step, where it is the other one; else of both,
/// multiplied.
template <class Noise>
double combined_covariance(const Noise& noise, std::uint64_t step, std::uint64_t other) {
  double sum = 0;
  noise.terms(step, [&](std::uint64_t lag, float weight) {
    if (step == other) sum += double{weight} * weight;
    else
      noise.terms(other, [&](std::uint64_t other_lag, float other_weight) {
        if (step - lag == other - other_lag) sum += double{weight} * other_weight;
      });
  });
  return sum;
}

}  // namespace detail

/// The banded inverse square root (Kalinin, McKenna, Upadhyay and Lampert 2025): a step's noise is its own word less a
/// half of the last one's, an eighth of the one's before, and so on, `bands` words in all. 1 band is independent noise.
/// More bands cancel more and cost more; docs/privacy.md has figures. Costs `bands` times as much as gaussian_noise.
struct banded_noise {
  using value = float;
  static constexpr std::size_t block_size = normal_block_size;

  double multiplier = 1.0;   // z: deviation of a word's share / sensitivity; positive
  std::uint32_t bands = 32;  // from 1 to 4,096

  /// Throws dpsgd::error where the number of bands is impossible.
  void check() const {
    require(bands >= 1 && bands <= correlated_gaussian_event<zero_out>::most_bands,
            "banded noise has from 1 to 4,096 bands; got ", bands);
  }
  /// use(lag, weight) for the words that a step combines.
  template <class Use>
  constexpr void terms(std::uint64_t step, Use&& use) const {
    double weight = 1;
    for (std::uint64_t lag = 0; lag < bands && lag <= step; weight = next_root_coefficient(weight, ++lag))
      use(lag, static_cast<float>(weight));
  }
  void draw(const random_stream& words, std::uint32_t block, double sensitivity, float* out) const {
    detail::draw_combination(*this, words, block, multiplier * sensitivity, out);
  }
  static constexpr std::size_t parts = normal_parts;
  template <class Use>
  constexpr void draw_part(const random_stream& words, std::uint32_t block, std::uint32_t part, double sensitivity,
                           Use&& use) const {
    detail::draw_combination_part(*this, words, block, part, multiplier * sensitivity, use);
  }
  /// Of the noise of two steps, under one key and sensitivity, on each coordinate of the sum.
  double covariance(double sensitivity, std::uint64_t step, std::uint64_t other) const {
    return multiplier * sensitivity * multiplier * sensitivity * detail::combined_covariance(*this, step, other);
  }

  /// Throws dpsgd::error where the number of bands is impossible.
  template <class Adjacency>
  correlated_gaussian_event<Adjacency> event(l2_sensitivity<Adjacency>) const {
    check();
    return {multiplier, static_cast<double>(bands)};
  }
};
static_assert(noise_policy<banded_noise>);

/// The binary mechanism (Dwork et al. 2010; Chan, Shi and Song 2011; for training Kairouz et al. 2021). Steps are leaves
/// of a binary tree, and the noise of the first t steps together is that of the tree's nodes that cover them, one for
/// each 1 among t's binary digits. A node has the word of the step that ends it, and a step's noise is what the cover
/// changes by:
///   t = 1   w1                              +---- w4 ----+
///   t = 2   w2 - w1                         +- w2 -+     |
///   t = 3   w3                              w1     |     w3    |
///   t = 4   w4 - w3 - w2                    1      2     3     4      (steps counted from 1)
/// It is here to compare with: banded_noise of a few bands has less noise at the same epsilon.
struct tree_noise {
  using value = float;
  static constexpr std::size_t block_size = normal_block_size;

  double multiplier = 1.0;  // z: deviation of a node's noise / sensitivity; positive

  /// use(lag, weight) for the words that a step combines.
  template <class Use>
  constexpr void terms(std::uint64_t step, Use&& use) const {
    use(0, 1.0f);
    for (std::uint64_t lag = 1; (step + 1) % (2 * lag) == 0; lag *= 2) use(lag, -1.0f);
  }
  void draw(const random_stream& words, std::uint32_t block, double sensitivity, float* out) const {
    detail::draw_combination(*this, words, block, multiplier * sensitivity, out);
  }
  static constexpr std::size_t parts = normal_parts;
  template <class Use>
  constexpr void draw_part(const random_stream& words, std::uint32_t block, std::uint32_t part, double sensitivity,
                           Use&& use) const {
    detail::draw_combination_part(*this, words, block, part, multiplier * sensitivity, use);
  }
  /// Of the noise of two steps, under one key and sensitivity, on each coordinate of the sum.
  double covariance(double sensitivity, std::uint64_t step, std::uint64_t other) const {
    return multiplier * sensitivity * multiplier * sensitivity * detail::combined_covariance(*this, step, other);
  }

  template <class Adjacency>
  constexpr correlated_gaussian_event<Adjacency> event(l2_sensitivity<Adjacency>) const {
    return {multiplier, 0};
  }
};
static_assert(noise_policy<tree_noise>);

}  // namespace dpsgd
