#include "dpsgd/accounting/filter.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "dpsgd/accounting/claim.hpp"
#include "dpsgd/core/random.hpp"

using namespace dpsgd;

namespace {

using sampled = poisson_sampled<gaussian_event<zero_out>>;
constexpr double infinity = std::numeric_limits<double>::infinity();

/// Epsilon of a sum of moments at one order, by the formula at the top of accounting/rdp.hpp.
double epsilon_at(double order, double moment, double delta) {
  return moment / (order - 1) + std::log(1 - 1 / order) - std::log(delta * order) / (order - 1);
}

/// The most steps that `admits(n)` admits, by halving.
template <class Admits>
std::uint64_t most(Admits&& admits) {
  std::uint64_t low = 0, high = 1;
  while (admits(high)) low = high, high *= 2;
  while (high - low > 1) {
    const auto middle = low + (high - low) / 2;
    (admits(middle) ? low : high) = middle;
  }
  return low;
}

/// Runs that somebody might choose on the way.
sampled any_event(random_words& words) {
  const double rates[] = {1, 0.1, 0.01, 0.001};
  return {rates[words.below(4)], {0.6 + 5 * words.uniform()}};
}

}  // namespace

TEST_CASE("where all is fixed beforehand, one order admits as many steps as RDP does at that order") {
  for (const double order : {2, 5, 20})
    for (const privacy_target target : {privacy_target{1, 1e-5}, {6, 1e-3}, {8, 1e-9}})
      for (const sampled& event : {sampled{1, {20}}, sampled{0.02, {1}}, sampled{0.001, {0.8}}}) {
        const double moment = log_moment(event, order);
        const auto steps = most([&](std::uint64_t n) { return rdp_filter(target, {order}).admit(event, n); });
        const auto wanted = most([&](std::uint64_t n) {
          return epsilon_at(order, static_cast<double>(n) * moment * (1 + 1e-9), target.delta) <= target.epsilon;
        });
        CHECK(steps == wanted);
        // One by one, or the most that fit: the same.
        if (steps > 0 && steps < 1000) {
          rdp_filter one_by_one(target, {order});
          for (std::uint64_t n = 0; n < steps; ++n) REQUIRE(one_by_one.admit(event, 1));
          CHECK(!one_by_one.admit(event, 1));
        }
        CHECK(most_steps(target, event, rdp_filter(target, {order})) == steps);
      }
}

// Whoever may look at what came out before choosing what comes next is left, in the end, with one of the orders, and which
// one hangs on what came out: so each has only its share of delta.
TEST_CASE("several orders admit what one of them does with its share of delta, and no more") {
  const privacy_target target{2, 1e-5};
  const std::vector<double> orders{3, 6, 12, 24};
  for (const sampled& event : {sampled{1, {20}}, sampled{0.02, {1}}, sampled{0.001, {0.8}}, sampled{0.01, {2}}}) {
    const auto together = most([&](std::uint64_t n) { return rdp_filter(target, orders).admit(event, n); });
    std::uint64_t best = 0, undivided = 0;
    for (const double order : orders) {
      const privacy_target share{target.epsilon, target.delta / 4};
      best = std::max(best, most([&](std::uint64_t n) { return rdp_filter(share, {order}).admit(event, n); }));
      undivided =
          std::max(undivided, most([&](std::uint64_t n) { return rdp_filter(target, {order}).admit(event, n); }));
    }
    CHECK(together == best);
    CHECK(together < undivided);
  }
}

TEST_CASE("whatever is chosen on the way, what was admitted keeps the bound of an order, and RDP's epsilon") {
  random_words words({random_key::from_seed(2), domain::user, 0, 0});
  for (const privacy_target target : {privacy_target{0.5, 1e-6}, {2, 1e-5}, {8, 1e-5}})
    for (int run = 0; run < 12; ++run) {
      rdp_filter filter(target);
      rdp_accountant admitted;
      int refused = 0;
      for (int i = 0; i < 60; ++i) {
        const auto event = any_event(words);
        const auto steps = 1 + words.below(200);
        const bool before = filter.fits();
        if (filter.admit(event, steps)) admitted.add(event, steps);
        else ++refused;
        REQUIRE(filter.fits() == before);  // what is refused counts for nothing
        REQUIRE(admitted.spent(target.delta).epsilon <= target.epsilon);
      }
      CHECK(refused > 0);
    }
}

// The table of docs/accounting.md. Of few steps the part says nothing, so there the steps are held.
TEST_CASE("a filter with orders of its own choice admits the stated part of the steps that RDP does") {
  const privacy_target targets[] = {{1, 1e-5}, {3, 1e-7}, {8, 1e-5}};
  const struct {
    sampled event;
    double parts[3];
  } documented[] = {{{0.01, {5}}, {0.81, 0.86, 0.89}},
                    {{0.01, {1}}, {0, 0.52, 0.88}},
                    {{0.001, {0.8}}, {0, 0.51, 0.89}},
                    {{0.0002, {0.6}}, {0, 0.00036, 0.88}}};
  for (const auto& [event, parts] : documented)
    for (int i = 0; i < 3; ++i) {
      const auto rdp = most_steps<rdp_accountant>(targets[i], event);
      const auto filter = most_steps(targets[i], event, rdp_filter(targets[i]));
      CHECK(filter <= rdp);
      if (parts[i] == 0) CHECK(rdp < 5);
      CHECK(static_cast<double>(filter) ==
            doctest::Approx(parts[i] * static_cast<double>(rdp)).epsilon(0.01).scale(10));
    }
}

TEST_CASE("a filter promises its budget or nothing, at its delta and above") {
  const privacy_target target{2, 1e-5};
  rdp_filter filter(target);
  CHECK(filter.spent(0).epsilon == 0);
  CHECK(filter.spent(1e-5).epsilon == 0);
  CHECK(filter.admit(sampled{0.01, {1}}, 10));
  CHECK(filter.spent(1e-5).epsilon == 2);
  CHECK(filter.spent(0.1).epsilon == 2);
  CHECK(filter.spent(0.9e-5).epsilon == infinity);
  CHECK(make_claim(filter, sampled{0.01, {1}}, 1e-5).words() ==
        "(epsilon 2, delta 1e-05)-DP, unit: one row, zero-out adjacency, Poisson sampling, RDP filter, idealised "
        "arithmetic");
  auto other = filter;
  CHECK(!other.admit(gaussian_event<zero_out>{0.5}, 1));
  CHECK(other.spent(1e-5).epsilon == 2);
  other.add(gaussian_event<zero_out>{0.5}, 1);  // it ran all the same
  CHECK(!other.fits());
  CHECK(other.spent(1e-5).epsilon == infinity);
  CHECK(filter.fits());
  filter.add(no_privacy_event{{.no_noise = true}}, 1);
  CHECK(filter.spent(1e-5).epsilon == infinity);
}

TEST_CASE("epochs, correlated noise and exact mode count as what they are") {
  const privacy_target target{4, 1e-5};
  const auto same = [&](const auto& event, std::uint64_t steps, const auto& as, std::uint64_t times) {
    for (const double factor : {0.2, 1.0, 5.0}) {  // fitting, and not
      auto scaled = event;
      auto other = as;
      scaled.event.multiplier *= factor, other.multiplier *= factor;
      rdp_filter one(target), two(target);
      CHECK(one.admit(scaled, steps) == two.admit(other, times));
    }
  };
  same(once_per_epoch{10, gaussian_event<zero_out>{2}}, 25, gaussian_event<zero_out>{2}, 3);
  const cyclically_sampled event{10., correlated_gaussian_event<zero_out>{8, 16}};
  same(event, 25, event.release(25), 1);
  rdp_filter filter(target);
  CHECK(filter.admit(poisson_sampled{0.01, discrete_gaussian_event<zero_out>{1}}, 10));
  CHECK(filter.exactness() == arithmetic::exact);
  CHECK(filter.admit(sampled{0.01, {1}}, 10));
  CHECK(filter.exactness() == arithmetic::idealised);
}

TEST_CASE("impossible filters and events are refused") {
  CHECK_THROWS_AS(rdp_filter({0, 1e-5}), error);
  CHECK_THROWS_AS(rdp_filter({1, 0}), error);
  CHECK_THROWS_AS(rdp_filter({1, 1}), error);
  CHECK_THROWS_AS(rdp_filter({NAN, 1e-5}), error);
  CHECK_THROWS_WITH_AS(rdp_filter({1, 1e-5}, {}), doctest::Contains("needs an order"), error);
  for (const double order : {1.0, 2.5, -3.0, 1e9, infinity, static_cast<double>(NAN)})
    CHECK_THROWS_WITH_AS(rdp_filter({1, 1e-5}, {order}), doctest::Contains("whole numbers from 2"), error);
  rdp_filter filter({1, 1e-5});
  CHECK_THROWS_AS(filter.admit(sampled{2, {1}}, 1), error);
  CHECK_THROWS_AS(filter.spent(-1), error);
  for (const double epsilon : {1e-3, 0.05, 30.0, 1000.0})  // has orders for any budget
    CHECK(rdp_filter({epsilon, 1e-8}).admit(gaussian_event<zero_out>{1e9}, 1));
}

TEST_CASE(
    "told what is planned, it admits nearly what RDP does at its best order, where its own orders admit nothing") {
  const sampled planned{0.001, {1.0}};
  const privacy_target budget{1, 1e-6};
  const auto admitted = [&](const rdp_filter& fresh) {
    return most([&](std::uint64_t n) { return rdp_filter(fresh).admit(planned, n); });
  };
  const auto rdp = most([&](std::uint64_t n) {
    rdp_accountant spent;
    spent.add(planned, n);
    return spent.spent(budget.delta).epsilon <= budget.epsilon;
  });
  CHECK(admitted(rdp_filter(budget, planned)) <= rdp);
  CHECK(admitted(rdp_filter(budget, planned)) > 0.99 * static_cast<double>(rdp));
  CHECK(admitted(rdp_filter(budget)) == 0);
}
