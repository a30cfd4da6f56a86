// Correlated noise in the accountants: all steps of one key are one Gaussian, and another key's are another one.
#include <doctest/doctest.h>

#include <cmath>
#include <filesystem>
#include <limits>
#include <string>

#include "dpsgd/accounting/calibrate.hpp"
#include "dpsgd/accounting/claim.hpp"
#include "dpsgd/accounting/events.hpp"
#include "dpsgd/accounting/gdp.hpp"
#include "dpsgd/accounting/ledger.hpp"
#include "dpsgd/accounting/pld.hpp"
#include "dpsgd/accounting/rdp.hpp"

using namespace dpsgd;

namespace {

using correlated = cyclically_sampled<correlated_gaussian_event<zero_out>>;
constexpr double delta = 1e-5;
const correlated banded{10, {3.0, 16}}, tree{10, {3.0, 0}};

template <class Accountant>
double epsilon(std::initializer_list<std::pair<correlated, std::uint64_t>> keys) {
  Accountant spent;
  for (const auto& [event, steps] : keys) spent.add(event, steps);
  return spent.spent(delta).epsilon;
}
/// What one Gaussian of this multiplier spends: from its exact delta, by bisection.
double gaussian_epsilon(double multiplier) {
  const auto normal = [](double z) { return std::erfc(-z / std::sqrt(2.0)) / 2; };
  const double mu = 1 / multiplier;
  double low = 0, high = 200;
  for (int i = 0; i < 200; ++i) {
    const double e = (low + high) / 2;
    (normal(mu / 2 - e / mu) - std::exp(e) * normal(-mu / 2 - e / mu) > delta ? low : high) = e;
  }
  return high;
}
double sensitivity(const correlated& e, std::uint64_t steps) {
  return e.event.multiplier / e.release(steps).multiplier;
}

}  // namespace

TEST_CASE("steps of correlated noise under one key spend what one Gaussian does, by every accountant") {
  for (const auto& event : {banded, tree})
    for (const std::uint64_t steps : {1, 9, 10, 11, 95, 150}) {
      const auto one = event.release(steps);
      const double exact = gaussian_epsilon(one.multiplier);
      pld_accountant pld;
      pld.add(event, steps);
      const auto interval = pld.spent(delta);
      CHECK(interval.epsilon >= exact * (1 - 1e-12));
      CHECK(interval.epsilon_lo <= exact * (1 + 1e-12));
      CHECK(interval.epsilon <= exact * 1.001 + 1e-9);
      rdp_accountant rdp, same;
      rdp.add(event, steps), same.add(one, 1);
      CHECK(rdp.spent(delta).epsilon == same.spent(delta).epsilon);
      CHECK(rdp.spent(delta).epsilon >= exact);
      gdp_approximation gdp;
      gdp.add(event, steps);
      CHECK(gdp.estimate(delta) == doctest::Approx(exact).epsilon(1e-9));  // exact here
    }
  // By hand: 1,000 steps of which a row joins one; the tree's depth is 10, so one Gaussian of multiplier 3 / sqrt(10).
  CHECK(epsilon<pld_accountant>({{{1000, {3.0, 0}}, 1000}}) ==
        doctest::Approx(gaussian_epsilon(3 / std::sqrt(10.0))).epsilon(1e-3));
  // One band is independent noise: ten releases.
  CHECK(correlated{100, {3.0, 1}}.release(1000).multiplier == doctest::Approx(3 / std::sqrt(10.0)).epsilon(1e-10));
}

TEST_CASE("nothing is added up as single steps, nor are the steps of two keys taken for those of one") {
  for (const auto& event : {banded, tree}) {
    const double s_30 = sensitivity(event, 30), s_70 = sensitivity(event, 70), s_100 = sensitivity(event, 100);
    CHECK(epsilon<pld_accountant>({{event, 30}, {event, 70}}) ==
          doctest::Approx(gaussian_epsilon(3 / std::hypot(s_30, s_70))).epsilon(1e-3));
    CHECK(epsilon<pld_accountant>({{event, 100}, {event, 100}}) ==
          doctest::Approx(gaussian_epsilon(3 / std::hypot(s_100, s_100))).epsilon(1e-3));
    CHECK(epsilon<rdp_accountant>({{event, 30}, {event, 70}}) == epsilon<rdp_accountant>({{event, 70}, {event, 30}}));
  }
  // Why: a key's steps together may spend more than two parts of them apart, and less.
  const correlated close{5, {3.0, 16}};
  CHECK(sensitivity(close, 100) > 1.01 * std::hypot(sensitivity(close, 50), sensitivity(close, 50)));
  const correlated once{1000, {3.0, 16}};
  CHECK(sensitivity(once, 100) < 0.8 * std::hypot(sensitivity(once, 50), sensitivity(once, 50)));
}

TEST_CASE("calibration answers for all steps of one key, just within the target") {
  const privacy_target target{2, delta};
  for (const std::uint64_t steps : {7, 300}) {
    const auto event_of = [&](double multiplier) {
      auto event = banded;
      event.event.multiplier = multiplier;
      return event;
    };
    const double z = smallest_multiplier<pld_accountant>(target, steps, event_of);
    CHECK(epsilon<pld_accountant>({{event_of(z), steps}}) <= 2);
    CHECK(epsilon<pld_accountant>({{event_of(z * 0.999), steps}}) > 2);
  }
  for (const auto& event : {banded, tree, correlated{7, {6.0, 3}}}) {
    const auto most = most_steps<pld_accountant>(target, event);
    REQUIRE(most > 0);
    CHECK(epsilon<pld_accountant>({{event, most}}) <= 2);
    CHECK(epsilon<pld_accountant>({{event, most + 1}}) > 2);
    pld_accountant before;
    before.add(event, most / 2);
    const auto more = most_steps(target, event, before);  // another key's
    CHECK(epsilon<pld_accountant>({{event, most / 2}, {event, more}}) <= 2);
    CHECK(epsilon<pld_accountant>({{event, most / 2}, {event, more + 1}}) > 2);
  }
  CHECK(most_steps<pld_accountant>(target, correlated{10, {0.01, 16}}) == 0);
  CHECK(most_steps<rdp_accountant>({900, delta}, correlated{10, {1e9, 2}}, {}, 5000) == 5000);
}

TEST_CASE("a ledger reads correlated noise back, and counts each run's steps as one release of its own") {
  const auto file =
      std::filesystem::temp_directory_path() / ("dpsgd-test-" + std::to_string(random_key::fresh().words[0]));
  struct guard {
    std::filesystem::path file;
    ~guard() { std::filesystem::remove(file); }
  } remove{file};
  {
    ledger book(file, "0123456789abcdef", 100);
    const auto first = book.begin(banded);
    book.reserve(first, 40), book.settle(first, 25);  // stopped, and resumed under another key:
    const auto second = book.begin(banded);
    book.reserve(second, 60);  // never settled: all of them count
    book.reserve(book.begin(tree), 12);
  }
  ledger book(file, "0123456789abcdef", 100);
  CHECK(book.runs().size() == 3);
  CHECK(std::get<correlated>(book.runs()[1].event) == banded);
  CHECK(std::get<correlated>(book.runs()[2].event) == tree);
  pld_accountant all;
  book.add_to(all);
  CHECK(all.spent(delta).epsilon == epsilon<pld_accountant>({{banded, 25}, {banded, 60}, {tree, 12}}));
  CHECK(event_words(tree) == "cyclic-correlated-gaussian zero-out separation=10 multiplier=3 bands=0");
}

TEST_CASE("the edges of correlated noise") {
  CHECK(epsilon<pld_accountant>({{banded, 0}}) == 0);
  CHECK(epsilon<pld_accountant>({{correlated{10, {0, 16}}, 3}}) == std::numeric_limits<double>::infinity());
  CHECK(epsilon<pld_accountant>({{correlated{10, {std::numeric_limits<double>::infinity(), 16}}, 3}}) == 0);
  pld_accountant a;
  for (const auto& bad : {correlated{0, {1, 1}}, correlated{1.5, {1, 1}}, correlated{0x1p32, {1, 1}},
                          correlated{10, {-1, 1}}, correlated{10, {1, 0.5}}, correlated{10, {1, -1}},
                          correlated{10, {1, 4097}}, correlated{NAN, {1, 1}}, correlated{10, {NAN, 1}}})
    CHECK_THROWS_AS(a.add(bad, 1), error);
  CHECK_THROWS_WITH_AS(a.add(banded, (1 << 22) + 1), doctest::Contains("up to 4194304 steps"), error);
  // Several rows of one owner stand in different batches, which are not known to be apart.
  CHECK_THROWS_WITH_AS(with_rows(banded, 2), doctest::Contains("single rows alone"), error);
  CHECK(with_rows(banded, 1) == banded);
  rdp_accountant exact;
  exact.add(discrete_gaussian_event<zero_out>{1}, 1);
  CHECK(exact.exactness() == arithmetic::exact);
  exact.add(banded, 1);
  CHECK(exact.exactness() == arithmetic::idealised);
  pld_accountant spent;
  spent.add(banded, 50);
  CHECK(make_claim(spent, banded, delta)
            .words()
            .find("unit: one row, zero-out adjacency, correlated noise over cyclic sampling, PLD, idealised") !=
        std::string::npos);
}
