/// Standard normal values as a function of (stream, position), with the same bits on every machine.
///
/// A block is 160 values, made of 16 blocks of ChaCha20 side by side: lane l holds ChaCha block 16 * block + l, and
/// each three of its words make two values by the transform of Box and Muller (1958):
///
///     radius = sqrt(-2 ln u),  u = (64 random bits + 1/2) 2^-64        angle = 2 pi (32 random bits) 2^-32
///     value[32 t + l] = radius cos(angle)      value[32 t + 16 + l] = radius sin(angle)        t = 0..4, l = 0..15
///
/// The 64 bits of the radius reach 9.5 standard deviations: 32 bits would cut the tail at 6.7, which matters beside a
/// delta of 1e-6. The arithmetic is float with every fma written out; radius and angle are off by less than 1e-6
/// relative to the real-number transform of the same bits (tests/core/normal.cpp). That is what "idealised arithmetic"
/// in a claim sets aside.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "dpsgd/core/numeric.hpp"
#include "dpsgd/core/random.hpp"

namespace dpsgd {

/// How many values one block holds. Blocks are aligned to the coordinate's index: value i stands in block i / 160.
inline constexpr std::size_t normal_block_size = 160;

namespace detail {

/// a where mask is all ones, b where it is zero: no branch, since a branch around arithmetic stops vectorisation.
constexpr float select(std::uint32_t mask, float a, float b) {
  return std::bit_cast<float>((mask & std::bit_cast<std::uint32_t>(a)) | (~mask & std::bit_cast<std::uint32_t>(b)));
}

/// ln u for u = (high 2^32 + low + 1/2) 2^-64, precise at both ends of (0, 1).
constexpr float log_of_bits(std::uint32_t high, std::uint32_t low) {
  // Above sqrt 1/2 use 1 - u, which is exact there; below, u = 2^e m with m in [sqrt 1/2, sqrt 2).
  const std::uint32_t near_one = high >= 0xb504f334u ? ~0u : 0u;
  const std::uint32_t h = high ^ near_one, l = low ^ near_one;
  const float x = fma(static_cast<float>(h), 4294967296.0f, static_cast<float>(l) + 0.5f) * 0x1p-64f;
  const auto bits = std::bit_cast<std::uint32_t>(x);
  const auto above = bits - 0x3f3504f3u;  // 0x3f3504f3 is sqrt 1/2
  const float m = std::bit_cast<float>((above & 0x007fffffu) + 0x3f3504f3u);
  const float f = select(near_one, -x, m - 1.0f);
  const auto e = static_cast<float>((static_cast<std::int32_t>(above) >> 23) & static_cast<std::int32_t>(~near_one));
  // ln(1 + f) by Cephes' polynomial.
  float p = 7.0376836292e-2f;
  p = fma(p, f, -1.1514610310e-1f);
  p = fma(p, f, 1.1676998740e-1f);
  p = fma(p, f, -1.2420140846e-1f);
  p = fma(p, f, 1.4249322787e-1f);
  p = fma(p, f, -1.6668057665e-1f);
  p = fma(p, f, 2.0000714765e-1f);
  p = fma(p, f, -2.4999993993e-1f);
  p = fma(p, f, 3.3333331174e-1f);
  const float z = f * f;
  float y = f * z * p;
  y = fma(e, -2.12194440e-4f, y);
  y = fma(-0.5f, z, y);
  return fma(e, 0.693359375f, f + y);
}

/// Two independent normal values from 96 random bits.
constexpr void normal_pair(std::uint32_t high, std::uint32_t low, std::uint32_t angle, float& first, float& second) {
  const float radius = square_root(-2.0f * log_of_bits(high, low));
  // The angle in quarter turns: a whole number, and a rest in [-1/2, 1/2).
  const std::uint32_t quarter = (angle + 0x20000000u) >> 30;
  const auto rest = static_cast<std::int32_t>(angle - (quarter << 30));
  const float x = static_cast<float>(rest) * (1.57079633f * 0x1p-30f), z = x * x;
  float s = -1.9515295891e-4f;
  s = fma(s, z, 8.3321608736e-3f);
  s = fma(s, z, -1.6666654611e-1f);
  s = fma(s * z, x, x);
  float c = 2.443315711809948e-5f;
  c = fma(c, z, -1.388731625493765e-3f);
  c = fma(c, z, 4.166664568298827e-2f);
  c = fma(c * z, z, fma(-0.5f, z, 1.0f));
  const auto odd = 0u - (quarter & 1u);  // odd quarters swap sine and cosine
  const auto sign_c = ((quarter + 1u) & 2u) << 30, sign_s = (quarter & 2u) << 30;
  const float a = select(odd, s, c), b = select(odd, c, s);
  first = radius * std::bit_cast<float>(std::bit_cast<std::uint32_t>(a) ^ sign_c);
  second = radius * std::bit_cast<float>(std::bit_cast<std::uint32_t>(b) ^ sign_s);
}

}  // namespace detail

/// Writes the 160 values of block `block` to out[0..159]. About 1 ns a value where the target has AVX-512.
inline void normal_block(const random_stream& stream, std::uint32_t block, float* out) {
  const chacha20_lanes random(stream, block);
  for (int t = 0; t < 5; ++t)
    for (int l = 0; l < 16; ++l)
      detail::normal_pair(random.words[3 * t][l], random.words[3 * t + 1][l], random.words[3 * t + 2][l],
                          out[32 * t + l], out[32 * t + 16 + l]);
}

/// How many parts a block falls into that can be drawn apart.
inline constexpr std::size_t normal_parts = 16;

/// use(place, value) for the ten values of part `part` of a block, made from one block of ChaCha20: what one thread of a
/// device draws.
template <class Use>
constexpr void normal_part(const random_stream& stream, std::uint32_t block, std::uint32_t part, Use&& use) {
  const auto words = stream.block(normal_parts * block + part);
  for (std::size_t t = 0; t < 5; ++t) {
    float first = 0, second = 0;
    detail::normal_pair(words[3 * t], words[3 * t + 1], words[3 * t + 2], first, second);
    use(32 * t + part, first);
    use(32 * t + 16 + part, second);
  }
}

/// One value by itself, as the reference of the test.
constexpr float normal_value(const random_stream& stream, std::size_t index) {
  const auto place = index % normal_block_size;
  float found = 0;
  normal_part(stream, static_cast<std::uint32_t>(index / normal_block_size), place % 16,
              [&](std::size_t at, float value) { found = at == place ? value : found; });
  return found;
}

}  // namespace dpsgd
