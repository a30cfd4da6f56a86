/// What the examples share on the command line's side: exit statuses, stop signals, how a program was started,
/// progress.
#pragma once

#include <signal.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>

#include "dpsgd/accounting/claim.hpp"
#include "dpsgd/core/digest.hpp"
#include "dpsgd/train/trainer.hpp"

namespace console {

/// How a program ends.
enum status : int { done = 0, failed = 1, bad_usage = 2, resumable = 3 };

/// Set by the first Ctrl-C or SIGTERM.
inline std::atomic<bool> stop{false};
static_assert(std::atomic<bool>::is_always_lock_free, "a signal handler may touch only what needs no lock");

namespace detail {

inline std::atomic<long long> stop_time{0};  // nanoseconds

inline void on_stop_signal(int) {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  const long long at = now.tv_sec * 1'000'000'000LL + now.tv_nsec;
  if (!stop.exchange(true)) stop_time = at;
  // A second wish ends the program at once. mpirun passes on one Ctrl-C as several signals, so within a fifth of a
  // second they are one.
  else if (at - stop_time > 200'000'000) ::_exit(failed);
}

}  // namespace detail

/// From here on Ctrl-C, SIGTERM and a terminal that is closed set `stop`; the second one ends the program.
inline void stop_on_signals() {
  struct sigaction action {};
  action.sa_handler = detail::on_stop_signal;
  action.sa_flags = SA_RESTART;
  sigemptyset(&action.sa_mask);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) ::sigaction(signal, &action, nullptr);
}

/// How the program was started: by itself, or as a rank of an MPI job (Open MPI, MPICH and PMIx say so).
struct start {
  bool by_mpirun = false;
  int rank = 0;

  static start detect() {
    for (const auto& [size, rank] : {std::pair{"OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"},
                                     {"PMI_SIZE", "PMI_RANK"},
                                     {"PMIX_RANK", "PMIX_RANK"}})
      if (std::getenv(size)) return {true, std::getenv(rank) ? std::atoi(std::getenv(rank)) : 0};
    return {};
  }
};

/// A digest of a schema file, whatever its spaces and line ends: what a model or a checkpoint was made with. (A schema
/// is public, so this may stand in a file that is published.)
inline std::string schema_digest(const std::string& file) {
  std::ifstream in(file);
  const auto words = nlohmann::json::parse(in, nullptr, false).dump();
  return dpsgd::digest_of(words.data(), words.size()).hex();
}

/// Whether all that was printed has arrived: a full disk behind stdout must not look like success.
inline bool printed() {
  std::cout.flush();
  if (std::cout) return true;
  std::cerr << "cannot write to standard output\n";
  return false;
}

/// The most memory that this process has held so far, in MiB.
inline double peak_rss_mib() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_maxrss) / 1024;
}

/// "1.23 M", "456 k", "789": a count that a person reads at a glance.
inline std::string brief(double count) {
  char room[32];
  if (count >= 999'500) std::snprintf(room, sizeof room, "%.3g M", count / 1e6);
  else if (count >= 9'995) std::snprintf(room, sizeof room, "%.0f k", count / 1e3);
  else std::snprintf(room, sizeof room, "%.0f", count);
  return room;
}

/// Shows where a run stands, on stderr: a bar on a terminal, else a line now and then.
class progress_view {
 public:
  /// expected_batch: records a step, for records per second. is_private: whether epsilon means anything.
  progress_view(double expected_batch, bool is_private) : batch_(expected_batch), is_private_(is_private) {}

  /// Seconds between two calls of it.
  double every() const { return on_terminal_ ? 0.1 : 1.0; }

  void operator()(const dpsgd::progress& p) {
    const double share = static_cast<double>(p.step) / static_cast<double>(p.steps);
    const double speed = static_cast<double>(p.steps_here) * batch_ / std::max(p.seconds, 1e-9);
    std::string line = "step " + std::to_string(p.step) + " of " + std::to_string(p.steps);
    if (is_private_) line += ", epsilon so far " + dpsgd::rounded_up(p.epsilon);
    line += ", " + brief(speed) + " records/s";
    if (on_terminal_) {
      constexpr int width = 30;
      const int full = static_cast<int>(share * width);
      line = "[" + std::string(static_cast<std::size_t>(full), '#') +
             std::string(static_cast<std::size_t>(width - full), '.') + "] " + line;
      std::fprintf(stderr, "\r\033[K%s%s", line.c_str(), p.step == p.steps ? "\n" : "");
      open_line_ = p.step != p.steps;
    } else {
      std::fprintf(stderr, "%s\n", line.c_str());
    }
    std::fflush(stderr);
  }
  /// Ends the bar's line, so that other words can follow.
  ~progress_view() {
    if (open_line_) std::fputc('\n', stderr);
  }

 private:
  double batch_;
  bool is_private_;
  bool on_terminal_ = ::isatty(STDERR_FILENO) == 1;
  bool open_line_ = false;
};

}  // namespace console
