/// Exact mode: noise on whole numbers, without a rounding anywhere between the clipped gradients and what is released.
///
/// Every example's clipped gradient is put on a grid of 2^-20 of the sensitivity, so that the sensitivity is 2^20 units
/// whatever the bound; the trainer checks in whole numbers that no example is longer, adds them up in int64, which no
/// order of addition changes, and this noise is an exactly sampled discrete Gaussian (core/discrete_gaussian.hpp). So
/// parameters have the same bits for any number of ranks and any allreduce, and no low-order bit betrays the sum.
///
///   trainer t{world, flat_clip{1.0}, discrete_gaussian_noise{0.9}, exact_poisson_sampling{0.01}, rdp_accountant{}};
///
/// Why 2^20 (docs/decisions/exact-mode.md):
///   the finer the grid, the less is cut off a gradient: at most 2^-20 of the bound on a coordinate, and never added
///   an example adds at most 2^20 to a coordinate, so the sum of 2^42 rows is within 2^62, and a tile's within 2^31
///   the square of the longest example is 2^40, so that squares are added without a rounding, and told from longer ones
#pragma once

#include <cstddef>
#include <cstdint>

#include "dpsgd/accounting/events.hpp"
#include "dpsgd/core/discrete_gaussian.hpp"
#include "dpsgd/core/error.hpp"
#include "dpsgd/core/random.hpp"
#include "dpsgd/privacy/noise.hpp"
#include "dpsgd/privacy/sensitivity.hpp"

namespace dpsgd {

/// Independent discrete Gaussian noise on every coordinate of a sum of whole numbers. Its sigma is a whole number of
/// units, at least multiplier x 2^20: the event says the multiplier that this is, which is up to 2^-20 larger than the
/// one asked for. About 130 ns a coordinate with AVX-512.
struct discrete_gaussian_noise {
  using value = std::int64_t;
  static constexpr std::size_t block_size = discrete_gaussian_block_size;
  static constexpr std::uint64_t units = std::uint64_t{1} << 20;  // in the sensitivity

  double multiplier = 1.0;  // z: sigma / sensitivity; in (0, 2^20]

  /// Throws dpsgd::error on a multiplier that it does not serve.
  void check() const {
    require(multiplier > 0 && multiplier <= 0x1p20, "the multiplier of discrete noise must lie in (0, 2^20]; got ",
            multiplier);
  }
  /// Throws dpsgd::error where a model of so many coordinates, or a sum over so many rows, is too large: coordinates
  /// have substreams of their own, and the sum must stay within 2^62.
  void check(std::size_t coordinates, std::uint64_t rows) const {
    check();
    require(coordinates < std::size_t{1} << 24,
            "exact mode has random streams for 2^24 - 1 coordinates; the model has ", coordinates,
            "; take a smaller model, or gaussian_noise");
    require(rows <= std::uint64_t{1} << 42, "exact mode adds up at most 2^42 rows; the file has ", rows);
  }

  /// In units: the smallest whole number that is not below multiplier x 2^20.
  std::uint64_t sigma() const {
    check();
    const double exact = multiplier * static_cast<double>(units);  // a power of two: not rounded
    const auto whole = static_cast<std::uint64_t>(exact);
    return whole + (static_cast<double>(whole) < exact);
  }
  /// What one unit of the sum is, in units of the gradient.
  constexpr double unit(double sensitivity) const { return sensitivity / static_cast<double>(units); }

  void draw(const random_stream& words, std::uint32_t block, double, std::int64_t* out) const {
    discrete_gaussian_block(words, block, sigma(), out);
  }
  /// The variance of the noise on each coordinate of the sum, in units of the gradient squared.
  double variance(double sensitivity) const {
    const double deviation = static_cast<double>(sigma()) * unit(sensitivity);
    return deviation * deviation;
  }

  template <class Adjacency>
  discrete_gaussian_event<Adjacency> event(l2_sensitivity<Adjacency>) const {
    return {static_cast<double>(sigma()) / static_cast<double>(units)};
  }
};
static_assert(noise_policy<discrete_gaussian_noise>);

}  // namespace dpsgd
