/// DP-SGD on any number of ranks: draw, clipped sum, reduce, release, gather.
///
///   dpsgd::trainer trainer{world, flat_clip{1.0}, gaussian_noise{0.9}, poisson_sampling{0.01},
///   allreduce::circulant{}}; const auto report = trainer.fit(model, shard(train, world), {.steps = 1000,
///   .learning_rate = 0.5, .delta = 1e-6}); std::cout << report.claim;
///
/// The policies are found by their concepts, in any order; what is absent has a default. A pairing whose privacy claim
/// would be false does not compile.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <concepts>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <iterator>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "dpsgd/accounting/calibrate.hpp"
#include "dpsgd/accounting/claim.hpp"
#include "dpsgd/accounting/events.hpp"
#include "dpsgd/accounting/pld.hpp"
#include "dpsgd/allreduce/circulant.hpp"
#include "dpsgd/comm/communicator.hpp"
#include "dpsgd/comm/execute.hpp"
#include "dpsgd/concepts.hpp"
#include "dpsgd/core/buffer.hpp"
#include "dpsgd/core/digest.hpp"
#include "dpsgd/core/error.hpp"
#include "dpsgd/core/random.hpp"
#include "dpsgd/optim/schedules.hpp"
#include "dpsgd/optim/sgd.hpp"
#include "dpsgd/privacy/clip.hpp"
#include "dpsgd/privacy/noise.hpp"
#include "dpsgd/privacy/sampling.hpp"
#include "dpsgd/train/clipped_sum.hpp"
#include "dpsgd/train/journal_base.hpp"
#include "dpsgd/train/policies.hpp"
#include "dpsgd/train/release.hpp"

namespace dpsgd {

/// What a step with these policies is, as an accountant sees it; refused_event where they do not go together.
template <class Clip, class Noise, class Sampling>
constexpr auto step_event(const Clip& clip, const Noise& noise, const Sampling& sampling) {
  if constexpr (!requires { noise.event(clip.sensitivity()); }) return refused_event{};
  else if constexpr (!requires { sampling.amplify(noise.event(clip.sensitivity())); }) return refused_event{};
  else return sampling.amplify(noise.event(clip.sensitivity()));
}

/// Where a run stands; handed to fit_options::on_progress on rank 0. Every number in it is public.
struct progress {
  std::uint64_t step, steps;  // released so far, resumed ones included; to be released
  std::uint64_t steps_here;   // released by this call
  double seconds;             // that they took
  double epsilon;             // that this run has spent so far, at most
};

/// How to train. Sizes are in steps: an epoch is 1 / rate steps.
struct fit_options {
  std::uint64_t steps = 0;                 ///< 0: as many as target_epsilon allows
  std::optional<double> target_epsilon{};  ///< stop before this run spends more
  double learning_rate = 0.5;
  double delta = 1e-6;
  std::optional<std::uint64_t> insecure_seed{};  ///< of noise and sampling, for tests: the run is then not private
  journal_base* journal = nullptr;               ///< rank 0's ledger and checkpoints (train/journal.hpp)
  std::uint64_t checkpoint_every = 0;            ///< steps; 0: at the end alone
  const std::atomic<bool>* stop = nullptr;       ///< when it becomes true on any rank, all stop after the same step
  std::function<void(const progress&)> on_progress{};
  double progress_every = 0.5;  ///< seconds
};

/// What fit did.
struct fit_report {
  dpsgd::claim claim;            ///< of this run, resumed steps included
  std::uint64_t steps = 0;       ///< released in all, resumed ones included
  std::uint64_t steps_here = 0;  ///< released by this call
  std::uint64_t target_steps = 0;
  double seconds = 0;              ///< of this call's steps
  bool stopped = false;            ///< by the wish to stop, before target_steps
  bool out_of_budget = false;      ///< by the ledger's budget
  not_private<double> not_finite;  ///< examples that counted as zero, their gradient not being finite
  not_private<double> records;     ///< records drawn by all ranks in this call
};

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

/// "rank 2: waited ..." or "waited ..." -> "rank 2: in step 17: waited ..."
inline std::string in_step(std::uint64_t step, int rank, std::string_view what) {
  const auto prefix = text("rank ", rank, ": ");
  if (what.starts_with(prefix)) what.remove_prefix(prefix.size());
  return text(prefix, "in step ", step, ": ", what);
}

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
  using player = std::remove_cvref_t<decltype(pick<Trait>(std::declval<Fallback&>(),
                                                          std::declval<std::remove_cvref_t<Policies>&>()...))>;

  using clip_type = player<detail::is_clip, no_clip>;
  using noise_type = player<detail::is_noise, no_noise>;
  using sampling_type = player<detail::is_sampling, poisson_sampling>;
  using accountant_type = player<detail::is_accountant, pld_accountant>;
  using backend_type =
      player<detail::is_backend, typename default_backend<std::enable_if_t<(sizeof...(Policies) > 0)>>::type>;
  using norms_type = player<detail::is_norms, ghost_norms>;
  using optimizer_type = player<detail::is_optimizer, sgd>;

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
      "dpsgd: this sampling cannot amplify the event of this noise; use poisson_sampling with gaussian_noise");
  static_assert(
      accounts<accountant_type, event_type>,
      "dpsgd: this accountant cannot account for this clip, noise and sampler; use pld_accountant, the default");
  static_assert(
      std::same_as<typename backend_type::memory, host_memory>,
      "dpsgd: this backend's memory is not the host's, and it brings no draw, clipped_sum and release of its own");

 public:
  /// Policies in any order. A communicator given as a variable is kept by reference and must outlive the trainer.
  template <class... Given>
  requires(sizeof...(Given) == sizeof...(Policies)) explicit trainer(Given&&... given)
      : policies_(std::forward<Given>(given)...) {}

  /// The event of one step: what an accountant is given for each.
  event_type event() {
    return step_event(get<detail::is_clip>(no_clip_), get<detail::is_noise>(no_noise_),
                      get<detail::is_sampling>(sampling_));
  }

  /// Trains `model` on this rank's records, from rank 0's parameters, and leaves the same bits in it on every rank.
  /// `data` is a dataset or a shard of one: features(), labels(), records(), universe(), all(), position(i),
  /// locate(position). All ranks call it together with the same options. Throws dpsgd::error on impossible settings,
  /// when a rank is lost (peer_lost, which names the step) and when the journal cannot be written.
  template <class Model, class Records>
  fit_report fit(Model& model, const Records& data, const fit_options& options);

 private:
  template <template <class> class Trait, class Fallback>
  auto& get(Fallback& fallback) {
    return std::apply(
        [&](auto&... policies) -> auto& { return pick<Trait>(fallback, policies...); }, policies_);
  }
  void check(std::uint64_t all, const fit_options& options);

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

template <class... Policies>
void trainer<Policies...>::check(std::uint64_t all, const fit_options& o) {
  const auto& sampling = get<detail::is_sampling>(sampling_);
  if constexpr (requires { sampling.rate; })
    require(sampling.rate >= 1e-9 && sampling.rate <= 1,
            "the sampling rate must lie in (0, 1], and be at least 1e-9; got ", sampling.rate);
  const auto& clip = get<detail::is_clip>(no_clip_);
  if constexpr (bounded<clip_type>)
    require(clip.sensitivity().value >= 1e-15 && clip.sensitivity().value <= 1e15,
            "the clip bound must lie in [1e-15, 1e15], so that floats hold it; got ", clip.sensitivity().value);
  const auto& noise = get<detail::is_noise>(no_noise_);
  if constexpr (requires { noise.multiplier; })
    require(noise.multiplier >= 1e-6 && noise.multiplier <= 1e15, "the noise multiplier must lie in [1e-6, 1e15]; got ",
            noise.multiplier, "; for training without privacy use no_noise");
  require(o.delta > 0 && o.delta < 1, "delta must lie in (0, 1); got ", o.delta);
  require(o.learning_rate > 0 && o.learning_rate < std::numeric_limits<double>::infinity(),
          "the learning rate must be positive and finite; got ", o.learning_rate);
  require(o.steps > 0 || o.target_epsilon, "say how long to train: fit_options::steps or target_epsilon");
  require(all > 0, "there is nothing to train on: the data has no positions");
}

namespace detail {

/// Ranks that disagree about what is done would make a claim that holds for none of them.
template <class World>
void check_agreement(World& world, std::initializer_list<double> settings) {
  const auto all = gather_all(world, digest_of(std::data(settings), settings.size() * sizeof(double)));
  for (std::size_t r = 1; r < all.size(); ++r)
    require(all[r] == all[0], "ranks 0 and ", r,
            " were given different policies, options, models or data sets; give all ranks the same");
}

/// The same record on two ranks would count twice, and the sensitivity would be wrong: the ranks' positions must be
/// ranges that do not meet, as shard() and the parts of a file are.
template <class World, class Records>
void check_shards(World& world, const Records& data) {
  const auto n = data.records();
  const std::array<std::uint64_t, 3> mine{n, n ? data.position(0) : 0, n ? data.position(n - 1) : 0};
  const auto all = gather_all(world, mine);
  for (std::size_t a = 0; a < all.size(); ++a)
    for (std::size_t b = a + 1; b < all.size(); ++b)
      require(all[a][0] == 0 || all[b][0] == 0 || all[a][2] < all[b][1] || all[b][2] < all[a][1], "ranks ", a, " and ",
              b,
              " hold records of the same range of positions; give each rank its own part: dpsgd::shard(data, world)");
}

}  // namespace detail

template <class... Policies>
template <class Model, class Records>
fit_report trainer<Policies...>::fit(Model& model, const Records& data, const fit_options& o) {
  using clock = std::chrono::steady_clock;
  auto& world = get<detail::is_world>(single_);
  auto& b = get<detail::is_backend>(backend_);
  const auto& clip = get<detail::is_clip>(no_clip_);
  const auto& noise = get<detail::is_noise>(no_noise_);
  const auto& sampling = get<detail::is_sampling>(sampling_);
  const auto& optimizer = get<detail::is_optimizer>(sgd_);
  const auto& schedule = get<detail::is_schedule>(constant_rate_);
  accountant_type accountant = get<detail::is_accountant>(accountant_);
  const bool root = world.rank() == 0;

  check(data.all(), o);
  detail::check_shards(world, data);
  require(data.features().cols == model.inputs(), "the model has ", model.inputs(), " inputs, but the data ",
          data.features().cols, " features");
  const event_type step = event();
  const double expected = sampling.expected_batch(data.all());
  double sensitivity = 0;
  if constexpr (bounded<clip_type>) sensitivity = clip.sensitivity().value;
  detail::check_agreement(
      world, {sensitivity, clip.factor(0.1 * sensitivity), clip.factor(sensitivity), clip.factor(10 * sensitivity),
              noise.variance(1.0), sampling.expected_batch(std::uint64_t{1} << 40), static_cast<double>(o.steps),
              o.target_epsilon.value_or(-1), o.learning_rate, schedule.factor(0, 1000), schedule.factor(500, 1000),
              o.delta, o.insecure_seed ? 1.0 : 0.0, static_cast<double>(o.insecure_seed.value_or(0)),
              o.journal ? 1.0 : 0.0, static_cast<double>(o.checkpoint_every), static_cast<double>(data.universe()),
              static_cast<double>(data.all()), static_cast<double>(model.parameters().size())});

  // One vector travels: the parameters' coordinates, then the wish to stop.
  const std::size_t size = model.parameters().size(), stop_at = size, length = size + 1;
  auto run = bind<float>(get<detail::is_allreduce>(circulant_), world, length);
  const auto mine = run.mine();
  const std::size_t mine_weights = mine.first < size ? std::min(mine.first + mine.count, size) - mine.first : 0;
  buffer<float> sum(length), parameters(length);
  std::array<buffer<float>, optimizer_type::moments> moment_memory;
  std::array<float*, optimizer_type::moments> moments;
  for (std::size_t k = 0; k < moments.size(); ++k) {
    moment_memory[k] = buffer<float>(length);
    moments[k] = moment_memory[k].data();
  }

  // Rank 0 says where to begin, and with which key. A key is never used again: every fit draws a fresh one.
  std::copy_n(model.parameters().data(), size, parameters.data());
  training_state state{0, {parameters.data(), size}, {}};
  for (auto* m : moments) state.moments.push_back({m, size});
  fit_report report;
  report.target_steps = o.steps;
  if (o.target_epsilon) {
    const auto most = most_steps({*o.target_epsilon, o.delta}, step, accountant);
    report.target_steps = o.steps > 0 ? std::min(o.steps, most) : most;
    require(report.target_steps > 0, "not even one step fits epsilon = ", *o.target_epsilon, " at delta = ", o.delta,
            "; raise the noise multiplier or lower the sampling rate");
  }
  const exposure exposed{.insecure_seed = o.insecure_seed.has_value()};
  // What `steps` steps spend. The claim is asked for before anything is spent: an accountant that refuses to answer
  // does so now.
  double seconds_asking = 0;
  const auto claim_of = [&](std::uint64_t steps) {
    const auto asked = clock::now();
    accountant_type all = accountant;
    all.add(step, steps);
    auto claim = make_claim(all, step, o.delta, exposed);
    seconds_asking = std::chrono::duration<double>(clock::now() - asked).count();
    return claim;
  };
  report.claim = claim_of(std::min(report.target_steps, std::uint64_t{1'000'000}));  // (more are seldom reached)
  if (root && o.journal) {
    if (exposed.any()) o.journal->begin(state, no_privacy_event{exposed}, report.target_steps);
    else if constexpr (std::convertible_to<event_type, recorded_event>)
      o.journal->begin(state, step, report.target_steps);
    else fail("a journal cannot hold this kind of event; add it to recorded_event in accounting/events.hpp");
  }
  random_key key = o.insecure_seed ? random_key::from_seed(*o.insecure_seed)
                   : root          ? random_key::fresh()
                                   : random_key{};
  key = broadcast_value(world, key);
  const auto begun_at = broadcast_value(world, state.step);
  broadcast(world, std::span<float>(parameters.data(), length));
  for (auto* m : moments) broadcast(world, std::span<float>(m, length));
  report.target_steps = broadcast_value(world, report.target_steps);

  typename backend_type::weights weights(model.shapes());
  b.weights_changed(weights, parameters.data());
  clipped_sum_workspace<backend_type, Model, norms_type> clipped_sum(b, model, tile_rows(model));
  const auto features = data.features();
  const matrix_view<const float> labels{data.labels().data(), data.labels().size(), 1, 1};
  std::vector<std::uint32_t> rows;
  double not_finite = 0, drawn = 0;
  std::uint64_t at = begun_at, granted = begun_at;

  // All ranks together: the digest of the parameters is compared, and rank 0 writes.
  const auto checkpoint = [&](std::uint64_t released) {
    const auto digests = gather_all(world, digest_of(parameters.data(), size * sizeof(float)));
    for (const auto& d : digests)
      require(d == digests[0], "the ranks' parameters differ: a broken allreduce or memory");
    for (auto* m : moments) run.gather(m);
    if (root && o.journal) {
      state.step = released;
      o.journal->checkpoint(state);
    }
  };
  // What is shown as spent so far may hold for some more steps than were released: so many that all answers of the
  // accountant together have taken at most 1 % of the time by then.
  double shown = 0, seconds_asked = 0;
  std::uint64_t shown_until = 0;
  const auto at_most_spent = [&](std::uint64_t done, double seconds) {
    if (done > shown_until || done == report.target_steps) {
      const double seconds_ahead = std::max(0.0, 100 * (seconds_asked + seconds_asking) - seconds);
      const double ahead = seconds_ahead * static_cast<double>(done - begun_at) / seconds;
      const std::uint64_t left = report.target_steps - done;
      shown_until = done + (ahead < static_cast<double>(left) ? static_cast<std::uint64_t>(ahead) : left);
      shown = claim_of(shown_until).epsilon;
      seconds_asked += seconds_asking;
    }
    return shown;
  };

  const auto start = clock::now();
  auto last_progress = start;
  bool stop = false;
  for (; at < report.target_steps && !stop; ++at) {
    try {
      if (at == granted) {  // the ledger counts steps before they run
        std::uint64_t more = report.target_steps - at;
        if (o.journal) more = broadcast_value(world, root ? o.journal->reserve(at) : 0);
        if (more == 0) {
          report.out_of_budget = true;
          break;
        }
        granted = at + more;
      }
      sampling.draw({key, domain::sampling, at, 0}, data, rows);  // perhaps none: an ordinary step
      clipped_sum(weights, features, labels, {rows.data(), rows.size()}, clip, sum.data(), not_finite);
      drawn += static_cast<double>(rows.size());
      sum[stop_at] = o.stop && o.stop->load(std::memory_order_relaxed) ? 1.0f : 0.0f;
      run.reduce(sum.data());
      const step_facts facts{at + 1, o.learning_rate * schedule.factor(at, report.target_steps),
                             noise.variance(sensitivity) / (expected * expected)};
      release(noise, {key, domain::noise, at, 0}, sensitivity, expected, optimizer.rule(facts), mine.first,
              mine_weights, sum.data(), parameters.data(), moments);
      if (mine.first <= stop_at && stop_at < mine.first + mine.count) parameters[stop_at] = sum[stop_at];
      run.gather(parameters.data());
      stop = parameters[stop_at] > 0;
      b.weights_changed(weights, parameters.data());
      if (o.checkpoint_every > 0 && (at + 1) % o.checkpoint_every == 0 && at + 1 < report.target_steps && !stop) {
        checkpoint(at + 1);
        granted = at + 1;  // what was reserved beyond is returned
      }
    } catch (const peer_lost& e) {
      throw peer_lost(detail::in_step(at + 1, world.rank(), e.what()));
    } catch (const interrupted& e) {
      throw interrupted(detail::in_step(at + 1, world.rank(), e.what()));
    } catch (const error& e) {
      throw error(detail::in_step(at + 1, world.rank(), e.what()));
    }
    if (root && o.on_progress) {
      const auto now = clock::now();
      if (std::chrono::duration<double>(now - last_progress).count() >= o.progress_every ||
          at + 1 == report.target_steps) {
        last_progress = now;
        const double seconds = std::chrono::duration<double>(now - start).count();
        o.on_progress({at + 1, report.target_steps, at + 1 - begun_at, seconds, at_most_spent(at + 1, seconds)});
      }
    }
  }
  report.seconds = std::chrono::duration<double>(clock::now() - start).count();
  checkpoint(at);
  std::copy_n(parameters.data(), size, model.parameters().data());

  report.steps = at;
  report.steps_here = at - begun_at;
  report.stopped = stop && at < report.target_steps;
  std::array<double, 2> counts{not_finite, drawn};
  dpsgd::sum(world, std::span<double>(counts));
  report.not_finite = {counts[0]};
  report.records = {counts[1]};
  report.claim = claim_of(at);
  return report;
}

}  // namespace dpsgd
