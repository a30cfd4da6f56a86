/// The fully connected layer: y = x W^T + bias.
#pragma once

#include <array>
#include <cmath>
#include <cstddef>

#include "dpsgd/nn/layer.hpp"

namespace dpsgd {

/// How the weights of a linear layer begin; biases begin at zero.
enum class initial {
  he,      ///< uniform, variance 2 / inputs, for relu (He et al. 2015)
  glorot,  ///< uniform, variance 2 / (inputs + outputs), for tanh and for the last layer (Glorot and Bengio 2010)
};

/// y (batch, out) = x (batch, in) W^T + bias, W (out, in) row-major as in torch.nn.Linear.
/// One example's gradient is the outer product of its delta and its input (and the delta, for the bias), so that its
/// squared norm is |delta|^2 (|x|^2 + 1), without forming it (Goodfellow 2015).
struct linear {
  static constexpr bool backward_needs_output = false;
  std::size_t out = 1;
  initial init = initial::he;

  constexpr std::size_t outputs(std::size_t) const { return out; }

  std::array<tensor_shape, 2> tensors(std::size_t in) const {
    const auto fan = static_cast<double>(init == initial::he ? in : in + out);
    return {tensor_shape{out, in, std::sqrt(6.0 / fan)}, tensor_shape{1, out, 0.0}};
  }
  void forward(auto& b, auto w, auto x, auto y) const { b.product(x, w[0], w[1], y); }
  template <class Backend, class W, class X, class Y, class Function>
  void forward_then(Backend& b, W w, X x, Y y, const Function& f) const requires requires {
    b.product(x, w[0], w[1], y, f);
  }
  { b.product(x, w[0], w[1], y, f); }
  void backward(auto& b, auto w, auto, auto, auto dy, auto dx) const { b.product_back(dy, w[0], dx); }
  void gradient(auto& b, auto x, auto dy, auto g) const {
    b.outer_sum(dy, x, g[0]);
    b.sum_rows(dy, g[1]);
  }
  void norms(auto& b, auto x, auto dy, auto norm2) const { b.add_outer_norms(x, dy, norm2); }
};
static_assert(layer_with_parameters<linear>);

}  // namespace dpsgd
