/// Everything of dpsgd, for a file that nvcc compiles: instead of dpsgd/dpsgd.hpp, and with all of it but the CPU backend.
///
///   #include <dpsgd/cuda.hpp>
///   dpsgd::trainer trainer{dpsgd::cuda::backend{}, dpsgd::flat_clip{1.0}, ...};    // or without: it is the default here
///
/// Compile with -std=c++20 --expt-relaxed-constexpr (the target dpsgd::cuda says so).
#pragma once

#if defined(__NVCC__)  // false alarms: GCC's "unroll", conversions to oneself in templates, loops over no coordinates
#pragma nv_diagnostic push
#pragma nv_diag_suppress 1675, 554, 186
#endif

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
#include "dpsgd/cuda/backend.hpp"
#include "dpsgd/cuda/gpu.hpp"
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
namespace cuda {
/// On the current device.
using backend = basic_backend<gpu>;
}  // namespace cuda

/// A trainer that names no backend runs on the current device.
template <>
struct default_backend<void> {
  using type = cuda::backend;
};
}  // namespace dpsgd

#if defined(__NVCC__)
#pragma nv_diagnostic pop
#endif
