/// What several test programs need: matrices in the CPU backend's layout, filled with reproducible values; what
/// operator<< prints of a value.
#pragma once

#include <cstddef>
#include <cstdint>
#include <sstream>
#include <string>

#include "dpsgd/core/buffer.hpp"
#include "dpsgd/core/random.hpp"
#include "dpsgd/cpu/products.hpp"

namespace test {

/// Under ThreadSanitizer, tests that repeat themselves some thousand times do so less often: it looks for races, which
/// the first repetitions have too.
#ifdef __SANITIZE_THREAD__
inline constexpr bool under_tsan = true;
#else
inline constexpr bool under_tsan = false;
#endif

/// A matrix with padded rows; uniform values in [-1, 1] from `seed`, or zero for seed 0.
struct matrix {
  matrix(std::size_t rows, std::size_t cols, std::uint64_t seed = 0)
      : memory(rows * dpsgd::cpu::padded(cols)), view{memory.data(), rows, cols, dpsgd::cpu::padded(cols)} {
    dpsgd::random_words words({dpsgd::random_key::from_seed(seed), dpsgd::domain::user, 0, 0});
    for (std::size_t r = 0; seed && r < rows; ++r)
      for (std::size_t c = 0; c < cols; ++c) view(r, c) = static_cast<float>(2 * words.uniform() - 1);
  }
  dpsgd::buffer<float> memory;
  dpsgd::matrix_view<float> view;
};

/// What a stream gets of `value`.
template <class T>
std::string printed(const T& value) {
  std::ostringstream out;
  out << value;
  return out.str();
}

}  // namespace test
