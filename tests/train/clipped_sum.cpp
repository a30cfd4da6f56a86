#include "dpsgd/train/clipped_sum.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "dpsgd/cpu/backend.hpp"
#include "dpsgd/nn/mlp.hpp"
#include "dpsgd/privacy/adaptive_clip.hpp"
#include "dpsgd/testing/laws.hpp"
#include "support.hpp"

using namespace dpsgd;

namespace {

/// A model with records, and the clipped sum of some of them by various ways.
struct problem {
  mlp model;
  test::matrix features;
  std::vector<float> labels;
  cpu::backend backend;
  cpu::backend::weights weights;
  double skipped = 0;

  problem(const std::vector<std::size_t>& widths, std::size_t records, const mlp::options& options = {})
      : model(widths, options), features(records, widths.front(), 5), labels(records), weights(model.shapes()) {
    const auto classes = widths.back() == 1 ? 2 : widths.back();
    for (std::size_t i = 0; i < records; ++i) labels[i] = static_cast<float>(i * 7 % classes);
    backend.weights_changed(weights, model.parameters().data());
  }

  template <class Norms = ghost_norms, class Clip>
  std::vector<float> sum(const Clip& clip, const std::vector<std::uint32_t>& rows, std::size_t tile = 120) {
    std::vector<float> out(model.parameters().size() + extra_coordinates<Clip>, -1.0f);
    clipped_sum_workspace<cpu::backend, mlp, Norms> workspace(backend, model, tile);
    skipped = 0;
    workspace(weights, features.view, {labels.data(), labels.size(), 1, 1}, {rows.data(), rows.size()}, clip,
              out.data(), &skipped);
    return out;
  }

  /// The definition: each example's gradient by itself, clipped in double, added in double.
  template <class Clip>
  std::vector<double> oracle(const Clip& clip, const std::vector<std::uint32_t>& rows) {
    std::vector<double> total(model.parameters().size());
    for (const auto row : rows) {
      const auto g = sum(no_clip{}, {row});
      double square = 0;
      for (const double v : g) square += v * v;
      if constexpr (grouped_clip<Clip>) {
        // Layers of an mlp: a matrix and its bias each.
        const auto tensors = model.shapes();
        std::size_t i = 0;
        for (std::size_t t = 0; t < tensors.size(); t += 2) {
          const auto end = i + tensors[t].size() + tensors[t + 1].size();
          double layer = 0;
          for (auto k = i; k < end; ++k) layer += double{g[k]} * g[k];
          const double factor = clip.factor(std::sqrt(layer), t / 2, tensors.size() / 2);
          for (; i < end; ++i) total[i] += factor * g[i];
        }
      } else {
        const double factor = clip.factor(std::sqrt(square));
        for (std::size_t i = 0; i < g.size(); ++i) total[i] += factor * g[i];
      }
    }
    return total;
  }
};

template <class A, class B>
double distance(const A& a, const B& b) {
  double difference = 0, size = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    difference += (double{a[i]} - b[i]) * (double{a[i]} - b[i]);
    size += double{b[i]} * b[i];
  }
  return std::sqrt(difference / (size + 1e-300));
}
std::vector<std::uint32_t> first(std::size_t n) {
  std::vector<std::uint32_t> rows(n);
  std::iota(rows.begin(), rows.end(), 0u);
  return rows;
}
const std::vector<std::vector<std::size_t>> shapes{{16, 64, 64, 1}, {5, 3, 1}, {17, 33, 4},
                                                   {1, 1},          {70, 1},   {3, 130, 2}};

}  // namespace

TEST_CASE("the clipped sum is the sum of each example's clipped gradient") {
  for (const auto& widths : shapes)
    for (const double bound : {0.01, 0.5, 100.0}) {
      problem p(widths, 300);
      const auto rows = first(300);
      const auto wanted = p.oracle(flat_clip{bound}, rows);
      CHECK(distance(p.sum(flat_clip{bound}, rows), wanted) < 1e-5);
      // Factors are shrunk by the rounding of the norms; materialised ones add up one row of a tensor after the other.
      double additions = 0;
      for (const auto& shape : p.model.shapes()) additions += static_cast<double>(shape.rows);
      CHECK(distance(p.sum<materialised_norms>(flat_clip{bound}, rows), wanted) < 1e-5 + additions * 0x1p-24);
      CHECK(p.skipped == 0);
    }
}

TEST_CASE_TEMPLATE("every clip's sum is that of its factors, by ghost and by materialised norms", Clip, automatic_clip,
                   psac_clip, per_layer_clip) {
  for (const auto& widths : shapes)
    for (const double bound : {0.01, 0.5, 100.0}) {
      problem p(widths, 150);
      const auto rows = first(150);
      const Clip clip{bound};
      const auto wanted = p.oracle(clip, rows);
      double additions = 0;
      for (const auto& shape : p.model.shapes()) additions += static_cast<double>(shape.rows);
      CHECK(distance(p.sum(clip, rows), wanted) < 1e-5);
      CHECK(distance(p.sum<materialised_norms>(clip, rows), wanted) < 1e-5 + additions * 0x1p-24);
      const auto one = p.sum(clip, rows, 120);
      for (const std::size_t tile : {1, 7, 64}) CHECK(p.sum(clip, rows, tile) == one);
    }
}

TEST_CASE("a clip by layer keeps each layer's bound, even a lying one's, and of one layer it is the flat clip's bits") {
  struct lying_clip : per_layer_clip {
    double factor(double, std::size_t, std::size_t) const { return 50; }
  };
  problem p({16, 64, 64, 1}, 200);
  const layer_bounds_clip<3> unequal{{0.5, 0.01, 2.0}};
  CHECK(distance(p.sum(unequal, first(200)), p.oracle(unequal, first(200))) < 1e-5);
  for (std::uint32_t row = 0; row < 200; ++row) {
    const auto check = [&](const std::vector<float>& g, auto bound_of) {
      const auto tensors = p.model.shapes();
      std::size_t i = 0;
      for (std::size_t t = 0; t < tensors.size(); t += 2) {
        double square = 0;
        for (const auto end = i + tensors[t].size() + tensors[t + 1].size(); i < end; ++i)
          square += double{g[i]} * g[i];
        REQUIRE(std::sqrt(square) <= bound_of(t / 2));
      }
    };
    check(p.sum(lying_clip{{0.25}}, {row}), [](std::size_t) { return 0.25 / std::sqrt(3.0); });
    check(p.sum(unequal, {row}), [&](std::size_t g) { return unequal.bounds[g]; });
  }
  for (const auto& widths : {std::vector<std::size_t>{70, 1}, {1, 1}}) {
    problem one(widths, 300);
    CHECK(one.sum(per_layer_clip{0.3}, first(300)) == one.sum(flat_clip{0.3}, first(300)));
  }
}

// One layer's norm overflows, another's does not: the example counts as zero in both, once.
TEST_CASE("an example whose gradient is not finite in one layer counts as zero in all") {
  problem p({16, 64, 64, 1}, 100);
  auto rows = first(100);
  // No neuron listens to the first input, so only |x|^2, and with it the first layer's norm, is beyond the floats.
  for (std::size_t neuron = 0; neuron < 64; ++neuron) p.model.parameters()[neuron * 16] = 0;
  p.features.view(37, 0) = 3e38f;
  p.backend.weights_changed(p.weights, p.model.parameters().data());
  const auto with = p.sum(per_layer_clip{0.5}, rows, 24);
  CHECK(p.skipped == 1);
  rows.erase(rows.begin() + 37);
  CHECK(with == p.sum(per_layer_clip{0.5}, rows, 24));
}

TEST_CASE("the gradient that is clipped is the loss's: finite differences") {
  for (const auto& o : {mlp::options{.activation = dpsgd::tanh{}}, mlp::options{.activation = leaky_relu{{0.2f}}}}) {
    problem p({4, 6, 3}, 20, o);
    const auto rows = first(20);
    const auto g = p.sum(no_clip{}, rows);
    const auto loss = [&] {
      p.backend.weights_changed(p.weights, p.model.parameters().data());
      tape<cpu::backend, mlp> t(p.backend, p.model, 20);
      p.backend.gather_rows(p.features.view, {rows.data(), 20}, t.value(0, 20));
      t.forward(p.weights, 20);
      double total = 0;
      for (std::size_t r = 0; r < 20; ++r) total += p.model.loss().value({t.outputs(20).row(r), 3}, p.labels[r]);
      return total;
    };
    for (std::size_t i = 0; i < g.size(); ++i) {
      float& w = p.model.parameters()[i];
      const float old = w, h = 3e-3f;
      w = old + h;
      const double above = loss();
      w = old - h;
      const double below = loss();
      w = old;
      CHECK(std::abs(g[i] - (above - below) / (2 * double{h})) < 5e-3 * (1 + std::abs(g[i])));
    }
  }
}

TEST_CASE("the result has the same bits whatever the tile, and an example's factor whatever stands beside it") {
  for (const auto& widths : shapes) {
    problem p(widths, 500);
    const auto rows = first(500);
    const auto one = p.sum(flat_clip{0.3}, rows, 120);
    for (const std::size_t tile : {1, 7, 12, 64, 500, 1000}) CHECK(p.sum(flat_clip{0.3}, rows, tile) == one);
    // Moved to another place among others: its own contribution, the difference of two sums, is exact where the others'
    // are 0.
    auto shuffled = rows;
    for (std::size_t i = shuffled.size() - 1; i > 0; --i) std::swap(shuffled[i], shuffled[i * 7919 % (i + 1)]);
    CHECK(distance(p.sum(flat_clip{0.3}, shuffled), one) < 1e-5);
  }
}

TEST_CASE("no example contributes more than the sensitivity, however the clip lies or rounds") {
  struct lying_clip {
    double factor(double) const { return 50; }
    l2_sensitivity<zero_out> sensitivity() const { return {0.25}; }
  };
  problem p({16, 64, 64, 1}, 400);
  for (std::uint32_t row = 0; row < 400; ++row)
    for (const auto& g : {p.sum(lying_clip{}, {row}), p.sum(flat_clip{0.25}, {row})}) {
      double square = 0;
      for (const double v : g) square += v * v;
      REQUIRE(std::sqrt(square) <= 0.25);
    }
}

namespace {
struct lying_count {
  static constexpr std::size_t extra = 2;
  double contributed = 0, other = 0;
  double factor(double) const { return 50; }
  l2_sensitivity<zero_out> sensitivity() const { return {0.25}; }
  double contribution(double norm, std::size_t k) const { return k == 0 ? contributed : other * (norm < 1 ? 1 : -1); }
  double next(std::size_t, double mean) const { return mean; }
  void load(std::size_t, double) {}
  double value(std::size_t) const { return 0; }
};
}  // namespace

// In the trainer's hands a clip's coordinates are as little trusted as its factors.
TEST_CASE("no example moves gradient and the clip's own coordinates by more than the sensitivity together") {
  const double infinity = std::numeric_limits<double>::infinity();
  problem p({16, 64, 64, 1}, 200);
  const auto norm_of = [](const auto& g, std::size_t first, std::size_t last) {
    double square = 0;
    for (auto i = first; i < last; ++i) square += double{g[i]} * g[i];
    return std::sqrt(square);
  };
  const auto n = p.model.parameters().size();
  for (const auto& clip : {lying_count{0.2, 0.1}, lying_count{0.15, 0.2}, lying_count{0.2, 0.3}, lying_count{1e30, 0},
                           lying_count{-infinity, 0.1}, lying_count{0.1, std::nan("")}, lying_count{0.25, 0.25}})
    for (std::uint32_t row = 0; row < 200; ++row) {
      const auto g = p.sum(clip, {row});
      REQUIRE(norm_of(g, 0, n + 2) <= 0.25);
      REQUIRE(norm_of(g, 0, n) > 0);
      // Let through whole, or not at all.
      const bool whole = std::hypot(clip.contributed, clip.other) < 0.25;
      REQUIRE(norm_of(g, n, n + 2) == doctest::Approx(whole ? std::hypot(clip.contributed, clip.other) : 0));
      if (!whole) REQUIRE(norm_of(g, 0, n) > 0.249);
    }
  const adaptive_clip honest{.bound = 0.3, .share = 2};
  for (std::uint32_t row = 0; row < 200; ++row)
    REQUIRE(norm_of(p.sum(honest, {row}), 0, n + 1) <= honest.sensitivity().value);
}

TEST_CASE_TEMPLATE("the count is that of the norms, whatever the tile; its gradient is the flat clip's", Norms,
                   ghost_norms, materialised_norms) {
  problem p({16, 64, 64, 1}, 150);
  const auto rows = first(150);
  std::vector<double> norms;
  for (const auto row : rows) {
    double square = 0;
    for (const double v : p.sum(no_clip{}, {row})) square += v * v;
    norms.push_back(std::sqrt(square));
  }
  std::nth_element(norms.begin(), norms.begin() + 40, norms.end());
  const adaptive_clip clip{.bound = (norms[40] + *std::min_element(norms.begin() + 41, norms.end())) / 2, .share = 0.5};
  const auto one = p.sum<Norms>(clip, rows);
  CHECK(one.back() == doctest::Approx(0.5 * clip.bound * (41 - 150 / 2.0)).epsilon(1e-6));
  for (const std::size_t tile : {1, 7, 64, 500}) CHECK(p.sum<Norms>(clip, rows, tile) == one);
  auto flat = p.sum<Norms>(flat_clip{clip.bound}, rows);
  flat.push_back(one.back());
  CHECK(distance(one, flat) < 1e-6);
}

TEST_CASE("an example whose gradient is not finite is not counted") {
  for (const float value : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    problem p({16, 64, 64, 1}, 100);
    auto rows = first(100);
    p.features.view(37, 0) = value;
    const adaptive_clip clip{.bound = 0.5};
    const auto with = p.sum(clip, rows, 24);
    CHECK(p.skipped == 1);
    CHECK(p.sum(clip, {37}).back() == 0);
    rows.erase(rows.begin() + 37);
    CHECK(with == p.sum(clip, rows, 24));
  }
}

TEST_CASE("a gradient that is not finite counts as zero and leaves no trace; an overflowing norm too") {
  const float bad[] = {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
                       -std::numeric_limits<float>::infinity(), 3e38f, 1e30f};
  for (const float value : bad)
    for (const auto& widths : shapes) {
      problem p(widths, 100);
      auto rows = first(100);
      p.features.view(37, 0) = value;
      const auto with = p.sum(flat_clip{0.5}, rows, 24);
      const double skipped = p.skipped;
      rows.erase(rows.begin() + 37);
      const auto without = p.sum(flat_clip{0.5}, rows, 24);
      CAPTURE(value);
      if (!std::isfinite(value)) CHECK(skipped == 1);
      if (skipped == 1) CHECK(with == without);
      for (const float v : with) REQUIRE(std::isfinite(v));
      // All rows bad: zero, exactly.
      const auto alone = p.sum(flat_clip{0.5}, {37});
      if (skipped == 1) CHECK(std::all_of(alone.begin(), alone.end(), [](float v) { return v == 0; }));
    }
}

TEST_CASE("a clip whose factor is infinite at norm 0 does no harm, and check_clip names it") {
  struct dividing_clip {
    double factor(double norm) const { return 0.5 / norm; }
    l2_sensitivity<zero_out> sensitivity() const { return {0.5}; }
  };
  for (const float scale : {0.0f, 1e-25f, 1e-18f}) {
    problem p({4, 3, 1}, 10, {.loss = any_loss{squared_error{}}});
    for (auto& w : p.model.parameters()) w *= scale;  // tiny outputs and no error: gradients that underflow
    p.backend.weights_changed(p.weights, p.model.parameters().data());
    std::fill(p.labels.begin(), p.labels.end(), 0.0f);
    for (std::uint32_t row = 0; row < 10; ++row) {
      double square = 0;
      for (const double v : p.sum(dividing_clip{}, {row})) square += v * v;
      REQUIRE(std::sqrt(square) <= 0.5);  // a NaN fails too
    }
  }
  CHECK_THROWS_AS(testing::check_clip(dividing_clip{}), error);
}

// Found by a reader: |dy|^2 underflowed to 0 beside an |x|^2 of 1e38, and the norm with it.
TEST_CASE("a delta whose square underflows beside a large input is clipped all the same") {
  struct normalising_clip {
    double factor(double norm) const { return 1 / norm; }
    l2_sensitivity<zero_out> sensitivity() const { return {1}; }
  };
  for (const float x : {1e3f, 1e10f, 1e15f, 1e18f, 1.8e19f})
    for (const float label : {1e-45f, 1e-38f, 1e-30f, 2.6e-23f, 1e-23f, 1e-18f, 1e-10f, 1.0f}) {
      problem p({1, 1}, 1, {.loss = any_loss{squared_error{}}});
      for (auto& w : p.model.parameters()) w = 0;
      p.backend.weights_changed(p.weights, p.model.parameters().data());
      p.features.view(0, 0) = x, p.labels[0] = label;
      CAPTURE(x);
      CAPTURE(label);
      const auto check = [](const std::vector<float>& g, double bound) {
        double square = 0;
        for (const double v : g) square += v * v;
        CHECK(std::sqrt(square) <= bound);
      };
      check(p.sum(flat_clip{1e-6}, {0}), 1e-6);
      check(p.sum(flat_clip{1}, {0}), 1);
      check(p.sum(normalising_clip{}, {0}), 1);
    }
}

namespace {
/// y = gain * x, without norms(), and saying that it works in place, which a layer with parameters must not.
struct gain {
  static constexpr bool in_place = true;
  std::size_t outputs(std::size_t inputs) const { return inputs; }
  std::array<tensor_shape, 1> tensors(std::size_t inputs) const { return {tensor_shape{inputs, 1, 1.0}}; }
  void forward(auto&, auto w, auto x, auto y) const {
    for (std::size_t r = 0; r < x.rows; ++r)
      for (std::size_t c = 0; c < x.cols; ++c) y(r, c) = x(r, c) * w[0].plain(c, 0);
  }
  void backward(auto&, auto w, auto, auto, auto dy, auto dx) const {
    for (std::size_t r = 0; r < dy.rows; ++r)
      for (std::size_t c = 0; c < dy.cols; ++c) dx(r, c) = dy(r, c) * w[0].plain(c, 0);
  }
  void gradient(auto&, auto x, auto dy, auto g) const {
    for (std::size_t r = 0; r < dy.rows; ++r)
      for (std::size_t c = 0; c < dy.cols; ++c) g[0](c, 0) += dy(r, c) * x(r, c);
  }
};
}  // namespace

TEST_CASE("a layer without ghost norms, in place or not, keeps the sensitivity: narrow, and 100,000 wide") {
  using net = sequential<squared_error, linear, gain>;
  const auto check = [](net model, std::size_t inputs) {
    test::matrix x(3, inputs, 3), labels(3, 1, 4);
    cpu::backend b;
    cpu::backend::weights weights(model.shapes());
    b.weights_changed(weights, model.parameters().data());
    std::vector<float> g(model.parameters().size());
    clipped_sum_workspace<cpu::backend, net> workspace(b, model, 3);
    for (std::uint32_t row = 0; row < 3; ++row) {
      double not_finite = 0;
      workspace(weights, x.view, labels.view, {&row, 1}, flat_clip{1e-3}, g.data(), &not_finite);
      double square = 0;
      for (const double v : g) square += v * v;
      CHECK(std::sqrt(square) <= 1e-3);
      CHECK(std::sqrt(square) >= 0.9e-3);
    }
  };
  check(net(4, {}, {linear{8}, gain{}, linear{1}}), 4);
  check(net(100'000, {}, {gain{}, linear{1}}), 100'000);
}

// Found by a reader: the second tanh overwrote the output that the first one's derivative is made of.
TEST_CASE("layers that work in place leave alone what the layer before needs") {
  using net = sequential<squared_error, linear, relu, dpsgd::tanh>;
  const std::vector<std::vector<net::any_layer>> chains{{linear{5}, dpsgd::tanh{}, dpsgd::tanh{}, linear{1}},
                                                        {linear{5}, dpsgd::tanh{}, relu{}, dpsgd::tanh{}, linear{1}},
                                                        {dpsgd::tanh{}, relu{}, linear{1}}};
  for (const auto& chain : chains) {
    net model(4, {}, chain);
    test::matrix x(12, 4, 3), labels(12, 1, 4);
    cpu::backend b;
    cpu::backend::weights weights(model.shapes());
    b.weights_changed(weights, model.parameters().data());
    const auto rows = first(12);
    std::vector<float> g(model.parameters().size());
    double skipped = 0;
    clipped_sum_workspace<cpu::backend, net> workspace(b, model, 12);
    workspace(weights, x.view, labels.view, {rows.data(), 12}, no_clip{}, g.data(), &skipped);
    const auto loss = [&] {
      b.weights_changed(weights, model.parameters().data());
      tape<cpu::backend, net> t(b, model, 12);
      b.gather_rows(x.view, {rows.data(), 12}, t.value(0, 12));
      t.forward(weights, 12);
      double total = 0;
      for (std::size_t r = 0; r < 12; ++r) total += model.loss().value({t.outputs(12).row(r), 1}, labels.view(r, 0));
      return total;
    };
    for (std::size_t i = 0; i < g.size(); ++i) {
      float& w = model.parameters()[i];
      const float old = w, h = 3e-3f;
      w = old + h;
      const double above = loss();
      w = old - h;
      const double below = loss();
      w = old;
      CHECK(std::abs(g[i] - (above - below) / (2 * double{h})) < 5e-3 * (1 + std::abs(g[i])));
    }
  }
}

TEST_CASE("an empty batch gives zero") {
  problem p({16, 64, 64, 1}, 10);
  const auto g = p.sum(flat_clip{1}, {});
  CHECK(std::all_of(g.begin(), g.end(), [](float v) { return v == 0; }));
}
