/// How good a model is on given records. Everything computed here is not private, and its type says so.
#pragma once

#include <cstddef>
#include <cstdint>
#include <numeric>
#include <span>
#include <vector>

#include "dpsgd/accounting/claim.hpp"
#include "dpsgd/concepts.hpp"
#include "dpsgd/core/buffer.hpp"
#include "dpsgd/core/error.hpp"
#include "dpsgd/core/view.hpp"
#include "dpsgd/train/mirrored.hpp"
#include "dpsgd/train/tape.hpp"

namespace dpsgd {

/// Calls f(i, outputs) for each row i of `features` (records, inputs), outputs being a span of the model's outputs
/// (logits, or the estimate). Tile by tile, on backend b.
template <class Backend, class Model, class F>
void each_output(Backend& b, const Model& model, matrix_view<const float> features, F f) {
  require(features.cols == model.inputs(), "the model has ", model.inputs(), " inputs, but the data ", features.cols,
          " features");
  typename Backend::weights weights(model.shapes());
  const auto& parameters = model.parameters();
  mirrored<Backend, const float> there(b, parameters.data(), parameters.size());
  there.to_backend(0, parameters.size());
  b.weights_changed(weights, there.data());
  tape<Backend, Model> tiles(b, model, tile_rows<Backend>(model));
  std::vector<float> outputs(tiles.rows() * model.outputs());
  for (std::size_t first = 0; first < features.rows; first += tiles.rows()) {
    const auto n = std::min(tiles.rows(), features.rows - first);
    b.upload(features.rows_of(first, n), tiles.value(0, n));
    tiles.forward(weights, n);
    b.download(tiles.outputs(n), outputs.data());
    for (std::size_t r = 0; r < n; ++r)
      f(first + r, std::span<const float>(outputs.data() + r * model.outputs(), model.outputs()));
  }
}

/// Sums over records, so that ranks can add theirs up.
struct evaluation {
  double records = 0, correct = 0, loss = 0;  // loss: summed
};

/// Counts and sums over the records of `data` (features(), labels()).
template <class Model, class Records,
          class Backend = typename default_backend<std::enable_if_t<(sizeof(Model) > 0)>>::type>
not_private<evaluation> evaluate(const Model& model, const Records& data, Backend b = {}) {
  evaluation e;
  const auto labels = data.labels();
  each_output(b, model, data.features(), [&](std::size_t i, std::span<const float> y) {
    e.records += 1;
    e.correct += model.loss().predict(y) == labels[i] ? 1 : 0;
    e.loss += model.loss().value(y, labels[i]);
  });
  return {e};
}

/// The share of records whose class is predicted right.
template <class Model, class Records>
not_private<double> accuracy(const Model& model, const Records& data) {
  const auto e = evaluate(model, data).value;
  return {e.records > 0 ? e.correct / e.records : 0.0};
}

/// What the model predicts for each row of `features`: the class, or the estimate (loss().predict).
template <class Model, class Backend = typename default_backend<std::enable_if_t<(sizeof(Model) > 0)>>::type>
std::vector<float> predict(const Model& model, matrix_view<const float> features, Backend b = {}) {
  std::vector<float> out(features.rows);
  each_output(b, model, features, [&](std::size_t i, std::span<const float> y) { out[i] = model.loss().predict(y); });
  return out;
}

}  // namespace dpsgd
