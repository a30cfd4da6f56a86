/// One run of DP-SGD on this rank, once trainer::fit has found its policies: prepare, then step by step
/// draw, clipped sum, reduce, release, gather.
#pragma once

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <iterator>
#include <limits>
#include <numeric>
#include <span>
#include <string_view>
#include <variant>
#include <vector>

#include "dpsgd/accounting/calibrate.hpp"
#include "dpsgd/accounting/claim.hpp"
#include "dpsgd/accounting/events.hpp"
#include "dpsgd/comm/communicator.hpp"
#include "dpsgd/comm/execute.hpp"
#include "dpsgd/core/buffer.hpp"
#include "dpsgd/core/digest.hpp"
#include "dpsgd/core/error.hpp"
#include "dpsgd/core/random.hpp"
#include "dpsgd/core/view.hpp"
#include "dpsgd/nn/layer.hpp"
#include "dpsgd/optim/optimizer.hpp"
#include "dpsgd/privacy/clip.hpp"
#include "dpsgd/privacy/sampling.hpp"
#include "dpsgd/train/computation.hpp"
#include "dpsgd/train/fit.hpp"
#include "dpsgd/train/journal_base.hpp"
#include "dpsgd/train/release.hpp"

namespace dpsgd {

/// What a step with these policies is, as an accountant sees it; refused_event where they do not go together.
template <class Clip, class Noise, class Sampling>
constexpr auto step_event(const Clip& clip, const Noise& noise, const Sampling& sampling) {
  if constexpr (!requires { noise.event(clip.sensitivity()); }) return refused_event{};
  else if constexpr (!requires { sampling.amplify(noise.event(clip.sensitivity())); }) return refused_event{};
  else return sampling.amplify(noise.event(clip.sensitivity()));
}

/// The policies of a run, each in its role, found.
template <class World, class Backend, class Norms, class Clip, class Noise, class Sampling, class Optimizer,
          class Schedule, class Accountant, class Allreduce>
struct cast {
  using norms_type = Norms;
  using event_type = decltype(step_event(std::declval<Clip>(), std::declval<Noise>(), std::declval<Sampling>()));

  World& world;
  Backend& backend;
  const Clip& clip;
  const Noise& noise;
  const Sampling& sampling;
  const Optimizer& optimizer;
  const Schedule& schedule;
  const Accountant& accountant;
  const Allreduce& allreduce;

  /// What one step is, to the accountant.
  event_type event() const { return step_event(clip, noise, sampling); }
};

namespace detail {

/// The exception in flight again, with the step in its message: "rank 2: waited ..." or "waited ..." becomes
/// "rank 2: in step 17: waited ...".
[[noreturn, gnu::cold]] inline void rethrow_in_step(std::uint64_t step, int rank) {
  const auto in_step = [&](std::string_view what) {
    const auto prefix = text("rank ", rank, ": ");
    if (what.starts_with(prefix)) what.remove_prefix(prefix.size());
    return text(prefix, "in step ", step, ": ", what);
  };
  try {
    throw;
  } catch (const peer_lost& e) {
    throw peer_lost(in_step(e.what()));
  } catch (const interrupted& e) {
    throw interrupted(in_step(e.what()));
  } catch (const error& e) {
    throw error(in_step(e.what()));
  }
}

/// How many of the records one owner has at most, where the data knows.
template <class Records>
double rows_per_owner(const Records& data) {
  if constexpr (requires { data.rows_per_owner(); }) return data.rows_per_owner();
  else return 1;
}

/// Which owners these are, where the data knows.
template <class Records>
double owners_of_data(const Records& data) {
  if constexpr (requires { data.owners(); }) return data.owners();
  else return 0;
}

/// What one step spends of whom the data protects.
template <class Cast, class Records>
auto event_for(const Cast& cast, const Records& data) {
  const auto event = with_rows(cast.event(), rows_per_owner(data), owners_of_data(data));
  event.check();
  return event;
}

/// The k-th of the clip's own coordinates takes its step as a parameter does: from its noised mean.
template <class Clip>
struct clip_rule {
  const Clip& clip;
  std::size_t k;
  float step(float, float mean, float*) const { return static_cast<float>(clip.next(k, mean)); }
};

/// Ranks that disagree about what is done would make a claim that holds for none of them.
template <class World>
[[gnu::cold]] void check_agreement(World& world, std::initializer_list<double> settings) {
  const auto all = gather_all(world, digest_of(std::data(settings), settings.size() * sizeof(double)));
  for (std::size_t r = 1; r < all.size(); ++r)
    require(all[r] == all[0], "ranks 0 and ", r,
            " were given different policies, options, models or data sets; give all ranks the same");
}

/// The same record on two ranks would count twice, and the sensitivity would be wrong: the ranks' positions must be
/// ranges that do not meet, as shard() and the parts of a file are.
template <class World, class Records>
[[gnu::cold]] void check_shards(World& world, const Records& data) {
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

/// Made by trainer::fit; go() trains. One vector travels: the parameters' coordinates, then the clip's own (their next
/// values come back in their place), then the wish to stop.
template <class Cast, class Model, class Records>
class training_run {
 public:
  /// Everything before the first step: checks, buffers, the model's start from rank 0 or the journal, the key.
  [[gnu::cold]] training_run(const Cast& cast, Model& model, const Records& data, const fit_options& options)
      : use_(cast),
        model_(model),
        data_(data),
        options_(options),
        clip_(cast.clip),
        root_(cast.world.rank() == 0),
        event_((check(), detail::event_for(cast, data))),
        exposed_{.insecure_seed = options.insecure_seed.has_value()},
        size_(model.parameters().size()),
        expected_batch_(cast.sampling.expected_batch(data.all())),
        vector_(bind<value_type>(cast.allreduce, cast.world, size_ + extra + 1)),
        sum_(make_buffer<value_type>(cast.world, size_ + extra + 1)),
        parameters_(make_buffer<float>(cast.world, size_ + extra + 1)),
        moment_memory_(make_moments()),
        here_(cast, model, data, cast.world.size() == 1, {sum_.data(), sum_.size()},
              {parameters_.data(), parameters_.size()}, moments()) {
    begin();
  }

  fit_report go() {
    for (; at_ < report_.target_steps && !stop_; ++at_) {
      try {
        if (at_ == granted_ && !reserve()) break;
        step();
        if (options_.on_step) here_.fetch(), options_.on_step(at_ + 1, {parameters_.data(), size_});
        if (options_.checkpoint_every > 0 && (at_ + 1) % options_.checkpoint_every == 0 &&
            at_ + 1 < report_.target_steps && !stop_) {
          checkpoint(at_ + 1);
          granted_ = at_ + 1;  // what was reserved beyond is returned
        }
      } catch (const error&) {
        detail::rethrow_in_step(at_ + 1, use_.world.rank());
      }
      if (root_ && options_.on_progress) tell();
    }
    return finish();
  }

 private:
  using clip_type = std::remove_cvref_t<decltype(std::declval<Cast>().clip)>;
  using sampling_type = std::remove_cvref_t<decltype(std::declval<Cast>().sampling)>;
  using optimizer_type = std::remove_cvref_t<decltype(std::declval<Cast>().optimizer)>;
  using event_type = typename Cast::event_type;
  static constexpr std::size_t extra = extra_coordinates<clip_type>;
  using value_type = typename std::remove_cvref_t<decltype(std::declval<Cast>().noise)>::value;  // what is summed
  using clock = std::chrono::steady_clock;
  static double seconds_since(clock::time_point start) {
    return std::chrono::duration<double>(clock::now() - start).count();
  }

  /// One step of DP-SGD (Abadi et al. 2016, algorithm 1).
  void step() {
    auto& wish_to_stop = sum_[size_ + extra];
    check_clip_stays();
    here_.draw({key_, domain::sampling, at_ - key_from_, 0});  // perhaps nobody: an ordinary step
    here_.clipped_sum(clip_, unit_of(use_.noise, sensitivity_));
    wish_to_stop = static_cast<value_type>(options_.stop && options_.stop->load(std::memory_order_relaxed) ? 1 : 0);
    vector_.reduce(sum_.data());

    const auto mine = vector_.mine();
    const std::size_t my_weights = mine.first < size_ ? std::min(mine.first + mine.count, size_) - mine.first : 0;
    const step_facts facts{
        at_ + 1, options_.learning_rate * use_.schedule.factor(at_, report_.target_steps),
        variance_of(use_.noise, sensitivity_, at_ - key_from_) / (expected_batch_ * expected_batch_)};
    const random_stream noise{key_, domain::noise, at_ - key_from_, 0};
    here_.release(noise, sensitivity_, expected_batch_, use_.optimizer.rule(facts), mine.first, my_weights);
    const auto owns = [&](std::size_t i) { return mine.first <= i && i < mine.first + mine.count; };
    if constexpr (extra > 0)
      for (std::size_t k = 0; k < extra; ++k)
        if (owns(size_ + k))
          release(use_.noise, noise, sensitivity_, expected_batch_, detail::clip_rule<clip_type>{clip_, k}, size_ + k,
                  1, sum_.data(), parameters_.data(), std::array<float*, 0>{});
    if (owns(size_ + extra)) parameters_[size_ + extra] = static_cast<float>(wish_to_stop);

    vector_.gather(parameters_.data());
    load_clip();
    stop_ = parameters_[size_ + extra] > 0;
    here_.parameters_changed();
  }

  /// Zeros, one vector for each moment of the optimizer.
  auto make_moments() const {
    std::array<buffer<float>, optimizer_type::moments> memory;
    for (auto& m : memory) m = buffer<float>(size_ + extra + 1);
    return memory;
  }
  auto moments() const {
    std::array<float*, optimizer_type::moments> all;
    for (std::size_t k = 0; k < all.size(); ++k) all[k] = moment_memory_[k].data();
    return all;
  }

  /// The clip's state is what came back, alike on all ranks; noise and clip of what follows take its sensitivity.
  void load_clip() {
    if constexpr (extra > 0) {
      for (std::size_t k = 0; k < extra; ++k) clip_.load(k, parameters_[size_ + k]);
      sensitivity_ = clip_.sensitivity().value;
      check_sensitivity();
    }
  }
  void check_sensitivity() const {
    require(sensitivity_ >= 1e-15 && sensitivity_ <= 1e15,
            "the clip bound must lie in [1e-15, 1e15], so that floats hold it; got ", sensitivity_);
  }
  /// The clip's sensitivity in this step is what the noise goes by. (A clip may look at something outside of it.)
  void check_clip_stays() const {
    if constexpr (bounded<clip_type>)
      require(clip_.sensitivity().value == sensitivity_, "the clip's sensitivity was ", sensitivity_, " and is ",
              clip_.sensitivity().value,
              ", but noise goes by what it was; a bound that moves takes a clip with coordinates of its own, as "
              "adaptive_clip");
    if constexpr (grouped_clip<clip_type> && bounded<clip_type>) check_group_bounds(clip_, here_.groups());
  }

  /// Throws dpsgd::error on impossible settings, and where the ranks do not agree.
  [[gnu::cold]] void check() {
    if constexpr (bounded<clip_type>) sensitivity_ = use_.clip.sensitivity().value;
    if constexpr (requires { use_.sampling.rate; })
      require(use_.sampling.rate >= 1e-9 && use_.sampling.rate <= 1,
              "the sampling rate must lie in (0, 1], and be at least 1e-9; got ", use_.sampling.rate);
    if constexpr (requires { use_.sampling.check(std::uint64_t{}); }) use_.sampling.check(data_.universe());
    if constexpr (bounded<clip_type>) check_sensitivity();
    if constexpr (requires { use_.clip.check(std::size_t{}); }) use_.clip.check(groups());
    if constexpr (grouped_clip<clip_type> && bounded<clip_type>) check_group_bounds(use_.clip, groups());
    if constexpr (extra > 0) {
      auto other = use_.clip.sensitivity();
      other.value *= 2;
      require(
          use_.noise.event(other) == use_.noise.event(use_.clip.sensitivity()),
          "this noise is another event for another sensitivity, and this clip's changes from step to step, so that no "
          "claim could hold; use a noise in proportion to the sensitivity (gaussian_noise), or flat_clip");
    }
    if constexpr (requires { use_.noise.multiplier; })
      require(use_.noise.multiplier >= 1e-6 && use_.noise.multiplier <= 1e15,
              "the noise multiplier must lie in [1e-6, 1e15]; got ", use_.noise.multiplier,
              "; for training without privacy use no_noise");
    if constexpr (requires { use_.noise.check(std::size_t{}, std::uint64_t{}); })
      use_.noise.check(model_.parameters().size() + extra, data_.universe());
    if constexpr (!std::same_as<value_type, float>) {
      const double most = sensitivity_ / use_.noise.unit(sensitivity_);
      require(most >= 1 && most <= 0x1p20 && most == std::round(most),
              "a noise for whole numbers needs a sensitivity that is a whole number of its units, from 1 to 2^20; "
              "got ",
              most);
    }
    const auto& o = options_;
    require(o.delta > 0 && o.delta < 1, "delta must lie in (0, 1); got ", o.delta);
    require(o.learning_rate > 0 && o.learning_rate < std::numeric_limits<double>::infinity(),
            "the learning rate must be positive and finite; got ", o.learning_rate);
    require(o.steps > 0 || o.target_epsilon, "say how long to train: fit_options::steps or target_epsilon");
    require(data_.all() > 0, "there is nothing to train on: the data has no positions");
    detail::check_shards(use_.world, data_);
    require(data_.features().cols == model_.inputs(), "the model has ", model_.inputs(), " inputs, but the data ",
            data_.features().cols, " features");
    detail::check_agreement(use_.world, {sensitivity_,
                                         factor(0.1 * sensitivity_),
                                         factor(sensitivity_),
                                         factor(10 * sensitivity_),
                                         variance_of(use_.noise, 1.0, (std::uint64_t{1} << 20) - 1),
                                         use_.sampling.expected_batch(std::uint64_t{1} << 40),
                                         static_cast<double>(o.steps),
                                         o.target_epsilon.value_or(-1),
                                         o.learning_rate,
                                         use_.schedule.factor(0, 1000),
                                         use_.schedule.factor(500, 1000),
                                         o.delta,
                                         o.insecure_seed ? 1.0 : 0.0,
                                         static_cast<double>(o.insecure_seed.value_or(0)),
                                         o.journal ? 1.0 : 0.0,
                                         static_cast<double>(o.checkpoint_every),
                                         static_cast<double>(data_.universe()),
                                         static_cast<double>(data_.all()),
                                         detail::rows_per_owner(data_),
                                         detail::owners_of_data(data_),
                                         static_cast<double>(model_.parameters().size())});
  }

  /// The layers with parameters: what a clip by layer sees as groups.
  [[gnu::cold]] std::size_t groups() const {
    std::size_t count = 0;
    for (const auto& l : model_.layers())
      count += std::visit([]<class Layer>(const Layer&) { return std::size_t{layer_with_parameters<Layer>}; }, l);
    return count;
  }

  /// The clip's factor for a norm; with more than that (layers, coordinates of its own) something that tells such clips
  /// apart.
  [[gnu::cold]] double factor(double norm) const {
    if constexpr (grouped_clip<clip_type>) {
      double mixed = 0;
      for (std::size_t g = 0; g < groups(); ++g) mixed = 3 * mixed + use_.clip.factor(norm, g, groups());
      return mixed;
    } else {
      double mixed = use_.clip.factor(norm);
      if constexpr (extra > 0)
        for (std::size_t k = 0; k < extra; ++k)
          mixed = 3 * mixed + use_.clip.contribution(norm, k) + 5 * use_.clip.next(k, norm) + 7 * use_.clip.value(k);
      return mixed;
    }
  }

  /// Rank 0 says where to begin, and with which key. A key is never used again: every fit draws a fresh one.
  [[gnu::cold]] void begin() {
    auto& world = use_.world;
    std::copy_n(model_.parameters().data(), size_, parameters_.data());
    if constexpr (extra > 0)
      for (std::size_t k = 0; k < extra; ++k) parameters_[size_ + k] = static_cast<float>(use_.clip.value(k));
    state_.parameters = {parameters_.data(), size_ + extra};
    for (auto* m : moments()) state_.moments.push_back({m, size_});
    report_.target_steps = options_.steps;
    if (options_.target_epsilon) {
      const auto most = steps_within_target();
      report_.target_steps = options_.steps > 0 ? std::min(options_.steps, most) : most;
      require(report_.target_steps > 0, "not even one step fits epsilon = ", *options_.target_epsilon,
              " at delta = ", options_.delta, "; raise the noise multiplier or lower the sampling rate");
    }
    report_.claim = claim_after(report_.target_steps);  // an accountant that refuses does so before anything is spent
    if (root_ && options_.journal) {
      if (exposed_.any()) options_.journal->begin(state_, no_privacy_event{exposed_}, report_.target_steps);
      else if constexpr (std::convertible_to<event_type, recorded_event>)
        options_.journal->begin(state_, event_, report_.target_steps);
      else fail("a journal cannot hold this kind of event; add it to recorded_event in accounting/events.hpp");
    }
    require(std::accumulate(state_.by_key.begin(), state_.by_key.end(), std::uint64_t{0}) == state_.step,
            "the journal resumed a run without its training_state::by_key: it must keep it beside the step");
    // A seed's key goes on where it was. Any other is drawn afresh: its steps are counted from here, and those before are
    // known by the keys that they had.
    if (!options_.insecure_seed) {
      earlier_.resize(broadcast_value(world, std::uint64_t{state_.by_key.size()}));
      if (root_) earlier_ = state_.by_key;
      broadcast(world, std::span<std::uint64_t>(earlier_));
      key_from_ = broadcast_value(world, state_.step);
    }
    // What was resumed may have ended within an epoch, which counts whole: fewer steps are left than before.
    if (options_.target_epsilon && key_from_ > 0)
      report_.target_steps = std::max(key_from_, std::min(report_.target_steps, key_from_ + steps_within_target()));
    if (options_.insecure_seed) key_ = random_key::from_seed(*options_.insecure_seed);
    else if (root_) key_ = random_key::fresh();
    key_ = broadcast_value(world, key_);
    begun_at_ = at_ = granted_ = broadcast_value(world, state_.step);
    broadcast(world, std::span<float>(parameters_.data(), parameters_.size()));
    for (auto* m : moments()) broadcast(world, std::span<float>(m, parameters_.size()));
    load_clip();
    report_.target_steps = broadcast_value(world, report_.target_steps);
    here_.begin();
    start_ = told_ = clock::now();
  }

  /// The ledger counts steps before they run. False when its budget is spent.
  bool reserve() {
    std::uint64_t more = report_.target_steps - at_;
    if (options_.journal) more = broadcast_value(use_.world, root_ ? options_.journal->reserve(at_) : 0);
    granted_ = at_ + more;
    report_.out_of_budget = more == 0;
    return more > 0;
  }

  /// All ranks together: the digests of the parameters are compared, and rank 0 writes.
  [[gnu::cold]] void checkpoint(std::uint64_t released) {
    here_.fetch();
    const auto digests = gather_all(use_.world, digest_of(parameters_.data(), (size_ + extra) * sizeof(float)));
    for (const auto& d : digests)
      require(d == digests[0], "the ranks' parameters differ: a broken allreduce or memory");
    for (auto* m : moments()) vector_.gather(m);
    if (root_ && options_.journal) {
      state_.step = released;
      state_.by_key = earlier_;
      if (released > key_from_) state_.by_key.push_back(released - key_from_);
      options_.journal->checkpoint(state_);
    }
  }

  [[gnu::cold]] fit_report finish() {
    report_.seconds = seconds_since(start_);
    checkpoint(at_);
    std::copy_n(parameters_.data(), size_, model_.parameters().data());
    report_.clip_state.assign(parameters_.data() + size_, parameters_.data() + size_ + extra);
    report_.steps = at_;
    report_.steps_here = at_ - begun_at_;
    report_.stopped = stop_ && at_ < report_.target_steps;
    std::array<double, 2> counts{here_.not_finite(), here_.drawn()};
    dpsgd::sum(use_.world, std::span<double>(counts));
    report_.not_finite = {counts[0]};
    report_.records = {counts[1]};
    report_.claim = claim_after(at_);
    return report_;
  }

  void tell() {
    if (seconds_since(told_) < options_.progress_every && at_ + 1 < report_.target_steps) return;
    told_ = clock::now();
    const auto done = at_ + 1;
    const double seconds = seconds_since(start_);
    options_.on_progress({done, report_.target_steps, done - begun_at_, seconds, spent_at_most(done, seconds)});
  }

  /// The accountant, with the steps under earlier keys added.
  [[gnu::cold]] auto spent_before() const {
    auto spent = use_.accountant;
    for (const auto steps : earlier_) spent.add(event_, steps);
    return spent;
  }

  /// How many steps of this key keep the target epsilon.
  [[gnu::cold]] std::uint64_t steps_within_target() const {
    return most_steps({*options_.target_epsilon, options_.delta}, event_, spent_before());
  }

  /// The claim of `steps` steps, resumed ones included.
  [[gnu::cold]] claim claim_after(std::uint64_t steps) {
    const auto asked = clock::now();
    auto spent = spent_before();
    spent.add(event_, steps - key_from_);
    auto made = make_claim(spent, event_, options_.delta, exposed_);
    seconds_asking_ = seconds_since(asked);
    return made;
  }

  /// What is shown as spent so far may hold for some more steps than were released: so many that all answers of the
  /// accountant together have taken at most 1 % of the time by then.
  [[gnu::cold]] double spent_at_most(std::uint64_t done, double seconds) {
    if (done > shown_until_ || done == report_.target_steps) {
      const double seconds_ahead = std::max(0.0, 100 * (seconds_asked_ + seconds_asking_) - seconds);
      const double ahead = seconds_ahead * static_cast<double>(done - begun_at_) / seconds;
      const std::uint64_t left = report_.target_steps - done;
      shown_until_ = done + (ahead < static_cast<double>(left) ? static_cast<std::uint64_t>(ahead) : left);
      shown_ = claim_after(shown_until_).epsilon;
      seconds_asked_ += seconds_asking_;
    }
    return shown_;
  }

  const Cast& use_;
  Model& model_;
  const Records& data_;
  const fit_options& options_;
  clip_type clip_;  // as it is now
  bool root_;
  double sensitivity_ = 0;  // of clip_
  event_type event_;
  exposure exposed_;
  std::size_t size_;  // of the parameters
  double expected_batch_;
  decltype(bind<value_type>(std::declval<Cast>().allreduce, std::declval<Cast>().world, std::size_t{})) vector_;
  buffer<value_type> sum_;    // what travels to the owners: the parameters' coordinates, the clip's, the wish to stop
  buffer<float> parameters_;  // and what comes back
  std::array<buffer<float>, optimizer_type::moments> moment_memory_;
  computation<Cast, Model, Records> here_;
  random_key key_;
  training_state state_;
  fit_report report_;
  std::vector<std::uint64_t> earlier_;                 // steps under the keys before this one
  std::uint64_t key_from_ = 0;                         // the step before which this key was drawn
  std::uint64_t begun_at_ = 0, at_ = 0, granted_ = 0;  // steps released when we began, released, and reserved
  bool stop_ = false;
  clock::time_point start_, told_;
  double seconds_asking_ = 0, seconds_asked_ = 0;  // that the accountant's last answer took, and all before
  std::uint64_t shown_until_ = 0;
  double shown_ = 0;  // spent by shown_until_ steps
};

}  // namespace dpsgd
