#include "dpsgd/privacy/sampling.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <set>
#include <vector>

using namespace dpsgd;

namespace {
/// Records at the given positions of a universe, as the sampler sees a dataset.
struct records_at {
  std::uint64_t all;
  std::vector<std::uint64_t> positions;  // ascending

  std::uint64_t universe() const { return all; }
  std::size_t records() const { return positions.size(); }
  std::uint64_t position(std::size_t i) const { return positions[i]; }
  std::int64_t locate(std::uint64_t p) const {
    const auto at = std::lower_bound(positions.begin(), positions.end(), p);
    return at != positions.end() && *at == p ? at - positions.begin() : -1;
  }
};
records_at whole(std::uint64_t n) {
  records_at r{n, std::vector<std::uint64_t>(n)};
  std::iota(r.positions.begin(), r.positions.end(), std::uint64_t{0});
  return r;
}
const random_key key = random_key::from_seed(11);

std::vector<std::uint64_t> drawn(const poisson_sampling& s, const records_at& r, std::uint64_t step) {
  std::vector<std::uint32_t> rows;
  s.draw({key, domain::sampling, step, 0}, r, rows);
  std::vector<std::uint64_t> positions;
  for (const auto row : rows) positions.push_back(r.positions[row]);
  return positions;
}
}  // namespace

TEST_CASE("draws are ascending, without repetition, and of the records that are there") {
  const auto r = whole(5000);
  for (const double q : {0.0001, 0.01, 0.3, 0.999, 1.0})
    for (std::uint64_t step = 0; step < 20; ++step) {
      const auto d = drawn({q}, r, step);
      CHECK(std::is_sorted(d.begin(), d.end()));
      CHECK(std::adjacent_find(d.begin(), d.end()) == d.end());
      CHECK((d.empty() || d.back() < 5000));
      if (q == 1.0) CHECK(d.size() == 5000);
    }
}

// Law: who is drawn depends on nothing but key, step and position.
TEST_CASE("any cut into shards draws the same records; a record that is gone moves no other") {
  const auto r = whole(10'000);
  for (const double q : {0.001, 0.02, 0.4})
    for (std::uint64_t step = 0; step < 5; ++step) {
      const auto one = drawn({q}, r, step);
      for (const std::size_t ranks : {2, 3, 7}) {
        std::vector<std::uint64_t> joined;
        for (std::size_t k = 0; k < ranks; ++k) {
          records_at shard{r.all,
                           {r.positions.begin() + static_cast<std::ptrdiff_t>(10'000 * k / ranks),
                            r.positions.begin() + static_cast<std::ptrdiff_t>(10'000 * (k + 1) / ranks)}};
          const auto part = drawn({q}, shard, step);
          joined.insert(joined.end(), part.begin(), part.end());
        }
        CHECK(joined == one);
      }
      records_at fewer = r;  // every third row was dropped
      std::erase_if(fewer.positions, [](std::uint64_t p) { return p % 3 == 1; });
      auto expected = one;
      std::erase_if(expected, [](std::uint64_t p) { return p % 3 == 1; });
      CHECK(drawn({q}, fewer, step) == expected);
      CHECK(drawn({q}, records_at{r.all, {}}, step).empty());
    }
}

TEST_CASE("steps and keys draw differently") {
  const auto r = whole(2000);
  CHECK(drawn({0.1}, r, 1) != drawn({0.1}, r, 2));
  std::vector<std::uint32_t> a, b;
  poisson_sampling{0.1}.draw({random_key::from_seed(1), domain::sampling, 1, 0}, r, a);
  poisson_sampling{0.1}.draw({random_key::from_seed(2), domain::sampling, 1, 0}, r, b);
  CHECK(a != b);
}

// Against the oracle that flips a coin for every record: each record's count over T steps is Binomial(T, q), pairs of
// neighbours meet T q^2 times, and the batch size has variance N q (1 - q). Bands of 6.5 standard errors over 3,000 +
// 2,999 counts: false alarms below 6,000 * 8e-11 = 5e-7. It cannot see dependence between records that are not
// neighbours, except through the size's variance.
TEST_CASE("every record joins with probability q, independently of its neighbour") {
  constexpr std::uint64_t n = 3000, steps = 4000;
  const auto r = whole(n);
  for (const double q : {0.004, 0.05, 0.5}) {
    std::vector<double> count(n), meets(n);
    double sizes = 0, squares = 0;
    for (std::uint64_t step = 0; step < steps; ++step) {
      const auto d = drawn({q}, r, step);
      for (std::size_t i = 0; i < d.size(); ++i) {
        ++count[d[i]];
        if (i > 0 && d[i] == d[i - 1] + 1) ++meets[d[i]];
      }
      const auto size = static_cast<double>(d.size());
      sizes += size, squares += size * size;
    }
    const double T = steps, N = n;
    const auto band = [](double mean, double variance) { return 6.5 * std::sqrt(variance) + 0.02 * mean + 8; };
    for (std::uint64_t p = 0; p < n; ++p) REQUIRE(std::abs(count[p] - T * q) < band(T * q, T * q * (1 - q)));
    for (std::uint64_t p = 1; p < n; ++p) REQUIRE(std::abs(meets[p] - T * q * q) < band(T * q * q, T * q * q));
    const double mean = sizes / T, variance = squares / T - mean * mean;
    CHECK(std::abs(mean - N * q) < 6 * std::sqrt(N * q * (1 - q) / T));
    CHECK(std::abs(variance / (N * q * (1 - q)) - 1) < 6 * std::sqrt(2 / T) + 0.02);
  }
}

// The first record of every cell has no gap before it: an off-by-one there would show in these counts alone.
TEST_CASE("records at the ends of a cell join like the others") {
  const poisson_sampling s{0.25};
  const auto cell = s.cell_size(1000);
  CHECK(cell == 128);
  const auto r = whole(1000);
  constexpr double T = 40'000;
  std::vector<double> count(1000);
  for (std::uint64_t step = 0; step < 40'000; ++step)
    for (const auto p : drawn(s, r, step)) ++count[p];
  for (std::uint64_t c = 0; c < 1000; c += cell)
    for (const auto p : {c, c + 1, c + cell - 1})
      if (p < 1000) CHECK(std::abs(count[p] - T / 4) < 6 * std::sqrt(T * 3 / 16));
}

TEST_CASE("cells hold about 32 draws or more and 24 bits number them") {
  for (const double q : {1.0, 0.3, 1e-3, 1e-7})
    for (const std::uint64_t n : {std::uint64_t{1}, std::uint64_t{1'200'000}, std::uint64_t{1} << 40}) {
      const auto cell = poisson_sampling{q}.cell_size(n);
      CHECK(static_cast<double>(cell) * q >= 32);
      CHECK(n / cell < 1u << 24);
    }
}
