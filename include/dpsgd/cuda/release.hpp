/// The release of a step on a device: noise on every coordinate of a range, and the optimizer's step. train/release.hpp
/// does the same on the host, with the same noise.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "dpsgd/core/random.hpp"
#include "dpsgd/cuda/kernel.hpp"

namespace dpsgd::cuda {

/// parameters[i] = rule(parameters[i], (sum[i] + noise[i]) / expected_batch) for i in [first, first + count). A thread draws
/// one part of a block of noise: one block of ChaCha20 and ten coordinates, for normal noise.
template <class Noise, class Rule, std::size_t Moments>
struct noised_step {
  static_assert(
      requires { Noise::parts; },
      "dpsgd: this noise cannot be drawn on a device; give it parts and draw_part(stream, block, part, sensitivity, "
      "use), "
      "as gaussian_noise has, or train on the CPU");
  static constexpr int threads = 64;

  Noise noise;
  random_stream stream;
  double sensitivity;
  float scale;  // 1 / the expected batch
  Rule rule;
  std::size_t first, count;
  const float* sum;
  float* parameters;
  std::array<float*, Moments> moments;

  constexpr std::size_t first_block() const { return first / Noise::block_size; }
  constexpr std::size_t parts() const {
    return count == 0 ? 0 : ((first + count - 1) / Noise::block_size + 1 - first_block()) * Noise::parts;
  }
  constexpr std::size_t teams() const { return (parts() + threads - 1) / threads; }

  constexpr void operator()(auto& team) const {
    team.each([&](int thread, no_registers&) {
      const std::size_t part = team.rank() * threads + static_cast<std::size_t>(thread);
      if (part >= parts()) return;
      const std::size_t block = first_block() + part / Noise::parts;
      noise.draw_part(stream, static_cast<std::uint32_t>(block), static_cast<std::uint32_t>(part % Noise::parts),
                      sensitivity, [&](std::size_t place, float drawn) {
                        const std::size_t i = block * Noise::block_size + place;
                        if (i >= first && i < first + count) step(i, drawn);
                      });
    });
  }

 private:
  constexpr void step(std::size_t i, float drawn) const {
    float moment[Moments + 1]{};
    for (std::size_t k = 0; k < Moments; ++k) moment[k] = moments[k][i];
    parameters[i] = rule.step(parameters[i], (sum[i] + drawn) * scale, moment);
    for (std::size_t k = 0; k < Moments; ++k) moments[k][i] = moment[k];
  }
};

}  // namespace dpsgd::cuda
