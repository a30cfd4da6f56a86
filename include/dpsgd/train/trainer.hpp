/// DP-SGD on any number of ranks, by the policies that it is given.
///
///   dpsgd::trainer trainer{world, flat_clip{1.0}, gaussian_noise{0.9}, poisson_sampling{0.01}, allreduce::circulant{}};
///   const auto report = trainer.fit(model, shard(train, world), {.steps = 1000, .learning_rate = 0.5, .delta = 1e-6});
///   std::cout << report.claim;
///
/// The policies are found by their concepts, in any order; what is absent has a default. A pairing whose privacy claim
/// would be false does not compile. The algorithm itself is in train/run.hpp.
#pragma once

#include <concepts>
#include <cstdint>
#include <tuple>
#include <type_traits>
#include <utility>

#include "dpsgd/accounting/events.hpp"
#include "dpsgd/accounting/pld.hpp"
#include "dpsgd/allreduce/circulant.hpp"
#include "dpsgd/comm/communicator.hpp"
#include "dpsgd/comm/execute.hpp"
#include "dpsgd/concepts.hpp"
#include "dpsgd/core/view.hpp"
#include "dpsgd/optim/schedules.hpp"
#include "dpsgd/optim/sgd.hpp"
#include "dpsgd/privacy/clip.hpp"
#include "dpsgd/privacy/noise.hpp"
#include "dpsgd/privacy/sampling.hpp"
#include "dpsgd/train/clipped_sum.hpp"
#include "dpsgd/train/fit.hpp"
#include "dpsgd/train/policies.hpp"
#include "dpsgd/train/run.hpp"

namespace dpsgd {

namespace detail {

template <class T>
struct is_world : std::bool_constant<communicator<T>> {};
template <class T>
struct is_clip : std::bool_constant<clip_policy<T>> {};
template <class T>
struct is_noise : std::bool_constant<noise_policy<T>> {};
template <class T>
struct is_sampling : std::bool_constant<sampling_policy<T>> {};
template <class T>
struct is_optimizer : std::bool_constant<optimizer<T>> {};
template <class T>
struct is_schedule : std::bool_constant<learning_rate_schedule<T>> {};
template <class T>
struct is_accountant : std::bool_constant<accountant<T>> {};
template <class T>
struct is_allreduce : std::bool_constant<allreduce_policy<T>> {};
template <class T>
struct is_norms : std::bool_constant<std::same_as<T, ghost_norms> || std::same_as<T, materialised_norms>> {};
template <class T>
struct is_backend : std::bool_constant<backend<T>> {};

template <class T>
inline constexpr int roles = is_world<T>::value + is_clip<T>::value + is_noise<T>::value + is_sampling<T>::value +
                             is_optimizer<T>::value + is_schedule<T>::value + is_accountant<T>::value +
                             is_allreduce<T>::value + is_norms<T>::value + is_backend<T>::value;

/// A communicator is held by reference, since ranks share it; every other policy by value.
template <class P>
using held = std::conditional_t<is_world<std::remove_cvref_t<P>>::value && std::is_lvalue_reference_v<P>,
                                std::remove_cvref_t<P>&, std::remove_cvref_t<P>>;

}  // namespace detail

/// Trains by the policies it is given. See the top of this page.
template <class... Policies>
class trainer {
  template <template <class> class Trait>
  static constexpr int count = players<Trait, Policies...>;

  static_assert(
      ((detail::roles<std::remove_cvref_t<Policies>> > 0) && ...),
      "dpsgd: a trainer was given something that is no policy; see concepts.hpp for what a clip, noise, sampling, "
      "optimizer, schedule, accountant, allreduce, communicator or backend must have");
  static_assert(((detail::roles<std::remove_cvref_t<Policies>> < 2) && ...),
                "dpsgd: a policy plays two roles at once; split it into two types");
  static_assert(count<detail::is_clip> == 1,
                "dpsgd: a trainer needs exactly one clip: flat_clip{.bound = C}, or no_clip{} (not private)");
  static_assert(
      count<detail::is_noise> == 1,
      "dpsgd: a trainer needs exactly one noise: gaussian_noise{.multiplier = z}, or no_noise{} (not private)");
  static_assert(count<detail::is_sampling> == 1,
                "dpsgd: a trainer needs exactly one sampling: poisson_sampling{.rate = q}");
  static_assert(count<detail::is_world> <= 1 && count<detail::is_optimizer> <= 1 && count<detail::is_schedule> <= 1 &&
                    count<detail::is_accountant> <= 1 && count<detail::is_allreduce> <= 1 &&
                    count<detail::is_norms> <= 1 && count<detail::is_backend> <= 1,
                "dpsgd: a trainer was given two policies for one role; leave one out");

  template <template <class> class Trait, class Fallback>
  using player = dpsgd::player<Trait, Fallback, Policies...>;

  using clip_type = player<detail::is_clip, no_clip>;
  using noise_type = player<detail::is_noise, no_noise>;
  using sampling_type = player<detail::is_sampling, poisson_sampling>;
  using accountant_type = player<detail::is_accountant, pld_accountant>;
  using backend_type =
      player<detail::is_backend,
             typename std::conditional_t<count<detail::is_backend> == 0,  // the default is asked for where it is needed
                                         default_backend<std::enable_if_t<(sizeof...(Policies) > 0)>>,
                                         std::type_identity<void>>::type>;
  using norms_type = player<detail::is_norms, ghost_norms>;
  using optimizer_type = player<detail::is_optimizer, sgd>;

  static_assert(
      !names_coordinates<clip_type> || !grouped_clip<clip_type>,
      "dpsgd: a clip by layer cannot have coordinates of its own; give it factor(norm) of the whole gradient, as "
      "adaptive_clip has");
  static_assert(!names_coordinates<clip_type> || grouped_clip<clip_type> || clip_with_coordinates<clip_type>,
                "dpsgd: a clip with coordinates of its own needs all of extra, contribution(norm, k), next(k, mean), "
                "load(k, value), value(k), and a sensitivity() that bounds gradient and contributions together; see "
                "privacy/clip.hpp");
  static_assert(
      !requires { &clip_type::event; },
      "dpsgd: a clip is no event of its own: what it counts is seen in the same sample as the gradient; give it "
      "coordinates (extra, contribution, ...) and the joint sensitivity, as adaptive_clip has");
  static_assert(
      requires(const clip_type c, const noise_type n) { n.event(c.sensitivity()); },
      "dpsgd: this noise cannot protect what this clip lets through; use a clip that bounds the gradient "
      "(flat_clip), or no_noise for training without privacy");

 public:
  /// What one step of this trainer is, to the accountant.
  using event_type =
      decltype(step_event(std::declval<clip_type>(), std::declval<noise_type>(), std::declval<sampling_type>()));

 private:
  static_assert(
      !requires(const clip_type c, const noise_type n) { n.event(c.sensitivity()); } ||
          !std::same_as<event_type, refused_event>,
      "dpsgd: this sampling cannot amplify the event of this noise; use poisson_sampling with gaussian_noise, "
      "exact_poisson_sampling with discrete_gaussian_noise, cyclic_sampling with banded_noise and tree_noise");
  static_assert(
      accounts<accountant_type, event_type>,
      "dpsgd: this accountant cannot account for this clip, noise and sampler; use pld_accountant, the default "
      "(rdp_accountant{} for fixed_size_sampling and for discrete_gaussian_noise)");

 public:
  /// Policies in any order. A communicator given as a variable is kept by reference and must outlive the trainer.
  template <class... Given>
  requires(sizeof...(Given) == sizeof...(Policies)) explicit trainer(Given&&... given)
      : policies_(std::forward<Given>(given)...) {}

  /// The event of one step: what an accountant is given for each.
  event_type event() { return found().event(); }

  /// Trains `model` on this rank's records, from rank 0's parameters, and leaves the same bits in it on every rank.
  /// `data` is a dataset or a shard of one: features(), labels(), records(), universe(), all(), position(i),
  /// locate(position). All ranks call it together with the same options. Throws dpsgd::error on impossible settings,
  /// when a rank is lost (peer_lost, which names the step) and when the journal cannot be written.
  template <class Model, class Records>
  fit_report fit(Model& model, const Records& data, const fit_options& options) {
    const auto policies = found();
    return training_run(policies, model, data, options).go();
  }

 private:
  template <template <class> class Trait, class Fallback>
  auto& get(Fallback& fallback) {
    return pick<Trait>(fallback, policies_);
  }
  /// Every policy in its role.
  auto found() {
    return cast<player<detail::is_world, single>, backend_type, norms_type, clip_type, noise_type, sampling_type,
                optimizer_type, player<detail::is_schedule, constant_rate>, accountant_type,
                player<detail::is_allreduce, allreduce::circulant>>{
        get<detail::is_world>(single_),           get<detail::is_backend>(backend_),
        get<detail::is_clip>(no_clip_),           get<detail::is_noise>(no_noise_),
        get<detail::is_sampling>(sampling_),      get<detail::is_optimizer>(sgd_),
        get<detail::is_schedule>(constant_rate_), get<detail::is_accountant>(accountant_),
        get<detail::is_allreduce>(circulant_)};
  }

  std::tuple<Policies...> policies_;
  // Defaults for what was not given.
  single single_;
  no_clip no_clip_;
  no_noise no_noise_;
  poisson_sampling sampling_;
  sgd sgd_;
  constant_rate constant_rate_;
  pld_accountant accountant_;
  allreduce::circulant circulant_;
  backend_type backend_;
};
template <class... Given>
trainer(Given&&...) -> trainer<detail::held<Given>...>;

}  // namespace dpsgd
