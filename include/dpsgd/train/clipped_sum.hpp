/// The heart of DP-SGD: the sum over a batch of each example's clipped gradient, without storing one of them.
///
/// Tile by tile (at most 60 records, so that everything stays in cache and memory does not grow with the batch):
///   forward, loss, backward                     deltas dy of every layer, one row an example
///   norm2[example] = sum over the layers        ghost norms, |dy|^2 (|x|^2 + 1) for a linear layer (Goodfellow 2015)
///   factor[example] = clip(norm)                clips by layer: a norm and a factor for each layer
///   dy *= factor, row by row                    book-keeping (Bu et al. 2023): the deltas are used again
///   gradient += dy^T x                          one ordinary product gives the clipped sum
///
/// Where whole numbers are summed (exact mode, privacy/discrete_noise.hpp), the last line is, example by example:
///   g = its dy^T x, in units of the grid        each coordinate one product: it depends on nothing but the example
///   q = g without its fractions                 so |q| <= |g|
///   sum of q^2 <= sensitivity^2 ?               in whole numbers; else the example counts as zero
///   sum += q                                    in whole numbers, which no order of addition changes
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>
#include <vector>

#include "dpsgd/core/numeric.hpp"
#include "dpsgd/core/view.hpp"
#include "dpsgd/privacy/clip.hpp"
#include "dpsgd/train/tape.hpp"

namespace dpsgd {

/// How the norms of per-example gradients are found: from the layers' norms() where they have one (the default) ...
struct ghost_norms {};
/// ... or by forming every example's gradient of every layer: slow, for teaching and as the oracle of the tests.
struct materialised_norms {};

namespace detail {

/// False for NaN and infinity.
constexpr bool finite(float square) { return square <= 3.4028234e38f; }

/// The factor of row i, never more than sensitivity / norm, whatever the clip says. (What comes of a norm that is not
/// finite does not matter: drop_lost.)
/// Where the clip has coordinates of its own, what the row contributes to them, and the gradient has the rest.
template <class Clip, class Norms, class Out>
struct clip_factors {
  Clip clip;
  double limit;  // the sensitivity (of this group), shrunk by what rounding may have taken off the norm
  double shrink;
  Norms norm2;  // |gradient|^2
  Out factor;
  std::size_t group = 0, groups = 1;
  double unit = 1;                 // what the scaled gradient is measured in
  float* contributions = nullptr;  // (extra_coordinates, stride)
  std::size_t stride = 0;

  constexpr void operator()(std::size_t i) const {
    const double norm = square_root(static_cast<double>(norm2[i]));
    double left = limit;
    if constexpr (clip_with_coordinates<Clip>) left = contribute(i, norm);
    // A square below 1e-30 may have underflowed: the norm is then at most 1e-15.
    const double wanted = raw(norm) * shrink, most = left / (norm > 1e-15 ? norm : 1e-15);
    const double use = wanted < most ? wanted : most;  // a NaN or infinite `wanted` gives most
    factor[i] = static_cast<float>((use > 0 ? use : 0.0) / unit);
  }
  constexpr double raw(double norm) const {
    if constexpr (grouped_clip<Clip>) return clip.factor(norm, group, groups);
    else return clip.factor(norm);
  }
  /// Writes down what row i contributes to the clip's own coordinates, and returns the norm that this leaves for the
  /// gradient. Contributions that are not finite, or that leave nothing, do not get through.
  constexpr double contribute(std::size_t i, double norm) const {
    double left = limit * limit;
    for (std::size_t k = 0; k < extra_coordinates<Clip>; ++k) {
      const float c = finite(norm2[i]) ? static_cast<float>(clip.contribution(norm, k)) : 0.0f;
      contributions[k * stride + i] = c;
      left -= double{c} * c;
    }
    if (left >= 0) return square_root(left);
    for (std::size_t k = 0; k < extra_coordinates<Clip>; ++k) contributions[k * stride + i] = 0;
    return limit;
  }
};

/// An example whose gradient is not finite in one group counts as zero in all.
template <class Norms, class Out>
struct mark_lost {
  Norms norm2;
  Out lost;
  constexpr void operator()(std::size_t i) const { lost[i] = finite(norm2[i]) ? lost[i] : 1.0f; }
};
template <class Out>
struct drop_lost {
  Out lost, factor;
  constexpr void operator()(std::size_t i) const { factor[i] = lost[i] > 0 ? 0.0f : factor[i]; }
};
/// to[i] = from[i] as a float.
struct rounded {
  const double* from;
  float* to;
  constexpr void operator()(std::size_t i) const { to[i] = static_cast<float>(from[i]); }
};

}  // namespace detail

/// Workspace of clipped_sum for one model on one backend: tapes, norms, factors, the padded gradient.
/// Value is what is summed: float, or std::int64_t for units of a grid.
template <class Backend, class Model, class Norms = ghost_norms, class Value = float>
class clipped_sum_workspace {
  static constexpr bool on_grid = !std::is_same_v<Value, float>;
  static_assert(!on_grid || std::is_same_v<typename Backend::memory, host_memory>,
                "dpsgd: whole numbers (discrete_gaussian_noise) are summed on the CPU alone; use cpu::backend, or "
                "gaussian_noise");

 public:
  using memory = typename Backend::memory;

  /// `rows` a tile: by default what fits the cache. The result does not depend on it, bit for bit.
  clipped_sum_workspace(Backend& b, const Model& model, std::size_t rows)
      : backend_(&b), model_(&model), tape_(b, model, rows), group_of_(model.shapes().size()) {
    tape_.each_parametric(1, [&](const auto&, std::size_t tensor, auto, auto) { group_of_[tensor] = groups_++; });
    norm2_ = b.template make<float>(rows * groups_);
    factor_ = b.template make<float>(rows * groups_);
    not_finite_ = b.template make<float>(rows);
    for (const auto& shape : model.shapes()) {
      const auto stride = Backend::stride(shape.cols);
      // A product may write whole blocks: its rows and columns are those of the shape.
      gradient_memory_.push_back(b.template make<float>(shape.rows * stride));
      gradient_.push_back({gradient_memory_.back().data(), shape.rows, shape.cols, stride});
      scratch_memory_.push_back(b.template make<float>(shape.rows * stride));
      scratch_.push_back({scratch_memory_.back().data(), shape.rows, shape.cols, stride});
      if constexpr (on_grid) {
        whole_memory_.push_back(b.template make<std::int32_t>(2 * shape.rows * stride));
        whole_.push_back({whole_memory_.back().data(), shape.rows, shape.cols, stride});
        tile_sum_.push_back({whole_.back().row(shape.rows), shape.rows, shape.cols, stride});
      }
    }
    // By how much rounding may have made a norm too small: half the error of its square, |dy|^2 (|x|^2 + 1) added up
    // over the layers; and by how much scaling and the product may make a contribution too large.
    std::size_t widest = 1, additions = model.shapes().size() + 8;
    for (const auto w : model.widths()) widest = std::max(widest, w);
    for (const auto& shape : model.shapes()) widest = std::max(widest, shape.cols);
    bool materialised = false;
    tape_.each_parametric(1, [&]<class Layer>(const Layer& l, std::size_t tensor, auto x, auto) {
      if (has_norms<Layer>) return;
      materialised = true;  // row by row of each tensor
      for (std::size_t k = 0; k < l.tensors(x.cols).size(); ++k) additions += model.shapes()[tensor + k].rows;
    });
    shrink_ = 1.0 - Backend::sum_error(widest) - static_cast<double>(additions) * 0x1p-24;
    // A backend may round the operands of its products (cuda/kernel.hpp, precision): each grows by at most u, relative to
    // it. Every coordinate of what an example adds to a weight matrix is one product of two, so what it adds is at most
    // (1 + u)^2 times as long as the deltas and activations say, of which ghost norms are made. (A layer's own norms()
    // must not be made of products.) A materialised norm is made of such products, whose operands may have lost v each.
    if constexpr (requires { b.operand_growth(); }) {
      const double u = b.operand_growth(), v = b.operand_loss();
      shrink_ /= (1 + u) * (1 + u);
      if (materialised) shrink_ *= (1 - v) * (1 - v);
    }
  }

  /// How many layers with parameters the model has: a clip by layer sees each as a group.
  std::size_t groups() const { return groups_; }

  /// sum (the parameters' order, unpadded) = the sum over `rows` of clip's factor times each one's gradient; then the
  /// sum of what they contribute to the clip's own coordinates, if it has any.
  /// features (records, inputs) and labels (records, 1) are read at `rows`. Adds how many examples counted as zero
  /// because their gradient was not finite (or, on a grid, too long) to *not_finite. All of it is the backend's memory.
  /// Cost: one forward and backward pass, plus the norms; on a grid, plus some passes over all coordinates for each
  /// example. unit: of a grid, in units of the gradient; the clip's sensitivity is a whole number of them, at most 2^20.
  template <class Weights, class Clip>
  void operator()(const Weights& weights, matrix_view<const float, memory> features,
                  matrix_view<const float, memory> labels, vector_view<const std::uint32_t, memory> rows,
                  const Clip& clip, Value* sum, double* not_finite, double unit = 1) {
    auto& b = *backend_;
    constexpr auto extra = extra_coordinates<Clip>;
    if constexpr (extra > 0) {
      if (contributions_.size() < extra * tape_.rows()) contributions_ = b.template make<float>(extra * tape_.rows());
      if (contributed_.size() < extra) contributed_ = b.template make<double>(extra);
      b.zero(vector_view<double, memory>(contributed_));
    }
    unit_ = unit;
    if constexpr (on_grid) std::fill_n(sum, model_->parameters().size() + extra, Value{});
    for (const auto& g : gradient_memory_) b.zero(vector_view<float, memory>(g));
    for (std::size_t first = 0; first < rows.size; first += tape_.rows()) {
      const auto n = std::min(tape_.rows(), rows.size - first);
      b.gather_rows(features, rows.part(first, n), tape_.value(0, n));
      b.gather_rows(labels, rows.part(first, n), tape_.labels(n));
      tape_.forward(weights, n);
      if constexpr (bounded<Clip>)
        for (std::size_t g = 0; g < groups_of<Clip>(); ++g) b.zero(part(norm2_, g, n));
      tape_.backward(weights, n, [&](const auto& l, std::size_t tensor, auto x, auto dy) {
        if constexpr (bounded<Clip>) add_norms(l, tensor, x, dy, part(norm2_, group_of<Clip>(tensor), n));
      });
      if constexpr (bounded<Clip>) clip_deltas(clip, n, not_finite);
      if constexpr (on_grid) {
        add_on_grid(n, extra, std::round(clip.sensitivity().value / unit), sum, not_finite);
      } else {
        for (std::size_t k = 0; k < extra; ++k)
          b.add_sum({contributions_.data() + k * tape_.rows(), n}, contributed_.data() + k);
        tape_.each_parametric(n, [&](const auto& l, std::size_t tensor, auto x, auto dy) {
          l.gradient(b, x, dy, gradient_.data() + tensor);
        });
      }
    }
    if constexpr (!on_grid) {
      for (const auto& g : gradient_) b.without_padding(g, sum), sum += g.rows * g.cols;
      if constexpr (extra > 0) b.each(extra, detail::rounded{contributed_.data(), sum});
    }
  }

 private:
  using matrix = matrix_view<float, memory>;

  /// Whether a layer's norms come without its gradients.
  template <class Layer>
  static constexpr bool has_norms = std::is_same_v<Norms, ghost_norms>&& requires(const Layer& l, Backend& b, matrix m,
                                                                                  vector_view<float, memory> v) {
    l.norms(b, m, m, v);
  };

  /// norm2[row] += the squared norm of one layer's gradient of that row.
  template <class Layer>
  void add_norms(const Layer& l, std::size_t tensor, matrix x, matrix dy, vector_view<float, memory> norm2) {
    if constexpr (has_norms<Layer>) l.norms(*backend_, x, dy, norm2);
    else materialise(l, tensor, x, dy, norm2);
  }

  /// The n rows of group g.
  template <class Memory>
  vector_view<float, memory> part(Memory& all, std::size_t g, std::size_t n) {
    return {all.data() + g * tape_.rows(), n};
  }
  /// One group for the whole gradient, or one for each layer.
  template <class Clip>
  std::size_t groups_of() const {
    return grouped_clip<Clip> ? groups_ : 1;
  }
  template <class Clip>
  std::size_t group_of(std::size_t tensor) const {
    return grouped_clip<Clip> ? group_of_[tensor] : 0;
  }

  template <class Clip>
  void clip_deltas(const Clip& clip, std::size_t n, double* not_finite) {
    auto& b = *backend_;
    const vector_view<float, memory> lost{not_finite_.data(), n};
    const auto groups = groups_of<Clip>();
    b.zero(lost);
    for (std::size_t g = 0; g < groups; ++g) {
      double limit;
      if constexpr (grouped_clip<Clip>) limit = clip.group_bound(g, groups);
      else limit = clip.sensitivity().value;
      const auto norm2 = part(norm2_, g, n), factor = part(factor_, g, n);
      b.each(n,
             detail::clip_factors<Clip, decltype(norm2), decltype(factor)>{
                 clip, limit * shrink_, shrink_, norm2, factor, g, groups, unit_, contributions_.data(), tape_.rows()});
      b.each(n, detail::mark_lost<decltype(norm2), decltype(lost)>{norm2, lost});
    }
    for (std::size_t g = 0; g < groups; ++g) b.each(n, detail::drop_lost<decltype(lost)>{lost, part(factor_, g, n)});
    b.add_sum(lost, not_finite);
    tape_.each_parametric(n, [&](const auto&, std::size_t tensor, auto x, auto dy) {
      const auto factor = part(factor_, group_of<Clip>(tensor), n);
      b.clear_rows(factor, x);  // 0 x inf would be NaN in the product
      b.scale_rows(factor, dy);
    });
  }

  /// sum += the whole parts of each of n examples' scaled gradients and `extra` contributions to the clip's own
  /// coordinates, of those that are together at most `most` long.
  void add_on_grid(std::size_t n, std::size_t extra, double most, Value* sum, double* not_finite) {
    auto& b = *backend_;
    const auto contributed = [&](std::size_t k, std::size_t r) {
      return std::trunc(double{contributions_[k * tape_.rows() + r]} / unit_);
    };
    constexpr std::size_t at_once = 1024;  // examples of at most 2^20 each, in 32 bits
    for (const auto& g : scratch_memory_) b.zero(vector_view<float, memory>(g));  // norms may have used it
    for (std::size_t first = 0; first < n; first += at_once) {
      for (std::size_t r = first; r < std::min(n, first + at_once); ++r) {
        tape_.each_parametric(n, [&](const auto& l, std::size_t tensor, auto x, auto dy) {
          l.gradient(b, x.rows_of(r, 1), dy.rows_of(r, 1), scratch_.data() + tensor);
        });
        double square = 0;
        for (std::size_t t = 0; t < scratch_.size(); ++t)
          square += b.take_whole(scratch_[t], static_cast<float>(most), whole_[t]);
        for (std::size_t k = 0; k < extra; ++k) square += contributed(k, r) * contributed(k, r);
        if (square <= most * most) {
          for (std::size_t t = 0; t < scratch_.size(); ++t) b.add_whole(whole_[t], tile_sum_[t]);
          for (std::size_t k = 0; k < extra; ++k)
            sum[model_->parameters().size() + k] += static_cast<Value>(contributed(k, r));
        } else {
          ++*not_finite;
        }
      }
      Value* to = sum;
      for (const auto& t : tile_sum_) {
        for (std::size_t r = 0; r < t.rows; ++r, to += t.cols)
          for (std::size_t c = 0; c < t.cols; ++c) to[c] += t(r, c);
        b.zero(vector_view<std::int32_t, memory>{t.data, t.rows * t.stride});
      }
    }
  }

  /// The norms by forming the gradient of one row after the other.
  template <class Layer>
  void materialise(const Layer& l, std::size_t tensor, matrix x, matrix dy, vector_view<float, memory> norm2) {
    auto& b = *backend_;
    const auto tensors = l.tensors(x.cols).size();
    for (std::size_t r = 0; r < x.rows; ++r) {
      for (std::size_t k = tensor; k < tensor + tensors; ++k) b.zero(vector_view<float, memory>(scratch_memory_[k]));
      l.gradient(b, x.rows_of(r, 1), dy.rows_of(r, 1), scratch_.data() + tensor);
      for (std::size_t k = tensor; k < tensor + tensors; ++k)
        for (std::size_t row = 0; row < scratch_[k].rows; ++row)
          b.add_row_norms(scratch_[k].rows_of(row, 1), norm2.part(r, 1));
    }
  }

  using owned = decltype(std::declval<Backend&>().template make<float>(1));
  Backend* backend_;
  const Model* model_;
  tape<Backend, Model> tape_;
  std::vector<std::size_t> group_of_;  // that a layer's first tensor belongs to
  std::size_t groups_ = 0;
  owned norm2_, factor_;  // (groups, rows)
  owned not_finite_;      // (rows)
  owned contributions_;   // (coordinates of the clip, rows), made when a clip has some
  decltype(std::declval<Backend&>().template make<double>(1)) contributed_;  // (coordinates of the clip)
  std::vector<owned> gradient_memory_, scratch_memory_;
  std::vector<matrix> gradient_, scratch_;
  // On a grid: one example's whole numbers, and the sum of a tile's.
  std::vector<decltype(std::declval<Backend&>().template make<std::int32_t>(1))> whole_memory_;
  std::vector<matrix_view<std::int32_t, memory>> whole_, tile_sum_;
  double shrink_, unit_ = 1;
};

}  // namespace dpsgd
