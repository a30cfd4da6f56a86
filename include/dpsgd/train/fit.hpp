/// What trainer::fit is asked, and what it answers.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "dpsgd/accounting/claim.hpp"
#include "dpsgd/train/journal_base.hpp"

namespace dpsgd {

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
  /// Called on this rank after each step with its number and the parameters, which are released and so public: for
  /// averages of them (optim/averaging.hpp).
  std::function<void(std::uint64_t step, std::span<const float> parameters)> on_step{};
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
  not_private<double> not_finite;  ///< examples that counted as zero: not finite (or too long, in exact mode)
  not_private<double> records;     ///< records drawn by all ranks in this call
  /// The clip's own coordinates in the end, such as an adaptive clip's bound: released, and so public.
  std::vector<float> clip_state{};
};

}  // namespace dpsgd
