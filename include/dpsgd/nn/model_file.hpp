/// Saved models: an mlp in one file, with what may be said about its privacy, that knows when it is damaged.
#pragma once

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "dpsgd/core/error.hpp"
#include "dpsgd/core/sealed_file.hpp"
#include "dpsgd/nn/mlp.hpp"

namespace dpsgd {

/// A model and the words that were saved with it (the claim of its training run, say).
struct saved_model {
  mlp model;
  std::string note;
};

/// Writes `model` and `note` to `file` in one step: what stood there before survives any failure. The file holds the
/// widths, the activation, the loss and all parameters, bit by bit. Throws dpsgd::error.
inline void save_model(const mlp& model, const std::filesystem::path& file, std::string_view note = "") {
  sealed_writer out("dpsgd-model 1");
  out.put(note);
  std::vector<std::size_t> widths{model.inputs()};
  mlp::activation between = relu{};
  for (std::size_t i = 0; i < model.layers().size(); ++i) {
    if (std::holds_alternative<linear>(model.layers()[i])) widths.push_back(model.widths()[i + 1]);
    if (const auto* a = std::get_if<relu>(&model.layers()[i])) between = *a;
    if (const auto* a = std::get_if<leaky_relu>(&model.layers()[i])) between = *a;
    if (const auto* a = std::get_if<tanh>(&model.layers()[i])) between = *a;
  }
  out.put(std::uint64_t{widths.size()});
  for (const auto w : widths) out.put(std::uint64_t{w});
  out.put(std::uint64_t{between.index()});
  out.put(std::holds_alternative<leaky_relu>(between) ? std::get<leaky_relu>(between).function.below : 0.0f);
  out.put(std::uint64_t{model.loss().chosen.index()});
  out.put(model.parameters());
  out.write(file);
}

/// Reads a model back. Throws dpsgd::error, which names the file, when it cannot be read, is damaged or is no model.
inline saved_model load_model(const std::filesystem::path& file) {
  sealed_reader in(file, "dpsgd-model 1");
  auto note = in.get_text();
  const auto count = in.get<std::uint64_t>();
  require(count >= 2 && count <= 1024, file.string(), ": a model of ", count, " widths makes no sense");
  std::vector<std::size_t> widths(count);
  for (auto& w : widths) w = in.get<std::uint64_t>();
  mlp::options options;
  const auto activation = in.get<std::uint64_t>();
  const auto below = in.get<float>();
  if (activation == 1) options.activation = leaky_relu{{.below = below}};
  else if (activation == 2) options.activation = tanh{};
  else require(activation == 0, file.string(), ": unknown activation ", activation);
  const auto loss = in.get<std::uint64_t>();
  if (loss == 0) options.loss = any_loss{sigmoid_cross_entropy{}};
  else if (loss == 1) options.loss = any_loss{softmax_cross_entropy{}};
  else if (loss == 2) options.loss = any_loss{squared_error{}};
  else fail(file.string(), ": unknown loss ", loss);
  saved_model saved{mlp(widths, options), std::move(note)};
  in.get(saved.model.parameters());
  require(in.at_end(), file.string(), ": there is more in this model than there should be");
  return saved;
}

}  // namespace dpsgd
