#include "dpsgd/audit/bounds.hpp"

#include <doctest/doctest.h>

using namespace dpsgd;
using doctest::Approx;

TEST_CASE("binomial tails agree with sums of exact masses, and with each other") {
  for (const std::uint64_t n : {1u, 2u, 7u, 30u})
    for (const double p : {1e-6, 0.1, 0.5, 0.93}) {
      double exact = 0;  // P[X >= k], from the top
      for (std::uint64_t k = n + 1; k-- > 0;) {
        double choose = 1;
        for (std::uint64_t i = 0; i < k; ++i) choose = choose * static_cast<double>(n - i) / static_cast<double>(i + 1);
        exact += choose * std::pow(p, static_cast<double>(k)) * std::pow(1 - p, static_cast<double>(n - k));
        CHECK(audit::binomial_tail(k, n, p) == Approx(exact).epsilon(1e-9));
      }
    }
  CHECK(audit::binomial_tail(0, 10, 0.3) == 1);
  CHECK(audit::binomial_tail(11, 10, 0.3) == 0);
  CHECK(audit::binomial_tail(3, 10, 0) == 0);
  CHECK(audit::binomial_tail(10, 10, 1) == 1);
  for (const std::uint64_t n : {1000u, 1'000'000u})  // symmetry: P[X >= k] at p is 1 - P[X >= n - k + 1] at 1 - p
    for (const std::uint64_t k : {n / 10, n / 2, n / 2 + 7})
      CHECK(audit::binomial_tail(k, n, 0.4) + audit::binomial_tail(n - k + 1, n, 0.6) == Approx(1).epsilon(1e-9));
}

TEST_CASE("Clopper-Pearson: published values, and coverage exactly as promised") {
  // 10 of 100 at 95 %, two-sided: [0.0490, 0.1762]; 0 of n: the rule 1 - alpha^(1/n).
  CHECK(audit::probability_at_least(10, 100, 0.025) == Approx(0.04900469).epsilon(1e-6));
  CHECK(audit::probability_at_most(10, 100, 0.025) == Approx(0.17622260).epsilon(1e-6));
  CHECK(audit::probability_at_least(0, 50, 0.01) == 0);
  CHECK(audit::probability_at_most(0, 50, 0.01) == Approx(1 - std::pow(0.01, 1.0 / 50)).epsilon(1e-9));
  CHECK(audit::probability_at_most(50, 50, 0.01) == 1);
  for (const double p : {0.01, 0.3, 0.5})  // P[the lower bound is above p], summed over what may come
    for (const double alpha : {0.1, 1e-3}) {
      constexpr std::uint64_t n = 60;
      double wrong = 0;
      for (std::uint64_t k = 0; k <= n; ++k)
        if (audit::probability_at_least(k, n, alpha) > p) wrong += audit::detail::binomial_mass(k, n, p);
      CHECK(wrong <= alpha);
      if (p < 0.1) CHECK(wrong > 0);
    }
  CHECK_THROWS_AS(audit::probability_at_least(3, 2, 0.1), error);
  CHECK_THROWS_AS(audit::probability_at_least(1, 2, 0), error);
}

TEST_CASE("an audit's bound is above the truth as seldom as it promises") {
  // Randomised response: the right answer with probability e^epsilon / (1 + e^epsilon), delta 0: nothing is tighter.
  const double epsilon = 1.0, p = 1 / (1 + std::exp(-epsilon)), confidence = 0.9;
  constexpr std::uint64_t n = 40;
  double wrong = 0;
  for (std::uint64_t on = 0; on <= n; ++on)
    for (std::uint64_t off = 0; off <= n; ++off)
      if (audit::epsilon_at_least(on, n, off, n, 0, confidence) > epsilon)
        wrong += audit::detail::binomial_mass(on, n, p) * audit::detail::binomial_mass(off, n, 1 - p);
  CHECK(wrong <= 1 - confidence);
  CHECK(wrong > 0);
  CHECK(audit::epsilon_at_least(n, n, 0, n, 0, confidence) > epsilon);
  CHECK(audit::epsilon_at_least(20, n, 20, n, 0, confidence) == 0);
  CHECK(audit::epsilon_at_least(n, n, 0, n, 0.5, confidence) < audit::epsilon_at_least(n, n, 0, n, 0, confidence));
}

TEST_CASE("an audit by one run: right as seldom as it promises, and the published formula at delta > 0") {
  const double epsilon = 1.5, p = 1 / (1 + std::exp(-epsilon));
  for (const double confidence : {0.9, 0.999}) {
    double wrong = 0;
    for (std::uint64_t right = 0; right <= 80; ++right)
      if (audit::epsilon_at_least_one_run(200, 80, right, 0, confidence) > epsilon)
        wrong += audit::detail::binomial_mass(right, 80, p);
    CHECK(wrong <= 1 - confidence);
    CHECK(wrong > 0);
  }
  // With the formula of the paper's appendix in scipy 1.17 (binom.sf, binom.pmf; bisection): canaries, guesses, right,
  // delta, confidence.
  CHECK(audit::epsilon_at_least_one_run(1000, 100, 95, 1e-5, 0.95) == Approx(2.165175799714052).epsilon(1e-6));
  CHECK(audit::epsilon_at_least_one_run(1000, 500, 400, 1e-6, 0.999) == Approx(1.0438442829909258).epsilon(1e-6));
  CHECK(audit::epsilon_at_least_one_run(5000, 300, 300, 1e-7, 0.999) == Approx(3.745361824671837).epsilon(1e-6));
  CHECK(audit::epsilon_at_least_one_run(1000, 100, 50, 1e-5, 0.95) == 0);
  CHECK(audit::epsilon_at_least_one_run(1000, 100, 100, 0.1, 0.95) == 0);  // delta explains it
  CHECK_THROWS_AS(audit::epsilon_at_least_one_run(10, 11, 3, 0, 0.9), error);
}
