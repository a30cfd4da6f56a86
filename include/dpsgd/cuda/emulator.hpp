/// A device that is none: runs kernels on the host, one thread after the other. For tests, and to read a kernel with a
/// debugger at hand.
///
/// What goes wrong on a device is made to go wrong here:
///   threads that race            teams and the threads of a phase run in an order that is shuffled anew each time, from
///                                the emulator's number: other numbers, other results
///   memory never set             what a team shares begins as NaNs
///   memory out of bounds         arrays are exactly as long as they were asked for: the sanitizers see every access
///   the host reads the device's  under AddressSanitizer that is an error outside of kernels and copies
///   read before it is there      what is downloaded is garbage until wait()
///   too little memory            is thrown, where its size is given
///   a device that fails          fail_after(launches)
/// And it counts launches, arrays and waits.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <type_traits>
#include <vector>

#include "dpsgd/core/error.hpp"
#include "dpsgd/core/random.hpp"
#include "dpsgd/core/view.hpp"
#include "dpsgd/cuda/kernel.hpp"

#if defined(__SANITIZE_ADDRESS__)
#define DPSGD_ADDRESS_SANITIZER
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define DPSGD_ADDRESS_SANITIZER
#endif
#endif
#if defined(DPSGD_ADDRESS_SANITIZER)
extern "C" void __asan_poison_memory_region(const volatile void*, std::size_t);
extern "C" void __asan_unpoison_memory_region(const volatile void*, std::size_t);
#endif

namespace dpsgd::cuda {

namespace detail {

/// The memory of an emulated device.
class emulated_memory {
 public:
  explicit emulated_memory(std::size_t size) : left_(size), size_(size) {}

  void* add(std::size_t bytes) {
    if (bytes > left_) too_little_memory(bytes, left_, size_);
    auto* memory = ::operator new(bytes);
    left_ -= bytes, arrays_[memory] = bytes;
    close(memory, bytes);
    return memory;
  }
  void remove(void* memory) {
    const auto found = arrays_.find(memory);
    open(memory, found->second);
    left_ += found->second;
    arrays_.erase(found);
    ::operator delete(memory);
  }
  void open() const {
    for (const auto& [memory, bytes] : arrays_) open(memory, bytes);
  }
  void close() const {
    for (const auto& [memory, bytes] : arrays_) close(memory, bytes);
  }

 private:
#if defined(DPSGD_ADDRESS_SANITIZER)
  static void open(void* memory, std::size_t bytes) { __asan_unpoison_memory_region(memory, bytes); }
  static void close(void* memory, std::size_t bytes) { __asan_poison_memory_region(memory, bytes); }
#else
  static void open(void*, std::size_t) {}
  static void close(void*, std::size_t) {}
#endif
  std::size_t left_, size_;
  std::map<void*, std::size_t> arrays_;
};

/// x as a product of this precision takes it: rounded to the nearest, ties to even.
inline float as_operand(float x, precision p) {
  if (p == precision::single) return x;
  const int dropped = p == precision::tf32 ? 13 : 16;
  auto bits = std::bit_cast<std::uint32_t>(x);
  if ((bits & 0x7f800000u) == 0x7f800000u) return x;
  bits += ((1u << (dropped - 1)) - 1) + (bits >> dropped & 1u);
  return std::bit_cast<float>(bits >> dropped << dropped);
}

}  // namespace detail

/// Belongs to one thread.
class emulator {
 public:
  /// `order` picks the orders in which threads and teams run; `teams` is how many this device runs at a time; `bytes` is
  /// its memory.
  explicit emulator(std::uint64_t order = 0, std::size_t teams = 3,
                    std::size_t bytes = std::numeric_limits<std::size_t>::max())
      : words_({random_key::from_seed(order), domain::user, 0, 0}),
        teams_(teams),
        memory_(std::make_shared<detail::emulated_memory>(bytes)) {}

  /// How many teams of a kernel this device runs at a time: as many as a kernel that loops over its work is given.
  template <kernel Kernel>
  std::size_t teams_at_once(const Kernel&) const {
    return teams_;
  }
  /// The most floats that a team can share; as an H100's.
  std::size_t most_shared_floats() const { return 227 * 1024 / sizeof(float); }

  /// n zeros. Throws dpsgd::error where they do not fit.
  template <class T>
  device_array<T> make(std::size_t n) {
    ++makes_;
    auto* array = static_cast<T*>(memory_->add(std::max<std::size_t>(n, 1) * sizeof(T)));
    std::shared_ptr<T[]> owned(array, [memory = memory_](T* p) { memory->remove(p); });
    zero(array, n);
    return {std::move(owned), n};
  }

  /// Runs `teams` teams of `k`. Order of calls is order of work.
  template <kernel Kernel>
  void launch(const Kernel& k, std::size_t teams) {
    if (!works()) return;
    const opened all(*memory_);
    for (const auto rank : shuffled(teams)) {
      team<Kernel> t(*this, k, rank, teams);
      k(t);
    }
  }

  /// Copies n elements, in the order of launches. The host may change them at once.
  template <class T>
  void upload(const T* host, std::size_t n, T* device) {
    const opened all(*memory_);
    std::copy_n(host, n, device);
  }
  /// The host may read what came back after wait().
  template <class T>
  void download(const T* device, std::size_t n, T* host) {
    if (n == 0) return;
    const opened all(*memory_);
    std::vector<T> values(device, device + n);
    std::memset(static_cast<void*>(host), 0xff, n * sizeof(T));  // NaNs
    downloads_.emplace_back([host, values = std::move(values)] { std::copy(values.begin(), values.end(), host); });
  }
  /// Copies from the device to the device.
  template <class T>
  void copy(const T* from, std::size_t n, T* to) {
    const opened all(*memory_);
    std::copy_n(from, n, to);
  }
  template <class T>
  void zero(T* device, std::size_t n) {
    const opened all(*memory_);
    std::fill_n(device, n, T{});
  }
  void wait() {
    ++waits_;
    if (failed()) fail("waiting for the device: cudaErrorIllegalAddress: emulated");
    for (const auto& copy_now : downloads_) copy_now();
    downloads_.clear();
  }

  /// c (m, n) = a (m, k) b (k, n) + (add ? c : 0), by the rows' strides; a and b may stand transposed. p: see precision.
  void multiply(matrix_view<const float, device_memory> a, bool a_transposed, matrix_view<const float, device_memory> b,
                bool b_transposed, matrix_view<float, device_memory> c, bool add, precision p = precision::single) {
    if (!works()) return;
    const opened all(*memory_);
    const std::size_t inner = a_transposed ? a.rows : a.cols;
    for (std::size_t i = 0; i < c.rows; ++i)
      for (std::size_t j = 0; j < c.cols; ++j) {
        float sum = add ? c(i, j) : 0.0f;
        for (std::size_t k = 0; k < inner; ++k)
          sum += detail::as_operand(a_transposed ? a(k, i) : a(i, k), p) *
                 detail::as_operand(b_transposed ? b(j, k) : b(k, j), p);
        c(i, j) = sum;
      }
  }

  /// From the launch after so many on nothing is done. That is found out at once (`at_launch`: a launch that is refused),
  /// or when somebody waits, as most failures of a device are.
  void fail_after(std::uint64_t launches, bool at_launch = false) { last_launch_ = launches, at_launch_ = at_launch; }

  /// How often a kernel or a product was launched, an array made, and waited.
  std::uint64_t launches() const { return launches_; }
  std::uint64_t makes() const { return makes_; }
  std::uint64_t waits() const { return waits_; }

 private:
  /// While it lives, the memory may be read and written.
  struct opened {
    const detail::emulated_memory& memory;
    explicit opened(const detail::emulated_memory& m) : memory(m) { memory.open(); }
    ~opened() { memory.close(); }
  };
  bool failed() const { return launches_ > last_launch_; }
  bool works() {
    ++launches_;
    if (failed() && at_launch_) fail("launching a kernel: cudaErrorIllegalAddress: emulated");
    return !failed();
  }

  /// [0, n) from a place picked at random onwards, or backwards: cheap, and enough to bring any two in both orders.
  struct turns {
    std::size_t n, start;
    bool backwards;
    struct iterator {
      const turns& all;
      std::size_t i;
      std::size_t operator*() const {
        const auto k = (all.start + i) % all.n;
        return all.backwards ? all.n - 1 - k : k;
      }
      iterator& operator++() { return ++i, *this; }
      bool operator!=(const iterator& other) const { return i != other.i; }
    };
    iterator begin() const { return {*this, 0}; }
    iterator end() const { return {*this, n}; }
  };
  turns shuffled(std::size_t n) {
    if (n < 2) return {n, 0, false};
    const auto start = static_cast<std::size_t>(words_.below(n));
    return {n, start, words_.below(2) == 1};
  }

  template <class Kernel>
  class team {
   public:
    team(emulator& device, const Kernel& k, std::size_t rank, std::size_t size)
        : device_(device), rank_(rank), size_(size), registers_(keeps ? Kernel::threads : 1) {
      shared_.reset(new float[shared_floats(k)]);
      std::fill_n(shared_.get(), shared_floats(k), std::numeric_limits<float>::quiet_NaN());
    }
    std::size_t rank() const { return rank_; }
    std::size_t size() const { return size_; }
    float* shared() const { return shared_.get(); }
    template <class F>
    void each(F f) {
      const auto all = device_.shuffled(Kernel::threads);
      for (const auto thread : all) f(static_cast<int>(thread), registers_[keeps ? thread : 0]);
    }

   private:
    static constexpr bool keeps = !std::is_same_v<registers_of<Kernel>, no_registers>;
    emulator& device_;
    std::size_t rank_, size_;
    std::vector<registers_of<Kernel>> registers_;
    std::unique_ptr<float[]> shared_;
  };

  random_words words_;
  std::size_t teams_;
  std::shared_ptr<detail::emulated_memory> memory_;  // with every array, so that it goes last
  std::vector<std::function<void()>> downloads_;
  std::uint64_t launches_ = 0, makes_ = 0, waits_ = 0;
  std::uint64_t last_launch_ = std::numeric_limits<std::uint64_t>::max();
  bool at_launch_ = false;
};

}  // namespace dpsgd::cuda
