/// An allreduce algorithm is a schedule: for one member, in which round it sends which blocks to whom.
///
/// An algorithm never sees the data. It is an object with one function of a few lines, for example the ring:
///
///   struct ring {
///     constexpr void reduce_scatter(member me, auto&& send) const {
///       for (int t = 0; t < me.size - 1; ++t) send(t, me.at(+1), me.at(-t - 1));   // round, to, blocks
///     }
///   };
///   static_assert(prove(ring{}, 16));
///
/// Receives, the way back (all-gather) and who owns what follow from these lines; so do execution (comm/execute.hpp)
/// and the proof below. The rules of the game:
///   - The vector is cut into blocks. Round numbers are global: a message of round t is sent and received in round t.
///     So a mismatched pair of send and receive, and a deadlock, cannot be written. Gaps in the numbering are free.
///   - What is sent in a round is what was held before the round. All that arrives in a round is added (or replaces) at
///     its end, in the order of the senders' ranks, with one's own value in its place: runs repeat bit by bit.
///   - All arrows from one member to another in one round travel as one message.
/// What is left to prove is that each member's contribution is counted exactly once in every block: verify, prove.
#pragma once

#include <algorithm>
#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace dpsgd::allreduce {

// ---- What an algorithm says --------------------------------------------------------------------------------------

/// One of `size` members, 0 <= rank < size.
struct member {
  int rank, size;
  /// The member (or block) `offset` places further round the circle: at(+1) is the right neighbour.
  constexpr int at(int offset) const {
    const int r = (rank + offset) % size;
    return r < 0 ? r + size : r;
  }
};

/// The blocks first, first + 1, ..., `count` of them; after the last block comes block 0. A plain int is one block.
struct block_range {
  int first, count;
  constexpr block_range(int block) : first(block), count(1) {}
  constexpr block_range(int first_block, int how_many) : first(first_block), count(how_many) {}
  friend constexpr bool operator==(block_range, block_range) = default;
};

/// An algorithm's parameter that has a least value: at_least<2> degree = 2. Anything below throws
/// std::invalid_argument, in a constant expression it does not compile.
template <int Least>
struct at_least {
  int value;
  constexpr at_least(int v) : value(v) {
    if (v < Least)
      throw std::invalid_argument("an allreduce algorithm's parameter is " + std::to_string(v) +
                                  "; it must be at least " + std::to_string(Least));
  }
  constexpr operator int() const { return value; }
};

/// What the receiver does with the blocks that arrive.
enum class on_receive { add, replace };

/// One line of a schedule, as its interpreters see it.
struct arrow {
  int round, from, to;
  block_range blocks;
  on_receive then;
  friend constexpr bool operator==(const arrow&, const arrow&) = default;
};

namespace detail {
struct any_send {  // stands for every `send` in the concepts
  constexpr void operator()(int, int, block_range) const {}
  constexpr void operator()(int, int, block_range, on_receive) const {}
};
struct scatter_send {
  constexpr void operator()(int, int, block_range) const {}
};
template <class Algorithm>
concept says_reduce_scatter = requires(const Algorithm a, member me) {
  a.reduce_scatter(me, scatter_send{});
};
template <class Algorithm>
concept says_all_reduce = requires(const Algorithm a, member me) {
  a.all_reduce(me, any_send{});
};
}  // namespace detail

/// reduce_scatter(member, send) with send(round, to, blocks): what arrives is added. In the end each block is whole at
/// one member, its owner: the one that never sends it. All-gather is the same schedule played backwards.
template <class Algorithm>
concept scatter_algorithm = detail::says_reduce_scatter<Algorithm> && !detail::says_all_reduce<Algorithm>;

/// all_reduce(member, send) with send(round, to, blocks) or send(round, to, blocks, on_receive::replace): in the end
/// all blocks are whole at every member, with the same bits.
template <class Algorithm>
concept whole_algorithm = detail::says_all_reduce<Algorithm> && !detail::says_reduce_scatter<Algorithm>;

/// Exactly one of the two, and, where wanted, int blocks(int size) const (otherwise one block per member) and
/// bool serves(int size) const (otherwise every size from 1).
template <class Algorithm>
concept algorithm = scatter_algorithm<Algorithm> || whole_algorithm<Algorithm>;

/// How many blocks `a` cuts the vector into among `size` members.
template <algorithm Algorithm>
constexpr int blocks_of(const Algorithm& a, int size) {
  if constexpr (requires {
                  { a.blocks(size) } -> std::convertible_to<int>;
                })
    return a.blocks(size);
  else return size;
}

/// Whether `a` works for `size` members.
template <algorithm Algorithm>
constexpr bool serves(const Algorithm& a, int size) {
  if constexpr (requires {
                  { a.serves(size) } -> std::convertible_to<bool>;
                })
    return size >= 1 && a.serves(size);
  else return size >= 1;
}

/// Where block b begins when n elements are cut into `blocks` blocks; b = blocks gives n. Sizes differ by at most one.
constexpr std::size_t block_start(std::size_t n, int blocks, int b) {
  const auto count = static_cast<std::size_t>(blocks), block = static_cast<std::size_t>(b);
  return n / count * block + n % count * block / count;
}

// ---- What follows from it ----------------------------------------------------------------------------------------

/// All arrows of an algorithm among `size` members, in the order (round, to, from, first block).
struct schedule {
  int size = 1, blocks = 1;
  bool scattered = false;             // has a reduce-scatter form; then `gather` brings the owners' blocks to all
  std::vector<arrow> reduce, gather;  // gather is empty for whole algorithms
};

constexpr void sort(std::vector<arrow>& arrows) {
  std::sort(arrows.begin(), arrows.end(), [](const arrow& a, const arrow& b) {
    if (a.round != b.round) return a.round < b.round;
    if (a.to != b.to) return a.to < b.to;
    if (a.from != b.from) return a.from < b.from;
    return a.blocks.first < b.blocks.first;
  });
}

/// A reduce-scatter played backwards is its all-gather: last round first, arrows turned, replace for add.
constexpr std::vector<arrow> backwards(std::vector<arrow> arrows) {
  int last = 0;
  for (const arrow& a : arrows) last = std::max(last, a.round);
  for (arrow& a : arrows) a = {last - a.round, a.to, a.from, a.blocks, on_receive::replace};
  sort(arrows);
  return arrows;
}

/// note(round, to, blocks, then) for every send of `me` that is not empty.
template <algorithm Algorithm, class Note>
constexpr void each_send(const Algorithm& a, member me, Note note) {
  const auto say = [&](int round, int to, block_range blocks, on_receive then) {
    if (blocks.count != 0) note(round, to, blocks, then);
  };
  if constexpr (scatter_algorithm<Algorithm>)
    a.reduce_scatter(me, [&](int round, int to, block_range blocks) { say(round, to, blocks, on_receive::add); });
  else
    a.all_reduce(me, [&](int round, int to, block_range blocks, on_receive then = on_receive::add) {
      say(round, to, blocks, then);
    });
}

/// Asks every member for its sends; or only members 0 .. `asked` - 1 (for interpreters that know why: see collapse in
/// cost.hpp). Cost: the number of arrows, sorted.
template <algorithm Algorithm>
constexpr schedule derive(const Algorithm& a, int size, int asked = -1) {
  schedule s{size, blocks_of(a, size), scatter_algorithm<Algorithm>, {}, {}};
  for (int rank = 0; rank < (asked < 0 ? size : asked); ++rank)
    each_send(a, member{rank, size}, [&](int round, int to, block_range blocks, on_receive then) {
      s.reduce.push_back({round, rank, to, blocks, then});
    });
  sort(s.reduce);
  if (s.scattered) s.gather = backwards(s.reduce);
  return s;
}

/// The blocks that `rank` owns after the reduce-scatter: those it never sends. Everything for whole algorithms.
/// Of a schedule that verify accepts it is one range that does not wrap, perhaps empty.
constexpr block_range owned(const schedule& s, int rank) {
  if (!s.scattered) return {0, s.blocks};
  auto sent = std::vector<char>(static_cast<std::size_t>(s.blocks), 0);
  for (const arrow& a : s.reduce)
    if (a.from == rank)
      for (int i = 0; i < a.blocks.count; ++i) sent[static_cast<std::size_t>((a.blocks.first + i) % s.blocks)] = 1;
  block_range mine{0, 0};
  for (int b = 0; b < s.blocks; ++b)
    if (!sent[static_cast<std::size_t>(b)]) mine = {mine.count ? mine.first : b, mine.count + 1};
  return mine;
}

template <algorithm Algorithm>
constexpr block_range owned(const Algorithm& a, member me) {
  return owned(derive(a, me.size), me.rank);
}

/// A part of a message: consecutive blocks, and what the receiver does with them.
struct piece {
  block_range blocks;
  on_receive then;
};
/// All that goes from one member to another in one round, in the order in which it is packed.
struct message {
  int peer;
  std::vector<piece> pieces;
};
/// One member's view of one round; sends and receives are each in the order of their peers.
struct plan_round {
  int round;
  std::vector<message> sends, receives;
};

/// One member's view of `arrows` (which must be sorted): its rounds, with the receives that follow from the others'
/// sends.
constexpr std::vector<plan_round> plan_for(int rank, std::span<const arrow> arrows) {
  std::vector<plan_round> plan;
  for (const arrow& a : arrows) {
    if (a.from != rank && a.to != rank) continue;
    if (plan.empty() || plan.back().round != a.round) plan.push_back({a.round, {}, {}});
    auto& messages = a.from == rank ? plan.back().sends : plan.back().receives;
    const int peer = a.from == rank ? a.to : a.from;
    if (messages.empty() || messages.back().peer != peer) messages.push_back({peer, {}});
    messages.back().pieces.push_back({a.blocks, a.then});
  }
  return plan;
}

// ---- Proof -------------------------------------------------------------------------------------------------------

/// What can be wrong with a schedule.
enum class flaw {
  none,
  size_not_served,        // the algorithm says that it does not serve this number of members
  no_such_round,          // a negative round
  no_such_peer,           // a message to oneself, or to nobody
  no_such_block,          // a block outside [0, blocks), or more blocks than there are
  sent_while_received,    // scatter form: a member sends and receives a block in the same round
  replaced_while_sent,    // a member's block is replaced in the round in which it sends it
  replaced_and_received,  // a block is replaced, and something else arrives for it, in the same round
  counted_twice,          // a sum that already holds a contribution has it added again
  missing,                // in the end a contribution is missing from a block
  no_owner,               // scatter form: every member sends the block away
  two_owners,             // scatter form: more than one member keeps the block
  owner_not_contiguous,   // scatter form: what a member owns is not one range
  unequal_bits,           // the sums are equal but were added in another order: their bits differ between members
};

/// The flaw in words.
constexpr std::string_view describe(flaw f) {
  switch (f) {
    case flaw::none:
      return "no flaw";
    case flaw::size_not_served:
      return "the algorithm does not serve this number of members";
    case flaw::no_such_round:
      return "a round is negative";
    case flaw::no_such_peer:
      return "a message goes to its own sender or to a member that does not exist";
    case flaw::no_such_block:
      return "a message names a block that does not exist";
    case flaw::sent_while_received:
      return "a reduce-scatter sends and receives the same block in one round";
    case flaw::replaced_while_sent:
      return "a block is replaced in the round in which it is sent";
    case flaw::replaced_and_received:
      return "a block is replaced and something else arrives for it in the same round";
    case flaw::counted_twice:
      return "a contribution is counted twice";
    case flaw::missing:
      return "a contribution is missing in the end";
    case flaw::no_owner:
      return "every member sends the block away, so nobody owns it";
    case flaw::two_owners:
      return "more than one member keeps the block, so it has no single owner";
    case flaw::owner_not_contiguous:
      return "the blocks that a member owns are not one range";
    case flaw::unequal_bits:
      return "members add in different orders, so the bits of their sums differ";
  }
  return "unknown";
}

/// The verdict: the first flaw found, with the round, the member (the receiver) and the block where it shows; -1 where
/// that does not apply. True when there is none.
struct verdict {
  allreduce::flaw flaw = allreduce::flaw::none;
  int round = -1, rank = -1, block = -1;
  constexpr explicit operator bool() const { return flaw == allreduce::flaw::none; }
  friend constexpr bool operator==(const verdict&, const verdict&) = default;
};

namespace detail {

/// Plays a schedule with sets of contributions in place of numbers.
class simulation {
 public:
  constexpr explicit simulation(const schedule& s)
      : s_(s),
        cells_(static_cast<std::size_t>(s.size) * static_cast<std::size_t>(s.blocks)),
        words_((static_cast<std::size_t>(s.size) + 63) / 64),
        held_(std::vector<std::uint64_t>(cells_ * words_, 0)),
        sent_(std::vector<int>(cells_, 0)),
        got_(std::vector<int>(cells_, 0)),
        replaced_(std::vector<int>(cells_, 0)) {
    if (!s.scattered) order_ = std::vector<std::uint64_t>(cells_, 0), below_ = std::vector<std::uint64_t>(cells_, 0);
    for (std::size_t cell = 0; cell < cells_; ++cell) {
      const auto rank = cell / static_cast<std::size_t>(s.blocks);
      held_[cell * words_ + rank / 64] = std::uint64_t{1} << rank % 64;
      if (!s.scattered) order_[cell] = mix(rank + 1);
    }
  }

  /// Plays sorted arrows to the end.
  constexpr verdict play(const std::vector<arrow>& arrows, bool gathering) {
    for (const arrow& a : arrows) {
      if (a.round < 0) return {flaw::no_such_round, a.round, a.from};
      if (a.to < 0 || a.to >= s_.size || a.from < 0 || a.from >= s_.size || a.to == a.from)
        return {flaw::no_such_peer, a.round, a.from};
      if (a.blocks.first < 0 || a.blocks.first >= s_.blocks || a.blocks.count < 0 || a.blocks.count > s_.blocks)
        return {flaw::no_such_block, a.round, a.from, a.blocks.first};
    }
    for (std::size_t i = 0; i < arrows.size();) {
      auto end = i;
      while (end < arrows.size() && arrows[end].round == arrows[i].round) ++end;
      if (const verdict v = round(std::span(arrows).subspan(i, end - i), gathering); !v) return v;
      i = end;
    }
    return {};
  }

  constexpr bool whole(int rank, int block) const {
    const auto at = cell(rank, block) * words_;
    for (std::size_t w = 0; w < words_; ++w) {
      const auto members = static_cast<std::size_t>(s_.size) - w * 64;
      if (held_[at + w] != (members >= 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << members) - 1)) return false;
    }
    return true;
  }
  /// The order in which the block's sum was added up, as a number; equal on two members when their bits are.
  constexpr std::uint64_t order(int rank, int block) const { return order_[cell(rank, block)]; }

 private:
  constexpr std::size_t cell(int rank, int block) const {
    return static_cast<std::size_t>(rank) * static_cast<std::size_t>(s_.blocks) + static_cast<std::size_t>(block);
  }
  // a + b has the bits of b + a, but (a + b) + c not those of a + (b + c): symmetric, not associative
  static constexpr std::uint64_t mix(std::uint64_t x) {
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
  }

  constexpr verdict round(std::span<const arrow> arrows, bool gathering) {
    ++now_;
    mail_.clear(), mail_order_.clear();
    for (const arrow& a : arrows)
      for (int i = 0, b = a.blocks.first; i < a.blocks.count; ++i, b = b + 1 == s_.blocks ? 0 : b + 1) {
        const auto c = cell(a.from, b);
        sent_[c] = now_;
        for (std::size_t w = 0; w < words_; ++w) mail_.push_back(held_[c * words_ + w]);
        if (!s_.scattered) mail_order_.push_back(order_[c]);
      }
    std::size_t letter = 0;
    for (const arrow& a : arrows)
      for (int i = 0, b = a.blocks.first; i < a.blocks.count; ++i, ++letter, b = b + 1 == s_.blocks ? 0 : b + 1) {
        const auto c = cell(a.to, b);
        if (replaced_[c] == now_ || (a.then == on_receive::replace && got_[c] == now_))
          return {flaw::replaced_and_received, a.round, a.to, b};
        got_[c] = now_;
        if (a.then == on_receive::replace) {
          if (sent_[c] == now_) return {flaw::replaced_while_sent, a.round, a.to, b};
          replaced_[c] = now_;
          for (std::size_t w = 0; w < words_; ++w) held_[c * words_ + w] = mail_[letter * words_ + w];
        } else {
          if (s_.scattered && !gathering && sent_[c] == now_) return {flaw::sent_while_received, a.round, a.to, b};
          for (std::size_t w = 0; w < words_; ++w) {
            if (held_[c * words_ + w] & mail_[letter * words_ + w]) return {flaw::counted_twice, a.round, a.to, b};
            held_[c * words_ + w] |= mail_[letter * words_ + w];
          }
        }
      }
    if (!s_.scattered) add_in_rank_order(arrows);
    return {};
  }

  constexpr void add_in_rank_order(std::span<const arrow> arrows) {
    for (int pass = 0; pass < 3;
         ++pass) {  // fold the lower ranks' letters; add one's own to them; then the higher ranks'
      std::size_t letter = 0;
      for (const arrow& a : arrows)
        for (int i = 0, b = a.blocks.first; i < a.blocks.count; ++i, ++letter, b = b + 1 == s_.blocks ? 0 : b + 1) {
          const auto c = cell(a.to, b);
          const auto received = mail_order_[letter];
          if (a.then == on_receive::replace) order_[c] = received;
          else if (pass == 2 && a.from > a.to) order_[c] = mix(order_[c] + received);
          else if (pass == 0 && a.from < a.to) below_[c] = below_[c] ? mix(below_[c] + received) : received;
          else if (pass == 1 && below_[c]) order_[c] = mix(below_[c] + order_[c]), below_[c] = 0;
        }
    }
  }

  const schedule& s_;
  std::size_t cells_, words_;
  std::vector<std::uint64_t> held_;           // [rank][block] -> set of contributions, a bit for each member
  std::vector<int> sent_, got_, replaced_;    // [rank][block] -> the last round in which that happened
  std::vector<std::uint64_t> order_, below_;  // [rank][block] -> order of addition; whole forms only
  std::vector<std::uint64_t> mail_, mail_order_;
  int now_ = 0;
};

/// After the reduce-scatter: each block is kept, whole, by exactly one member, and what a member keeps is one range.
constexpr verdict check_owners(const schedule& s, const simulation& play) {
  const auto blocks = static_cast<std::size_t>(s.blocks);
  auto sent = std::vector<char>(static_cast<std::size_t>(s.size) * blocks, 0);
  for (const arrow& a : s.reduce)
    for (int i = 0, b = a.blocks.first; i < a.blocks.count; ++i, b = b + 1 == s.blocks ? 0 : b + 1)
      sent[static_cast<std::size_t>(a.from) * blocks + static_cast<std::size_t>(b)] = 1;
  auto owner = std::vector<int>(blocks, -1);
  for (int rank = 0; rank < s.size; ++rank)
    for (int b = 0, last = -1; b < s.blocks; ++b) {
      if (sent[static_cast<std::size_t>(rank) * blocks + static_cast<std::size_t>(b)]) continue;
      if (owner[static_cast<std::size_t>(b)] >= 0) return {flaw::two_owners, -1, rank, b};
      if (last >= 0 && last != b - 1) return {flaw::owner_not_contiguous, -1, rank, b};
      owner[static_cast<std::size_t>(b)] = rank;
      last = b;
    }
  for (int b = 0; b < s.blocks; ++b) {
    const int rank = owner[static_cast<std::size_t>(b)];
    if (rank < 0) return {flaw::no_owner, -1, -1, b};
    if (!play.whole(rank, b)) return {flaw::missing, -1, rank, b};
  }
  return {};
}

}  // namespace detail

/// Checks a schedule by playing it: is every contribution counted exactly once in every block, at every member, with
/// equal bits, and can it be done in place? Cost: blocks moved, times size / 64; memory size * blocks * size / 8 bytes.
constexpr verdict verify(const schedule& s) {
  detail::simulation play(s);
  if (const verdict v = play.play(s.reduce, false); !v) return v;
  if (s.scattered) {
    if (const verdict v = detail::check_owners(s, play); !v) return v;
    if (const verdict v = play.play(s.gather, true); !v) return v;
  }
  for (int rank = 0; rank < s.size; ++rank)
    for (int b = 0; b < s.blocks; ++b) {
      if (!play.whole(rank, b)) return {flaw::missing, -1, rank, b};
      if (!s.scattered && play.order(rank, b) != play.order(0, b)) return {flaw::unequal_bits, -1, rank, b};
    }
  return {};
}

/// Checks algorithm `a` among `size` members.
template <algorithm Algorithm>
constexpr verdict verify(const Algorithm& a, int size) {
  if (!serves(a, size)) return {flaw::size_not_served};
  if (blocks_of(a, size) < 1) return {flaw::no_such_block};
  return verify(derive(a, size));
}

namespace detail {
// Not constexpr: a proof that arrives here stops the compiler, which quotes this name with the flaw's.
template <flaw What>
void the_schedule_is_wrong() {}

// (clang quotes round, rank and block as well; with g++, print verify(a, size) for them.)
template <int... Flaw>
constexpr bool accept(flaw what, [[maybe_unused]] int round, [[maybe_unused]] int rank, [[maybe_unused]] int block,
                      std::integer_sequence<int, Flaw...>) {
  ((what == flaw{Flaw + 1} ? the_schedule_is_wrong<flaw{Flaw + 1}>() : void()), ...);
  return true;
}
}  // namespace detail

/// True, or the program does not compile: static_assert(prove(ring{}, 16)). Instead of false, the compiler quotes the
/// flaw with its round, rank and block. Compilers stop at a million or so constexpr steps: 16 is a good size.
template <algorithm Algorithm>
consteval bool prove(const Algorithm& a, int size) {
  const verdict v = verify(a, size);
  return detail::accept(v.flaw, v.round, v.rank, v.block,
                        std::make_integer_sequence<int, static_cast<int>(flaw::unequal_bits)>{});
}

}  // namespace dpsgd::allreduce
