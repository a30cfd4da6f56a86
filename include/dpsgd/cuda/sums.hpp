/// Kernels for sums: of the columns of a matrix, and of a vector. In one order always, so that a run repeats bit by bit.
#pragma once

#include <algorithm>
#include <cstddef>

#include "dpsgd/core/view.hpp"
#include "dpsgd/cuda/kernel.hpp"

namespace dpsgd::cuda {

/// to(s, c) = the sum of m's column c over the s-th share of its rows, or to(0, c) += that. A team takes 32 columns of a
/// share; each of its threads one column and every eighth row.
///
/// A tall matrix (65,536 x 1,024: 32 blocks of columns for 132 multiprocessors) goes in two stages: most_shares sums of
/// shares, and then their sum, which is this kernel again. One stage is the reference. Reads 4 bytes an element; 1 FLOP
/// each. (The second stage reads a thousandth of it again.)
struct column_sums {
  static constexpr int columns = 32, groups = 8, threads = columns * groups;
  static constexpr std::size_t most_shares = 64, least_rows = 16 * groups;  // a share is worth a team
  matrix_view<const float, device_memory> m;
  float* to;  // (shares, m.cols)
  std::size_t shares = 1;
  bool add = true;

  /// Into how many shares the rows of a matrix are best cut.
  static std::size_t shares_of(std::size_t rows) { return std::clamp<std::size_t>(rows / least_rows, 1, most_shares); }
  constexpr std::size_t blocks() const { return (m.cols + columns - 1) / columns; }
  std::size_t teams() const { return blocks() * shares; }
  constexpr std::size_t shared_floats() const { return threads; }
  constexpr void operator()(auto& team) const {
    float* part = team.shared();
    const std::size_t share = team.rank() / blocks(), block = team.rank() % blocks();
    const std::size_t rows_each = (m.rows + shares - 1) / shares, first = share * rows_each;
    const std::size_t last = first + rows_each < m.rows ? first + rows_each : m.rows;
    team.each([&](int thread, no_registers&) {
      const std::size_t c = block * columns + static_cast<std::size_t>(thread % columns);
      float s = 0;
      if (c < m.cols)
        for (std::size_t r = first + static_cast<std::size_t>(thread / columns); r < last; r += groups) s += m(r, c);
      part[thread] = s;
    });
    team.each([&](int thread, no_registers&) {
      const std::size_t c = block * columns + static_cast<std::size_t>(thread);
      if (thread >= columns || c >= m.cols) return;
      float s = add ? to[share * m.cols + c] : 0.0f;
      for (int g = 0; g < groups; ++g) s += part[g * columns + thread];
      to[share * m.cols + c] = s;
    });
  }
};

/// *total += the sum of v, in doubles; one team. Reads 4 bytes an element; 1 FLOP each. (A vector is a tile's rows: at
/// most 64 terms a thread.)
struct vector_sum {
  static constexpr int threads = 1024;
  vector_view<const float, device_memory> v;
  double* total;

  constexpr std::size_t shared_floats() const { return 2 * threads; }
  constexpr void operator()(auto& team) const {
    auto* part = reinterpret_cast<double*>(team.shared());
    team.each([&](int thread, no_registers&) {
      double sum = 0;
      for (auto i = static_cast<std::size_t>(thread); i < v.size; i += threads) sum += double{v.data[i]};
      part[thread] = sum;
    });
    for (int half = threads / 2; half > 0; half /= 2)
      team.each([&](int thread, no_registers&) {
        if (thread < half) part[thread] += part[thread + half];
      });
    team.each([&](int thread, no_registers&) {
      if (thread == 0) *total += part[0];
    });
  }
};

}  // namespace dpsgd::cuda
