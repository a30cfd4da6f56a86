#include "dpsgd/core/discrete_gaussian.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <map>
#include <vector>

using namespace dpsgd;

namespace {

random_stream stream(std::uint64_t seed, std::uint64_t step = 0) {
  return {random_key::from_seed(seed), domain::noise, step, 0};
}

/// The values of many coordinates, several steps each.
std::vector<std::int64_t> values(std::uint64_t sigma, std::uint32_t blocks, std::uint64_t steps) {
  std::vector<std::int64_t> all(std::size_t{16} * blocks * steps);
  auto* at = all.data();
  for (std::uint64_t step = 0; step < steps; ++step)
    for (std::uint32_t b = 0; b < blocks; ++b, at += 16) discrete_gaussian_block(stream(5, step), b, sigma, at);
  return all;
}

/// Words that were written down.
struct script {
  std::vector<std::uint32_t> words;
  std::size_t used = 0;
  std::uint32_t operator()() {
    REQUIRE(used < words.size());
    return words[used++];
  }
};

/// Where chi squared with k degrees of freedom lies with probability 1 - e^-16.2 = 1 - 9.2e-8 at least (Laurent and
/// Massart 2000, lemma 1).
double chi_square_limit(double k) { return k + 2 * std::sqrt(k * 16.2) + 2 * 16.2; }

/// Against exact probabilities; what is left of 1 is the last cell.
template <class Cell>
void check_frequencies(const std::vector<std::int64_t>& drawn, const std::map<std::int64_t, double>& probability,
                       Cell cell) {
  std::map<std::int64_t, double> count;
  double rest = 1, rest_count = 0;
  for (const auto y : drawn) {
    const auto c = cell(y);
    if (probability.contains(c)) count[c] += 1;
    else rest_count += 1;
  }
  const auto n = static_cast<double>(drawn.size());
  double chi_square = 0, cells = 0;
  const auto add = [&](double seen, double p) { chi_square += (seen - n * p) * (seen - n * p) / (n * p), cells += 1; };
  for (const auto& [c, p] : probability) add(count[c], p), rest -= p;
  if (rest > 1e-12) add(rest_count, rest);
  CHECK(chi_square < chi_square_limit(cells - 1));
}

}  // namespace

TEST_CASE("a coin compares its fraction with a uniform number of as many bits as it needs") {
  random_words numbers(stream(1));
  __extension__ typedef unsigned __int128 uint128;
  for (int i = 0; i < 100'000; ++i) {
    const std::uint64_t denominator = 1 + (numbers() >> (1 + numbers() % 62)),
                        numerator = numbers() % (denominator + 1);
    // The first 32 bits at random, or those at which the fraction lies, so that the next ones decide.
    const auto tie = static_cast<std::uint32_t>((static_cast<uint128>(numerator) << 32) / denominator);
    const auto first = i % 2 ? static_cast<std::uint32_t>(numbers()) : tie,
               second = static_cast<std::uint32_t>(numbers());
    const std::uint64_t both = std::uint64_t{first} << 32 | second;
    script words{{first, second, 0x80000000u, 0x80000000u}};
    const bool fell = detail::coin(words, numerator, denominator);
    // both / 2^64 < numerator / denominator, unless all 64 bits are alike.
    const auto at = static_cast<std::uint64_t>(
        numerator == denominator ? ~uint128{0} : (static_cast<uint128>(numerator) << 64) / denominator);
    if (both != at) REQUIRE(fell == (both < at));
    REQUIRE(words.used <= (first == tie ? 4u : 1u));
  }
  script high{{0xffffffffu}}, low{{0}};
  CHECK(detail::coin(high, 7, 7));  // certain
  CHECK(!detail::coin(low, 0, 7));  // impossible
}

// 3 * 2^62 values of 64 bits: without a rejection every third one would come twice as often.
TEST_CASE("uniform numbers below n are unbiased, by a band of seven standard errors (a false alarm: 3e-12 each)") {
  detail::narrow_words words{stream(2)};
  std::vector<double> of(3);
  const std::uint64_t n = std::uint64_t{3} << 62;
  for (int i = 0; i < 60'000; ++i) {
    const auto v = detail::uniform_below(words, n);
    REQUIRE(v < n);
    of[v % 3] += 1;
  }
  for (const double count : of) CHECK(std::abs(count - 20'000) < 7 * std::sqrt(60'000 * 2.0 / 9));
  for (int i = 0; i < 100; ++i) CHECK(detail::uniform_below(words, 1) == 0);
}

// Seven standard errors: a false alarm has a chance of 3e-12 each.
TEST_CASE("a coin of e^-x falls with probability e^-x") {
  detail::narrow_words words{stream(3)};
  constexpr int n = 200'000;
  for (const std::uint64_t tenths : {0, 1, 5, 10}) {
    double fell = 0;
    for (int i = 0; i < n; ++i)
      fell += detail::exp_coin([&](std::uint32_t k) { return detail::coin(words, tenths, std::uint64_t{10} * k); });
    const double p = std::exp(-static_cast<double>(tenths) / 10);
    CHECK(std::abs(fell / n - p) <= 7 * std::sqrt(p * (1 - p) / n));
  }
}

TEST_CASE("a block's values are those of its coordinates' own streams, one at a time") {
  std::int64_t out[16];
  for (const std::uint64_t sigma : {std::uint64_t{1}, std::uint64_t{3}, std::uint64_t{1} << 20, std::uint64_t{1} << 40})
    for (const std::uint32_t block : {0u, 1u, 17u, (1u << 20) - 1})
      for (const std::uint64_t step : {0, 9}) {
        discrete_gaussian_block(stream(4, step), block, sigma, out);
        for (std::uint32_t l = 0; l < 16; ++l)
          CHECK(out[l] == discrete_gaussian_value(stream(4, step), 16 * block + l, sigma));
      }
}

// 480,000 values each; the chance of a false alarm is below 1e-7 for each sigma.
TEST_CASE("at sigma 1, 2, 3 and 7 every value has its exact probability, out to where one in 50,000 lies") {
  for (const std::uint64_t sigma : {1, 2, 3, 7}) {
    const auto s = static_cast<double>(sigma);
    double total = 0;
    for (double y = -60 * s; y <= 60 * s; y += 1) total += std::exp(-y * y / (2 * s * s));
    std::map<std::int64_t, double> probability;
    for (std::int64_t y = -100; y <= 100; ++y) {
      const double p = std::exp(-static_cast<double>(y * y) / (2 * s * s)) / total;
      if (p > 2e-5) probability[y] = p;
    }
    CAPTURE(sigma);
    check_frequencies(values(sigma, 300, 100), probability, [](std::int64_t y) { return y; });
  }
}

// 800,000 values. The low bits show a lattice or a rounding, cells of sigma / 4 the law. A false alarm: below 3e-7.
TEST_CASE("at sigma 2^20 the law is that of the normal one in cells, and the remainders are uniform") {
  constexpr std::uint64_t sigma = 1 << 20;
  const auto drawn = values(sigma, 500, 100);
  const auto phi = [](double z) { return std::erfc(-z / std::sqrt(2.0)) / 2; };
  const auto floored = [](std::int64_t y, std::int64_t by) { return (y - ((y % by) + by) % by) / by; };
  std::map<std::int64_t, double> cells, remainders;
  // Cell c holds the whole numbers from c 2^18 to (c + 1) 2^18 - 1; by Poisson's summation the sum is the integral.
  for (std::int64_t c = -17; c < 17; ++c)
    cells[c] = phi((static_cast<double>(c + 1) * 0x1p18 - 0.5) / 0x1p20) -
               phi((static_cast<double>(c) * 0x1p18 - 0.5) / 0x1p20);
  check_frequencies(drawn, cells, [&](std::int64_t y) { return floored(y, 1 << 18); });
  for (const std::int64_t by : {2, 7, 1024}) {
    remainders.clear();
    for (std::int64_t r = 0; r < by; ++r) remainders[r] = 1.0 / static_cast<double>(by);
    check_frequencies(drawn, remainders, [&](std::int64_t y) { return ((y % by) + by) % by; });
  }
}

// Six and a half standard errors of 1.6 million values, ten figures: a false alarm has a chance below 1e-9.
TEST_CASE("mean 0, variance sigma^2, tails, and no dependence between coordinates, steps and signs") {
  constexpr double n = 1'600'000;
  const double sigma = 1'500'000;
  const auto drawn = values(1'500'000, 1000, 100);
  double sum = 0, squares = 0, fourth = 0, lag = 0, other_step = 0, beyond = 0, sign_size = 0;
  const std::size_t of_step = 16'000;
  for (std::size_t i = 0; i < drawn.size(); ++i) {
    const double y = static_cast<double>(drawn[i]) / sigma;
    sum += y, squares += y * y, fourth += y * y * y * y, beyond += std::abs(y) > 3.5;
    sign_size += (y > 0 ? 1 : -1) * (std::abs(y) > 1 ? 1 : -1);
    if (i > 0) lag += y * static_cast<double>(drawn[i - 1]) / sigma;
    if (i >= of_step) other_step += y * static_cast<double>(drawn[i - of_step]) / sigma;
  }
  const double band = 6.5 / std::sqrt(n);
  CHECK(std::abs(sum / n) < band);
  CHECK(std::abs(squares / n - 1) < band * std::sqrt(2.0));
  CHECK(std::abs(fourth / n - 3) < band * std::sqrt(96.0));
  CHECK(std::abs(lag / n) < band);
  CHECK(std::abs(other_step / n) < band);
  CHECK(std::abs(sign_size / n) < band);
  const double p = std::erfc(3.5 / std::sqrt(2.0));
  CHECK(std::abs(beyond / n - p) < band * std::sqrt(p));
}
