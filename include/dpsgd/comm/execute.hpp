/// Executes schedules: a bound allreduce is an algorithm, a communicator and a length, prepared once and run many
/// times.
///
///   auto all = dpsgd::bind<float>(dpsgd::allreduce::circulant{}, world, n);   // plans, and allocates everything
///   all.reduce(v);   // v[all.mine()] is the sum over all ranks
///   ...              // the owner works on its shard
///   all.gather(v);   // every rank has every owner's shard; v may hold another type, no larger than what was summed
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "dpsgd/allreduce/any.hpp"
#include "dpsgd/allreduce/native.hpp"
#include "dpsgd/allreduce/schedule.hpp"
#include "dpsgd/comm/agreement.hpp"
#include "dpsgd/comm/communicator.hpp"
#include "dpsgd/core/buffer.hpp"
#include "dpsgd/core/error.hpp"

namespace dpsgd {

/// `count` elements from element `first` on.
struct element_range {
  std::size_t first, count;
  friend constexpr bool operator==(element_range, element_range) = default;
};

/// Sums go by lumps of a fixed length, because g++ -O2 vectorises no other loop.
inline constexpr std::size_t lump = 64;

/// to[i] += from[i]. The two do not overlap.
template <class T>
void add(T* __restrict to, const T* __restrict from, std::size_t n) {
  std::size_t i = 0;
  for (; i + lump <= n; i += lump)
    for (std::size_t k = 0; k < lump; ++k) to[i + k] += from[i + k];
  for (; i < n; ++i) to[i] += from[i];
}

/// to[i] = a[i] + b[i]. None overlaps another.
template <class T>
void add(T* __restrict to, const T* __restrict a, const T* __restrict b, std::size_t n) {
  std::size_t i = 0;
  for (; i + lump <= n; i += lump)
    for (std::size_t k = 0; k < lump; ++k) to[i + k] = a[i + k] + b[i + k];
  for (; i < n; ++i) to[i] = a[i] + b[i];
}

namespace detail {
/// Throws unless `s` is a schedule for so many ranks and, found out up to 64 of them, right.
[[gnu::cold]] inline void require_right(const allreduce::schedule& s, int ranks) {
  require(s.size == ranks, "a schedule for ", s.size, " members cannot run on ", ranks, " ranks");
  if (s.size > 64) return;
  if (const auto v = verify(s); !v)
    fail("this allreduce algorithm is wrong for ", s.size, " members: ", describe(v.flaw), " (round ", v.round,
         ", rank ", v.rank, ", block ", v.block, "; -1: does not apply)");
}
}  // namespace detail

/// A schedule bound to a communicator and to vectors of n elements. Reductions are in place and repeat bit by bit.
/// Cost of making one: every rank derives all arrows. Nothing is allocated afterwards.
template <class T, communicator World>
requires std::is_arithmetic_v<T>
class bound_schedule {
 public:
  /// The world must outlive this. Up to 64 ranks the schedule is verified first: throws dpsgd::error with the flaw.
  /// Exchanges no message: that all ranks were given the same is for bind to find out.
  [[gnu::cold]] bound_schedule(const allreduce::schedule& s, World& world, std::size_t n)
      : world_(&world), n_(n), blocks_(s.blocks), scattered_(s.scattered) {
    detail::require_right(s, world.size());
    const auto own = owned(s, world.rank());
    mine_.first = start(own.first);
    mine_.count = start(own.first + own.count) - mine_.first;
    prepare(plan_for(world.rank(), s.reduce), reduce_);
    prepare(plan_for(world.rank(), s.gather), gather_);
    staging_ = make_buffer<T>(world, staged_);
  }

  /// The elements that this rank owns after reduce: all n for whole algorithms and for one rank.
  element_range mine() const { return mine_; }
  /// Whether ranks own different shards between reduce and gather.
  bool scattered() const { return scattered_; }

  /// v: n elements. Afterwards v[mine()] holds the sum over all ranks; without shards all of v, with the same bits on
  /// all ranks. What else v holds then is of no use. All ranks must call it.
  void reduce(T* v) { play(reduce_, v); }
  /// v: n elements, of T or a smaller type. Afterwards v holds every owner's v[mine()]. Nothing to do without shards.
  /// All ranks must call it.
  template <transportable U>
  requires(sizeof(U) <= sizeof(T)) void gather(U* v) { play(gather_, v); }
  /// Both: v becomes the sum over all ranks, with the same bits on all of them.
  void all_reduce(T* v) { reduce(v), gather(v); }

 private:
  // Places are in elements: of v, of the staging buffer, or of what a receive brought, wherever that lies.
  static constexpr int in_staging = -1;
  struct place {
    int message;  // which receive, or in_staging
    std::size_t at;
  };
  struct stretch {  // consecutive elements to be copied or added
    std::size_t to;
    place from;
    std::size_t count;
  };
  struct subtotal {  // staging = one message's elements + an earlier sum
    std::size_t to;
    place term, sum;
    std::size_t count;
  };
  struct wire {  // one message
    int peer;
    std::size_t at, count;
    bool staged;
  };
  struct step {  // one round, as this rank sees it
    int round;
    std::vector<wire> sends, receives;
    std::vector<stretch> pack;        // v -> staging, before
    std::vector<subtotal> subtotals;  // into staging
    std::vector<stretch> add;         // to v
    std::vector<stretch> unpack;      // -> v
    bool in_place = false;            // whether nothing that is sent from v is written to
  };

  std::size_t start(int block) const { return allreduce::block_start(n_, blocks_, block); }

  // visit(block, its first element, its length, then) for the blocks of a message that are not empty, as they are
  // packed.
  template <class Visit>
  void each_block(const allreduce::message& m, Visit visit) const {
    for (const auto& p : m.pieces)
      for (int i = 0; i < p.blocks.count; ++i) {
        const int b = (p.blocks.first + i) % blocks_;
        if (const auto length = start(b + 1) - start(b)) visit(b, start(b), length, p.then);
      }
  }

  // Appends a stretch, or lengthens the last one when both go on where it ends.
  static void join(std::vector<stretch>& list, const stretch& next) {
    if (!list.empty()) {
      stretch& last = list.back();
      if (last.to + last.count == next.to && last.from.message == next.from.message &&
          last.from.at + last.count == next.from.at) {
        last.count += next.count;
        return;
      }
    }
    list.push_back(next);
  }

  [[gnu::cold]] void prepare(const std::vector<allreduce::plan_round>& plan, std::vector<step>& steps) {
    std::size_t most_sends = 0, most_receives = 0;
    for (const auto& round : plan) {
      step s;
      s.round = round.round;
      std::size_t staged = 0;
      for (const auto& m : round.sends) {
        std::vector<stretch> parts;  // v -> the message
        std::size_t count = 0;
        each_block(m, [&](int, std::size_t at, std::size_t length, allreduce::on_receive) {
          join(parts, {staged + count, {0, at}, length});
          count += length;
        });
        if (parts.size() == 1) s.sends.push_back({m.peer, parts[0].from.at, count, false});
        else if (count > 0) {
          s.pack.insert(s.pack.end(), parts.begin(), parts.end());
          s.sends.push_back({m.peer, staged, count, true});
          staged += count;
        }
      }
      prepare_receives(round, s, staged);
      if (s.sends.empty() && s.receives.empty()) continue;  // nothing but empty blocks
      s.in_place = !writes_what_it_sends(s);
      staged_ = std::max(staged_, staged);
      most_sends = std::max(most_sends, s.sends.size());
      most_receives = std::max(most_receives, s.receives.size());
      steps.push_back(std::move(s));
    }
    sends_.reserve(most_sends), receives_.reserve(most_receives);
  }

  static bool writes_what_it_sends(const step& s) {
    for (const auto& w : s.sends)
      for (const auto* list : {&s.add, &s.unpack})
        for (const auto& c : *list)
          if (!w.staged && w.at < c.to + c.count && c.to < w.at + w.count) return true;
    return false;
  }

  // What arrives is added in rank order with one's own value in its place: the lower ranks' sum (of two and more, it
  // grows in the staging buffer) is added to v, then the higher ranks' values are, one by one.
  [[gnu::cold]] void prepare_receives(const allreduce::plan_round& round, step& s, std::size_t& staged) {
    const int me = world_->rank();
    constexpr int none = -2;
    auto lower = std::vector<place>(static_cast<std::size_t>(blocks_), place{none, 0});  // where a block's lower sum is
    std::vector<stretch> higher;
    for (const auto& m : round.receives) {
      std::vector<stretch> copies;
      const int message = static_cast<int>(s.receives.size());
      std::size_t count = 0;
      bool adds = false;
      for (const auto& p : m.pieces) adds |= p.then == allreduce::on_receive::add;
      each_block(m, [&](int b, std::size_t at, std::size_t length, allreduce::on_receive then) {
        const place from{message, count};
        place& sum = lower[static_cast<std::size_t>(b)];
        if (then == allreduce::on_receive::replace) join(copies, {at, from, length});
        else if (m.peer > me) join(higher, {at, from, length});
        else if (sum.message == none) sum = from;
        else {
          s.subtotals.push_back({staged + count, from, sum, length});
          sum = {in_staging, staged + count};
        }
        count += length;
      });
      if (count == 0) continue;
      s.unpack.insert(s.unpack.end(), copies.begin(), copies.end());
      if (!adds && copies.size() == 1) {
        s.receives.push_back({m.peer, copies[0].to, count, false});  // straight into its place
        continue;
      }
      s.receives.push_back({m.peer, staged, count, true});
      staged += count;
    }
    for (int b = 0; b < blocks_; ++b)
      if (const place sum = lower[static_cast<std::size_t>(b)]; sum.message != none)
        join(s.add, {start(b), sum, start(b + 1) - start(b)});
    for (const auto& h : higher) join(s.add, h);
  }

  template <class U>
  void play(const std::vector<step>& steps, U* v) {
    const step* at = nullptr;
    try {
      for (const step& s : steps) play(*(at = &s), v);
    } catch (const peer_lost& e) {
      throw peer_lost(text(e.what(), ", in round ", at->round, " of the ",
                           &steps == &gather_ ? "all-gather" : "reduction", " of ", n_, " elements"));
    }
  }

  template <class U>
  void play(const step& s, U* v) {
    U* const staging = reinterpret_cast<U*>(staging_.data());  // of another type than T: bytes that are only copied
    for (const auto& c : s.pack) std::memcpy(staging + c.to, v + c.from.at, c.count * sizeof(U));
    sends_.clear(), receives_.clear();
    for (const auto& w : s.sends) sends_.push_back({w.peer, (w.staged ? staging : v) + w.at, w.count * sizeof(U)});
    for (const auto& w : s.receives)
      receives_.push_back({w.peer, (w.staged ? staging : v) + w.at, w.count * sizeof(U)});
    if constexpr (in_place_communicator<World>)
      if (s.in_place) {
        world_->exchange(sends_, std::span<incoming>(receives_), [&] { take_in(s, v, staging); });
        return;
      }
    world_->exchange(sends_, std::span<const incoming>(receives_));
    take_in(s, v, staging);
  }

  // Adds and copies what has arrived; receives_ says where it lies.
  template <class U>
  void take_in(const step& s, U* v, U* staging) const {
    const auto at = [&](const place& p) -> const U* {
      if (p.message == in_staging) return staging + p.at;
      return static_cast<const U*>(receives_[static_cast<std::size_t>(p.message)].data) + p.at;
    };
    if constexpr (std::is_same_v<U, T>) {
      for (const auto& t : s.subtotals)
        if (at(t.term) == staging + t.to) add(staging + t.to, at(t.sum), t.count);
        else add(staging + t.to, at(t.term), at(t.sum), t.count);
      for (const auto& a : s.add) add(v + a.to, at(a.from), a.count);
    }
    for (const auto& c : s.unpack)
      if (at(c.from) != v + c.to) std::memcpy(v + c.to, at(c.from), c.count * sizeof(U));
  }

  World* world_;
  std::size_t n_;
  int blocks_;
  bool scattered_;
  element_range mine_{};
  std::vector<step> reduce_, gather_;
  std::size_t staged_ = 0;  // elements that the staging buffer needs
  buffer<T> staging_;
  std::vector<outgoing> sends_;
  std::vector<incoming> receives_;
};

/// The native operation of a program that is alone: nothing.
struct native_single {
  std::size_t n;
  element_range mine() const { return {0, n}; }
  static constexpr bool scattered() { return false; }
  template <class T>
  static constexpr void reduce(T*) {}
  template <class T>
  static constexpr void gather(T*) {}
  template <class T>
  static constexpr void all_reduce(T*) {}
};

/// Binds an algorithm to a communicator and a length n. The result has mine(), scattered(), reduce(v), gather(v) and
/// all_reduce(v), as bound_schedule explains them. The world must outlive it. All ranks must call it. Throws when the
/// algorithm does not serve world.size(), and on every rank, with the ranks that differ and in what, when they were
/// given different counts, types or algorithms.
///
/// The ranks are compared always, not in a mode to be switched on: a mistake of this kind can give wrong sums without
/// a word, and ceil(log2 P) rounds of one tiny message are little beside what binding costs anyway. reduce and gather
/// exchange nothing more for it.
template <class T, communicator World, allreduce::algorithm Algorithm>
auto bind(const Algorithm& a, World& world, std::size_t n) {
  const auto s = detail::schedule_of<T>(a, world, n);
  detail::require_agreement<T>(world, n, s);
  return bound_schedule<T, World>(s, world, n);
}

/// The communicator's own operation, world.native<T>(n).
template <class T, communicator World>
auto bind(allreduce::native, World& world, std::size_t n) {
  detail::require_agreement<T>(world, n, "native");
  if constexpr (requires { world.template native<T>(n); }) return world.template native<T>(n);
  else {
    require(world.size() == 1, "this communicator has no allreduce of its own; choose another algorithm than native");
    return native_single{n};
  }
}

/// One of the two, chosen by name when the program runs.
template <class T, communicator World>
class bound_any {
  using own = decltype(bind<T>(allreduce::native{}, std::declval<World&>(), std::size_t{}));

 public:
  bound_any(const allreduce::any& a, World& world, std::size_t n) : bound_(make(a, world, n)) {}
  element_range mine() const {
    return std::visit([](const auto& b) { return b.mine(); }, bound_);
  }
  bool scattered() const {
    return std::visit([](const auto& b) { return b.scattered(); }, bound_);
  }
  void reduce(T* v) {
    std::visit([&](auto& b) { b.reduce(v); }, bound_);
  }
  template <class U>
  void gather(U* v) {
    std::visit([&](auto& b) { b.gather(v); }, bound_);
  }
  void all_reduce(T* v) { reduce(v), gather(v); }

 private:
  using either = std::variant<bound_schedule<T, World>, own>;
  static either make(const allreduce::any& a, World& world, std::size_t n) {
    if (a.is_native()) return either(std::in_place_index<1>, bind<T>(allreduce::native{}, world, n));
    const auto s = a.derive(world.size());
    detail::require_agreement<T>(world, n, s);
    return either(std::in_place_index<0>, s, world, n);
  }
  either bound_;
};

template <class T, communicator World>
auto bind(const allreduce::any& a, World& world, std::size_t n) {
  return bound_any<T, World>(a, world, n);
}

/// The type that bind gives.
template <class T, class World, class Algorithm>
using bound_allreduce = decltype(bind<T>(std::declval<const Algorithm&>(), std::declval<World&>(), std::size_t{}));

class auto_allreduce;  // comm/auto_allreduce.hpp

/// What a trainer takes as an allreduce policy: an algorithm, native, any, or auto_allreduce.
template <class Algorithm>
concept allreduce_policy = allreduce::algorithm<Algorithm> || std::same_as<Algorithm, allreduce::native> ||
    std::same_as<Algorithm, allreduce::any> || std::same_as<Algorithm, auto_allreduce>;

}  // namespace dpsgd
