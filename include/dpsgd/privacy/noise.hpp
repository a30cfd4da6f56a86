/// Noise policies: what is added, once, to the sum of clipped gradients, and the event that this is.
///
/// A noise policy is a plain struct with
///   using value = float                                          what is summed and noised; or std::int64_t
///   static constexpr std::size_t block_size                      coordinates are drawn in blocks of so many
///   void draw(stream, block, sensitivity, value* out) const      out[0 .. block_size): the noise of that block
///   double variance(sensitivity) const                           of the noise on each coordinate of the sum; or, where
///   double covariance(sensitivity, step, other) const            it is correlated over steps (correlated_noise.hpp), of
///                                                                the noise of two steps on one coordinate
///   ... event(l2_sensitivity<Adjacency>) const                   what an accountant is told
/// and, where whole numbers are summed (privacy/discrete_noise.hpp),
///   double unit(sensitivity) const                               what 1 is, in units of the gradient; the sensitivity
///                                                                is a whole number of them, at most 2^20
/// and, where not every model or file fits,
///   void check(coordinates, rows) const                          throws dpsgd::error
/// and, to be drawn on a device too (cuda/),
///   static constexpr std::size_t parts                           into which a block falls, each drawn by a thread
///   constexpr void draw_part(stream, block, part, sensitivity, use) const    calls use(place in the block, noise) for
///                                                                all that is this part's: the same bits as draw()
/// Law: noise is a function of (stream, coordinate), where stream.step counts from 0 where the key was drawn: a noise
/// may draw the words of earlier steps again, and it begins afresh with every key. Block b belongs to coordinates [b
/// block_size, (b + 1) block_size), whoever draws it, and however the vector is cut.
#pragma once

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "dpsgd/accounting/events.hpp"
#include "dpsgd/core/normal.hpp"
#include "dpsgd/core/random.hpp"
#include "dpsgd/privacy/sensitivity.hpp"

namespace dpsgd {

/// Noise whose steps are not independent of one another.
template <class N>
concept correlated_over_steps = requires(const N n, std::uint64_t step) {
  { n.covariance(1.0, step, step) } -> std::convertible_to<double>;
};

/// The variance of a step's noise on each coordinate of the sum; steps count from 0 where the key was drawn.
template <class N>
constexpr double variance_of(const N& noise, double sensitivity,
                             std::uint64_t step) requires(correlated_over_steps<N> ||
                                                          requires { noise.variance(sensitivity); }) {
  if constexpr (correlated_over_steps<N>) return noise.covariance(sensitivity, step, step);
  else return noise.variance(sensitivity);
}

template <class N>
concept noise_policy = std::is_trivially_copyable_v<N> &&
    requires(const N n, random_stream words, typename N::value* out) {
  { N::block_size } -> std::convertible_to<std::size_t>;
  n.draw(words, std::uint32_t{}, 1.0, out);
  { variance_of(n, 1.0, std::uint64_t{}) } -> std::convertible_to<double>;
} &&(std::same_as<typename N::value, float> || (std::same_as<typename N::value, std::int64_t> && requires(const N n) {
       { n.unit(1.0) } -> std::convertible_to<double>;
     }));

/// What 1 in the sum is, in units of the gradient.
template <noise_policy N>
constexpr double unit_of(const N& noise, double sensitivity) {
  if constexpr (std::same_as<typename N::value, float>) return 1;
  else return noise.unit(sensitivity);
}

/// Independent normal noise of standard deviation multiplier x sensitivity on every coordinate.
/// About 1 ns a coordinate with AVX-512.
struct gaussian_noise {
  using value = float;
  static constexpr std::size_t block_size = normal_block_size;

  double multiplier = 1.0;  // z: noise standard deviation / sensitivity; positive

  void draw(const random_stream& words, std::uint32_t block, double sensitivity, float* out) const {
    normal_block(words, block, out);
    const auto deviation = static_cast<float>(multiplier * sensitivity);
    for (std::size_t i = 0; i < block_size; ++i) out[i] *= deviation;
  }
  static constexpr std::size_t parts = normal_parts;
  template <class Use>
  constexpr void draw_part(const random_stream& words, std::uint32_t block, std::uint32_t part, double sensitivity,
                           Use&& use) const {
    const auto sigma = static_cast<float>(multiplier * sensitivity);
    normal_part(words, block, part, [&](std::size_t place, float normal) { use(place, normal * sigma); });
  }
  /// The variance of the noise on each coordinate of the sum.
  constexpr double variance(double sensitivity) const { return multiplier * sensitivity * multiplier * sensitivity; }

  template <class Adjacency>
  constexpr gaussian_event<Adjacency> event(l2_sensitivity<Adjacency>) const {
    return {multiplier};
  }
};
static_assert(noise_policy<gaussian_noise>);

/// None: the run is not private, and its claim says so.
struct no_noise {
  using value = float;
  static constexpr std::size_t block_size = normal_block_size;

  void draw(const random_stream&, std::uint32_t, double, float* out) const { std::fill_n(out, block_size, 0.0f); }
  static constexpr std::size_t parts = normal_parts;
  template <class Use>
  constexpr void draw_part(const random_stream&, std::uint32_t, std::uint32_t part, double, Use&& use) const {
    for (std::size_t place = part; place < block_size; place += parts) use(place, 0.0f);
  }
  constexpr double variance(double) const { return 0; }

  template <class Adjacency>
  constexpr no_privacy_event event(l2_sensitivity<Adjacency>) const {
    return {exposure{.no_noise = true}};
  }
  constexpr no_privacy_event event(unbounded) const { return {exposure{.no_noise = true, .no_clip = true}}; }
};
static_assert(noise_policy<no_noise>);

}  // namespace dpsgd
