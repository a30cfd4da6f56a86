/// What one core can do at most, measured where the benchmark runs.
#pragma once

#include <algorithm>
#include <chrono>

#include "dpsgd/cpu/lanes.hpp"

namespace dpsgd {

/// The peak of fused multiply-adds of one core, in GFLOP/s: twelve independent chains of the widest vectors.
inline double measure_peak() {
#if defined(__AVX512F__)
  typedef float wide __attribute__((vector_size(64)));
#else
  typedef float wide __attribute__((vector_size(4 * cpu::lanes)));
#endif
  wide sum[12] = {}, x = wide{} + 1.0001f, y = wide{} + 0.5f;
  using clock = std::chrono::steady_clock;
  double best = 1e9;
  for (int repeat = 0; repeat < 20; ++repeat) {
    const auto start = clock::now();
    for (int i = 0; i < 20'000; ++i) {
#pragma GCC unroll 12
      for (int k = 0; k < 12; ++k) sum[k] = sum[k] * x + y;
    }
    for (int k = 0; k < 12; ++k) asm volatile("" : : "m"(sum[k]));  // the results are needed
    best = std::min(best, std::chrono::duration<double>(clock::now() - start).count());
  }
  return 20'000.0 * 12 * 2 * (sizeof(wide) / 4) / best / 1e9;
}

}  // namespace dpsgd
