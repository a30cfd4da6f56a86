/// The three products of a linear layer by one micro-kernel, without packing the large operand.
///
/// A block of C, `Rows` x (`Vectors` x lanes), stays in registers while k runs: each step broadcasts Rows elements of A
/// and multiplies them with one row of B. A is read with two strides, so a transposed A costs nothing:
///
///                      B (k, wide)                       A             B
///                     +-----------+      forward         x  (batch,in) W^T (in,out)
///                     |...........|      input gradient  dy (batch,out) W  (out,in)
///                     +-----------+      weight gradient dy^T (out,batch)  x (batch,in)
///        A (rows, k)  C (rows, wide)
///         +---+       +-----------+
///         |:::|       |###########|
///         +---+       +-----------+
///
/// Every element of C is summed in the order of k whatever the number of rows. So a row of a batch comes out with the
/// same bits alone or among others, and a gradient does not depend on how the batch was cut into tiles.
#pragma once

#include <algorithm>
#include <cstddef>

#include "dpsgd/core/view.hpp"
#include "dpsgd/cpu/lanes.hpp"

namespace dpsgd::cpu {

/// Columns are padded to whole vectors, and matrices that would have all rows in the same cache sets get one more.
constexpr std::size_t padded(std::size_t columns) {
  constexpr std::size_t line = 16;
  const auto whole = (columns + line - 1) / line * line;
  return whole > 64 && whole % 64 == 0 ? whole + line : whole;
}

namespace detail {

/// The most rows that leave registers for Vectors rows of B and a broadcast; at most 12, enough to hide the FMA's
/// latency.
template <int Vectors>
inline constexpr int best_rows = (registers - Vectors - 1) / Vectors < 12 ? (registers - Vectors - 1) / Vectors : 12;

struct operands {
  const float* a;
  std::size_t a_row, a_k;  // strides of A
  const float* b;
  std::size_t b_k;  // stride of B
  float* c;
  std::size_t c_row;
  const float* start;  // what C starts from: C itself, one row for all (stride 0), or zero (nullptr)
  std::size_t start_row;
  std::size_t k;
};

template <int Rows, int Vectors>
[[gnu::always_inline]] inline void block(const operands& o) {
  floats sum[Rows][Vectors];  // stays in registers, since every loop over it is unrolled
#pragma GCC unroll 16
  for (int r = 0; r < Rows; ++r) {
#pragma GCC unroll 16
    for (int v = 0; v < Vectors; ++v) sum[r][v] = o.start ? load(o.start + r * o.start_row + v * lanes) : floats{};
  }
  const float* a = o.a;
  const float* b = o.b;
  for (std::size_t k = 0; k < o.k; ++k, a += o.a_k, b += o.b_k) {
    floats row[Vectors];
#pragma GCC unroll 16
    for (int v = 0; v < Vectors; ++v) row[v] = load(b + v * lanes);
#pragma GCC unroll 16
    for (int r = 0; r < Rows; ++r) {
#pragma GCC unroll 16
      for (int v = 0; v < Vectors; ++v) sum[r][v] += a[r * o.a_row] * row[v];
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < Rows; ++r) {
#pragma GCC unroll 16
    for (int v = 0; v < Vectors; ++v) store(o.c + r * o.c_row + v * lanes, sum[r][v]);
  }
}

template <int Vectors>
inline void panel(operands o, std::size_t rows) {
  const auto take = [&]<int Rows>() {
    for (; rows >= Rows; rows -= Rows) {
      block<Rows, Vectors>(o);
      o.a += Rows * o.a_row;
      o.c += Rows * o.c_row;
      if (o.start) o.start += Rows * o.start_row;
    }
  };
  take.template operator()<best_rows<Vectors>>();
  take.template operator()<Vectors == 4 ? 2 : 4>();
  take.template operator()<1>();
}

/// C (rows, wide) = start + A (rows, k) B (k, wide); B and C have padded, aligned rows. One copy of it serves all three
/// products, since it is most of what a user's program takes to compile.
[[gnu::noinline]] inline void multiply(operands o, std::size_t rows, std::size_t wide) {
  constexpr int most = registers == 32 ? 4 : 2;
  auto vectors = static_cast<int>((wide + lanes - 1) / lanes);
  const auto take = [&]<int Vectors>() {
    for (; vectors >= Vectors; vectors -= Vectors) {
      panel<Vectors>(o, rows);
      o.b += Vectors * lanes;
      o.c += Vectors * lanes;
      if (o.start) o.start += Vectors * lanes;
    }
  };
  take.template operator()<most>();
  if constexpr (most > 2) take.template operator()<2>();
  take.template operator()<1>();
}

}  // namespace detail

/// f(first, n, sums) for every `lanes` rows: lane i of sums is the sum over the columns of a(first + i, c) * b(first +
/// i, c), for i < n. Every row is summed in one order. A row of b may serve all (stride 0). Padding must be zero in one
/// of them.
template <class F>
[[gnu::always_inline]] inline void row_dots(matrix_view<const float> a, matrix_view<const float> b, F f) {
  for (std::size_t first = 0; first < a.rows; first += lanes) {
    const auto n = a.rows - first < lanes ? a.rows - first : lanes;
    const float *p[lanes], *q[lanes];
#pragma GCC unroll 16
    for (std::size_t i = 0; i < lanes; ++i) {
      const auto row = first + std::min(i, n - 1);  // the last one again where there are no more
      p[i] = a.row(row), q[i] = b.row(row);
    }
    floats sums[lanes]{};  // in registers
    for (std::size_t c = 0; c < a.cols; c += lanes) {
#pragma GCC unroll 16
      for (std::size_t i = 0; i < lanes; ++i) sums[i] += load(p[i] + c) * load(q[i] + c);
    }
    f(first, n, sum_each(sums));
  }
}

/// to[i] += v[i] for i < n <= lanes.
inline void add_some(float* to, std::size_t n, floats v) {
  for (std::size_t i = 0; i < n; ++i) to[i] += v[i];
}

/// y (batch, out) = x (batch, in) W^T + bias. `weights` is W (out, in), `transposed` W^T (in, out); all rows padded.
inline void product(matrix_view<const float> x, matrix_view<const float> weights, matrix_view<const float> transposed,
                    const float* bias, matrix_view<float> y) {
  if (y.cols == 1)  // one output would fill one lane of a vector: dot products instead
    return row_dots(x, {weights.data, x.rows, x.cols, 0}, [&](std::size_t first, std::size_t n, floats sums) {
      for (std::size_t i = 0; i < n; ++i) y(first + i, 0) = sums[i] + bias[0];
    });
  detail::multiply({x.data, x.stride, 1, transposed.data, transposed.stride, y.data, y.stride, bias, 0, x.cols}, x.rows,
                   y.cols);
}

/// dx (batch, in) = dy (batch, out) W (out, in).
inline void product_back(matrix_view<const float> dy, matrix_view<const float> weights, matrix_view<float> dx) {
  detail::multiply({dy.data, dy.stride, 1, weights.data, weights.stride, dx.data, dx.stride, nullptr, 0, dy.cols},
                   dy.rows, dx.cols);
}

/// g (out, in) += dy^T x, the sum over the examples in their order.
inline void outer_sum(matrix_view<const float> dy, matrix_view<const float> x, matrix_view<float> g) {
  detail::multiply({dy.data, 1, dy.stride, x.data, x.stride, g.data, g.stride, g.data, g.stride, dy.rows}, dy.cols,
                   x.cols);
}

}  // namespace dpsgd::cpu
