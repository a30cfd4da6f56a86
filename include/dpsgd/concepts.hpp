/// Every extension point of dpsgd and its law, on one page. testing/laws.hpp tests your own type against its law.
///
///   to change                 write a type with                                     concept and an example
///   how gradients are bounded factor(norm), sensitivity()                           clip_policy, privacy/clip.hpp
///     law: norm * factor(norm) <= sensitivity(); or by layer: factor(norm, layer, layers), group_bound(layer, layers)
///   a bound that adapts       extra, contribution(norm, k), next(k, mean),          clip_with_coordinates,
///                             load(k, value), value(k)                                privacy/adaptive_clip.hpp
///     law: (norm * factor(norm))^2 + contributions^2 <= sensitivity()^2, in every state
///   what is added             draw(stream, block, sensitivity, out), event(...)     noise_policy, privacy/noise.hpp
///     law: a function of (stream, coordinate); standard deviation = multiplier x sensitivity of the sum
///     its value is what is summed: float, or std::int64_t (exact mode, privacy/discrete_noise.hpp)
///     with covariance(sensitivity, step, other) in place of variance(sensitivity), it is correlated over the steps of a
///     key and may draw their words again (privacy/correlated_noise.hpp); its event then says what that spends
///   who joins a step          expected_batch(N), draw(stream, records, rows),       sampling_policy,
///                             amplify(event) [, memory, check(N)]                     privacy/sampling.hpp
///     law: a function of (stream, position); the event that amplify returns is what the sampler that runs does
///   what it all spends        add(event, steps), spent(delta)                       accountant, accounting/pld.hpp
///     law: never below the true epsilon of events fixed beforehand; where they are chosen on the way, rdp_filter is
///   how ranks add up          reduce_scatter(me, send), or all_reduce(me, send)     allreduce::algorithm,
///     law: every contribution counts once in every block (verify, prove)              allreduce/ring.hpp
///   how ranks talk            rank(), size(), exchange(sends, receives)             communicator, comm/threads.hpp
///     in place                  [exchange(sends, receives, work), make_buffer]        in_place_communicator
///   a layer                   outputs, forward, backward [, tensors, gradient,      layer, nn/linear.hpp
///                             norms]
///     law: gradients agree with finite differences; rows do not mix; norms are those of the gradients
///   a step of the optimizer   moments, rule(facts).step(weight, gradient, moments)  optimizer, optim/sgd.hpp
///   the learning rate         factor(step, steps)                                   learning_rate_schedule,
///                                                                                     optim/schedules.hpp
///   where it is computed      the operations of cpu/backend.hpp                     backend, cpu/backend.hpp
#pragma once

#include "dpsgd/accounting/events.hpp"
#include "dpsgd/allreduce/schedule.hpp"
#include "dpsgd/comm/communicator.hpp"
#include "dpsgd/nn/layer.hpp"
#include "dpsgd/optim/optimizer.hpp"
#include "dpsgd/privacy/clip.hpp"
#include "dpsgd/privacy/noise.hpp"
#include "dpsgd/privacy/sampling.hpp"

namespace dpsgd {

/// Where layers, losses and the trainer compute: see cpu/backend.hpp, which has all operations. Views carry its memory
/// in their type.
template <class B>
concept backend = requires(B b) {
  typename B::memory;
  typename B::weights;
  { B::stride(std::size_t{1}) } -> std::convertible_to<std::size_t>;
  b.template make<float>(std::size_t{1});
};

/// The backend of a trainer that names none. Only an umbrella header says which (dpsgd.hpp: cpu::backend).
template <class = void>
struct default_backend;

}  // namespace dpsgd
