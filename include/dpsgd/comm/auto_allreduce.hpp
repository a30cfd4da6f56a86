/// Chooses the allreduce algorithm by measuring: the network once, then for each length the few that promise most.
///
///   const dpsgd::auto_allreduce chosen(world);                       // all ranks together; a few milliseconds
///   dpsgd::trainer trainer{world, ..., chosen};                      // a policy like circulant, native and any
///   std::cout << chosen.choose<float>(world, n).text() << '\n';      // or: what it picks for n floats, and why
///
/// How. (1) All ranks send round a ring, once little and once much: that gives alpha and beta; adding two vectors gives
/// gamma. (2) Every algorithm of allreduce/all.hpp is priced by them (allreduce/cost.hpp). (3) The three that come out
/// cheapest run a few times in turn, and native with them, which has no arrows to be priced by. The least median wins,
/// of the slowest rank's times. What one rank decides by is folded over all of them, so all decide alike.
///
/// Not in the umbrella: it includes every algorithm.
#pragma once

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdio>
#include <numeric>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "dpsgd/allreduce/all.hpp"
#include "dpsgd/allreduce/cost.hpp"
#include "dpsgd/comm/communicator.hpp"
#include "dpsgd/comm/execute.hpp"

namespace dpsgd {

/// What auto_allreduce picks for a length, and why.
struct allreduce_choice {
  /// One algorithm. Seconds; negative: not priced (native), not run (too dear by its price).
  struct candidate {
    allreduce::any algorithm;
    double predicted = -1, measured = -1;
  };
  allreduce::any picked;
  allreduce::network network{};  // as measured, the slowest rank's
  int ranks = 1;
  std::size_t bytes = 0;              // of the vector
  std::size_t tried = 0;              // bytes of the vector that was run: fewer where that would take too long
  int runs = 0;                       // of each that was run
  double seconds = 0;                 // that measuring and choosing took
  std::vector<candidate> candidates;  // those that were run first, then the others, each from the cheapest on

  /// A few lines for people.
  std::string text() const;
};

/// Models the allreduce policy. A value that holds what was measured of one communicator: use it on that one alone.
class auto_allreduce {
 public:
  /// Measures the network. All ranks must call it. Some 10 ms, more where others take the cores.
  /// Throws what the world's exchange throws.
  template <communicator World>
  [[gnu::cold]] explicit auto_allreduce(World& world);

  /// The network that prices are made with: the same on all ranks.
  const allreduce::network& network() const { return network_; }

  /// Picks for vectors of n elements of type T in memory of make_buffer, which is what it runs on (in other memory long
  /// messages are slower, and another algorithm may be the best). The same on all ranks, which must all call it. Not
  /// twice the same for certain: it measures. Some 20 ms; up to 0.3 s on a slow network, more where two runs of four
  /// allreduces take more.
  template <class T, communicator World>
  [[gnu::cold]] allreduce_choice choose(World& world, std::size_t n) const;

 private:
  using clock = std::chrono::steady_clock;
  static double since(clock::time_point start) { return std::chrono::duration<double>(clock::now() - start).count(); }

  // Seconds of one round in which all send `bytes` bytes to their right: the least of some means, of the slowest rank.
  template <communicator World>
  static double one_round(World& world, std::size_t bytes, double budget);
  static double seconds_per_byte_added();

  allreduce::network network_{};
  int ranks_ = 1;
  double seconds_ = 0;
};

/// See bind in comm/execute.hpp: the algorithm that `a` chooses.
template <class T, communicator World>
auto bind(const auto_allreduce& a, World& world, std::size_t n) {
  detail::require_agreement<T>(world, n, "auto");  // before ranks that differ measure together
  return bind<T>(a.choose<T>(world, n).picked, world, n);
}

// ---- How it is done ----------------------------------------------------------------------------------------------

template <communicator World>
double auto_allreduce::one_round(World& world, std::size_t bytes, double budget) {
  const int size = world.size(), me = world.rank();
  const auto out = make_buffer<char>(world, bytes), in = make_buffer<char>(world, bytes);
  const outgoing send{(me + 1) % size, out.data(), bytes};
  const incoming receive{(me + size - 1) % size, in.data(), bytes};
  const auto mean_of = [&](int rounds) {
    const auto start = clock::now();
    for (int i = 0; i < rounds; ++i) world.exchange({&send, 1}, {&receive, 1});
    return since(start) / rounds;
  };
  double once = 0;  // of the third, really: the first ones open connections and touch memory
  for (int i = 0; i < 3; ++i) once = max(world, mean_of(1));
  const int rounds = static_cast<int>(std::clamp(budget / 20 / once, 1.0, 25.0));
  double least = once;
  for (double used = 0; used < budget;) {  // by what all agree on, so all stop together
    const double mean = max(world, mean_of(rounds));
    least = std::min(least, mean), used += mean * rounds;
  }
  return least;
}

inline double auto_allreduce::seconds_per_byte_added() {
  const volatile std::size_t length = 64 * 1024;  // hidden from the compiler, which would add less if it knew
  const std::size_t n = length;
  std::vector<float> to(n, 0.0f), from(n, 1.0f);
  double least = 1;
  for (int i = 0; i < 10; ++i) {
    const auto start = clock::now();
    add(to.data(), from.data(), n);
    least = std::min(least, since(start));
  }
  return to[n - 1] == 10.0f ? std::max(least, 1e-9) / static_cast<double>(n * sizeof(float)) : 0;
}

template <communicator World>
auto_allreduce::auto_allreduce(World& world) : ranks_(world.size()) {
  if (ranks_ == 1) return;
  const auto start = clock::now();
  constexpr std::size_t much = 256 * 1024;
  const double little = one_round(world, sizeof(float), 3e-3), long_one = one_round(world, much, 6e-3);
  std::array facts{little, std::max(0.0, long_one - little) / much, seconds_per_byte_added(), since(start)};
  max(world, std::span<double>(facts));
  network_ = {facts[0], facts[1], facts[2]};
  seconds_ = facts[3];
}

template <class T, communicator World>
allreduce_choice auto_allreduce::choose(World& world, std::size_t n) const {
  require(world.size() == ranks_, "this auto_allreduce has measured a communicator of ", ranks_,
          " ranks; make one of its own for this one, of ", world.size());
  const auto start = clock::now();
  constexpr std::size_t most = 3;  // that are run, native not counted
  allreduce_choice c;
  c.network = network_, c.ranks = ranks_, c.bytes = n * sizeof(T);
  if (ranks_ == 1 || n == 0) return c;  // nothing to be done, whoever does it

  // Price them. Of those that come to the same arrows (at two ranks: most) the first stands for all.
  std::vector<allreduce::schedule> schedules;
  for (const auto& a : allreduce::all_algorithms) {
    if (a.is_native()) continue;
    // These three have some P^2 arrows, and above a few ranks others undercut them in rounds or in bytes.
    if (ranks_ > 64 && (a.name() == "all_to_all" || a.name() == "round_robin" || a.name() == "ring")) continue;
    auto s = a.derive(ranks_);
    const auto same = [&](const allreduce::schedule& other) {
      return s.blocks == other.blocks && s.reduce == other.reduce && s.gather == other.gather;
    };
    if (std::any_of(schedules.begin(), schedules.end(), same)) continue;
    c.candidates.push_back({a, seconds(s, c.bytes, network_)});
    schedules.push_back(std::move(s));
  }
  std::vector<double> prices;  // rank 0's, should another machine's arithmetic differ in the last bit
  for (const auto& one : c.candidates) prices.push_back(one.predicted);
  broadcast(world, std::span<double>(prices));
  for (std::size_t i = 0; i < prices.size(); ++i) c.candidates[i].predicted = prices[i];
  std::stable_sort(c.candidates.begin(), c.candidates.end(),
                   [](const auto& a, const auto& b) { return a.predicted < b.predicted; });
  std::size_t run = std::min(most, c.candidates.size());
  if constexpr (requires { world.template native<T>(n); }) {
    c.candidates.insert(c.candidates.begin() + static_cast<std::ptrdiff_t>(run), {allreduce::from_name("native")});
    ++run;
  }

  // Run them, on a shorter vector where the whole one would not leave time for five runs of each.
  const double price = c.candidates.front().predicted * static_cast<double>(run) * 6;
  const double budget = std::clamp(price, 20e-3, 0.3);  // seconds, for all runs together
  std::size_t length = n;
  if (price > budget)
    length = std::clamp(static_cast<std::size_t>(budget / price * static_cast<double>(n)), std::size_t{1}, n);
  if (length < n && c.candidates[run - 1].algorithm.is_native()) {  // nothing says what it would do at full length
    std::rotate(c.candidates.begin() + static_cast<std::ptrdiff_t>(run - 1),
                c.candidates.begin() + static_cast<std::ptrdiff_t>(run), c.candidates.end());
    --run;
  }
  c.tried = length * sizeof(T);
  const auto v = make_buffer<T>(world, length);
  std::vector<bound_any<T, World>> bound;
  bound.reserve(run);
  for (std::size_t i = 0; i < run; ++i) bound.emplace_back(c.candidates[i].algorithm, world, length);
  std::vector<double> times, pass(run);  // times: [run of it][candidate]
  const auto run_all = [&] {             // returns the seconds that it took, the same on all ranks
    for (std::size_t i = 0; i < run; ++i) {
      barrier(world);
      const auto begin = clock::now();
      bound[i].all_reduce(v.data());
      pass[i] = since(begin);
    }
    max(world, std::span<double>(pass));
    return std::accumulate(pass.begin(), pass.end(), 0.0);
  };
  run_all();  // opens connections, touches memory
  for (double used = 0; c.runs == 0 || (used < budget && c.runs < 25); ++c.runs) {
    used += run_all();
    times.insert(times.end(), pass.begin(), pass.end());
  }
  for (std::size_t i = 0; i < run; ++i) {
    std::vector<double> its;
    for (std::size_t at = i; at < times.size(); at += run) its.push_back(times[at]);
    std::nth_element(its.begin(), its.begin() + static_cast<std::ptrdiff_t>(its.size() / 2), its.end());
    c.candidates[i].measured = its[its.size() / 2];
  }
  std::stable_sort(c.candidates.begin(), c.candidates.begin() + static_cast<std::ptrdiff_t>(run),
                   [](const auto& a, const auto& b) { return a.measured < b.measured; });
  c.picked = c.candidates.front().algorithm;
  c.seconds = max(world, seconds_ + since(start));
  return c;
}

inline std::string allreduce_choice::text() const {
  if (candidates.empty())
    return std::string(picked.name()) + ": with " + (ranks == 1 ? "one rank" : "no elements") + " there is no choice";
  char line[256];
  const auto microseconds = [](double time) {
    char number[32];
    std::snprintf(number, sizeof number, "%.1f us", time * 1e6);
    return std::string(number);
  };
  std::string all;
  std::snprintf(line, sizeof line,
                "%s, for %zu bytes on %d ranks, chosen in %.0f ms\n"
                "  a message %.2f us, a byte sent %.3f ns, a byte added %.3f ns; median of %d runs%s%s\n",
                std::string(picked.name()).c_str(), bytes, ranks, seconds * 1e3, network.alpha * 1e6,
                network.beta * 1e9, network.gamma * 1e9, runs, tried < bytes ? " on the first " : "",
                tried < bytes ? (std::to_string(tried) + " bytes").c_str() : "");
  all += line;
  for (const auto& c : candidates) {
    std::snprintf(line, sizeof line, "  %-24s predicted %12s   measured %12s\n",
                  std::string(c.algorithm.name()).c_str(), c.predicted < 0 ? "-" : microseconds(c.predicted).c_str(),
                  c.measured < 0 ? "-" : microseconds(c.measured).c_str());
    all += line;
  }
  all.pop_back();
  return all;
}

}  // namespace dpsgd
