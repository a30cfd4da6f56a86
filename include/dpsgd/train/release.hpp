/// The release of one step: noise on the coordinates of this rank's shard, once, and the optimizer's step on them.
#pragma once

#include <algorithm>
#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "dpsgd/core/buffer.hpp"
#include "dpsgd/core/random.hpp"
#include "dpsgd/privacy/noise.hpp"

namespace dpsgd {

/// For coordinates [first, first + count) of the vector that travels:
///   parameters[i] = rule(parameters[i], (sum[i] + noise[i]) / expected_batch)
/// The noise has standard deviation multiplier x sensitivity on the sum; the division by the *expected* batch comes
/// after. A sum of whole numbers counts units of a grid, and is noised as that: it is within 2^62, and that the noise
/// goes beyond has a chance below exp(-10^12). Noise is drawn by whole blocks, so that a coordinate gets the same noise
/// whoever owns it. moments[k] is the k-th moment of every coordinate.
template <class Noise, class Rule, std::size_t Moments>
void release(const Noise& noise, const random_stream& stream, double sensitivity, double expected_batch,
             const Rule& rule, std::size_t first, std::size_t count, const typename Noise::value* sum,
             float* parameters, const std::array<float*, Moments>& moments) {
  using value = typename Noise::value;
  alignas(64) value drawn[Noise::block_size];
  using factor = std::conditional_t<std::same_as<value, float>, float, double>;
  const auto scale = static_cast<factor>(unit_of(noise, sensitivity) / expected_batch);
  for (std::size_t at = first; at < first + count;) {
    const std::size_t block = at / Noise::block_size, begin = block * Noise::block_size;
    const std::size_t end = std::min(begin + Noise::block_size, first + count);
    noise.draw(stream, static_cast<std::uint32_t>(block), sensitivity, drawn);
#if !defined(__clang__)
#pragma GCC ivdep
#endif
    for (std::size_t i = at; i < end; ++i) {
      float moment[Moments + 1];
      for (std::size_t k = 0; k < Moments; ++k) moment[k] = moments[k][i];
      parameters[i] = rule.step(parameters[i], static_cast<float>((sum[i] + drawn[i - begin]) * scale), moment);
      for (std::size_t k = 0; k < Moments; ++k) moments[k][i] = moment[k];
    }
    at = end;
  }
}

}  // namespace dpsgd
