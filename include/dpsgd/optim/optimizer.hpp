/// What an optimizer is: one coordinate's step, given what is public about this step of training.
///
///   static constexpr int moments                   numbers kept for each coordinate (0, 1, 2, ...), all zero at first
///   ... rule(step_facts) const                     what is the same for all coordinates, worked out once a step
///   constexpr float rule.step(float weight, float gradient, float* moments) const      the new weight
/// It sees the noised gradient alone, so whatever it does is post-processing and costs no privacy.
#pragma once

#include <concepts>
#include <cstdint>
#include <type_traits>

namespace dpsgd {

/// What an optimizer may know about a step; all of it public.
struct step_facts {
  std::uint64_t step = 1;     // from 1
  double learning_rate = 0;   // after the schedule
  double noise_variance = 0;  // of the noise in each coordinate of the averaged gradient
};

template <class O>
concept optimizer = std::is_trivially_copyable_v<O> && requires(const O o, step_facts facts, float* moments) {
  { O::moments } -> std::convertible_to<int>;
  { o.rule(facts).step(0.0f, 0.0f, moments) } -> std::same_as<float>;
};

/// A learning-rate schedule: the factor of step `step` (from 0) of `steps`.
template <class S>
concept learning_rate_schedule = requires(const S s, std::uint64_t step) {
  { s.factor(step, step) } -> std::convertible_to<double>;
};

}  // namespace dpsgd
