/// Counted, not planned: the messages and bytes that MPI is really given, by wrappers round its functions (the profiling
/// interface, PMPI). Where the blocks divide the vector they are compared with the formulas of the doc comments, at
/// every length with the arrows. Ours work in place; there is no other way to call them.
/// No memory is shared, but in the last test: of what is read in place, MPI is told no more than where it lies.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "allreduce/formulas.hpp"
#include "allreduce/zoo.hpp"
#include "dpsgd/allreduce/cost.hpp"
#include "mpi/main.hpp"

using namespace dpsgd;

namespace {

struct tally {
  std::int64_t sends = 0, sent = 0, receives = 0, received = 0, collectives = 0, others = 0;
};
tally counts;

int bytes(int count, MPI_Datatype type) {
  int size = 0;
  PMPI_Type_size(type, &size);
  return count * size;
}

}  // namespace

// The two that the library sends by, the two collectives of native, and whatever else it might have sent by.
extern "C" {
int MPI_Isend(const void* data, int n, MPI_Datatype type, int to, int tag, MPI_Comm by, MPI_Request* request) {
  ++counts.sends, counts.sent += bytes(n, type);
  return PMPI_Isend(data, n, type, to, tag, by, request);
}
int MPI_Irecv(void* data, int n, MPI_Datatype type, int from, int tag, MPI_Comm by, MPI_Request* request) {
  ++counts.receives, counts.received += bytes(n, type);
  return PMPI_Irecv(data, n, type, from, tag, by, request);
}
int MPI_Ireduce_scatter(const void* from, void* to, const int* n, MPI_Datatype type, MPI_Op op, MPI_Comm by,
                        MPI_Request* request) {
  ++counts.collectives;
  return PMPI_Ireduce_scatter(from, to, n, type, op, by, request);
}
int MPI_Iallgatherv(const void* from, int n, MPI_Datatype type, void* to, const int* counts_of, const int* starts,
                    MPI_Datatype to_type, MPI_Comm by, MPI_Request* request) {
  ++counts.collectives;
  return PMPI_Iallgatherv(from, n, type, to, counts_of, starts, to_type, by, request);
}
int MPI_Send(const void* data, int n, MPI_Datatype type, int to, int tag, MPI_Comm by) {
  ++counts.others;
  return PMPI_Send(data, n, type, to, tag, by);
}
int MPI_Issend(const void* data, int n, MPI_Datatype type, int to, int tag, MPI_Comm by, MPI_Request* request) {
  ++counts.others;
  return PMPI_Issend(data, n, type, to, tag, by, request);
}
int MPI_Sendrecv(const void* data, int n, MPI_Datatype type, int to, int tag, void* into, int m, MPI_Datatype as,
                 int from, int its_tag, MPI_Comm by, MPI_Status* status) {
  ++counts.others;
  return PMPI_Sendrecv(data, n, type, to, tag, into, m, as, from, its_tag, by, status);
}
int MPI_Start(MPI_Request* request) {
  ++counts.others;
  return PMPI_Start(request);
}
int MPI_Startall(int n, MPI_Request* requests) {
  ++counts.others;
  return PMPI_Startall(n, requests);
}
int MPI_Put(const void* data, int n, MPI_Datatype type, int to, MPI_Aint at, int m, MPI_Datatype as, MPI_Win window) {
  ++counts.others;
  return PMPI_Put(data, n, type, to, at, m, as, window);
}
int MPI_Allreduce(const void* from, void* to, int n, MPI_Datatype type, MPI_Op op, MPI_Comm by) {
  ++counts.others;
  return PMPI_Allreduce(from, to, n, type, op, by);
}
}

namespace {

/// What every rank gives MPI for one all_reduce of n elements; checks the sum, too.
template <class T>
std::vector<tally> count(const allreduce::any& a, std::size_t n) {
  world().share_memory(false);
  auto bound = bind<T>(a, world(), n);
  std::vector<T> v(n, T{1});
  counts = {};
  bound.all_reduce(v.data());
  const tally mine = counts;
  CHECK(v == std::vector<T>(n, static_cast<T>(world().size())));
  return gather_all(world(), mine);
}

template <class T>
void compare(const zoo::entry& e, const allreduce::schedule& s, std::size_t n) {
  INFO(e.name(), " on ", s.size, " ranks, n = ", n);
  const auto c = allreduce::cost(s, n);  // in elements: the executor cuts between elements, cost between bytes
  const auto of = count<T>(e.algorithm, n);
  if (world().rank() != 0) return;
  constexpr auto wide = sizeof(T);
  tally all;
  std::uint64_t most_sends = 0, most_sent = 0, most_received = 0;
  for (const auto& t : of) {
    all.sends += t.sends, all.sent += t.sent, all.receives += t.receives, all.received += t.received;
    all.collectives += t.collectives, all.others += t.others;
    most_sends = std::max(most_sends, static_cast<std::uint64_t>(t.sends));
    most_sent = std::max(most_sent, static_cast<std::uint64_t>(t.sent));
    most_received = std::max(most_received, static_cast<std::uint64_t>(t.received));
  }
  CHECK(all.others == 0);
  CHECK(all.collectives == 0);
  CHECK(static_cast<std::uint64_t>(all.sends) == c.messages);
  CHECK(static_cast<std::uint64_t>(all.sent) == c.bytes * wide);
  CHECK(all.receives == all.sends);
  CHECK(all.received == all.sent);
  CHECK(most_sends == c.most_messages);
  CHECK(most_sent == c.most_sent * wide);
  CHECK(most_received == c.most_received * wide);
  if (n == 0) CHECK(all.sends == 0);
  if (n == 0 || n % static_cast<std::size_t>(s.blocks) != 0 || e.kind.empty()) return;
  const auto f = formulas::says(e, s.size, static_cast<std::int64_t>(n * wide));
  CHECK(formulas::is(static_cast<std::uint64_t>(all.sends), f.messages, f.most_messages));
  CHECK(formulas::is(most_sent, f.sent, f.most_sent));
  CHECK(formulas::is(most_received, f.sent, f.most_sent));
}

}  // namespace

TEST_CASE("MPI is given the messages and bytes that the formulas and the arrows say, and nothing else") {
  const auto p = static_cast<std::size_t>(world().size());
  for (const auto& e : zoo::all()) {
    const auto s = e.derive(world().size());
    const auto divided = 12 * static_cast<std::size_t>(s.blocks);
    for (const std::size_t n : {std::size_t{0}, std::size_t{1}, p - 1, p, p + 1, std::size_t{127}, std::size_t{128},
                                std::size_t{129}, std::size_t{10007}, divided})
      compare<float>(e, s, n);
    compare<double>(e, s, divided);
  }
}

TEST_CASE("native is two of MPI's collectives and not one message of ours") {
  for (const std::size_t n : {0, 1, 10007}) {
    const std::int64_t calls = n == 0 || world().size() == 1 ? 0 : 2;
    for (const auto& t : count<float>(allreduce::from_name("native"), n)) {
      CHECK(t.collectives == calls);
      CHECK((t.sends == 0 && t.receives == 0 && t.others == 0));
    }
  }
}

TEST_CASE("of vectors that the other ranks read in place, MPI is given a notice and an empty answer a message") {
  for (const auto& e : zoo::all()) {
    const auto s = e.derive(world().size());
    if (!s.scattered && s.size > 1) continue;  // a whole algorithm may write what it sends: no promise
    const auto n = std::size_t{5000} * static_cast<std::size_t>(s.blocks);
    INFO(e.name(), " on ", s.size, " ranks");
    const auto c = allreduce::cost(s, n);
    world().share_memory(true);
    const auto v = make_buffer<float>(world(), n);
    auto bound = bind<float>(e.algorithm, world(), n);
    std::fill_n(v.data(), n, 1.0f);
    counts = {};
    bound.all_reduce(v.data());
    const tally mine = counts;
    CHECK(std::count(v.begin(), v.end(), static_cast<float>(world().size())) == static_cast<std::ptrdiff_t>(n));
    std::int64_t sends = 0, sent = 0, others = 0;
    for (const auto& t : gather_all(world(), mine)) sends += t.sends, sent += t.sent, others += t.others;
    CHECK(others == 0);
    CHECK(sends == 2 * static_cast<std::int64_t>(c.messages));
    CHECK(sent == static_cast<std::int64_t>(c.messages * sizeof(mpi::detail::notice)));
  }
}
