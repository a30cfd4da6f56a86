#include "dpsgd/privacy/sampling.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <set>
#include <type_traits>
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

template <class Sampling = poisson_sampling>
std::vector<std::uint64_t> drawn(const Sampling& s, const records_at& r, std::uint64_t step,
                                 const random_key& k = key) {
  std::vector<std::uint32_t> rows;
  const random_stream stream{k, domain::sampling, step, 0};
  if constexpr (epoch_sampling<Sampling>) {
    typename Sampling::memory fresh;
    s.draw(stream, r, rows, fresh);
  } else {
    s.draw(stream, r, rows);
  }
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

// Law: who is drawn depends on nothing but key, step, position and the file's number of positions.
TEST_CASE_TEMPLATE("any cut into shards draws the same records; a record that is gone moves no other", Sampling,
                   poisson_sampling, exact_poisson_sampling, fixed_size_sampling, shuffling, balls_in_bins) {
  const auto r = whole(10'000);
  for (const double q : {0.001, 0.02, 0.4})
    for (std::uint64_t step = 0; step < 5; ++step) {
      const auto s = [&] {
        if constexpr (epoch_sampling<Sampling>) return Sampling{static_cast<std::uint64_t>(1 / q)};
        else return Sampling{q};
      }();
      const auto one = drawn(s, r, step);
      REQUIRE(!one.empty());
      CHECK(std::is_sorted(one.begin(), one.end()));
      for (const std::size_t ranks : {2, 3, 7}) {
        std::vector<std::uint64_t> joined;
        for (std::size_t k = 0; k < ranks; ++k) {
          records_at shard{r.all,
                           {r.positions.begin() + static_cast<std::ptrdiff_t>(10'000 * k / ranks),
                            r.positions.begin() + static_cast<std::ptrdiff_t>(10'000 * (k + 1) / ranks)}};
          const auto part = drawn(s, shard, step);
          joined.insert(joined.end(), part.begin(), part.end());
        }
        CHECK(joined == one);
      }
      records_at fewer = r;  // every third row was dropped
      std::erase_if(fewer.positions, [](std::uint64_t p) { return p % 3 == 1; });
      auto expected = one;
      std::erase_if(expected, [](std::uint64_t p) { return p % 3 == 1; });
      CHECK(drawn(s, fewer, step) == expected);
      CHECK(drawn(s, records_at{r.all, {}}, step).empty());
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

TEST_CASE("a fixed size is fixed: floor(rate N) positions, all of them different; what draws nobody is refused") {
  for (const std::uint64_t n : {1, 2, 7, 1000, 4096})
    for (const double q : {0.001, 0.25, 0.6, 1.0}) {
      const fixed_size_sampling s{q};
      if (q * static_cast<double>(n) < 1) {
        CHECK_THROWS_WITH_AS(drawn(s, whole(n), 0), doctest::Contains("is not possible"), error);
        continue;
      }
      for (std::uint64_t step = 0; step < 20; ++step) {
        const auto d = drawn(s, whole(n), step);
        REQUIRE(d.size() == static_cast<std::size_t>(q * static_cast<double>(n)));
        REQUIRE(std::adjacent_find(d.begin(), d.end()) == d.end());
      }
    }
  for (const double q : {-0.1, 0.0, 1.5, std::nan("")})
    CHECK_THROWS_AS(drawn(fixed_size_sampling{q}, whole(100), 0), error);
}

// Oracle: each of the 70 sets of 4 out of 8 comes up T/70 times. Chi-square with 69 degrees of freedom exceeds 160 with
// a chance of 3e-9. It cannot see bias of more distant kinds (large N): there Floyd's algorithm is trusted.
TEST_CASE("every set of the fixed size is drawn alike") {
  constexpr int T = 70'000;
  std::vector<int> count(256);
  for (std::uint64_t step = 0; step < T; ++step) {
    unsigned set = 0;
    for (const auto p : drawn(fixed_size_sampling{0.5}, whole(8), step)) set |= 1u << p;
    ++count[set];
  }
  double chi = 0;
  int sets = 0;
  for (unsigned set = 0; set < 256; ++set)
    if (count[set] > 0) ++sets, chi += (count[set] - T / 70.0) * (count[set] - T / 70.0) / (T / 70.0);
  CHECK(sets == 70);
  CHECK(chi < 160);
}

TEST_CASE("a keyed permutation is one, for every small n and some large ones") {
  const auto is_permutation = [](std::uint64_t n, std::uint64_t step) {
    const detail::permutation of({key, domain::sampling, step, 0}, n);
    std::vector<char> seen(n);
    for (std::uint64_t x = 0; x < n; ++x) {
      const auto y = of(x);
      if (y >= n || seen[y]++) return false;
    }
    return true;
  };
  for (std::uint64_t n = 1; n <= 1100; ++n) REQUIRE(is_permutation(n, n));
  for (const std::uint64_t n : {4095, 4096, 4097, 65'537, 1'000'003}) CHECK(is_permutation(n, 1));
  const detail::permutation huge({key, domain::sampling, 1, 0}, std::uint64_t{1} << 40);  // no overflow: it returns
  CHECK(huge(0) != huge(1));
}

// What the claim of an epoch's event rests on.
TEST_CASE_TEMPLATE("each record joins exactly one step of an epoch, whatever the ranks and their memory", Sampling,
                   shuffling, balls_in_bins) {
  for (const std::uint64_t n : {1, 10, 999, 5000})
    for (const std::uint64_t steps : {std::uint64_t{1}, std::uint64_t{7}, n}) {
      if (steps > n) continue;
      const Sampling s{steps};
      const auto r = whole(n);
      typename Sampling::memory kept;
      std::vector<std::uint32_t> rows;
      for (int epoch = 0; epoch < 3; ++epoch) {
        std::vector<int> count(n);
        for (std::uint64_t t = 0; t < steps; ++t) {
          const auto step = static_cast<std::uint64_t>(epoch) * steps + t;
          s.draw({key, domain::sampling, step, 0}, r, rows, kept);
          for (const auto row : rows) ++count[row];
          if (t % 100 == 0) {
            std::vector<std::uint64_t> positions(rows.begin(), rows.end());
            REQUIRE(positions == drawn(s, r, step));  // memory changes nothing
          }
          if (std::is_same_v<Sampling, shuffling>) {
            CHECK(rows.size() >= n / steps);
            CHECK(rows.size() <= (n + steps - 1) / steps);
          }
        }
        REQUIRE(std::all_of(count.begin(), count.end(), [](int c) { return c == 1; }));
      }
    }
  // The same memory under another key plans anew.
  typename Sampling::memory kept;
  std::vector<std::uint32_t> a, b, c;
  const auto r = whole(1000);
  const Sampling s{10};
  s.draw({random_key::from_seed(1), domain::sampling, 0, 0}, r, a, kept);
  s.draw({random_key::from_seed(2), domain::sampling, 0, 0}, r, b, kept);
  s.draw({random_key::from_seed(2), domain::sampling, 10, 0}, r, c, kept);
  CHECK(a != b);
  CHECK(b != c);
  for (const std::uint64_t steps : {std::uint64_t{0}, std::uint64_t{1001}})
    CHECK_THROWS_WITH_AS(drawn(Sampling{steps}, r, 0), doctest::Contains("an epoch must have"), error);
}

// Privacy does not depend on it; training does. T epochs of 6 steps: the step of each of 24 positions is uniform, and
// so is the pair of steps of two positions among 400, near and far, T/36 each (within 1 % of it where they are
// shuffled). Bands of 6.5 standard errors over 144 + 174 + 28 x 36 counts for each sampling: false alarms below 3e-7.
// It cannot see dependence among three.
TEST_CASE_TEMPLATE("steps of an epoch are uniform over positions and pairs", Sampling, shuffling, balls_in_bins) {
  constexpr std::size_t steps = 6;
  constexpr double T = 20'000;
  const auto within = [](double count, double share) {
    return std::abs(count - T * share) < 6.5 * std::sqrt(T * share * (1 - share));
  };
  records_at far{400, whole(24).positions};
  for (const std::uint64_t p : {127, 128, 136, 256, 399}) far.positions.push_back(p);
  for (const auto& r : {whole(24), far}) {
    const std::size_t n = r.records();
    std::vector<double> single(n * steps), pairs(n * steps * steps);
    std::vector<std::size_t> at(n);
    typename Sampling::memory kept;
    std::vector<std::uint32_t> rows;
    for (std::uint64_t e = 0; e < 20'000; ++e) {
      for (std::uint64_t t = 0; t < steps; ++t) {
        Sampling{steps}.draw({key, domain::sampling, e * steps + t, 0}, r, rows, kept);
        for (const auto row : rows) at[row] = t;
      }
      for (std::size_t p = 0; p < n; ++p) ++single[p * steps + at[p]], ++pairs[(p * steps + at[0]) * steps + at[p]];
    }
    for (const double c : single) REQUIRE(within(c, 1.0 / 6));
    if (r.all > n)
      for (std::size_t i = steps * steps; i < pairs.size(); ++i) REQUIRE(within(pairs[i], 1.0 / 36));
  }
}

// The definition: position p joins where its own number, of as many bits as it takes, is below the rate. By integers.
TEST_CASE("exact Poisson sampling joins where a position's number is below the rate, to its last bit") {
  __extension__ typedef unsigned __int128 uint128;
  const auto r = whole(3'000'000);
  std::size_t ties = 0;
  // A rate that ends after 16 bits, one that goes on, and small ones, which 16 bits alone would make zero.
  for (const double q : {1.0, 0.5, 3 * 0x1p-16, 0.1, 0.75 * 0x1p-16, 1e-6, 5.5 * 0x1p-18}) {
    const random_stream stream{key, domain::sampling, 4, 0};
    const auto rate = static_cast<uint128>(q * 0x1p80) << 32;  // in units of 2^-112: whole, since q has 53 bits
    std::vector<std::uint64_t> wanted;
    for (std::uint64_t p = 0; p < r.all; ++p) {
      static thread_local std::array<std::uint32_t, 16> words;
      // Word w of lane l: of the block that holds 16 lanes of 32 positions each.
      static std::uint64_t at = ~std::uint64_t{0};
      static std::vector<std::array<std::uint32_t, 16>> lanes(16);
      if (p / 512 != at) {
        at = p / 512;
        for (std::uint32_t l = 0; l < 16; ++l) lanes[l] = stream.block(static_cast<std::uint32_t>(16 * at + l));
      }
      const auto word = lanes[p / 2 % 16][p / 32 % 16];
      uint128 number = (p % 2 ? word >> 16 : word & 0xffff);
      number <<= 96;
      if ((rate >> 96) == (number >> 96)) {
        auto further = stream;
        further.substream = 1u << 23;
        words = further.block(static_cast<std::uint32_t>(p));
        number += static_cast<uint128>(words[0]) << 64 | static_cast<uint128>(words[1]) << 32 | words[2];
        ++ties;
      }
      if (number < rate) wanted.push_back(p);
    }
    CHECK(drawn(exact_poisson_sampling{q}, r, 4) == wanted);
  }
  CHECK(ties > 100);
}

// 6.5 standard errors: a false alarm has a chance below 1e-10 each.
TEST_CASE("exact Poisson sampling joins with probability q, of 16 bits and of more") {
  const auto r = whole(100'000);
  for (const double q : {0.3, 0.01, 2.5 * 0x1p-16, 0.4 * 0x1p-16}) {
    double count = 0, neighbours = 0;
    const double steps = 200, n = steps * 100'000;
    for (std::uint64_t step = 0; step < 200; ++step) {
      const auto d = drawn(exact_poisson_sampling{q}, r, step);
      count += static_cast<double>(d.size());
      for (std::size_t i = 1; i < d.size(); ++i) neighbours += d[i] == d[i - 1] + 1;
    }
    CHECK(std::abs(count - n * q) < 6.5 * std::sqrt(n * q * (1 - q)));
    CHECK(std::abs(neighbours - n * q * q) < 6.5 * std::sqrt(n * q * q * (1 + 2 * q)) + 10);
  }
}
