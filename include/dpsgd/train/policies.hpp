/// How the trainer finds its policies: each plays one role, told by its concept, and they may come in any order.
#pragma once

#include <cstddef>
#include <tuple>
#include <type_traits>
#include <utility>

namespace dpsgd {

/// A role: Trait<T>::value says whether T plays it.
template <template <class> class Trait, class... Policies>
inline constexpr int players = (0 + ... + int{Trait<std::remove_cvref_t<Policies>>::value});

/// The policy among `given` that plays the role, by reference; `fallback` where none does.
template <template <class> class Trait, class Fallback, class First, class... Rest>
constexpr auto& pick(Fallback& fallback, First& first, Rest&... rest) {
  if constexpr (Trait<std::remove_cvref_t<First>>::value) return first;
  else if constexpr (sizeof...(Rest) == 0) return fallback;
  else return pick<Trait>(fallback, rest...);
}
template <template <class> class Trait, class Fallback>
constexpr auto& pick(Fallback& fallback) {
  return fallback;
}

}  // namespace dpsgd
