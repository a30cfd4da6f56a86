/// What the algorithms' doc comments say of rounds, messages and bytes, written down once more for the tests.
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <bit>
#include <cstdint>

#include "allreduce/zoo.hpp"

namespace formulas {

inline int ceil_log(int k, int p) {
  int rounds = 0;
  for (; p > 1; p = (p - 1) / k + 1) ++rounds;
  return rounds;
}
inline int floor_power(int k, int p) {
  int power = 1;
  while (power <= p / k) power *= k;
  return power;
}

/// What a doc comment says, for a vector of `n` bytes that its blocks divide. -1: it gives only `most`.
struct formula {
  std::int64_t rounds, messages, sent;                             // sent and received by the member that does most
  std::int64_t most_rounds = 0, most_messages = 0, most_sent = 0;  // where the comment says "at most"
};

inline formula says(const zoo::entry& e, std::int64_t p, std::int64_t n) {
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

/// Whether what was counted is what a formula states, or, where it states only the most, no more.
inline bool is(std::uint64_t counted, std::int64_t stated, std::int64_t most) {
  const auto n = static_cast<std::int64_t>(counted);
  return stated >= 0 ? n == stated : n <= most;
}

}  // namespace formulas
