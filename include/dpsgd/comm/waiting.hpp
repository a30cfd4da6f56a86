/// How a rank waits for another: it polls, first busily, then giving the core away, and not for ever.
#pragma once

#include <sched.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <chrono>

namespace dpsgd {

/// The rules of a rank's waits.
struct patience {
  double deadline = 60;                     // seconds that one wait may last
  const std::atomic<bool>* stop = nullptr;  // set when the program is asked to stop; then
  double grace = 0.3;                       // seconds that a wait may still last
  int spins = 100;                          // polls before the core is given away; 0 with more ranks than cores
  double nap_after = 2e-3;                  // seconds of polling after which it sleeps between polls
};

/// The number of cores that the machine has online.
inline int cores() { return static_cast<int>(::sysconf(_SC_NPROCESSORS_ONLN)); }

/// One wait. Call it after every poll that found nothing. The clock is read only once the busy polls are used up.
class wait_watch {
 public:
  enum class outcome { keep_waiting, too_late, stopped };

  explicit wait_watch(const patience& rules) : rules_(rules) {}

  outcome operator()() {
    if (++polls_ < rules_.spins) {
      relax();
      return outcome::keep_waiting;
    }
    const auto now = clock::now();
    if (start_ == clock::time_point{}) start_ = now;
    if (rules_.stop && stop_seen_ == clock::time_point{} && rules_.stop->load(std::memory_order_relaxed))
      stop_seen_ = now;
    if (stop_seen_ != clock::time_point{} && seconds(stop_seen_, now) > rules_.grace) return outcome::stopped;
    const double waited = seconds(start_, now);
    if (waited > rules_.deadline) return outcome::too_late;
    if (waited < rules_.nap_after) ::sched_yield();
    else nap();  // a long wait (the other one reads a file): leave the core to those who work
    return outcome::keep_waiting;
  }

 private:
  using clock = std::chrono::steady_clock;
  static double seconds(clock::time_point from, clock::time_point to) {
    return std::chrono::duration<double>(to - from).count();
  }
  static void relax() {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#endif
  }
  static void nap() {
    const timespec time{0, 20'000};
    ::nanosleep(&time, nullptr);
  }

  const patience& rules_;
  int polls_ = 0;
  clock::time_point start_{}, stop_seen_{};
};

}  // namespace dpsgd
