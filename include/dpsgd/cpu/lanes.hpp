/// One vector register of floats, by the compilers' vector extension, and the two shuffles that rows need.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

namespace dpsgd::cpu {

#if defined(DPSGD_LANES)  // another number, for tests
inline constexpr int lanes = DPSGD_LANES, registers = 32;
#elif defined(__AVX512F__) && !defined(__clang__)
inline constexpr int lanes = 16, registers = 32;
#elif defined(__AVX512VL__)  // clang splits 16 lanes into two registers by default
inline constexpr int lanes = 8, registers = 32;
#elif defined(__AVX__)
inline constexpr int lanes = 8, registers = 16;
#else
inline constexpr int lanes = 4, registers = 16;
#endif

/// `lanes` floats, aligned; the compiler splits or joins it where the target's registers have another size.
typedef float floats __attribute__((vector_size(4 * lanes), may_alias));
/// The same from any address.
typedef float unaligned_floats __attribute__((vector_size(4 * lanes), may_alias, aligned(4)));

/// As many whole numbers, and half as many doubles.
typedef std::int32_t ints __attribute__((vector_size(4 * lanes), may_alias));
typedef double doubles __attribute__((vector_size(4 * lanes), may_alias));

inline const floats& load(const float* at) { return *reinterpret_cast<const floats*>(at); }
inline floats load_unaligned(const float* at) { return *reinterpret_cast<const unaligned_floats*>(at); }
inline void store(float* at, floats v) { *reinterpret_cast<floats*>(at) = v; }

namespace detail {
template <int D, bool Second, int... L>
[[gnu::always_inline]] inline floats interleave(floats a, floats b, std::integer_sequence<int, L...>) {
  return __builtin_shufflevector(a, b, ((L / D % 2 == 0 ? L : lanes + L - D) + (Second ? D : 0))...);
}
/// Of every 2 D lanes the first D (or the second D) of a, then those of b.
template <int D, bool Second>
[[gnu::always_inline]] inline floats interleave(floats a, floats b) {
  return interleave<D, Second>(a, b, std::make_integer_sequence<int, lanes>{});
}
template <int D>
[[gnu::always_inline]] inline void transpose_from(floats (&v)[lanes]) {
#pragma GCC unroll 16
  for (int i = 0; i < lanes; ++i)
    if ((i & D) == 0) {
      const floats a = v[i], b = v[i + D];
      v[i] = interleave<D, false>(a, b);
      v[i + D] = interleave<D, true>(a, b);
    }
  if constexpr (2 * D < lanes) transpose_from<2 * D>(v);
}
template <int D>
[[gnu::always_inline]] inline floats sum_from(floats (&v)[lanes]) {
#pragma GCC unroll 16
  for (int i = 0; i < lanes; i += 2 * D)
    v[i] = interleave<D, false>(v[i], v[i + D]) + interleave<D, true>(v[i], v[i + D]);
  if constexpr (2 * D < lanes) return sum_from<2 * D>(v);
  else return v[0];
}
}  // namespace detail

namespace detail {
template <int First, int... L>
[[gnu::always_inline]] inline doubles half(ints v, std::integer_sequence<int, L...>) {
  return __builtin_convertvector(__builtin_shufflevector(v, v, (First + L)...), doubles);
}
}  // namespace detail

/// The first half of the lanes, and the second, as doubles.
[[gnu::always_inline]] inline doubles first_half(ints v) {
  return detail::half<0>(v, std::make_integer_sequence<int, lanes / 2>{});
}
[[gnu::always_inline]] inline doubles second_half(ints v) {
  return detail::half<lanes / 2>(v, std::make_integer_sequence<int, lanes / 2>{});
}

/// v[i][j] and v[j][i] change places.
inline void transpose(floats (&v)[lanes]) { detail::transpose_from<1>(v); }

/// Lane i of the result is the sum of the lanes of v[i], added pairwise: ((0+1)+(2+3))+... for every i. Destroys v.
inline floats sum_each(floats (&v)[lanes]) { return detail::sum_from<1>(v); }

}  // namespace dpsgd::cpu
