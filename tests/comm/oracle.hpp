/// What tests of communicators share: algorithms that try the executor's corners, and a sequential interpreter of
/// schedules, against whose bits the executor's are compared.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <map>
#include <span>
#include <type_traits>
#include <vector>

#include "dpsgd/allreduce/schedule.hpp"
#include "dpsgd/core/random.hpp"

namespace oracle {

using namespace dpsgd::allreduce;

/// Everybody sends everybody his block: many receipts in one round.
struct direct {
  constexpr void reduce_scatter(member me, auto&& send) const {
    for (int i = 1; i < me.size; ++i) send(0, me.at(i), me.at(i));
  }
};
static_assert(prove(direct{}, 7));

/// Everybody sends everybody everything: the same in the whole form.
struct whole_direct {
  constexpr int blocks(int) const { return 1; }
  constexpr void all_reduce(member me, auto&& send) const {
    for (int i = 1; i < me.size; ++i) send(0, me.at(i), 0);
  }
};
static_assert(prove(whole_direct{}, 7));

/// Halving by the lowest bit first: the blocks of one message do not lie side by side. Powers of two.
struct interleaved {
  constexpr bool serves(int size) const { return std::has_single_bit(static_cast<unsigned>(size)); }
  constexpr void reduce_scatter(member me, auto&& send) const {
    for (int t = 0; 1 << t < me.size; ++t)
      for (int b = 0; b < me.size; ++b)
        if (((b ^ me.rank) & ((2 << t) - 1)) == 1 << t) send(t, me.rank ^ (1 << t), b);
  }
};
static_assert(prove(interleaved{}, 8));

/// Four blocks, of which the odd ones go to member 1 and come back, the even ones to member 0: messages that mix add
/// and replace, several pieces, and gaps in the rounds.
struct mixed {
  constexpr int blocks(int) const { return 4; }
  constexpr void all_reduce(member me, auto&& send) const {
    if (me.size == 1) return;
    for (int b = 0; b < 4; ++b)
      if (me.rank != b % 2) send(b < 2 ? 3 : 10, b % 2, b);
    for (int b = 0; b < 4; ++b)
      for (int to = 0; to < me.size; ++to)
        if (me.rank == b % 2 && to != me.rank) send(b < 2 ? 10 : 20, to, b, on_receive::replace);
  }
};
static_assert(prove(mixed{}, 7));

/// Owners other than member b of block b, one member with two blocks and the others with none or one.
struct lopsided {
  constexpr int blocks(int size) const { return size + 1; }
  constexpr void reduce_scatter(member me, auto&& send) const {
    for (int b = 0; b <= me.size; ++b) {
      const int owner = b == 0 ? me.size - 1 : std::max(0, me.size - 1 - b);
      if (me.rank != owner && me.size > 1) send(0, owner, b);
    }
  }
};

/// Plays a schedule on the members' vectors, one after the other, by the rules of schedule.hpp to the letter: what is
/// sent is what was held before the round; what arrives is added in rank order with one's own value in its place.
template <class T>
void play(const std::vector<arrow>& arrows, int blocks, std::vector<std::vector<T>>& v) {
  const std::size_t n = v[0].size();
  for (std::size_t i = 0; i < arrows.size();) {
    const auto before = v;
    std::map<std::pair<int, std::size_t>, std::map<int, T>> added;  // (member, element) -> sender -> value
    for (const int round = arrows[i].round; i < arrows.size() && arrows[i].round == round; ++i) {
      const arrow& a = arrows[i];
      for (int k = 0; k < a.blocks.count; ++k) {
        const int b = (a.blocks.first + k) % blocks;
        for (std::size_t e = block_start(n, blocks, b); e < block_start(n, blocks, b + 1); ++e)
          if (a.then == on_receive::replace) v[a.to][e] = before[a.from][e];
          else added[{a.to, e}][a.from] = before[a.from][e];
      }
    }
    for (auto& [place, terms] : added) {
      terms[place.first] = before[place.first][place.second];
      T sum = terms.begin()->second;
      for (auto term = std::next(terms.begin()); term != terms.end(); ++term) sum = static_cast<T>(sum + term->second);
      v[place.first][place.second] = sum;
    }
  }
}

/// Rank r's n test values. Whole: small integers, whose sums are exact in every type. Otherwise numbers of very
/// different sizes, whose sums show the order of addition.
template <class T>
std::vector<T> values(int rank, std::size_t n, bool whole) {
  dpsgd::random_words words(
      {dpsgd::random_key::from_seed(7), dpsgd::domain::user, static_cast<std::uint64_t>(rank), 0});
  std::vector<T> v(n);
  for (auto& x : v) {
    if (whole || std::is_integral_v<T>) x = static_cast<T>(static_cast<int>(words.below(201)) - 100);
    else x = static_cast<T>((words.uniform() - 0.5) * static_cast<double>(std::uint64_t{1} << words.below(20)));
  }
  return v;
}

}  // namespace oracle
