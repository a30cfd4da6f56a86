#include "dpsgd/accounting/calibrate.hpp"

#include <doctest/doctest.h>

#include <cmath>

#include "dpsgd/accounting/rdp.hpp"

using namespace dpsgd;

namespace {

auto poisson(double rate) {
  return [rate](double multiplier) { return poisson_sampled{rate, gaussian_event<zero_out>{multiplier}}; };
}

/// An accountant with answers known by hand: epsilon = steps / multiplier.
struct linear_accountant {
  static constexpr std::string_view name = "linear";
  double epsilon = 0;
  int* questions = nullptr;
  struct result {
    double epsilon;
  };
  void add(const gaussian_event<zero_out>& e, std::uint64_t steps) {
    epsilon += static_cast<double>(steps) / e.multiplier;
  }
  void add(const once_per_epoch<gaussian_event<zero_out>>& e, std::uint64_t steps) { add(e.event, e.releases(steps)); }
  result spent(double) const {
    if (questions) ++*questions;
    return {epsilon};
  }
};
const auto unsampled = [](double multiplier) { return gaussian_event<zero_out>{multiplier}; };

}  // namespace

TEST_CASE("the smallest multiplier keeps the target, and a millionth less does not") {
  for (const double rate : {1e-5, 0.01, 1.0})
    for (const double epsilon : {0.05, 1.0, 8.0, 200.0})
      for (const std::uint64_t steps : {std::uint64_t{1}, std::uint64_t{1000}, std::uint64_t{1'000'000}}) {
        INFO("rate ", rate, " epsilon ", epsilon, " steps ", steps);
        const double found = smallest_multiplier<rdp_accountant>({epsilon, 1e-6}, steps, poisson(rate));
        rdp_accountant at, below;
        at.add(poisson(rate)(found), steps), below.add(poisson(rate)(found * (1 - 3e-6)), steps);
        CHECK(at.spent(1e-6).epsilon <= epsilon);
        if (found > 1.0001e-5) CHECK(below.spent(1e-6).epsilon > epsilon);
      }
}

TEST_CASE("calibration knows nothing of the accountant but its questions") {
  CHECK(smallest_multiplier<linear_accountant>({2, 1e-6}, 100, unsampled) == doctest::Approx(50).epsilon(2e-6));
  CHECK(smallest_multiplier({2, 1e-6}, 100, unsampled, linear_accountant{1.0}) == doctest::Approx(100).epsilon(2e-6));
  CHECK(most_steps<linear_accountant>({2, 1e-6}, unsampled(50)) == 100);
  CHECK(most_steps({2, 1e-6}, unsampled(50), linear_accountant{1.99}) == 0);
  int questions = 0;
  CHECK(most_steps({2, 1e-6}, unsampled(1e6), linear_accountant{1.0, &questions}) == 1'000'000);
  CHECK(questions <= 42);
  for (std::uint64_t steps = 0; steps < 70; ++steps) {
    CHECK(most_steps<linear_accountant>({static_cast<double>(steps) + 0.5, 1e-6}, unsampled(1)) == steps);
    CHECK(most_steps<linear_accountant>({1000, 1e-6}, unsampled(1), {}, steps) == steps);
  }
}

TEST_CASE("most_steps is the last number of steps that keeps the target") {
  const auto event = poisson(0.01)(1.0);
  rdp_accountant before;
  before.add(poisson(0.02)(2), 50);
  const auto steps = most_steps({3, 1e-6}, event, before);
  rdp_accountant at = before, past = before;
  at.add(event, steps), past.add(event, steps + 1);
  CHECK(steps > 100);
  CHECK(at.spent(1e-6).epsilon <= 3);
  CHECK(past.spent(1e-6).epsilon > 3);
}

TEST_CASE("impossible targets are refused, and say what was spent") {
  CHECK_THROWS_WITH_AS(smallest_multiplier({1, 1e-6}, 100, unsampled, linear_accountant{1.5}),
                       doctest::Contains("1.5 was spent on this data before"), error);
  CHECK_THROWS_WITH_AS(smallest_multiplier<rdp_accountant>({1e-9, 1e-6}, std::uint64_t{1} << 63, poisson(1)),
                       doctest::Contains("no noise multiplier"), error);
  for (const double epsilon : {0.0, -1.0, std::nan(""), 1001.0})
    CHECK_THROWS_AS(smallest_multiplier<rdp_accountant>({epsilon, 1e-6}, 100, poisson(0.01)), error);
  for (const double delta : {0.0, -1.0, 1.0, std::nan("")})
    CHECK_THROWS_AS(most_steps<rdp_accountant>({1, delta}, poisson(0.01)(1)), error);
  CHECK_THROWS_AS(smallest_multiplier<rdp_accountant>({1, 1e-6}, 100, poisson(1.5)), error);
}

TEST_CASE("steps of an epoch are granted by whole epochs") {
  const once_per_epoch step{100.0, gaussian_event<zero_out>{2}};
  linear_accountant before;  // half an epsilon an epoch
  CHECK(most_steps({3.2, 1e-5}, step, before) == 600);
  before.epsilon = 0.5;
  CHECK(most_steps({3.2, 1e-5}, step, before) == 500);
  CHECK(most_steps({3.2, 1e-5}, step, before, 77) == 77);
  CHECK(most_steps({0.9, 1e-5}, step, before) == 0);
  CHECK_THROWS_AS(most_steps({3.2, 1e-5}, once_per_epoch{0.0, step.event}, before), error);
}
