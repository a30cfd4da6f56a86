/// Kernels that move the rows of matrices: gather, scale, clear, copy. All are bound by memory.
///
/// f<N> is for N floats at a time: f<1> is the plain line that f<4> is tested against.
#pragma once

#include <cstddef>
#include <cstdint>

#include "dpsgd/core/view.hpp"
#include "dpsgd/cuda/each.hpp"
#include "dpsgd/cuda/kernel.hpp"

namespace dpsgd::cuda {

/// out(r, c) = from(rows[r], c). Moves 8 bytes an element, and 4 a row.
template <int N>
struct gathered_rows {
  matrix_view<const float, device_memory> from;
  const std::uint32_t* rows;
  matrix_view<float, device_memory> out;
  constexpr void operator()(std::size_t r, std::size_t c) const {
    store<N>(out.row(r) + c, load<N>(from.row(rows[r]) + c));
  }
};

/// m(r, c) *= factor[r]; 0 where the factor is 0, so that not even a NaN survives. Moves 8 bytes an element; 1 FLOP each.
template <int N>
struct scaled_rows {
  const float* factor;
  matrix_view<float, device_memory> m;
  constexpr void operator()(std::size_t r, std::size_t c) const {
    const float f = factor[r];
    auto v = load<N>(m.row(r) + c);
    for (int i = 0; i < N; ++i) v.at[i] = f == 0.0f ? 0.0f : v.at[i] * f;
    store<N>(m.row(r) + c, v);
  }
};

/// m's row r = 0 where factor[r] is 0. Reads 4 bytes a row, where there is nothing to do: as good as always. So 32
/// threads look at a row's factor, and not one for every element.
struct cleared_rows {
  static constexpr int threads = 256, across = 32, rows_at_once = threads / across;
  const float* factor;
  matrix_view<float, device_memory> m;

  std::size_t teams() const { return (m.rows + rows_at_once - 1) / rows_at_once; }
  constexpr void operator()(auto& team) const {
    team.each([&](int thread, no_registers&) {
      const std::size_t r = team.rank() * rows_at_once + static_cast<std::size_t>(thread / across);
      if (r >= m.rows || factor[r] != 0.0f) return;
      for (auto c = static_cast<std::size_t>(thread % across); c < m.cols; c += across) m(r, c) = 0.0f;
    });
  }
};

}  // namespace dpsgd::cuda
