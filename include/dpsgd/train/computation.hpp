/// What a rank computes of each step, on its backend: draw, clipped sum, release. train/run.hpp is around it.
///
/// Where the backend's memory is not the host's, the records lie there, and so do parameters, sums and moments; what other
/// ranks need goes by way of the host. A rank that is alone leaves them there until somebody asks (fetch).
#pragma once

#include <algorithm>
#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>
#include <vector>

#include "dpsgd/core/buffer.hpp"
#include "dpsgd/core/random.hpp"
#include "dpsgd/core/view.hpp"
#include "dpsgd/privacy/clip.hpp"
#include "dpsgd/privacy/sampling.hpp"
#include "dpsgd/train/clipped_sum.hpp"
#include "dpsgd/train/mirrored.hpp"
#include "dpsgd/train/release.hpp"
#include "dpsgd/train/tape.hpp"

namespace dpsgd {

namespace detail {

/// What a sampling keeps from step to step: nothing, or its memory.
struct no_memory {};
template <class Sampling>
auto memory_of() {
  if constexpr (epoch_sampling<Sampling>) return typename Sampling::memory{};
  else return no_memory{};
}

}  // namespace detail

/// Made once for a run. `sum`, `parameters` and `moments` are the run's vectors on the host: see train/run.hpp.
template <class Cast, class Model, class Records>
class computation {
  using backend_type = std::remove_cvref_t<decltype(std::declval<Cast>().backend)>;
  using memory = typename backend_type::memory;
  using clip_type = std::remove_cvref_t<decltype(std::declval<Cast>().clip)>;
  using noise_type = std::remove_cvref_t<decltype(std::declval<Cast>().noise)>;
  using sampling_type = std::remove_cvref_t<decltype(std::declval<Cast>().sampling)>;
  using value_type = typename noise_type::value;
  static constexpr bool on_host = std::same_as<memory, host_memory>;
  static constexpr std::size_t extra = extra_coordinates<clip_type>;
  static constexpr std::size_t moment_count = std::remove_cvref_t<decltype(std::declval<Cast>().optimizer)>::moments;

 public:
  /// alone: no other rank reads the sum, or changes the parameters.
  computation(const Cast& use, const Model& model, const Records& data, bool alone, std::span<value_type> sum,
              std::span<float> parameters, const std::array<float*, moment_count>& moments)
      : use_(use),
        data_(data),
        alone_(alone),
        size_(model.parameters().size()),
        weights_(model.shapes()),
        clipped_sum_(use.backend, model, tile_rows<backend_type>(model)),
        sum_(use.backend, sum.data(), sum.size()),
        parameters_(use.backend, parameters.data(), parameters.size()),
        features_(use.backend, data.features().data, data.records() * data.width()),
        labels_(use.backend, data.labels().data(), data.records()),
        not_finite_(use.backend, &not_finite_here_, 1) {
    for (std::size_t k = 0; k < moment_count; ++k) moments_[k] = {use.backend, moments[k], parameters.size()};
    features_.to_backend(0, data.records() * data.width());
    labels_.to_backend(0, data.records());
  }

  /// Parameters and moments are those of the host's vectors.
  void begin() {
    parameters_.to_backend(0, size_);
    for (auto& m : moments_) m.to_backend(0, size_);
    use_.backend.weights_changed(weights_, parameters_.data());
  }

  /// The rows of a step.
  void draw(const random_stream& stream) {
    if constexpr (epoch_sampling<sampling_type>) use_.sampling.draw(stream, data_, rows_, plan_);
    else use_.sampling.draw(stream, data_, rows_);
    drawn_ += static_cast<double>(rows_.size());
    if constexpr (!on_host) {
      if (rows_.size() > row_capacity_) {
        row_capacity_ = std::min<std::size_t>(data_.records(), 2 * rows_.size());
        row_copy_ = use_.backend.template make<std::uint32_t>(row_capacity_);
      }
      use_.backend.upload(rows_.data(), rows_.size(), row_copy_.data());
    }
  }

  /// This rank's clipped sum over them; on the host, unless nobody there needs it. unit: see clipped_sum_workspace.
  void clipped_sum(const clip_type& clip, double unit) {
    const std::uint32_t* rows = rows_.data();
    if constexpr (!on_host) rows = row_copy_.data();
    clipped_sum_(
        weights_, matrix_view<const float, memory>{features_.data(), data_.records(), data_.width(), data_.width()},
        matrix_view<const float, memory>{labels_.data(), data_.records(), 1, 1},
        vector_view<const std::uint32_t, memory>{rows, rows_.size()}, clip, sum_.data(), not_finite_.data(), unit);
    if (!alone_) sum_.to_host(0, size_);
    sum_.to_host(size_, extra);
    if (!on_host && (!alone_ || extra > 0)) wait();
  }

  /// The release of parameters [first, first + count), from the sum of all ranks: see train/release.hpp. On the host too,
  /// unless this rank is alone.
  template <class Rule>
  void release(const random_stream& stream, double sensitivity, double expected_batch, const Rule& rule,
               std::size_t first, std::size_t count) {
    std::array<float*, moment_count> moments;
    for (std::size_t k = 0; k < moment_count; ++k) moments[k] = moments_[k].data();
    if constexpr (on_host) {
      dpsgd::release(use_.noise, stream, sensitivity, expected_batch, rule, first, count, sum_.data(),
                     parameters_.data(), moments);
    } else {
      if (!alone_) sum_.to_backend(first, count);
      use_.backend.release(use_.noise, stream, sensitivity, expected_batch, rule, first, count, sum_.data(),
                           parameters_.data(), moments);
      if (!alone_) parameters_.to_host(first, count), wait();
    }
  }

  /// The parameters of all ranks are gathered.
  void parameters_changed() {
    if (!alone_) parameters_.to_backend(0, size_);
    use_.backend.weights_changed(weights_, parameters_.data());
  }

  /// Brings parameters and moments to the host's vectors.
  void fetch() {
    if constexpr (on_host) return;
    parameters_.to_host(0, size_);
    for (auto& m : moments_) m.to_host(0, size_);
    wait();
  }

  /// Of the model: what a clip by layer sees.
  std::size_t groups() const { return clipped_sum_.groups(); }
  /// How many rows were drawn here so far.
  double drawn() const { return drawn_; }
  /// How many of them counted as zero.
  double not_finite() {
    not_finite_.to_host(0, 1);
    wait();
    return not_finite_here_;
  }

 private:
  void wait() {
    if constexpr (!on_host) use_.backend.wait();
  }

  const Cast& use_;
  const Records& data_;
  bool alone_;
  std::size_t size_;  // of the parameters
  typename backend_type::weights weights_;
  clipped_sum_workspace<backend_type, Model, typename Cast::norms_type, value_type> clipped_sum_;
  mirrored<backend_type, value_type> sum_;
  mirrored<backend_type, float> parameters_;
  std::array<mirrored<backend_type, float>, moment_count> moments_;
  mirrored<backend_type, const float> features_, labels_;
  double not_finite_here_ = 0;
  mirrored<backend_type, double> not_finite_;
  std::vector<std::uint32_t> rows_;  // of this step
  std::size_t row_capacity_ = 0;
  decltype(std::declval<backend_type&>().template make<std::uint32_t>(1)) row_copy_;
  [[no_unique_address]] decltype(detail::memory_of<sampling_type>()) plan_;
  double drawn_ = 0;
};

}  // namespace dpsgd
