/// What a schedule costs: counted from its arrows, and in seconds by the alpha-beta-gamma model, beside the lower
/// bounds.
///
///   const auto c = cost(circulant{}, 7, 4 * n);               // c.rounds == 6, ...
///   const double t = seconds(circulant{}, 7, 4 * n, {.alpha = 2e-6, .beta = 1e-9, .gamma = 1e-10});
#pragma once

#include <algorithm>
#include <bit>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "dpsgd/allreduce/schedule.hpp"

namespace dpsgd::allreduce {

/// Counts for one allreduce. Empty messages are not sent, and all arrows from one member to another in a round are one
/// message, as when it is executed.
struct costs {
  int rounds = 0;              // on the critical path: the longest row of messages that wait for each other
  std::uint64_t messages = 0;  // of all members together
  std::uint64_t bytes = 0;     // sent by all members together
  std::uint64_t reduced = 0;   // bytes added by all members together
  std::uint64_t most_messages = 0, most_sent = 0, most_received = 0, most_reduced = 0;  // of the member that has most
};

/// A network by three numbers: seconds for a message to get going, for a byte to travel, and for a byte to be added.
struct network {
  double alpha, beta, gamma;
};

namespace detail {

/// One message of a round, as the executors send it.
struct parcel {
  int round, from, to;
  std::uint64_t bytes, added;
};

/// The messages of sorted arrows that are not empty, in the order (round, to, from). `bytes`: of the vector, which is
/// cut as if it consisted of bytes.
inline auto parcels(const schedule& s, const std::vector<arrow>& arrows, std::uint64_t bytes) {
  std::vector<parcel> all;
  for (const arrow& a : arrows) {
    std::uint64_t size = 0;
    const int last = a.blocks.first + a.blocks.count, end = std::min(last, s.blocks);
    size += block_start(bytes, s.blocks, end) - block_start(bytes, s.blocks, a.blocks.first);
    if (last > s.blocks) size += block_start(bytes, s.blocks, last - s.blocks);
    if (size == 0) continue;
    if (all.empty() || all.back().round != a.round || all.back().from != a.from || all.back().to != a.to)
      all.push_back({a.round, a.from, a.to, 0, 0});
    all.back().bytes += size;
    if (a.then == on_receive::add) all.back().added += size;
  }
  return all;
}

/// visit(the parcels of a round), one round after the other, to the end of the reduction and of the way back; a member
/// sends to those next to its right first, so that not everybody begins with member 0. Member r + period stands for r.
template <class Visit>
void each_round(const schedule& s, int period, std::uint64_t bytes, Visit visit) {
  for (const auto* arrows : {&s.reduce, &s.gather}) {
    auto all = parcels(s, *arrows, bytes);
    for (std::size_t i = 0; i < all.size();) {
      auto end = i;
      while (end < all.size() && all[end].round == all[i].round) ++end;
      const auto distance = [&](const parcel& p) { return (p.to - p.from + s.size) % s.size; };
      std::sort(all.begin() + static_cast<std::ptrdiff_t>(i), all.begin() + static_cast<std::ptrdiff_t>(end),
                [&](const parcel& a, const parcel& b) {
                  return distance(a) != distance(b) ? distance(a) < distance(b) : a.from < b.from;
                });
      for (auto p = i; p < end; ++p) all[p].from %= period, all[p].to %= period;
      visit(std::span(all).subspan(i, end - i));
      i = end;
    }
  }
}

// See cost and seconds below. s: the arrows that members 0 .. period - 1 send, each of which stands for size / period.
inline costs cost(const schedule& s, int period, std::uint64_t bytes) {
  const auto members = static_cast<std::size_t>(period);
  struct tally {
    int depth = 0;
    std::uint64_t messages = 0, sent = 0, received = 0, reduced = 0;
  };
  auto of = std::vector<tally>(members);
  auto next = std::vector<int>(members, 0);
  costs c;
  each_round(s, period, bytes, [&](std::span<const parcel> round) {
    for (const auto& p : round) {  // a round takes a member from its own depth, or its peers', one further
      const auto from = static_cast<std::size_t>(p.from), to = static_cast<std::size_t>(p.to);
      next[from] = std::max(next[from], of[from].depth + 1);
      next[to] = std::max({next[to], of[to].depth + 1, of[from].depth + 1});
      ++of[from].messages, of[from].sent += p.bytes, of[to].received += p.bytes, of[to].reduced += p.added;
      ++c.messages, c.bytes += p.bytes, c.reduced += p.added;
    }
    for (const auto& p : round)
      for (const int m : {p.from, p.to}) of[static_cast<std::size_t>(m)].depth = next[static_cast<std::size_t>(m)];
  });
  for (const tally& t : of) {
    c.rounds = std::max(c.rounds, t.depth);
    c.most_messages = std::max(c.most_messages, t.messages), c.most_sent = std::max(c.most_sent, t.sent);
    c.most_received = std::max(c.most_received, t.received), c.most_reduced = std::max(c.most_reduced, t.reduced);
  }
  const auto times = static_cast<std::uint64_t>(s.size / period);
  c.messages *= times, c.bytes *= times, c.reduced *= times;
  return c;
}

inline double seconds(const schedule& s, int period, std::uint64_t bytes, const network& net) {
  const auto members = static_cast<std::size_t>(period);
  auto clock = std::vector<double>(members, 0), sent = clock, received = clock, adding = clock;
  each_round(s, period, bytes, [&](std::span<const parcel> round) {
    for (const auto& p : round)
      for (const int m : {p.from, p.to}) {
        const auto i = static_cast<std::size_t>(m);
        sent[i] = received[i] = clock[i], adding[i] = 0;
      }
    for (const auto& p : round) {
      const auto from = static_cast<std::size_t>(p.from), to = static_cast<std::size_t>(p.to);
      const double takes = net.alpha + static_cast<double>(p.bytes) * net.beta;
      sent[from] += takes;
      received[to] = std::max(received[to] + takes, sent[from]);
      adding[to] += static_cast<double>(p.added) * net.gamma;
    }
    for (const auto& p : round)
      for (const int m : {p.from, p.to}) {
        const auto i = static_cast<std::size_t>(m);
        clock[i] = std::max(clock[i], std::max(sent[i], received[i] + adding[i]));
        adding[i] = 0, received[i] = 0;  // so that a member that occurs twice is counted once
      }
  });
  return *std::max_element(clock.begin(), clock.end());
}

}  // namespace detail

/// Counts the arrows of a schedule that is right (verify) for a vector of `bytes` bytes. Cost: the number of arrows.
inline costs cost(const schedule& s, std::uint64_t bytes) { return detail::cost(s, s.size, bytes); }

/// The same for algorithm `a` among `size` members.
template <algorithm Algorithm>
costs cost(const Algorithm& a, int size, std::uint64_t bytes) {
  return cost(derive(a, size), bytes);
}

/// Seconds by the model: a member sends one message after the other, round the circle to its right, and receives one
/// after the other at the same time (one port, both directions); a message of b bytes keeps either side busy for alpha
/// + b beta; what has arrived is added, at b gamma, and then the member's next round begins. Nobody waits for those he
/// does not hear from. The links are all alike, and do not crowd each other.
inline double seconds(const schedule& s, std::uint64_t bytes, const network& net) {
  return detail::seconds(s, s.size, bytes, net);
}

template <algorithm Algorithm>
double seconds(const Algorithm& a, int size, std::uint64_t bytes, const network& net) {
  return seconds(derive(a, size), bytes, net);
}

/// The same two for very many members, of an algorithm whose members r and r + period do the same, `period` places
/// further round the circle: it asks members 0 .. period - 1 alone. So do ring, round_robin, all_to_all and circulant
/// with period 1, swing (even sizes) with 2, hierarchical with its node_size; where `size` is a multiple of it, and the
/// blocks, which then are all of one length, divide `bytes`: it throws std::invalid_argument where these do not hold.
/// Whether the members do repeat, repeats() tells. Cost: the arrows of `period` members.
struct collapsed {
  schedule arrows;  // those that members 0 .. period - 1 send to reduce; of the way back, those that come to them
  int period;
};

template <algorithm Algorithm>
collapsed collapse(const Algorithm& a, int size, int period) {
  if (period < 1 || size % period != 0)
    throw std::invalid_argument("a period of " + std::to_string(period) + " does not divide " + std::to_string(size) +
                                " members");
  return {derive(a, size, period), period};
}

namespace detail {
inline void check_equal_blocks(const collapsed& c, std::uint64_t bytes) {
  if (bytes % static_cast<std::uint64_t>(c.arrows.blocks) != 0)
    throw std::invalid_argument(std::to_string(c.arrows.blocks) + " blocks do not divide " + std::to_string(bytes) +
                                " bytes; members with blocks of several lengths do not all do the same");
}
}  // namespace detail

inline costs cost(const collapsed& c, std::uint64_t bytes) {
  detail::check_equal_blocks(c, bytes);
  return detail::cost(c.arrows, c.period, bytes);
}

inline double seconds(const collapsed& c, std::uint64_t bytes, const network& net) {
  detail::check_equal_blocks(c, bytes);
  return detail::seconds(c.arrows, c.period, bytes, net);
}

/// Whether `rank` sends what rank % period sends, as far as cost and seconds can tell: in the same rounds, as far round
/// the circle, as many blocks, for the same use. Cost: the arrows of the two.
template <algorithm Algorithm>
bool repeats(const Algorithm& a, int size, int period, int rank) {
  struct line {
    int round, distance, blocks;
    bool adds;
    auto operator<=>(const line&) const = default;
  };
  const auto lines = [&](int who) {
    std::vector<line> all;
    each_send(a, member{who, size}, [&](int round, int to, block_range blocks, on_receive then) {
      const line next{round, (to - who + size) % size, blocks.count, then == on_receive::add};
      all.push_back(next);
    });
    std::sort(all.begin(), all.end());
    std::vector<line> messages;  // pieces of one message are one line
    for (const line& l : all)
      if (!messages.empty() && messages.back().round == l.round && messages.back().distance == l.distance &&
          messages.back().adds == l.adds)
        messages.back().blocks += l.blocks;
      else messages.push_back(l);
    return messages;
  };
  return lines(rank) == lines(rank % period);
}

/// What no algorithm can beat, each for itself (Chan, Heimlich, Purkayastha, van de Geijn, Collective Communication:
/// Theory, Practice, and Experience (2007), section 3). `rounds` is at one message a round.
struct lower_bounds {
  int rounds;                              // ceil(log2 P)
  double bytes;                            // 2 n (P-1)/P, sent by the member that sends most
  double reduced;                          // n (P-1)/P, added by the member that adds most
  double latency, bandwidth, computation;  // the same in seconds: times alpha, beta, gamma
};

inline lower_bounds bounds(int size, std::uint64_t bytes, const network& net = {0, 0, 0}) {
  const int rounds = std::bit_width(static_cast<unsigned>(size - 1));
  const double part = static_cast<double>(bytes) * (size - 1) / size;
  return {rounds, 2 * part, part, rounds * net.alpha, 2 * part * net.beta, part * net.gamma};
}

}  // namespace dpsgd::allreduce
