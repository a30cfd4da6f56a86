/// Native: not a schedule but a wish, for the communicator's own operation.
///
/// MPI has its library's reduce-scatter and all-gather behind it, ranks as threads read each other's memory. What it
/// costs is the library's business; use it as the yardstick to race against. No proof either: we trust the library.
#pragma once

namespace dpsgd::allreduce {

/// Ask bind (comm/execute.hpp) for the communicator's own allreduce.
struct native {};

}  // namespace dpsgd::allreduce
