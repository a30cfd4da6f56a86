/// Two threads write one int without a lock, in a rank of MPI. The preset tsan must report it.
#include <cstdio>
#include <thread>

#include "start_mpi.hpp"

static int shared = 0;

int main() {
  const start_mpi mpi;
  const auto add = [] {
    for (int i = 0; i < 1000; ++i) ++shared;
  };
  std::thread other(add);
  add();
  other.join();
  std::printf("%d\n", shared);
}
