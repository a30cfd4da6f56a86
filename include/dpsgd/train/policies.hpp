/// How the trainer finds its policies: each plays one role, told by its concept, and they may come in any order.
#pragma once

#include <cstddef>
#include <tuple>
#include <type_traits>

namespace dpsgd {

/// How many of the policies play a role: Trait<T>::value says whether T does.
template <template <class> class Trait, class... Policies>
inline constexpr int players = (0 + ... + int{Trait<std::remove_cvref_t<Policies>>::value});

/// The place of the first policy that plays the role; behind the last where none does.
template <template <class> class Trait, class... Policies>
constexpr std::size_t place_of() {
  const bool plays[] = {Trait<std::remove_cvref_t<Policies>>::value..., true};
  std::size_t i = 0;
  while (!plays[i]) ++i;
  return i;
}

/// The type of the policy that plays the role; Fallback where none does.
template <template <class> class Trait, class Fallback, class... Policies>
using player =
    std::remove_cvref_t<std::tuple_element_t<place_of<Trait, Policies...>(), std::tuple<Policies..., Fallback>>>;

/// That policy, by reference; `fallback` where none does.
template <template <class> class Trait, class Fallback, class... Policies>
constexpr auto& pick(Fallback& fallback, std::tuple<Policies...>& policies) {
  constexpr auto place = place_of<Trait, Policies...>();
  if constexpr (place < sizeof...(Policies)) return std::get<place>(policies);
  else return fallback;
}

}  // namespace dpsgd
