/// Views: a pointer with a shape, whose type says in which memory the elements live. They own nothing.
#pragma once

#include <cstddef>

namespace dpsgd {

/// The memory of the host, reachable by any C++ code. (cuda/ adds device_memory.)
struct host_memory {};

/// `size` elements in a row.
template <class T, class Memory = host_memory>
struct vector_view {
  T* data = nullptr;
  std::size_t size = 0;

  constexpr T& operator[](std::size_t i) const { return data[i]; }
  constexpr T* begin() const { return data; }
  constexpr T* end() const { return data + size; }
  constexpr vector_view part(std::size_t first, std::size_t count) const { return {data + first, count}; }
  constexpr operator vector_view<const T, Memory>() const { return {data, size}; }
};

/// `rows` x `cols` elements, row-major; row r begins at data + r * stride (stride >= cols, in elements).
template <class T, class Memory = host_memory>
struct matrix_view {
  T* data = nullptr;
  std::size_t rows = 0, cols = 0, stride = 0;

  constexpr T* row(std::size_t r) const { return data + r * stride; }
  constexpr T& operator()(std::size_t r, std::size_t c) const { return data[r * stride + c]; }
  /// Rows [first, first + count) as a view of their own.
  constexpr matrix_view rows_of(std::size_t first, std::size_t count) const {
    return {row(first), count, cols, stride};
  }
  constexpr operator matrix_view<const T, Memory>() const { return {data, rows, cols, stride}; }
};

}  // namespace dpsgd
