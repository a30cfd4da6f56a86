/// Owned, 64-byte aligned host memory, zeroed when it is made.
#pragma once

#include <algorithm>
#include <cstddef>
#include <memory>
#include <new>
#include <type_traits>
#include <utility>

#include "dpsgd/core/view.hpp"

namespace dpsgd {

/// `size` elements of T, all zero at first. Movable, not copyable.
template <class T>
class buffer {
  static_assert(std::is_trivially_copyable_v<T>, "dpsgd: a buffer holds plain values");
  static constexpr std::align_val_t alignment{64};
  struct release {
    void operator()(T* p) const { ::operator delete(p, alignment); }
  };

 public:
  buffer() = default;
  explicit buffer(std::size_t size)
      : data_(size ? static_cast<T*>(::operator new(size * sizeof(T), alignment)) : nullptr, release{}), size_(size) {
    std::fill_n(data_.get(), size, T{});
  }
  /// Over `size` zeroed elements from elsewhere, which are given back as `memory` says: see make_buffer in comm/.
  buffer(std::shared_ptr<T[]> memory, std::size_t size) : data_(std::move(memory)), size_(size) {}
  buffer(buffer&&) noexcept = default;
  buffer& operator=(buffer&&) noexcept = default;

  T* data() const { return data_.get(); }
  std::size_t size() const { return size_; }
  T* begin() const { return data(); }
  T* end() const { return data() + size_; }
  T& operator[](std::size_t i) const { return data_[i]; }
  operator vector_view<T>() const { return {data(), size_}; }
  operator vector_view<const T>() const { return {data(), size_}; }

 private:
  std::shared_ptr<T[]> data_;  // nobody else's: shared, because that keeps how it is given back
  std::size_t size_ = 0;
};

}  // namespace dpsgd
