/// What rank 0 keeps on disk while the trainer runs, as the trainer sees it: it asks a journal, and knows neither
/// ledgers nor files. (So a program without a journal need not compile them.) train/journal.hpp has the one that is
/// there.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "dpsgd/accounting/events.hpp"

namespace dpsgd {

/// Everything that a run resumes from, in the order of the coordinates, whatever the number of ranks. (Never a key: a
/// resumed run draws a fresh one.)
struct training_state {
  std::uint64_t step = 0;                 // released so far
  std::vector<std::uint64_t> by_key;      // of them, how many under each key, in order: their sum is `step`
  std::span<float> parameters;            // then the clip's own coordinates, if it has any
  std::vector<std::span<float>> moments;  // of the optimizer
};

/// Called on rank 0 alone: begin, then reserve before steps run and checkpoint after some of them.
class journal_base {
 public:
  /// A fit begins: fills `state` when it is to be resumed. Each of its steps is one `event`; up to `target` are wanted.
  virtual void begin(training_state& state, const recorded_event& event, std::uint64_t target) = 0;
  /// How many steps may run now that `done` were released: counted on the disk when it returns. 0: the budget is spent.
  virtual std::uint64_t reserve(std::uint64_t done) = 0;
  /// `state` is on the disk when it returns, and its steps are settled.
  virtual void checkpoint(const training_state& state) = 0;

 protected:
  ~journal_base() = default;
};

}  // namespace dpsgd
