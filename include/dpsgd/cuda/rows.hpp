/// Kernels on the rows of matrices: norms, sums, scaling, gathering. One team of 32 threads a row where a row is added up;
/// the others are elementwise.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>

#include "dpsgd/core/view.hpp"
#include "dpsgd/cuda/kernel.hpp"

namespace dpsgd::cuda {

/// How many threads add up a row.
inline constexpr int row_threads = 32;

/// y(r, c) = row[c].
struct copy_row {
  const float* row;
  matrix_view<float, device_memory> y;
  constexpr void operator()(std::size_t i) const { y.data[i] = row[i % y.cols]; }
};
/// to[i] = from[i].
struct copied {
  const float* from;
  float* to;
  constexpr void operator()(std::size_t i) const { to[i] = from[i]; }
};
/// m(r, c) *= factor[r], or 0 where the factor is 0: not even a NaN survives.
struct scaled_row {
  const float* factor;
  matrix_view<float, device_memory> m;
  constexpr void operator()(std::size_t i) const {
    const float f = factor[i / m.cols];
    m.data[i] = f == 0.0f ? 0.0f : m.data[i] * f;
  }
};
/// m(r, c) = 0 where the row's factor is 0.
struct cleared_row {
  const float* factor;
  matrix_view<float, device_memory> m;
  constexpr void operator()(std::size_t i) const {
    if (factor[i / m.cols] == 0.0f) m.data[i] = 0.0f;
  }
};
/// out(r, c) = from(rows[r], c).
struct gathered_row {
  matrix_view<const float, device_memory> from;
  const std::uint32_t* rows;
  matrix_view<float, device_memory> out;
  constexpr void operator()(std::size_t i) const {
    const std::size_t r = i / out.cols, c = i % out.cols;
    out.data[i] = from(rows[r], c);
  }
};
/// f(r, c) of element i.
template <class F>
struct by_row {
  std::size_t cols;
  F f;
  constexpr void operator()(std::size_t i) const { f(i / cols, i % cols); }
};

/// The sum of shared[0 .. threads), by pairs, left in shared[0]. A power of two of threads.
constexpr void add_up(auto& team, float* shared, int threads) {
  for (int half = threads / 2; half > 0; half /= 2)
    team.each([&](int thread, auto&) {
      if (thread < half) shared[thread] += shared[thread + half];
    });
}

/// norm2[r] += |m's row r|^2; a team a row. Reads 4 bytes an element, 2 FLOPs each.
struct row_norms {
  static constexpr int threads = row_threads;
  matrix_view<const float, device_memory> m;
  vector_view<float, device_memory> norm2;

  static std::size_t teams(matrix_view<const float, device_memory> m) { return m.rows; }
  constexpr std::size_t shared_floats() const { return threads; }
  constexpr void operator()(auto& team) const {
    float* part = team.shared();
    const std::size_t r = team.rank();
    team.each([&](int thread, no_registers&) {
      float sum = 0;
      for (std::size_t c = static_cast<std::size_t>(thread); c < m.cols; c += threads) sum += m(r, c) * m(r, c);
      part[thread] = sum;
    });
    add_up(team, part, threads);
    team.each([&](int thread, no_registers&) {
      if (thread == 0) norm2.data[r] += part[0];
    });
  }
};

/// norm2[r] += |dy_r|^2 (|x_r|^2 + 1); a team a row. Reads 4 bytes an element of both, 2 FLOPs each.
struct outer_norms {
  static constexpr int threads = row_threads;
  matrix_view<const float, device_memory> x, dy;
  vector_view<float, device_memory> norm2;

  static std::size_t teams(matrix_view<const float, device_memory> x) { return x.rows; }
  constexpr std::size_t shared_floats() const { return 2 * threads; }
  constexpr void operator()(auto& team) const {
    float *of_x = team.shared(), *of_dy = of_x + threads;
    const std::size_t r = team.rank();
    team.each([&](int thread, no_registers&) {
      float sum = 0;
      for (std::size_t c = static_cast<std::size_t>(thread); c < x.cols; c += threads) sum += x(r, c) * x(r, c);
      of_x[thread] = sum;
      sum = 0;
      for (std::size_t c = static_cast<std::size_t>(thread); c < dy.cols; c += threads) sum += dy(r, c) * dy(r, c);
      of_dy[thread] = sum;
    });
    add_up(team, of_x, threads);
    add_up(team, of_dy, threads);
    team.each([&](int thread, no_registers&) {
      const float underflow = static_cast<float>(dy.cols) * std::numeric_limits<float>::min();
      if (thread == 0) norm2.data[r] += (of_dy[0] + underflow) * (of_x[0] + 1.0f);
    });
  }
};

/// sum[c] += the sum of m's column c; a team for 32 columns, whose threads take every eighth row each.
struct column_sums {
  static constexpr int columns = 32, groups = 8, threads = columns * groups;
  matrix_view<const float, device_memory> m;
  float* sum;

  static std::size_t teams(matrix_view<const float, device_memory> m) { return (m.cols + columns - 1) / columns; }
  constexpr std::size_t shared_floats() const { return threads; }
  constexpr void operator()(auto& team) const {
    float* part = team.shared();
    team.each([&](int thread, no_registers&) {
      const std::size_t c = team.rank() * columns + static_cast<std::size_t>(thread % columns);
      float s = 0;
      if (c < m.cols)
        for (std::size_t r = static_cast<std::size_t>(thread / columns); r < m.rows; r += groups) s += m(r, c);
      part[thread] = s;
    });
    add_columns(team, part);
  }

 private:
  constexpr void add_columns(auto& team, float* part) const {
    team.each([&](int thread, no_registers&) {
      const std::size_t c = team.rank() * columns + static_cast<std::size_t>(thread);
      if (thread >= columns || c >= m.cols) return;
      float s = 0;
      for (int g = 0; g < groups; ++g) s += part[g * columns + thread];
      sum[c] += s;
    });
  }
};

/// *total += the sum of v; one team.
struct vector_sum {
  static constexpr int threads = 256;
  vector_view<const float, device_memory> v;
  double* total;
  struct registers {
    double sum;
  };
  constexpr std::size_t shared_floats() const { return 2 * threads; }
  constexpr void operator()(auto& team) const {
    auto* part = reinterpret_cast<double*>(team.shared());
    team.each([&](int thread, registers& own) {
      for (std::size_t i = static_cast<std::size_t>(thread); i < v.size; i += threads) own.sum += double{v.data[i]};
      part[thread] = own.sum;
    });
    for (int half = threads / 2; half > 0; half /= 2)
      team.each([&](int thread, registers&) {
        if (thread < half) part[thread] += part[thread + half];
      });
    team.each([&](int thread, registers&) {
      if (thread == 0) *total += part[0];
    });
  }
};

}  // namespace dpsgd::cuda
