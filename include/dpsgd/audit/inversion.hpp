/// Model inversion: what does the model tell about an attribute of somebody whose other attributes and label are known?
/// The adversary tries each value that the attribute may have, and takes the one for which
///   (how common the value is) x (how likely the model finds the label then, e^-loss)
/// is largest (Fredrikson et al. 2014; for two classes and a model that gives probabilities, 2015).
///
/// Much of what he gets right he would get right about anybody, since the attribute and the label go together in the
/// population: that is what a model is for. What the training gave away about its own records is what he gets right
/// about them beyond what he gets right about others (Yeom et al. 2018).
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <span>
#include <string_view>
#include <vector>

#include "dpsgd/core/error.hpp"
#include "dpsgd/core/view.hpp"
#include "dpsgd/data/schema.hpp"
#include "dpsgd/train/metrics.hpp"

namespace dpsgd::audit {

/// An attribute with a few possible values, as it stands among the features.
struct attribute {
  std::size_t first = 0;                   // of its features
  std::vector<std::vector<float>> values;  // each possible value, encoded: all of one width
};

/// The binary or categorical column of this name. Throws dpsgd::error when the schema has none of it, or when it is
/// numeric or has more than 64 categories.
[[gnu::cold]] inline attribute attribute_of(const schema& columns, std::string_view name) {
  attribute found;
  for (const auto& column : columns.columns()) {
    if (column.name() != name) {
      found.first += column.width();
      continue;
    }
    // A number takes any value; of categories it accepts a run of integers.
    require(!column.accepts(0.5), "column \"", name, "\" is numeric: an attribute to infer needs to be binary or ",
            "categorical");
    for (int value = -65536; value < 2 * 65536; ++value) {
      if (!column.accepts(value)) continue;
      require(found.values.size() < 64, "column \"", name, "\" has more than 64 categories");
      found.values.emplace_back(column.width());
      column.encode(value, found.values.back().data());
    }
    require(found.values.size() > 1, "column \"", name, "\" has categories that are no small integers");
    return found;
  }
  fail("the schema has no column \"", name, "\" among its features");
}

/// Which of its values each row of `features` has.
inline std::vector<std::size_t> values_of(const attribute& a, matrix_view<const float> features) {
  std::vector<std::size_t> out(features.rows);
  for (std::size_t r = 0; r < features.rows; ++r) {
    const auto it = std::find_if(a.values.begin(), a.values.end(), [&](const auto& value) {
      return std::equal(value.begin(), value.end(), features.row(r) + a.first);
    });
    require(it != a.values.end(), "row ", r, " has none of the attribute's values");
    out[r] = static_cast<std::size_t>(it - a.values.begin());
  }
  return out;
}

/// How common each value is, out of `values_of` some records.
inline std::vector<double> shares(const attribute& a, std::span<const std::size_t> values) {
  std::vector<double> out(a.values.size());
  for (const auto v : values) out[v] += 1 / static_cast<double>(values.size());
  return out;
}

/// The adversary's guess for each record of `data` (features(), labels()): the number of the value. He overwrites the
/// attribute, so he does not see it. `common`: how common each value is, as the public knows it; an equal guess goes to
/// the first. Cost: one forward pass for each value.
template <class Model, class Records,
          class Backend = typename default_backend<std::enable_if_t<(sizeof(Model) > 0)>>::type>
std::vector<std::size_t> infer_attribute(const Model& model, const Records& data, const attribute& a,
                                         std::span<const double> common, Backend b = {}) {
  require(common.size() == a.values.size(), "there are ", a.values.size(), " values, and shares of ", common.size());
  const auto features = data.features();
  const auto labels = data.labels();
  constexpr std::size_t lot = 4096;  // rows that are copied at a time
  std::vector<float> copy(std::min(lot, features.rows) * features.cols);
  std::vector<std::size_t> guess(features.rows);
  std::vector<double> best(features.rows, -std::numeric_limits<double>::infinity());
  for (std::size_t first = 0; first < features.rows; first += lot) {
    const auto n = std::min(lot, features.rows - first);
    for (std::size_t r = 0; r < n; ++r)
      std::copy_n(features.row(first + r), features.cols, copy.data() + r * features.cols);
    for (std::size_t v = 0; v < a.values.size(); ++v) {
      for (std::size_t r = 0; r < n; ++r)
        std::copy(a.values[v].begin(), a.values[v].end(), copy.data() + r * features.cols + a.first);
      each_output(b, model, matrix_view<const float>{copy.data(), n, features.cols, features.cols},
                  [&](std::size_t i, std::span<const float> y) {
                    const double score = std::log(common[v]) - model.loss().value(y, labels[first + i]);
                    if (score > best[first + i]) best[first + i] = score, guess[first + i] = v;
                  });
    }
  }
  return guess;
}

/// The share of guesses that are right.
inline double share_right(std::span<const std::size_t> guesses, std::span<const std::size_t> truth) {
  require(guesses.size() == truth.size() && !truth.empty(), "as many guesses as truths are needed, and at least one");
  std::size_t right = 0;
  for (std::size_t i = 0; i < truth.size(); ++i) right += guesses[i] == truth[i];
  return static_cast<double>(right) / static_cast<double>(truth.size());
}

}  // namespace dpsgd::audit
