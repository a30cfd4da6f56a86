/// Elementary functions without branches, for loops that the compiler should vectorise.
///
/// Those that noise and sampling rest on give the same bits on every machine and device: they write every sum of a
/// product as fma(), because compilers contract a * b + c on some targets and not on others. The others (exp_fast and
/// what is made of it) leave that to the compiler: where the target has no fma instruction, fma() costs 20 times as
/// much.
#pragma once

#include <bit>
#include <cstdint>
#include <type_traits>

namespace dpsgd {

/// a * b + c rounded once. (In a constant expression, where clang has no fma, the product may be rounded on its own.)
constexpr float fma(float a, float b, float c) {
  return std::is_constant_evaluated() ? static_cast<float>(double{a} * b + c) : __builtin_fmaf(a, b, c);
}
constexpr double fma(double a, double b, double c) {
  return std::is_constant_evaluated() ? a * b + c : __builtin_fma(a, b, c);
}

/// The square root of t >= 0 to 1e-7, by Newton's method. (A call of sqrt sets errno, which stops vectorisation.)
constexpr float square_root(float t) {
  float y = std::bit_cast<float>(0x5f3759dfu - (std::bit_cast<std::uint32_t>(t) >> 1));  // 1/sqrt t, to 3 %
  const float half = 0.5f * t;
  y *= fma(-half * y, y, 1.5f);
  y *= fma(-half * y, y, 1.5f);
  y *= fma(-half * y, y, 1.5f);
  const float r = t * y;
  return fma(fma(-r, r, t), 0.5f * y, r);
}

/// The square root of a normal number t, or of 0, to 1e-15; for norms, whose last bits do not matter.
constexpr double square_root(double t) {
  double y = std::bit_cast<double>(0x5fe6eb50c7b537a9u - (std::bit_cast<std::uint64_t>(t) >> 1));
  const double half = 0.5 * t;
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) y *= 1.5 - half * y * y;
  return t * y;
}

/// e^x in float to 2 units in the last place; 0 below -87.3, the largest finite value from 88.7 on. (No special cases:
/// a NaN gives a NaN.)
constexpr float exp_fast(float x) {
  x = x < -87.3f ? -87.3f : x;
  x = x > 88.7f ? 88.7f : x;
  const float shifted = x * 1.44269504f + 12582912.0f;  // adding 1.5 * 2^23 drops the fraction
  const float n = shifted - 12582912.0f;                // round(x / ln 2)
  float r = n * -0.693359375f + x;
  r = n * 2.12194440e-4f + r;
  float p = 1.9875691500e-4f;  // Cephes expf
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  const float value = p * r * r + r + 1.0f;
  const auto exponent = std::bit_cast<std::int32_t>(shifted) - std::bit_cast<std::int32_t>(12582912.0f);
  // 2^n in two factors, since n reaches 128.
  const float half = std::bit_cast<float>((exponent / 2 + 127) << 23);
  const float rest = std::bit_cast<float>((exponent - exponent / 2 + 127) << 23);
  return value * half * rest;
}

/// 1 / (1 + e^-x), in (0, 1).
constexpr float sigmoid(float x) { return 1.0f / (1.0f + exp_fast(-x)); }

/// tanh x, to about 1e-7 absolutely.
constexpr float tanh_fast(float x) { return 2.0f * sigmoid(2.0f * x) - 1.0f; }

/// ln x for x in (0, inf), to 1e-15 relative near and away from 1; the same bits everywhere.
/// x = 2^e m with m in [sqrt 1/2, sqrt 2), ln m = 2 artanh(s) with s = (m - 1) / (m + 1), by its series to s^23.
constexpr double log_exact_bits(double x) {
  const auto bits = std::bit_cast<std::uint64_t>(x);
  const auto whole = std::bit_cast<double>((bits & 0x000fffffffffffffull) | 0x3ff0000000000000ull);
  const bool above = whole > 1.4142135623730951;
  const double m = above ? 0.5 * whole : whole;
  const auto e = static_cast<std::int64_t>(bits >> 52) - 1023 + above;
  const double s = (m - 1.0) / (m + 1.0), z = s * s;
  double p = 0.0;
#pragma GCC unroll 11
  for (int k = 23; k >= 3; k -= 2) p = fma(p, z, 1.0 / k);
  const double tail = s * z * p;  // artanh(s) - s
  return fma(static_cast<double>(e), 0.6931471805599453, 2.0 * s) + 2.0 * tail;
}

/// ln(1 - q) for q in [0, 1): accurate for tiny q too; the same bits everywhere.
constexpr double log1m_exact_bits(double q) {
  if (q > 1e-3) return log_exact_bits(1.0 - q);
  double p = 0.0;  // -(q + q^2/2 + q^3/3 + ...)
  for (int k = 7; k >= 1; --k) p = fma(p, q, 1.0 / k);
  return -q * p;
}

}  // namespace dpsgd
