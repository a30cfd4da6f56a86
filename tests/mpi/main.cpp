/// Runs the test cases on every rank of an MPI job. Ranks other than 0 print only what fails.
#define DOCTEST_CONFIG_IMPLEMENT
#include "mpi/main.hpp"

#include <doctest/doctest.h>

namespace {
dpsgd::mpi::world* the_world = nullptr;
}
dpsgd::mpi::world& world() { return *the_world; }

int main(int argc, char** argv) {
  dpsgd::mpi::world job(argc, argv);
  job.deadline(20);  // a rank whose test case failed in the middle leaves the others waiting
  the_world = &job;
  doctest::Context context(argc, argv);
  if (job.rank() != 0) context.setOption("minimal", true);
  const int status = context.run();
  if (status != 0) job.abort(status);
  return 0;
}
