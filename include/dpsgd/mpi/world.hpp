/// Ranks over MPI, by its C interface alone.
///
///   int main(int argc, char** argv) {
///     dpsgd::mpi::world world(argc, argv);   // MPI_Init ... MPI_Finalize
///
/// How a program ends. A rank that fails ends the whole job, since the others would wait for it for ever:
///   - An exception that nobody catches is printed with the rank, and the job is aborted at once.
///   - An exception that leaves the world's block (the handler stands outside) gives the handler time to print; the job
///     is aborted when the process exits, with the process's exit status. So is the job of a rank whose wait was in
///     vain (peer_lost, interrupted), wherever that was caught: an orderly MPI_Finalize would wait for the lost peer.
///   - A handler inside the world's block, after which main returns, looks like success: call world.abort(status)
///     there.
#pragma once

// Without the C++ bindings, which MPI dropped in 2012 and which take a quarter of a second to compile.
#define OMPI_SKIP_MPICXX 1
#define MPICH_SKIP_MPICXX 1
#include <mpi.h>
#include <sys/random.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <limits>
#include <memory>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include "dpsgd/allreduce/schedule.hpp"
#include "dpsgd/comm/communicator.hpp"
#include "dpsgd/comm/execute.hpp"
#include "dpsgd/comm/waiting.hpp"
#include "dpsgd/core/buffer.hpp"
#include "dpsgd/mpi/shared_memory.hpp"

namespace dpsgd::mpi {

/// Throws dpsgd::error with MPI's own words when `code` is an error. `call`: what was called.
inline void check(int code, const char* call) {
  if (code == MPI_SUCCESS) return;
  std::array<char, MPI_MAX_ERROR_STRING> words{};
  int length = 0;
  MPI_Error_string(code, words.data(), &length);
  fail(call, " failed: ", std::string(words.data(), static_cast<std::size_t>(length)));
}

namespace detail {

inline bool running() {
  int begun = 0, ended = 0;
  MPI_Initialized(&begun);
  MPI_Finalized(&ended);
  return begun && !ended;
}

/// The terminate handler: says what was thrown and ends the job.
[[noreturn]] inline void terminate() {
  if (!running()) std::abort();
  int rank = -1;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  std::string words = "terminated without an exception";
  if (const auto thrown = std::current_exception()) try {
      std::rethrow_exception(thrown);
    } catch (const std::exception& e) {
      words = e.what();
    } catch (...) {
      words = "an exception that is not a std::exception";
    }
  const std::string prefix = text("rank ", rank, ": ");
  if (!words.starts_with(prefix)) words = prefix + words;
  std::fprintf(stderr, "%s\n", words.c_str());
  std::fflush(nullptr);
  MPI_Abort(MPI_COMM_WORLD, 1);
  std::abort();
}

/// Between ranks of one host Open MPI copies short messages through shared memory, up to 4 KiB, and has the receiver
/// fetch longer ones by a system call. A step's messages are a few times longer, and copying them too makes an epoch at
/// batch 256 1.1 times as fast. Must come before MPI_Init; what the user has set stands.
inline void copy_messages_up_to_32_kib() {
  ::setenv("OMPI_MCA_btl_vader_eager_limit", "32768", 0);  // Open MPI 4
  ::setenv("OMPI_MCA_btl_sm_eager_limit", "32768", 0);     // Open MPI 5
}

/// When the process exits, ends the whole job with its status.
inline void abort_at_exit() {
  static const bool once = [] {
    return ::on_exit(
               [](int status, void*) {
                 std::fflush(nullptr);
                 if (running()) MPI_Abort(MPI_COMM_WORLD, status == 0 ? 1 : status);
               },
               nullptr) == 0;
  }();
  if (!once) MPI_Abort(MPI_COMM_WORLD, 1);
}

template <class T>
MPI_Datatype datatype() {
  if constexpr (std::is_same_v<T, float>) return MPI_FLOAT;
  else if constexpr (std::is_same_v<T, double>) return MPI_DOUBLE;
  else if constexpr (std::is_integral_v<T> && std::is_signed_v<T> && sizeof(T) == 8) return MPI_INT64_T;
  else if constexpr (std::is_integral_v<T> && std::is_signed_v<T> && sizeof(T) == 4) return MPI_INT32_T;
  else if constexpr (std::is_integral_v<T> && std::is_unsigned_v<T> && sizeof(T) == 8) return MPI_UINT64_T;
  else if constexpr (std::is_integral_v<T> && std::is_unsigned_v<T> && sizeof(T) == 4) return MPI_UINT32_T;
  else static_assert(!sizeof(T), "dpsgd: MPI's own allreduce sums float, double and integers of 4 or 8 bytes");
}

}  // namespace detail

/// The MPI job as a communicator. One a process. MPI is initialised MPI_THREAD_FUNNELED: use it from this thread alone.
class world {
 public:
  /// MPI_Init with the program's arguments. Uses a running MPI, and leaves it running, when there is one.
  world(int& argc, char**& argv) { begin(&argc, &argv); }
  world() { begin(nullptr, nullptr); }
  world(const world&) = delete;
  world& operator=(const world&) = delete;
  ~world() {
    if (std::uncaught_exceptions() > exceptions_) give_up_the_job();
    if (!broken_) {
      MPI_Comm_free(&communicator_);
      if (owner_) MPI_Finalize();
    }
  }

  int rank() const { return rank_; }
  int size() const { return size_; }

  /// How long any one wait may last, in seconds (60 by default). After that it throws peer_lost.
  void deadline(double seconds) {
    require(seconds > 0, "the deadline must be positive; got ", seconds);
    patience_.deadline = seconds;
  }
  /// Once *flag is set, a wait that does not end within `grace` seconds throws interrupted. Null: wait as ever.
  void stop_flag(const std::atomic<bool>* flag, double grace = 0.3) { patience_.stop = flag, patience_.grace = grace; }

  /// Ends the whole job now: every rank dies, and mpirun returns `status`.
  [[noreturn]] void abort(int status) const {
    std::fflush(nullptr);
    MPI_Abort(MPI_COMM_WORLD, status);
    std::_Exit(status);
  }

  /// See communicator.
  void exchange(std::span<const outgoing> sends, std::span<const incoming> receives) {
    arrived_.assign(receives.begin(), receives.end());
    exchange(sends, std::span<incoming>(arrived_), [&] {
      for (std::size_t i = 0; i < receives.size(); ++i)
        if (arrived_[i].data != receives[i].data) std::memcpy(receives[i].data, arrived_[i].data, receives[i].bytes);
    });
  }

  /// See in_place_communicator. Read in place are messages of 16 KiB to 1 GiB between ranks of one host that lie in
  /// what make_buffer gave their sender. (Shorter ones MPI moves faster.)
  template <class Work>
  void exchange(std::span<const outgoing> sends, std::span<incoming> receives, Work work) {
    requests_.clear(), messages_.clear(), notices_.clear(), answers_.clear();
    for (const outgoing& s : sends) check_peer(s.to);
    for (const incoming& r : receives) check_peer(r.from);
    for (incoming& r : receives) post(r.from, r.data, r.bytes, &r);
    notices_.reserve(sends.size());  // they stay where they are while they are sent
    std::atomic_thread_fence(std::memory_order_release);
    for (const outgoing& s : sends) {
      detail::notice where;
      if (in_place(s.to, s.bytes) && own_->find(s.data, s.bytes, where)) {
        notices_.push_back(where);
        post_notice(s.to, s.bytes);
      } else post(s.to, const_cast<void*>(s.data), s.bytes, nullptr);
    }
    wait("exchange");
    std::atomic_thread_fence(std::memory_order_acquire);
    for (std::size_t i = 0; i < requests_.size() && messages_[i].receive; ++i) arrive(statuses_[i], messages_[i]);
    work();
    if (!notices_.empty() || !answers_.empty()) answer(sends);
  }

  /// n elements of T, all zero, that the other ranks of this host can read in place; ordinary memory where they cannot
  /// or where no message of it would be long enough, or the system gives no more such memory. May outlive this world.
  /// Each costs a file descriptor.
  template <class T>
  buffer<T> make_buffer(std::size_t n) {
    if (!shares_memory() || n < least_in_place / sizeof(T)) return buffer<T>(n);
    try {
      return detail::shared_buffer<T>(own_, n);
    } catch (const error&) {  // no descriptor left, for example: read in place it only would be faster
      return buffer<T>(n);
    }
  }
  /// Whether make_buffer gives memory that the other ranks of this host read in place: there are others, the system
  /// lets them (they must see each other's /proc; in containers of their own they do not), and it is wanted.
  bool shares_memory() const { return shares_ && wanted_; }
  /// Whether what make_buffer gives from now on is to be read in place; true at first. This rank's alone to say.
  void share_memory(bool wanted) { wanted_ = wanted; }

  /// MPI's own reduce-scatter and all-gather, bound to vectors of n elements: see native_allreduce.
  template <class T>
  auto native(std::size_t n);

  /// The communicator that messages go by; errors on it are returned, not fatal.
  MPI_Comm communicator() const { return communicator_; }

  /// Waits for an operation of MPI on this communicator, by the same deadline and stop flag. `what` is named in errors.
  void wait(MPI_Request request, const char* what) {
    requests_.assign(1, request);
    messages_.clear();
    wait(what);
  }

 private:
  struct message {
    int peer;
    std::size_t bytes;
    incoming* receive;  // what it is the answer to, or null: a message of ours
    const char* what;   // the peer is to do
  };
  enum tag : int { message_tag, answer_tag };
  static constexpr std::size_t least_in_place = std::size_t{16} << 10, most_at_once = std::size_t{1} << 30;

  [[gnu::cold]] void begin(int* argc, char*** argv) {
    int begun = 0, ended = 0;
    MPI_Initialized(&begun);
    MPI_Finalized(&ended);
    require(!ended, "MPI has been finalised in this process, and cannot begin again");
    if (!begun) {
      int provided = 0;
      detail::copy_messages_up_to_32_kib();
      check(MPI_Init_thread(argc, argv, MPI_THREAD_FUNNELED, &provided), "MPI_Init_thread");
      owner_ = true;
    }
    check(MPI_Comm_dup(MPI_COMM_WORLD, &communicator_), "MPI_Comm_dup");
    check(MPI_Comm_set_errhandler(communicator_, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
    check(MPI_Comm_rank(communicator_, &rank_), "MPI_Comm_rank");
    check(MPI_Comm_size(communicator_, &size_), "MPI_Comm_size");
    MPI_Comm host = MPI_COMM_NULL;
    int here = 1;
    check(MPI_Comm_split_type(communicator_, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &host), "MPI_Comm_split_type");
    check(MPI_Comm_size(host, &here), "MPI_Comm_size");
    if (here < size_) {  // who is on which host: a host's lowest rank stands for it
      int lowest = rank_;
      check(MPI_Allreduce(MPI_IN_PLACE, &lowest, 1, MPI_INT, MPI_MIN, host), "MPI_Allreduce");
      host_of_.resize(static_cast<std::size_t>(size_));
      check(MPI_Allgather(&lowest, 1, MPI_INT, host_of_.data(), 1, MPI_INT, communicator_), "MPI_Allgather");
    }
    if (here > 1) find_out_whether_memory_is_shared(host);
    check(MPI_Comm_free(&host), "MPI_Comm_free");
    // A poll of MPI takes a tenth of a microsecond. Ranks that move long vectors are apart by tens of them, and whoever
    // gives his core away where others want it gets it back milliseconds later.
    patience_.spins = here > cores() ? 0 : 1000;
    patience_.nap_after = 0.05;  // MPI moves large messages while it is polled
    std::set_terminate(detail::terminate);
  }

  bool near(int peer) const {
    return host_of_.empty() || host_of_[static_cast<std::size_t>(peer)] == host_of_[static_cast<std::size_t>(rank_)];
  }

  void give_up_the_job() {
    broken_ = true;
    detail::abort_at_exit();
  }

  // Every rank of a host maps a page of its neighbour's and looks for the number that the neighbour says is there. One
  // that fails to, fails all: then nobody shares.
  [[gnu::cold]] void find_out_whether_memory_is_shared(MPI_Comm host) {
    struct news {
      detail::notice where;
      std::uint64_t number;
    };
    int me = 0, here = 0, good = 0;
    check(MPI_Comm_rank(host, &me), "MPI_Comm_rank");
    check(MPI_Comm_size(host, &here), "MPI_Comm_size");
    std::vector<news> of(static_cast<std::size_t>(here));
    news mine{};
    buffer<std::uint64_t> page;
    try {
      page = detail::shared_buffer<std::uint64_t>(own_, 1);
      if (::getrandom(page.data(), sizeof(std::uint64_t), 0) == sizeof(std::uint64_t))
        good = own_->find(page.data(), sizeof(std::uint64_t), mine.where);
      mine.number = page[0];
    } catch (const error&) {
    }
    check(MPI_Allgather(&mine, sizeof mine, MPI_BYTE, of.data(), sizeof mine, MPI_BYTE, host), "MPI_Allgather");
    const news& neighbour = of[static_cast<std::size_t>((me + 1) % here)];
    try {
      detail::peer_memory view;
      if (good) good = std::memcmp(view.at(neighbour.where), &neighbour.number, sizeof(std::uint64_t)) == 0;
    } catch (const error&) {
      good = 0;
    }
    check(MPI_Allreduce(MPI_IN_PLACE, &good, 1, MPI_INT, MPI_MIN, host), "MPI_Allreduce");
    shares_ = good != 0;
    if (shares_) peers_.resize(static_cast<std::size_t>(size_));
  }

  void check_peer(int peer) const {
    require(peer >= 0 && peer < size_ && peer != rank_, "rank ", rank_, ": there is no rank ", peer,
            " to exchange messages with");
  }

  bool in_place(int peer, std::size_t bytes) const {
    return shares_ && bytes >= least_in_place && bytes <= most_at_once && near(peer);
  }

  // receive: null for a message of ours.
  void post(int peer, void* data, std::size_t bytes, incoming* receive) {
    // Both ends cut alike. MPI counts in int; and to another host a longer message asks first whether it may come, and
    // waits for the answer behind what comes the other way: docs/decisions/messages-by-copy.md.
    const std::size_t most = near(peer) ? most_at_once : std::size_t{60} << 10;
    for (std::size_t done = 0; done == 0 || done < bytes;) {
      const std::size_t part = std::min(bytes - done, most);
      void* const from = bytes == 0 ? nullptr : static_cast<char*>(data) + done;
      MPI_Request request = MPI_REQUEST_NULL;
      const int count = static_cast<int>(part);
      if (receive) check(MPI_Irecv(from, count, MPI_BYTE, peer, message_tag, communicator_, &request), "MPI_Irecv");
      else check(MPI_Isend(from, count, MPI_BYTE, peer, message_tag, communicator_, &request), "MPI_Isend");
      requests_.push_back(request), messages_.push_back({peer, part, receive, receive ? "send" : "take"});
      done += part;
      if (bytes == 0) break;
    }
  }

  void post_notice(int peer, std::size_t bytes) {
    MPI_Request request = MPI_REQUEST_NULL;
    check(MPI_Isend(&notices_.back(), sizeof(detail::notice), MPI_BYTE, peer, message_tag, communicator_, &request),
          "MPI_Isend");
    requests_.push_back(request), messages_.push_back({peer, bytes, nullptr, "read"});
  }

  // What has come for a receive: the message or, in its place, a notice of where it can be read.
  void arrive(const MPI_Status& status, const message& m) {
    int count = 0;
    check(MPI_Get_count(&status, MPI_BYTE, &count), "MPI_Get_count");
    auto bytes = static_cast<std::size_t>(count);
    detail::notice where{};
    if (shares_ && near(m.peer) && bytes == sizeof where) std::memcpy(&where, m.receive->data, sizeof where);
    if (where.mark == detail::notice::marked) {
      bytes = where.bytes;
      if (bytes == m.bytes) {
        try {
          m.receive->data = const_cast<void*>(peers_[static_cast<std::size_t>(m.peer)].at(where));
        } catch (const error&) {
          give_up_the_job();
          throw;
        }
        answers_.push_back(m.peer);
      }
    }
    if (bytes == m.bytes) return;
    give_up_the_job();
    fail("rank ", rank_, ": rank ", m.peer, " sent ", bytes, " bytes where ", m.bytes,
         " were expected; do all ranks make the same calls?");
  }

  // Says that what was read in place has been read, and waits until that is said of all notices of ours.
  void answer(std::span<const outgoing> sends) {
    std::atomic_thread_fence(std::memory_order_release);
    requests_.clear(), messages_.clear();
    for (const outgoing& s : sends) {
      detail::notice unused;
      if (!in_place(s.to, s.bytes) || !own_->find(s.data, s.bytes, unused)) continue;
      MPI_Request request = MPI_REQUEST_NULL;
      check(MPI_Irecv(nullptr, 0, MPI_BYTE, s.to, answer_tag, communicator_, &request), "MPI_Irecv");
      requests_.push_back(request), messages_.push_back({s.to, s.bytes, nullptr, "read"});
    }
    for (const int peer : answers_) {
      MPI_Request request = MPI_REQUEST_NULL;
      check(MPI_Isend(nullptr, 0, MPI_BYTE, peer, answer_tag, communicator_, &request), "MPI_Isend");
      requests_.push_back(request), messages_.push_back({peer, 0, nullptr, "take"});
    }
    wait("exchange");
    std::atomic_thread_fence(std::memory_order_acquire);
  }

  void wait(const char* what) {
    const int count = static_cast<int>(requests_.size());
    if (statuses_.size() < requests_.size()) statuses_.resize(requests_.size());
    wait_watch watch(patience_);
    for (int done = 0;;) {
      const int code = MPI_Testall(count, requests_.data(), &done, statuses_.data());
      if (code != MPI_SUCCESS) {
        give_up_the_job();
        if (code == MPI_ERR_IN_STATUS)
          for (std::size_t i = 0; i < requests_.size(); ++i)
            if (statuses_[i].MPI_ERROR != MPI_ERR_PENDING) check(statuses_[i].MPI_ERROR, what);
        check(code, what);
      }
      if (done) return;
      if (const auto outcome = watch(); outcome != wait_watch::outcome::keep_waiting) give_up(outcome, what);
    }
  }

  [[noreturn, gnu::cold]] void give_up(wait_watch::outcome outcome, const char* what) {
    give_up_the_job();
    std::string pending;
    for (std::size_t i = 0; i < messages_.size(); ++i) {
      int done = 0;
      MPI_Test(&requests_[i], &done, MPI_STATUS_IGNORE);
      if (done) continue;
      const auto& m = messages_[i];
      pending += text(pending.empty() ? "" : ", ", "rank ", m.peer, " to ", m.what, " ", m.bytes, " bytes");
      if (m.receive) MPI_Cancel(&requests_[i]);  // nothing may arrive in memory that is about to go
      MPI_Request_free(&requests_[i]);
    }
    if (pending.empty()) pending = text("the other ranks in ", what);
    if (outcome == wait_watch::outcome::stopped)
      fail<interrupted>("rank ", rank_, ": asked to stop while waiting for ", pending);
    fail<peer_lost>("rank ", rank_, ": waited ", patience_.deadline, " s in vain for ", pending,
                    "; is it alive? (the deadline can be raised)");
  }

  MPI_Comm communicator_ = MPI_COMM_NULL;
  int rank_ = 0, size_ = 1;
  bool owner_ = false, broken_ = false;
  int exceptions_ = std::uncaught_exceptions();
  patience patience_;
  std::vector<int> host_of_;  // of each rank; empty when all are on one
  std::vector<MPI_Request> requests_;
  std::vector<message> messages_;  // what each request is, receives first; empty for MPI's own collectives
  std::vector<MPI_Status> statuses_;
  std::vector<incoming> arrived_;
  // Of messages that are read in place.
  bool shares_ = false, wanted_ = true;
  std::shared_ptr<detail::own_memory> own_ = std::make_shared<detail::own_memory>();
  std::vector<detail::peer_memory> peers_;  // of each rank
  std::vector<detail::notice> notices_;     // sent in this exchange
  std::vector<int> answers_;                // to be sent at its end: to whom
};
static_assert(in_place_communicator<world>);

/// MPI_Ireduce_scatter and MPI_Iallgatherv; see bound_schedule for the members. (MPI does not promise the same bits of
/// MPI_Allreduce on all ranks; of a sum that has one owner and is copied, it does.) Non-blocking, so that the deadline
/// and the stop flag hold.
template <class T>
class native_allreduce {
 public:
  native_allreduce(world& w, std::size_t n) : world_(&w) {
    require(n <= static_cast<std::size_t>(std::numeric_limits<int>::max()),
            "MPI counts in int: at most 2^31 - 1 elements; got ", n);
    for (int r = 0; r < w.size(); ++r) {
      const auto first = allreduce::block_start(n, w.size(), r), next = allreduce::block_start(n, w.size(), r + 1);
      starts_.push_back(static_cast<int>(first)), counts_.push_back(static_cast<int>(next - first));
    }
    shard_.resize(mine().count);
    nothing_to_do_ = n == 0 || w.size() == 1;
  }
  element_range mine() const {
    const auto r = static_cast<std::size_t>(world_->rank());
    return {static_cast<std::size_t>(starts_[r]), static_cast<std::size_t>(counts_[r])};
  }
  static constexpr bool scattered() { return true; }

  void reduce(T* v) {
    if (nothing_to_do_) return;
    MPI_Request request = MPI_REQUEST_NULL;
    check(MPI_Ireduce_scatter(v, shard_.data(), counts_.data(), detail::datatype<T>(), MPI_SUM, world_->communicator(),
                              &request),
          "MPI_Ireduce_scatter");
    world_->wait(request, "MPI_Ireduce_scatter");
    std::copy_n(shard_.data(), mine().count, v + mine().first);  // not memcpy: an empty shard has no address
  }
  template <class U>
  void gather(U* v) {
    if (nothing_to_do_) return;
    MPI_Request request = MPI_REQUEST_NULL;
    check(MPI_Iallgatherv(MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, v, counts_.data(), starts_.data(), detail::datatype<U>(),
                          world_->communicator(), &request),
          "MPI_Iallgatherv");
    world_->wait(request, "MPI_Iallgatherv");
  }
  void all_reduce(T* v) { reduce(v), gather(v); }

 private:
  world* world_;
  std::vector<int> starts_, counts_;
  std::vector<T> shard_;
  bool nothing_to_do_ = false;
};

template <class T>
auto world::native(std::size_t n) {
  return native_allreduce<T>(*this, n);
}

}  // namespace dpsgd::mpi
