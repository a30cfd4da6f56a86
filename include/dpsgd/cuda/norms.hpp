/// Kernels for the squared norms of rows. Up to 32 threads add up a row, each four terms at a time where the row allows.
///
/// How exact they are is part of the privacy claim: row_sum_error.
#pragma once

#include <cstddef>
#include <limits>

#include "dpsgd/core/view.hpp"
#include "dpsgd/cuda/each.hpp"
#include "dpsgd/cuda/kernel.hpp"

namespace dpsgd::cuda {

/// How many threads at most add up a row.
inline constexpr int row_threads = 32;

/// A row's sum of n squares comes out within this relative error. A thread's share is at most n / 32 + 4 terms, or 4
/// where fewer threads do; rounded once each when they are squared and once when they are added; then 5 sums by pairs.
constexpr double row_sum_error(std::size_t n) { return (static_cast<double>(n) / row_threads + 10) * 0x1p-24; }

namespace detail {
/// This thread's share of |row|^2: N columns of every N x across, from N x `lane` on.
template <int N>
constexpr float share_of_square(const float* row, std::size_t cols, int lane, int across) {
  float sum = 0;
  const auto step = static_cast<std::size_t>(across) * N;
  for (auto c = static_cast<std::size_t>(lane) * N; c < cols; c += step) {
    const auto v = load<N>(row + c);
    for (int i = 0; i < N; ++i) sum += v.at[i] * v.at[i];
  }
  return sum;
}

/// Sums by pairs of each `across` neighbours in shared; the sum is left with the first of them.
constexpr void add_neighbours(auto& team, float* shared, int across) {
  for (int half = across / 2; half > 0; half /= 2)
    team.each([&](int thread, auto&) {
      if (thread % across < half) shared[thread] += shared[thread + half];
    });
}
}  // namespace detail

/// norm2[r] += |m's row r|^2. Reads 4 bytes an element; 2 FLOPs each.
template <int N>
struct row_norms {
  static constexpr int threads = 256;
  matrix_view<const float, device_memory> m;
  vector_view<float, device_memory> norm2;
  int across = power_of_two((m.cols + 3) / 4, row_threads);

  std::size_t teams() const { return (m.rows * static_cast<std::size_t>(across) + threads - 1) / threads; }
  constexpr std::size_t shared_floats() const { return threads; }
  constexpr void operator()(auto& team) const {
    float* part = team.shared();
    const std::size_t first = team.rank() * static_cast<std::size_t>(threads / across);
    team.each([&](int thread, no_registers&) {
      const std::size_t r = first + static_cast<std::size_t>(thread / across);
      part[thread] = r < m.rows ? detail::share_of_square<N>(m.row(r), m.cols, thread % across, across) : 0.0f;
    });
    detail::add_neighbours(team, part, across);
    team.each([&](int thread, no_registers&) {
      const std::size_t r = first + static_cast<std::size_t>(thread / across);
      if (r < m.rows && thread % across == 0) norm2.data[r] += part[thread];
    });
  }
};

/// norm2[r] += |dy_r|^2 (|x_r|^2 + 1): of the gradient dy_r x_r^T of a weight matrix and dy_r of its bias. Never too
/// small: a square that underflowed beside a large x counts as the smallest normal number. Reads 4 bytes an element of
/// both; 2 FLOPs each.
template <int N>
struct outer_norms {
  static constexpr int threads = 256;
  matrix_view<const float, device_memory> x, dy;
  vector_view<float, device_memory> norm2;
  int across = power_of_two(((x.cols > dy.cols ? x.cols : dy.cols) + 3) / 4, row_threads);

  std::size_t teams() const { return (x.rows * static_cast<std::size_t>(across) + threads - 1) / threads; }
  constexpr std::size_t shared_floats() const { return 2 * threads; }
  constexpr void operator()(auto& team) const {
    float *of_x = team.shared(), *of_dy = of_x + threads;
    const std::size_t first = team.rank() * static_cast<std::size_t>(threads / across);
    team.each([&](int thread, no_registers&) {
      const std::size_t r = first + static_cast<std::size_t>(thread / across);
      const bool here = r < x.rows;
      of_x[thread] = here ? detail::share_of_square<N>(x.row(r), x.cols, thread % across, across) : 0.0f;
      of_dy[thread] = here ? detail::share_of_square<N>(dy.row(r), dy.cols, thread % across, across) : 0.0f;
    });
    detail::add_neighbours(team, of_x, across);
    detail::add_neighbours(team, of_dy, across);
    team.each([&](int thread, no_registers&) {
      const std::size_t r = first + static_cast<std::size_t>(thread / across);
      const float underflow = static_cast<float>(dy.cols) * std::numeric_limits<float>::min();
      if (r < x.rows && thread % across == 0) norm2.data[r] += (of_dy[thread] + underflow) * (of_x[thread] + 1.0f);
    });
  }
};

}  // namespace dpsgd::cuda
