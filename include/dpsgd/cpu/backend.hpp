/// The CPU backend: the operations that layers, losses and the trainer are written in, on host memory, on one core.
///
/// (Two cores are two ranks; nothing here starts a thread.) Matrices have padded rows: stride(cols) >= cols, rows
/// aligned. What stands in the padding is never read into a result.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <span>
#include <vector>

#include "dpsgd/core/buffer.hpp"
#include "dpsgd/core/view.hpp"
#include "dpsgd/cpu/products.hpp"

// Tells the compiler that the iterations of the next loop do not depend on one another. (clang looks for itself.)
#if defined(__clang__)
#define DPSGD_INDEPENDENT_LOOP
#else
#define DPSGD_INDEPENDENT_LOOP _Pragma("GCC ivdep")
#endif

namespace dpsgd::cpu {

class backend {
 public:
  using memory = host_memory;
  /// A tile has at most 60 rows, so that what a pass writes is still in the first-level cache when the next one reads it;
  /// fewer for wide models, whose tiles should stay in the second-level cache.
  static constexpr std::size_t most_tile_rows = 60, tile_bytes = std::size_t{1} << 20;

  /// A parameter tensor as the products want it. `plain` is W (rows, cols) and `transposed` W^T, both with padded rows.
  struct tensor {
    matrix_view<float> plain, transposed;
    std::size_t rows = 0, cols = 0;
  };

  /// All tensors of a model, for the backend's products: made once, refreshed by weights_changed.
  class weights {
   public:
    weights() = default;
    /// Shapes is a range of {rows, cols}.
    template <class Shapes>
    explicit weights(const Shapes& shapes) {
      for (const auto& shape : shapes) {
        plain_.emplace_back(shape.rows * padded(shape.cols));
        transposed_.emplace_back(shape.cols * padded(shape.rows));
        tensors_.push_back({{plain_.back().data(), shape.rows, shape.cols, padded(shape.cols)},
                            {transposed_.back().data(), shape.cols, shape.rows, padded(shape.rows)},
                            shape.rows,
                            shape.cols});
      }
    }
    const tensor* operator+(std::size_t first) const { return tensors_.data() + first; }
    std::span<tensor> tensors() { return tensors_; }

   private:
    std::vector<buffer<float>> plain_, transposed_;
    std::vector<tensor> tensors_;
  };

  /// Elements from one row to the next of a matrix with `cols` columns.
  static constexpr std::size_t stride(std::size_t cols) { return padded(cols); }

  /// A row's sum of n terms of one sign is within this relative error: each lane adds its share, then the lanes by
  /// pairs.
  static constexpr double sum_error(std::size_t n) { return (static_cast<double>(n) / lanes + 6) * 0x1p-24; }

  /// n zeros in this backend's memory.
  template <class T>
  buffer<T> make(std::size_t n) const {
    return buffer<T>(n);
  }

  /// Copies the parameters (of all tensors, one after the other, unpadded) to where the products read them.
  void weights_changed(weights& w, const float* parameters) const {
    for (auto& t : w.tensors()) {
      for (std::size_t r = 0; r < t.rows; ++r)
        std::memcpy(t.plain.row(r), parameters + r * t.cols, t.cols * sizeof(float));
      transpose_into({parameters, t.rows, t.cols, t.cols}, t.transposed);
      parameters += t.rows * t.cols;
    }
  }

  // Products
  // -----------------------------------------------------------------------------------------------------------------

  /// y (batch, out) = x (batch, in) w^T + bias.
  void product(matrix_view<const float> x, const tensor& w, const tensor& bias, matrix_view<float> y) const {
    cpu::product(x, w.plain, w.transposed, bias.plain.data, y);
  }
  /// dx (batch, in) = dy (batch, out) w.
  void product_back(matrix_view<const float> dy, const tensor& w, matrix_view<float> dx) const {
    cpu::product_back(dy, w.plain, dx);
  }
  /// g (out, in) += dy^T x: the sum over the rows, in their order.
  void outer_sum(matrix_view<const float> dy, matrix_view<const float> x, matrix_view<float> g) const {
    cpu::outer_sum(dy, x, g);
  }

  // Rows
  // ---------------------------------------------------------------------------------------------------------------------

  /// g (1, cols) += the sum of m's rows, in their order.
  void sum_rows(matrix_view<const float> m, matrix_view<float> g) const {
    std::size_t c = 0;
    const auto take = [&]<int Vectors>() {
      for (; c + (Vectors - 1) * lanes < m.cols; c += Vectors * lanes) {
        floats sum[Vectors];
        for (int v = 0; v < Vectors; ++v) sum[v] = load(g.data + c + v * lanes);
        for (std::size_t r = 0; r < m.rows; ++r)
          for (int v = 0; v < Vectors; ++v) sum[v] += load(m.row(r) + c + v * lanes);
        for (int v = 0; v < Vectors; ++v) store(g.data + c + v * lanes, sum[v]);
      }
    };
    take.template operator()<4>();  // side by side they hide the latency of the additions
    take.template operator()<1>();
  }
  /// norm2[r] += |m's row r|^2.
  void add_row_norms(matrix_view<const float> m, vector_view<float> norm2) const {
    row_dots(m, m, [&](std::size_t first, std::size_t n, floats squares) { add_some(norm2.data + first, n, squares); });
  }
  /// norm2[r] += |dy_r|^2 (|x_r|^2 + 1): of the gradient dy_r x_r^T of a weight matrix and dy_r of its bias. Never too
  /// small: a square that underflowed beside a large x counts as the smallest normal number, which is nothing beside
  /// ordinary ones.
  void add_outer_norms(matrix_view<const float> x, matrix_view<const float> dy, vector_view<float> norm2) const {
    const float underflow = static_cast<float>(dy.cols) * std::numeric_limits<float>::min();
    for (std::size_t first = 0; first < x.rows; first += lanes) {
      const auto n = std::min<std::size_t>(lanes, x.rows - first);
      floats of_x;
      const auto a = x.rows_of(first, n), d = dy.rows_of(first, n);
      row_dots(a, a, [&](std::size_t, std::size_t, floats squares) { of_x = squares + 1.0f; });
      row_dots(d, d, [&](std::size_t, std::size_t, floats squares) {
        add_some(norm2.data + first, n, (squares + underflow) * of_x);
      });
    }
  }
  /// m's row r *= factor[r]; where factor[r] is 0 the row is assigned zero, so that not even a NaN survives.
  void scale_rows(vector_view<const float> factor, matrix_view<float> m) const {
    for (std::size_t r = 0; r < m.rows; ++r) {
      float* row = m.row(r);
      for (std::size_t c = 0; c < m.cols; c += lanes) store(row + c, load(row + c) * factor[r]);
    }
    clear_rows(factor, m);
  }
  /// Assigns zero to m's row r where factor[r] is 0.
  void clear_rows(vector_view<const float> factor, matrix_view<float> m) const {
    int zeros = 0;
    for (std::size_t r = 0; r < m.rows; ++r) zeros += factor[r] == 0.0f;
    if (zeros == 0) return;  // as good as always
    for (std::size_t r = 0; r < m.rows; ++r)
      if (factor[r] == 0.0f) std::fill_n(m.row(r), m.cols, 0.0f);
  }
  /// to = the whole parts of m's elements, kept within +-most (a NaN becomes most), and m = 0. Returns the sum of their
  /// squares. It is added up in doubles, yet exact below 2^53; and a larger one comes out as 2^53 at least, because a sum
  /// of whole numbers is never rounded to less than a power of two below it. most: a whole number, at most 2^20.
  double take_whole(matrix_view<float> m, float most, matrix_view<std::int32_t> to) const {
    doubles low{}, high{};
    const auto some = [&](float* from, std::int32_t* whole) __attribute__((always_inline)) {
      floats v = load(from);
      v = v < most ? v : floats{} + most;
      v = v > -most ? v : floats{} - most;
      const ints q = __builtin_convertvector(v, ints);
      *reinterpret_cast<ints*>(whole) = q;
      store(from, floats{});
      const doubles a = first_half(q), b = second_half(q);
      low += a * a, high += b * b;
    };
    const std::size_t full = m.cols / lanes * lanes;
    for (std::size_t r = 0; r < m.rows; ++r) {
      float* row = m.row(r);
      for (std::size_t c = 0; c < full; c += lanes) some(row + c, to.row(r) + c);
      if (full < m.cols) {  // what stands in the padding does not count
        std::fill_n(row + m.cols, full + lanes - m.cols, 0.0f);
        some(row + full, to.row(r) + full);
      }
    }
    low += high;
    double sum = 0;
    for (int i = 0; i < lanes / 2; ++i) sum += low[i];
    return sum;
  }
  /// *total += the sum of v, in its order.
  void add_sum(vector_view<const float> v, double* total) const {
    for (const float x : v) *total += x;
  }
  /// to[0 .. rows * cols) = m, row after row without the padding.
  void without_padding(matrix_view<const float> m, float* to) const {
    for (std::size_t r = 0; r < m.rows; ++r) to = std::copy_n(m.row(r), m.cols, to);
  }
  /// to = m, from the host's memory to this backend's; and back, without the padding.
  void upload(matrix_view<const float> m, matrix_view<float> to) const {
    for (std::size_t r = 0; r < m.rows; ++r) std::copy_n(m.row(r), m.cols, to.row(r));
  }
  void download(matrix_view<const float> m, float* to) const { without_padding(m, to); }
  /// to += m.
  void add_whole(matrix_view<const std::int32_t> m, matrix_view<std::int32_t> to) const {
    for (std::size_t r = 0; r < m.rows; ++r)
      for (std::size_t c = 0; c < m.cols; c += lanes)
        *reinterpret_cast<ints*>(to.row(r) + c) += *reinterpret_cast<const ints*>(m.row(r) + c);
  }
  /// out's row i = from's row rows[i].
  void gather_rows(matrix_view<const float> from, vector_view<const std::uint32_t> rows, matrix_view<float> out) const {
    constexpr std::size_t ahead = 16;  // rows are far apart: ask for them before they are needed
    const std::size_t full = from.cols / lanes * lanes;
    for (std::size_t i = 0; i < rows.size; ++i) {
      if (i + ahead < rows.size) __builtin_prefetch(from.row(rows[i + ahead]));
      const float* row = from.row(rows[i]);
      float* to = out.row(i);
      for (std::size_t c = 0; c < full; c += lanes) store(to + c, load_unaligned(row + c));
      for (std::size_t c = full; c < from.cols; ++c) to[c] = row[c];
    }
  }

  // Everything else
  // ----------------------------------------------------------------------------------------------------------

  /// f(i) for i in [0, n), in any order.
  template <class F>
  void each(std::size_t n, F f) const {
    DPSGD_INDEPENDENT_LOOP
    for (std::size_t i = 0; i < n; ++i) f(i);
  }
  /// f(r, c) for r in [0, rows) and c in [0, cols), in any order.
  template <class F>
  void each(std::size_t rows, std::size_t cols, F f) const {
    for (std::size_t r = 0; r < rows; ++r) {
      DPSGD_INDEPENDENT_LOOP
      for (std::size_t c = 0; c < cols; ++c) f(r, c);
    }
  }
  template <class T>
  void zero(vector_view<T> v) const {
    std::fill_n(v.data, v.size, T{});
  }

 private:
  // to = from^T, by square blocks in registers.
  static void transpose_into(matrix_view<const float> from, matrix_view<float> to) {
    std::size_t r = 0;
    for (; r + lanes <= from.rows; r += lanes) {
      std::size_t c = 0;
      for (; c + lanes <= from.cols; c += lanes) {
        floats block[lanes];
        for (int i = 0; i < lanes; ++i) block[i] = load_unaligned(from.row(r + i) + c);
        transpose(block);
        for (int i = 0; i < lanes; ++i) store(to.row(c + i) + r, block[i]);
      }
      for (; c < from.cols; ++c)
        for (int i = 0; i < lanes; ++i) to(c, r + i) = from(r + i, c);
    }
    for (; r < from.rows; ++r)
      for (std::size_t c = 0; c < from.cols; ++c) to(c, r) = from(r, c);
  }
};

}  // namespace dpsgd::cpu
