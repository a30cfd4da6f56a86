/// How a kernel is written here: once, for a graphics processor and for the host.
///
/// A kernel is a plain struct. It runs as many teams (CUDA's blocks) of `threads` threads each; a team's threads share
/// memory and meet at the end of each phase:
///
///   struct reverse_tiles {
///     static constexpr int threads = 128;
///     const float* from;
///     float* to;
///     constexpr std::size_t shared_floats() const { return threads; }     // of a team; absent: none
///     struct registers { float mine; };                                   // what a thread keeps; absent: nothing
///     constexpr void operator()(auto& team) const {
///       const std::size_t first = team.rank() * threads;
///       float* tile = team.shared();
///       team.each([&](int thread, registers& r) { tile[thread] = r.mine = from[first + thread]; });   // all, then meet
///       team.each([&](int thread, registers& r) { to[first + thread] = tile[threads - 1 - thread] + r.mine; });
///     }
///   };
///
/// What stands outside of team.each() is the same for all threads of a team: a loop over phases, say. Within a phase no
/// thread may read what another one of its team writes; between teams nothing may be passed on at all. So the order of
/// threads and teams cannot matter, and cuda/emulator.hpp runs the same lines on the host in any order, under the
/// sanitizers: what compute-sanitizer looks for on a device (memory out of bounds, races, values never set) is looked for
/// there too. gpu.hpp runs them on a device, compiled by nvcc with --expt-relaxed-constexpr: everything a kernel calls is
/// constexpr, so that no function of dpsgd has to say where it runs.
#pragma once

#include <algorithm>
#include <cstddef>
#include <memory>
#include <type_traits>
#include <utility>

#include "dpsgd/core/error.hpp"
#include "dpsgd/core/view.hpp"

namespace dpsgd::cuda {

/// The memory of a device, which the host cannot read: the Memory of views.
struct device_memory {};

/// What a thread of a kernel without registers keeps.
struct no_registers {};

namespace detail {
template <class Kernel, class = void>
struct find_registers {
  using type = no_registers;
};
template <class Kernel>
struct find_registers<Kernel, std::void_t<typename Kernel::registers>> {
  using type = typename Kernel::registers;
};
}  // namespace detail

/// What a thread of this kernel keeps from phase to phase; value-initialised at the start.
template <class Kernel>
using registers_of = typename detail::find_registers<Kernel>::type;

/// How many floats a team of this kernel shares.
template <class Kernel>
constexpr std::size_t shared_floats(const Kernel& kernel) {
  if constexpr (requires { kernel.shared_floats(); }) return kernel.shared_floats();
  else return 0;
}

/// A kernel is copied to the device as it is, so it holds views and numbers and nothing else.
template <class K>
concept kernel = std::is_trivially_copyable_v<K> &&(K::threads >= 1 && K::threads <= 1024);

/// Owned memory of a device: `size` elements. Movable, not copyable; the host must not read it.
template <class T>
class device_array {
  static_assert(std::is_trivially_copyable_v<T>, "dpsgd: a device holds plain values");

 public:
  device_array() = default;
  /// Over memory that is given back as `memory` says. The devices' make() is how to get one.
  device_array(std::shared_ptr<T[]> memory, std::size_t size) : data_(std::move(memory)), size_(size) {}
  device_array(device_array&&) noexcept = default;
  device_array& operator=(device_array&&) noexcept = default;

  T* data() const { return data_.get(); }
  std::size_t size() const { return size_; }
  operator vector_view<T, device_memory>() const { return {data(), size_}; }
  operator vector_view<const T, device_memory>() const { return {data(), size_}; }

 private:
  std::shared_ptr<T[]> data_;  // nobody else's: shared, because that keeps how it is given back
  std::size_t size_ = 0;
};

/// What a device's products do with their operands, which are floats; sums are in single precision always.
enum class precision {
  single,  ///< nothing (the default)
  tf32,    ///< may round them to 11 significant bits, for tensor cores
  bf16,    ///< may round them to 8 significant bits
};

/// By how much an operand's magnitude may grow in a product, relative to it: half a unit in the last place, where it is
/// rounded to the nearest; nothing, where bits are cut off.
constexpr double operand_growth(precision p) {
  return p == precision::tf32 ? 0x1p-11 : p == precision::bf16 ? 0x1p-8 : 0.0;
}
/// By how much it may shrink: a whole unit, where bits are cut off.
constexpr double operand_loss(precision p) { return 2 * operand_growth(p); }

namespace detail {
/// Throws dpsgd::error: a device of `all` bytes, of which `left` are free, was asked for `bytes` more.
[[noreturn, gnu::cold]] inline void too_little_memory(std::size_t bytes, std::size_t left, std::size_t all) {
  const auto mebibytes = [](std::size_t n) { return (n + (std::size_t{1} << 20) - 1) >> 20; };
  fail("the device has too little memory: ", mebibytes(bytes), " MiB more were asked for, and ", left >> 20, " of its ",
       all >> 20, " MiB are free: ", mebibytes(bytes - std::min(bytes, left)), " MiB are missing, and ",
       100 * std::min(bytes, left) / std::max<std::size_t>(bytes, 1),
       " % of what was asked for would fit. The data set and the model must fit (a batch of any size goes in tiles); "
       "shard the records over more devices, or train on the CPU: include dpsgd/dpsgd.hpp");
}
}  // namespace detail

/// f(i) for i in [0, n): any elementwise work.
template <class F>
struct each_element {
  static constexpr int threads = 256;
  std::size_t n;
  F f;

  constexpr void operator()(auto& team) const {
    team.each([&](int thread, no_registers&) {
      for (std::size_t i = team.rank() * threads + static_cast<std::size_t>(thread); i < n; i += team.size() * threads)
        f(i);
    });
  }
};

}  // namespace dpsgd::cuda
