/// A network: layers one after the other, a loss behind them, and one vector with all parameters.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <variant>
#include <vector>

#include "dpsgd/core/error.hpp"
#include "dpsgd/core/random.hpp"
#include "dpsgd/nn/layer.hpp"

namespace dpsgd {

/// Any number of layers of the given kinds, in any order:
///   sequential<softmax_cross_entropy, linear, relu, my_layer> net(16, {}, {linear{64}, relu{}, my_layer{},
///   linear{10}});
/// The parameters lie in torch.nn.Sequential's order: layer by layer, each tensor row-major, without padding. A model
/// is a host value: copy it, save it, compare it; a backend works on it only while fit runs.
template <class Loss, layer... Layers>
class sequential {
 public:
  using any_layer = std::variant<Layers...>;
  using loss_type = Loss;

  /// Layers for `inputs` columns, initialised from the public `seed`. Throws when a layer has no outputs.
  sequential(std::size_t inputs, Loss loss, std::vector<any_layer> layers, std::uint64_t seed = 1)
      : loss_(std::move(loss)), layers_(std::move(layers)), widths_{inputs} {
    require(inputs > 0, "a network needs at least one input");
    require(!layers_.empty(), "a network needs at least one layer");
    for (const auto& any : layers_) {
      first_tensor_.push_back(shapes_.size());
      std::visit(
          [&](const auto& l) {
            if constexpr (layer_with_parameters<std::decay_t<decltype(l)>>)
              for (const auto& shape : l.tensors(widths_.back())) shapes_.push_back(shape);
            widths_.push_back(l.outputs(widths_.back()));
          },
          any);
      require(widths_.back() > 0, "layer ", widths_.size() - 2, " has no outputs");
    }
    std::size_t size = 0;
    for (const auto& shape : shapes_) size += shape.size();
    parameters_.resize(size);
    initialise(seed);
  }

  const std::vector<any_layer>& layers() const { return layers_; }
  const Loss& loss() const { return loss_; }
  std::size_t inputs() const { return widths_.front(); }
  std::size_t outputs() const { return widths_.back(); }
  /// Columns before layer i (i = 0 .. layers), so widths()[layers] are the outputs.
  std::span<const std::size_t> widths() const { return widths_; }
  /// The tensors of all layers, in the order of the parameters.
  std::span<const tensor_shape> shapes() const { return shapes_; }
  /// The number of the first tensor of layer i.
  std::size_t first_tensor(std::size_t i) const { return first_tensor_[i]; }

  std::span<float> parameters() { return parameters_; }
  std::span<const float> parameters() const { return parameters_; }

  /// Draws all parameters anew: each uniform in its tensor's bounds, from a stream used for nothing else.
  void initialise(std::uint64_t seed) {
    random_words words({random_key::from_seed(seed), domain::initialisation, 0, 0});
    auto* p = parameters_.data();
    for (const auto& shape : shapes_)
      for (std::size_t i = 0; i < shape.size(); ++i)
        *p++ = shape.bound == 0 ? 0.0f : static_cast<float>(shape.bound * (2 * words.uniform() - 1));
  }

 private:
  Loss loss_;
  std::vector<any_layer> layers_;
  std::vector<std::size_t> widths_, first_tensor_;
  std::vector<tensor_shape> shapes_;
  std::vector<float> parameters_;
};

}  // namespace dpsgd
