#include "dpsgd/train/trainer.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <limits>
#include <mutex>
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
dataset make_data(std::size_t n = records) { return test::two_classes(n); }

template <class Model>
std::vector<float> parameters_of(const Model& model) {
  return {model.parameters().begin(), model.parameters().end()};
}

/// Trains a small mlp on `ranks` threads and gives each rank's parameters.
template <class... Policies>
std::vector<std::vector<float>> train(int ranks, const dataset& data, const fit_options& options,
                                      const Policies&... policies) {
  std::vector<std::vector<float>> results(static_cast<std::size_t>(ranks));
  threads::run(ranks, [&](auto& world) {
    mlp model({width, 20, 1});
    trainer t{world, Policies(policies)...};
    t.fit(model, shard(data, world), options);
    results[static_cast<std::size_t>(world.rank())] = parameters_of(model);
  });
  return results;
}

}  // namespace

TEST_CASE("without noise every number of ranks and every algorithm gives the same model") {
  const auto data = make_data();
  const fit_options o{.steps = 100, .learning_rate = 0.3, .delta = 1e-5, .insecure_seed = 5};
  const auto one = train(1, data, o, flat_clip{0.7}, no_noise{}, poisson_sampling{0.1})[0];
  for (const int ranks : {2, 3, 4, 7})
    for (const auto* name : algorithms) {
      CAPTURE(ranks);
      CAPTURE(name);
      for (const auto& p :
           train(ranks, data, o, flat_clip{0.7}, no_noise{}, poisson_sampling{0.1}, allreduce::from_name(name)))
        CHECK(distance(p, one) < 1e-5);
    }
}

TEST_CASE("with noise all ranks end with the same bits, near those of one rank") {
  const auto data = make_data();
  const fit_options o{.steps = 60, .learning_rate = 0.3, .delta = 1e-5, .insecure_seed = 5};
  const auto one = train(1, data, o, flat_clip{0.7}, gaussian_noise{1.0}, poisson_sampling{0.1})[0];
  for (const int ranks : {2, 3, 7})
    for (const auto* name : algorithms) {
      const auto all =
          train(ranks, data, o, allreduce::from_name(name), flat_clip{0.7}, gaussian_noise{1.0}, poisson_sampling{0.1});
      for (const auto& p : all) CHECK(p == all[0]);
      CHECK(distance(all[0], one) < 1e-4);  // the noise is the same; rounding differs
    }
}

TEST_CASE("a step that draws nobody is a step: nobody is drawn in their place") {
  const auto data = make_data();
  const auto before = parameters_of(mlp({width, 20, 1}));
  for (const int ranks : {1, 2, 5})
    for (const auto& p : train(ranks, data, {.steps = 3, .learning_rate = 1, .delta = 1e-5, .insecure_seed = 1},
                               flat_clip{}, no_noise{}, poisson_sampling{1e-9}))
      CHECK(p == before);
}

// Law: independent noise of standard deviation multiplier x sensitivity on every coordinate, once, however many ranks;
// divided by the expected batch. With a rate so small that no record is ever drawn, one step of plain SGD at rate 1
// moves each parameter by exactly noise / expected batch. 3 x 641 x 400 values, several blocks of noise for each rank.
// Bands: 8 standard errors for each coordinate's variance (by the tail of chi squared, 6e-11 for each of 2,000), 8.5 for
// the correlation of each pair (by Chernoff's bound, 6e-15 for each of 600,000), 6 for the mean: a false alarm has a
// chance below 1e-6.
TEST_CASE("the noise on each coordinate has standard deviation multiplier x bound, whatever the number of ranks") {
  const auto data = make_data();
  const double rate = 1e-9, multiplier = 1.7, bound = 0.4;
  for (const int ranks : {1, 2, 5}) {
    const std::size_t runs = 400;
    std::vector<float> before;
    std::vector<std::vector<float>> noise;  // of each coordinate, in units of its standard deviation, over the runs
    for (std::size_t run = 0; run < runs; ++run) {
      std::vector<float> after;
      threads::run(ranks, [&](auto& world) {
        mlp model({width, 80, 1});
        if (world.rank() == 0) before = parameters_of(model);
        trainer t{world, flat_clip{bound}, gaussian_noise{multiplier}, poisson_sampling{rate}};
        t.fit(model, shard(data, world), {.steps = 1, .learning_rate = rate, .delta = 1e-5});
        if (world.rank() == 0) after = parameters_of(model);
      });
      noise.resize(before.size(), std::vector<float>(runs));
      // learning rate / expected batch = rate / (rate records): the update is noise / records.
      for (std::size_t i = 0; i < before.size(); ++i)
        noise[i][run] = (before[i] - after[i]) * static_cast<float>(records / (multiplier * bound));
    }
    const auto mean_product = [&](const std::vector<float>& a, const std::vector<float>& b) {
      return std::inner_product(a.begin(), a.end(), b.begin(), 0.0f) / static_cast<float>(runs);
    };
    double sum = 0;
    float variance_off = 0, correlation = 0;  // the worst
    for (std::size_t i = 0; i < noise.size(); ++i) {
      sum += std::accumulate(noise[i].begin(), noise[i].end(), 0.0);
      variance_off = std::max(variance_off, std::abs(mean_product(noise[i], noise[i]) - 1));
      for (std::size_t j = 0; j < i; ++j)
        correlation = std::max(correlation, std::abs(mean_product(noise[i], noise[j])));
    }
    const double n = static_cast<double>(runs * noise.size());
    CHECK(variance_off < 8 * std::sqrt(2.0 / runs));
    CHECK(correlation < 8.5 / std::sqrt(1.0 * runs));
    CHECK(std::abs(sum / n) < 6 / std::sqrt(n));
  }
}

namespace {
/// Poisson sampling that writes down who was drawn in each step.
struct watched_sampling : poisson_sampling {
  std::vector<std::vector<std::uint32_t>>* seen;
  template <class Records>
  void draw(const random_stream& stream, const Records& data, std::vector<std::uint32_t>& rows) const {
    poisson_sampling::draw(stream, data, rows);
    seen->push_back(rows);
  }
};
}  // namespace

TEST_CASE("each step draws a sample of its own, with and without privacy") {
  const auto data = make_data();
  std::vector<std::vector<std::uint32_t>> seen;
  mlp model({width, 4, 1});
  const watched_sampling sampling{{0.05}, &seen};
  trainer private_one{flat_clip{}, gaussian_noise{}, sampling};
  private_one.fit(model, data, {.steps = 20, .delta = 1e-5});
  trainer plain_one{no_clip{}, no_noise{}, sampling};
  plain_one.fit(model, data, {.steps = 20, .delta = 1e-5});
  REQUIRE(seen.size() == 40);
  // Thirty records of 600 each time: that two samples are alike has a chance below 1e-40.
  for (std::size_t a = 0; a < seen.size(); ++a)
    for (std::size_t b = a + 1; b < seen.size(); ++b) CHECK(seen[a] != seen[b]);
}

// 161 coordinates x 3 pairs of steps; a correlation of 0.5 is six standard errors, so a false alarm has a chance below
// 1e-8.
TEST_CASE("each step draws noise of its own") {
  const auto data = make_data();
  const double rate = 1e-9;
  std::vector<std::vector<float>> at;  // the parameters after 0, 1, 2 and 3 steps of one seeded run
  at.push_back(parameters_of(mlp({width, 20, 1})));
  for (std::uint64_t steps = 1; steps <= 3; ++steps)
    at.push_back(train(2, data, {.steps = steps, .learning_rate = rate * records, .delta = 1e-5, .insecure_seed = 3},
                       flat_clip{}, gaussian_noise{}, poisson_sampling{rate})[0]);
  for (std::size_t a = 1; a < 4; ++a)
    for (std::size_t b = a + 1; b < 4; ++b) {
      double product = 0, first_size = 0, second_size = 0;
      for (std::size_t i = 0; i < at[0].size(); ++i) {
        const double x = double{at[a][i]} - at[a - 1][i], y = double{at[b][i]} - at[b - 1][i];
        product += x * y, first_size += x * x, second_size += y * y;
      }
      CHECK(std::abs(product / std::sqrt(first_size * second_size)) < 0.5);
      CHECK(first_size / at[0].size() == doctest::Approx(1).epsilon(0.7));
    }
}

TEST_CASE(
    "what is added is divided by the expected batch, not by the realised one; an empty batch is an ordinary step") {
  // One record, drawn or not: when it is, the update is its gradient / (rate * 1).
  std::vector<float> x(width, 1.0f), y{1.0f};
  const auto one = dataset::from(x, width, y);
  mlp reference({width, 20, 1});
  std::vector<double> moved;
  for (std::uint64_t seed = 0; seed < 40; ++seed) {
    const auto after = train(1, one, {.steps = 1, .learning_rate = 1e-3, .delta = 1e-5, .insecure_seed = seed},
                             flat_clip{0.5}, no_noise{}, poisson_sampling{0.25})[0];
    double square = 0;
    for (std::size_t i = 0; i < after.size(); ++i) square += std::pow(double{after[i]} - reference.parameters()[i], 2);
    moved.push_back(std::sqrt(square));
  }
  const auto still = std::count(moved.begin(), moved.end(), 0.0);
  CHECK(still > 10);  // the batch was empty
  CHECK(still < 40);
  for (const double m : moved)
    if (m > 0) CHECK(m == doctest::Approx(1e-3 * 0.5 / 0.25).epsilon(1e-3));  // clipped to 0.5, divided by 0.25
  // Steps without any record, on some ranks or all, go through every algorithm.
  for (const auto* name : algorithms)
    CHECK_NOTHROW(train(3, make_data(3), {.steps = 50, .delta = 1e-5}, flat_clip{}, gaussian_noise{},
                        poisson_sampling{0.05}, allreduce::from_name(name)));
}

// Zero-out adjacency, end to end: blank one row, and the sum that is released moves by at most the sensitivity, on any
// ranks.
TEST_CASE("blanking one row moves the released sum by at most the clip bound") {
  const double bound = 0.3, rate = 0.5, learning_rate = 1e-2;
  const auto step = [&](int ranks, const std::vector<float>& x, const std::vector<float>& y, std::uint64_t seed) {
    return train(ranks, dataset::from(x, width, y),
                 {.steps = 1, .learning_rate = learning_rate, .delta = 1e-5, .insecure_seed = seed}, flat_clip{bound},
                 no_noise{}, poisson_sampling{rate})[0];
  };
  const std::size_t n = 60;
  const auto data = make_data(n);
  double most = 0;
  for (std::uint64_t seed = 0; seed < 20; ++seed)
    for (const int ranks : {1, 3}) {
      // The row that goes is huge, so that it is clipped. Blanked, it contributes nothing: its gradient is not finite.
      std::vector<float> x(data.features().data, data.features().data + n * width),
          y(data.labels().begin(), data.labels().end());
      const std::size_t row = seed * 3 % n;
      for (std::size_t j = 0; j < width; ++j) x[row * width + j] = 1e3f;
      const auto with = step(ranks, x, y, seed);
      for (std::size_t j = 0; j < width; ++j) x[row * width + j] = 3e38f;
      const auto without = step(ranks, x, y, seed);
      double square = 0;
      for (std::size_t i = 0; i < with.size(); ++i) square += std::pow(double{with[i]} - without[i], 2);
      const double moved = std::sqrt(square) / learning_rate * rate * n;
      CHECK(moved <= bound * 1.001);  // the parameters are floats
      most = std::max(most, moved);
    }
  CHECK(most > 0.9 * bound);  // and the test looks at rows that count
}

TEST_CASE("materialised norms, a policy for teaching, train the same model") {
  const auto data = make_data();
  const fit_options o{.steps = 20, .learning_rate = 0.3, .delta = 1e-5, .insecure_seed = 5};
  CHECK(distance(train(2, data, o, flat_clip{0.2}, gaussian_noise{1.0}, poisson_sampling{0.1}, materialised_norms{})[0],
                 train(2, data, o, flat_clip{0.2}, gaussian_noise{1.0}, poisson_sampling{0.1}, ghost_norms{})[0]) <
        1e-4);
}

TEST_CASE("every fit draws a fresh key: two runs differ, a seeded run repeats bit by bit") {
  const auto data = make_data();
  const auto go = [&](std::optional<std::uint64_t> seed) {
    return train(2, data, {.steps = 5, .delta = 1e-5, .insecure_seed = seed}, flat_clip{}, gaussian_noise{},
                 poisson_sampling{0.1})[0];
  };
  CHECK(go({}) != go({}));
  CHECK(go(4) == go(4));
  CHECK(go(4) != go(5));
}

TEST_CASE("the claim says what was done, and is none where there is no protection") {
  const auto data = make_data();
  mlp model({width, 8, 1});
  const fit_options o{.steps = 30, .delta = 1e-5};
  const auto claim_of = [&](auto... policies) {
    mlp m = model;
    trainer t{policies...};
    return t.fit(m, data, o).claim;
  };
  const auto good = claim_of(flat_clip{}, gaussian_noise{1.1}, poisson_sampling{0.1});
  CHECK(good.is_private());
  pld_accountant wanted;
  wanted.add(poisson_sampled{0.1, gaussian_event<zero_out>{1.1}}, 30);
  CHECK(good.epsilon == wanted.spent(1e-5).epsilon);
  CHECK(good.words().find("DP, unit: one row, zero-out adjacency, Poisson sampling, PLD, idealised arithmetic") !=
        std::string::npos);
  CHECK(claim_of(no_clip{}, no_noise{}, poisson_sampling{0.1}).words() == "not private: no noise, no clip");
  CHECK(claim_of(flat_clip{}, no_noise{}, poisson_sampling{0.1}).words() == "not private: no noise");
  mlp m = model;
  trainer t{flat_clip{}, gaussian_noise{1.1}, poisson_sampling{0.1}};
  const auto seeded = t.fit(m, data, {.steps = 3, .delta = 1e-5, .insecure_seed = 1});
  CHECK(!seeded.claim.is_private());
  CHECK(seeded.claim.epsilon == std::numeric_limits<double>::infinity());
}

TEST_CASE("a target epsilon stops the run before it would be passed") {
  const auto data = make_data();
  mlp model({width, 8, 1});
  trainer t{flat_clip{}, gaussian_noise{1.1}, poisson_sampling{0.05}};
  const auto report = t.fit(model, data, {.target_epsilon = 1.5, .delta = 1e-5});
  CHECK(report.claim.epsilon <= 1.5);
  pld_accountant more;
  more.add(t.event(), report.steps + 1);
  CHECK(more.spent(1e-5).epsilon > 1.5);
}

TEST_CASE("it learns") {
  const auto [training, test] = split(make_data(4000), {.test_fraction = 0.25, .seed = 1});
  mlp model({width, 20, 1});
  trainer t{flat_clip{}, gaussian_noise{0.8}, poisson_sampling{0.05}, sgd{.momentum = 0.5}, cosine_decay{}};
  const auto report = t.fit(model, training, {.steps = 400, .learning_rate = 0.5, .delta = 1e-5});
  CHECK(report.claim.is_private());
  CHECK(accuracy(model, test).value > 0.93);
  trainer plain{no_clip{}, no_noise{}, poisson_sampling{0.05}, adam{}};
  mlp free_model({width, 20, 1});
  plain.fit(free_model, training, {.steps = 400, .learning_rate = 0.01});
  CHECK(accuracy(free_model, test).value > 0.95);
}

namespace {
/// Adam that writes down each coordinate's second moment as it is, and as it is corrected for the noise.
struct watched_adam {
  static constexpr int moments = adam::moments;
  adam with, without;
  std::vector<double>*corrected, *raw;

  struct update {
    adam::update with, without;
    std::vector<double>*corrected, *raw;
    float step(float weight, float gradient, float* moment) const {
      const float stepped = with.step(weight, gradient, moment);
      corrected->push_back(with.mean_square(moment[1])), raw->push_back(without.mean_square(moment[1]));
      return stepped;
    }
  };
  update rule(const step_facts& facts) const {
    corrected->clear(), raw->clear();  // the last step's stay
    return {with.rule(facts), without.rule(facts), corrected, raw};
  }
};
}  // namespace

// Nobody joins, so that gradients are noise alone. A running mean of squares with beta2 = 0.999 is known to 3.2 %, and
// the mean over 161 coordinates to 0.25 %: six standard errors are 1.5 %, and the floor is nine above the expectation.
// False alarms: below 1e-8.
TEST_CASE(
    "of gradients that are all noise adam takes the noise's variance, to the floor: the mean gradient's, not the "
    "sum's") {
  const double multiplier = 1.7, bound = 0.4, rate = 1e-9, batch = rate * 2000;
  const double variance = std::pow(multiplier * bound / batch, 2);
  std::vector<double> corrected, raw;
  const watched_adam watched{{.correct_noise = true, .noise_floor = 0.3}, {}, &corrected, &raw};
  mlp model({width, 20, 1});
  trainer t{flat_clip{bound}, gaussian_noise{multiplier}, poisson_sampling{rate}, watched};
  t.fit(model, make_data(2000), {.steps = 2000, .learning_rate = 1e-3, .delta = 1e-5});
  REQUIRE(raw.size() == model.parameters().size());
  double mean = 0;
  for (const double v : raw) mean += v / static_cast<double>(raw.size());
  CHECK(std::abs(mean / variance - 1) < 0.015);
  for (const double v : corrected) CHECK(v == doctest::Approx(0.3 * variance).epsilon(1e-6));
}

TEST_CASE("a wish to stop on one rank stops all ranks after the same step") {
  const auto data = make_data();
  std::vector<std::uint64_t> steps(3);
  threads::run(3, [&](auto& world) {
    std::atomic<bool> stop{false};
    mlp model({width, 8, 1});
    trainer t{world, flat_clip{}, gaussian_noise{}, poisson_sampling{0.05}};
    fit_options o{.steps = 1'000'000, .delta = 1e-5, .stop = &stop, .progress_every = 0};
    if (world.rank() == 0) o.on_progress = [&](const progress& p) { stop = p.step > 100; };
    const auto report = t.fit(model, shard(data, world), o);
    CHECK(report.stopped);
    steps[static_cast<std::size_t>(world.rank())] = report.steps;
  });
  CHECK(steps[0] > 100);
  CHECK(steps[0] < 1'000'000);
  CHECK(steps[1] == steps[0]);
  CHECK(steps[2] == steps[0]);
}

TEST_CASE("impossible settings are refused") {
  const auto data = make_data();
  mlp model({width, 8, 1});
  const auto refuses = [&](const char* what, const fit_options& o, auto... policies) {
    trainer t{policies...};
    CHECK_THROWS_WITH_AS(t.fit(model, data, o), doctest::Contains(what), error);
  };
  const fit_options o{.steps = 1, .delta = 1e-5};
  const double nan = std::numeric_limits<double>::quiet_NaN();
  for (const double rate : {0.0, -0.1, 1.5, nan})
    refuses("sampling rate", o, flat_clip{}, gaussian_noise{}, poisson_sampling{rate});
  for (const double z : {0.0, -1.0, nan, std::numeric_limits<double>::infinity()})
    refuses("noise multiplier", o, flat_clip{}, gaussian_noise{z}, poisson_sampling{});
  for (const double bound : {0.0, -1.0, nan, std::numeric_limits<double>::infinity()})
    refuses("clip bound", o, flat_clip{bound}, gaussian_noise{}, poisson_sampling{});
  for (const double delta : {0.0, -1.0, 1.0, nan})
    refuses("delta", {.steps = 1, .delta = delta}, flat_clip{}, gaussian_noise{}, poisson_sampling{});
  refuses("learning rate", {.steps = 1, .learning_rate = nan, .delta = 1e-5}, flat_clip{}, gaussian_noise{},
          poisson_sampling{});
  refuses("how long", {.delta = 1e-5}, flat_clip{}, gaussian_noise{}, poisson_sampling{});
  refuses("not even one step", {.target_epsilon = 1e-3, .delta = 1e-5}, flat_clip{}, gaussian_noise{0.5},
          poisson_sampling{0.5});
  mlp other({width + 1, 1});
  trainer t{flat_clip{}, gaussian_noise{}, poisson_sampling{}};
  CHECK_THROWS_WITH_AS(t.fit(other, data, o), doctest::Contains("inputs"), error);
}

TEST_CASE("a seeded run that is cut and resumed, at another number of ranks, goes on as if nothing had happened") {
  const auto data = make_data();
  const scratch dir;
  const auto run = [&](int ranks, std::uint64_t stop_after, bool resume, const std::filesystem::path& where) {
    std::vector<float> result;
    threads::run(ranks, [&](auto& world) {
      journal keep;
      if (world.rank() == 0) keep.keep_checkpoints(where, "toy", resume);
      std::atomic<bool> stop{false};
      fit_options o{
          .steps = 80, .delta = 1e-5, .insecure_seed = 9, .journal = &keep, .checkpoint_every = 20, .stop = &stop};
      if (stop_after > 0) o.progress_every = 0, o.on_progress = [&](const progress& p) { stop = p.step >= stop_after; };
      mlp model({width, 20, 1});
      trainer t{world, flat_clip{}, gaussian_noise{}, poisson_sampling{0.1}, adam{}};
      t.fit(model, shard(data, world), o);
      if (world.rank() == 0) result = parameters_of(model);
    });
    return result;
  };
  const auto whole = run(2, 0, false, dir.path / "a");
  run(2, 1, false, dir.path / "b");  // stops at about the 65th step
  const auto resumed = run(2, 0, true, dir.path / "b");
  CHECK(resumed == whole);
  run(2, 1, false, dir.path / "c");
  CHECK(distance(run(3, 0, true, dir.path / "c"), whole) < 1e-4);
}

TEST_CASE("a seeded run that is cut within an epoch goes on in that epoch, bit by bit") {
  const auto data = make_data();
  const scratch dir;
  const auto fit = [&](const char* where, std::uint64_t steps, bool resume) {
    journal keep;
    keep.keep_checkpoints(dir.path / where, "toy", resume);
    mlp model({width, 8, 1});
    trainer t{flat_clip{}, gaussian_noise{}, shuffling{10}};
    t.fit(model, data, {.steps = steps, .delta = 1e-5, .insecure_seed = 9, .journal = &keep});
    return parameters_of(model);
  };
  const auto whole = fit("whole", 38, false);
  fit("cut", 13, false);
  CHECK(fit("cut", 38, true) == whole);
}

TEST_CASE("a checkpoint is not resumed with other noise, clip or sampling: one claim could not cover both") {
  const auto data = make_data();
  const scratch dir;
  const auto fit = [&](double multiplier, double rate, std::optional<std::uint64_t> seed, std::uint64_t steps,
                       bool resume) {
    journal keep;
    keep.keep_checkpoints(dir.path, "toy", resume);
    mlp model({width, 8, 1});
    trainer t{flat_clip{}, gaussian_noise{multiplier}, poisson_sampling{rate}};
    return t.fit(model, data, {.steps = steps, .delta = 1e-5, .insecure_seed = seed, .journal = &keep});
  };
  fit(1.0, 0.1, {}, 10, false);
  CHECK_THROWS_WITH_AS(fit(10.0, 0.1, {}, 20, true), doctest::Contains("this checkpoint's steps were"), error);
  CHECK_THROWS_WITH_AS(fit(1.0, 0.01, {}, 20, true), doctest::Contains("this checkpoint's steps were"), error);
  CHECK_THROWS_WITH_AS(fit(1.0, 0.1, 7, 20, true), doctest::Contains("this checkpoint's steps were"), error);
  CHECK(fit(1.0, 0.1, {}, 20, true).steps == 20);
}

TEST_CASE("a run is resumed under the ledger that it was entered in, and no other") {
  const auto data = make_data();
  const scratch dir;
  // Without a name: no ledger.
  const auto fit = [&](const char* name, const char* checkpoints, std::uint64_t steps, bool resume) {
    std::optional<ledger> book;
    journal keep;
    if (name) keep.keep(book.emplace(dir.path / name, data.digest().hex(), data.universe()));
    keep.keep_checkpoints(dir.path / checkpoints, "toy", resume);
    mlp model({width, 8, 1});
    trainer t{flat_clip{}, gaussian_noise{}, poisson_sampling{0.1}};
    return t.fit(model, data, {.steps = steps, .delta = 1e-5, .journal = &keep});
  };
  fit("one", "kept", 20, false);
  const auto refused = doctest::Contains("not the ledger that the run was entered in");
  CHECK_THROWS_WITH_AS(fit("two", "kept", 40, true), refused, error);
  fit("two", "of two", 20, false);  // as many equal steps: still another run
  CHECK_THROWS_WITH_AS(fit("two", "kept", 40, true), refused, error);
  CHECK_THROWS_WITH_AS(fit(nullptr, "kept", 40, true), doctest::Contains("was entered in a ledger"), error);
  std::filesystem::copy_file(dir.path / "one", dir.path / "earlier");
  CHECK(fit("one", "kept", 40, true).steps == 40);
  CHECK(fit("one", "kept", 60, true).steps == 60);  // resumed twice
  CHECK_THROWS_WITH_AS(fit("earlier", "kept", 80, true), refused, error);

  // What no ledger counted cannot be entered in one later.
  fit(nullptr, "uncounted", 20, false);
  CHECK_THROWS_WITH_AS(fit("one", "uncounted", 40, true), doctest::Contains("was entered in no ledger"), error);
  CHECK(fit(nullptr, "uncounted", 40, true).steps == 40);
}

TEST_CASE("a ledger that lost the run's later steps is refused, though other runs count as many") {
  const auto data = make_data();
  const scratch dir;
  const auto fit = [&](const char* checkpoints, std::uint64_t steps, bool resume, const std::function<void()>& seen) {
    ledger book(dir.path / "ledger", data.digest().hex(), data.universe());
    journal keep;
    keep.keep(book);
    keep.keep_checkpoints(dir.path / checkpoints, "toy", resume);
    mlp model({width, 8, 1});
    trainer t{flat_clip{}, gaussian_noise{}, poisson_sampling{0.1}};
    return t.fit(model, data,
                 {.steps = steps,
                  .delta = 1e-5,
                  .journal = &keep,
                  .checkpoint_every = 10,
                  .on_progress = [&](const progress&) { seen(); },
                  .progress_every = 0});
  };
  fit("others", 100, false, [] {});
  bool copied = false;
  fit("kept", 50, false, [&] {  // a backup while the run is at its first step
    if (!copied) std::filesystem::copy_file(dir.path / "ledger", dir.path / "earlier");
    copied = true;
  });
  std::filesystem::copy_file(dir.path / "earlier", dir.path / "ledger",
                             std::filesystem::copy_options::overwrite_existing);
  CHECK_THROWS_WITH_AS(fit("kept", 51, true, [] {}), doctest::Contains("an earlier copy of the ledger"), error);
}

TEST_CASE("a fit within a fit cannot enter its steps as the other's") {
  const auto data = make_data();
  const scratch dir;
  ledger book(dir.path / "ledger", data.digest().hex(), data.universe());
  journal outer, inner;
  outer.keep(book), inner.keep(book);
  const auto fit = [&](journal& keep, double multiplier, const std::function<void()>& meanwhile) {
    mlp model({width, 8, 1});
    trainer t{flat_clip{}, gaussian_noise{multiplier}, poisson_sampling{0.1}};
    t.fit(model, data,
          {.steps = 40,
           .delta = 1e-5,
           .journal = &keep,
           .on_progress = [&](const progress&) { meanwhile(); },
           .progress_every = 0});
  };
  bool begun = false;
  CHECK_THROWS_WITH_AS(fit(outer, 1,
                           [&] {
                             if (!begun) begun = true, fit(inner, 1000, [] {});
                           }),
                       doctest::Contains("one run at a time"), error);
}

TEST_CASE("a fit does not write over another fit's checkpoint") {
  const auto data = make_data();
  const scratch dir;
  journal keep;
  keep.keep_checkpoints(dir.path / "kept", "toy", false);
  const auto fit = [&] {
    mlp model({width, 8, 1});
    trainer t{flat_clip{}, gaussian_noise{}, poisson_sampling{0.1}};
    t.fit(model, data, {.steps = 5, .delta = 1e-5, .journal = &keep});
  };
  fit();
  CHECK_THROWS_WITH_AS(fit(), doctest::Contains("from another fit"), error);
}

TEST_CASE("a journal that resumes without the steps of each key is refused") {
  struct forgetful : journal_base {
    void begin(training_state& state, const recorded_event&, std::uint64_t) override { state.step = 100; }
    std::uint64_t reserve(std::uint64_t) override { return 1; }
    void checkpoint(const training_state&) override {}
  } keep;
  mlp model({width, 8, 1});
  trainer t{flat_clip{}, gaussian_noise{}, shuffling{10}};
  CHECK_THROWS_WITH_AS(t.fit(model, make_data(), {.steps = 101, .delta = 1e-5, .journal = &keep}),
                       doctest::Contains("training_state::by_key"), error);
}

TEST_CASE("a record on two ranks would count twice: it is refused") {
  const auto data = make_data();
  CHECK_THROWS_WITH_AS(threads::run(2,
                                    [&](auto& world) {
                                      mlp model({width, 8, 1});
                                      trainer t{world, flat_clip{}, gaussian_noise{}, poisson_sampling{0.1}};
                                      t.fit(model, data, {.steps = 5, .delta = 1e-5});  // without shard()
                                    }),
                       doctest::Contains("give each rank its own part"), error);
}

// Found by a reader: one rank's claim held for nobody where another rank added less noise.
TEST_CASE("ranks that were given different policies or options are refused") {
  const auto data = make_data();
  const auto differ = [&](auto clip, auto noise, auto sampling, auto options) {
    CHECK_THROWS_WITH_AS(
        threads::run(2,
                     [&](auto& world) {
                       mlp model({width, 8, 1});
                       trainer t{world, clip(world.rank()), noise(world.rank()), sampling(world.rank())};
                       t.fit(model, shard(data, world), options(world.rank()));
                     }),
        doctest::Contains("different policies"), error);
  };
  const auto clip = [](int) { return flat_clip{}; };
  const auto noise = [](int) { return gaussian_noise{}; };
  const auto sampling = [](int) { return poisson_sampling{0.1}; };
  const auto options = [](int) { return fit_options{.steps = 5, .delta = 1e-5}; };
  differ([](int rank) { return flat_clip{rank ? 10.0 : 1.0}; }, noise, sampling, options);
  differ(
      clip, [](int rank) { return gaussian_noise{rank ? 0.1 : 1.0}; }, sampling, options);
  differ(
      clip, noise, [](int rank) { return poisson_sampling{rank ? 0.1 : 0.2}; }, options);
  differ(clip, noise, sampling, [](int rank) { return fit_options{.steps = rank ? 5u : 6u, .delta = 1e-5}; });
  differ(clip, noise, sampling, [](int rank) {
    fit_options o{.steps = 5, .delta = 1e-5};
    if (rank == 0) o.insecure_seed = 1;
    return o;
  });
}

TEST_CASE("ranks that were given different allreduces are refused") {
  const auto data = make_data();
  CHECK_THROWS_WITH_AS(threads::run(3,
                                    [&](auto& world) {
                                      const auto mine = allreduce::from_name(world.rank() == 2 ? "ring" : "circulant");
                                      mlp model({width, 8, 1});
                                      trainer t{world, flat_clip{}, gaussian_noise{}, poisson_sampling{0.1}, mine};
                                      t.fit(model, shard(data, world), {.steps = 5, .delta = 1e-5});
                                    }),
                       doctest::Contains("rank 2: another algorithm"), error);
}

TEST_CASE("a resumed run claims all its steps") {
  const auto data = make_data();
  const scratch dir;
  const auto fit = [&](std::uint64_t steps, bool resume) {
    journal keep;
    keep.keep_checkpoints(dir.path, "toy", resume);
    mlp model({width, 8, 1});
    trainer t{flat_clip{}, gaussian_noise{}, poisson_sampling{0.1}};
    return t.fit(model, data, {.steps = steps, .delta = 1e-5, .journal = &keep});
  };
  fit(30, false);
  const auto report = fit(50, true);
  CHECK(report.steps == 50);
  CHECK(report.steps_here == 20);
  pld_accountant wanted;
  wanted.add(poisson_sampled{0.1, gaussian_event<zero_out>{1.0}}, 50);
  CHECK(report.claim.epsilon == doctest::Approx(wanted.spent(1e-5).epsilon).epsilon(1e-9));
}

// A mix-up of domains or steps would let the sampler's words show in the noise.
TEST_CASE("the noise of a step is that of (key, noise, step), coordinate by coordinate") {
  const double rate = 1e-9;
  const auto before = parameters_of(mlp({width, 20, 1}));
  const auto after =
      train(2, make_data(), {.steps = 1, .learning_rate = rate * records, .delta = 1e-5, .insecure_seed = 8},
            flat_clip{}, gaussian_noise{2.0}, poisson_sampling{rate})[0];
  for (std::size_t i = 0; i < before.size(); ++i)
    CHECK(double{before[i]} - after[i] ==
          doctest::Approx(2.0 * normal_value({random_key::from_seed(8), domain::noise, 0, 0}, i)).epsilon(1e-3));
}

TEST_CASE("the ledger counts what is released, over runs, and its budget stops a run") {
  const auto data = make_data();
  const scratch dir;
  const std::string digest = data.digest().hex();
  const auto fit = [&](std::optional<privacy_target> budget, std::uint64_t steps) {
    ledger book(dir.path / "ledger", digest, data.universe());
    journal keep;
    keep.keep(book, budget);
    mlp model({width, 8, 1});
    trainer t{flat_clip{}, gaussian_noise{}, poisson_sampling{0.1}};
    return t.fit(model, data, {.steps = steps, .delta = 1e-5, .journal = &keep, .checkpoint_every = 30});
  };
  const auto spent = [&] {
    pld_accountant all;
    ledger(dir.path / "ledger", digest, data.universe()).add_to(all);
    return all.spent(1e-5).epsilon;
  };
  fit({}, 100);
  fit({}, 50);
  pld_accountant wanted;
  wanted.add(poisson_sampled{0.1, gaussian_event<zero_out>{1.0}}, 150);
  CHECK(spent() == doctest::Approx(wanted.spent(1e-5).epsilon));
  const auto report = fit(privacy_target{spent() * 1.3, 1e-5}, 10'000);
  CHECK(report.out_of_budget);
  CHECK(report.steps > 10);
  CHECK(report.steps < 10'000);
  pld_accountant after;
  after.add(poisson_sampled{0.1, gaussian_event<zero_out>{1.0}}, 150 + report.steps);
  CHECK(spent() == doctest::Approx(after.spent(1e-5).epsilon));
  const auto budget = spent();
  CHECK(fit(privacy_target{budget, 1e-5}, 10).steps == 0);  // nothing is left
}

TEST_CASE("a seeded run enters the ledger as what it is: not private") {
  const auto data = make_data();
  const scratch dir;
  ledger book(dir.path / "ledger", data.digest().hex(), data.universe());
  journal keep;
  keep.keep(book);
  mlp model({width, 8, 1});
  trainer t{flat_clip{}, gaussian_noise{}, poisson_sampling{0.1}};
  t.fit(model, data, {.steps = 3, .delta = 1e-5, .insecure_seed = 1, .journal = &keep});
  pld_accountant all;
  book.add_to(all);
  CHECK(all.spent(1e-5).epsilon == std::numeric_limits<double>::infinity());
}

// A crash at any moment: what the ledger counts is never less than what was released.
TEST_CASE("at every step the ledger on the disk counts at least the steps that were released") {
  const auto data = make_data();
  const scratch dir;
  const std::string digest = data.digest().hex();
  ledger book(dir.path / "ledger", digest, data.universe());
  journal keep;
  keep.keep(book);
  mlp model({width, 8, 1});
  trainer t{flat_clip{}, gaussian_noise{}, poisson_sampling{0.1}};
  std::uint64_t looks = 0;
  fit_options o{.steps = 500, .delta = 1e-5, .journal = &keep, .checkpoint_every = 70, .progress_every = 0};
  o.on_progress = [&](const progress& p) {
    std::filesystem::copy_file(dir.path / "ledger", dir.path / "copy",
                               std::filesystem::copy_options::overwrite_existing);
    ledger copy(dir.path / "copy", digest, data.universe());
    REQUIRE(copy.runs().size() == 1);
    REQUIRE(copy.runs()[0].steps >= p.step);
    REQUIRE(copy.runs()[0].steps <= p.step + 25);  // a twentieth of the target
    ++looks;
  };
  t.fit(model, data, o);
  CHECK(looks >= 8);
}

TEST_CASE_TEMPLATE("every sampling gives the same model on any number of ranks", Sampling, fixed_size_sampling,
                   shuffling, balls_in_bins, cyclic_sampling) {
  const auto data = make_data();
  const auto sampling = [] {
    if constexpr (epoch_sampling<Sampling>) return Sampling{10};
    else return Sampling{0.1};
  }();
  const fit_options o{.steps = 25, .learning_rate = 0.3, .delta = 1e-5, .insecure_seed = 5};
  const auto one = train(1, data, o, flat_clip{0.7}, gaussian_noise{1.0}, sampling, rdp_accountant{})[0];
  for (const int ranks : {2, 3, 7})
    for (const auto& p : train(ranks, data, o, flat_clip{0.7}, gaussian_noise{1.0}, sampling, rdp_accountant{}))
      CHECK(distance(p, one) < 1e-4);
}

// What the claim of a resumed run rests on: its epochs begin where its key does, so that a row joins once in each.
TEST_CASE("in each epoch of a run, resumed or not, every record joins exactly once") {
  struct watched_shuffling : shuffling {
    std::vector<std::vector<std::uint32_t>>* seen;
    void draw(const random_stream& stream, const dataset& data, std::vector<std::uint32_t>& rows, memory& plan) const {
      shuffling::draw(stream, data, rows, plan);
      seen->push_back(rows);
    }
  };
  const auto data = make_data();
  const scratch dir;
  const auto steps = [&](std::uint64_t until, bool resume) {
    std::vector<std::vector<std::uint32_t>> seen;
    journal keep;
    keep.keep_checkpoints(dir.path, "toy", resume);
    mlp model({width, 8, 1});
    trainer t{flat_clip{}, gaussian_noise{2.0}, watched_shuffling{{10}, &seen}};
    t.fit(model, data, {.steps = until, .delta = 1e-5, .journal = &keep});
    return seen;
  };
  const auto once_an_epoch = [&](const std::vector<std::vector<std::uint32_t>>& seen) {
    std::vector<int> count(records);
    for (std::size_t i = 0; i < seen.size(); ++i) {
      for (const auto row : seen[i]) ++count[row];
      const int epochs = static_cast<int>(i / 10) + 1;
      for (const int c : count) REQUIRE((c == epochs || c == epochs - 1));
      if (i % 10 == 9) REQUIRE(std::all_of(count.begin(), count.end(), [&](int c) { return c == epochs; }));
    }
  };
  once_an_epoch(steps(25, false));
  once_an_epoch(steps(25 + 23, true));
}

TEST_CASE_TEMPLATE("every clip trains to the same model on any number of ranks, and spends the same", Clip,
                   automatic_clip, psac_clip, per_layer_clip, layer_bounds_clip<2>) {
  const auto data = make_data();
  const fit_options o{.steps = 25, .learning_rate = 0.3, .delta = 1e-5, .insecure_seed = 5};
  const auto clip = [] {
    if constexpr (std::is_same_v<Clip, layer_bounds_clip<2>>) return Clip{{0.5, 0.2}};
    else return Clip{0.7};
  }();
  const auto one = train(1, data, o, clip, gaussian_noise{1.0}, poisson_sampling{0.1})[0];
  for (const int ranks : {2, 3})
    for (const auto& p : train(ranks, data, o, clip, gaussian_noise{1.0}, poisson_sampling{0.1}))
      CHECK(distance(p, one) < 1e-4);
  trainer t{clip, gaussian_noise{1.0}, poisson_sampling{0.1}};
  trainer flat{flat_clip{}, gaussian_noise{1.0}, poisson_sampling{0.1}};
  CHECK(t.event() == flat.event());
}

TEST_CASE("bounds that do not fit the model's layers, or lie about their sum, are refused") {
  const auto data = make_data();
  mlp model({width, 8, 1});
  trainer three{layer_bounds_clip<3>{{1, 1, 1}}, gaussian_noise{}, poisson_sampling{0.1}};
  CHECK_THROWS_WITH_AS(three.fit(model, data, {.steps = 1}), doctest::Contains("3 bounds, but the model 2 layers"),
                       error);
  struct undivided_clip : per_layer_clip {
    double group_bound(std::size_t, std::size_t) const { return bound; }
  };
  trainer lying{undivided_clip{}, gaussian_noise{}, poisson_sampling{0.1}};
  CHECK_THROWS_WITH_AS(lying.fit(model, data, {.steps = 1}), doctest::Contains("jointly"), error);
}

TEST_CASE("data with owners: the claim is about owners, and what cannot be claimed for them is refused before a step") {
  const auto rows = make_data(200);
  std::vector<std::uint64_t> owners(200);
  for (std::size_t i = 0; i < owners.size(); ++i) owners[i] = i / 5;
  const auto data = rows.by_owner(owners, 4);
  CHECK(data.records() == 160);
  mlp model({data.width(), 4, 1});
  const fit_options options{.steps = 30, .learning_rate = 0.1, .delta = 1e-5};
  const auto report =
      trainer{flat_clip{1.0}, gaussian_noise{4.0}, poisson_sampling{.rate = 0.05}}.fit(model, data, options);
  pld_accountant spent;
  spent.add(poisson_sampled{0.05, gaussian_event<zero_out>{4.0, 4}}, 30);
  CHECK(report.claim.epsilon == spent.spent(1e-5).epsilon);
  CHECK(report.claim.unit == "one owner of at most 4 rows");
  pld_accountant of_rows;
  of_rows.add(poisson_sampled{0.05, gaussian_event<zero_out>{4.0}}, 30);
  CHECK(report.claim.epsilon > 2 * of_rows.spent(1e-5).epsilon);

  const auto shuffled = trainer{flat_clip{1.0}, gaussian_noise{4.0}, shuffling{.epoch = 10}}.fit(model, data, options);
  pld_accountant epochs;  // all rows of an owner may stand in one batch
  epochs.add(gaussian_event<zero_out>{1.0}, 3);
  CHECK(shuffled.claim.epsilon == epochs.spent(1e-5).epsilon);

  trainer fixed{flat_clip{1.0}, gaussian_noise{4.0}, fixed_size_sampling{.rate = 0.05}, rdp_accountant{}};
  CHECK_THROWS_WITH_AS(fixed.fit(model, data, options), doctest::Contains("use poisson_sampling"), error);
  CHECK_THROWS_WITH_AS(
      threads::run(2,
                   [&](auto& world) {
                     auto mine = model;
                     trainer t{world, flat_clip{1.0}, gaussian_noise{4.0}, poisson_sampling{.rate = 0.05}};
                     t.fit(mine, shard(world.rank() == 0 ? data : rows, world), options);
                   }),
      doctest::Contains("given different policies, options, models or data sets"), error);
}

namespace {
/// A sampling of a user's, whose event he accounts for by himself: for single rows, since he has not heard of owners.
template <class Event>
struct half_sampled {
  using adjacency = typename Event::adjacency;
  static constexpr std::string_view sampling = "half of the rows";
  static constexpr arithmetic exactness = Event::exactness;
  Event event{};
  void check() const { event.check(); }
  bool is_free() const { return event.is_free(); }
  [[maybe_unused]] friend bool operator==(const half_sampled&, const half_sampled&) = default;
};
template <class Adjacency>
double log_moment(const half_sampled<gaussian_event<Adjacency>>& event, double order) {
  return log_moment(poisson_sampled{0.5, gaussian_event<Adjacency>{event.event.multiplier}}, order);
}
struct half_sampling : poisson_sampling {
  half_sampling() : poisson_sampling{0.5} {}
  template <class Adjacency>
  half_sampled<gaussian_event<Adjacency>> amplify(gaussian_event<Adjacency> event) const {
    return {event};
  }
};
}  // namespace

TEST_CASE("an event of a user's own covers owners of several rows only where he says so") {
  const auto rows = make_data(200);
  std::vector<std::uint64_t> owners(200);
  for (std::size_t i = 0; i < owners.size(); ++i) owners[i] = i / 4;
  mlp model({rows.width(), 4, 1});
  trainer t{flat_clip{1.0}, gaussian_noise{4.0}, half_sampling{}, rdp_accountant{}};
  CHECK(t.fit(model, rows, {.steps = 2, .delta = 1e-5}).claim.unit == "one row");
  CHECK_THROWS_WITH_AS(t.fit(model, rows.by_owner(owners, 4), {.steps = 2, .delta = 1e-5}),
                       doctest::Contains("known for single rows alone"), error);
}

// Law: the noise of a step is in proportion to what the clip lets through in it.
TEST_CASE(
    "a clip whose bound is moved from outside ends the fit: noise and claim are those of the bound it began with") {
  struct scheduled_clip {
    const double* bound;
    double factor(double norm) const { return norm > *bound ? *bound / norm : 1.0; }
    l2_sensitivity<zero_out> sensitivity() const { return {*bound}; }
  };
  double bound = 1;
  mlp model({width, 8, 1});
  trainer t{scheduled_clip{&bound}, gaussian_noise{}, poisson_sampling{0.1}};
  const auto fit = [&](double by) {
    return t.fit(model, make_data(), {.steps = 5, .delta = 1e-5, .on_step = [&](auto, auto) { bound *= by; }});
  };
  CHECK(fit(1).steps == 5);
  CHECK_THROWS_WITH_AS(fit(2), doctest::Contains("in step 2: the clip's sensitivity was 1 and is 2"), error);

  struct scheduled_by_layer : per_layer_clip {
    const double* each;
    double group_bound(std::size_t, std::size_t) const { return *each; }
  };
  double each = 0.1;
  trainer by_layer{scheduled_by_layer{{}, &each}, gaussian_noise{}, poisson_sampling{0.1}};
  CHECK_THROWS_WITH_AS(
      by_layer.fit(model, make_data(), {.steps = 5, .delta = 1e-5, .on_step = [&](auto, auto) { each *= 20; }}),
      doctest::Contains("in step 2: the bounds of 2 layers are jointly"), error);
}

// Law: one claim has one unit. Owners of at most so many rows by one column may have more of them by another one.
TEST_CASE("runs for different owners of the same rows have no ledger in common, and read back as what they were") {
  std::string text = "person,household,label,x\n";
  for (int i = 0; i < 60; ++i)
    text += std::to_string(i / 2) + "," + std::to_string(i / 6) + "," + std::to_string(i % 2) + "," +
            std::to_string(i % 7) + "\n";
  const auto data = [&](const char* owner) {
    return parse_csv(text, schema{}.label("label").numeric("x", 0, 7).owner(owner, 2));
  };
  const scratch dir;
  const auto fit = [&](const dataset& d) {
    ledger book(dir.path / "ledger", d.digest().hex(), d.universe());
    journal keep;
    keep.keep(book);
    mlp model({1, 2, 1});
    trainer t{flat_clip{}, gaussian_noise{}, poisson_sampling{0.1}};
    return t.fit(model, d, {.steps = 3, .delta = 1e-5, .journal = &keep}).steps;
  };
  CHECK(fit(data("person")) == 3);
  CHECK(fit(data("person")) == 3);
  CHECK(fit(split(data("person")).train) == 3);
  CHECK_THROWS_WITH_AS(fit(data("household")), doctest::Contains("protect other owners"), error);

  const auto rows = make_data(4);
  const std::vector<std::uint64_t> one{1, 1, 2, 2}, other{1, 2, 2, 1};
  CHECK(rows.owners() == 0);
  CHECK(rows.by_owner(one, 2).owners() == rows.by_owner(one, 2).owners());
  CHECK(rows.by_owner(one, 2).owners() != rows.by_owner(other, 2, "household").owners());
}

TEST_CASE("what a sampling cannot draw is refused before anything is spent") {
  const auto data = make_data();
  mlp model({width, 8, 1});
  trainer none{flat_clip{}, gaussian_noise{}, fixed_size_sampling{1e-3}, rdp_accountant{}};
  CHECK_THROWS_WITH_AS(none.fit(model, data, {.steps = 1}), doctest::Contains("is not possible"), error);
  trainer all{flat_clip{}, gaussian_noise{}, shuffling{data.universe() + 1}};
  CHECK_THROWS_WITH_AS(all.fit(model, data, {.steps = 1}), doctest::Contains("an epoch must have"), error);
}

// An epoch of 10 steps: 25 steps are three Gaussians, and 12 more under another key two.
TEST_CASE("a shuffled run is claimed by its epochs, on each resume anew, on every rank; ledger and target agree") {
  const auto data = make_data();
  const scratch dir;
  ledger book(dir.path / "ledger", data.digest().hex(), data.universe());
  const auto gaussians = [](std::uint64_t n) {
    pld_accountant a;
    a.add(gaussian_event<zero_out>{2.0}, n);
    return a.spent(1e-5).epsilon;
  };
  const auto fit = [&](std::uint64_t steps, bool resume, std::optional<double> target = {}) {
    std::vector<fit_report> reports(3);
    threads::run(3, [&](auto& world) {
      journal keep;
      fit_options o{.steps = steps, .target_epsilon = target, .delta = 1e-5, .checkpoint_every = 7};
      if (world.rank() == 0) keep.keep(book), keep.keep_checkpoints(dir.path, "toy", resume);
      o.journal = &keep;
      mlp model({width, 8, 1});
      trainer t{world, flat_clip{}, gaussian_noise{2.0}, shuffling{10}};
      reports[static_cast<std::size_t>(world.rank())] = t.fit(model, shard(data, world), o);
    });
    for (const auto& r : reports) {
      CHECK(r.claim.epsilon == reports[0].claim.epsilon);
      CHECK(r.steps == reports[0].steps);
    }
    return reports[0];
  };
  CHECK(fit(25, false).claim.epsilon == gaussians(3));
  CHECK(fit(37, true).claim.epsilon == gaussians(5));
  const auto report = fit(0, true, gaussians(7));  // two epochs are left
  CHECK(report.steps == 57);
  CHECK(report.claim.epsilon == gaussians(7));
  CHECK(fit(0, true, gaussians(6)).steps == 57);  // nothing is left
  pld_accountant all;
  book.add_to(all);
  CHECK(all.spent(1e-5).epsilon == gaussians(7));
}

TEST_CASE("a rank that throws in the middle ends the fit on all ranks, with its message and the step") {
  const auto data = make_data();
  struct failing_noise : gaussian_noise {
    void draw(const random_stream& words, std::uint32_t block, double s, float* out) const {
      if (words.step == 7 && block == 0) fail("the noise source broke");
      gaussian_noise::draw(words, block, s, out);
    }
  };
  CHECK_THROWS_WITH_AS(
      train(3, data, {.steps = 20, .delta = 1e-5}, flat_clip{}, failing_noise{}, poisson_sampling{0.1}),
      doctest::Contains("the noise source broke"), error);
}
