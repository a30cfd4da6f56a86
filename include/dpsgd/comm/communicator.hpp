/// What a communicator is: a rank among `size`, that exchanges messages with the others in rounds. Broadcast, barrier
/// and the small collectives are made of exchange. `single` is the communicator of a program that is alone.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>
#include <vector>

#include "dpsgd/core/buffer.hpp"
#include "dpsgd/core/error.hpp"

namespace dpsgd {

/// One message to be sent: `bytes` bytes from `data` to rank `to`.
struct outgoing {
  int to;
  const void* data;
  std::size_t bytes;
};

/// One message to be received: exactly `bytes` bytes into `data` from rank `from`.
struct incoming {
  int from;
  void* data;
  std::size_t bytes;
};

/// A rank did not answer within the deadline: it is dead, stopped, or doing something else.
class peer_lost : public error {
 public:
  using error::error;
};

/// A wait was given up because the program was asked to stop (Ctrl-C, SIGTERM).
class interrupted : public error {
 public:
  using error::error;
};

/// exchange posts all sends and receives of a round, then waits for all. At most one message to each peer and one from
/// each in a call, none to oneself; a message of zero bytes is a message too. Sizes must agree at both ends. When a
/// wait is in vain it throws peer_lost or interrupted, and the communicator is of no further use.
template <class World>
concept communicator = requires(World& world, std::span<const outgoing> sends, std::span<const incoming> receives) {
  { world.rank() } -> std::convertible_to<int>;
  { world.size() } -> std::convertible_to<int>;
  world.exchange(sends, receives);
};

/// A communicator whose receivers can read some messages where they lie, in the sender's memory.
/// exchange(sends, receives, work) is exchange, but that receives[i].data may have been turned to the sender's own
/// memory, not to be written to, when work() is called, once, after all have arrived. Messages and memory stay as they
/// are until the call returns, and work must not write to what is being sent.
template <class World>
concept in_place_communicator = communicator<World> &&
    requires(World& world, std::span<const outgoing> sends, std::span<incoming> receives, void (*work)()) {
  world.exchange(sends, receives, work);
};

/// n elements of T, all zero, in memory that the other ranks can read in place where the communicator has such memory
/// (mpi::world: for the ranks of its host), else in ordinary memory. For long vectors that are reduced often: a bound
/// allreduce then sends nothing but word of where they lie. Each rank for itself; other ranks need not call it.
template <class T, communicator World>
buffer<T> make_buffer(World& world, std::size_t n) {
  if constexpr (requires { world.template make_buffer<T>(n); }) return world.template make_buffer<T>(n);
  else return buffer<T>(n);
}

/// What travels: anything whose bytes are its value.
template <class T>
concept transportable = std::is_trivially_copyable_v<T>;

/// The communicator of a program that is alone.
class single {
 public:
  static constexpr int rank() { return 0; }
  static constexpr int size() { return 1; }
  static void exchange(std::span<const outgoing> sends, std::span<const incoming> receives) {
    require(sends.empty() && receives.empty(), "a single rank has nobody to exchange messages with");
  }
  /// There is nothing to wait for; accepted so that one program serves every communicator.
  static constexpr void deadline(double /*seconds*/) {}
  static constexpr void stop_flag(const std::atomic<bool>* /*flag*/, double /*grace*/ = 0.3) {}
};
static_assert(communicator<single>);

namespace detail {

template <communicator World>
[[gnu::cold]] void broadcast_bytes(World& world, void* data, std::size_t bytes, int root) {
  const int size = world.size(), me = (world.rank() - root + size) % size;  // ranks as seen from the root
  require(root >= 0 && root < size, "broadcast: there is no rank ", root);
  for (int have = 1; have < size; have *= 2) {  // members 0 .. have-1 have it
    const auto peer = [&](int other) { return (other + root) % size; };
    if (me < have && me + have < size) {
      const outgoing send{peer(me + have), data, bytes};
      world.exchange({&send, 1}, {});
    } else if (me >= have && me < 2 * have) {
      const incoming receive{peer(me - have), data, bytes};
      world.exchange({}, {&receive, 1});
    }
  }
}

/// all: world.size() times `bytes`, with this rank's own already in its place.
template <communicator World>
[[gnu::cold]] void gather_all_bytes(World& world, void* all, std::size_t bytes) {
  const auto size = static_cast<std::size_t>(world.size()), me = static_cast<std::size_t>(world.rank());
  const auto of = [&](std::size_t rank) { return static_cast<char*>(all) + rank * bytes; };
  std::vector<outgoing> sends;
  std::vector<incoming> receives;
  for (std::size_t i = 1; i < size; ++i) {
    const std::size_t to = (me + i) % size, from = (me + size - i) % size;
    sends.push_back({static_cast<int>(to), of(me), bytes});
    receives.push_back({static_cast<int>(from), of(from), bytes});
  }
  world.exchange(sends, receives);
}

}  // namespace detail

/// Root's values, at every rank. Every rank gives a span of the same length. ceil(log2 P) rounds (a binomial tree).
template <communicator World, transportable T>
requires(!std::is_const_v<T>) void broadcast(World& world, std::span<T> values, int root = 0) {
  detail::broadcast_bytes(world, values.data(), values.size_bytes(), root);
}

/// Root's value, at every rank.
template <communicator World, transportable T>
T broadcast_value(World& world, T value, int root = 0) {
  broadcast(world, std::span<T>(&value, 1), root);
  return value;
}

/// Every rank's values one after the other, in rank order, at every rank. All give the same number of them. For small
/// things: one round, in which everybody writes to everybody.
template <communicator World, transportable T>
std::vector<T> gather_all(World& world, std::span<const T> values) {
  static_assert(!std::is_same_v<T, bool>, "dpsgd: gather_all of bool: use char or int");
  std::vector<T> all(static_cast<std::size_t>(world.size()) * values.size());
  std::copy(values.begin(), values.end(), all.begin() + world.rank() * static_cast<std::ptrdiff_t>(values.size()));
  detail::gather_all_bytes(world, all.data(), values.size_bytes());
  return all;
}

/// Every rank's value, in rank order, at every rank.
template <communicator World, transportable T>
std::vector<T> gather_all(World& world, const T& value) {
  return gather_all(world, std::span<const T>(&value, 1));
}

/// values[i] becomes op over the ranks' values[i], folded in rank order: the same bits on every rank. For a few values.
template <communicator World, transportable T, class Op>
void fold_all(World& world, std::span<T> values, Op op) {
  const auto all = gather_all(world, std::span<const T>(values));
  for (std::size_t i = 0; i < values.size(); ++i) {
    T result = all[i];
    for (std::size_t at = i + values.size(); at < all.size(); at += values.size()) result = op(result, all[at]);
    values[i] = result;
  }
}

/// The sum over all ranks of a number (double, std::int64_t, ...), the same bits on every rank.
template <communicator World, class T>
requires std::is_arithmetic_v<T> T sum(World& world, T value) {
  fold_all(world, std::span<T>(&value, 1), [](T a, T b) { return static_cast<T>(a + b); });
  return value;
}

/// Element by element, for a few numbers.
template <communicator World, class T>
requires std::is_arithmetic_v<T>
void sum(World& world, std::span<T> values) {
  fold_all(world, values, [](T a, T b) { return static_cast<T>(a + b); });
}

/// The largest over all ranks.
template <communicator World, class T>
requires std::is_arithmetic_v<T> T max(World& world, T value) {
  fold_all(world, std::span<T>(&value, 1), [](T a, T b) { return a < b ? b : a; });
  return value;
}

/// Element by element, for a few numbers.
template <communicator World, class T>
requires std::is_arithmetic_v<T>
void max(World& world, std::span<T> values) {
  fold_all(world, values, [](T a, T b) { return a < b ? b : a; });
}

/// Nobody leaves before everybody has come. ceil(log2 P) rounds of empty messages (dissemination).
template <communicator World>
void barrier(World& world) {
  const int size = world.size(), me = world.rank();
  for (int distance = 1; distance < size; distance *= 2) {
    const outgoing send{(me + distance) % size, nullptr, 0};
    const incoming receive{(me - distance + size) % size, nullptr, 0};
    world.exchange({&send, 1}, {&receive, 1});
  }
}

/// Whether all ranks gave an equal value: the same answer on every rank. ceil(log2 P) rounds of one small message.
template <communicator World, transportable T>
requires std::equality_comparable<T>
[[gnu::cold]] bool all_equal(World& world, const T& value) {
  struct news {
    T value;
    std::uint64_t agree;  // whether all that this rank has heard of gave `value`
  };
  const int size = world.size(), me = world.rank();
  news mine{value, 1}, theirs = mine;
  for (int distance = 1; distance < size; distance *= 2) {  // mine is news of the last `distance` ranks up to me
    const outgoing send{(me + distance) % size, &mine, sizeof mine};
    const incoming receive{(me - distance + size) % size, &theirs, sizeof theirs};
    world.exchange({&send, 1}, {&receive, 1});
    mine.agree &= theirs.agree & (theirs.value == value ? 1u : 0u);
  }
  return mine.agree != 0;
}

}  // namespace dpsgd
