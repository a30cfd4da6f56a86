#include "dpsgd/core/numeric.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>

using namespace dpsgd;

TEST_CASE("exp_fast is within 3e-7 of e^x, saturates, and hands a NaN on") {
  for (double x = -87; x < 88.5; x += 0.00137) {
    const auto f = static_cast<float>(x);
    REQUIRE(exp_fast(f) == doctest::Approx(std::exp(double{f})).epsilon(3e-7));
  }
  CHECK(exp_fast(-1e30f) < 2e-38f);
  CHECK(exp_fast(-1e30f) >= 0);
  CHECK(std::isfinite(exp_fast(1e30f)));
  CHECK(exp_fast(1e30f) > 3e38f);
  CHECK(std::isnan(exp_fast(std::numeric_limits<float>::quiet_NaN())));
}

TEST_CASE("sigmoid and tanh_fast") {
  for (double x = -30; x < 30; x += 0.0173) {
    const auto f = static_cast<float>(x);
    REQUIRE(sigmoid(f) == doctest::Approx(1 / (1 + std::exp(-double{f}))).epsilon(1e-6));
    REQUIRE(std::abs(tanh_fast(f) - std::tanh(double{f})) < 3e-7);
  }
  CHECK(sigmoid(1000) == 1.0f);
  CHECK(sigmoid(-1000) >= 0.0f);
}

TEST_CASE("square_root") {
  for (double x = 1e-30; x < 1e30; x *= 1.173)
    REQUIRE(std::abs(square_root(static_cast<float>(x)) / std::sqrt(static_cast<double>(static_cast<float>(x))) - 1) <
            1.5e-7);
  CHECK(square_root(0.0f) == 0);
  for (double x = 1e-45; x < 1e39; x *= 1.0037) REQUIRE(std::abs(square_root(x) / std::sqrt(x) - 1) < 1e-15);
  CHECK(square_root(0.0) == 0);
}

TEST_CASE("log_exact_bits and log1m_exact_bits are within 1e-15 relative, at both ends") {
  for (double x = 1e-300; x < 1e300; x *= 1.0937)
    REQUIRE(log_exact_bits(x) == doctest::Approx(std::log(x)).epsilon(2e-15));
  for (double e = 1e-16; e < 0.4; e *= 1.31) {
    REQUIRE(log_exact_bits(1 + e) == doctest::Approx(std::log(1 + e)).epsilon(2e-15));
    REQUIRE(log1m_exact_bits(e) == doctest::Approx(std::log1p(-e)).epsilon(2e-15));
  }
  CHECK(log1m_exact_bits(0.999999) == doctest::Approx(std::log1p(-0.999999)).epsilon(1e-14));
}
