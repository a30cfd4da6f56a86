/// Ranks as threads of one process: run(4, [](auto& world) { ... }) runs the body on four ranks that share a post
/// office.
///
/// A message is copied once, by its receiver, straight from the sender's memory, or added from there without a copy, by
/// a bound allreduce. Waiting is polling. What ranks share is the post office and whatever read-only data the body
/// captures; models, policies and buffers are each rank's own.
#pragma once

#include <atomic>
#include <cstring>
#include <exception>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "dpsgd/allreduce/schedule.hpp"
#include "dpsgd/comm/communicator.hpp"
#include "dpsgd/comm/execute.hpp"
#include "dpsgd/comm/waiting.hpp"

namespace dpsgd::threads {

namespace detail {

/// Where one rank leaves messages for one other. empty -> (sender) posted -> (receiver) taking -> empty.
struct alignas(64) slot {
  enum : int { empty, posted, taking };
  std::atomic<int> state{empty};
  const void* data = nullptr;
  std::size_t bytes = 0;
};

/// What all ranks share.
class office {
 public:
  explicit office(int members)
      : size(members),
        crowded(members > cores()),
        slots_(new slot[static_cast<std::size_t>(members) * static_cast<std::size_t>(members)]) {}

  slot& between(int from, int to) {
    return slots_[static_cast<std::size_t>(from) * static_cast<std::size_t>(size) + static_cast<std::size_t>(to)];
  }

  /// A rank ends with an exception. The first one ends all.
  void fail(int rank, std::exception_ptr why) {
    const std::lock_guard lock(mutex_);
    if (why_) return;
    rank_ = rank, why_ = std::move(why), what_ = words(why_);
    failed.store(true, std::memory_order_release);
  }

  /// What the failed rank said.
  std::string failure() {
    const std::lock_guard lock(mutex_);
    return named(what_);
  }

  /// Throws the first failed rank's exception, its words preceded by the rank.
  void rethrow() {
    if (!why_) return;
    try {
      std::rethrow_exception(why_);
    } catch (const peer_lost&) {
      throw peer_lost(named(what_));
    } catch (const interrupted&) {
      throw interrupted(named(what_));
    } catch (const std::exception&) {
      std::throw_with_nested(error(named(what_)));
    }
  }

  const int size;
  const bool crowded;  // more ranks than cores: give the core away at once
  std::atomic<bool> failed{false};

 private:
  std::string named(const std::string& what) const {
    const std::string prefix = text("rank ", rank_, ": ");
    return what.starts_with(prefix) ? what : prefix + what;
  }
  static std::string words(const std::exception_ptr& why) {
    try {
      std::rethrow_exception(why);
    } catch (const std::exception& e) {
      return e.what();
    } catch (...) {
      return "an exception that is not a std::exception";
    }
  }

  std::unique_ptr<slot[]> slots_;
  std::mutex mutex_;  // guards the three below
  int rank_ = -1;
  std::exception_ptr why_;
  std::string what_;
};

}  // namespace detail

/// One rank's end of the post office. Models communicator. Belongs to its thread.
class world {
 public:
  world(detail::office& office, int rank) : office_(office), rank_(rank) {
    if (office.crowded) patience_.spins = 0;
  }
  world(const world&) = delete;
  world& operator=(const world&) = delete;

  int rank() const { return rank_; }
  int size() const { return office_.size; }

  /// How long any one wait may last, in seconds (60 by default). After that it throws peer_lost.
  void deadline(double seconds) {
    require(seconds > 0, "the deadline must be positive; got ", seconds);
    patience_.deadline = seconds;
  }
  /// Once *flag is set, a wait that does not end within `grace` seconds throws interrupted. Null: wait as ever.
  void stop_flag(const std::atomic<bool>* flag, double grace = 0.3) { patience_.stop = flag, patience_.grace = grace; }

  /// See communicator. One copy of each message, by its receiver. No allocation.
  void exchange(std::span<const outgoing> sends, std::span<const incoming> receives) {
    posted_messages posted{*this, sends};
    for (const outgoing& s : sends) posted.post(s);
    for (const incoming& r : receives) {
      taken_messages taken(*this, {&r, 1});
      const void* const data = taken.take(r);
      if (r.bytes != 0) std::memcpy(r.data, data, r.bytes);
    }
    await_taken(posted);
  }

  /// See in_place_communicator: no copy at all, receives[i].data becomes the sender's own memory. work must not throw.
  template <class Work>
  void exchange(std::span<const outgoing> sends, std::span<incoming> receives, Work work) {
    posted_messages posted{*this, sends};
    for (const outgoing& s : sends) posted.post(s);
    {
      taken_messages taken(*this, receives);
      for (incoming& r : receives) r.data = const_cast<void*>(taken.take(r));
      work();
    }
    await_taken(posted);
  }

  /// The post office's own allreduce: every rank adds its block straight from the others' vectors.
  template <class T>
  auto native(std::size_t n);

 private:
  // Takes back what was posted when the exchange ends by an exception: the memory behind it is about to go.
  struct posted_messages {
    world& self;
    std::span<const outgoing> sends;
    std::size_t count = 0;
    posted_messages(world& w, std::span<const outgoing> all) : self(w), sends(all) {}
    posted_messages(const posted_messages&) = delete;
    void post(const outgoing& s) {
      self.check_peer(s.to);
      auto& box = self.office_.between(self.rank_, s.to);
      require(box.state.load(std::memory_order_acquire) == detail::slot::empty, "two messages to rank ", s.to,
              " in one exchange");
      box.data = s.data, box.bytes = s.bytes;
      box.state.store(detail::slot::posted, std::memory_order_release);
      ++count;
    }
    ~posted_messages() {
      for (const outgoing& s : sends.first(count)) {
        auto& state = self.office_.between(self.rank_, s.to).state;
        int expected = detail::slot::posted;
        state.compare_exchange_strong(expected, detail::slot::empty);
        while (state.load(std::memory_order_acquire) != detail::slot::empty) ::sched_yield();  // it is being copied
      }
    }
  };

  void check_peer(int peer) const {
    require(peer >= 0 && peer < size() && peer != rank_, "rank ", rank_, ": there is no rank ", peer,
            " to exchange messages with");
  }

  // Messages that have come, and that their senders leave as they are until this goes.
  struct taken_messages {
    world& self;
    std::span<const incoming> receives;
    std::size_t count = 0;
    taken_messages(world& w, std::span<const incoming> all) : self(w), receives(all) {}
    taken_messages(const taken_messages&) = delete;
    const void* take(const incoming& r) {
      auto& box = self.claim(r);
      ++count;
      require(box.bytes == r.bytes, "rank ", self.rank_, ": rank ", r.from, " sent ", box.bytes, " bytes where ",
              r.bytes, " were expected; do all ranks make the same calls?");
      return box.data;
    }
    ~taken_messages() {
      for (const incoming& r : receives.first(count))
        self.office_.between(r.from, self.rank_).state.store(detail::slot::empty, std::memory_order_release);
    }
  };

  detail::slot& claim(const incoming& r) {
    check_peer(r.from);
    auto& box = office_.between(r.from, rank_);
    const auto taken = [&] {
      int expected = detail::slot::posted;
      return box.state.load(std::memory_order_relaxed) == expected &&
             box.state.compare_exchange_strong(expected, detail::slot::taking, std::memory_order_acquire,
                                               std::memory_order_relaxed);
    };
    await(taken, r.from, r.bytes, "to send");
    return box;
  }

  void await_taken(posted_messages& posted) {
    for (const outgoing& s : posted.sends) {
      const auto& state = office_.between(rank_, s.to).state;
      await([&] { return state.load(std::memory_order_acquire) == detail::slot::empty; }, s.to, s.bytes, "to take");
    }
    posted.count = 0;
  }

  template <class Ready>
  void await(Ready ready, int peer, std::size_t bytes, const char* what) {
    wait_watch watch(patience_);
    while (!ready()) {
      const auto outcome = watch();
      if (outcome != wait_watch::outcome::keep_waiting) give_up(outcome, peer, bytes, what);
      if (office_.failed.load(std::memory_order_relaxed)) throw error(office_.failure());
    }
  }

  [[noreturn]] void give_up(wait_watch::outcome outcome, int peer, std::size_t bytes, const char* what) const {
    if (outcome == wait_watch::outcome::stopped)
      fail<interrupted>("rank ", rank_, ": asked to stop while waiting for rank ", peer, " ", what, " ", bytes,
                        " bytes");
    fail<peer_lost>("rank ", rank_, ": waited ", patience_.deadline, " s in vain for rank ", peer, " ", what, " ",
                    bytes, " bytes; is it alive? (the deadline can be raised)");
  }

  detail::office& office_;
  int rank_;
  patience patience_;
};
static_assert(in_place_communicator<world>);

/// What world::native gives; see bound_schedule for its members. One round each way: every rank adds its shard straight
/// from the others' vectors, in rank order, and copies theirs.
template <class T>
class native_allreduce {
 public:
  native_allreduce(world& w, std::size_t n) : world_(&w) {
    for (int r = 0; r <= w.size(); ++r) starts_.push_back(allreduce::block_start(n, w.size(), r));
    if (w.rank() > 1) lower_.resize(mine().count);
  }
  element_range mine() const { return shard(world_->rank()); }
  static constexpr bool scattered() { return true; }

  void reduce(T* v) {
    const auto [first, count] = mine();
    const int me = world_->rank();
    sends_.clear(), receives_.clear();
    for (int r = 0; r < world_->size(); ++r) {
      const auto theirs = shard(r);
      if (r == me) continue;
      if (theirs.count > 0) sends_.push_back({r, v + theirs.first, theirs.count * sizeof(T)});
      if (count > 0) receives_.push_back({r, nullptr, count * sizeof(T)});
    }
    T *const own = v + first, *const lower = lower_.data();
    const std::size_t n = count;
    world_->exchange(sends_, std::span<incoming>(receives_), [&] {
      const auto theirs = [&](std::size_t i) { return static_cast<const T*>(receives_[i].data); };
      const std::size_t all = n > 0 ? receives_.size() : 0, below = n > 0 ? static_cast<std::size_t>(me) : 0;
      if (below == 1) add(own, theirs(0), n);
      if (below > 1) {
        add(lower, theirs(0), theirs(1), n);
        for (std::size_t i = 2; i < below; ++i) add(lower, theirs(i), n);
        add(own, lower, n);
      }
      for (std::size_t i = below; i < all; ++i) add(own, theirs(i), n);
    });
  }

  template <class U>
  void gather(U* v) {
    const auto [first, count] = mine();
    const int size = world_->size();
    sends_.clear(), receives_.clear();
    for (int i = 1; i < size; ++i) {  // everybody begins with another neighbour, so as not to crowd one
      const int to = (world_->rank() + i) % size, from = (world_->rank() + size - i) % size;
      const auto theirs = shard(from);
      if (count > 0) sends_.push_back({to, v + first, count * sizeof(U)});
      if (theirs.count > 0) receives_.push_back({from, v + theirs.first, theirs.count * sizeof(U)});
    }
    world_->exchange(sends_, receives_);
  }

  void all_reduce(T* v) { reduce(v), gather(v); }

 private:
  element_range shard(int r) const {
    const auto i = static_cast<std::size_t>(r);
    return {starts_[i], starts_[i + 1] - starts_[i]};
  }
  world* world_;
  std::vector<std::size_t> starts_;
  std::vector<T> lower_;  // the sum of the lower ranks' shards, where there are two and more
  std::vector<outgoing> sends_;
  std::vector<incoming> receives_;
};

template <class T>
auto world::native(std::size_t n) {
  return native_allreduce<T>(*this, n);
}

/// Runs body(world&) on `size` ranks, each a thread of its own (rank 0: the calling thread), and waits for all. When a
/// rank throws, the others' waits throw its words, and in the end run throws them again, preceded by "rank 2: ":
/// peer_lost and interrupted keep their type, others become dpsgd::error with the original nested
/// (std::rethrow_if_nested). A rank that neither returns nor waits cannot be ended: run waits for it.
template <class Body>
void run(int size, Body&& body) {
  require(size >= 1 && size <= 1024, "the number of ranks must lie in 1 .. 1024; got ", size);
  detail::office office(size);
  const auto live = [&](int rank) {
    try {
      world mine(office, rank);
      body(mine);
    } catch (...) {
      office.fail(rank, std::current_exception());
    }
  };
  {
    std::vector<std::jthread> others;  // joined at the end of this block, whatever happens
    try {
      others.reserve(static_cast<std::size_t>(size));
      for (int rank = 1; rank < size; ++rank) others.emplace_back(live, rank);
      live(0);
    } catch (...) {
      office.fail(0, std::current_exception());  // no more threads to be had
    }
  }
  office.rethrow();
}

}  // namespace dpsgd::threads
