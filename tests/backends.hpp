/// What holds for every backend: one body of tests, which tests/cpu/ and tests/cuda/ run. Values go to the backend's
/// memory and come back from it by mirrored (train/mirrored.hpp).
#pragma once

#include <doctest/doctest.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include "dpsgd/core/random.hpp"
#include "dpsgd/core/view.hpp"
#include "dpsgd/train/mirrored.hpp"

namespace test {

/// A matrix in a backend's memory, and a copy of it on the host, without gaps. Uniform values in [-1, 1] from `seed`, or
/// zero for seed 0.
template <class Backend>
struct matrix_on {
  using memory = typename Backend::memory;
  std::vector<float> values;
  decltype(std::declval<Backend&>().template make<float>(1)) there;
  dpsgd::matrix_view<float, memory> view;
  Backend& backend;

  matrix_on(Backend& b, std::size_t rows, std::size_t cols, std::uint64_t seed = 0)
      : values(rows * cols),
        there(b.template make<float>(rows * Backend::stride(cols))),
        view{there.data(), rows, cols, Backend::stride(cols)},
        backend(b) {
    dpsgd::random_words words({dpsgd::random_key::from_seed(seed), dpsgd::domain::user, 0, 0});
    if (seed)
      for (auto& v : values) v = static_cast<float>(2 * words.uniform() - 1);
    put();
  }
  float& operator()(std::size_t r, std::size_t c) { return values[r * view.cols + c]; }
  void put() { backend.upload({values.data(), view.rows, view.cols, view.cols}, view); }
  void get() { backend.download(view, values.data()); }
};

/// A vector, likewise.
template <class Backend, class T = float>
struct vector_on {
  std::vector<T> values;
  dpsgd::mirrored<Backend, T> there;
  Backend& backend;

  vector_on(Backend& b, std::vector<T> v) : values(std::move(v)), there(b, values.data(), values.size()), backend(b) {
    there.to_backend(0, values.size());
  }
  operator dpsgd::vector_view<T, typename Backend::memory>() { return {there.data(), values.size()}; }
  operator dpsgd::vector_view<const T, typename Backend::memory>() { return {there.data(), values.size()}; }
  void get() {
    there.to_host(0, values.size());
    if constexpr (requires { backend.wait(); }) backend.wait();
  }
};

/// Rows: norms, sums, scaling, clearing, gathering.
template <class Backend>
void check_rows(Backend& b) {
  for (const std::size_t rows : {1, 3, 15, 17, 300})
    for (const std::size_t cols : {1, 5, 16, 31, 64, 70, 300}) {
      CAPTURE(rows);
      CAPTURE(cols);
      matrix_on<Backend> x(b, rows, cols, 1), sum(b, 1, cols, 3), scaled(b, rows, cols, 1), cleared(b, rows, cols, 1),
          gathered(b, rows, cols);
      const auto before = sum.values;
      std::vector<float> factors(rows);
      std::vector<std::uint32_t> picks(rows);
      for (std::size_t r = 0; r < rows; ++r)
        factors[r] = r % 3 == 2 ? 0.0f : 0.5f, picks[r] = static_cast<std::uint32_t>((r * 7 + 3) % rows);
      vector_on<Backend> norms(b, std::vector<float>(rows, 1.0f)), factor(b, factors);
      vector_on<Backend, std::uint32_t> pick(b, picks);
      vector_on<Backend, double> total(b, {3.5});
      b.add_row_norms(x.view, norms);
      b.sum_rows(x.view, sum.view);
      b.scale_rows(factor, scaled.view);
      b.clear_rows(factor, cleared.view);
      b.gather_rows(x.view, pick, gathered.view);
      b.add_sum(factor, total.there.data());
      norms.get(), sum.get(), scaled.get(), cleared.get(), gathered.get(), total.get();
      double all = 3.5;
      for (std::size_t r = 0; r < rows; ++r) {
        double square = 0;
        for (std::size_t c = 0; c < cols; ++c) {
          square += double{x(r, c)} * x(r, c);
          REQUIRE(scaled(r, c) == x(r, c) * factors[r]);
          REQUIRE(cleared(r, c) == (factors[r] == 0 ? 0 : x(r, c)));
          REQUIRE(gathered(r, c) == x(picks[r], c));
        }
        REQUIRE(norms.values[r] == doctest::Approx(1 + square).epsilon(1e-5));
        all += double{factors[r]};
      }
      REQUIRE(total.values[0] == all);
      for (std::size_t c = 0; c < cols; ++c) {
        double wanted = before[c];
        for (std::size_t r = 0; r < rows; ++r) wanted += double{x(r, c)};
        REQUIRE(std::abs(sum(0, c) - wanted) <= 1e-5 * (1 + std::sqrt(static_cast<double>(rows))));
      }
      // Of the gradient dy x^T and dy, without forming it; never below the truth by more than sum_error and three
      // roundings: the clip factor goes by it.
      for (const std::size_t outputs : {1, 7, 64}) {
        matrix_on<Backend> dy(b, rows, outputs, 2);
        vector_on<Backend> outer(b, std::vector<float>(rows, 0.0f));
        b.add_outer_norms(x.view, dy.view, outer);
        outer.get();
        for (std::size_t r = 0; r < rows; ++r) {
          double xx = 0, dd = 0;
          for (std::size_t c = 0; c < cols; ++c) xx += double{x(r, c)} * x(r, c);
          for (std::size_t c = 0; c < outputs; ++c) dd += double{dy(r, c)} * dy(r, c);
          const double error = Backend::sum_error(cols) + Backend::sum_error(outputs) + 4 * 0x1p-24;
          REQUIRE(std::abs(outer.values[r] - dd * (xx + 1)) <= error * dd * (xx + 1));
        }
      }
    }
}

/// What is added up in one sign all along comes out within the error that the claim goes by.
template <class Backend>
void check_sum_error(Backend& b) {
  for (const std::size_t cols : {1, 4, 33, 128, 1000, 4096, 10'000}) {
    matrix_on<Backend> m(b, 3, cols, 5);
    for (auto& v : m.values) v = 1.0f + std::abs(v);  // so that each addition is rounded
    m.put();
    vector_on<Backend> norms(b, {0.0f, 0.0f, 0.0f});
    b.add_row_norms(m.view, norms);
    norms.get();
    for (std::size_t r = 0; r < 3; ++r) {
      double square = 0;
      for (std::size_t c = 0; c < cols; ++c) square += double{m(r, c)} * m(r, c);
      CHECK(std::abs(norms.values[r] - square) <= (Backend::sum_error(cols) + 0x1p-24) * square);
    }
  }
}

/// A row whose factor is zero is assigned zero: neither NaN nor infinity survives.
template <class Backend>
void check_lost_rows(Backend& b) {
  for (const std::size_t cols : {20, 21}) {
    matrix_on<Backend> scaled(b, 3, cols, 1), cleared(b, 3, cols, 1);
    scaled(1, 4) = std::numeric_limits<float>::quiet_NaN();
    scaled(1, 19) = std::numeric_limits<float>::infinity();
    cleared(1, 7) = -std::numeric_limits<float>::infinity();
    scaled.put(), cleared.put();
    vector_on<Backend> factor(b, {1.0f, 0.0f, 1.0f});
    b.scale_rows(factor, scaled.view);
    b.clear_rows(factor, cleared.view);
    scaled.get(), cleared.get();
    for (std::size_t c = 0; c < cols; ++c) {
      CHECK(scaled(1, c) == 0);
      CHECK(cleared(1, c) == 0);
      CHECK(scaled(0, c) == cleared(0, c));
      CHECK(scaled(0, c) != 0);
    }
  }
}

/// A square that underflowed beside a large activation still counts.
template <class Backend>
void check_underflow(Backend& b) {
  matrix_on<Backend> x(b, 1, 3), dy(b, 1, 5);
  x(0, 1) = 1e18f;
  for (std::size_t c = 0; c < 5; ++c) dy(0, c) = 5e-20f;  // squared: no float
  x.put(), dy.put();
  vector_on<Backend> norm(b, {0.0f});
  b.add_outer_norms(x.view, dy.view, norm);
  norm.get();
  CHECK(double{norm.values[0]} >= 5 * 25e-40 * 1e36);
}

/// The products against plain loops in double.
template <class Backend>
void check_products(Backend& b) {
  struct shape {
    std::size_t rows, cols;
  };
  for (const std::size_t batch : {1, 5, 40})
    for (const auto s : {shape{1, 1}, {3, 5}, {16, 16}, {17, 40}, {64, 33}, {1, 64}, {64, 1}}) {
      CAPTURE(batch);
      CAPTURE(s.rows);
      CAPTURE(s.cols);
      typename Backend::weights weights(std::vector<shape>{s, {1, s.rows}});
      matrix_on<Backend> x(b, batch, s.cols, 1), y(b, batch, s.rows), dy(b, batch, s.rows, 2), dx(b, batch, s.cols),
          g(b, s.rows, s.cols, 3);
      const auto before = g.values;
      std::vector<float> p(s.rows * s.cols + s.rows);
      for (std::size_t i = 0; i < p.size(); ++i) p[i] = static_cast<float>(i * 7 % 11) / 11 - 0.4f;
      vector_on<Backend> parameters(b, p);
      b.weights_changed(weights, parameters.there.data());
      b.product(x.view, *(weights + 0), *(weights + 1), y.view);
      b.product_back(dy.view, *(weights + 0), dx.view);
      b.outer_sum(dy.view, x.view, g.view);
      y.get(), dx.get(), g.get();
      const double error = 1e-6 * static_cast<double>(s.rows + s.cols + batch);
      for (std::size_t r = 0; r < batch; ++r)
        for (std::size_t o = 0; o < s.rows; ++o) {
          double wanted = p[s.rows * s.cols + o];
          for (std::size_t i = 0; i < s.cols; ++i) wanted += double{x(r, i)} * p[o * s.cols + i];
          REQUIRE(std::abs(y(r, o) - wanted) <= error);
        }
      for (std::size_t r = 0; r < batch; ++r)
        for (std::size_t i = 0; i < s.cols; ++i) {
          double wanted = 0;
          for (std::size_t o = 0; o < s.rows; ++o) wanted += double{dy(r, o)} * p[o * s.cols + i];
          REQUIRE(std::abs(dx(r, i) - wanted) <= error);
        }
      for (std::size_t o = 0; o < s.rows; ++o)
        for (std::size_t i = 0; i < s.cols; ++i) {
          double wanted = before[o * s.cols + i];
          for (std::size_t r = 0; r < batch; ++r) wanted += double{dy(r, o)} * x(r, i);
          REQUIRE(std::abs(g(o, i) - wanted) <= error);
        }
    }
}

namespace detail {
template <class View>
struct count_element {
  View m;
  constexpr void operator()(std::size_t r, std::size_t c) const { m(r, c) += 1.0f; }
};
template <class View>
struct count_one {
  View v;
  constexpr void operator()(std::size_t i) const { v.data[i] += 1.0f; }
};
}  // namespace detail

/// each() visits every element once.
template <class Backend>
void check_each(Backend& b) {
  for (const std::size_t rows : {1, 2, 300, 5000})
    for (const std::size_t cols : {1, 3, 64, 257}) {
      if (rows * cols > 400'000) continue;
      matrix_on<Backend> m(b, rows, cols);
      b.each(rows, cols, detail::count_element<decltype(m.view)>{m.view});
      m.get();
      for (const float v : m.values) REQUIRE(v == 1);
      using view = dpsgd::vector_view<float, typename Backend::memory>;
      vector_on<Backend> v(b, std::vector<float>(rows * cols));
      b.each(rows * cols, detail::count_one<view>{v});
      v.get();
      for (const float x : v.values) REQUIRE(x == 1);
    }
}

}  // namespace test
