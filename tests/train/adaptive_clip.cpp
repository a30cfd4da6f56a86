// Clips with coordinates of their own, in the trainer: what travels, what is noised, what comes back.
#include "dpsgd/privacy/adaptive_clip.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <numeric>
#include <string>
#include <vector>

#include "dpsgd/allreduce/all.hpp"
#include "dpsgd/dpsgd.hpp"
#include "dpsgd/train/journal.hpp"
#include "train/fixture.hpp"

using namespace dpsgd;
using test::algorithms, test::distance, test::scratch, test::width;

namespace {

constexpr std::size_t records = 600;

dataset make_data(std::size_t n = records) {
  random_words words({random_key::from_seed(3), domain::user, 0, 0});
  std::vector<float> features(n * width), labels(n);
  for (auto& f : features) f = static_cast<float>(2 * words.uniform() - 1);
  for (std::size_t i = 0; i < n; ++i) labels[i] = features[i * width] > features[i * width + 1] ? 1.0f : 0.0f;
  return dataset::from(features, width, labels);
}

/// Records whose gradients have the norms `of(i)` as long as the model of one bias says 0.
template <class F>
dataset with_norms(std::size_t n, F of) {
  std::vector<float> features(n), labels(n);
  for (std::size_t i = 0; i < n; ++i) labels[i] = static_cast<float>(of(i));
  return dataset::from(features, 1, labels, label_kind::regression);
}
mlp zero_model() {
  mlp model({1, 1}, {.loss = any_loss{squared_error{}}});
  for (auto& w : model.parameters()) w = 0;
  return model;
}

/// What one rank ends with: the parameters, then the clip's state.
struct outcome {
  std::vector<float> parameters;
  fit_report report;
};
template <class... Policies>
std::vector<outcome> train(int ranks, const dataset& data, const fit_options& options, const Policies&... policies) {
  std::vector<outcome> results(static_cast<std::size_t>(ranks));
  threads::run(ranks, [&](auto& world) {
    mlp model({width, 20, 1});
    trainer t{world, Policies(policies)...};
    auto& mine = results[static_cast<std::size_t>(world.rank())];
    mine.report = t.fit(model, shard(data, world), options);
    mine.parameters.assign(model.parameters().begin(), model.parameters().end());
  });
  return results;
}

/// Three coordinates that nobody contributes to, each of which becomes its own noised mean.
struct idle_coordinates : flat_clip {
  static constexpr std::size_t extra = 3;
  std::array<double, extra> state{};
  constexpr double contribution(double, std::size_t) const { return 0; }
  constexpr double next(std::size_t, double mean) const { return mean; }
  constexpr void load(std::size_t k, double value) { state[k] = value; }
  constexpr double value(std::size_t k) const { return state[k]; }
};

}  // namespace

// Norms are 2 i / n, so the quantile q lies at 2 q. A batch of 400 and a share of 0.1 put a deviation of at most
// sqrt(0.025^2 + 0.025^2) on each step's fraction; in equilibrium that of the share of norms below the bound is at most
// 0.011, of which the band is more than six. (log C is nearly an autoregressive series: deviation
// sqrt(rate s^2 / (2 q - q^2 rate)), times q.) A false alarm has a chance below 1e-8 in all.
TEST_CASE("the bound converges to the stated quantile of the gradients' norms, from below and from above") {
  const std::size_t n = 4000;
  const auto data = with_norms(n, [](std::size_t i) { return 2.0 * static_cast<double>(i) / n; });
  for (const double quantile : {0.5, 0.7, 0.9})
    for (const double first : {0.01, 100.0})
      for (const int ranks : {1, 3}) {
        double bound = 0;
        threads::run(ranks, [&](auto& world) {
          auto model = zero_model();
          trainer t{world, adaptive_clip{.bound = first, .quantile = quantile}, gaussian_noise{1.0},
                    poisson_sampling{0.1}};
          const auto report = t.fit(model, shard(data, world), {.steps = 600, .learning_rate = 1e-9, .delta = 1e-5});
          if (world.rank() == 0) bound = report.clip_state.at(0);
        });
        CAPTURE(first);
        CHECK(std::abs(bound / 2 - quantile) < 0.07);
      }
}

// A norm that rounding takes across the bound moves the count by one: at most a few in all, which the band allows. A count
// that a rank adds twice, or that is lost, is far outside.
TEST_CASE("without noise every number of ranks and every algorithm gives the same model and bound") {
  const auto data = make_data();
  const fit_options o{.steps = 60, .learning_rate = 0.3, .delta = 1e-5, .insecure_seed = 5};
  const adaptive_clip clip{.bound = 0.05, .quantile = 0.5, .share = 0.5};
  const auto one = train(1, data, o, clip, no_noise{}, poisson_sampling{0.1})[0];
  CHECK(one.report.clip_state.at(0) > 0.1);  // it has moved
  for (const int ranks : {2, 3, 4, 7})
    for (const auto* name : algorithms) {
      CAPTURE(ranks);
      CAPTURE(name);
      for (const auto& r : train(ranks, data, o, clip, no_noise{}, poisson_sampling{0.1}, allreduce::from_name(name))) {
        CHECK(distance(r.parameters, one.parameters) < 0.01);
        CHECK(r.report.clip_state.at(0) == doctest::Approx(one.report.clip_state.at(0)).epsilon(0.01));
      }
    }
}

TEST_CASE("with noise all ranks end with the same bits of parameters and bound, near those of one rank") {
  const auto data = make_data();
  const fit_options o{.steps = 60, .learning_rate = 0.3, .delta = 1e-5, .insecure_seed = 5};
  const adaptive_clip clip{.bound = 0.3, .quantile = 0.5, .share = 0.5};
  const auto one = train(1, data, o, clip, gaussian_noise{1.0}, poisson_sampling{0.1})[0];
  CHECK(one.report.clip_state.at(0) != 0.3f);
  for (const int ranks : {1, 2, 3, 4, 7})
    for (const auto* name : algorithms) {
      const auto all =
          train(ranks, data, o, allreduce::from_name(name), clip, gaussian_noise{1.0}, poisson_sampling{0.1});
      for (const auto& r : all) {
        CHECK(r.parameters == all[0].parameters);
        CHECK(r.report.clip_state == all[0].report.clip_state);
      }
      CHECK(distance(all[0].parameters, one.parameters) < 0.01);
    }
}

// Law: the clip's coordinates are noised as every other one. Nobody is drawn, so parameters and coordinates move by the
// noise alone. 33 + 3 coordinates x 1,000 runs x 3: bands of 8 standard errors for the variances and 8.5 for the
// correlations, a false alarm below 1e-6 (as in trainer.cpp).
TEST_CASE("the noise on the clip's own coordinates has standard deviation multiplier x sensitivity, and is their own") {
  const auto data = make_data();
  const double rate = 1e-9, multiplier = 1.7, bound = 0.4, batch = rate * records;
  for (const int ranks : {1, 2, 5}) {
    const std::size_t runs = ranks == 1 ? 1000 : 250;  // threads that take turns on a core are slow
    std::vector<std::vector<float>> noise;
    for (std::size_t run = 0; run < runs; ++run) {
      std::vector<float> seen;
      threads::run(ranks, [&](auto& world) {
        mlp model({width, 4, 1});
        const std::vector<float> before(model.parameters().begin(), model.parameters().end());
        trainer t{world, idle_coordinates{{bound}}, gaussian_noise{multiplier}, poisson_sampling{rate}};
        const auto report = t.fit(model, shard(data, world), {.steps = 1, .learning_rate = batch, .delta = 1e-5});
        if (world.rank() > 0) return;
        for (std::size_t i = 0; i < before.size(); ++i)
          seen.push_back((before[i] - model.parameters()[i]) / static_cast<float>(multiplier * bound));
        for (const float mean : report.clip_state)
          seen.push_back(static_cast<float>(mean * batch / (multiplier * bound)));
      });
      noise.resize(seen.size(), std::vector<float>(runs));
      for (std::size_t i = 0; i < seen.size(); ++i) noise[i][run] = seen[i];
    }
    REQUIRE(noise.size() == 33 + 3);
    float variance_off = 0, correlation = 0;
    const auto product = [&](std::size_t i, std::size_t j) {
      return std::inner_product(noise[i].begin(), noise[i].end(), noise[j].begin(), 0.0f) / static_cast<float>(runs);
    };
    for (std::size_t i = 0; i < noise.size(); ++i) {
      variance_off = std::max(variance_off, std::abs(product(i, i) - 1));
      for (std::size_t j = 0; j < i; ++j) correlation = std::max(correlation, std::abs(product(i, j)));
    }
    CHECK(variance_off < 8 * std::sqrt(2.0 / runs));
    CHECK(correlation < 8.5 / std::sqrt(1.0 * runs));
  }
}

namespace {
/// Plain SGD that writes down what it is told of each step.
struct watched_sgd : sgd {
  std::vector<double>* variances;
  update rule(const step_facts& facts) const {
    variances->push_back(facts.noise_variance);
    return sgd::rule(facts);
  }
};
}  // namespace

// No gradient is longer than the bound, which so falls by a factor of about e^-0.5 a step. The noise of a step is judged
// by the difference of two seeded runs, one a step longer: 161 coordinates, so that half of the deviation is more than
// eight standard errors of it.
TEST_CASE("noise, sensitivity and the optimizer's facts are those of the bound of the step") {
  const std::size_t n = 2000;
  std::vector<float> x(n * width), y(n);
  for (std::size_t i = 0; i < n; ++i) y[i] = 0.5f;  // sigmoid(0): no gradient, while the weights are next to nothing
  const auto data = dataset::from(x, width, y, label_kind::regression);
  const double multiplier = 1.3, rate = 1e-6;
  const adaptive_clip clip{.bound = 4, .quantile = 0.5, .rate = 1, .share = 1};
  std::vector<std::vector<float>> at;
  std::vector<double> bounds, variances;
  for (std::uint64_t steps = 0; steps <= 8; ++steps) {
    mlp model({width, 20, 1}, {.loss = any_loss{squared_error{}}});
    for (auto& w : model.parameters()) w = 0;
    model.parameters()[model.parameters().size() - 1] = 0.5f;
    variances.clear();
    trainer t{clip, gaussian_noise{multiplier}, poisson_sampling{1.0}, watched_sgd{{}, &variances}};
    if (steps > 0) {
      const auto report =
          t.fit(model, data, {.steps = steps, .learning_rate = rate, .delta = 1e-5, .insecure_seed = 4});
      bounds.push_back(report.clip_state.at(0));
    } else {
      bounds.push_back(clip.bound);
    }
    at.emplace_back(model.parameters().begin(), model.parameters().end() - 1);  // the last one is not near 0
  }
  CHECK(bounds[8] < 0.1);
  for (std::size_t s = 0; s < 8; ++s) {
    const double sensitivity = bounds[s] * std::sqrt(1.25);
    double square = 0;
    for (std::size_t i = 0; i < at[0].size(); ++i) square += std::pow(double{at[s + 1][i]} - at[s][i], 2);
    const double deviation = std::sqrt(square / static_cast<double>(at[0].size())) / rate * n;
    CHECK(deviation == doctest::Approx(multiplier * sensitivity).epsilon(0.45));
    CHECK(variances[s] == doctest::Approx(std::pow(multiplier * sensitivity / n, 2)).epsilon(1e-5));
  }
}

namespace {
/// Counts as the adaptive clip does, and shows the count's mean instead of moving its bound.
struct shown_count : adaptive_clip {
  double mean = 0;
  double next(std::size_t, double noised) const { return noised; }
  void load(std::size_t, double value) { mean = value; }
  double value(std::size_t) const { return mean; }
};
}  // namespace

// Zero-out adjacency, end to end: blank one row, and all that is released moves together by at most the sensitivity.
TEST_CASE("blanking one row moves gradient and count together by at most the joint sensitivity") {
  const double rate = 0.5, learning_rate = 1e-2, share = 1;
  const std::size_t n = 60;
  const auto data = make_data(n);
  // One of the two large rows is wrong, so that its gradient is clipped; the other gradients are short.
  struct row {
    float size, label;
  };
  int longer = 0;
  double most = 0;
  const adaptive_clip clip{.bound = 0.3, .share = share};
  for (const row& blanked : {row{1e3f, 0}, row{1e3f, 1}, row{1e-3f, 0}})
    for (std::uint64_t seed = 0; seed < 20; ++seed)
      for (const int ranks : {1, 3}) {
        std::vector<float> x(data.features().data, data.features().data + n * width),
            y(data.labels().begin(), data.labels().end());
        const std::size_t at = seed * 3 % n;
        y[at] = blanked.label;
        const auto step = [&](float value, double& mean) {
          for (std::size_t j = 0; j < width; ++j) x[at * width + j] = value;
          const auto changed = dataset::from(x, width, y);
          std::vector<float> result;
          threads::run(ranks, [&](auto& world) {
            mlp model({width, 20, 1});
            trainer t{world, shown_count{clip}, no_noise{}, poisson_sampling{rate}};
            const auto report =
                t.fit(model, shard(changed, world),
                      {.steps = 1, .learning_rate = learning_rate, .delta = 1e-5, .insecure_seed = seed});
            if (world.rank() > 0) return;
            result.assign(model.parameters().begin(), model.parameters().end());
            mean = report.clip_state.at(0);
          });
          return result;
        };
        double mean_with = 0, mean_without = 0;
        const auto with = step(blanked.size, mean_with);
        const auto without = step(3e38f, mean_without);  // not finite: it contributes nothing, nor counts
        double square = 0;
        for (std::size_t i = 0; i < with.size(); ++i) square += std::pow(double{with[i]} - without[i], 2);
        const double gradient = std::sqrt(square) / learning_rate * rate * n;
        const double count = (mean_with - mean_without) * rate * n;
        const double moved = std::hypot(gradient, count);
        CHECK(moved <= clip.sensitivity().value * 1.001);
        if (moved > 0) CHECK(std::abs(count) == doctest::Approx(share * clip.bound / 2).epsilon(1e-4));
        most = std::max(most, moved), longer += count < 0;
      }
  CHECK(most > 0.99 * clip.sensitivity().value);  // and the test looks at rows that count
  CHECK(longer >= 2);
}

TEST_CASE("a wish to stop, an empty batch and another sampling go with a clip's coordinates") {
  const auto data = make_data();
  std::vector<fit_report> reports(3);
  threads::run(3, [&](auto& world) {
    std::atomic<bool> stop{false};
    mlp model({width, 8, 1});
    trainer t{world, adaptive_clip{}, gaussian_noise{}, poisson_sampling{0.05}};
    fit_options o{.steps = 1'000'000, .delta = 1e-5, .stop = &stop, .progress_every = 0};
    if (world.rank() == 0) o.on_progress = [&](const progress& p) { stop = p.step > 20; };
    reports[static_cast<std::size_t>(world.rank())] = t.fit(model, shard(data, world), o);
  });
  for (const auto& r : reports) {
    CHECK(r.stopped);
    CHECK(r.steps == reports[0].steps);
    CHECK(r.clip_state == reports[0].clip_state);
  }
  // Nobody is drawn: the fraction is one half, so at that quantile the bound stays.
  const auto still = train(2, data, {.steps = 3, .delta = 1e-5}, adaptive_clip{.bound = 0.5, .quantile = 0.5},
                           no_noise{}, poisson_sampling{1e-9});
  CHECK(still[0].report.clip_state.at(0) == 0.5f);
  const auto shuffled =
      train(2, data, {.steps = 10, .delta = 1e-5}, adaptive_clip{}, gaussian_noise{2.0}, shuffling{10});
  pld_accountant once;
  once.add(gaussian_event<zero_out>{2.0}, 1);
  CHECK(shuffled[0].report.claim.epsilon == once.spent(1e-5).epsilon);
}

// tests/privacy/adaptive_clip.cpp has the figures: one event spends 2.351, two would claim 1.948, a free count 1.828.
TEST_CASE("the claim of an adaptive clip is that of one event: its query is neither free nor a sample of its own") {
  mlp model({width, 4, 1});
  trainer t{adaptive_clip{.share = 1}, gaussian_noise{1 / std::sqrt(1.25)}, poisson_sampling{0.01}};
  const auto report = t.fit(model, make_data(), {.steps = 1000, .delta = 1e-5});
  CHECK(report.claim.is_private());
  CHECK(report.claim.epsilon == doctest::Approx(2.351).epsilon(1e-3));
}

TEST_CASE("a resumed run goes on with the bound that it had; cut and resumed, the bits are those of the whole run") {
  const auto data = make_data();
  const scratch dir;
  const auto fit = [&](int ranks, const char* where, double first, std::uint64_t steps, bool resume,
                       std::optional<std::uint64_t> seed) {
    outcome result;
    threads::run(ranks, [&](auto& world) {
      journal keep;
      if (world.rank() == 0) keep.keep_checkpoints(dir.path / where, "toy", resume);
      mlp model({width, 20, 1});
      trainer t{world, adaptive_clip{.bound = first}, gaussian_noise{}, poisson_sampling{0.1}, adam{}};
      const auto report =
          t.fit(model, shard(data, world),
                {.steps = steps, .learning_rate = 0.01, .delta = 1e-5, .insecure_seed = seed, .journal = &keep});
      if (world.rank() == 0) result = {{model.parameters().begin(), model.parameters().end()}, report};
    });
    return result;
  };
  const auto cut = fit(2, "private", 0.01, 40, false, {});
  CHECK(cut.report.clip_state.at(0) > 0.02);
  // Nothing is left to train: what is reported is what was kept, whatever the first bound is said to be.
  CHECK(fit(2, "private", 1.0, 40, true, {}).report.clip_state == cut.report.clip_state);
  CHECK(fit(3, "private", 0.01, 41, true, {}).report.clip_state.at(0) ==
        doctest::Approx(cut.report.clip_state.at(0)).epsilon(0.5));

  const auto whole = fit(2, "whole", 0.3, 60, false, 9);
  fit(2, "cut", 0.3, 25, false, 9);
  const auto resumed = fit(2, "cut", 0.3, 60, true, 9);
  CHECK(resumed.parameters == whole.parameters);
  CHECK(resumed.report.clip_state == whole.report.clip_state);
}

TEST_CASE("a checkpoint of another kind of clip is not resumed") {
  const auto data = make_data();
  const scratch dir;
  const auto fit = [&](auto clip, bool resume) {
    journal keep;
    keep.keep_checkpoints(dir.path, "toy", resume);
    mlp model({width, 8, 1});
    trainer t{clip, gaussian_noise{}, poisson_sampling{0.1}};
    t.fit(model, data, {.steps = 5, .delta = 1e-5, .journal = &keep});
  };
  fit(flat_clip{}, false);
  CHECK_THROWS_WITH_AS(fit(adaptive_clip{}, true), doctest::Contains("numbers where this"), error);
}

TEST_CASE("ranks that were given different adaptive clips are refused") {
  const auto data = make_data();
  const auto differ = [&](const adaptive_clip& other) {
    CHECK_THROWS_WITH_AS(
        threads::run(
            2,
            [&](auto& world) {
              mlp model({width, 8, 1});
              trainer t{world, world.rank() ? other : adaptive_clip{}, gaussian_noise{}, poisson_sampling{0.1}};
              t.fit(model, shard(data, world), {.steps = 5, .delta = 1e-5});
            }),
        doctest::Contains("different policies"), error);
  };
  differ({.bound = 2});
  differ({.quantile = 0.6});
  differ({.rate = 0.3});
  differ({.share = 0.2});
}

TEST_CASE("a noise whose event hangs on the sensitivity is refused: no one event would cover all steps") {
  struct absolute_noise : gaussian_noise {
    gaussian_event<zero_out> event(l2_sensitivity<zero_out> s) const { return {multiplier / s.value}; }
  };
  const auto data = make_data();
  mlp model({width, 8, 1});
  trainer flat{flat_clip{}, absolute_noise{}, poisson_sampling{0.1}};
  CHECK_NOTHROW(flat.fit(model, data, {.steps = 1, .delta = 1e-5}));
  trainer t{adaptive_clip{}, absolute_noise{}, poisson_sampling{0.1}};
  CHECK_THROWS_WITH_AS(t.fit(model, data, {.steps = 1, .delta = 1e-5}),
                       doctest::Contains("another event for another sensitivity"), error);
}

TEST_CASE("a bound that is no number ends the fit on all ranks") {
  struct lost_clip : adaptive_clip {
    double next(std::size_t, double) const { return std::numeric_limits<double>::quiet_NaN(); }
  };
  CHECK_THROWS_WITH_AS(
      train(3, make_data(), {.steps = 5, .delta = 1e-5}, lost_clip{}, gaussian_noise{}, poisson_sampling{0.1}),
      doctest::Contains("in step 1: the clip bound"), error);
}

// What rounding may have taken off a norm is taken off the room of gradient and count: it must not leave none.
TEST_CASE("the count gets through with the largest share and a wide model") {
  constexpr std::size_t wide = 20'000, n = 20;
  random_words words({random_key::from_seed(4), domain::user, 0, 0});
  std::vector<float> features(n * wide), labels(n);
  for (auto& x : features) x = static_cast<float>(2 * words.uniform() - 1);
  for (std::size_t i = 0; i < n; ++i) labels[i] = static_cast<float>(i % 2);
  mlp model({wide, 2, 1});
  const adaptive_clip clip{.bound = 1e-3, .rate = 1, .share = 10};
  CHECK_NOTHROW(clip.check(2));
  trainer t{clip, gaussian_noise{1e-6}, poisson_sampling{1}};
  const auto report = t.fit(model, dataset::from(features, wide, labels), {.steps = 3, .learning_rate = 1e-9});
  CHECK(report.clip_state[0] > 5e-3);  // no gradient is that short: each step moves it by e^0.8
}
