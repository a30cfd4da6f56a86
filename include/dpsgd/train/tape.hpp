/// The activations and deltas of a few records on their way through a network, forward and back.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <variant>
#include <vector>

#include "dpsgd/core/view.hpp"
#include "dpsgd/nn/layer.hpp"

namespace dpsgd {

/// Memory for `rows` records at a time of one model on one backend; made once, used for every tile.
///
///   x = value(0) -> layer 0 -> value(1) -> ... -> value(L) = y -> loss
///                   layer 0 <- delta(1) <- ... <- delta(L) = dL/dy
///
/// A layer that works in place shares its output's memory with its input's, and its deltas likewise, where the layer
/// before does not need that output again.
template <class Backend, class Model>
class tape {
 public:
  using memory = typename Backend::memory;
  using matrix = matrix_view<float, memory>;

  tape(Backend& b, const Model& model, std::size_t rows) : backend_(&b), model_(&model), rows_(rows) {
    const auto widths = model.widths();
    for (std::size_t i = 0; i < widths.size(); ++i) {
      if (i > 0 && works_in_place(i - 1)) {
        values_.push_back(values_.back());
        deltas_.push_back(deltas_.back());
      } else {
        values_.push_back(make(rows, widths[i]));
        deltas_.push_back(i == 0 ? matrix{} : make(rows, widths[i]));  // nobody asks for dL/dx
      }
    }
    labels_ = make(rows, 1);
  }

  std::size_t rows() const { return rows_; }
  matrix value(std::size_t i, std::size_t n) const { return values_[i].rows_of(0, n); }
  matrix delta(std::size_t i, std::size_t n) const { return deltas_[i].rows_of(0, n); }
  matrix labels(std::size_t n) const { return labels_.rows_of(0, n); }
  matrix outputs(std::size_t n) const { return value(model_->layers().size(), n); }

  /// The first n rows of value(0), forward to the outputs.
  template <class Weights>
  void forward(const Weights& weights, std::size_t n) {
    for (std::size_t i = 0; i < model_->layers().size(); ++i) {
      const bool joined = std::visit(
          [&](const auto& l) {
            if (forward_joined(l, weights, i, n)) return true;
            l.forward(*backend_, weights + model_->first_tensor(i), value(i, n), value(i + 1, n));
            return false;
          },
          model_->layers()[i]);
      if (joined) ++i;
    }
  }

  /// The deltas of all layers from the outputs and the labels of n rows. Calls f(layer, its first tensor, x, dy) for
  /// every layer with parameters, last to first, as soon as its deltas are there and still in cache.
  template <class Weights, class F>
  void backward(const Weights& weights, std::size_t n, F f) {
    const auto last = model_->layers().size();
    model_->loss().gradient(*backend_, outputs(n), labels(n), delta(last, n));
    for (std::size_t i = last; i-- > 0;)
      std::visit(
          [&](const auto& l) {
            if constexpr (layer_with_parameters<std::decay_t<decltype(l)>>)
              f(l, model_->first_tensor(i), value(i, n), delta(i + 1, n));
            if (i > 0)
              l.backward(*backend_, weights + model_->first_tensor(i), value(i, n), value(i + 1, n), delta(i + 1, n),
                         delta(i, n));
          },
          model_->layers()[i]);
  }

  /// f(layer, its first tensor, x, dy) for every layer with parameters, first to last; x and dy have n rows.
  template <class F>
  void each_parametric(std::size_t n, F f) {
    for (std::size_t i = 0; i < model_->layers().size(); ++i)
      std::visit(
          [&](const auto& l) {
            if constexpr (layer_with_parameters<std::decay_t<decltype(l)>>)
              f(l, model_->first_tensor(i), value(i, n), delta(i + 1, n));
          },
          model_->layers()[i]);
  }

 private:
  /// Whether the backend computes an L and a function of each of its outputs in one pass.
  template <class L, class Weights, class Function>
  static constexpr bool joins = requires(const L& l, Backend& b, const Weights& weights, matrix m, const Function& f) {
    l.forward_then(b, weights + 0, m, m, f);
  };
  struct some_function {
    constexpr float value(float x) const { return x; }
  };
  /// Layer i and the activation behind it in one pass, where both can: false where not.
  template <class L, class Weights>
  bool forward_joined(const L& l, const Weights& weights, std::size_t i, std::size_t n) {
    if constexpr (joins<L, Weights, some_function>) {
      if (i + 1 == model_->layers().size() || !works_in_place(i + 1)) return false;
      return std::visit(
          [&]<class Next>(const Next& next) {
            if constexpr (requires { requires joins<L, Weights, decltype(next.function)>; }) {
              l.forward_then(*backend_, weights + model_->first_tensor(i), value(i, n), value(i + 2, n), next.function);
              return true;
            } else {
              return false;
            }
          },
          model_->layers()[i + 1]);
    } else {
      return false;
    }
  }

  /// Layer i may overwrite its input: it can, nobody needs the input of the first layer for gradients, and the layer
  /// before does not need its output again.
  bool works_in_place(std::size_t i) const {
    const auto ask = [&](std::size_t layer, auto question) { return std::visit(question, model_->layers()[layer]); };
    return i > 0 && ask(i, []<class L>(const L&) { return in_place<L>; }) &&
           !ask(i - 1, []<class L>(const L&) { return needs_output<L>; });
  }
  matrix make(std::size_t rows, std::size_t cols) {
    const auto stride = Backend::stride(cols);
    memory_.push_back(backend_->template make<float>(rows * stride));
    return {memory_.back().data(), rows, cols, stride};
  }

  Backend* backend_;
  const Model* model_;
  std::size_t rows_;
  std::vector<decltype(std::declval<Backend&>().template make<float>(1))> memory_;
  std::vector<matrix> values_, deltas_;
  matrix labels_;
};

/// How many rows a tile has: as many as the backend wants at most, fewer where a model is so wide that what passes write
/// would not stay in the memory that the backend gives it. A multiple of 12, the block of the CPU's products.
template <class Backend, class Model>
std::size_t tile_rows(const Model& model) {
  std::size_t floats = 0;
  for (const auto w : model.widths()) floats += 2 * w;
  return std::clamp<std::size_t>(Backend::tile_bytes / (floats * sizeof(float)) / 12 * 12, 12, Backend::most_tile_rows);
}

}  // namespace dpsgd
