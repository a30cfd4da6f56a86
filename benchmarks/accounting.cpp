/// What the PLD accountant costs and how far hi and lo are apart, over a spread of runs of 10^6 steps. Prints a table;
/// --json FILE writes every figure.
///
///   build/release/benchmarks/accounting [--json FILE] [--repeats N] [--steps N]
///
/// Targets: median <= 25 ms, every run <= 300 ms, hi - lo <= max(1e-3 hi, 1e-9). Times are the least of the repeats, of
/// this process's processor time, because the machine may be shared.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "dpsgd/accounting/pld.hpp"

namespace {

double processor_seconds() {
  timespec now{};
  ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

struct row {
  double q, sigma, delta;
};

/// Every rate with the multipliers that it might be used with, and small and large deltas; then rare hits alone, where
/// the answer is hardest.
const std::vector<row> rows = {
    {1, 1000, 1e-6},     {1, 100, 1e-6},      {0.5, 50, 1e-10},      {0.2, 50, 1e-6},      {0.1, 5, 1e-6},
    {0.1, 100, 1e-8},    {0.02, 10, 1e-6},    {0.01, 0.6, 1e-6},     {0.01, 1, 1e-6},      {0.01, 2, 1e-15},
    {0.01, 6.5, 1e-6},   {0.01, 20, 1e-5},    {0.003, 1.5, 1e-7},    {0.001, 0.7, 1e-5},   {0.001, 1, 1e-6},
    {0.001, 1, 1e-30},   {0.001, 3, 1e-6},    {0.001, 10, 1e-6},     {0.0003, 0.8, 1e-7},  {0.0002, 1, 1e-7},
    {0.0001, 0.5, 1e-7}, {0.0001, 1, 1e-8},   {0.0001, 2, 1e-6},     {0.00003, 0.6, 1e-6}, {0.00001, 0.5, 1e-5},
    {0.00001, 1, 1e-8},  {0.00001, 1, 1e-12}, {0.000001, 0.3, 1e-8},
};

}  // namespace

int main(int argc, char** argv) {
  std::string file;
  int repeats = 5;
  std::uint64_t steps = 1'000'000;
  for (int i = 1; i < argc; ++i) {
    const std::string option = argv[i];
    const char* const value = i + 1 < argc ? argv[++i] : nullptr;
    if (value && option == "--json") file = value;
    else if (value && option == "--repeats") repeats = std::max(1, std::atoi(value));
    else if (value && option == "--steps") steps = static_cast<std::uint64_t>(std::atof(value));
    else return std::fprintf(stderr, "usage: accounting [--json FILE] [--repeats N] [--steps N]\n"), 2;
  }

  nlohmann::ordered_json all = nlohmann::ordered_json::array();
  std::vector<double> times;
  double worst_gap = 0;
  int wide = 0;
  std::printf("%10s %8s %8s  %-14s %-14s %9s %9s\n", "rate", "noise", "delta", "lo", "hi", "gap", "ms");
  for (const auto& r : rows) {
    dpsgd::pld_accountant spent;
    spent.add(dpsgd::poisson_sampled{r.q, dpsgd::gaussian_event<dpsgd::zero_out>{r.sigma}}, steps);
    dpsgd::pld_accountant::result found{};
    double best = HUGE_VAL;
    for (int i = 0; i < repeats; ++i) {
      const double start = processor_seconds();
      found = spent.spent(r.delta);
      best = std::min(best, processor_seconds() - start);
    }
    const double gap = found.epsilon > 0 ? (found.epsilon - found.epsilon_lo) / found.epsilon : 0;
    const bool in_target = found.epsilon - found.epsilon_lo <= std::max(1e-3 * found.epsilon, 1e-9);
    wide += !in_target, worst_gap = std::max(worst_gap, gap);
    times.push_back(1e3 * best);
    std::printf("%10g %8g %8g  %-14.8g %-14.8g %9.1e %9.1f%s\n", r.q, r.sigma, r.delta, found.epsilon_lo, found.epsilon,
                gap, 1e3 * best, in_target ? "" : "  (gap above target)");
    all.push_back({{"rate", r.q},
                   {"noise_multiplier", r.sigma},
                   {"steps", steps},
                   {"delta", r.delta},
                   {"epsilon_lo", found.epsilon_lo},
                   {"epsilon", found.epsilon},
                   {"gap", gap},
                   {"gap_in_target", in_target},
                   {"milliseconds", 1e3 * best}});
  }
  std::vector<double> sorted = times;
  std::sort(sorted.begin(), sorted.end());
  const double median = (sorted[sorted.size() / 2] + sorted[(sorted.size() - 1) / 2]) / 2, most = sorted.back();
  std::printf("median %.1f ms, most %.1f ms, largest gap %.1e; %d of %zu above the gap's target\n", median, most,
              worst_gap, wide, rows.size());
  if (!file.empty()) {
    nlohmann::ordered_json j{{"median_milliseconds", median},
                             {"most_milliseconds", most},
                             {"largest_gap", worst_gap},
                             {"above_gap_target", wide},
                             {"runs", all}};
    std::ofstream out(file);
    out << j.dump(2) << '\n';
    out.close();
    if (!out) return std::fprintf(stderr, "accounting: cannot write %s\n", file.c_str()), 1;
  }
  return 0;
}
