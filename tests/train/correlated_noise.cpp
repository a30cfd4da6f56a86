// Correlated noise in the trainer: which steps' words it draws, under which key, and what is claimed for it.
#include "dpsgd/privacy/correlated_noise.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <vector>

#include "dpsgd/accounting/ledger.hpp"
#include "dpsgd/allreduce/all.hpp"
#include "dpsgd/dpsgd.hpp"
#include "dpsgd/train/journal.hpp"
#include "train/fixture.hpp"

using namespace dpsgd;
using test::distance, test::scratch, test::width;

namespace {

constexpr std::size_t records = 500;
dataset make_data() { return test::two_classes(records); }

/// Trains a small mlp on `ranks` threads and gives each rank's parameters.
template <class... Policies>
std::vector<std::vector<float>> train(int ranks, const dataset& data, const fit_options& options,
                                      const Policies&... policies) {
  std::vector<std::vector<float>> results(static_cast<std::size_t>(ranks));
  threads::run(ranks, [&](auto& world) {
    mlp model({width, 20, 1});
    trainer t{world, Policies(policies)...};
    t.fit(model, shard(data, world), options);
    results[static_cast<std::size_t>(world.rank())] = {model.parameters().begin(), model.parameters().end()};
  });
  return results;
}

/// What steps release, in units of the noise: each step's mean times the expected batch over multiplier x bound, where
/// the multiplier is so large that the examples do not show.
struct released {
  static constexpr double multiplier = 1e7, batches = 10, batch = records / batches;
  std::vector<std::vector<float>> after;  // the parameters after each step, and before the first

  /// `steps` steps from where the journal stands, if there is one.
  template <class Noise>
  released(Noise noise, std::uint64_t steps, journal_base* keep = nullptr, std::optional<std::uint64_t> seed = {}) {
    noise.multiplier = multiplier;
    mlp model({width, 300, 1});
    for (auto& p : model.parameters()) p = 0;
    if (!keep) after.emplace_back(model.parameters().begin(), model.parameters().end());
    trainer t{flat_clip{1}, noise, cyclic_sampling{10}};
    t.fit(model, make_data(),
          {.steps = steps,
           .learning_rate = batch / multiplier,
           .delta = 1e-5,
           .insecure_seed = seed,
           .journal = keep,
           .on_step = [&](std::uint64_t, std::span<const float> p) { after.emplace_back(p.begin(), p.end()); }});
  }
  std::size_t size() const { return after[0].size(); }
  double noise(std::size_t step, std::size_t i) const { return double{after[step][i]} - after[step + 1][i]; }
};

/// Sums of products of noises of steps, over coordinates and runs.
struct covariances {
  std::size_t steps;
  std::vector<double> products = std::vector<double>(steps * steps);
  double n = 0;

  void add(const released& run) {
    for (std::size_t i = 0; i < run.size(); ++i)
      for (std::size_t s = 0; s < steps; ++s)
        for (std::size_t t = 0; t <= s; ++t) products[s * steps + t] += run.noise(s, i) * run.noise(t, i);
    n += static_cast<double>(run.size());
  }
  /// Within seven standard errors of what is stated: a false alarm has a chance below 1e-8.
  template <class Noise>
  void check(Noise noise) const {
    noise.multiplier = 1;
    for (std::size_t s = 0; s < steps; ++s)
      for (std::size_t t = 0; t <= s; ++t) {
        const double wanted = noise.covariance(1, s, t);
        const double error = std::sqrt((noise.covariance(1, s, s) * noise.covariance(1, t, t) + wanted * wanted) / n);
        CHECK(std::abs(products[s * steps + t] / n - wanted) < 7 * error);
      }
  }
};

double gaussian(double multiplier) {
  pld_accountant a;
  a.add(gaussian_event<zero_out>{multiplier}, 1);
  return a.spent(1e-5).epsilon;
}

}  // namespace

TEST_CASE_TEMPLATE("the noise that is released has the stated covariance across steps", Noise, banded_noise,
                   tree_noise) {
  Noise noise;
  if constexpr (std::is_same_v<Noise, banded_noise>) noise.bands = 4;
  covariances seen{9};
  for (int run = 0; run < 20; ++run) seen.add(released(noise, 9));
  seen.check(noise);
}

TEST_CASE("a seeded step's noise is made of its own stream's words and earlier steps'") {
  const auto key = random_key::from_seed(8);
  const auto check = [&](const auto& noise) {
    const released run(noise, 6, nullptr, 8);
    for (std::size_t step = 0; step < 6; ++step)
      for (std::size_t i = 0; i < run.size(); i += 7) {
        double wanted = 0;
        noise.terms(step, [&](std::uint64_t lag, float weight) {
          wanted += double{weight} * normal_value({key, domain::noise, step - lag, 0}, i);
        });
        CHECK(std::abs(run.noise(step, i) - wanted) < 1e-4);
      }
  };
  check(banded_noise{1, 3}), check(tree_noise{});
}

TEST_CASE_TEMPLATE("correlated noise is alike on all ranks, and gives the same model on any number of them", Noise,
                   banded_noise, tree_noise) {
  const auto data = make_data();
  const Noise noise{.multiplier = 1.0};
  const fit_options o{.steps = 25, .learning_rate = 0.3, .delta = 1e-5, .insecure_seed = 5};
  const auto one = train(1, data, o, flat_clip{0.7}, noise, cyclic_sampling{10})[0];
  for (const char* name : test::algorithms)
    for (const int ranks : {2, 3, 7}) {
      const auto all = train(ranks, data, o, flat_clip{0.7}, noise, cyclic_sampling{10}, allreduce::from_name(name));
      for (const auto& p : all) {
        CHECK(p == all[0]);
        CHECK(distance(p, one) < 1e-4);
      }
    }
}

TEST_CASE("every record joins each so many steps and no other, on any number of ranks; a new key begins anew") {
  struct watched : cyclic_sampling {
    std::vector<std::vector<std::uint64_t>>* seen;
    void draw(const random_stream& stream, const dataset& data, std::vector<std::uint32_t>& rows, memory& plan) const {
      cyclic_sampling::draw(stream, data, rows, plan);
      std::vector<std::uint64_t> positions;
      for (const auto row : rows) positions.push_back(data.position(row));
      seen->push_back(positions);
    }
  };
  const auto data = make_data();
  const scratch dir;
  const auto steps = [&](std::uint64_t until, bool resume) {
    std::vector<std::vector<std::uint64_t>> seen;
    journal keep;
    keep.keep_checkpoints(dir.path, "toy", resume);
    mlp model({width, 8, 1});
    trainer t{flat_clip{}, banded_noise{2.0}, watched{{10}, &seen}};
    t.fit(model, data, {.steps = until, .delta = 1e-5, .journal = &keep});
    return seen;
  };
  const auto cycles = [&](const std::vector<std::vector<std::uint64_t>>& seen) {
    std::vector<int> count(records);
    for (std::size_t i = 0; i < seen.size(); ++i) {
      if (i >= 10) REQUIRE(seen[i] == seen[i - 10]);
      for (const auto row : seen[i]) ++count[row];
      if (i == 9) REQUIRE(std::all_of(count.begin(), count.end(), [](int c) { return c == 1; }));
    }
  };
  const auto first = steps(24, false), second = steps(24 + 13, true);
  REQUIRE(first.size() == 24);
  REQUIRE(second.size() == 13);
  cycles(first), cycles(second);
  CHECK(first[4] != second[0]);  // the same only by a chance of less than 1e-6: 50 of 500 records
}

TEST_CASE("a seeded run of correlated noise that is cut and resumed goes on in its mechanism, bit by bit") {
  const auto data = make_data();
  for (const std::uint32_t bands : {3u, 64u}) {
    const scratch dir;
    const auto fit = [&](std::uint64_t steps, std::optional<bool> resume, int ranks) {
      std::vector<float> parameters;
      threads::run(ranks, [&](auto& world) {
        journal keep;
        if (world.rank() == 0 && resume) keep.keep_checkpoints(dir.path, "toy", *resume);
        mlp model({width, 8, 1});
        trainer t{world, flat_clip{}, banded_noise{1.0, bands}, cyclic_sampling{10}, allreduce::naive{}};
        t.fit(model, shard(data, world),
              {.steps = steps, .learning_rate = 0.1, .delta = 1e-5, .insecure_seed = 3, .journal = &keep});
        if (world.rank() == 0) parameters.assign(model.parameters().begin(), model.parameters().end());
      });
      return parameters;
    };
    const auto whole = fit(37, {}, 1);
    fit(23, false, 1);
    CHECK(fit(37, true, 1) == whole);
  }
}

// Whoever resumed with the first key's words, or took the place of the first step of the second key for a later one's,
// would show other covariances: an earlier step's word would be in two releases, and in two mechanisms.
TEST_CASE("a resumed run draws a fresh key, and its mechanism begins afresh") {
  covariances after{5}, across{8};
  banded_noise noise{1, 6};
  for (int run = 0; run < 30; ++run) {
    const scratch dir;
    const auto part = [&](std::uint64_t until, bool resume) {
      journal keep;
      keep.keep_checkpoints(dir.path, "toy", resume);
      return released(noise, until, &keep);
    };
    auto first = part(3, false);
    first.after.insert(first.after.begin(), std::vector<float>(first.size()));
    auto second = part(3 + 5, true);
    second.after.insert(second.after.begin(), first.after.back());
    after.add(second);
    first.after.insert(first.after.end(), second.after.begin() + 1, second.after.end());
    across.add(first);
  }
  after.check(noise);
  for (std::size_t s = 3; s < 8; ++s)
    for (std::size_t t = 0; t < 3; ++t) CHECK(std::abs(across.products[s * 8 + t]) < 7 * 1.5 * std::sqrt(across.n));
}

// By hand: z over the norm of how far the steps of each key are moved; another key composes.
TEST_CASE("a run is claimed as one Gaussian for each of its keys, on every rank; ledger, crash and target agree") {
  const auto data = make_data();
  const scratch dir;
  const auto book_file = dir.path / "ledger";
  const cyclically_sampled<correlated_gaussian_event<zero_out>> event{10, {8.0, 16}};
  const auto sensitivity = [&](std::uint64_t steps) { return 8.0 / event.release(steps).multiplier; };
  const auto norm = [&](std::initializer_list<std::uint64_t> keys) {
    double square = 0;
    for (const auto steps : keys) square += std::pow(sensitivity(steps), 2);
    return std::sqrt(square);
  };
  const auto fit = [&](std::uint64_t steps, bool resume, std::optional<double> target = {},
                       std::uint64_t crash_at = 0) {
    ledger book(book_file, data.digest().hex(), data.universe());
    std::vector<fit_report> reports(3);
    threads::run(3, [&](auto& world) {
      journal keep;
      fit_options o{.steps = steps, .target_epsilon = target, .delta = 1e-5, .checkpoint_every = 7};
      if (crash_at > 0)
        o.on_step = [&](std::uint64_t step, std::span<const float>) {
          if (step == crash_at) fail("crash");
        };
      if (world.rank() == 0) keep.keep(book), keep.keep_checkpoints(dir.path, "toy", resume);
      o.journal = &keep;
      mlp model({width, 8, 1});
      trainer t{world, flat_clip{}, banded_noise{8.0, 16}, cyclic_sampling{10}};
      reports[static_cast<std::size_t>(world.rank())] = t.fit(model, shard(data, world), o);
    });
    for (const auto& r : reports) {
      CHECK(r.claim.epsilon == reports[0].claim.epsilon);
      CHECK(r.steps == reports[0].steps);
    }
    return reports[0];
  };
  const auto near = [](double epsilon) { return doctest::Approx(epsilon).epsilon(1.1e-3); };
  const auto in_ledger = [&] {
    pld_accountant all;
    ledger(book_file, data.digest().hex(), data.universe()).add_to(all);
    return all.spent(1e-5).epsilon;
  };
  CHECK(fit(25, false).claim.epsilon == near(gaussian(8 / norm({25}))));
  CHECK(fit(37, true).claim.epsilon == near(gaussian(8 / norm({25, 12}))));
  CHECK(in_ledger() == near(gaussian(8 / norm({25, 12}))));
  // A crash after step 47, where 42 were kept and 48 are in the ledger. The run goes on from 42, and claims what it hands
  // out; the ledger has all that may have been seen.
  CHECK_THROWS_WITH_AS(fit(137, true, {}, 47), doctest::Contains("crash"), error);
  CHECK(in_ledger() == near(gaussian(8 / norm({25, 12, 11}))));
  CHECK(fit(100, true).claim.epsilon == near(gaussian(8 / norm({25, 12, 5, 58}))));
  CHECK(in_ledger() == near(gaussian(8 / norm({25, 12, 11, 58}))));
  // A target: as many steps of the next key as fit, and in all no more than one key alone would have.
  pld_accountant before;
  for (const std::uint64_t steps : {25, 12, 5, 58}) before.add(event, steps);
  const privacy_target target{1.4 * before.spent(1e-5).epsilon, 1e-5};
  const auto fits = 100 + most_steps(target, event, before), alone = most_steps<pld_accountant>(target, event);
  const auto report = fit(0, true, target.epsilon);
  CHECK(report.steps > 100);
  CHECK(report.steps == std::min(fits, alone));
  CHECK(report.claim.epsilon <= target.epsilon);
}

TEST_CASE("correlated noise goes with a bound that adapts, and with no owners of several rows") {
  const auto data = make_data();
  mlp model({width, 8, 1});
  trainer adaptive{adaptive_clip{}, banded_noise{2.0, 4}, cyclic_sampling{10}};
  const auto report = adaptive.fit(model, data, {.steps = 25, .delta = 1e-5});
  CHECK(report.claim.epsilon ==
        doctest::Approx(
            gaussian(cyclically_sampled{10., correlated_gaussian_event<zero_out>{2.0, 4}}.release(25).multiplier))
            .epsilon(1.1e-3));
  std::vector<float> features(40 * width), labels(40);
  std::vector<std::uint64_t> owners(40);
  for (std::size_t i = 0; i < 40; ++i) labels[i] = static_cast<float>(i % 2), owners[i] = i / 2;
  const auto owned = dataset::from(features, width, labels).by_owner(owners, 2, "person");
  trainer t{flat_clip{}, tree_noise{2.0}, cyclic_sampling{10}};
  CHECK_THROWS_WITH_AS(t.fit(model, owned, {.steps = 5, .delta = 1e-5}), doctest::Contains("single rows alone"), error);
  trainer none{flat_clip{}, banded_noise{2.0, 0}, cyclic_sampling{10}};
  CHECK_THROWS_WITH_AS(none.fit(model, data, {.steps = 5, .delta = 1e-5}), doctest::Contains("1 to 4,096"), error);
  trainer many{flat_clip{}, banded_noise{2.0}, cyclic_sampling{records + 1}};
  CHECK_THROWS_AS(many.fit(model, data, {.steps = 5, .delta = 1e-5}), error);
}

TEST_CASE("ranks that were given different bands are refused") {
  CHECK_THROWS_WITH_AS(threads::run(2,
                                    [&](auto& world) {
                                      mlp model({width, 8, 1});
                                      const auto bands = static_cast<std::uint32_t>(2 + world.rank());
                                      trainer t{world, flat_clip{}, banded_noise{2.0, bands}, cyclic_sampling{10}};
                                      t.fit(model, shard(make_data(), world), {.steps = 5, .delta = 1e-5});
                                    }),
                       doctest::Contains("different policies"), error);
}
