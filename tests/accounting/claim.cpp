#include "dpsgd/accounting/claim.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <sstream>

#include "support.hpp"

using namespace dpsgd;

namespace {

struct fixed_accountant {  // spends what it is told
  static constexpr std::string_view name = "PLD";
  double epsilon;
  struct result {
    double epsilon;
  };
  template <class Event>
  void add(const Event&, std::uint64_t) {}
  result spent(double) const { return {epsilon}; }
};

struct discrete_event {  // an event of a later day
  struct adjacency {
    static constexpr std::string_view name = "replace", unit = "one owner";
  };
  static constexpr std::string_view sampling = "no sampling";
  static constexpr arithmetic exactness = arithmetic::exact;
  void check() const {}
  bool is_free() const { return false; }
  [[maybe_unused]] friend bool operator==(const discrete_event&, const discrete_event&) = default;
};

const poisson_sampled step{0.01, gaussian_event<zero_out>{0.9}};

}  // namespace

TEST_CASE("a claim is one sentence with epsilon and delta rounded up") {
  CHECK(
      make_claim(fixed_accountant{2.3012}, step, 1e-6).words() ==
      "(epsilon 2.31, delta 1e-06)-DP, unit: one row, zero-out adjacency, Poisson sampling, PLD, idealised arithmetic");
  CHECK(make_claim(fixed_accountant{0}, discrete_event{}, 1e-5).words() ==
        "(epsilon 0, delta 1e-05)-DP, unit: one owner, replace adjacency, no sampling, PLD, exact arithmetic");
}

TEST_CASE("a run that is not private says why, and its epsilon is infinite") {
  const auto none = make_claim(fixed_accountant{1}, no_privacy_event{{.no_noise = true, .no_clip = true}}, 1e-6);
  CHECK(test::printed(none) == "not private: no noise, no clip");
  CHECK(std::isinf(none.epsilon));
  const auto seeded = make_claim(fixed_accountant{1}, step, 1e-6, {.insecure_seed = true});
  CHECK(seeded.words() == "not private: a user's seed for noise and sampling");
  CHECK(std::isinf(seeded.epsilon));
  CHECK_FALSE(seeded.is_private());
  CHECK(make_claim(fixed_accountant{INFINITY}, step, 0).words() == "not private: epsilon is infinite at delta 0");
}

TEST_CASE("rounded_up is the smallest number of three digits that is not below") {
  CHECK(rounded_up(2.31) == "2.31");
  CHECK(rounded_up(std::nextafter(2.31, 3)) == "2.32");
  CHECK(rounded_up(9.991) == "10");
  CHECK(rounded_up(0.001) == "0.001");
  CHECK(rounded_up(1e-6) == "1e-06");
  CHECK(rounded_up(5907982.3) == "5.91e+06");
  CHECK(rounded_up(0) == "0");
  for (double x = 1e-12; x < 1e12; x *= 1.0009) {
    const double shown = std::stod(rounded_up(x));
    REQUIRE(shown >= x);
    REQUIRE(shown <= x * 1.010001);  // one unit in the third digit of 1.00
  }
}

TEST_CASE("what is not private says so when it is printed") {
  CHECK(test::printed(not_private{0.81}) == "0.81 (not private)");
  CHECK(not_private{7}.value == 7);
}

TEST_CASE("events refuse impossible numbers") {
  const double nan = std::nan("");
  CHECK_THROWS_AS((gaussian_event<zero_out>{-1}.check()), error);
  CHECK_THROWS_AS((gaussian_event<zero_out>{nan}.check()), error);
  CHECK_THROWS_AS((discrete_gaussian_event<zero_out>{-1}.check()), error);
  CHECK_THROWS_AS((discrete_gaussian_event<zero_out>{nan}.check()), error);
  for (const double rate : {-0.1, 1.0000001, nan})
    CHECK_THROWS_AS((poisson_sampled{rate, gaussian_event<zero_out>{1}}.check()), error);
  CHECK_THROWS_AS((poisson_sampled{0.5, gaussian_event<zero_out>{-1}}.check()), error);
  for (const double rate : {-0.1, 1.0000001, nan})
    CHECK_THROWS_AS((fixed_size_sampled{rate, gaussian_event<zero_out>{1}}.check()), error);
  for (const double epoch : {0.0, 1.5, -1.0, 1e10, nan})
    CHECK_THROWS_AS((once_per_epoch{epoch, gaussian_event<zero_out>{1}}.check()), error);
  CHECK_THROWS_AS((once_per_epoch{2.0, gaussian_event<zero_out>{-1}}.check()), error);
  CHECK_THROWS_AS(no_privacy_event{}.check(), error);
  CHECK_NOTHROW(step.check());
}

TEST_CASE("a claim names its sampling") {
  const auto words = [](const auto& event) { return make_claim(fixed_accountant{1}, event, 1e-6).words(); };
  CHECK(words(fixed_size_sampled{0.01, gaussian_event<zero_out>{1}}) ==
        "(epsilon 1, delta 1e-06)-DP, unit: one row, zero-out adjacency, fixed-size sampling without replacement, PLD, "
        "idealised arithmetic");
  CHECK(words(poisson_sampled{0.01, discrete_gaussian_event<zero_out>{1}}) ==
        "(epsilon 1, delta 1e-06)-DP, unit: one row, zero-out adjacency, Poisson sampling, PLD, exact arithmetic");
  CHECK(words(once_per_epoch{100.0, gaussian_event<zero_out>{1}}) ==
        "(epsilon 1, delta 1e-06)-DP, unit: one row, zero-out adjacency, each row once an epoch, unamplified, PLD, "
        "idealised arithmetic");
}
