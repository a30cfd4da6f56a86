#include "dpsgd/accounting/pld.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <complex>
#include <limits>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "accounting/published.hpp"
#include "dpsgd/accounting/claim.hpp"
#include "dpsgd/accounting/rdp.hpp"

using namespace dpsgd;

namespace {

using step = poisson_sampled<gaussian_event<zero_out>>;
constexpr double infinity = std::numeric_limits<double>::infinity();

step sampled(double q, double sigma) { return {q, {sigma}}; }
step of_owners(double q, double sigma, int rows) { return {q, {sigma, static_cast<double>(rows)}}; }

pld_accountant::result spent(double q, double sigma, std::uint64_t steps, double delta) {
  pld_accountant a;
  a.add(sampled(q, sigma), steps);
  return a.spent(delta);
}

bool is_tight(const pld_accountant::result& r) { return r.epsilon - r.epsilon_lo <= std::max(1e-3 * r.epsilon, 1e-9); }

double normal_tail(double x) { return std::erfc(x / std::sqrt(2.0)) / 2; }

/// The exact delta of Gaussian releases without sampling that together move the mean by mu standard deviations (Balle
/// and Wang 2018, theorem 8): Phi(mu/2 - epsilon/mu) - e^epsilon Phi(-mu/2 - epsilon/mu).
double delta_of_gaussians(double mu, double eps) {
  const long double root = std::sqrt(2.0L), m = mu, e = eps;
  return static_cast<double>((std::erfc((e / m - m / 2) / root) - std::exp(e) * std::erfc((e / m + m / 2) / root)) / 2);
}

/// ln R(x), where rows of which each is sampled by itself all point the same way.
double loss(double q, double s, int rows, double x) {
  double less_one = 0, choose = 1;  // of the rows j
  for (int j = 0; j <= rows; ++j) {
    less_one += choose * std::pow(q, j) * std::pow(1 - q, rows - j) * std::expm1(j * (x - 0.5 * j) / (s * s));
    choose *= (rows - j) / (j + 1.0);
  }
  return std::log1p(less_one);
}

/// The exact delta of one step at epsilon for several rows, against blanking them and against the reverse.
std::pair<double, double> deltas_of_rows(double q, double s, int rows, double eps) {
  const auto place = [&](double wanted) {  // by halving; -infinity where no x has so small a loss
    if (wanted <= rows * std::log1p(-q)) return -infinity;
    double low = -100 * s, high = rows + 100 * s;
    for (int i = 0; i < 100; ++i) {
      const double x = (low + high) / 2;
      (loss(q, s, rows, x) > wanted ? high : low) = x;
    }
    return high;
  };
  const double cut = place(eps), other = place(-eps);
  double right = 0, left = 0, chance = std::pow(1 - q, rows);
  for (int j = 0; j <= rows; ++j) {
    right += chance * normal_tail((cut - j) / s), left += chance * normal_tail((j - other) / s);
    chance *= q / (1 - q) * (rows - j) / (j + 1);
  }
  return {right - std::exp(eps) * normal_tail(cut / s), normal_tail(-other / s) - std::exp(eps) * left};
}

/// The exact delta of one sampled step at epsilon, against blanking a row and against the reverse.
double delta_of_one_step(double q, double s, double eps) {
  const double cut = s * s * std::log1p(std::expm1(eps) / q) + 0.5;
  return q * normal_tail((cut - 1) / s) + (1 - q - std::exp(eps)) * normal_tail(cut / s);
}
double delta_of_one_step_reversed(double q, double s, double eps) {
  if (std::exp(-eps) <= 1 - q) return 0;
  const double cut = s * s * std::log1p(std::expm1(-eps) / q) + 0.5;
  return (1 - std::exp(eps) * (1 - q)) * normal_tail(-cut / s) - std::exp(eps) * q * normal_tail(-(cut - 1) / s);
}

/// An oracle without a grid in the loss: with phi the characteristic function of one step's tilted loss,
///   delta(epsilon) = C / 2 pi  integral of phi(t)^T e^(-i t epsilon) [1/(lambda + i t) - 1/(lambda + 1 + i t)] dt,
/// C = e^(T K - lambda epsilon), by the trapezoid rule in t, and phi by the trapezoid rule in x. For runs in which a
/// row is drawn often enough that phi^T dies out.
class oracle {
 public:
  oracle(double q, double s, double steps, int rows = 1) : steps_(steps) {
    const double h = std::min(s, s * s / rows) / 8;
    for (double x = -13 * s; x < rows + 13 * s; x += h) {
      loss_.push_back(loss(q, s, rows, x));
      log_mass_.push_back(-x * x / (2 * s * s) - std::log(s * std::sqrt(2 * M_PI) / h) + loss_.back());
    }
  }

  double delta(double eps) const {
    double low = -12, high = 20;  // ln lambda: where C / (lambda (1 + lambda)) has its minimum
    const auto size = [&](double log) { return exponent(std::exp(log), eps) - log - std::log1p(std::exp(log)); };
    for (int i = 0; i < 60; ++i) {
      const double a = low + 0.382 * (high - low), b = low + 0.618 * (high - low);
      if (size(a) < size(b)) high = b;
      else low = a;
    }
    const double lambda = std::exp(low), c = std::exp(exponent(lambda, eps));
    double mass = 0, mean = 0, square = 0;
    std::vector<double> weight;
    for (std::size_t i = 0; i < loss_.size(); ++i) {
      weight.push_back(std::exp(log_mass_[i] + lambda * loss_[i]));
      mass += weight[i], mean += weight[i] * loss_[i], square += weight[i] * loss_[i] * loss_[i];
    }
    mean /= mass;
    const double deviation = std::sqrt(steps_ * (square / mass - mean * mean));
    // Steps in t of 2 pi / width: what lies `width` away in the loss is folded in.
    const double width = 45 / lambda + 30 * deviation + std::abs(steps_ * mean - eps), dt = 2 * M_PI / width;
    double sum = 0;
    for (int k = 0;; ++k) {
      const double t = k * dt;
      std::complex<double> phi = 0;  // about its mean, so that the power's phase is small
      for (std::size_t i = 0; i < loss_.size(); ++i) phi += weight[i] / mass * std::polar(1.0, t * (loss_[i] - mean));
      const auto power = std::exp(steps_ * std::log(phi) + std::complex<double>(0, t * (steps_ * mean - eps)));
      const std::complex<double> at(0, t);
      sum += (k == 0 ? 0.5 : 1) * (power * (1.0 / (lambda + at) - 1.0 / (lambda + 1 + at))).real();
      if (std::abs(power) < 1e-16) break;
      REQUIRE(k < 20000);
    }
    return c * sum * dt / M_PI;
  }

 private:
  double exponent(double lambda, double eps) const {
    double most = -infinity, mass = 0;
    for (std::size_t i = 0; i < loss_.size(); ++i) most = std::max(most, log_mass_[i] + lambda * loss_[i]);
    for (std::size_t i = 0; i < loss_.size(); ++i) mass += std::exp(log_mass_[i] + lambda * loss_[i] - most);
    return steps_ * (most + std::log(mass)) - lambda * eps;  // ln C
  }
  double steps_;
  std::vector<double> loss_, log_mass_;
};

std::mt19937_64 numbers(20240202);  // tests choose numbers; nothing private is drawn here
double between(double low, double high) {
  return low + (high - low) * std::ldexp(static_cast<double>(numbers() >> 11), -53);
}
double log_between(double low, double high) { return std::exp(between(std::log(low), std::log(high))); }

}  // namespace

TEST_CASE("published PRV figures: the interval lies within their error, [v - 0.02, v]") {
  for (const auto& r : published::prv) {
    CAPTURE(r.source);
    const auto got = spent(r.q, r.sigma, r.steps, r.delta);
    CHECK(got.epsilon_lo >= r.epsilon - 0.02);
    CHECK(got.epsilon <= r.epsilon);
    CHECK(is_tight(got));
  }
}

TEST_CASE("published PLD figures: hi is theirs to 1e-3") {
  for (const auto& r : published::pld) {
    CAPTURE(r.source);
    const auto got = spent(r.q, r.sigma, r.steps, r.delta);
    CHECK(got.epsilon == doctest::Approx(r.epsilon).epsilon(1e-3).scale(0));
    CHECK(is_tight(got));
  }
}

TEST_CASE("published RDP figures, and our own, are not below") {
  for (const auto& r : published::rdp) {
    CAPTURE(r.source);
    const auto got = spent(r.q, r.sigma, r.steps, r.delta);
    rdp_accountant renyi;
    renyi.add(sampled(r.q, r.sigma), r.steps);
    CHECK(got.epsilon <= r.epsilon);
    CHECK(got.epsilon_lo <= renyi.spent(r.delta).epsilon);
    CHECK(got.epsilon <= renyi.spent(r.delta).epsilon * (1 + 1e-6));
  }
}

TEST_CASE("without sampling the closed form lies in the interval, down to delta = 1e-30") {
  for (int i = 0; i < 60; ++i) {
    const double sigma = log_between(0.2, 1000), delta = log_between(1e-30, 0.1);
    const auto steps = static_cast<std::uint64_t>(log_between(1, std::min(1e6, 500 * sigma * sigma + 1)));
    const double mu = std::sqrt(static_cast<double>(steps)) / sigma;
    INFO("steps ", steps, " sigma ", sigma, " delta ", delta);
    const auto got = spent(1, sigma, steps, delta);
    CAPTURE(got.epsilon);
    REQUIRE(is_tight(got));
    REQUIRE(delta_of_gaussians(mu, got.epsilon) <= delta * (1 + 1e-12));
    if (got.epsilon_lo > 0) REQUIRE(delta_of_gaussians(mu, got.epsilon_lo) >= delta * (1 - 1e-12));
  }
}

TEST_CASE("one sampled step: the closed forms of both directions") {
  for (int i = 0; i < 100; ++i) {
    const double q = log_between(1e-6, 0.9999), sigma = log_between(0.1, 100), delta = log_between(1e-30, 0.1);
    INFO("q ", q, " sigma ", sigma, " delta ", delta);
    const auto got = spent(q, sigma, 1, delta);
    CAPTURE(got.epsilon);
    CAPTURE(got.epsilon_lo);
    if (q > 1e-3 && delta > 1e-15) REQUIRE(is_tight(got));  // else a tilt cannot always reach a rare hit
    REQUIRE(delta_of_one_step(q, sigma, got.epsilon) <= delta * (1 + 1e-9));
    REQUIRE(delta_of_one_step_reversed(q, sigma, got.epsilon) <= delta * (1 + 1e-9));
    if (got.epsilon_lo > 0) REQUIRE(delta_of_one_step(q, sigma, got.epsilon_lo) >= delta * (1 - 1e-9));
  }
}

TEST_CASE("the oracle agrees with closed forms") {
  for (const double eps : {0.5, 2.0, 7.0}) {
    CHECK(oracle(1, 5, 100).delta(eps) == doctest::Approx(delta_of_gaussians(2, eps)).epsilon(1e-11).scale(0));
    CHECK(oracle(1, 1.4, 4).delta(eps) == doctest::Approx(delta_of_gaussians(2 / 1.4, eps)).epsilon(1e-11).scale(0));
  }
}

TEST_CASE("the oracle's epsilon lies in the interval, over a spread of runs") {
  const auto check = [](double q, double sigma, std::uint64_t steps, double delta) {
    INFO("q ", q, " sigma ", sigma, " steps ", steps, " delta ", delta);
    const auto got = spent(q, sigma, steps, delta);
    CAPTURE(got.epsilon);
    CAPTURE(got.epsilon_lo);
    CHECK(is_tight(got));
    const oracle truth(q, sigma, static_cast<double>(steps));
    CHECK(truth.delta(got.epsilon) <= delta * (1 + 1e-7));
    if (got.epsilon_lo > 0) CHECK(truth.delta(got.epsilon_lo) >= delta * (1 - 1e-7));
  };
  check(0.01, 1, 1000, 1e-5), check(0.01, 1, 1000, 1e-30), check(0.01, 1, 1'000'000, 1e-6);
  check(0.002, 0.8, 100'000, 1e-7), check(0.2, 50, 10'000, 1e-10), check(0.001, 3, 50'000, 1e-6);
  check(0.5, 0.7, 300, 1e-5), check(0.01, 2, 1'000'000, 1e-15), check(0.1, 100, 1'000'000, 1e-8);
  for (int i = 0; i < 40; ++i) {
    const double q = log_between(1e-3, 0.9), sigma = log_between(0.5, 20), delta = log_between(1e-20, 1e-3);
    check(q, sigma, static_cast<std::uint64_t>(log_between(100 / q, 300'000)), delta);
  }
}

TEST_CASE("several rows of one owner: one step by the closed forms of both directions") {
  for (int i = 0; i < 60; ++i) {
    const double q = log_between(1e-3, 0.6), sigma = log_between(0.5, 30), delta = log_between(1e-12, 0.01);
    const int rows = 2 + static_cast<int>(numbers() % 8);
    INFO("q ", q, " sigma ", sigma, " delta ", delta, " rows ", rows);
    pld_accountant a;
    a.add(of_owners(q, sigma, rows), 1);
    const auto got = a.spent(delta);
    CAPTURE(got.epsilon);
    CAPTURE(got.epsilon_lo);
    CHECK(is_tight(got));
    const auto [remove, add] = deltas_of_rows(q, sigma, rows, got.epsilon);
    REQUIRE(std::max(remove, add) <= delta * (1 + 1e-9) + 1e-15);
    if (got.epsilon_lo > 0) {
      const auto [remove_lo, add_lo] = deltas_of_rows(q, sigma, rows, got.epsilon_lo);
      REQUIRE(std::max(remove_lo, add_lo) >= delta * (1 - 1e-9) - 1e-15);
    }
  }
}

TEST_CASE("several rows of one owner: the oracle's epsilon lies in the interval, and dp-accounting's figures agree") {
  struct figure {
    double q, sigma;
    int rows;
    std::uint64_t steps;
    double delta, epsilon;
  };
  // dp-accounting 0.6.0, from_mixture_gaussian_mechanism(sigma, 0..rows, the binomial chances, interval 1e-4).
  for (const auto& f : {figure{0.01, 1, 1, 1000, 1e-5, 1.82824},
                        {0.01, 1, 2, 1000, 1e-5, 3.97909},
                        {0.01, 1, 4, 1000, 1e-5, 8.89919},
                        {0.001, 0.8, 8, 2000, 1e-6, 4.42657},
                        {0.1, 2, 3, 100, 1e-5, 8.38686},
                        {0.2, 5, 5, 500, 1e-8, 35.6319},
                        {0.002, 0.6, 2, 5000, 1e-6, 7.96923}}) {
    INFO("q ", f.q, " sigma ", f.sigma, " rows ", f.rows, " steps ", f.steps);
    pld_accountant a;
    a.add(of_owners(f.q, f.sigma, f.rows), f.steps);
    const auto got = a.spent(f.delta);
    CAPTURE(got.epsilon_lo);
    CHECK(is_tight(got));
    CHECK(got.epsilon == doctest::Approx(f.epsilon).epsilon(1e-3).scale(0));
    const oracle truth(f.q, f.sigma, static_cast<double>(f.steps), f.rows);
    CHECK(truth.delta(got.epsilon) <= f.delta * (1 + 1e-7));
    CHECK(truth.delta(got.epsilon_lo) >= f.delta * (1 - 1e-7));
    rdp_accountant moments;  // which counts all rows whenever one is sampled
    moments.add(of_owners(f.q, f.sigma, f.rows), f.steps);
    CHECK(moments.spent(f.delta).epsilon > got.epsilon_lo);
  }
}

TEST_CASE("several rows of one owner: in every batch they are one Gaussian of the multiplier over their number") {
  for (const int rows : {2, 3, 50}) {
    pld_accountant together, one;
    rdp_accountant moments, moments_of_one;
    const gaussian_event<zero_out> owners{60, static_cast<double>(rows)}, row{60.0 / rows};
    together.add(owners, 7), one.add(row, 7), moments.add(owners, 7), moments_of_one.add(row, 7);
    CHECK(together.spent(1e-6).epsilon == one.spent(1e-6).epsilon);
    CHECK(moments.spent(1e-6).epsilon == moments_of_one.spent(1e-6).epsilon);
  }
}

TEST_CASE("rows and owners do not add up: one claim has one unit") {
  const auto refused = [](auto accountant) {
    accountant.add(of_owners(0.01, 1, 4), 10);
    accountant.add(of_owners(0.01, 1, 4), 10);
    CHECK_THROWS_WITH(
        accountant.add(sampled(0.01, 1), 1),
        doctest::Contains("protect one row, but earlier ones on the same data one owner of at most 4 rows"));
    CHECK_THROWS_WITH(accountant.add(of_owners(0.01, 1, 3), 1), doctest::Contains("one owner of at most 3 rows"));
  };
  refused(pld_accountant{}), refused(rdp_accountant{});
  CHECK_THROWS_WITH(pld_accountant{}.add(of_owners(0.01, 1, 0), 1), doctest::Contains("whole number from 1 to 64"));
  CHECK_THROWS_WITH(rdp_accountant{}.add(fixed_size_sampled{0.1, gaussian_event<zero_out>{1, 2}}, 1),
                    doctest::Contains("use poisson_sampling"));
  pld_accountant a;
  a.add(of_owners(0.01, 1, 4), 10);
  CHECK(make_claim(a, of_owners(0.01, 1, 4), 1e-5).words().find("unit: one owner of at most 4 rows") !=
        std::string::npos);
  CHECK(event_words(of_owners(0.25, 1, 4)) == "poisson-gaussian zero-out rate=0.25 multiplier=1 rows=4");
  CHECK(event_words(sampled(0.25, 1)) == "poisson-gaussian zero-out rate=0.25 multiplier=1");
}

TEST_CASE("it is never above RDP, and never below by more than RDP's looseness allows") {
  for (int i = 0; i < 40; ++i) {
    const double q = log_between(1e-5, 1), sigma = log_between(0.4, 30), delta = log_between(1e-12, 1e-2);
    const auto steps = static_cast<std::uint64_t>(log_between(1, 1e5));
    INFO("q ", q, " sigma ", sigma, " steps ", steps, " delta ", delta);
    rdp_accountant renyi;
    renyi.add(sampled(q, sigma), steps);
    const auto got = spent(q, sigma, steps, delta);
    REQUIRE(got.epsilon <= renyi.spent(delta).epsilon * (1 + 1e-6));
    REQUIRE(got.epsilon_lo <= got.epsilon);
    REQUIRE(got.epsilon_lo >= 0);
  }
}

TEST_CASE("events compose: by steps, in any order, and different ones") {
  pld_accountant once, twice;
  once.add(sampled(0.01, 1), 300);
  twice.add(sampled(0.01, 1), 100), twice.add(sampled(0.01, 1), 200);
  CHECK(once.spent(1e-5).epsilon == twice.spent(1e-5).epsilon);

  pld_accountant mixed, mixed_back, more;
  mixed.add(sampled(0.01, 1), 300), mixed.add(gaussian_event<zero_out>{20}, 10), mixed.add(sampled(0.02, 1), 5);
  mixed_back.add(sampled(0.02, 1), 5), mixed_back.add(gaussian_event<zero_out>{20}, 10),
      mixed_back.add(sampled(0.01, 1), 300);
  const auto got = mixed.spent(1e-5);
  CHECK(got.epsilon == doctest::Approx(mixed_back.spent(1e-5).epsilon).epsilon(1e-9));
  CHECK(is_tight(got));
  CHECK(got.epsilon_lo > once.spent(1e-5).epsilon);

  // Different Gaussians are one: 1/sigma^2 adds up.
  for (const double delta : {1e-5, 1e-30}) {
    pld_accountant a;
    a.add(gaussian_event<zero_out>{10}, 3), a.add(sampled(1, 5), 4), a.add(sampled(1, 2.5), 2);
    const double mu = std::sqrt(3 / 100.0 + 4 / 25.0 + 2 / 6.25);
    const auto together = a.spent(delta);
    CHECK(is_tight(together));
    CHECK(delta_of_gaussians(mu, together.epsilon) <= delta);
    CHECK(delta_of_gaussians(mu, together.epsilon_lo) >= delta);
  }
  // A noise schedule whose multipliers differ a little lies between two runs of one multiplier.
  pld_accountant schedule;
  for (int i = 0; i < 20; ++i) schedule.add(sampled(0.01, 1 + 0.001 * i), 100);
  CHECK(schedule.spent(1e-6).epsilon_lo <= spent(0.01, 1, 2000, 1e-6).epsilon);
  CHECK(schedule.spent(1e-6).epsilon >= spent(0.01, 1.019, 2000, 1e-6).epsilon_lo);
}

TEST_CASE("epsilon grows with steps, rate and 1/sigma, and falls with delta: the intervals never contradict it") {
  for (int i = 0; i < 30; ++i) {
    const double q = log_between(1e-4, 0.5), sigma = log_between(0.4, 10), delta = log_between(1e-15, 1e-3);
    const auto steps = static_cast<std::uint64_t>(log_between(10, 1e5));
    INFO("q ", q, " sigma ", sigma, " steps ", steps, " delta ", delta);
    const double least = spent(q, sigma, steps, delta).epsilon_lo;
    REQUIRE(spent(q, sigma, steps + steps / 10 + 1, delta).epsilon >= least);
    REQUIRE(spent(q * 1.1, sigma, steps, delta).epsilon >= least);
    REQUIRE(spent(q, sigma / 1.1, steps, delta).epsilon >= least);
    REQUIRE(spent(q, sigma, steps, delta / 2).epsilon >= least);
  }
}

TEST_CASE("keeps(epsilon, delta) is spent(delta).epsilon <= epsilon") {
  for (int i = 0; i < 20; ++i) {
    const double q = log_between(1e-4, 0.5), sigma = log_between(0.4, 10), delta = log_between(1e-12, 1e-3);
    pld_accountant a;
    a.add(sampled(q, sigma), static_cast<std::uint64_t>(log_between(10, 1e5)));
    const auto r = a.spent(delta);
    for (const double factor : {0.1, 0.9, 1 - 1e-12, 1.0, 1.01, 10.0})
      REQUIRE(a.keeps(r.epsilon * factor, delta) == (r.epsilon <= r.epsilon * factor));
  }
}

TEST_CASE("the edges") {
  const double nan = std::nan("");
  CHECK(pld_accountant{}.spent(1e-5).epsilon == 0);
  CHECK(pld_accountant{}.spent(0).epsilon == 0);
  CHECK(spent(0.01, 1, 0, 1e-5).epsilon == 0);
  CHECK(spent(0, 0, 100, 1e-5).epsilon == 0);  // nobody is ever sampled
  CHECK(spent(0.5, infinity, 100, 1e-5).epsilon == 0);
  CHECK(spent(0.01, 0, 1, 1e-5).epsilon == infinity);
  CHECK(spent(0.01, 0, 1, 1e-5).epsilon_lo == infinity);
  CHECK(spent(1, 0, 1, 1e-5).epsilon == infinity);
  CHECK(spent(0.01, 0, 10, 1 - std::pow(0.99, 10) + 1e-12).epsilon == 0);  // who is not sampled is not seen
  CHECK(spent(0.01, 0, 10, 1 - std::pow(0.99, 10) - 1e-12).epsilon == infinity);
  CHECK(spent(0.01, 1e-3, 1, 1e-5).epsilon == infinity);  // counts as no noise
  CHECK(spent(0.01, 1e-3, 1, 1e-5).epsilon_lo > 100);
  CHECK(spent(0.01, 1, 1, 0).epsilon == infinity);
  CHECK(spent(0.01, 1, 1, 1).epsilon == 0);
  CHECK(spent(0.01, 0, 1, 1).epsilon == 0);
  CHECK(spent(1e-300, 1, 1, 1e-5).epsilon == 0);
  // delta(0) = erf(1/sqrt 8) = 0.382924922548
  CHECK(spent(1, 1, 1, 0.38).epsilon >= 0.00948640596108);
  CHECK(spent(1, 1, 1, 0.38).epsilon_lo <= 0.00948640596108);
  CHECK(spent(1, 1, 1, 0.382925).epsilon <= 1e-6);
  CHECK(spent(1, 1, 1, 0.383).epsilon == 0);
  CHECK(spent(1, 1, 1, 0.4).epsilon == 0);
  CHECK(spent(1, 1, 1, 0.9999).epsilon == 0);
  for (const double q : {-0.1, 1.1, nan}) CHECK_THROWS_AS(spent(q, 1, 1, 1e-5), error);
  for (const double sigma : {-1.0, nan}) CHECK_THROWS_AS(spent(0.1, sigma, 1, 1e-5), error);
  for (const double delta : {-1e-9, nan}) CHECK_THROWS_AS(spent(0.1, 1, 1, delta), error);

  // No noise in some steps: each row is sampled there with probability 1e-3, or is not.
  pld_accountant partly;
  partly.add(sampled(0.001, 0), 1), partly.add(sampled(0.01, 1), 1000);
  CHECK(partly.spent(0.9e-3).epsilon == infinity);
  const auto rest = spent(0.01, 1, 1000, 1e-3);
  CHECK(partly.spent(2e-3).epsilon >= rest.epsilon_lo - 0.0011);
  CHECK(partly.spent(2e-3).epsilon <= rest.epsilon + 0.0011);

  pld_accountant exposed;
  exposed.add(no_privacy_event{{.no_noise = true}}, 0);
  CHECK(exposed.spent(1e-5).epsilon == 0);
  exposed.add(no_privacy_event{{.no_noise = true}}, 1);
  CHECK(exposed.spent(1e-5).epsilon == infinity);
}

TEST_CASE("extreme numbers give an interval or are refused; never NaN, never below the truth's simple bounds") {
  int answered = 0;
  for (int i = 0; i < 40; ++i) {
    const double q = log_between(1e-12, 1), sigma = log_between(0.02, 1e8), delta = log_between(1e-40, 0.99);
    const std::uint64_t steps = numbers() >> (34 + numbers() % 30);
    INFO("q ", q, " sigma ", sigma, " delta ", delta, " steps ", steps);
    try {
      const auto r = spent(q, sigma, steps, delta);
      ++answered;
      REQUIRE(r.epsilon >= 0);
      REQUIRE(r.epsilon_lo <= r.epsilon);
      if (steps == 0) continue;
      // One step of the run has a closed form, and the run spends at least that.
      if (sigma > 0.1 && r.epsilon < 500) REQUIRE(delta_of_one_step(q, sigma, r.epsilon) <= delta * (1 + 1e-9) + 1e-15);
    } catch (const error& refused) {
      CHECK(std::string(refused.what()).find("cannot certify") != std::string::npos);
    }
  }
  CHECK(answered >= 20);
  CHECK_THROWS_WITH_AS(spent(0.01, 1, std::uint64_t{1} << 62, 1e-6), doctest::Contains("use rdp_accountant"), error);
}

// Almost no noise and very many steps: the grid of the harmless direction becomes so fine that the end of an interval
// could round to its begin, from where the law went on for ever and took all memory.
TEST_CASE("a grid that is finer than doubles tell apart is left behind") {
  const auto spent = [](double q, double s, std::uint64_t steps) {
    pld_accountant a;
    a.add(poisson_sampled{q, gaussian_event<zero_out>{s}}, steps);
    return a.spent(2.78884e-9);
  };
  // Losses are near s^-2/2 where a row is sampled, half of the times: bounds far outside of chance.
  const auto some = spent(0.5, 0.0399383, 100);
  CHECK(some.epsilon_lo <= some.epsilon);
  CHECK(some.epsilon_lo > 50 / (2 * 0.0399383 * 0.0399383));
  CHECK(some.epsilon < 100 / (2 * 0.0399383 * 0.0399383));
  for (const double s : {0.03125, 0.035, 0.045}) {
    const auto more = spent(0.86, s, 851);
    CHECK(more.epsilon_lo <= more.epsilon);
    CHECK(more.epsilon_lo > 0.86 * 851 / (2 * s * s));
    CHECK(more.epsilon < 851 / (2 * s * s));
  }
}

TEST_CASE("the claim uses hi") {
  pld_accountant a;
  a.add(sampled(0.01, 1), 1000);
  const auto c = make_claim(a, sampled(0.01, 1), 1e-5);
  CHECK(c.epsilon == a.spent(1e-5).epsilon);
  CHECK(c.words().find("PLD") != std::string::npos);
}

TEST_CASE("rates just below 1 are answered, and spend hardly less than rate 1") {  // some never were
  for (const double s : {0.05, 0.1, 0.3})
    for (const std::uint64_t steps : {1, 1000})
      for (const double missed : {1e-4, 1e-8, 1e-11}) {
        pld_accountant all, nearly;
        all.add(gaussian_event<zero_out>{s}, steps);
        nearly.add(poisson_sampled{1 - missed, gaussian_event<zero_out>{s}}, steps);
        const auto one = all.spent(1e-5), other = nearly.spent(1e-5);
        INFO("s ", s, ", steps ", steps, ", 1 - q ", missed);
        CHECK(other.epsilon_lo <= one.epsilon);
        CHECK(other.epsilon >= one.epsilon_lo * (1 - 1e-3));
        CHECK(other.epsilon - other.epsilon_lo <= 1e-3 * other.epsilon);
      }
}

// what an accountant does not know does not compile: as a question here, so that the answer can be tested
namespace {
struct replace {
  [[maybe_unused]] static constexpr std::string_view name = "replace", unit = "one row";
};
}  // namespace
static_assert(!accounts<pld_accountant, gaussian_event<replace>>, "different adjacencies do not compose");
static_assert(!accounts<pld_accountant, poisson_sampled<poisson_sampled<gaussian_event<zero_out>>>>);

// Ten epochs at multiplier 0.9 and delta 1e-7: a Gaussian of mean sqrt(10)/0.9, 23.83 (Balle and Wang 2018's closed
// form, by an independent program). Poisson sampling of the same batches would claim 0.33.
TEST_CASE("ten shuffled epochs spend 23.83, a begun one counts whole, and runs add up each with its own") {
  const once_per_epoch epochs{4688.0, gaussian_event<zero_out>{0.9}};
  const auto spent = [&](std::initializer_list<std::uint64_t> runs) {
    pld_accountant a;
    for (const auto steps : runs) a.add(epochs, steps);
    return a.spent(1e-7).epsilon;
  };
  CHECK(spent({46'880}) == doctest::Approx(23.83).epsilon(1e-3));
  CHECK(spent({46'880 - 4687}) == spent({46'880}));
  CHECK(spent({46'880 - 4688}) < spent({46'880}));
  CHECK(spent({10, 46'880 - 4688}) == spent({46'880}));
  CHECK(spent({1, 1, 1}) == spent({3 * 4688}));
  pld_accountant a;
  CHECK_THROWS_WITH_AS(a.add(once_per_epoch{1.5, gaussian_event<zero_out>{1}}, 1), doctest::Contains("whole number"),
                       error);
}
