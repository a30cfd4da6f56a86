// Correlated noise: what is drawn is what is stated, and how far a row moves it is counted right.
#include "dpsgd/privacy/correlated_noise.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdio>
#include <functional>
#include <string>
#include <vector>

#include "dpsgd/accounting/calibrate.hpp"
#include "dpsgd/accounting/pld.hpp"
#include "dpsgd/privacy/clip.hpp"
#include "dpsgd/privacy/sampling.hpp"
#include "dpsgd/testing/laws.hpp"

using namespace dpsgd;

namespace {

using matrix = std::vector<std::vector<double>>;

/// L: row t has the weights of step t's words.
template <class Noise>
matrix combination(const Noise& noise, std::size_t steps) {
  matrix l(steps, std::vector<double>(steps));
  for (std::size_t t = 0; t < steps; ++t)
    noise.terms(t, [&](std::uint64_t lag, float weight) { l[t][t - lag] += weight; });
  return l;
}

/// L^-1, by forward substitution. L has ones on its diagonal.
matrix inverse(const matrix& l) {
  const auto n = l.size();
  matrix c(n, std::vector<double>(n));
  for (std::size_t s = 0; s < n; ++s)
    for (std::size_t t = s; t < n; ++t) {
      c[t][s] = t == s;
      for (std::size_t u = s; u < t; ++u) c[t][s] -= l[t][u] * c[u][s];
    }
  return c;
}

/// |sum of sign x column|^2 of C, over the steps of a pattern.
double moved(const matrix& c, const std::vector<std::size_t>& steps, std::uint64_t signs = 0) {
  double square = 0;
  for (const auto& row : c) {
    double sum = 0;
    for (std::size_t i = 0; i < steps.size(); ++i) sum += (i < 64 && (signs >> i & 1) ? -1 : 1) * row[steps[i]];
    square += sum * sum;
  }
  return square;
}

/// The largest |C x|^2 of a row that may join the steps p, p + separation, ..., or stay away from some of them, and
/// whose gradients there are of length 1 and all alike or opposite. (Lengths and directions between them give less: the
/// square is convex in each gradient, and no entry of C is negative.)
double worst_of_cycle(const matrix& c, std::size_t separation) {
  double most = 0;
  for (std::size_t p = 0; p < std::min(separation, c.size()); ++p) {
    std::vector<std::size_t> all;
    for (std::size_t s = p; s < c.size(); s += separation) all.push_back(s);
    for (std::uint64_t joined = 1; joined < std::uint64_t{1} << all.size(); ++joined) {
      std::vector<std::size_t> some;
      for (std::size_t i = 0; i < all.size(); ++i)
        if (joined >> i & 1) some.push_back(all[i]);
      for (std::uint64_t signs = 0; signs < std::uint64_t{1} << (some.size() - 1); ++signs)
        most = std::max(most, moved(c, some, signs));
    }
  }
  return most;
}

/// The same for any steps that are at least `separation` apart.
double worst_apart(const matrix& c, std::size_t separation) {
  double most = 0;
  std::vector<std::size_t> steps;
  const std::function<void(std::size_t)> extend = [&](std::size_t from) {
    if (!steps.empty()) most = std::max(most, moved(c, steps));
    for (std::size_t s = from; s < c.size(); ++s) {
      steps.push_back(s);
      extend(s + separation);
      steps.pop_back();
    }
  };
  extend(0);
  return most;
}

/// Root-mean-square noise on the sums of the first t steps, over t, where the multiplier is 1.
template <class Noise>
double error_of_sums(const Noise& noise, std::size_t steps) {
  const auto l = combination(noise, steps);
  std::vector<double> sum(steps);
  double square = 0;
  for (const auto& row : l) {
    for (std::size_t s = 0; s < steps; ++s) sum[s] += row[s], square += sum[s] * sum[s];
  }
  return std::sqrt(square / static_cast<double>(steps));
}

/// Planted mistakes: the words of earlier steps are not drawn again, but anew; the first step's weights are those of a
/// later one; a band too few is subtracted.
template <int Mistake>
struct wrong_banded : banded_noise {
  void draw(const random_stream& words, std::uint32_t block, double sensitivity, float* out) const {
    if (Mistake == 1) {
      std::fill_n(out, block_size, 0.0f);
      terms(words.step, [&](std::uint64_t lag, float weight) {
        auto of_step = words;
        of_step.substream = static_cast<std::uint32_t>(lag);
        float word[block_size];
        normal_block(of_step, block, word);
        for (std::size_t i = 0; i < block_size; ++i)
          out[i] += weight * word[i] * static_cast<float>(multiplier * sensitivity);
      });
    } else if (Mistake == 2) {
      auto later = words;
      later.step += 100;
      banded_noise::draw(later, block, sensitivity, out);
    } else {
      banded_noise{multiplier, bands - 1}.draw(words, block, sensitivity, out);
    }
  }
};

}  // namespace

TEST_CASE("correlated noise has the covariance that it states, and check_noise catches one that has not") {
  for (const std::uint32_t bands : {1u, 2u, 7u}) CHECK_NOTHROW(testing::check_noise(banded_noise{1.5, bands}, 0.7));
  CHECK_NOTHROW(testing::check_noise(tree_noise{2.5}, 0.7));
  CHECK_THROWS_WITH_AS(testing::check_noise(wrong_banded<1>{{1.0, 4}}), doctest::Contains("covariance"), error);
  CHECK_THROWS_WITH_AS(testing::check_covariance(wrong_banded<2>{{1.0, 4}}), doctest::Contains("covariance"), error);
  CHECK_THROWS_WITH_AS(testing::check_covariance(wrong_banded<3>{{1.0, 4}}), doctest::Contains("covariance"), error);
}

TEST_CASE("the stated covariance is that of the combination of independent words") {
  const auto check = [](const auto& noise) {
    const auto l = combination(noise, 40);
    for (std::size_t s = 0; s < l.size(); ++s)
      for (std::size_t t = 0; t < l.size(); ++t) {
        double sum = 0;
        for (std::size_t u = 0; u < l.size(); ++u) sum += l[s][u] * l[t][u];
        REQUIRE(noise.covariance(0.5, s, t) == doctest::Approx(sum * 9 * 0.25));
      }
  };
  check(banded_noise{3, 5}), check(banded_noise{3, 64}), check(tree_noise{3});
}

// One band draws the words of gaussian_noise, to the bit.
TEST_CASE("a step's noise is the stated combination of its stream's words and of earlier steps'") {
  const auto key = random_key::from_seed(4);
  float out[normal_block_size], plain[normal_block_size];
  for (const std::uint64_t step : {0, 1, 3, 7, 11}) {
    for (const std::uint32_t block : {0u, 9u}) {
      const auto check = [&](const auto& noise) {
        noise.draw({key, domain::noise, step, 0}, block, 2, out);
        for (const std::size_t i : {0, 1, 17, 159}) {
          double wanted = 0;
          noise.terms(step, [&](std::uint64_t lag, float weight) {
            wanted += double{weight} *
                      normal_value({key, domain::noise, step - lag, 0}, std::size_t{block} * normal_block_size + i);
          });
          CHECK(out[i] == doctest::Approx(3 * 2 * wanted).epsilon(1e-5).scale(1));
        }
      };
      check(banded_noise{3, 4}), check(tree_noise{3});
      banded_noise{3, 1}.draw({key, domain::noise, step, 0}, block, 2, out);
      gaussian_noise{3}.draw({key, domain::noise, step, 0}, block, 2, plain);
      CHECK(std::equal(out, out + normal_block_size, plain));
    }
  }
}

TEST_CASE("the weights are those of the papers") {
  const auto l = combination(banded_noise{1, 5}, 7);
  const std::vector<double> last_row{0, 0, -5.0 / 128, -1.0 / 16, -1.0 / 8, -1.0 / 2, 1};  // of (1 - x)^(1/2)
  CHECK(l[6] == last_row);
  // All bands: C is that of (1 - x)^(-1/2), whose coefficients are C(2n, n) / 4^n (Fichtenberger et al. 2023).
  const auto c = inverse(combination(banded_noise{1, 64}, 64));
  double wanted = 1;
  for (std::size_t n = 0; n < 64; ++n) {
    CHECK(c[n][0] == doctest::Approx(wanted).epsilon(1e-6));  // the weights are floats
    wanted *= (2.0 * static_cast<double>(n) + 1) / (2.0 * static_cast<double>(n) + 2);
  }
  // The tree: the noise of the first t steps is that of as many nodes as t has binary ones.
  const auto tree = combination(tree_noise{1}, 200);
  std::vector<double> sum(200);
  for (std::size_t t = 0; t < 200; ++t) {
    int nodes = 0;
    for (std::size_t s = 0; s < 200; ++s) {
      sum[s] += tree[t][s];
      REQUIRE((sum[s] == 0 || sum[s] == 1));
      nodes += sum[s] == 1;
    }
    CHECK(nodes == std::popcount(t + 1));
  }
}

TEST_CASE("no entry of C is negative, and what a row moves agrees with brute force over patterns, signs and absences") {
  for (const std::size_t steps : {1, 2, 5, 8, 11, 12})
    for (const std::size_t separation : {1, 2, 3, 4, 5, 7, 30}) {
      for (const std::uint32_t bands : {1u, 2u, 3u, 6u, 20u}) {
        const auto c = inverse(combination(banded_noise{1, bands}, steps));
        for (const auto& row : c) CHECK(*std::min_element(row.begin(), row.end()) >= 0);
        const double counted = banded_releases(bands, steps, separation);
        if (steps / separation <= 6) {
          const double worst = worst_of_cycle(c, separation);
          CHECK(counted >= worst);
          CHECK(counted == doctest::Approx(worst).epsilon(1e-11));
        }
        if (separation > 1 || steps < 10)  // also where only the distance is known (Kalinin and Lampert 2024)
          CHECK(counted == doctest::Approx(worst_apart(c, separation)).epsilon(1e-11));
      }
      const auto c = inverse(combination(tree_noise{1}, steps));
      for (const auto& row : c) CHECK(*std::min_element(row.begin(), row.end()) >= 0);
      if (steps / separation <= 6) CHECK(tree_releases(steps, separation) == worst_of_cycle(c, separation));
    }
}

TEST_CASE("for longer runs it agrees with the explicit inverse matrix") {
  for (const std::size_t steps : {32, 99, 128, 130})
    for (const std::size_t separation : {1, 10, 13, 23, 64, 1000}) {  // 23 of 32: not the first step is worst
      const auto worst = [&](const matrix& c) {
        double most = 0;
        for (std::size_t p = 0; p < std::min(separation, steps); ++p) {
          std::vector<std::size_t> all;
          for (std::size_t s = p; s < steps; s += separation) all.push_back(s);
          most = std::max(most, moved(c, all));
        }
        return most;
      };
      for (const std::uint32_t bands : {2u, 32u, 500u})
        CHECK(banded_releases(bands, steps, separation) ==
              doctest::Approx(worst(inverse(combination(banded_noise{1, bands}, steps)))).epsilon(1e-9));
      CHECK(tree_releases(steps, separation) == worst(inverse(combination(tree_noise{1}, steps))));
    }
}

TEST_CASE(
    "a row that joins once moves the tree by sqrt(depth); one band is one release a cycle; more steps move more") {
  for (const std::uint64_t steps : {1, 2, 3, 4, 1000, 1024, 4095, 4096, 100'000})
    CHECK(tree_releases(steps, steps) == std::bit_width(steps));
  for (const std::uint64_t steps : {1, 7, 10, 1001}) {
    const double cycles = std::ceil(static_cast<double>(steps) / 10);
    CHECK(banded_releases(1, steps, 10) >= cycles);
    CHECK(banded_releases(1, steps, 10) == doctest::Approx(cycles).epsilon(1e-11));
  }
  for (const std::uint64_t separation : {1, 9, 40}) {
    double tree = 0, banded = 0;
    for (std::uint64_t steps = 1; steps < 200; ++steps) {
      CHECK(tree_releases(steps, separation) >= tree);
      CHECK(banded_releases(16, steps, separation) >= banded);
      tree = tree_releases(steps, separation), banded = banded_releases(16, steps, separation);
    }
  }
}

TEST_CASE("impossible numbers of bands are refused, and none is never taken for the tree") {
  CHECK_THROWS_WITH_AS(banded_noise({1.0, 0}).event(flat_clip{}.sensitivity()), doctest::Contains("1 to 4,096"), error);
  CHECK_THROWS_AS(banded_noise({1.0, 4097}).event(flat_clip{}.sensitivity()), error);
  CHECK(banded_noise({1.5, 8}).event(flat_clip{}.sensitivity()) == correlated_gaussian_event<zero_out>{1.5, 8});
  CHECK(tree_noise{1.5}.event(flat_clip{}.sensitivity()) == correlated_gaussian_event<zero_out>{1.5, 0});
}

// The table of docs/privacy.md, from nothing but the matrices and the accountant: noise on the sums of the first t steps
// in units of the sensitivity, root mean square over t, at delta 1e-6 over 1,000 steps.
TEST_CASE("correlated noise leaves less on the sums of steps than independent noise at the same epsilon") {
  constexpr std::size_t steps = 1000;
  const double none = error_of_sums(banded_noise{1, 1}, steps);
  const struct {
    double epsilon, separation, shuffled, poisson, tree, banded_8, banded_32, banded_128;
  } documented[] = {{1, 1000, 94.5, 15.6, 29.7, 28.0, 17.0, 13.2},
                    {1, 100, 299, 35.0, 95.7, 88.4, 55.7, 55.2},
                    {8, 1000, 14.6, 9.16, 4.59, 4.32, 2.63, 2.05},
                    {8, 100, 46.2, 13.8, 14.8, 13.7, 8.60, 8.53}};
  std::puts("epsilon   k   shuffled    Poisson       tree     8 bands    32 bands   128 bands");
  for (const auto& row : documented) {
    const privacy_target target{row.epsilon, 1e-6};
    const auto multiplier = [&](auto event_of) { return smallest_multiplier<pld_accountant>(target, steps, event_of); };
    const auto correlated = [&](const auto& noise) {
      const auto z = multiplier([&](double m) {
        auto event = noise.event(l2_sensitivity<zero_out>{1});
        event.multiplier = m;
        return cyclically_sampled{row.separation, event};
      });
      return z * error_of_sums(noise, steps);
    };
    const double shuffled = none * multiplier([&](double m) {
                              return once_per_epoch{row.separation, gaussian_event<zero_out>{m}};
                            });
    const double poisson = none * multiplier([&](double m) {
                             return poisson_sampled{1 / row.separation, gaussian_event<zero_out>{m}};
                           });
    const double tree = correlated(tree_noise{}), banded_8 = correlated(banded_noise{1, 8}),
                 banded_32 = correlated(banded_noise{1, 32}), banded_128 = correlated(banded_noise{1, 128});
    std::printf("%7g %3g %10.2f %10.2f %10.2f  %10.2f  %10.2f  %10.2f\n", row.epsilon, steps / row.separation, shuffled,
                poisson, tree, banded_8, banded_32, banded_128);
    for (const auto& [got, said] : {std::pair{shuffled, row.shuffled},
                                    {poisson, row.poisson},
                                    {tree, row.tree},
                                    {banded_8, row.banded_8},
                                    {banded_32, row.banded_32},
                                    {banded_128, row.banded_128}})
      CHECK(got == doctest::Approx(said).epsilon(0.005));
    CHECK(banded_32 < tree);
    CHECK(tree < shuffled);
  }
}
