/// Prices every algorithm by the cost model, for the pictures and tables of benchmarks/simulate/study.py.
///
///   priced < lines of "ranks bytes alpha beta gamma"      prints a JSON array with a row for each line (its number: question) and
///                                                       algorithm; lines of the same ranks should stand together
///
/// Above 4,096 ranks one member is asked for all that do the same (collapse in allreduce/cost.hpp); there an algorithm
/// whose members send some P lines each is priced only where its blocks divide the bytes, and left out elsewhere.
/// That members do the same is then looked at for a sample of them. (For all, of up to 128: tests/allreduce.)
#include <cstdint>
#include <cstdio>
#include <iostream>
#include <sstream>
#include <string>
#include <vector>

#include "dpsgd/allreduce/all.hpp"
#include "dpsgd/allreduce/cost.hpp"
#include "dpsgd/core/error.hpp"

namespace {

using namespace dpsgd::allreduce;

struct question {
  int number, ranks;
  std::uint64_t bytes;
  network net;
};

void print(const question& q, const std::string& name, const costs& c, double seconds) {
  static const char* separator = "\n";
  std::printf(
      R"(%s{"question": %d, "algorithm": "%s", "ranks": %d, "bytes": %llu, "seconds": %.9g, "rounds": %d, "messages": %llu, )"
      R"("most_sent": %llu})",
      separator, q.number, name.c_str(), q.ranks, static_cast<unsigned long long>(q.bytes), seconds, c.rounds,
      static_cast<unsigned long long>(c.messages), static_cast<unsigned long long>(c.most_sent));
  separator = ",\n";
}

template <algorithm Algorithm>
void price_collapsed(const std::vector<question>& all, const std::string& name, const Algorithm& a, int period) {
  const int ranks = all.front().ranks;
  if (ranks % period != 0 || !serves(a, ranks)) return;
  for (int i = 0; i < 16; ++i) {
    const int rank = static_cast<int>((static_cast<std::int64_t>(i) * 2654435761 + ranks - 1) % ranks);
    dpsgd::require(repeats(a, ranks, period, rank), name, ": member ", rank, " of ", ranks, " does not do what member ",
                   rank % period, " does");
  }
  const auto few = collapse(a, ranks, period);
  for (const auto& q : all)
    if (q.bytes % static_cast<std::uint64_t>(few.arrows.blocks) == 0)
      print(q, name, cost(few, q.bytes), seconds(few, q.bytes, q.net));
}

void price(const std::vector<question>& all) {  // of one number of ranks
  const int ranks = all.front().ranks;
  for (const any& a : all_algorithms) {
    const std::string name(a.name());
    if (a.is_native()) continue;
    if (ranks > 4096) {
      if (name == "ring") price_collapsed(all, name, ring{}, 1);
      if (name == "round_robin") price_collapsed(all, name, round_robin{}, 1);
      if (name == "all_to_all") price_collapsed(all, name, all_to_all{}, 1);
      if (name == "swing") price_collapsed(all, name, swing{}, 2);
      if (name == "hierarchical") price_collapsed(all, name, hierarchical{ring{}, circulant{}, 4}, 4);
      if (name == "ring" || name == "round_robin" || name == "all_to_all" || name == "swing" || name == "hierarchical")
        continue;
    }
    const auto s = a.derive(ranks);
    for (const auto& q : all) print(q, name, cost(s, q.bytes), seconds(s, q.bytes, q.net));
  }
}

}  // namespace

int main() try {
  std::vector<question> all;
  std::printf("[");
  int number = 0;
  for (std::string line; std::getline(std::cin, line);) {
    question q{number++, 0, 0, {}};
    std::istringstream in(line);
    in >> q.ranks >> q.bytes >> q.net.alpha >> q.net.beta >> q.net.gamma;
    dpsgd::require(!in.fail() && q.ranks >= 1, "expected 'ranks bytes alpha beta gamma', got '", line, "'");
    if (!all.empty() && all.front().ranks != q.ranks) price(all), all.clear();
    all.push_back(q);
  }
  if (!all.empty()) price(all);
  std::printf("\n]\n");
  return 0;
} catch (const std::exception& e) {
  std::cerr << "priced: " << e.what() << '\n';
  return 1;
}
