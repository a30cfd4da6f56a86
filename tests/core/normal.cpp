#include "dpsgd/core/normal.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <vector>

using namespace dpsgd;

namespace {
const random_stream stream{random_key::from_seed(1), domain::noise, 3, 0};

std::vector<float> draw(std::size_t blocks) {
  std::vector<float> v(blocks * normal_block_size);
  for (std::size_t b = 0; b < blocks; ++b)
    normal_block(stream, static_cast<std::uint32_t>(b), v.data() + b * normal_block_size);
  return v;
}
}  // namespace

// The bits must be the same under every compiler, every level of optimisation and every target (fma or not): other
// builds of this test program check the same digest. It was read off the reference below, one value at a time.
TEST_CASE("noise has the same bits in every build") {
  std::uint64_t digest = 14695981039346656037ull;
  for (const float v : draw(500)) digest = (digest ^ std::bit_cast<std::uint32_t>(v)) * 1099511628211ull;
  CHECK(digest == 0xc5d5256ae51d3381ull);
}

TEST_CASE("a block holds the values that normal_value gives one at a time") {
  const auto v = draw(20);
  for (std::size_t i = 0; i < v.size(); ++i) REQUIRE(v[i] == normal_value(stream, i));
}

TEST_CASE("the transform is within 1e-6 of the real-number one of the same words") {
  const auto v = draw(2000);
  double worst = 0;
  for (std::size_t i = 0; i < v.size(); ++i) {
    const auto b = i / normal_block_size, p = i % normal_block_size, t = p / 32, l = p % 16;
    const auto w = stream.block(static_cast<std::uint32_t>(b * 16 + l));
    const long double u = (w[3 * t] * 0x1p32L + w[3 * t + 1] + 0.5L) * 0x1p-64L;
    const long double r = std::sqrt(-2 * std::log(u)), angle = 2 * 3.14159265358979323846L * w[3 * t + 2] * 0x1p-32L;
    const long double wanted = p % 32 < 16 ? r * std::cos(angle) : r * std::sin(angle);
    worst = std::max(worst, static_cast<double>(std::abs(wanted - v[i]) / r));
  }
  CHECK(worst < 1e-6);
}

TEST_CASE("the radius reaches both ends: no value is cut, none is infinite") {
  float a = 0, b = 0;
  detail::normal_pair(0, 0, 0, a, b);  // the smallest u, 2^-65: 9.5 standard deviations
  CHECK(a == doctest::Approx(std::sqrt(-2 * std::log(std::ldexp(1.0, -65)))).epsilon(1e-6));
  CHECK(b == doctest::Approx(0));
  detail::normal_pair(~0u, ~0u, 0, a, b);  // the largest u, 1 - 2^-65
  CHECK(a == doctest::Approx(std::sqrt(std::ldexp(1.0, -64))).epsilon(1e-6));
  // All eight octants of the angle.
  for (std::uint32_t k = 0; k < 8; ++k) {
    detail::normal_pair(0x80000000u, 0, k << 29, a, b);
    const double r = std::sqrt(-2 * std::log(0.5)), angle = k * 0.78539816339744831;
    CHECK(a == doctest::Approx(r * std::cos(angle)).epsilon(1e-6));
    CHECK(b == doctest::Approx(r * std::sin(angle)).epsilon(1e-6));
  }
}

// 4.8 million values; each band is six standard errors, so a false alarm has a chance below 1e-7 in all. It cannot see
// a dependence that leaves these counts alone.
TEST_CASE("values are normal: moments and tails") {
  const auto v = draw(30'000);
  const auto n = static_cast<double>(v.size());
  double m1 = 0, m2 = 0, m3 = 0, m4 = 0;
  std::array<double, 5> beyond{};
  for (const double x : v) {
    m1 += x, m2 += x * x, m3 += x * x * x, m4 += x * x * x * x;
    for (int k = 0; k < 5; ++k) beyond[static_cast<std::size_t>(k)] += std::abs(x) > k + 0.5;
  }
  const double band = 6 / std::sqrt(n);
  CHECK(std::abs(m1 / n) < band);
  CHECK(std::abs(m2 / n - 1) < band * std::sqrt(2.0));
  CHECK(std::abs(m3 / n) < band * std::sqrt(15.0));
  CHECK(std::abs(m4 / n - 3) < band * std::sqrt(96.0));
  for (int k = 0; k < 5; ++k) {
    const double p = std::erfc((k + 0.5) / std::sqrt(2.0));
    CHECK(std::abs(beyond[static_cast<std::size_t>(k)] - n * p) < 6 * std::sqrt(n * p) + 6);
  }
}
