/// The end of a linear layer: its bias, and the activation behind it, in one pass over the product.
#pragma once

#include <cstddef>

#include "dpsgd/core/view.hpp"
#include "dpsgd/cuda/each.hpp"

namespace dpsgd::cuda {

/// The activation that is none.
struct identity {
  constexpr float value(float x) const { return x; }
};

/// y(r, c) = f(y(r, c) + bias[c]). Moves 8 bytes an element (the bias stays in cache); 1 FLOP each, and f's.
/// biased<1, identity> and then f by itself is what it is tested against.
template <int N, class Function>
struct biased {
  const float* bias;
  matrix_view<float, device_memory> y;
  Function f;
  constexpr void operator()(std::size_t r, std::size_t c) const {
    auto v = load<N>(y.row(r) + c);
    for (int i = 0; i < N; ++i) v.at[i] = f.value(v.at[i] + bias[c + static_cast<std::size_t>(i)]);
    store<N>(y.row(r) + c, v);
  }
};

}  // namespace dpsgd::cuda
