#include "dpsgd/privacy/adaptive_clip.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "dpsgd/accounting/pld.hpp"
#include "dpsgd/privacy/noise.hpp"
#include "dpsgd/privacy/sampling.hpp"
#include "dpsgd/testing/laws.hpp"

using namespace dpsgd;

namespace {
/// Mistakes that a clip with coordinates of its own can make.
struct free_query : adaptive_clip {
  l2_sensitivity<zero_out> sensitivity() const { return {bound}; }
};
struct uncentred_count : adaptive_clip {  // share C b is as sensitive as share C, not as half of it
  double contribution(double norm, std::size_t) const { return norm <= bound ? share * bound : 0; }
};
struct sensitivity_of_the_start : adaptive_clip {
  double first = bound;
  l2_sensitivity<zero_out> sensitivity() const { return {first * std::sqrt(1 + share * share / 4)}; }
};
struct forgetful : adaptive_clip {
  void load(std::size_t, double value) { bound = 2 * value; }
};
struct unclamped : adaptive_clip {
  double next(std::size_t, double mean) const { return bound / (mean - mean); }
};
}  // namespace

TEST_CASE("an adaptive clip keeps its joint sensitivity wherever its bound goes") {
  for (const double bound : {1e-6, 0.5, 1e6})
    for (const double share : {1e-3, 0.1, 1.0, 10.0})
      CHECK_NOTHROW(testing::check_clip(adaptive_clip{.bound = bound, .share = share}));
  CHECK_NOTHROW(
      testing::check_clip(adaptive_clip{.bound = 1e-12, .rate = 100, .share = 10, .least = 1e-12, .most = 1e12}));
}

TEST_CASE("check_clip finds the mistakes of clips with coordinates of their own") {
  const auto together = doctest::Contains("together, more than the sensitivity");
  CHECK_THROWS_WITH_AS(testing::check_clip(free_query{}), together, error);
  CHECK_THROWS_WITH_AS(testing::check_clip(uncentred_count{}), together, error);
  CHECK_THROWS_WITH_AS(testing::check_clip(sensitivity_of_the_start{}), doctest::Contains("more than the sensitivity"),
                       error);
  CHECK_THROWS_WITH_AS(testing::check_clip(forgetful{}), doctest::Contains("leaves value(0) at"), error);
  CHECK_THROWS_WITH_AS(testing::check_clip(unclamped{}), doctest::Contains("which no float holds"), error);
}

// By hand, from the paper's update: C exp(-rate (fraction - quantile)).
TEST_CASE("the bound moves towards the quantile, and stays in its range") {
  const adaptive_clip clip{.bound = 2, .quantile = 0.75, .rate = 0.5, .share = 0.2, .least = 0.5, .most = 3};
  // Of a batch of 100, 60 were short and 40 long: a mean of share C (0.6 - 0.5).
  const double mean = (60 * clip.contribution(1.9, 0) + 40 * clip.contribution(2.1, 0)) / 100;
  CHECK(mean == doctest::Approx(0.2 * 2 * 0.1));
  CHECK(clip.next(0, mean) == doctest::Approx(2 * std::exp(-0.5 * (0.6 - 0.75))));
  CHECK(clip.contribution(2.0, 0) == 0.2);                    // no longer than the bound counts as short
  CHECK(clip.next(0, 0.2 * 2 * 0.25) == doctest::Approx(2));  // at the quantile it stays
  CHECK(clip.next(0, -1e30) == 3);
  CHECK(clip.next(0, 1e30) == 0.5);
  auto moved = clip;
  moved.load(0, 0.5);
  CHECK(moved.value(0) == 0.5);
  CHECK(moved.factor(1.0) == 0.5);
  CHECK(moved.sensitivity().value == doctest::Approx(0.5 * std::sqrt(1.01)));
}

TEST_CASE("an adaptive clip's impossible settings are refused, by name") {
  const auto refuses = [](const char* what, const adaptive_clip& clip) {
    CHECK_THROWS_WITH_AS(clip.check(1), doctest::Contains(what), error);
  };
  const double nan = std::numeric_limits<double>::quiet_NaN();
  for (const double bound : {0.0, -1.0, 1e7, nan}) refuses("first bound", {.bound = bound});
  for (const double quantile : {0.0, 1.0, 50.0, nan}) refuses("quantile", {.quantile = quantile});
  for (const double rate : {0.0, -1.0, 1e3, nan}) refuses("rate", {.rate = rate});
  for (const double share : {0.0, -1.0, 10.1, 1e9, nan}) refuses("share", {.share = share});
  refuses("range", {.least = 0});
  refuses("range", {.least = 2, .most = 1});
  refuses("range", {.most = 1e13});
  refuses("range", {.most = nan});
}

// The figures of docs/privacy.md: noise of one bound on the gradient (z_g = 1), and of twice its sensitivity on the
// count (z_b = 2), over 1,000 steps of 1 % of the rows. The sample is one, so the event is: 2.351 is spent, not the 1.948
// of two events with samples of their own, nor the 1.828 of a count that costs nothing.
TEST_CASE("gradient and count are one event, of multiplier (z_g^-2 + z_b^-2)^-1/2") {
  const double share = 1, z = 1 / std::sqrt(1 + share * share / 4);
  const adaptive_clip clip{.bound = 3, .share = share};
  const gaussian_noise noise{z};
  const double deviation = std::sqrt(noise.variance(clip.sensitivity().value));
  const double z_g = deviation / clip.bound, z_b = deviation / std::abs(clip.contribution(1, 0));
  CHECK(z_g == doctest::Approx(1));
  CHECK(z_b == doctest::Approx(2));
  CHECK(z == doctest::Approx(1 / std::sqrt(1 / (z_g * z_g) + 1 / (z_b * z_b))));

  const poisson_sampling sampling{0.01};
  const auto spent = [](auto... events) {
    pld_accountant accountant;
    (accountant.add(events, 1000), ...);
    return accountant.spent(1e-5).epsilon;
  };
  const auto of = [&](double multiplier) { return sampling.amplify(gaussian_event<zero_out>{multiplier}); };
  CHECK(spent(sampling.amplify(noise.event(clip.sensitivity()))) == doctest::Approx(2.351).epsilon(1e-3));
  CHECK(spent(of(z_g), of(z_b)) == doctest::Approx(1.948).epsilon(1e-3));
  CHECK(spent(of(z_g)) == doctest::Approx(1.828).epsilon(1e-3));
}
