/// The multi-layer perceptron: linear layers with one activation between them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <variant>
#include <vector>

#include "dpsgd/nn/activations.hpp"
#include "dpsgd/nn/linear.hpp"
#include "dpsgd/nn/losses.hpp"
#include "dpsgd/nn/sequential.hpp"

namespace dpsgd {

/// mlp({16, 64, 64, 1}): 16 inputs, two hidden layers of 64, one output. Hidden layers begin by He's rule for relu and
/// leaky relu, by Glorot's for tanh; the last layer by Glorot's.
class mlp : public sequential<any_loss, linear, relu, leaky_relu, tanh> {
  using base = sequential<any_loss, linear, relu, leaky_relu, tanh>;

 public:
  using activation = std::variant<relu, leaky_relu, tanh>;
  struct options {
    mlp::activation activation = relu{};
    std::optional<any_loss>
        loss{};              // by default sigmoid cross-entropy for one output, softmax cross-entropy for several
    std::uint64_t seed = 1;  // public: of the initialisation
  };

  /// Throws when there are fewer than two widths or one is zero.
  explicit mlp(const std::vector<std::size_t>& widths) : mlp(widths, options{}) {}
  mlp(const std::vector<std::size_t>& widths, const options& o)
      : base(first(widths), loss_for(widths, o), chain(widths, o), o.seed) {}

 private:
  static std::size_t first(const std::vector<std::size_t>& widths) {
    require(widths.size() >= 2, "an mlp needs at least two widths, those of its inputs and outputs");
    return widths.front();
  }
  static any_loss loss_for(const std::vector<std::size_t>& widths, const options& o) {
    if (o.loss) return *o.loss;
    if (widths.back() == 1) return {sigmoid_cross_entropy{}};
    return {softmax_cross_entropy{}};
  }
  static std::vector<any_layer> chain(const std::vector<std::size_t>& widths, const options& o) {
    std::vector<any_layer> layers;
    const bool rectified = !std::holds_alternative<tanh>(o.activation);
    for (std::size_t i = 1; i < widths.size(); ++i) {
      const bool last = i + 1 == widths.size();
      layers.push_back(linear{widths[i], rectified && !last ? initial::he : initial::glorot});
      if (!last) std::visit([&](const auto& a) { layers.push_back(a); }, o.activation);
    }
    return layers;
  }
};

}  // namespace dpsgd
