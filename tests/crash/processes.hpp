/// Ranks that are processes of their own, joined by sockets: so that one of them can be killed, as a machine or the
/// system would kill it, many times a second.
#pragma once

#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <span>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "dpsgd/comm/communicator.hpp"

namespace test {

/// The communicator of one such rank. Messages are small: a send that fits the socket's buffer never waits.
class process_world {
 public:
  process_world(int rank, std::vector<int> sockets) : rank_(rank), sockets_(std::move(sockets)) {}

  int rank() const { return rank_; }
  int size() const { return static_cast<int>(sockets_.size()); }

  void exchange(std::span<const dpsgd::outgoing> sends, std::span<const dpsgd::incoming> receives) {
    for (const auto& s : sends) {
      dpsgd::require(s.bytes <= 1 << 14, "this communicator is for small messages");
      const std::uint64_t bytes = s.bytes;
      send(s.to, &bytes, sizeof bytes);
      send(s.to, s.data, s.bytes);
    }
    for (const auto& r : receives) {
      std::uint64_t bytes = 0;
      receive(r.from, &bytes, sizeof bytes);
      dpsgd::require(bytes == r.bytes, "a message of another size than expected");
      receive(r.from, r.data, r.bytes);
    }
  }

 private:
  void send(int to, const void* data, std::size_t bytes) {
    if (bytes > 0 && ::send(sockets_[to], data, bytes, MSG_NOSIGNAL) != static_cast<ssize_t>(bytes)) lost(to);
  }
  void receive(int from, void* data, std::size_t bytes) {
    if (bytes > 0 && ::recv(sockets_[from], data, bytes, MSG_WAITALL) != static_cast<ssize_t>(bytes)) lost(from);
  }
  [[noreturn]] void lost(int peer) const {
    throw dpsgd::peer_lost(dpsgd::text("rank ", rank_, ": rank ", peer, " is gone"));
  }

  int rank_;
  std::vector<int> sockets_;  // to each rank; -1 to itself
};
static_assert(dpsgd::communicator<process_world>);

/// A job of such ranks: each runs `work(world)` and ends with 0, with `peer_lost` when another rank is gone, or with 1
/// and its words on stderr when it throws anything else.
class job {
 public:
  job(int ranks, const std::function<void(process_world&)>& work) {
    const auto n = static_cast<std::size_t>(ranks);
    std::vector<std::vector<int>> sockets(n, std::vector<int>(n, -1));
    for (std::size_t a = 0; a < n; ++a)
      for (std::size_t b = 0; b < a; ++b) {
        int pair[2];
        if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) throw std::runtime_error("no sockets");
        sockets[a][b] = pair[0], sockets[b][a] = pair[1];
      }
    for (std::size_t r = 0; r < n; ++r) {
      const auto pid = ::fork();
      if (pid < 0) throw std::runtime_error("cannot fork");
      if (pid == 0) {
        for (std::size_t other = 0; other < n; ++other)  // so that a peer's end closes when that peer dies
          if (other != r) close_all(sockets[other]);
        try {
          process_world world(static_cast<int>(r), sockets[r]);
          work(world);
          ::_exit(0);
        } catch (const dpsgd::peer_lost&) {
          ::_exit(peer_lost);
        } catch (const std::exception& e) {
          const std::string words = dpsgd::text("rank ", r, ": ", e.what(), "\n");
          if (::write(STDERR_FILENO, words.data(), words.size()) < 0) ::_exit(1);
          ::_exit(1);
        }
      }
      pids_.push_back(pid);
    }
    for (const auto& s : sockets) close_all(s);
  }
  job(const job&) = delete;
  ~job() {
    for (const auto pid : pids_) ::kill(pid, SIGKILL), ::waitpid(pid, nullptr, 0);
  }

  /// SIGKILL to one rank, which may have ended.
  void kill(std::size_t rank) { ::kill(pids_[rank], SIGKILL); }

  static constexpr int killed = 128 + SIGKILL, peer_lost = 3;

  /// Waits until all have ended, for at most `seconds`: each one's status, or 128 + its signal.
  std::vector<int> wait(double seconds = 60) {
    std::vector<int> statuses;
    const auto start = std::chrono::steady_clock::now();
    for (const auto pid : std::exchange(pids_, {})) {
      int status = 0;
      while (::waitpid(pid, &status, WNOHANG) != pid) {
        if (std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() > seconds) {
          ::kill(pid, SIGKILL);
          ::waitpid(pid, &status, 0);
          throw std::runtime_error("a rank did not end");
        }
        std::this_thread::sleep_for(std::chrono::microseconds(200));
      }
      statuses.push_back(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
    }
    return statuses;
  }

 private:
  static void close_all(const std::vector<int>& sockets) {
    for (const int s : sockets)
      if (s >= 0) ::close(s);
  }
  std::vector<pid_t> pids_;
};

}  // namespace test
