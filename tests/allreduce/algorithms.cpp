/// Every algorithm: proved for many numbers of members, and what its comment says of rounds, messages and bytes.
#include <doctest/doctest.h>

#include <cstdint>
#include <string>
#include <vector>

#include "allreduce/formulas.hpp"
#include "allreduce/zoo.hpp"
#include "dpsgd/allreduce/cost.hpp"

using namespace dpsgd::allreduce;
using namespace formulas;

namespace {

std::vector<int> grid() {
  std::vector<int> sizes;
  for (int p = 1; p <= 128; ++p) sizes.push_back(p);
  sizes.insert(sizes.end(), {255, 256, 1000});
  return sizes;
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

TEST_CASE("one member for all that do the same: the same counts and the same time as of all arrows") {
  const network net{2e-6, 1e-9, 3e-10};
  const auto check = [&](const auto& a, int period, int step) {
    for (int size = period; size <= 128; size += step) {
      INFO("among ", size, ", period ", period);
      for (int rank = 0; rank < size; ++rank) REQUIRE(repeats(a, size, period, rank));
      const auto whole = derive(a, size);
      const auto few = collapse(a, size, period);
      for (const arrow& one : few.arrows.reduce) REQUIRE(one.from < period);
      for (const std::uint64_t each : {0, 1, 12}) {
        const auto bytes = each * static_cast<std::uint64_t>(whole.blocks);
        const costs c = cost(few, bytes), w = cost(whole, bytes);
        CHECK(c.rounds == w.rounds);
        CHECK(c.messages == w.messages);
        CHECK(c.bytes == w.bytes);
        CHECK(c.reduced == w.reduced);
        CHECK(c.most_messages == w.most_messages);
        CHECK(c.most_sent == w.most_sent);
        CHECK(c.most_received == w.most_received);
        CHECK(c.most_reduced == w.most_reduced);
        CHECK(seconds(few, bytes, net) == seconds(whole, bytes, net));  // bit by bit
      }
    }
  };
  check(ring{}, 1, 1);
  check(round_robin{}, 1, 1);
  check(all_to_all{}, 1, 1);
  check(circulant{}, 1, 1);
  check(circulant{3}, 1, 1);
  check(swing{}, 2, 2);
  check(hierarchical{ring{}, circulant{}, 4}, 4, 4);
  // And those that do not repeat are told apart.
  CHECK(!repeats(swing{}, 8, 1, 1));
  CHECK(!repeats(naive{}, 4, 1, 1));
  CHECK(!repeats(binomial_tree{}, 8, 2, 2));
  CHECK(!repeats(swing{}, 7, 1, 6));
  CHECK_THROWS_WITH_AS(collapse(ring{}, 7, 2), "a period of 2 does not divide 7 members", std::invalid_argument);
  CHECK_THROWS_AS(cost(collapse(ring{}, 7, 1), 8), std::invalid_argument);
  CHECK_THROWS_AS(seconds(collapse(ring{}, 7, 1), 8, net), std::invalid_argument);
}
