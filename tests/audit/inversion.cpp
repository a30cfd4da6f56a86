#include "dpsgd/audit/inversion.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <vector>

#include "audit/random_records.hpp"
#include "dpsgd/dpsgd.hpp"

using namespace dpsgd;

namespace {

const audit::attribute coin{test::random_width - 1, {{-1.0f}, {1.0f}}};

/// A logistic model of these weights and this bias.
mlp logistic(const std::vector<float>& weights, float bias) {
  mlp model({weights.size(), 1});
  std::copy(weights.begin(), weights.end(), model.parameters().begin());
  model.parameters().back() = bias;
  return model;
}

}  // namespace

TEST_CASE("the attribute is found among the features, with all its values") {
  const auto columns = schema{}
                           .label("y")
                           .numeric("age", 0, 100, {.missing = {}, .cuts = {20, 50}})
                           .binary("sex")
                           .categorical("kind", -2, 1)
                           .numeric("income", 0, 10);
  const auto sex = audit::attribute_of(columns, "sex"), kind = audit::attribute_of(columns, "kind");
  CHECK(sex.first == 3);
  CHECK(sex.values == std::vector<std::vector<float>>{{-1}, {1}});
  CHECK(kind.first == 4);
  CHECK(kind.values == std::vector<std::vector<float>>{{1, 0, 0, 0}, {0, 1, 0, 0}, {0, 0, 1, 0}, {0, 0, 0, 1}});
  CHECK_THROWS_WITH_AS(audit::attribute_of(columns, "age"), doctest::Contains("numeric"), error);
  CHECK_THROWS_WITH_AS(audit::attribute_of(columns, "y"), doctest::Contains("no column \"y\""), error);
  CHECK_THROWS_WITH_AS(audit::attribute_of(columns.categorical("zip", 0, 64), "zip"), doctest::Contains("64"), error);

  // What the schema encodes is what is found there.
  std::vector<float> features;
  for (int i = 0; i < 8; ++i) {
    const auto row = columns.encode(std::array{33.0, i % 2 * 1.0, i % 4 - 2.0, 1.0});
    features.insert(features.end(), row.begin(), row.end());
  }
  const auto data = dataset::from(features, columns.width(), std::vector<float>(8));
  CHECK(audit::values_of(sex, data.features()) == std::vector<std::size_t>{0, 1, 0, 1, 0, 1, 0, 1});
  CHECK(audit::values_of(kind, data.features()) == std::vector<std::size_t>{0, 1, 2, 3, 0, 1, 2, 3});
  CHECK(audit::shares(kind, audit::values_of(kind, data.features())) == std::vector<double>(4, 0.25));
  CHECK_THROWS_AS(audit::values_of({0, {{9.0f}}}, data.features()), error);
}

TEST_CASE("the guess is the most probable value: commonness times likelihood, by hand") {
  const auto data = test::random_records(5000, 4);  // more than one lot
  const std::vector<float> weights = {0.3f, -0.8f, 0.1f, 0.0f, 1.2f, 0.9f};
  const std::array common = {0.3, 0.7};
  const auto guesses = audit::infer_attribute(logistic(weights, -0.2f), data, coin, common);
  std::array<int, 2> times{};
  for (std::size_t i = 0; i < data.records(); ++i) {
    std::array<double, 2> probability;
    for (int v = 0; v < 2; ++v) {
      double z = -0.2f + weights[5] * (v ? 1.0 : -1.0);
      for (std::size_t c = 0; c < 5; ++c) z += double{weights[c]} * data.features()(i, c);
      const double one = 1 / (1 + std::exp(-z));
      probability[static_cast<std::size_t>(v)] =
          common[static_cast<std::size_t>(v)] * (data.labels()[i] == 1 ? one : 1 - one);
    }
    ++times[guesses[i]];
    if (std::abs(probability[1] / probability[0] - 1) < 1e-4) continue;
    REQUIRE(guesses[i] == (probability[1] > probability[0]));
  }
  CHECK((times[0] > 500 && times[1] > 500));
}

TEST_CASE("it sees the attribute through the model alone") {
  // Whoever has the other value is guessed to have the same one.
  const auto data = test::random_records(300, 5);
  std::vector<float> turned(data.features().row(0), data.features().row(0) + 300 * test::random_width);
  for (std::size_t i = 0; i < 300; ++i) turned[(i + 1) * test::random_width - 1] *= -1;
  const auto other = dataset::from(turned, test::random_width, data.labels());
  const auto model = test::by_heart(test::random_records(30, 6));
  const std::array common = {0.5, 0.5};
  CHECK(audit::infer_attribute(model, data, coin, common) == audit::infer_attribute(model, other, coin, common));

  // A model that does not look at it gives nothing away: everybody gets the commoner value.
  const auto guesses = audit::infer_attribute(logistic({1, 1, 1, 1, 1, 0}, 0), data, coin, std::array{0.6, 0.4});
  CHECK(std::count(guesses.begin(), guesses.end(), 0u) == 300);
  // One that says nothing else gives everything away, where the label is the attribute.
  std::vector<float> labels;
  for (const auto v : audit::values_of(coin, data.features())) labels.push_back(static_cast<float>(v));
  const auto same = dataset::from({data.features().row(0), 300 * test::random_width}, test::random_width, labels);
  CHECK(audit::share_right(audit::infer_attribute(logistic({0, 0, 0, 0, 0, 4}, 0), same, coin, std::array{0.6, 0.4}),
                           audit::values_of(coin, same.features())) == 1);
}

// The oracle: labels and attribute are tossed coins, so what is found out beyond one half was learnt by heart. Coins lie
// within 5.5 deviations of one half: false alarms 4e-8 each.
TEST_CASE("a model that learnt its records by heart betrays the attribute of its members; a private one does not") {
  const auto members = test::random_records(100, 1), others = test::random_records(2000, 2);
  const auto right = [&](const mlp& model, const dataset& data) {
    return audit::share_right(audit::infer_attribute(model, data, coin, std::array{0.5, 0.5}),
                              audit::values_of(coin, data.features()));
  };
  const auto band = [](double coins) { return 5.5 * 0.5 / std::sqrt(coins); };
  const auto learnt = test::by_heart(members);
  CHECK(accuracy(learnt, members).value == 1);
  const double known = right(learnt, members), guessed = right(learnt, others);
  MESSAGE("by heart: members " << known << ", others " << guessed);
  CHECK(known > 0.5 + band(100));
  CHECK(std::abs(guessed - 0.5) < band(2000));

  // One Gaussian step at epsilon 0.05 on the many: no more than epsilon adds.
  mlp model({test::random_width, 64, 1});
  trainer t{flat_clip{}, gaussian_noise{30}, poisson_sampling{1}};
  const auto report = t.fit(model, others, {.steps = 1, .learning_rate = 1, .delta = 1e-3});
  CHECK(report.claim.epsilon < 0.1);
  const double guarded = right(model, others);
  MESSAGE("epsilon " << report.claim.epsilon << ": members " << guarded);
  CHECK(std::abs(guarded - 0.5) < band(2000) + (std::exp(0.1) - 1) / 2);
}
