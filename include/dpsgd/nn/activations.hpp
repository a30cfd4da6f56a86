/// Activations: elementwise, without parameters, in place.
#pragma once

#include <cstddef>

#include "dpsgd/core/numeric.hpp"
#include "dpsgd/core/view.hpp"
#include "dpsgd/nn/layer.hpp"

namespace dpsgd {

/// An activation from its two functions: value(x), and slope(y), the derivative in terms of the output.
/// Function is a plain struct with both, constexpr, so that every backend can run it.
template <class Function>
struct activation {
  static constexpr bool in_place = true;
  Function function{};

  constexpr std::size_t outputs(std::size_t inputs) const { return inputs; }

  template <class X, class Y>
  struct apply {
    Function f;
    X x;
    Y y;
    constexpr void operator()(std::size_t r, std::size_t c) const { y(r, c) = f.value(x(r, c)); }
  };
  template <class Y, class Dy, class Dx>
  struct apply_slope {
    Function f;
    Y y;
    Dy dy;
    Dx dx;
    constexpr void operator()(std::size_t r, std::size_t c) const { dx(r, c) = f.slope(y(r, c)) * dy(r, c); }
  };

  void forward(auto& b, auto, auto x, auto y) const {
    b.each(x.rows, x.cols, apply<decltype(x), decltype(y)>{function, x, y});
  }
  void backward(auto& b, auto, auto, auto y, auto dy, auto dx) const {
    b.each(y.rows, y.cols, apply_slope<decltype(y), decltype(dy), decltype(dx)>{function, y, dy, dx});
  }
};

namespace functions {
struct relu {
  constexpr float value(float x) const { return x < 0.0f ? 0.0f : x; }  // a NaN stays a NaN
  constexpr float slope(float y) const { return y > 0.0f ? 1.0f : 0.0f; }
};
struct leaky_relu {
  float below = 0.01f;  // the slope for x < 0, positive
  constexpr float value(float x) const { return x < 0.0f ? below * x : x; }
  constexpr float slope(float y) const { return y > 0.0f ? 1.0f : below; }
};
struct tanh {
  constexpr float value(float x) const { return tanh_fast(x); }
  constexpr float slope(float y) const { return 1.0f - y * y; }
};
}  // namespace functions

/// max(x, 0)
using relu = activation<functions::relu>;
/// x for x > 0, below * x for x < 0 (Maas et al. 2013)
using leaky_relu = activation<functions::leaky_relu>;
/// the hyperbolic tangent
using tanh = activation<functions::tanh>;

static_assert(layer<relu> && layer<leaky_relu> && layer<tanh>);

}  // namespace dpsgd
