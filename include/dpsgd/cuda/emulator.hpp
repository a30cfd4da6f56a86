/// A device that is none: runs kernels on the host, one thread after the other. For tests, and to read a kernel with a
/// debugger at hand.
///
/// Teams and the threads of a phase run in an order that is shuffled anew each time, from the emulator's number: a kernel
/// whose threads race gives other results for another number. What a team shares begins as NaNs, arrays are exactly as
/// long as they were asked for, and all of it is ordinary host memory: the sanitizers see every access.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <numeric>
#include <vector>

#include "dpsgd/core/random.hpp"
#include "dpsgd/core/view.hpp"
#include "dpsgd/cuda/kernel.hpp"

namespace dpsgd::cuda {

class emulator {
 public:
  /// `order` picks the orders in which threads and teams run; `teams` is how many this device runs at a time.
  explicit emulator(std::uint64_t order = 0, std::size_t teams = 3)
      : words_({random_key::from_seed(order), domain::user, 0, 0}), teams_(teams) {}

  /// How many teams of a kernel this device runs at a time: as many as a kernel that loops over its work is given.
  template <kernel Kernel>
  std::size_t teams_at_once(const Kernel&) const {
    return teams_;
  }
  /// The most floats that a team can share; as an H100's.
  std::size_t most_shared_floats() const { return 227 * 1024 / sizeof(float); }

  /// n zeros.
  template <class T>
  device_array<T> make(std::size_t n) const {
    return {std::shared_ptr<T[]>(new T[n]()), n};
  }

  /// Runs `teams` teams of `k`. Order of calls is order of work.
  template <kernel Kernel>
  void launch(const Kernel& k, std::size_t teams) {
    ++launches_;
    for (const auto rank : shuffled(teams)) {
      team<Kernel> t(*this, k, rank, teams);
      k(t);
    }
  }

  /// Copies n elements, in the order of launches. The host may read what came back after wait().
  template <class T>
  void upload(const T* host, std::size_t n, T* device) const {
    std::copy_n(host, n, device);
  }
  template <class T>
  void download(const T* device, std::size_t n, T* host) const {
    std::copy_n(device, n, host);
  }
  template <class T>
  void zero(T* device, std::size_t n) const {
    std::fill_n(device, n, T{});
  }
  void wait() const {}

  /// c (m, n) = a (m, k) b (k, n) + (add ? c : 0), by the rows' strides; a and b may stand transposed.
  void multiply(matrix_view<const float, device_memory> a, bool a_transposed, matrix_view<const float, device_memory> b,
                bool b_transposed, matrix_view<float, device_memory> c, bool add) {
    ++launches_;
    const std::size_t inner = a_transposed ? a.rows : a.cols;
    for (std::size_t i = 0; i < c.rows; ++i)
      for (std::size_t j = 0; j < c.cols; ++j) {
        float sum = add ? c(i, j) : 0.0f;
        for (std::size_t k = 0; k < inner; ++k)
          sum += (a_transposed ? a(k, i) : a(i, k)) * (b_transposed ? b(j, k) : b(k, j));
        c(i, j) = sum;
      }
  }

  /// How often a kernel or a product was launched.
  std::uint64_t launches() const { return launches_; }

 private:
  template <class Kernel>
  class team {
   public:
    team(emulator& device, const Kernel& k, std::size_t rank, std::size_t size)
        : device_(device), rank_(rank), size_(size), registers_(Kernel::threads) {
      shared_.reset(new float[shared_floats(k)]);
      std::fill_n(shared_.get(), shared_floats(k), std::numeric_limits<float>::quiet_NaN());
    }
    std::size_t rank() const { return rank_; }
    std::size_t size() const { return size_; }
    float* shared() const { return shared_.get(); }
    template <class F>
    void each(F f) {
      for (const auto thread : device_.shuffled(Kernel::threads)) f(static_cast<int>(thread), registers_[thread]);
    }

   private:
    emulator& device_;
    std::size_t rank_, size_;
    std::vector<registers_of<Kernel>> registers_;
    std::unique_ptr<float[]> shared_;
  };

  /// [0, n) from a place picked at random onwards, or backwards: cheap, and enough to bring any two in both orders.
  std::vector<std::size_t> shuffled(std::size_t n) {
    std::vector<std::size_t> order(n);
    std::iota(order.begin(), order.end(), std::size_t{0});
    if (n > 1) {
      std::rotate(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(words_.below(n)), order.end());
      if (words_.below(2)) std::reverse(order.begin(), order.end());
    }
    return order;
  }

  random_words words_;
  std::size_t teams_;
  std::uint64_t launches_ = 0;
};

}  // namespace dpsgd::cuda
