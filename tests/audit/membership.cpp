#include "dpsgd/audit/membership.hpp"

#include <doctest/doctest.h>

#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "audit/random_records.hpp"
#include "dpsgd/dpsgd.hpp"

using namespace dpsgd;
using doctest::Approx;

TEST_CASE("auc agrees with counting pairs, ties and all") {
  random_words draw({random_key::from_seed(5), domain::user, 0, 0});
  for (int round = 0; round < 200; ++round) {
    std::vector<double> present(1 + draw.below(12)), absent(1 + draw.below(12));
    for (auto* side : {&present, &absent})
      for (auto& v : *side) v = static_cast<double>(draw.below(6)) - 2.5;
    double wins = 0;
    for (const double p : present)
      for (const double a : absent) wins += p > a ? 1 : p == a ? 0.5 : 0;
    const auto pairs = static_cast<double>(present.size() * absent.size());
    CHECK(audit::auc(present, absent) == Approx(wins / pairs).epsilon(1e-12));
    CHECK(audit::auc(absent, present) == Approx(1 - wins / pairs).epsilon(1e-12));
  }
  CHECK_THROWS_AS(audit::auc({}, std::array{1.0}), error);
  CHECK_THROWS_AS(audit::auc(std::array{1.0}, std::array{std::nan("")}), error);
}

TEST_CASE("a threshold lets through no more than it may, and the next lower one more") {
  random_words draw({random_key::from_seed(6), domain::user, 0, 0});
  for (const double allowed : {0.0, 0.001, 0.1, 0.5, 0.99})
    for (const std::size_t n : {1u, 10u, 999u, 5000u}) {
      std::vector<double> values(n);
      for (auto& v : values) v = static_cast<double>(draw.below(2000));  // with ties
      const auto d = audit::decide_at(allowed, values);
      CHECK(audit::share_called(d, values) <= allowed);
      const audit::decision lower{std::nextafter(d.threshold, -1e300), true};
      CHECK(audit::share_called(lower, values) > allowed);
    }
  CHECK(audit::share_called({2, true}, std::array{1.0, 2.0, 3.0, 0.0}) == 0.5);
  CHECK(audit::share_called({2, false}, std::array{1.0, 2.0, 3.0}) == Approx(1.0 / 3));
  CHECK_THROWS_AS(audit::decide_at(0.1, {}), error);
  CHECK_THROWS_AS(audit::decide_at(1, std::array{1.0}), error);
}

TEST_CASE("what (epsilon, delta) allows: its ends, its area, and the adversary that reaches it") {
  CHECK(audit::true_positives_at_most(0, 0, 0.3) == Approx(0.3));
  CHECK(audit::true_positives_at_most(1, 0.01, 0) == Approx(0.01));
  CHECK(audit::true_positives_at_most(50, 0, 0.001) == Approx(1));
  CHECK(audit::auc_at_most(0, 0) == Approx(0.5));
  CHECK(audit::auc_at_most(60, 0) == Approx(1));
  for (const double epsilon : {0.1, 1.0, 3.0})
    for (const double delta : {0.0, 1e-3, 0.2}) {
      double area = 0;
      constexpr int pieces = 200'000;
      for (int i = 0; i < pieces; ++i)
        area += audit::true_positives_at_most(epsilon, delta, (i + 0.5) / pieces) / pieces;
      CHECK(audit::auc_at_most(epsilon, delta) == Approx(area).epsilon(1e-5));
      if (delta > 0) continue;
      // Randomised response: the truth with probability e^epsilon / (1 + e^epsilon); its two scores have this area.
      const double p = 1 / (1 + std::exp(-epsilon));
      CHECK(audit::auc_at_most(epsilon, 0) == Approx(p * p + p * (1 - p)).epsilon(1e-9));
    }
}

TEST_CASE("Student's interval: published quantiles, and the mean of what it is given") {
  const std::array<std::array<double, 2>, 6> published = {
      {{1, 12.7062047}, {2, 4.30265273}, {4, 2.77644511}, {9, 2.26215716}, {30, 2.04227246}, {99, 1.98421695}}};
  for (const auto& [freedom, t] : published)
    CHECK(audit::detail::student_within(t, static_cast<int>(freedom)) == Approx(0.95).epsilon(1e-8));
  // 1, 2, 4: mean 7/3, standard error sqrt(7/3 / 3).
  const auto i = audit::mean_interval(std::array{1.0, 2.0, 4.0}, 0.95);
  CHECK(i.value == Approx(7.0 / 3));
  CHECK(i.high == Approx(7.0 / 3 + 4.30265273 * std::sqrt(7.0 / 9)).epsilon(1e-7));
  CHECK(i.low == Approx(7.0 / 3 - 4.30265273 * std::sqrt(7.0 / 9)).epsilon(1e-7));
  CHECK(audit::mean_interval(std::array{2.0, 2.0}, 0.9).low == 2);
  CHECK_THROWS_AS(audit::mean_interval(std::array{1.0}, 0.9), error);
}

TEST_CASE("losses are the model's, record by record") {
  const auto data = test::random_records(130, 3);  // more than two tiles
  const mlp model({test::random_width, 5, 1});
  const auto all = audit::losses(model, data);
  double sum = 0;
  for (const double l : all) sum += l;
  CHECK(sum == Approx(evaluate(model, data).value.loss));
  for (const std::size_t i : {0u, 63u, 129u})
    CHECK(all[i] == Approx(audit::losses(model, shard_of(data, i, 130))[0]).epsilon(1e-6));
}

// The oracle. Labels are tossed coins or random numbers: there is nothing to learn but the records themselves.
TEST_CASE("a model that learnt its records by heart is attacked with success; an untrained or private one is not") {
  for (const bool numbers : {false, true}) {
    CAPTURE(numbers);
    const auto members = test::random_records(100, 1, numbers), others = test::random_records(2000, 2, numbers);
    const any_loss loss = numbers ? any_loss{squared_error{}} : any_loss{sigmoid_cross_entropy{}};
    const auto attack = [&](const mlp& model) {
      const auto s = audit::membership_scores(model, members, others);
      return std::array{audit::auc(s.present, s.absent),
                        audit::share_called(audit::decide_at(0.01, s.absent), s.present)};
    };
    const auto learnt = attack(test::by_heart(members, loss));
    MESSAGE("by heart: AUC " << learnt[0] << ", TPR at FPR 0.01 " << learnt[1]);
    // Of two classes a wrong guess about others is right half of the time, and then looks like a member's.
    CHECK(learnt[0] > (numbers ? 0.9 : 0.7));
    if (numbers) CHECK(learnt[1] > 0.5);

    // The area of an adversary who only guesses: mean 1/2, variance (m + n + 1) / (12 m n).
    const double deviation = std::sqrt(2101 / (12.0 * 100 * 2000));
    mlp model({test::random_width, 64, 1}, {.activation = relu{}, .loss = loss, .seed = 2});
    const auto untrained = attack(model);
    MESSAGE("untrained: AUC " << untrained[0]);
    CHECK(std::abs(untrained[0] - 0.5) < 5.5 * deviation);

    const auto event = [](double z) { return poisson_sampled{0.5, gaussian_event<zero_out>{z}}; };
    trainer t{flat_clip{}, gaussian_noise{smallest_multiplier<pld_accountant>({1.0, 1e-3}, 300, event)},
              poisson_sampling{0.5}};
    const auto report = t.fit(model, members, {.steps = 300, .learning_rate = 0.1, .delta = 1e-3});
    CHECK(report.claim.epsilon <= 1);
    const auto guarded = attack(model);
    MESSAGE("epsilon 1: AUC " << guarded[0]);
    // Each time with fresh noise: it lies near 1/2, some seven deviations below this.
    CHECK(guarded[0] < audit::auc_at_most(1, 1e-3));
  }
}
