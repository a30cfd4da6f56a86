#include "dpsgd/optim/averaging.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <functional>
#include <vector>

#include "dpsgd/dpsgd.hpp"

using namespace dpsgd;

namespace {
/// The parameters after each of some steps: no two alike.
std::vector<std::vector<float>> made_up(std::size_t steps) {
  std::vector<std::vector<float>> all(steps, std::vector<float>(5));
  for (std::size_t s = 0; s < steps; ++s)
    for (std::size_t i = 0; i < 5; ++i) all[s][i] = static_cast<float>(std::sin(1.0 + 3.7 * s + 1.3 * i));
  return all;
}
void add_all(parameter_average& average, const std::vector<std::vector<float>>& iterates) {
  for (std::size_t s = 0; s < iterates.size(); ++s) average(s + 1, iterates[s]);
}
}  // namespace

TEST_CASE("a moving average weighs the parameters of i steps ago decay^i times as much as the last ones") {
  for (const double decay : {0.0, 0.5, 0.99, 0.9999})
    for (const std::size_t steps : {1, 2, 30}) {
      const auto iterates = made_up(steps);
      parameter_average average{.decay = decay};
      add_all(average, iterates);
      for (std::size_t i = 0; i < 5; ++i) {
        double sum = 0, weights = 0;
        for (std::size_t s = 0; s < steps; ++s) {
          const double weight = std::pow(decay, static_cast<double>(steps - 1 - s));
          sum += weight * iterates[s][i], weights += weight;
        }
        CHECK(average.average[i] == doctest::Approx(sum / weights).epsilon(1e-9));
      }
    }
}

TEST_CASE("a tail average is the mean from its first step on") {
  const auto iterates = made_up(30);
  for (const std::uint64_t first : {1, 2, 16, 30}) {
    parameter_average average{.first = first};
    add_all(average, iterates);
    CHECK(average.steps == 31 - first);
    for (std::size_t i = 0; i < 5; ++i) {
      double sum = 0;
      for (std::size_t s = first - 1; s < 30; ++s) sum += iterates[s][i];
      CHECK(average.average[i] == doctest::Approx(sum / (31.0 - static_cast<double>(first))).epsilon(1e-9));
    }
  }
}

TEST_CASE("an average of nothing leaves the model alone, another model's is refused, and so is a decay above 1") {
  mlp model({3, 1});
  const std::vector<float> before(model.parameters().begin(), model.parameters().end());
  parameter_average average{.first = 31};
  add_all(average, made_up(30));
  average.store(model);
  CHECK(std::equal(before.begin(), before.end(), model.parameters().begin()));
  parameter_average other;
  add_all(other, made_up(1));
  CHECK_THROWS_WITH_AS(other.store(model), doctest::Contains("does not fit"), error);
  parameter_average wrong{.decay = 1.5};
  CHECK_THROWS_WITH_AS(wrong(1, before), doctest::Contains("must lie in [0, 1]"), error);
}

TEST_CASE("a fit gives each step's parameters to an average, the same on all ranks, for the same claim") {
  std::vector<float> x(200 * 3), y(200);
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(std::sin(1.0 * i));
  for (std::size_t i = 0; i < y.size(); ++i) y[i] = x[3 * i] > 0 ? 1.0f : 0.0f;
  const auto data = dataset::from(x, 3, y);
  std::vector<parameter_average> ema(3, {.decay = 0.9}), last(3, {.decay = 0}), tail(3, {.first = 11});
  std::vector<std::vector<float>> seen;
  threads::run(3, [&](auto& world) {
    const auto rank = static_cast<std::size_t>(world.rank());
    mlp model({3, 4, 1});
    trainer t{world, adaptive_clip{}, gaussian_noise{}, poisson_sampling{0.2}};
    std::uint64_t steps = 0;
    const auto report =
        t.fit(model, shard(data, world),
              {.steps = 20, .delta = 1e-5, .on_step = [&](std::uint64_t step, std::span<const float> parameters) {
                 CHECK(step == ++steps);
                 CHECK(parameters.size() == model.parameters().size());
                 ema[rank](step, parameters), last[rank](step, parameters), tail[rank](step, parameters);
                 if (rank == 0) seen.emplace_back(parameters.begin(), parameters.end());
               }});
    CHECK(steps == 20);
    CHECK(report.claim.is_private());
    for (std::size_t i = 0; i < model.parameters().size(); ++i)
      CHECK(static_cast<float>(last[rank].average[i]) == model.parameters()[i]);
  });
  for (std::size_t rank = 1; rank < 3; ++rank) {
    CHECK(ema[rank].average == ema[0].average);
    CHECK(tail[rank].average == tail[0].average);
  }
  parameter_average again{.decay = 0.9};
  add_all(again, seen);
  CHECK(again.average == ema[0].average);
  CHECK(tail[0].steps == 10);
}
