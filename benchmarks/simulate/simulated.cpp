/// One rank of a simulated cluster, as SimGrid's smpirun starts it: our schedules as mpi::world executes them.
/// benchmarks/simulate/run.sh builds and starts it.
///
///   simulated OUTPUT GAMMA ALGORITHM:BYTES ...
///
/// Everything but time is real: the same plan, messages and additions, by the same code as on a cluster. Simulated time
/// passes in messages, as the platform file says, and in additions, GAMMA seconds a byte. Vectors above 1 MiB are
/// folded: all lie on the same few pages, so that a thousand ranks fit into one machine. The sums of the others are
/// checked. Writes a row of JSON for each ALGORITHM:BYTES.
#define SMPI_NO_OVERRIDE_MALLOC 1
#include <mpi.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <new>
#include <string>
#include <vector>

namespace {

double seconds_per_byte_added = 0;
constexpr std::size_t longest_real = std::size_t{1} << 20;
// All ranks share this process's memory, and one runs at a time, until it enters MPI.
bool fold = false;  // what is allocated, when it is longer than that (a rank's plan is not)
bool sums_matter = true;
std::size_t wrong = 0;  // elements of sums, of all ranks

/// A poll would be charged simulated time, and mpi::world polls. Here its first poll waits, and finds all done.
int wait_for_all(int count, MPI_Request* requests, int* done, MPI_Status* statuses) {
  *done = 1;
  return MPI_Waitall(count, requests, statuses);
}

/// As if on one host: then mpi::world does not cut messages, which SimGrid's network has no reason for.
int split_by_host(MPI_Comm all, int, int, MPI_Info, MPI_Comm* host) { return MPI_Comm_dup(all, host); }

}  // namespace

#define MPI_Testall wait_for_all
#define MPI_Comm_split_type split_by_host
#include "dpsgd/mpi.hpp"
#undef MPI_Testall
#undef MPI_Comm_split_type
#include "dpsgd/allreduce/all.hpp"

/// Additions are charged; those of folded vectors, which nobody looks at, are not done.
template <>
void dpsgd::add<float>(float* __restrict to, const float* __restrict from, std::size_t n) {
  if (sums_matter)
    for (std::size_t i = 0; i < n; ++i) to[i] += from[i];
  if (seconds_per_byte_added > 0) smpi_execute(static_cast<double>(n * sizeof(float)) * seconds_per_byte_added);
}

void* operator new(std::size_t bytes) {
  void* const at = fold && bytes > longest_real ? smpi_shared_malloc(bytes, "folded", 0) : std::malloc(bytes);
  if (at == nullptr) throw std::bad_alloc();
  return at;
}
void operator delete(void* at) noexcept { smpi_shared_free(at); }
void operator delete(void* at, std::size_t) noexcept { smpi_shared_free(at); }

namespace {

using dpsgd::mpi::check;

/// All ranks leave it at the same simulated instant, which it returns.
double start_together(MPI_Comm all) {
  double now = MPI_Wtime(), last = 0;
  check(MPI_Allreduce(&now, &last, 1, MPI_DOUBLE, MPI_MAX, all), "MPI_Allreduce");
  last += 1;
  const double wait = last - MPI_Wtime();
  const timespec time{static_cast<time_t>(wait),
                      static_cast<long>((wait - static_cast<double>(static_cast<time_t>(wait))) * 1e9)};
  nanosleep(&time, nullptr);
  return last;
}

/// Seconds from the common start until the last rank has the sum.
template <class AllReduce>
double timed(MPI_Comm all, std::size_t bytes, AllReduce all_reduce) {
  int rank = 0, size = 1;
  MPI_Comm_rank(all, &rank), MPI_Comm_size(all, &size);
  fold = bytes > longest_real;
  std::vector<float> v(bytes / sizeof(float), static_cast<float>(rank % 7 + 1));
  fold = false;
  const double start = start_together(all);
  sums_matter = bytes <= longest_real;
  all_reduce(v.data());
  double mine = MPI_Wtime() - start, slowest = 0;
  double sum = 0;
  for (int r = 0; r < size; ++r) sum += r % 7 + 1;
  if (sums_matter)
    for (const float x : v) wrong += static_cast<double>(x) != sum;
  check(MPI_Allreduce(&mine, &slowest, 1, MPI_DOUBLE, MPI_MAX, all), "MPI_Allreduce");
  return slowest;
}

/// Every rank needs all arrows, and all ranks live in one process: derived once.
const dpsgd::allreduce::schedule& schedule_of(const std::string& name, int size) {
  static std::string last;
  static dpsgd::allreduce::schedule schedule;
  if (last != name) schedule = dpsgd::allreduce::from_name(name).derive(size), last = name;
  return schedule;
}

}  // namespace

int main(int argc, char** argv) try {
  dpsgd::mpi::world world(argc, argv);
  dpsgd::require(argc > 3, "usage: simulated OUTPUT GAMMA ALGORITHM:BYTES ...");
  seconds_per_byte_added = std::atof(argv[2]);
  const MPI_Comm all = world.communicator();
  std::ofstream file;
  if (world.rank() == 0) file.open(argv[1]);
  file << "[";
  for (int i = 3; i < argc; ++i) {
    const std::string contest = argv[i], name = contest.substr(0, contest.find(':'));
    const auto bytes = static_cast<std::size_t>(std::atoll(contest.c_str() + name.size() + 1));
    const auto n = bytes / sizeof(float);
    const auto& schedule = schedule_of(name, world.size());
    fold = bytes > longest_real;
    dpsgd::bound_schedule<float, dpsgd::mpi::world> bound(schedule, world, n);
    fold = false;
    const double time = timed(all, bytes, [&](float* v) { bound.all_reduce(v); });
    if (world.rank() != 0) continue;
    dpsgd::require(wrong == 0, name, " is wrong at ", wrong, " elements of ", bytes, " bytes on ", world.size(),
                   " ranks");
    char row[256];
    std::snprintf(
        row, sizeof row, R"(%s{"algorithm": "%s", "ranks": %d, "bytes": %zu, "seconds": %.9g, "checked": %s})",
        i == 3 ? "\n" : ",\n", name.c_str(), world.size(), bytes, time, bytes <= longest_real ? "true" : "false");
    file << row;
    file.flush();
  }
  file << "\n]\n";
  if (world.rank() == 0) {
    file.close();
    dpsgd::require(static_cast<bool>(file), "cannot write ", argv[1]);
  }
  return 0;
} catch (const std::exception& e) {
  std::cerr << "simulated: " << e.what() << '\n';
  return 1;
}
