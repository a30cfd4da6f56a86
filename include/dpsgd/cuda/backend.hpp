/// The CUDA backend: the operations of cpu/backend.hpp on a device's memory.
///
/// `backend` runs on a GPU (cuda/gpu.hpp, nvcc); basic_backend<emulator> runs the same kernels on the host, for tests.
/// Rows are as long as they have columns: cuBLAS needs no padding, and so parameters and gradients lie on the device as
/// they travel. Every operation is asked for in order and nothing waits, but wait() and what says so.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <vector>

#include "dpsgd/core/random.hpp"
#include "dpsgd/core/view.hpp"
#include "dpsgd/cuda/kernel.hpp"
#include "dpsgd/cuda/release.hpp"
#include "dpsgd/cuda/rows.hpp"

namespace dpsgd::cuda {

template <class Device>
class basic_backend {
  template <class T>
  using matrix = matrix_view<T, device_memory>;
  template <class T>
  using vector = vector_view<T, device_memory>;

 public:
  using memory = device_memory;
  /// A tile is what fills the device: whole batches, mostly. What its passes write takes at most a gibibyte.
  static constexpr std::size_t most_tile_rows = 65'536, tile_bytes = std::size_t{1} << 30;

  /// The current device, asked for when the first array is made.
  basic_backend() = default;
  /// This device.
  explicit basic_backend(std::shared_ptr<Device> device) : device_(std::move(device)) {}

  /// A parameter tensor, where the parameters lie.
  struct tensor {
    matrix<const float> plain;
  };
  class weights {
   public:
    weights() = default;
    template <class Shapes>
    explicit weights(const Shapes& shapes) {
      for (const auto& shape : shapes) tensors_.push_back({{nullptr, shape.rows, shape.cols, shape.cols}});
    }
    const tensor* operator+(std::size_t first) const { return tensors_.data() + first; }

   private:
    friend basic_backend;
    std::vector<tensor> tensors_;
  };

  static constexpr std::size_t stride(std::size_t cols) { return cols; }

  /// A row's sum of n terms of one sign is within this relative error: threads add a share each, then by pairs.
  static constexpr double sum_error(std::size_t n) { return (static_cast<double>(n) / row_threads + 7) * 0x1p-24; }

  /// n zeros in the device's memory. Throws dpsgd::error where there is no device, or too little memory.
  template <class T>
  device_array<T> make(std::size_t n) {
    return device().template make<T>(n);
  }

  void weights_changed(weights& w, const float* parameters) const {
    for (auto& t : w.tensors_) t.plain.data = parameters, parameters += t.plain.rows * t.plain.cols;
  }

  // Copies, in the order of the work
  // -------------------------------------------------------------------------------------------------------------------

  template <class T>
  void upload(const T* host, std::size_t n, T* to) {
    device().upload(host, n, to);
  }
  /// The host may read it after wait().
  template <class T>
  void download(const T* from, std::size_t n, T* host) {
    device().download(from, n, host);
  }
  /// to = m, whose rows have no gaps.
  void upload(matrix_view<const float> m, matrix<float> to) { device().upload(m.data, m.rows * m.cols, to.data); }
  /// Waits.
  void download(matrix<const float> m, float* to) {
    device().download(m.data, m.rows * m.cols, to);
    wait();
  }
  /// Until all that was asked for is done. Throws dpsgd::error with what failed.
  void wait() { device().wait(); }

  // Products
  // -------------------------------------------------------------------------------------------------------------------

  /// y (batch, out) = x (batch, in) w^T + bias.
  void product(matrix<const float> x, const tensor& w, const tensor& bias, matrix<float> y) {
    device().launch(each_element<copy_row>{y.rows * y.cols, {bias.plain.data, y}}, teams_for(y.rows * y.cols));
    device().multiply(x, false, w.plain, true, y, true);
  }
  /// dx (batch, in) = dy (batch, out) w.
  void product_back(matrix<const float> dy, const tensor& w, matrix<float> dx) {
    device().multiply(dy, false, w.plain, false, dx, false);
  }
  /// g (out, in) += dy^T x.
  void outer_sum(matrix<const float> dy, matrix<const float> x, matrix<float> g) {
    device().multiply(dy, true, x, false, g, true);
  }

  // Rows
  // -------------------------------------------------------------------------------------------------------------------

  /// g (1, cols) += the sum of m's rows.
  void sum_rows(matrix<const float> m, matrix<float> g) {
    device().launch(column_sums{m, g.data}, column_sums::teams(m));
  }
  /// norm2[r] += |m's row r|^2.
  void add_row_norms(matrix<const float> m, vector<float> norm2) {
    device().launch(row_norms{m, norm2}, row_norms::teams(m));
  }
  /// norm2[r] += |dy_r|^2 (|x_r|^2 + 1); never too small: see cpu/backend.hpp.
  void add_outer_norms(matrix<const float> x, matrix<const float> dy, vector<float> norm2) {
    device().launch(outer_norms{x, dy, norm2}, outer_norms::teams(x));
  }
  /// m's row r *= factor[r]; assigned zero where factor[r] is 0.
  void scale_rows(vector<const float> factor, matrix<float> m) {
    device().launch(each_element<scaled_row>{m.rows * m.cols, {factor.data, m}}, teams_for(m.rows * m.cols));
  }
  /// Assigns zero to m's row r where factor[r] is 0.
  void clear_rows(vector<const float> factor, matrix<float> m) {
    device().launch(each_element<cleared_row>{m.rows * m.cols, {factor.data, m}}, teams_for(m.rows * m.cols));
  }
  /// *total += the sum of v.
  void add_sum(vector<const float> v, double* total) { device().launch(vector_sum{v, total}, 1); }
  /// to = m.
  void without_padding(matrix<const float> m, float* to) {
    device().launch(each_element<copied>{m.rows * m.cols, {m.data, to}}, teams_for(m.rows * m.cols));
  }
  /// out's row i = from's row rows[i].
  void gather_rows(matrix<const float> from, vector<const std::uint32_t> rows, matrix<float> out) {
    device().launch(each_element<gathered_row>{out.rows * out.cols, {from, rows.data, out}},
                    teams_for(out.rows * out.cols));
  }

  // Everything else
  // -------------------------------------------------------------------------------------------------------------------

  /// f(i) for i in [0, n), in any order.
  template <class F>
  void each(std::size_t n, F f) {
    device().launch(each_element<F>{n, f}, teams_for(n));
  }
  /// f(r, c) for r in [0, rows) and c in [0, cols), in any order.
  template <class F>
  void each(std::size_t rows, std::size_t cols, F f) {
    device().launch(each_element<by_row<F>>{rows * cols, {cols, f}}, teams_for(rows * cols));
  }
  template <class T>
  void zero(vector<T> v) {
    device().zero(v.data, v.size);
  }

  /// train/release.hpp's release, of device memory.
  template <class Noise, class Rule, std::size_t Moments>
  void release(const Noise& noise, const random_stream& stream, double sensitivity, double expected_batch,
               const Rule& rule, std::size_t first, std::size_t count, const float* sum, float* parameters,
               const std::array<float*, Moments>& moments) {
    const noised_step<Noise, Rule, Moments> k{noise,      stream, sensitivity, static_cast<float>(1 / expected_batch),
                                              rule,       first,  count,       sum,
                                              parameters, moments};
    device().launch(k, k.teams());
  }

  /// The device. Throws dpsgd::error where there is none.
  Device& device() {
    if (!device_) device_ = std::make_shared<Device>();
    return *device_;
  }

 private:
  static std::size_t teams_for(std::size_t n) {
    return std::min<std::size_t>((n + each_threads - 1) / each_threads, 4096);
  }
  static constexpr std::size_t each_threads = 256;

  std::shared_ptr<Device> device_;
};

}  // namespace dpsgd::cuda
