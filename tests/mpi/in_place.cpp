/// Vectors of make_buffer, which the other ranks of the host read in place: the same bits as over MPI, by every
/// algorithm, and nothing left behind.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <span>
#include <string>
#include <vector>

#include "comm/oracle.hpp"
#include "dpsgd/allreduce/all.hpp"
#include "mpi/main.hpp"

using namespace dpsgd;

extern thread_local long allocations;  // of this thread so far: comm/allocations.cpp

namespace {

// Long enough for every message of every algorithm: 8 chunks, or as many blocks as ranks, of at least 16 KiB.
std::size_t long_enough() { return std::size_t{5001} * 8 + 13; }

enum class memory { shared, misaligned, mixed };

// all_reduce over MPI's messages and in place must agree to the bit; so must gather, of a smaller type, with its input.
template <class T, class Algorithm>
void compare(const Algorithm& a, memory where) {
  const std::size_t n = long_enough();
  const auto input = oracle::values<T>(world().rank(), n, false);
  auto bound = bind<T>(a, world(), n);
  auto plain = input;
  bound.all_reduce(plain.data());
  const auto shared = make_buffer<T>(world(), n + 1);
  std::vector<T> ordinary(n + 1);
  const bool mine_is_ordinary = where == memory::mixed && world().rank() % 2 == 0;
  T* const v = (mine_is_ordinary ? ordinary.data() : shared.data()) + (where == memory::misaligned ? 1 : 0);
  for (int again = 0; again < 3; ++again) {  // what was read must not be written before it has been read
    std::copy(input.begin(), input.end(), v);
    const auto before = allocations;
    bound.all_reduce(v);
    if (again > 0) CHECK(allocations == before);
    CHECK(std::memcmp(v, plain.data(), n * sizeof(T)) == 0);
  }
}

template <class T, class Algorithm>
void compare(const Algorithm& a) {
  for (const auto where : {memory::shared, memory::misaligned, memory::mixed}) compare<T>(a, where);
}

// How many memories of this kind, its own and others', the process has mapped.
int mapped() {
  std::ifstream maps("/proc/self/maps");
  int count = 0;
  for (std::string line; std::getline(maps, line);) count += line.find("memfd:dpsgd") != line.npos;
  return count;
}

}  // namespace

TEST_CASE("ranks of one host share memory") { CHECK(world().shares_memory() == (world().size() > 1)); }

TEST_CASE("read in place, every algorithm gives the bits that it gives over MPI, and allocates nothing") {
  for (const auto& e : allreduce::all_algorithms) {
    if (e.is_native() || !verify(e.derive(world().size()))) continue;
    INFO(e.name(), " on ", world().size(), " ranks");
    compare<float>(e);
    compare<double>(e, memory::shared);
    compare<std::int64_t>(e, memory::shared);
  }
  compare<float>(oracle::direct{});  // many lower ranks in one round
  compare<float>(oracle::mixed{});
  compare<float>(oracle::whole_direct{});
  compare<float>(oracle::lopsided{});
}

TEST_CASE("read in place, what an owner wrote between reduce and gather arrives, of a smaller type too") {
  const std::size_t n = long_enough();
  const auto sum = make_buffer<double>(world(), n);
  const auto weights = make_buffer<float>(world(), n);
  auto bound = bind<double>(allreduce::circulant{}, world(), n);
  for (int turn = 1; turn < 4; ++turn) {
    std::fill_n(sum.data(), n, 1.0);
    bound.reduce(sum.data());
    const auto [first, count] = bound.mine();
    std::fill_n(weights.data(), n, -1.0f);
    for (std::size_t i = first; i < first + count; ++i)
      weights[i] = static_cast<float>(sum[i] * turn + static_cast<double>(i % 1000));
    bound.gather(weights.data());
    std::size_t wrong = 0;
    for (; wrong < n; ++wrong)
      if (weights[wrong] != static_cast<float>(world().size() * turn + static_cast<int>(wrong % 1000))) break;
    CHECK(wrong == n);
  }
}

TEST_CASE("a message read in place is the sender's own, and the plain exchange copies it") {
  const int size = world().size(), me = world().rank();
  if (size == 1) return;
  constexpr std::size_t bytes = 40'000;
  const auto out = make_buffer<char>(world(), bytes);
  std::vector<char> in(bytes);
  std::fill_n(out.data(), bytes, static_cast<char>(me + 1));
  const outgoing letter{(me + 1) % size, out.data(), bytes};
  const int from = (me + size - 1) % size;
  incoming expected{from, in.data(), bytes};
  world().exchange({&letter, 1}, std::span<const incoming>(&expected, 1));
  CHECK(in == std::vector<char>(bytes, static_cast<char>(from + 1)));
  bool right = false;
  world().exchange({&letter, 1}, std::span<incoming>(&expected, 1), [&] {
    const auto* const theirs = static_cast<const char*>(expected.data);
    right = theirs != in.data() && std::count(theirs, theirs + bytes, from + 1) == bytes;
  });
  CHECK(right);
}

TEST_CASE("memory that is not to be shared, or too short to be worth it, is ordinary") {
  const auto before = mapped();
  world().share_memory(false);
  const auto alone = make_buffer<float>(world(), long_enough());
  world().share_memory(true);
  const auto small = make_buffer<float>(world(), 100);
  CHECK(mapped() == before);
  const auto shared = make_buffer<float>(world(), long_enough());
  CHECK(mapped() == before + (world().size() > 1 ? 1 : 0));
  for (const auto* b : {&alone, &small, &shared})
    CHECK(std::count(b->begin(), b->end(), 0.0f) == static_cast<std::ptrdiff_t>(b->size()));
}

TEST_CASE("memory that is given back goes, here and where it was mapped") {
  const std::size_t n = long_enough();
  auto bound = bind<float>(allreduce::ring{}, world(), n);
  int some = 0;
  for (int i = 0; i < 50; ++i) {
    if (i == 5) some = mapped();
    auto v = make_buffer<float>(world(), n);
    std::fill_n(v.data(), n, 1.0f);
    bound.all_reduce(v.data());
    CHECK(v[n - 1] == static_cast<float>(world().size()));
  }
  CHECK(mapped() <= some);
}
