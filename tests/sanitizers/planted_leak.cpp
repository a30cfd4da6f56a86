/// Loses memory in a rank of MPI. The preset asan must report it.
#include <cstdio>
#include <vector>

#include "start_mpi.hpp"

static std::vector<float>* volatile lost = nullptr;

[[gnu::noinline]] static void lose() {
  lost = new std::vector<float>(1000);
  lost = nullptr;
}

int main() {
  const start_mpi mpi;
  for (int i = 0; i < 8; ++i) lose();  // more than one, lest a stale register hold the only pointer
  std::printf("lost all but %p\n", static_cast<void*>(lost));
}
