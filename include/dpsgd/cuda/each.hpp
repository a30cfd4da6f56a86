/// Elementwise work on matrices: one kernel for all of it, without a division for every element, and four floats at a
/// time where they lie side by side.
#pragma once

#include <cstddef>
#include <cstdint>

#include "dpsgd/core/view.hpp"
#include "dpsgd/cuda/kernel.hpp"

namespace dpsgd::cuda {

/// N floats side by side.
template <int N>
struct [[gnu::may_alias]] alignas(N * sizeof(float)) pack {
  float at[N];
};
/// Reads or writes N floats at once; p is aligned to all of them.
template <int N>
constexpr pack<N> load(const float* p) {
  if constexpr (N == 1) return {{*p}};
  else return *reinterpret_cast<const pack<N>*>(p);
}
template <int N>
constexpr void store(float* p, const pack<N>& values) {
  if constexpr (N == 1) *p = values.at[0];
  else *reinterpret_cast<pack<N>*>(p) = values;
}
/// Whether all rows of m can be read four floats at a time.
template <class T>
bool in_fours(matrix_view<T, device_memory> m) {
  return m.cols % 4 == 0 && m.stride % 4 == 0 && reinterpret_cast<std::uintptr_t>(m.data) % (4 * sizeof(float)) == 0;
}

/// The smallest power of two that is at least n, and at most `most`, which is one.
constexpr int power_of_two(std::size_t n, int most) {
  int p = 1;
  while (p < most && static_cast<std::size_t>(p) < n) p *= 2;
  return p;
}

/// f(r, c) for all rows r and every Step-th column c, in any order. `across` threads of a team stand side by side, each
/// over its columns, and go down the rows together.
template <int Step, class F>
struct each_of_rows {
  static constexpr int threads = 256;
  std::size_t rows, cols;
  F f;
  int across = power_of_two((cols + Step - 1) / Step, threads);

  std::size_t rows_at_once() const { return static_cast<std::size_t>(threads / across); }
  std::size_t teams() const { return (rows + rows_at_once() - 1) / rows_at_once(); }
  constexpr void operator()(auto& team) const {
    team.each([&](int thread, no_registers&) {
      const auto down = static_cast<std::size_t>(threads / across), side = static_cast<std::size_t>(across);
      const auto first = static_cast<std::size_t>(thread % across) * Step;
      for (std::size_t r = team.rank() * down + static_cast<std::size_t>(thread / across); r < rows;
           r += team.size() * down)
        for (std::size_t c = first; c < cols; c += side * Step) f(r, c);
    });
  }
};

}  // namespace dpsgd::cuda
