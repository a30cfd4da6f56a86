/// Losses of the last layer's outputs. Their gradient is that of one example's loss, never divided by the batch size:
/// clipping comes first (docs/privacy.md).
///
/// A loss has outputs(classes), gradient(b, y, label, dy): dy (batch, out) = dL/dy row by row, label a (batch, 1)
/// matrix; and on the host value(y, label) of one row and predict(y) of one row.
#pragma once

#include <cmath>
#include <cstddef>
#include <span>
#include <string_view>
#include <variant>

#include "dpsgd/core/numeric.hpp"
#include "dpsgd/core/view.hpp"

namespace dpsgd {

/// Two classes from one output z, the log-odds: L = ln(1 + e^z) - label z, dL/dz = sigmoid(z) - label.
struct sigmoid_cross_entropy {
  static constexpr std::string_view name = "sigmoid cross-entropy";
  static constexpr std::size_t outputs(int) { return 1; }

  template <class Y, class Label, class Dy>
  struct derivative {
    Y y;
    Label label;
    Dy dy;
    constexpr void operator()(std::size_t r) const { dy(r, 0) = sigmoid(y(r, 0)) - label(r, 0); }
  };
  void gradient(auto& b, auto y, auto label, auto dy) const {
    b.each(y.rows, derivative<decltype(y), decltype(label), decltype(dy)>{y, label, dy});
  }
  double value(std::span<const float> y, float label) const {
    const double z = y[0];
    return std::log1p(std::exp(-std::abs(z))) + (z > 0 ? z : 0.0) - label * z;
  }
  /// 1 when the log-odds are positive, else 0.
  float predict(std::span<const float> y) const { return y[0] > 0 ? 1.0f : 0.0f; }
};

/// Several classes from as many outputs: L = ln sum_k e^(y_k) - y_label, dL/dy = softmax(y) - onehot(label).
struct softmax_cross_entropy {
  static constexpr std::string_view name = "softmax cross-entropy";
  static constexpr std::size_t outputs(int classes) { return static_cast<std::size_t>(classes); }

  template <class Y, class Label, class Dy>
  struct derivative {
    Y y;
    Label label;
    Dy dy;
    constexpr void operator()(std::size_t r) const {
      float most = y(r, 0), sum = 0;
      for (std::size_t k = 1; k < y.cols; ++k) most = y(r, k) > most ? y(r, k) : most;
      for (std::size_t k = 0; k < y.cols; ++k) sum += dy(r, k) = exp_fast(y(r, k) - most);
      for (std::size_t k = 0; k < y.cols; ++k)
        dy(r, k) = dy(r, k) / sum - (static_cast<float>(k) == label(r, 0) ? 1.0f : 0.0f);
    }
  };
  void gradient(auto& b, auto y, auto label, auto dy) const {
    b.each(y.rows, derivative<decltype(y), decltype(label), decltype(dy)>{y, label, dy});
  }
  double value(std::span<const float> y, float label) const {
    double most = y[0], sum = 0;
    for (const double z : y) most = z > most ? z : most;
    for (const double z : y) sum += std::exp(z - most);
    return std::log(sum) + most - y[static_cast<std::size_t>(label)];
  }
  /// The class with the largest output.
  float predict(std::span<const float> y) const {
    std::size_t best = 0;
    for (std::size_t k = 1; k < y.size(); ++k) best = y[k] > y[best] ? k : best;
    return static_cast<float>(best);
  }
};

/// Regression: L = (y - label)^2 / 2, dL/dy = y - label.
struct squared_error {
  static constexpr std::string_view name = "squared error";
  static constexpr std::size_t outputs(int) { return 1; }

  template <class Y, class Label, class Dy>
  struct derivative {
    Y y;
    Label label;
    Dy dy;
    constexpr void operator()(std::size_t r) const { dy(r, 0) = y(r, 0) - label(r, 0); }
  };
  void gradient(auto& b, auto y, auto label, auto dy) const {
    b.each(y.rows, derivative<decltype(y), decltype(label), decltype(dy)>{y, label, dy});
  }
  double value(std::span<const float> y, float label) const {
    return 0.5 * (double{y[0]} - label) * (double{y[0]} - label);
  }
  /// The estimate itself.
  float predict(std::span<const float> y) const { return y[0]; }
};

/// Any of the three, chosen when the program runs.
struct any_loss {
  std::variant<sigmoid_cross_entropy, softmax_cross_entropy, squared_error> chosen;

  std::size_t outputs(int classes) const {
    return std::visit([&](const auto& l) { return l.outputs(classes); }, chosen);
  }
  void gradient(auto& b, auto y, auto label, auto dy) const {
    std::visit([&](const auto& l) { l.gradient(b, y, label, dy); }, chosen);
  }
  double value(std::span<const float> y, float label) const {
    return std::visit([&](const auto& l) { return l.value(y, label); }, chosen);
  }
  float predict(std::span<const float> y) const {
    return std::visit([&](const auto& l) { return l.predict(y); }, chosen);
  }
  std::string_view name() const {
    return std::visit([](const auto& l) { return l.name; }, chosen);
  }
};

}  // namespace dpsgd
