/// Everything of dpsgd that trains on the CPU. Needs the standard library alone; ranks over MPI are in dpsgd/mpi.hpp.
/// What is kept on the disk is asked for by name, since a program that keeps nothing should not compile it:
///   dpsgd/train/journal.hpp    checkpoints, and the ledger of what was spent
///   dpsgd/nn/model_file.hpp    saved models
#pragma once

#include "dpsgd/accounting/calibrate.hpp"
#include "dpsgd/accounting/claim.hpp"
#include "dpsgd/accounting/events.hpp"
#include "dpsgd/accounting/pld.hpp"
#include "dpsgd/accounting/rdp.hpp"
#include "dpsgd/allreduce/any.hpp"
#include "dpsgd/allreduce/circulant.hpp"
#include "dpsgd/allreduce/naive.hpp"
#include "dpsgd/allreduce/native.hpp"
#include "dpsgd/allreduce/recursive_doubling.hpp"
#include "dpsgd/allreduce/ring.hpp"
#include "dpsgd/comm/communicator.hpp"
#include "dpsgd/comm/execute.hpp"
#include "dpsgd/comm/threads.hpp"
#include "dpsgd/concepts.hpp"
#include "dpsgd/cpu/backend.hpp"
#include "dpsgd/data/csv.hpp"
#include "dpsgd/data/dataset.hpp"
#include "dpsgd/data/schema.hpp"
#include "dpsgd/nn/activations.hpp"
#include "dpsgd/nn/linear.hpp"
#include "dpsgd/nn/losses.hpp"
#include "dpsgd/nn/mlp.hpp"
#include "dpsgd/nn/sequential.hpp"
#include "dpsgd/optim/adam.hpp"
#include "dpsgd/optim/averaging.hpp"
#include "dpsgd/optim/schedules.hpp"
#include "dpsgd/optim/sgd.hpp"
#include "dpsgd/privacy/adaptive_clip.hpp"
#include "dpsgd/privacy/clip.hpp"
#include "dpsgd/privacy/correlated_noise.hpp"
#include "dpsgd/privacy/discrete_noise.hpp"
#include "dpsgd/privacy/noise.hpp"
#include "dpsgd/privacy/sampling.hpp"
#include "dpsgd/train/metrics.hpp"
#include "dpsgd/train/trainer.hpp"
#include "dpsgd/version.hpp"

namespace dpsgd {
/// A trainer that names no backend runs on the CPU.
template <>
struct default_backend<void> {
  using type = cpu::backend;
};
}  // namespace dpsgd
