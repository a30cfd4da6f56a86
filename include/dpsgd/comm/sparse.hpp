/// Sparse reduce-scatter: the same schedules over vectors of which most elements are zero, and travel as entries
/// (index, value).
///
///   auto sparse = dpsgd::bind_sparse<float>(dpsgd::allreduce::butterfly{4}, world, n);   // any scatter algorithm
///   std::span<const float> shard = sparse.reduce(entries);    // dense: elements sparse.mine() of the sum
///
/// The owners, and the bits of the sums, are those of bind and its reduce (but for the sign of zero).
///
///   what reduce holds   index  3  9 12 | 17 | 31 40    lists by block, added by merging
///   a message           4 bytes: how many entries. Then the entries, or the elements one by one where that is shorter
///
/// What it is for. With one-hot inputs of many categories a batch touches few columns of the first layer's weights, and
/// the sum of the clipped gradients is zero elsewhere. Noise covers every coordinate, so what the owners release is
/// dense, and so is the all-gather (bind's, by the same algorithm): only the reduce-scatter is sparse, and at most half
/// of all bytes are saved. The trainer does not use it; not in the umbrella.
///
/// What it costs. Lists grow as they are added, from round to round: with z entries of a rank, spread evenly,
/// butterfly{2} among P = 2^m sends z(P-1)/P entries when all ranks have the same places, z m / 2 when none have one in
/// common. An entry takes sizeof(T) + 4 bytes: of floats, more than every second element means the dense form. Its
/// length must be known before a message can be received, so each is preceded by one of 4 bytes: twice the rounds, at
/// most twice the messages, and never more than 4 bytes a message above what dense sends.
///
/// **The lengths of the messages depend on the records.** Whoever sees them on the network, encrypted or not, learns
/// how many coordinates a batch touches; no privacy claim covers that.
///
/// Source: Zhao, Canny, Butterfly Mixing (2013), SDM; Kylix (2014), ICPP. Theirs sends entries alone; the dense form is
/// ours.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

#include "dpsgd/allreduce/any.hpp"
#include "dpsgd/allreduce/schedule.hpp"
#include "dpsgd/comm/agreement.hpp"
#include "dpsgd/comm/communicator.hpp"
#include "dpsgd/comm/execute.hpp"
#include "dpsgd/core/error.hpp"

namespace dpsgd {

/// One element of a vector that is zero where it has no entry.
template <class T>
struct sparse_entry {
  std::uint32_t index;
  T value;
  friend bool operator==(const sparse_entry&, const sparse_entry&) = default;
};

/// A scatter algorithm's schedule bound to a communicator and to sparse vectors of n elements. Made by bind_sparse.
template <class T, communicator World>
requires std::is_arithmetic_v<T>
class bound_sparse {
 public:
  /// The world must outlive this. Throws when the schedule is wrong (found out up to 64 ranks), or has no
  /// reduce-scatter form, and when n does not fit in 32 bits.
  [[gnu::cold]] bound_sparse(const allreduce::schedule& s, World& world, std::size_t n)
      : world_(&world), n_(n), blocks_(s.blocks) {
    require(s.scattered, "this allreduce algorithm has no reduce-scatter form; take another, butterfly{4} for example");
    require(n <= std::numeric_limits<std::uint32_t>::max(), "a sparse vector has at most 2^32 - 1 elements; got ", n);
    detail::require_right(s, world.size());
    owned_ = owned(s, world.rank());
    mine_.first = start(owned_.first);
    mine_.count = start(owned_.first + owned_.count) - mine_.first;
    held_.resize(static_cast<std::size_t>(blocks_)), lower_.resize(static_cast<std::size_t>(blocks_));
    for (const auto& planned : allreduce::plan_for(world.rank(), s.reduce)) {
      round r;
      for (const auto& m : planned.sends) append(r.sends, m);
      for (const auto& m : planned.receives) append(r.receives, m);
      if (!r.sends.empty() || !r.receives.empty()) rounds_.push_back(std::move(r));
    }
  }

  /// The elements that this rank owns, as in bind.
  element_range mine() const { return mine_; }

  /// `entries`: this rank's vector, by increasing index below n. Returns elements mine() of the sum over all ranks,
  /// valid until the next call: the bits that bind's reduce gives, save that every zero is +0. Buffers grow as needed
  /// and are kept. All ranks must call it. Throws dpsgd::error when the entries are out of order or beyond n.
  std::span<const T> reduce(std::span<const sparse_entry<T>> entries) {
    hold(entries);
    for (round& r : rounds_) {
      for (message& m : r.sends) pack(m);
      exchange(r, [](message& m) { return std::pair<void*, std::size_t>(&m.count, sizeof m.count); });
      for (message& m : r.receives) m.bytes.resize(length(m));
      exchange(r, [](message& m) { return std::pair<void*, std::size_t>(m.bytes.data(), m.bytes.size()); });
      add(r.receives);
    }
    shard_.assign(mine_.count, T{});
    for (int b = owned_.first; b < owned_.first + owned_.count; ++b)
      for (const auto& e : of(held_, b)) {
        T& sum = shard_[e.index - mine_.first];
        sum = static_cast<T>(sum + e.value);
      }
    return shard_;
  }

 private:
  using list = std::vector<sparse_entry<T>>;                                     // by increasing index
  static constexpr std::size_t entry_bytes = sizeof(std::uint32_t) + sizeof(T);  // on the way: no padding

  struct message {
    int peer;
    std::vector<int> blocks;       // that have elements, as they are packed
    std::size_t elements;          // in them
    std::uint32_t count = 0;       // entries
    std::vector<std::byte> bytes;  // entries, or all elements
  };
  struct round {
    std::vector<message> sends, receives;  // by peer
  };

  std::size_t start(int block) const { return allreduce::block_start(n_, blocks_, block); }
  static list& of(std::vector<list>& lists, int block) { return lists[static_cast<std::size_t>(block)]; }

  // Messages of no elements are skipped at both ends.
  [[gnu::cold]] void append(std::vector<message>& messages, const allreduce::message& m) const {
    message mine{m.peer, {}, 0, 0, {}};
    for (const auto& p : m.pieces)
      for (int i = 0; i < p.blocks.count; ++i) {
        const int b = (p.blocks.first + i) % blocks_;
        if (start(b) == start(b + 1)) continue;
        mine.blocks.push_back(b);
        mine.elements += start(b + 1) - start(b);
      }
    if (mine.elements > 0) messages.push_back(std::move(mine));
  }

  void hold(std::span<const sparse_entry<T>> entries) {
    for (std::size_t i = 0; i < entries.size(); ++i)
      require(entries[i].index < n_ && (i == 0 || entries[i - 1].index < entries[i].index), "entry ", i, " has index ",
              entries[i].index, "; a sparse vector's indices must increase and lie below ", n_);
    auto next = entries.begin();
    for (int b = 0; b < blocks_; ++b) {
      const auto end = std::find_if(next, entries.end(), [&](const auto& e) { return e.index >= start(b + 1); });
      of(held_, b).assign(next, end);
      next = end;
    }
  }

  // Both ends know count, so both know the form.
  static bool dense(const message& m) { return m.elements * sizeof(T) < m.count * entry_bytes; }
  static std::size_t length(const message& m) { return dense(m) ? m.elements * sizeof(T) : m.count * entry_bytes; }

  void pack(message& m) {
    std::size_t count = 0, before = 0;
    for (const int b : m.blocks) count += of(held_, b).size();
    m.count = static_cast<std::uint32_t>(count);
    m.bytes.assign(length(m), std::byte{0});
    std::byte* to = m.bytes.data();
    for (const int b : m.blocks) {
      for (const auto& e : of(held_, b)) {
        if (dense(m)) {
          std::memcpy(m.bytes.data() + (before + e.index - start(b)) * sizeof(T), &e.value, sizeof(T));
          continue;
        }
        std::memcpy(to, &e.index, sizeof e.index);
        std::memcpy(to + sizeof e.index, &e.value, sizeof(T));
        to += entry_bytes;
      }
      before += start(b + 1) - start(b);
    }
  }

  // use(block, its list) for each block of a message that has arrived.
  template <class Use>
  void unpack(const message& m, Use use) {
    const std::byte* from = m.bytes.data();
    const std::byte* const end = from + m.bytes.size();
    for (const int b : m.blocks) {
      letter_.clear();
      sparse_entry<T> e{};
      if (dense(m)) {
        for (std::size_t i = start(b); i < start(b + 1); ++i, from += sizeof(T)) {
          std::memcpy(&e.value, from, sizeof(T));
          e.index = static_cast<std::uint32_t>(i);
          if (e.value != T{}) letter_.push_back(e);
        }
      } else {
        for (; from != end; from += entry_bytes) {
          std::memcpy(&e.index, from, sizeof e.index);
          std::memcpy(&e.value, from + sizeof e.index, sizeof(T));
          if (e.index < start(b) || e.index >= start(b + 1)) break;  // the next block's
          letter_.push_back(e);
        }
      }
      use(b, letter_);
    }
  }

  // to = first + second. `to` may be either of them.
  void add(const list& first, const list& second, list& to) {
    merged_.clear();
    auto a = first.begin(), b = second.begin();
    while (a != first.end() || b != second.end()) {
      if (b == second.end() || (a != first.end() && a->index < b->index)) merged_.push_back(*a++);
      else if (a == first.end() || b->index < a->index) merged_.push_back(*b++);
      else merged_.push_back({a->index, static_cast<T>(a->value + b->value)}), ++a, ++b;
    }
    std::swap(to, merged_);
  }

  // In rank order with one's own value in its place, as bound_schedule adds: the lower ranks' sum, then one's own, then
  // the higher ranks'. An element without an entry is a zero that need not be added.
  void add(const std::vector<message>& receives) {
    const int me = world_->rank();
    for (const message& m : receives)
      if (m.peer < me) unpack(m, [&](int b, const list& theirs) { add(of(lower_, b), theirs, of(lower_, b)); });
    for (const message& m : receives)
      if (m.peer < me)
        for (const int b : m.blocks)
          if (list& lower = of(lower_, b); !lower.empty()) add(lower, of(held_, b), of(held_, b)), lower.clear();
    for (const message& m : receives)
      if (m.peer > me) unpack(m, [&](int b, const list& theirs) { add(of(held_, b), theirs, of(held_, b)); });
  }

  // part(message) -> what of it travels now; nothing: no message.
  template <class Part>
  void exchange(round& r, Part part) {
    sends_.clear(), receives_.clear();
    for (message& m : r.sends)
      if (const auto [data, bytes] = part(m); bytes > 0) sends_.push_back({m.peer, data, bytes});
    for (message& m : r.receives)
      if (const auto [data, bytes] = part(m); bytes > 0) receives_.push_back({m.peer, data, bytes});
    if (!sends_.empty() || !receives_.empty()) world_->exchange(sends_, receives_);
  }

  World* world_;
  std::size_t n_;
  int blocks_;
  allreduce::block_range owned_{0, 0};
  element_range mine_{};
  std::vector<round> rounds_;
  std::vector<list> held_, lower_;  // of each block: this rank's sum so far; that of the lower ranks' letters
  list letter_, merged_;
  std::vector<T> shard_;
  std::vector<outgoing> sends_;
  std::vector<incoming> receives_;
};

namespace detail {
template <class T, communicator World>
auto bind_sparse(const allreduce::schedule& s, World& world, std::size_t n) {
  auto algorithm = digest_of_schedule(s);
  ++algorithm.low;  // sparse and dense do not go together
  require_agreement(world, {n, type_code<T>(), algorithm});
  return bound_sparse<T, World>(s, world, n);
}
}  // namespace detail

/// Binds a scatter algorithm to a communicator and to sparse vectors of n elements of T. The result has mine() and
/// reduce(entries), as bound_sparse explains them. The world must outlive it. All ranks must call it; like bind it
/// throws on every rank when they were given different counts, types or algorithms.
template <class T, communicator World, allreduce::scatter_algorithm Algorithm>
auto bind_sparse(const Algorithm& a, World& world, std::size_t n) {
  return detail::bind_sparse<T>(detail::schedule_of<T>(a, world, n), world, n);
}

/// The same with an algorithm chosen by name. Throws when it is native, or has no reduce-scatter form.
template <class T, communicator World>
auto bind_sparse(const allreduce::any& a, World& world, std::size_t n) {
  require(!a.is_native(), "the communicator's own allreduce is dense; take another, butterfly for example");
  return detail::bind_sparse<T>(a.derive(world.size()), world, n);
}

}  // namespace dpsgd
