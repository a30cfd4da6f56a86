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

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <limits>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include "dpsgd/allreduce/schedule.hpp"
#include "dpsgd/comm/communicator.hpp"
#include "dpsgd/comm/execute.hpp"
#include "dpsgd/comm/waiting.hpp"

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
    requests_.clear(), messages_.clear();
    for (const incoming& r : receives) post(r.from, r.data, r.bytes, true);
    for (const outgoing& s : sends) post(s.to, const_cast<void*>(s.data), s.bytes, false);
    wait("exchange");
    for (std::size_t i = 0; i < requests_.size() && messages_[i].receives; ++i) {
      int bytes = 0;
      check(MPI_Get_count(&statuses_[i], MPI_BYTE, &bytes), "MPI_Get_count");
      if (static_cast<std::size_t>(bytes) != messages_[i].bytes) {
        give_up_the_job();
        fail("rank ", rank_, ": rank ", messages_[i].peer, " sent ", bytes, " bytes where ", messages_[i].bytes,
             " were expected; do all ranks make the same calls?");
      }
    }
  }

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
    bool receives;
  };

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
    check(MPI_Comm_free(&host), "MPI_Comm_free");
    patience_.spins = here > cores() ? 0 : 30;  // a poll of MPI takes a tenth of a microsecond
    patience_.nap_after = 0.05;                 // MPI moves large messages while it is polled
    std::set_terminate(detail::terminate);
  }

  bool near(int peer) const {
    return host_of_.empty() || host_of_[static_cast<std::size_t>(peer)] == host_of_[static_cast<std::size_t>(rank_)];
  }

  void give_up_the_job() {
    broken_ = true;
    detail::abort_at_exit();
  }

  void post(int peer, void* data, std::size_t bytes, bool receives) {
    require(peer >= 0 && peer < size_ && peer != rank_, "rank ", rank_, ": there is no rank ", peer,
            " to exchange messages with");
    // Both ends cut alike. MPI counts in int; and to another host a longer message asks first whether it may come, and
    // waits for the answer behind what comes the other way: docs/decisions/messages-by-copy.md.
    const std::size_t most = near(peer) ? std::size_t{1} << 30 : std::size_t{60} << 10;
    for (std::size_t done = 0; done == 0 || done < bytes;) {
      const std::size_t part = std::min(bytes - done, most);
      void* const from = bytes == 0 ? nullptr : static_cast<char*>(data) + done;
      MPI_Request request = MPI_REQUEST_NULL;
      const int count = static_cast<int>(part);
      if (receives) check(MPI_Irecv(from, count, MPI_BYTE, peer, 0, communicator_, &request), "MPI_Irecv");
      else check(MPI_Isend(from, count, MPI_BYTE, peer, 0, communicator_, &request), "MPI_Isend");
      requests_.push_back(request), messages_.push_back({peer, part, receives});
      done += part;
      if (bytes == 0) break;
    }
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
      pending +=
          text(pending.empty() ? "" : ", ", "rank ", m.peer, m.receives ? " to send " : " to take ", m.bytes, " bytes");
      if (m.receives) MPI_Cancel(&requests_[i]);  // nothing may arrive in memory that is about to go
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
};
static_assert(communicator<world>);

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
