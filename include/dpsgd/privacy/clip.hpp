/// Clipping policies: how much of one example's gradient is let through, and the sensitivity that follows.
///
/// A clip is a plain struct with
///   constexpr double factor(double norm) const     what a gradient of that L2 norm is multiplied by
///   constexpr ... sensitivity() const              l2_sensitivity<Adjacency>, or unbounded
/// Law: norm * factor(norm) <= sensitivity().value for every norm. (testing/laws.hpp's check_clip; the trainer applies
/// min(factor, sensitivity / norm) all the same, so that a mistake here costs accuracy, not privacy.)
#pragma once

#include <concepts>
#include <type_traits>

#include "dpsgd/accounting/events.hpp"
#include "dpsgd/privacy/sensitivity.hpp"

namespace dpsgd {

/// What a sensitivity looks like: l2_sensitivity<A> for some adjacency, or unbounded.
template <class S>
concept sensitivity_type = std::same_as<S, unbounded> || requires(S s) {
  typename S::adjacency;
  { s.value } -> std::convertible_to<double>;
};

template <class C>
concept clip_policy = std::is_trivially_copyable_v<C> && requires(const C c, double norm) {
  { c.factor(norm) } -> std::convertible_to<double>;
  { c.sensitivity() } -> sensitivity_type;
};

/// Scales a gradient down to `bound` when its norm is larger: factor = min(1, bound / norm) (Abadi et al. 2016).
struct flat_clip {
  double bound = 1.0;  // C, in units of the gradient; positive

  constexpr double factor(double norm) const { return norm > bound ? bound / norm : 1.0; }
  constexpr l2_sensitivity<zero_out> sensitivity() const { return {bound}; }
};
static_assert(clip_policy<flat_clip>);

/// Lets every gradient through. Goes with no_noise alone: training without privacy.
struct no_clip {
  constexpr double factor(double) const { return 1.0; }
  constexpr unbounded sensitivity() const { return {}; }
};
static_assert(clip_policy<no_clip>);

/// Whether a clip bounds anything.
template <class C>
inline constexpr bool bounded = !std::same_as<decltype(std::declval<const C&>().sensitivity()), unbounded>;

}  // namespace dpsgd
