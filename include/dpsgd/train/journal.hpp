/// What rank 0 keeps on disk while the trainer runs: the ledger of what is spent, and checkpoints.
///
/// The trainer calls it in this order: begin, then reserve before steps run and checkpoint after some of them. A checkpoint
/// that was written is what settles the ledger: so a crash can only over-count.
#pragma once

#include <any>
#include <cstdint>
#include <span>
#include <vector>

namespace dpsgd {

/// Everything that a run resumes from, in the order of the coordinates, whatever the number of ranks.
struct training_state {
  std::uint64_t step = 0;                   // released so far
  std::span<float> parameters;
  std::vector<std::span<float>> moments;    // of the optimizer
};

}  // namespace dpsgd
