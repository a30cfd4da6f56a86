/// Every algorithm: proved for many numbers of members, and what its comment says of rounds, messages and bytes.
#include <doctest/doctest.h>

#include <bit>
#include <cstdint>
#include <string>
#include <vector>

#include "allreduce/zoo.hpp"
#include "dpsgd/allreduce/cost.hpp"

using namespace dpsgd::allreduce;

namespace {

std::vector<int> grid() {
  std::vector<int> sizes;
  for (int p = 1; p <= 128; ++p) sizes.push_back(p);
  sizes.insert(sizes.end(), {255, 256, 1000});
  return sizes;
}

int ceil_log(int k, int p) {
  int rounds = 0;
  for (; p > 1; p = (p - 1) / k + 1) ++rounds;
  return rounds;
}
int floor_power(int k, int p) {
  int power = 1;
  while (power <= p / k) power *= k;
  return power;
}

// What a doc comment says, for a vector of `n` bytes that its blocks divide. -1: it gives only `most`.
struct formula {
  std::int64_t rounds, messages, sent;                             // sent and received by the member that does most
  std::int64_t most_rounds = 0, most_messages = 0, most_sent = 0;  // where the comment says "at most"
};

formula says(const zoo::entry& e, std::int64_t p, std::int64_t n) {
  const int size = static_cast<int>(p), k = e.parameter;
  if (p == 1) return {0, 0, 0};
  if (e.kind == "naive") return {2, 2 * (p - 1), (p - 1) * n};
  if (e.kind == "all_to_all") return {1, p * (p - 1), (p - 1) * n};
  if (e.kind == "binomial_tree") return {2 * ceil_log(2, size), 2 * (p - 1), ceil_log(2, size) * n};
  if (e.kind == "ring" || e.kind == "round_robin") return {2 * (p - 1), 2 * p * (p - 1), 2 * n * (p - 1) / p};
  if (e.kind == "recursive_doubling" || e.kind == "recursive_multiplying") {
    const int d = e.kind == "recursive_doubling" ? 2 : std::min(k, size);
    const int q = floor_power(d, size), m = ceil_log(d, q);
    const std::int64_t folds = (p - q + q - 1) / q;  // into the member that takes most
    return {m + (p > q ? 2 : 0), q * (d - 1) * m + 2 * (p - q), n * ((d - 1) * m + folds)};
  }
  if (e.kind == "halving_doubling") {
    const std::int64_t q = floor_power(2, size), m = ceil_log(2, static_cast<int>(q)), fold = p > q;
    return {2 * m + 2 * fold, 2 * q * m + 2 * (p - q), 2 * n * (q - 1) / q + fold * n};
  }
  if (e.kind == "butterfly" || e.kind == "circulant") {
    const std::int64_t m = ceil_log(k, size), most = 2 * p * (k - 1) * m, sent = 2 * n * (p - 1) / p;
    const bool power = floor_power(k, size) == size, exact = power || (k == 2 && e.kind == "circulant");
    if (e.kind == "circulant") return {2 * m, exact ? most : -1, sent, 0, most};
    return {2 * m, exact ? most : -1, power ? sent : -1, 0, most, sent * 3 / 2};
  }
  if (e.kind == "swing") {
    const std::int64_t even = p / 2 * 2, odd = p % 2, m = ceil_log(2, static_cast<int>(even));
    const bool power = std::has_single_bit(static_cast<unsigned>(even));
    const std::int64_t most = 2 * even * m + 2 * odd;
    return {2 * m + 2 * odd, power ? most : -1, 2 * n * (even - 1) / even + odd * n, 0, most};
  }
  if (e.kind == "chain") return {2 * (p - 2 + k), 2 * (p - 1) * k, p == 2 ? n : 2 * n};
  if (e.kind == "double_tree")
    return {-1, p == 3 ? -1 : 4 * (p - 1) * k, -1, 2 * (ceil_log(2, size) + k - 1), 4 * (p - 1) * k, 2 * n};
  if (e.kind == "hierarchical") {  // of a ring and a circulant
    const std::int64_t m = std::min<std::int64_t>(k, p), nodes = p / m, in = m * nodes, fold = p > in;
    const std::int64_t up = ceil_log(2, static_cast<int>(nodes));
    return {2 * (m - 1) + 2 * up + 2 * fold, 2 * in * (m - 1) + 2 * in * up + 2 * (p - in),
            2 * n * (in - 1) / in + fold * n};
  }
  FAIL("no formula for ", e.name());
  return {};
}

}  // namespace

TEST_CASE("every algorithm is proved for 1 .. 128, 255, 256 and 1000 members") {
  for (const auto& e : zoo::all())
    for (const int size : grid()) {
      if (size > 64 && !e.listed) continue;
      const verdict v = verify(e.derive(size));
      INFO(e.name(), " among ", size, ": ", describe(v.flaw), ", round ", v.round, ", rank ", v.rank, ", block ",
           v.block);
      REQUIRE(bool(v));
    }
}

TEST_CASE("rounds, messages and bytes are those of the formulas in the comments") {
  for (const auto& e : zoo::all())
    for (const int size : grid()) {
      if (e.kind.empty() || (size > 256 && !e.listed)) continue;
      INFO(e.name(), " among ", size);
      const schedule s = e.derive(size);
      const auto n = static_cast<std::uint64_t>(s.blocks) * 12;
      const costs c = cost(s, n);
      const formula f = says(e, size, static_cast<std::int64_t>(n));
      const auto is = [](auto counted, std::int64_t stated, std::int64_t most) {
        return stated >= 0 ? static_cast<std::int64_t>(counted) == stated : static_cast<std::int64_t>(counted) <= most;
      };
      CHECK(is(c.rounds, f.rounds, f.most_rounds));
      CHECK(is(c.messages, f.messages, f.most_messages));
      CHECK(is(c.most_sent, f.sent, f.most_sent));
      CHECK(is(c.most_received, f.sent, f.most_sent));
    }
}

TEST_CASE("nothing beats the lower bounds, and the model's time is the sum that a person would write down") {
  const network net{2e-6, 1e-9, 3e-10};
  for (const auto& e : zoo::all())
    for (const int size : {1, 2, 3, 4, 7, 8, 16, 33, 64})
      for (const std::uint64_t bytes : {0, 1, 1000, 1 << 20}) {
        INFO(e.name(), " among ", size, ", ", bytes, " bytes");
        const schedule s = e.derive(size);
        const auto b = bounds(size, bytes, net);
        const costs c = cost(s, bytes);
        const double t = seconds(s, bytes, net);
        CHECK(static_cast<double>(c.most_sent) >= b.bytes - 1);
        CHECK(static_cast<double>(c.most_reduced) >= b.reduced - 1);
        CHECK(c.bytes >= static_cast<std::uint64_t>(2 * (size - 1)) * (bytes > 0));
        CHECK(t * (1 + 1e-9) >= std::max(b.bandwidth + b.computation - 2e-9, bytes > 0 ? b.latency : 0));
        if (bytes == 0) CHECK((c.messages == 0 && t == 0));
      }
  const auto near = [](double x) { return doctest::Approx(x).epsilon(1e-9); };
  for (const int p : {2, 3, 8, 13}) {
    const std::uint64_t n = 1040 * static_cast<std::uint64_t>(p);
    const double all = static_cast<double>(n), block = 1040, others = p - 1, rounds = ceil_log(2, p);
    CHECK(seconds(ring{}, p, n, net) == near(others * (2 * (net.alpha + block * net.beta) + block * net.gamma)));
    CHECK(seconds(naive{}, p, n, net) == near(others * (2 * (net.alpha + all * net.beta) + all * net.gamma)));
    CHECK(seconds(all_to_all{}, p, n, net) == near(others * (net.alpha + all * net.beta + all * net.gamma)));
    CHECK(seconds(circulant{}, p, n, net) ==
          near(2 * rounds * net.alpha + others * block * (2 * net.beta + net.gamma)));
    CHECK(seconds(chain{4}, p, n, net) ==
          near((p - 2 + 4) * (2 * (net.alpha + all / 4 * net.beta) + all / 4 * net.gamma)));
  }
}

TEST_CASE("messages that are empty are not counted, and those of a pair and a round are one") {
  CHECK(cost(ring{}, 4, 0).messages == 0);
  CHECK(cost(ring{}, 4, 1).messages == 6);  // one block of one byte, three steps there and three back
  CHECK(cost(ring{}, 4, 1).bytes == 6);
  const auto s = derive(swing{}, 8);
  CHECK(s.reduce.size() > 24);
  CHECK(cost(s, 8).messages == 48);
}
