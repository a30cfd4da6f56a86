/// What a layer is: a plain value that knows its sizes and writes its mathematics in a backend's operations.
///
///   struct my_layer {
///     std::size_t outputs(std::size_t inputs) const;                  // columns of y for so many columns of x
///     void forward(auto& b, auto w, auto x, auto y) const;            // y (batch, out) from x (batch, in)
///     void backward(auto& b, auto w, auto x, auto y, auto dy, auto dx) const;   // dx = dL/dx, one row an example
///     void forward_then(auto& b, auto w, auto x, auto y, const auto& f) const;  // y = f.value() of each element, in one
///                                                                               // pass: optional, for b that can
///     static constexpr bool in_place = true;                // if y may lie where x lay and dx where dy lay: backward
///                                                           // does without x
///     static constexpr bool backward_needs_output = false;  // if backward does without y, so that the next layer may
///                                                           // work in place
///     // with parameters also
///     std::array<tensor_shape, K> tensors(std::size_t inputs) const;  // w[k] and g[k] have these shapes
///     void gradient(auto& b, auto x, auto dy, auto g) const;          // g[k] += sum over the rows of dL/dw[k]
///     // if it knows the norms without the gradients (ghost norms), which is much faster
///     void norms(auto& b, auto x, auto dy, auto norm2) const;         // norm2[row] += |dL/dw of that row|^2
///   };
///
/// Without norms() the trainer materialises the layer's gradient row by row. testing/laws.hpp's check_layer tests all
/// of it.
#pragma once

#include <array>
#include <concepts>
#include <cstddef>

namespace dpsgd {

/// The shape of one parameter tensor and how it begins: uniform in [-bound, bound]. A bias is 1 x n.
struct tensor_shape {
  std::size_t rows = 0, cols = 0;
  double bound = 0;

  constexpr std::size_t size() const { return rows * cols; }
  friend constexpr bool operator==(const tensor_shape& a, const tensor_shape& b) {
    return a.rows == b.rows && a.cols == b.cols;
  }
};

template <class L>
concept layer = std::copyable<L> && requires(const L l, std::size_t inputs) {
  { l.outputs(inputs) } -> std::convertible_to<std::size_t>;
};

/// A layer with parameters.
template <class L>
concept layer_with_parameters = layer<L> && requires(const L l, std::size_t inputs) {
  l.tensors(inputs).size();
};

/// Whether L's output may lie where its input lay. Never for a layer with parameters, whose gradient needs both.
template <class L>
inline constexpr bool in_place = requires {
  requires L::in_place;
}
&&!layer_with_parameters<L>;

/// Whether L's backward reads its output, which must then stay as it is. Layers that say nothing are taken to.
template <class L>
inline constexpr bool needs_output = !requires {
  requires !L::backward_needs_output;
};

}  // namespace dpsgd
