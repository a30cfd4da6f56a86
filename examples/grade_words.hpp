/// What is wrong with a schedule, in words for the student who wrote it: the first wrong block, whose contribution is
/// missing there or would be counted twice, and which message does it.
#pragma once

#include <algorithm>
#include <sstream>
#include <string>
#include <vector>

#include "dpsgd/allreduce/schedule.hpp"

namespace grade {

namespace ar = dpsgd::allreduce;

template <class... Parts>
std::string text(const Parts&... parts) {
  std::ostringstream out;
  (out << ... << parts);
  return out.str();
}

/// "member 3", "members 1 and 4", "members 0, 2 and 5".
inline std::string list(const std::vector<int>& numbers) {
  std::string words;
  for (std::size_t i = 0; i < numbers.size(); ++i)
    words += (i == 0 ? "" : i + 1 == numbers.size() ? " and " : ", ") + std::to_string(numbers[i]);
  return (numbers.size() == 1 ? "member " : "members ") + words;
}

/// How often each member's contribution is in each block of each member.
class contributions {
 public:
  explicit contributions(const ar::schedule& s) : s_(s) {
    now_.assign(static_cast<std::size_t>(s.size), std::vector<std::vector<int>>(static_cast<std::size_t>(s.blocks)));
    for (std::size_t r = 0; r < now_.size(); ++r)
      for (auto& block : now_[r]) block.assign(now_.size(), 0), block[r] = 1;
  }

  /// Plays the arrows of all rounds before `stop`.
  void play(const std::vector<ar::arrow>& arrows, int stop) {
    for (std::size_t i = 0; i < arrows.size() && arrows[i].round < stop;) {
      const auto before = now_;
      for (const int round = arrows[i].round; i < arrows.size() && arrows[i].round == round; ++i)
        each_block(arrows[i], [&](int b) { deliver(arrows[i], before[at(arrows[i].from)][at(b)], b); });
    }
  }

  /// Members whose contribution is missing from a block.
  std::vector<int> missing(int rank, int block) const {
    std::vector<int> who;
    for (int m = 0; m < s_.size; ++m)
      if (now_[at(rank)][at(block)][at(m)] == 0) who.push_back(m);
    return who;
  }

  /// "member 3 ... ": the message of round `round` that brings `rank` a contribution to `block` which is there already.
  std::string doubled(const std::vector<ar::arrow>& arrows, int round, int rank, int block) {
    const auto before = now_;
    std::string found;
    for (const ar::arrow& a : arrows)
      if (a.round == round && a.to == rank)
        each_block(a, [&](int b) {
          if (b != block || !found.empty()) return;
          std::vector<int> twice;
          const auto &mine = now_[at(rank)][at(b)], &sent = before[at(a.from)][at(b)];
          for (int m = 0; m < s_.size; ++m)
            if (mine[at(m)] > 0 && sent[at(m)] > 0) twice.push_back(m);
          if (!twice.empty())
            found = text("member ", rank, " adds block ", block, " from member ", a.from, ", with the contribution of ",
                         list(twice), ", which its own block ", block, " already holds");
          deliver(a, sent, b);
        });
    return found;
  }

 private:
  static std::size_t at(int i) { return static_cast<std::size_t>(i); }
  template <class Visit>
  void each_block(const ar::arrow& a, Visit visit) const {
    for (int k = 0; k < a.blocks.count; ++k) visit((a.blocks.first + k) % s_.blocks);
  }
  void deliver(const ar::arrow& a, const std::vector<int>& sent, int b) {
    auto& held = now_[at(a.to)][at(b)];
    if (a.then == ar::on_receive::replace) held = sent;
    else
      for (std::size_t m = 0; m < held.size(); ++m) held[m] += sent[m];
  }

  const ar::schedule& s_;
  std::vector<std::vector<std::vector<int>>> now_;  // [rank][block][member]
};

/// A flaw, told to a student.
inline std::string explain(const ar::schedule& s, const ar::verdict& v) {
  using ar::flaw;
  const int last_member = s.size - 1, last_block = s.blocks - 1;
  const auto senders = [&](const std::vector<ar::arrow>& arrows) {
    std::vector<int> who;
    for (const auto& a : arrows)
      for (int k = 0; k < a.blocks.count && a.round == v.round && a.to == v.rank; ++k)
        if ((a.blocks.first + k) % s.blocks == v.block) who.push_back(a.from);
    return list(who);
  };
  const auto round = text("in round ", v.round, " ");
  switch (v.flaw) {
    case flaw::no_such_round:
      return text("member ", v.rank, " sends in round ", v.round, "; rounds are numbered from 0");
    case flaw::no_such_peer:
      for (const auto& a : s.reduce)
        if (a.round == v.round && a.from == v.rank && (a.to == a.from || a.to < 0 || a.to >= s.size))
          return a.to == a.from ? text(round, "member ", a.from, " sends to itself")
                                : text(round, "member ", a.from, " sends to member ", a.to,
                                       ", but the members are numbered 0 to ", last_member);
      break;
    case flaw::no_such_block:
      for (const auto& a : s.reduce)
        if (a.round == v.round && a.from == v.rank && a.blocks.first == v.block)
          return text(round, "member ", a.from, " sends ", a.blocks.count, " block(s) from block ", a.blocks.first,
                      " on, but the blocks are numbered 0 to ", last_block);
      break;
    case flaw::sent_while_received:
      return text(round, "member ", v.rank, " sends block ", v.block, " and receives it from ", senders(s.reduce),
                  " at the same time; what arrives in a round can only be passed on in a later one");
    case flaw::replaced_while_sent:
      return text(round, "block ", v.block, " of member ", v.rank, " is replaced by what ", senders(s.reduce),
                  " sends, while member ", v.rank, " is sending it");
    case flaw::replaced_and_received:
      return text(round, "block ", v.block, " of member ", v.rank, " arrives from ", senders(s.reduce),
                  ", and at least one of them is to replace it: which of them counts?");
    case flaw::counted_twice: {
      contributions c(s);
      c.play(s.reduce, v.round);
      const auto how = c.doubled(s.reduce, v.round, v.rank, v.block);
      return how.empty() ? text(round, "a contribution is counted twice in block ", v.block, " of member ", v.rank)
                         : text(round, how, ": it would be counted twice");
    }
    case flaw::missing: {
      contributions c(s);
      const int end = s.reduce.empty() ? 0 : s.reduce.back().round + 1;
      c.play(s.reduce, end);
      const auto who = c.missing(v.rank, v.block);
      if (s.scattered)
        return text("member ", v.rank, " is the one that keeps block ", v.block,
                    " (it never sends it), but in the end the contribution of ", list(who), " is missing from it");
      return text("in the end the contribution of ", list(who), " is missing from block ", v.block, " of member ",
                  v.rank);
    }
    case flaw::no_owner:
      return text("every member sends block ", v.block, " away; the one that is to have the sum must never send it");
    case flaw::two_owners: {
      std::vector<int> keepers;
      for (int rank = 0; rank < s.size; ++rank) {
        bool sent = false;
        for (const auto& a : s.reduce)
          for (int k = 0; k < a.blocks.count && a.from == rank; ++k) sent |= (a.blocks.first + k) % s.blocks == v.block;
        if (!sent) keepers.push_back(rank);
      }
      return text(list(keepers), " never send block ", v.block, ", so all of them keep a part of its sum; all but one ",
                  "must send it");
    }
    case flaw::owner_not_contiguous:
      return text("member ", v.rank, " keeps blocks that do not lie side by side, block ", v.block, " among them");
    case flaw::unequal_bits:
      return text("all sums are complete, but member ", v.rank, " adds block ", v.block,
                  " up in another order than member 0, so that rounding makes them differ");
    default:
      break;
  }
  return text(describe(v.flaw), " (round ", v.round, ", member ", v.rank, ", block ", v.block, ")");
}

}  // namespace grade
