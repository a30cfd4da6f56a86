/// What examples/audit.cpp audits: the honest trainer in several settings, and each planted bug in one where it shows.
#pragma once

#include <cmath>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "dpsgd/accounting/calibrate.hpp"
#include "dpsgd/accounting/pld.hpp"
#include "dpsgd/audit/bounds.hpp"
#include "dpsgd/audit/canaries.hpp"
#include "planted_bugs.hpp"

namespace audit_cases {

/// How a run is set up. The clip bound is 4, so that noise that forgets it shows.
struct setting {
  std::uint64_t steps = 1;
  double rate = 1, multiplier = 1, delta = 1e-3;
};
inline constexpr double bound = 4;

/// The multiplier at which one step on the whole data spends this.
inline double multiplier_for(double epsilon, double delta) {
  return dpsgd::smallest_multiplier<dpsgd::pld_accountant>(
      {epsilon, delta}, 1, [](double multiplier) { return dpsgd::gaussian_event<dpsgd::zero_out>{multiplier}; });
}

/// What an audit found.
struct finding {
  double claimed = 0, shown = 0;  // epsilon: at most, and at least
  std::uint64_t runs = 0;         // of training, those that fixed the decision included
  bool refuted() const { return shown > claimed; }
};

/// `runs` trainings with the canary and as many without it, half of both to fix the decision and half to judge it, for
/// each statistic. The bound holds with probability `confidence` for both statistics together.
template <class Accountant = dpsgd::pld_accountant, class Noise, class Sampling>
finding many_runs(const setting& s, const Noise& noise, const Sampling& sampling, std::uint64_t runs,
                  double confidence) {
  using namespace dpsgd;
  const flat_clip clip{bound};
  Accountant spent;
  spent.add(sampling.amplify(noise.event(clip.sensitivity())), s.steps);
  finding f{spent.spent(s.delta).epsilon, 0, 0};
  const double each = 1 - (1 - confidence) / 2;
  for (const auto what : {audit::statistic::likelihood, audit::statistic::spread}) {
    const auto play = [&] {
      audit::scores scores;
      for (std::uint64_t i = 0; i < runs / 2; ++i)
        for (const bool present : {true, false})
          (present ? scores.present : scores.absent)
              .push_back(audit::canary_scores(clip, noise, sampling, s.rate, s.steps, what, {present})[0]);
      f.runs += 2 * (runs / 2);
      return scores;
    };
    const auto decision = audit::best_decision(play(), s.delta, each);
    f.shown = std::max(f.shown, audit::epsilon_at_least(play(), decision, s.delta, each));
  }
  return f;
}

/// Two trainings with `canaries` canaries, each present by the toss of a coin: the first fixes how many to guess, the
/// second is judged (Steinke, Nasr and Jagielski 2023).
template <class Noise, class Sampling>
finding one_run(const setting& s, const Noise& noise, const Sampling& sampling, std::size_t canaries,
                double confidence) {
  using namespace dpsgd;
  const flat_clip clip{bound};
  pld_accountant spent;
  spent.add(sampling.amplify(noise.event(clip.sensitivity())), s.steps);
  // ordered[i]: whether the canary with the i-th smallest score was present
  const auto play = [&] {
    random_words coins({random_key::fresh(), domain::user, 0, 0});
    std::vector<bool> present(canaries);
    for (std::size_t j = 0; j < canaries; ++j) present[j] = coins.uniform() < 0.5;
    const auto scores =
        audit::canary_scores(clip, noise, sampling, s.rate, s.steps, audit::statistic::likelihood, present);
    std::vector<std::size_t> order(canaries);
    for (std::size_t j = 0; j < canaries; ++j) order[j] = j;
    std::sort(order.begin(), order.end(), [&](auto a, auto b) { return scores[a] < scores[b]; });
    std::vector<bool> ordered(canaries);
    for (std::size_t j = 0; j < canaries; ++j) ordered[j] = present[order[j]];
    return ordered;
  };
  // Guesses: `each` with the smallest scores absent, as many with the largest present.
  const auto judge = [&](const std::vector<bool>& ordered, std::size_t each) {
    std::uint64_t correct = 0;
    for (std::size_t i = 0; i < each; ++i) correct += !ordered[i] + ordered[canaries - 1 - i];
    return audit::epsilon_at_least_one_run(canaries, 2 * each, correct, s.delta, confidence);
  };
  const auto first = play();
  std::size_t guesses = 1;
  double most = -1;
  for (std::size_t each = 1; each <= canaries / 2; each += 1 + each / 8)
    if (const double shown = judge(first, each); shown > most) most = shown, guesses = each;
  return {spent.spent(s.delta).epsilon, judge(play(), guesses), 2};
}

/// A line of the audit's table.
struct a_case {
  std::string name, what;
  bool honest;
  setting at;
  std::function<finding(const setting&, std::uint64_t runs, double confidence)> run;
};

inline std::vector<a_case> all() {
  using namespace dpsgd;
  constexpr double delta = 1e-3;
  const double four = multiplier_for(4, delta);
  const auto honest = [](const setting& s, std::uint64_t runs, double confidence) {
    return many_runs(s, gaussian_noise{s.multiplier}, poisson_sampling{s.rate}, runs, confidence);
  };
  return {
      {"one step", "every record, one step, epsilon 4", true, {1, 1, four, delta}, honest},
      {"ten steps", "ten steps of a tenth of the records", true, {10, 0.1, 0.7, delta}, honest},
      {"one run",
       "1,000 canaries in one run of one step",
       true,
       {1, 1, four, 1e-6},
       [](const setting& s, std::uint64_t, double confidence) {
         return one_run(s, gaussian_noise{s.multiplier}, poisson_sampling{s.rate}, 1000, confidence);
       }},
      {"half_noise",
       "half the noise",
       false,
       {1, 1, four, delta},
       [](const setting& s, std::uint64_t runs, double confidence) {
         return many_runs(s, planted::half_noise{{s.multiplier}}, poisson_sampling{s.rate}, runs, confidence);
       }},
      {"noise_not_times_bound",
       "noise without the factor of the clip bound",
       false,
       {1, 1, four, delta},
       [](const setting& s, std::uint64_t runs, double confidence) {
         return many_runs(s, planted::noise_not_times_bound{{s.multiplier}}, poisson_sampling{s.rate}, runs,
                          confidence);
       }},
      {"noise_repeats",
       "every step draws the same noise",
       false,
       {10, 0.5, 4, delta},
       [](const setting& s, std::uint64_t runs, double confidence) {
         return many_runs(s, planted::noise_repeats{{s.multiplier}}, poisson_sampling{s.rate}, runs, confidence);
       }},
      {"sample_repeats",
       "every step draws the same sample",
       false,
       {30, 0.05, 1, delta},
       [](const setting& s, std::uint64_t runs, double confidence) {
         return many_runs(s, gaussian_noise{s.multiplier}, planted::sample_repeats{{s.rate}}, runs, confidence);
       }},
      {"rate_of_a_share",
       "eight ranks, each at the rate of its own share",
       false,
       {1, 0.1, 1, delta},
       [](const setting& s, std::uint64_t runs, double confidence) {
         return many_runs(s, gaussian_noise{s.multiplier}, planted::rate_of_a_share{{s.rate}}, runs, confidence);
       }},
      {"forgetful_accountant",
       "sixteen steps counted as one",
       false,
       {16, 1, 4 * four, delta},
       [](const setting& s, std::uint64_t runs, double confidence) {
         return many_runs<planted::forgetful_accountant>(s, gaussian_noise{s.multiplier}, poisson_sampling{s.rate},
                                                         runs, confidence);
       }},
  };
}

}  // namespace audit_cases
