// Exact mode: whole numbers from the clipped gradients to the release (privacy/discrete_noise.hpp).
#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <numeric>
#include <string>
#include <vector>

#include "dpsgd/accounting/rdp.hpp"
#include "dpsgd/allreduce/all.hpp"
#include "dpsgd/comm/auto_allreduce.hpp"
#include "dpsgd/dpsgd.hpp"
#include "dpsgd/train/journal.hpp"
#include "support.hpp"
#include "train/fixture.hpp"

using namespace dpsgd;
using test::scratch, test::width;

namespace {

constexpr std::size_t records = 500;
constexpr std::int64_t most = 1 << 20;  // units in the sensitivity

dataset make_data(std::size_t n = records) { return test::two_classes(n); }

/// Trains a small mlp on `ranks` threads and gives each rank's parameters.
template <class... Policies>
std::vector<std::vector<float>> train(int ranks, const dataset& data, const fit_options& options,
                                      const Policies&... policies) {
  std::vector<std::vector<float>> results(static_cast<std::size_t>(ranks));
  threads::run(ranks, [&](auto& world) {
    mlp model({width, 20, 1});
    trainer t{world, Policies(policies)..., rdp_accountant{}};
    t.fit(model, shard(data, world), options);
    results[static_cast<std::size_t>(world.rank())] = {model.parameters().begin(), model.parameters().end()};
  });
  return results;
}

/// A model with records, and its clipped sums on the grid.
template <class Model>
struct problem {
  Model model;
  test::matrix features;
  std::vector<float> labels;
  cpu::backend backend;
  cpu::backend::weights weights;
  double skipped = 0;

  problem(Model m, std::size_t n, std::size_t classes)
      : model(std::move(m)), features(n, model.inputs(), 5), labels(n), weights(model.shapes()) {
    for (std::size_t i = 0; i < n; ++i) labels[i] = static_cast<float>(i * 7 % classes);
    backend.weights_changed(weights, model.parameters().data());
  }
  template <class Norms = ghost_norms, class Value = std::int64_t, class Clip>
  std::vector<Value> sum(const Clip& clip, const std::vector<std::uint32_t>& rows, std::size_t tile = 60) {
    std::vector<Value> out(model.parameters().size() + extra_coordinates<Clip>, Value{-1});
    clipped_sum_workspace<cpu::backend, Model, Norms, Value> workspace(backend, model, tile);
    skipped = 0;
    const double unit = std::is_same_v<Value, float> ? 1 : discrete_gaussian_noise{}.unit(clip.sensitivity().value);
    workspace(weights, features.view, {labels.data(), labels.size(), 1, 1}, {rows.data(), rows.size()}, clip,
              out.data(), &skipped, unit);
    return out;
  }
};
problem<mlp> make_problem(const std::vector<std::size_t>& widths, std::size_t n, const mlp::options& options = {}) {
  return {mlp(widths, options), n, widths.back() == 1 ? 2 : widths.back()};
}
std::vector<std::uint32_t> first(std::size_t n) {
  std::vector<std::uint32_t> rows(n);
  std::iota(rows.begin(), rows.end(), 0u);
  return rows;
}
std::uint64_t square(const std::vector<std::int64_t>& q) {
  std::uint64_t sum = 0;
  for (const auto v : q) {
    REQUIRE(std::abs(v) <= most);
    sum += static_cast<std::uint64_t>(v * v);
  }
  return sum;
}

const discrete_gaussian_noise noise{1.0};
const exact_poisson_sampling sampling{0.1};

}  // namespace

TEST_CASE_TEMPLATE("an example on the grid is its clipped gradient without fractions, and never longer than the bound",
                   Clip, flat_clip, automatic_clip, psac_clip, per_layer_clip, adaptive_clip) {
  for (const auto& widths : {std::vector<std::size_t>{16, 64, 64, 1}, {17, 33, 4}, {1, 1}, {3, 130, 2}})
    for (const double bound : {1e-6, 0.3, 50.0, 1e6}) {
      auto p = make_problem(widths, 12);
      const Clip clip{bound};
      const double unit = clip.sensitivity().value / most;
      for (std::uint32_t row = 0; row < 12; ++row) {
        const auto q = p.sum(clip, {row});
        CHECK(p.skipped == 0);
        CHECK(p.template sum<materialised_norms>(clip, {row}).size() == q.size());
        CHECK(p.skipped == 0);
        REQUIRE(square(q) <= std::uint64_t{1} << 40);
        const auto g = p.template sum<ghost_norms, float>(clip, {row});
        for (std::size_t i = 0; i < q.size(); ++i) {
          const double wanted = g[i] / unit, got = static_cast<double>(q[i]);
          // Towards zero by less than one; the two are scaled in another order of roundings.
          REQUIRE(std::abs(got) <= std::abs(wanted) * (1 + 1e-6));
          REQUIRE(std::abs(got) > std::abs(wanted) * (1 - 1e-6) - 1);
        }
      }
    }
}

// Law: an example's whole numbers depend on nothing that stands beside it. Where one bit of a norm, an activation or a
// loss came out otherwise in another place of the tile, some of these sums would differ.
TEST_CASE("the sum on the grid is exactly that of its examples, whatever the tile and the order") {
  const struct {
    std::vector<std::size_t> widths;
    mlp::options options;
  } cases[] = {{{16, 64, 64, 1}, {}},
               {{5, 3, 1}, {.activation = dpsgd::tanh{}}},
               {{17, 33, 4}, {}},
               {{9, 40, 7}, {.activation = leaky_relu{{0.2f}}}},
               {{20, 50, 1}, {.activation = dpsgd::tanh{}, .loss = any_loss{squared_error{}}}},
               {{70, 1}, {}}};
  for (const auto& [widths, options] : cases) {
    auto p = make_problem(widths, 2500, options);
    auto rows = first(2500);
    std::vector<std::int64_t> wanted(p.model.parameters().size());
    for (const auto row : rows) {
      const auto q = p.sum(flat_clip{0.3}, {row});
      for (std::size_t i = 0; i < q.size(); ++i) wanted[i] += q[i];
    }
    for (const std::size_t tile : {1, 7, 24, 60, 61, 2500}) CHECK(p.sum(flat_clip{0.3}, rows, tile) == wanted);
    for (std::size_t i = rows.size() - 1; i > 0; --i) std::swap(rows[i], rows[i * 7919 % (i + 1)]);
    CHECK(p.sum(flat_clip{0.3}, rows, 60) == wanted);
  }
}

namespace {
/// Says of its norms that they are shorter than they are.
template <int Percent>
struct short_linear : linear {
  void norms(auto& b, auto x, auto dy, auto norm2) const {
    buffer<float> all(x.rows);
    b.add_outer_norms(x, dy, vector_view<float>{all.data(), x.rows});
    for (std::size_t r = 0; r < x.rows; ++r) norm2[r] += all[r] * Percent / 100.0f;
  }
};
}  // namespace

// Law: what floats say of a norm is not trusted. Whole numbers decide.
TEST_CASE("an example that is longer than the bound on the grid counts as zero, and is reported") {
  const auto check = [](auto layer, double clip_at, bool refused) {
    using net = sequential<squared_error, decltype(layer)>;
    problem<net> p(net(4, {}, {layer}), 40, 3);
    for (auto& label : p.labels) label += 5;  // gradients that are longer than the bound
    const auto q = p.sum(flat_clip{clip_at}, first(40));
    CHECK(p.skipped == (refused ? 40 : 0));
    if (refused) CHECK(std::all_of(q.begin(), q.end(), [](auto v) { return v == 0; }));
    else CHECK(square(p.sum(flat_clip{clip_at}, {7})) > (std::uint64_t{1} << 40) / 100 * 80);
  };
  check(short_linear<100>{{1}}, 0.1, false);
  check(short_linear<99>{{1}}, 0.1, true);
  check(short_linear<25>{{1}}, 0.1, true);
  check(short_linear<1>{{1}}, 0.1, true);
  check(short_linear<0>{{1}}, 0.1, true);
  check(short_linear<0>{{1}}, 1e-12, true);  // beyond 32 bits, were it not kept within the bound

  // Not too long by itself, but together with what it adds to the clip's count.
  using net = sequential<squared_error, short_linear<95>>;
  problem<net> p(net(4, {}, {short_linear<95>{{1}}}), 40, 3);
  for (auto& label : p.labels) label += 5;
  const auto q = p.sum(adaptive_clip{.bound = 0.1, .share = 1}, first(40));
  CHECK(p.skipped == 40);
  CHECK(std::all_of(q.begin(), q.end(), [](auto v) { return v == 0; }));
}

TEST_CASE("a gradient that is not finite counts as zero on the grid, too") {
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(), 3e38f}) {
    auto p = make_problem({16, 64, 64, 1}, 100);
    auto rows = first(100);
    p.features.view(37, 0) = bad;
    const auto with = p.sum(flat_clip{0.5}, rows, 24);
    const double skipped = p.skipped;
    if (!std::isfinite(bad)) CHECK(skipped == 1);
    rows.erase(rows.begin() + 37);
    if (skipped == 1) CHECK(with == p.sum(flat_clip{0.5}, rows, 24));
  }
}

TEST_CASE("in exact mode parameters have the same bits for any number of ranks and every allreduce") {
  const auto data = make_data();
  const fit_options o{.steps = 6, .learning_rate = 0.3, .delta = 1e-5, .insecure_seed = 5};
  const auto one = train(1, data, o, flat_clip{0.7}, noise, sampling)[0];
  for (const int ranks : {2, 3, 4, 7})
    for (const auto& a : allreduce::all_algorithms) {
      if (!a.is_native() && !allreduce::verify(a.derive(ranks))) continue;
      CAPTURE(ranks);
      CAPTURE(a.name());
      for (const auto& p : train(ranks, data, o, flat_clip{0.7}, noise, sampling, a)) CHECK(p == one);
    }
  threads::run(3, [&](auto& world) {  // whatever it picks, the sums and the parameters are cut alike
    mlp model({width, 20, 1});
    trainer t{world, flat_clip{0.7}, noise, sampling, auto_allreduce(world), rdp_accountant{}};
    t.fit(model, shard(data, world), o);
    require(std::ranges::equal(model.parameters(), one), "auto_allreduce gives other bits");
  });
}

TEST_CASE_TEMPLATE("and with every clip, sampling, optimizer and way to find norms", Clip, flat_clip, automatic_clip,
                   per_layer_clip, adaptive_clip) {
  const auto data = make_data();
  const fit_options o{.steps = 15, .learning_rate = 0.02, .delta = 1e-5, .insecure_seed = 6};
  const auto same = [&](const auto&... policies) {
    const auto one = train(1, data, o, Clip{0.7}, noise, policies...)[0];
    for (const int ranks : {2, 3, 7})
      for (const auto& p : train(ranks, data, o, Clip{0.7}, noise, policies...)) CHECK(p == one);
  };
  same(sampling, adam{});
  same(sampling, adam{.correct_noise = true});
  same(sampling, sgd{.momentum = 0.9}, cosine_decay{});
  same(shuffling{5}, sgd{});
  same(balls_in_bins{5}, materialised_norms{});
}

TEST_CASE("a seeded exact run that is cut and resumed at another number of ranks goes on bit by bit") {
  const auto data = make_data();
  const scratch dir;
  const auto run = [&](int ranks, std::uint64_t steps, bool resume, const char* where) {
    std::vector<float> result;
    threads::run(ranks, [&](auto& world) {
      basic_journal<rdp_accountant> keep;
      if (world.rank() == 0) keep.keep_checkpoints(dir.path / where, "toy", resume);
      mlp model({width, 20, 1});
      trainer t{world, flat_clip{0.7}, noise, sampling, adam{}, rdp_accountant{}};
      t.fit(model, shard(data, world),
            {.steps = steps, .learning_rate = 0.01, .delta = 1e-5, .insecure_seed = 9, .journal = &keep});
      if (world.rank() == 0) result = {model.parameters().begin(), model.parameters().end()};
    });
    return result;
  };
  const auto whole = run(2, 40, false, "whole");
  run(3, 13, false, "cut");
  run(1, 25, true, "cut");
  CHECK(run(7, 40, true, "cut") == whole);
}

// Law: noise of parameter sigma = multiplier x sensitivity, once, however many ranks, on every coordinate; and it is
// that of (key, noise, step, coordinate). A rate so small that nobody joins shows it alone.
TEST_CASE("what is released is the noise of each coordinate's own stream, in units of the grid") {
  const double rate = 1e-9, bound = 0.4;
  mlp before({width, 20, 1});
  const discrete_gaussian_noise twice{2.0};
  for (const int ranks : {1, 3}) {
    const auto after =
        train(ranks, make_data(), {.steps = 1, .learning_rate = rate * records, .delta = 1e-5, .insecure_seed = 8},
              flat_clip{bound}, twice, exact_poisson_sampling{rate})[0];
    for (std::size_t i = 0; i < after.size(); ++i) {
      const auto y = discrete_gaussian_value({random_key::from_seed(8), domain::noise, 0, 0},
                                             static_cast<std::uint32_t>(i), 2 << 20);
      CHECK(double{before.parameters()[i]} - after[i] ==
            doctest::Approx(bound / most * static_cast<double>(y)).epsilon(1e-3).scale(1e-4));
    }
  }
}

TEST_CASE("it learns, and its claim says exact arithmetic") {
  const auto [training, test] = split(make_data(4000), {.test_fraction = 0.25, .seed = 1});
  mlp model({width, 20, 1});
  trainer t{
      flat_clip{},     discrete_gaussian_noise{0.8}, exact_poisson_sampling{0.05}, sgd{.momentum = 0.5}, cosine_decay{},
      rdp_accountant{}};
  const auto report = t.fit(model, training, {.steps = 400, .learning_rate = 0.5, .delta = 1e-5});
  CHECK(accuracy(model, test).value > 0.93);
  CHECK(report.not_finite.value == 0);
  CHECK(report.claim.words().find("Poisson sampling, RDP, exact arithmetic") != std::string::npos);
  // Never below the continuous law's, and of the multiplier that was used.
  rdp_accountant continuous, exact;
  continuous.add(poisson_sampled{0.05, gaussian_event<zero_out>{0.8}}, 400);
  exact.add(t.event(), 400);
  CHECK(report.claim.epsilon == exact.spent(1e-5).epsilon);
  CHECK(report.claim.epsilon >= continuous.spent(1e-5).epsilon * (1 - 1e-5));
  CHECK(report.claim.epsilon < continuous.spent(1e-5).epsilon * 1.1);
  mlp other({width, 20, 1});
  trainer epochs{flat_clip{}, discrete_gaussian_noise{4}, shuffling{10}, rdp_accountant{}};
  CHECK(epochs.fit(other, training, {.steps = 20, .delta = 1e-5}).claim.words().find("unamplified, RDP, exact") !=
        std::string::npos);
}

TEST_CASE("the ledger and its budget count exact runs, and no PLD accountant takes them") {
  const auto data = make_data();
  const scratch dir;
  const auto fit = [&](std::optional<privacy_target> budget, std::uint64_t steps) {
    ledger book(dir.path / "ledger", data.digest().hex(), data.universe());
    basic_journal<rdp_accountant> keep;
    keep.keep(book, budget);
    mlp model({width, 8, 1});
    trainer t{flat_clip{}, noise, sampling, rdp_accountant{}};
    return t.fit(model, data, {.steps = steps, .delta = 1e-5, .journal = &keep});
  };
  fit({}, 100);
  rdp_accountant spent, wanted;
  {
    ledger book(dir.path / "ledger", data.digest().hex(), data.universe());
    book.add_to(spent);
    pld_accountant pld;
    CHECK_THROWS_WITH_AS(book.add_to(pld), doctest::Contains("poisson-discrete-gaussian"), error);
  }
  wanted.add(poisson_sampled{0.1, discrete_gaussian_event<zero_out>{1.0}}, 100);
  CHECK(spent.spent(1e-5).epsilon == wanted.spent(1e-5).epsilon);
  const auto report = fit(privacy_target{spent.spent(1e-5).epsilon * 1.3, 1e-5}, 10'000);
  CHECK(report.out_of_budget);
  CHECK(report.steps > 10);
  CHECK(report.steps < 10'000);
}

TEST_CASE("what exact mode cannot hold is refused before anything is spent") {
  const auto data = make_data();
  mlp model({width, 8, 1});
  const auto fit = [&](double multiplier, double rate) {
    trainer t{flat_clip{}, discrete_gaussian_noise{multiplier}, exact_poisson_sampling{rate}, rdp_accountant{}};
    t.fit(model, data, {.steps = 1, .delta = 1e-5});
  };
  CHECK_NOTHROW(fit(1, 0.1));
  CHECK_NOTHROW(fit(0x1p20, 0.1));
  for (const double wrong : {0x1.1p20, 0.0, -1.0, std::nan("")}) CHECK_THROWS_AS(fit(wrong, 0.1), error);
  for (const double wrong : {0.0, 1.1, -1.0, std::nan("")}) CHECK_THROWS_AS(fit(1, wrong), error);
  CHECK_NOTHROW(noise.check((1 << 24) - 1, std::uint64_t{1} << 42));
  CHECK_THROWS_WITH_AS(noise.check(1 << 24, 1), doctest::Contains("coordinates"), error);
  CHECK_THROWS_WITH_AS(noise.check(1, (std::uint64_t{1} << 42) + 1), doctest::Contains("2^42 rows"), error);
}

// Law: the check of an example's length is in whole numbers, so the sensitivity must be one.
TEST_CASE("a noise whose grid does not hold the sensitivity is refused") {
  struct other_grid : discrete_gaussian_noise {
    double in_sensitivity;
    double unit(double sensitivity) const { return sensitivity / in_sensitivity; }
  };
  const auto fit = [](double in_sensitivity) {
    mlp model({width, 8, 1});
    trainer t{flat_clip{0.7}, other_grid{{}, in_sensitivity}, exact_poisson_sampling{0.1}, rdp_accountant{}};
    t.fit(model, make_data(), {.steps = 1, .delta = 1e-5});
  };
  CHECK_NOTHROW(fit(1 << 20));
  CHECK_NOTHROW(fit(1000));
  for (const double wrong : {0.6, 1000.7, 0x1p21, 0.0, -4.0, std::nan("")})
    CHECK_THROWS_WITH_AS(fit(wrong), doctest::Contains("a whole number of its units"), error);
}

// Law: a claim is no more exact than the least exact of the steps that it covers.
TEST_CASE("exact steps on top of idealised ones are claimed as idealised") {
  const auto claimed = [](const rdp_accountant& before) {
    mlp model({width, 8, 1});
    trainer t{flat_clip{}, noise, sampling, before};
    return t.fit(model, make_data(), {.steps = 1, .delta = 1e-5}).claim;
  };
  rdp_accountant before;
  before.add(poisson_sampled{0.1, discrete_gaussian_event<zero_out>{2.0}}, 10);
  before.add(poisson_sampled{0.1, gaussian_event<zero_out>{2.0}}, 0);
  CHECK(claimed(before).arithmetic == arithmetic::exact);
  before.add(poisson_sampled{0.1, gaussian_event<zero_out>{2.0}}, 10);
  CHECK(claimed(before).arithmetic == arithmetic::idealised);
}
