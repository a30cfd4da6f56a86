/// Clipping policies: how much of one example's gradient is let through, and the sensitivity that follows.
///
/// A clip is a plain struct with
///   double factor(double norm) const               what a gradient of that L2 norm is multiplied by
///   ... sensitivity() const                        l2_sensitivity<Adjacency>, or unbounded
///   void check(layers) const                       optional: throws dpsgd::error where its numbers are impossible, or
///                                                  do not fit a model of so many layers with parameters
/// Law: norm * factor(norm) <= sensitivity().value for every norm.
///
/// Or, to clip each layer's gradient by itself,
///   double factor(norm, group, groups) const       of the group-th of `groups` layers with parameters, by that norm
///   double group_bound(group, groups) const        no norm of that group is larger afterwards
///   ... sensitivity() const                        of all groups jointly
/// Law: norm * factor(norm, group, groups) <= group_bound(group, groups), and the root of the sum of the squared bounds
/// is at most sensitivity().value.
///
/// A clip that learns from the data (privacy/adaptive_clip.hpp) may add coordinates of its own to the vector that
/// travels, which are summed, noised and averaged like the gradient's. It has all of these, or none:
///   static constexpr std::size_t extra             how many
///   double contribution(double norm, k) const      what an example whose gradient has that norm adds to the k-th; an
///                                                  example that is not in the batch adds nothing
///   double next(k, double mean) const              what becomes of the k-th: from its noised sum / expected batch
///   void load(k, double value)                     that, back on every rank (rounded to float): the state from now on
///   double value(k) const                          the state: load(k, value(k)) changes nothing
/// Law: in every state, (norm * factor(norm))^2 + the sum of contribution(norm, k)^2 <= sensitivity().value^2. So the
/// query is a part of the step's one event, and not free.
///
/// testing/laws.hpp's check_clip tries the laws. The trainer applies min(factor, bound / norm) all the same, with the
/// bound that the contributions leave, so that a mistake here costs accuracy, not privacy.
#pragma once

#include <array>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <type_traits>

#include "dpsgd/accounting/events.hpp"
#include "dpsgd/core/error.hpp"
#include "dpsgd/privacy/sensitivity.hpp"

namespace dpsgd {

/// What a sensitivity looks like: l2_sensitivity<A> for some adjacency, or unbounded.
template <class S>
concept sensitivity_type = std::same_as<S, unbounded> || requires(S s) {
  typename S::adjacency;
  { s.value } -> std::convertible_to<double>;
};

/// A clip that looks at each layer's gradient by itself.
template <class C>
concept grouped_clip = std::is_trivially_copyable_v<C> && requires(const C c, double norm, std::size_t n) {
  { c.factor(norm, n, n) } -> std::convertible_to<double>;
  { c.group_bound(n, n) } -> std::convertible_to<double>;
  { c.sensitivity() } -> sensitivity_type;
};

template <class C>
concept clip_policy = grouped_clip<C> ||(std::is_trivially_copyable_v<C>&& requires(const C c, double norm) {
  { c.factor(norm) } -> std::convertible_to<double>;
  { c.sensitivity() } -> sensitivity_type;
});

/// A clip that has all it takes to learn from coordinates of its own.
template <class C>
concept clip_with_coordinates =
    clip_policy<C> && !grouped_clip<C> && requires(C c, const C state, double x, std::size_t k) {
  std::integral_constant<std::size_t, C::extra>{};
  { state.contribution(x, k) } -> std::convertible_to<double>;
  { state.next(k, x) } -> std::convertible_to<double>;
  { state.value(k) } -> std::convertible_to<double>;
  c.load(k, x);
  { state.sensitivity().value } -> std::convertible_to<double>;  // bounded
};

/// How many coordinates of its own a clip adds to the vector that travels.
template <class C>
inline constexpr std::size_t extra_coordinates = 0;
template <clip_with_coordinates C>
inline constexpr std::size_t extra_coordinates<C> = C::extra;

/// A clip that means to have coordinates of its own: one that names any of what they take.
template <class C>
concept names_coordinates = requires {
  C::extra;
}
|| requires { &C::contribution; }
|| requires { &C::next; }
|| requires { &C::load; };

/// Scales a gradient down to `bound` when its norm is larger: factor = min(1, bound / norm) (Abadi et al. 2016).
struct flat_clip {
  double bound = 1.0;  // C, in units of the gradient; positive

  constexpr double factor(double norm) const { return bound / (norm > bound ? norm : bound); }
  constexpr l2_sensitivity<zero_out> sensitivity() const { return {bound}; }
};
static_assert(clip_policy<flat_clip>);

/// Scales every gradient to about the same length: factor = bound / (norm + gamma), "automatic" clipping (Bu, Wang, Zha
/// and Karypis 2023). Without gamma even the gradient of an example learnt long ago would count in full. The bound and
/// the learning rate then do the same: keep one at 1 and tune the other.
struct automatic_clip {
  double bound = 1.0;   // C, in units of the gradient; positive
  double gamma = 0.01;  // in units of the gradient; positive

  constexpr double factor(double norm) const { return bound / (norm + gamma); }
  constexpr l2_sensitivity<zero_out> sensitivity() const { return {bound}; }
  void check(std::size_t) const { require(gamma > 0, "automatic clipping's gamma must be positive; got ", gamma); }
};
static_assert(clip_policy<automatic_clip>);

/// Per-sample adaptive clipping, PSAC (Xia et al. 2023): factor = bound / (norm + r / (norm + r)). Like automatic
/// clipping for long gradients, but short ones, whose direction is mostly chance, are not blown up beyond about
/// `bound`: the factor of norm 0 is `bound`, where automatic clipping's is bound / gamma.
struct psac_clip {
  double bound = 1.0;  // C, in units of the gradient; positive
  double r = 0.1;      // in units of the gradient; positive

  constexpr double factor(double norm) const { return bound / (norm + r / (norm + r)); }
  constexpr l2_sensitivity<zero_out> sensitivity() const { return {bound}; }
  void check(std::size_t) const { require(r > 0, "PSAC's r must be positive; got ", r); }
};
static_assert(clip_policy<psac_clip>);

/// Clips the gradient of each of the L layers with parameters by itself, to bound / sqrt(L) (McMahan et al. 2018): their
/// squares add up, so `bound` is the joint sensitivity whatever L is.
struct per_layer_clip {
  double bound = 1.0;  // C of all layers together, in units of the gradient; positive

  double group_bound(std::size_t, std::size_t groups) const { return bound / std::sqrt(static_cast<double>(groups)); }
  double factor(double norm, std::size_t group, std::size_t groups) const {
    const double most = group_bound(group, groups);
    return most / (norm > most ? norm : most);
  }
  constexpr l2_sensitivity<zero_out> sensitivity() const { return {bound}; }
};
static_assert(clip_policy<per_layer_clip>);

/// Clips the gradient of the i-th layer with parameters to bounds[i] (McMahan et al. 2018). Jointly their sensitivity is
/// the root of the sum of squares.
///   layer_bounds_clip<2>{{1.0, 0.5}}
template <std::size_t Layers>
struct layer_bounds_clip {
  std::array<double, Layers> bounds{};  // C_i, in units of the gradient; positive

  double group_bound(std::size_t group, std::size_t) const { return bounds[group]; }
  double factor(double norm, std::size_t group, std::size_t) const {
    return bounds[group] / (norm > bounds[group] ? norm : bounds[group]);
  }
  l2_sensitivity<zero_out> sensitivity() const {
    double square = 0;
    for (const double b : bounds) square += b * b;
    return {std::sqrt(square)};
  }
  void check(std::size_t layers) const {
    require(layers == Layers, "layer_bounds_clip has ", Layers, " bounds, but the model ", layers,
            " layers with parameters; give one bound for each");
    for (const double b : bounds) require(b > 0, "a layer's clip bound must be positive; got ", b);
  }
};
static_assert(clip_policy<layer_bounds_clip<2>>);

/// Lets every gradient through. Goes with no_noise alone: training without privacy.
struct no_clip {
  constexpr double factor(double) const { return 1.0; }
  constexpr unbounded sensitivity() const { return {}; }
};
static_assert(clip_policy<no_clip>);

/// Whether a clip bounds anything.
template <class C>
inline constexpr bool bounded = !std::same_as<decltype(std::declval<const C&>().sensitivity()), unbounded>;

/// Throws dpsgd::error where the bounds of a model's `groups` layers are together more than the clip's sensitivity.
template <grouped_clip Clip>
void check_group_bounds(const Clip& clip, std::size_t groups) {
  double square = 0;
  for (std::size_t g = 0; g < groups; ++g) square += clip.group_bound(g, groups) * clip.group_bound(g, groups);
  const double most = clip.sensitivity().value;
  require(std::sqrt(square) <= most * (1 + 1e-12), "the bounds of ", groups, " layers are jointly ", std::sqrt(square),
          ", more than the clip's sensitivity ", most);
}

}  // namespace dpsgd
