/// Overflows an int. The preset asan, which has the undefined-behaviour sanitizer too, must report it.
#include <cstdio>
#include <limits>

#include "start_mpi.hpp"

int main() {
  const start_mpi mpi;
  volatile int most = std::numeric_limits<int>::max();
  std::printf("%d\n", most + 1);
}
