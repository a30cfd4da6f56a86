/// The race: every allreduce of ours, what auto_allreduce picks, and MPI_Allreduce itself, from 4 B on.
///
///   mpirun -n 2 build/release/benchmarks/allreduce [--json FILE] [--seconds 60] [--only NAME,...] [--most BYTES]
///                                                  [--transport "shared memory"]     a word for the rows
///
/// Ours run on a vector that world.make_buffer gave, which the other rank reads in place; MPI_Allreduce, and auto once
/// more as auto_ordinary, on ordinary memory, as MPI has no other.
/// Each iteration begins at a barrier and counts as long as its slowest rank. The sizes come in random order, 15 times
/// over, and each time all algorithms of a size one after the other, in random order, each for its share of the seconds
/// (at least once; a size that has had its time is left out). So over_mpi, the ratio to MPI_Allreduce's median of the same
/// turn, median over the turns, compares what ran within a fraction of a second: a virtual machine's cores may be near
/// each other now and far from each other in a minute. Algorithms that come to the same arrows run once. Every result
/// is checked once. benchmarks/allreduce.sh builds and runs this with two MPI libraries and Gloo's counterpart beside
/// them, and prints the ratios.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <iostream>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "dpsgd/allreduce/all.hpp"
#include "dpsgd/comm/auto_allreduce.hpp"
#include "dpsgd/mpi.hpp"

namespace {

using dpsgd::mpi::check;

struct contest {  // one algorithm at one size
  std::string algorithm, picked;
  std::size_t bytes;
  std::function<void(float*)> all_reduce;
  bool ordinary = false;         // memory
  std::vector<double> times{};   // of the iterations, the slowest rank's
  std::vector<double> ratios{};  // to MPI_Allreduce, of each turn's medians
  double used = 0;
};

struct options {
  std::string json, only, transport = "shared memory";
  double seconds = 60;
  std::size_t most = std::size_t{64} << 20;  // bytes
};

options read(int argc, char** argv) {
  options o;
  const std::string usage =
      "usage: allreduce [--json FILE] [--seconds S] [--only NAME,...] [--most BYTES] [--transport WORD]; ";
  for (int i = 1; i < argc; ++i) {
    const std::string name = argv[i];
    dpsgd::require(i + 1 < argc, usage, "no value for ", name);
    const std::string value = argv[++i];
    if (name == "--json") o.json = value;
    else if (name == "--only") o.only = value;
    else if (name == "--transport") o.transport = value;
    else if (name == "--most") o.most = static_cast<std::size_t>(std::atoll(value.c_str()));
    else if (name == "--seconds") o.seconds = std::atof(value.c_str());
    else dpsgd::fail(usage, "there is no ", name);
  }
  dpsgd::require(o.most >= 4 && o.most % 4 == 0, "--most must be a multiple of 4 bytes, from 4 on; got ", o.most);
  dpsgd::require(o.seconds > 0, "--seconds must be positive; got ", o.seconds);
  return o;
}

std::string library() {
  char words[MPI_MAX_LIBRARY_VERSION_STRING];
  int length = 0;
  check(MPI_Get_library_version(words, &length), "MPI_Get_library_version");
  std::string all(words, static_cast<std::size_t>(length));
  return all.starts_with("Open MPI") ? "openmpi" : all.starts_with("MPICH") ? "mpich" : all.substr(0, all.find('\n'));
}

/// The q-th part of the sorted times; the upper neighbour where it falls between two.
double quantile(std::vector<double> v, double q) {
  std::sort(v.begin(), v.end());
  return v[std::min(v.size() - 1, static_cast<std::size_t>(q * static_cast<double>(v.size())))];
}

std::vector<contest> make(dpsgd::mpi::world& world, const std::string& only, std::size_t most) {
  std::vector<contest> all;
  const dpsgd::auto_allreduce chosen(world);
  const auto asked = [&](const std::string& name) {
    return only.empty() || ("," + only + ",").find("," + name + ",") != std::string::npos;
  };
  const auto enter = [&](const std::string& name, const std::string& picked, std::size_t bytes, const auto& algorithm,
                         bool ordinary = false) {
    if (!asked(name)) return;
    auto bound = std::make_shared<dpsgd::bound_any<float, dpsgd::mpi::world>>(algorithm, world, bytes / sizeof(float));
    all.push_back({name, picked, bytes, [bound](float* v) { bound->all_reduce(v); }, ordinary});
  };
  for (std::size_t bytes = 4; bytes <= most; bytes = bytes < most ? std::min(bytes * 4, most) : most + 1) {
    const auto n = bytes / sizeof(float);
    std::vector<dpsgd::allreduce::schedule> different;
    for (const auto& a : dpsgd::allreduce::all_algorithms) {
      if (!a.is_native() && only.empty()) {
        const auto s = a.derive(world.size());
        const auto same = [&](const dpsgd::allreduce::schedule& other) {
          return s.blocks == other.blocks && s.reduce == other.reduce && s.gather == other.gather;
        };
        if (std::any_of(different.begin(), different.end(), same)) continue;
        different.push_back(s);
      }
      enter(std::string(a.name()), "", bytes, a);
    }
    if (asked("auto") || asked("auto_ordinary")) {
      const auto choice = chosen.choose<float>(world, n);
      if (world.rank() == 0) std::cerr << choice.text() << '\n';
      enter("auto", std::string(choice.picked.name()), bytes, choice.picked);
      enter("auto_ordinary", std::string(choice.picked.name()), bytes, choice.picked, true);
    }
    if (asked("MPI_Allreduce"))
      all.push_back(
          {"MPI_Allreduce", "", bytes,
           [&world, n](float* v) {
             check(MPI_Allreduce(MPI_IN_PLACE, v, static_cast<int>(n), MPI_FLOAT, MPI_SUM, world.communicator()),
                   "MPI_Allreduce");
           },
           true});
  }
  dpsgd::require(!all.empty(), "--only: there is no '", only,
                 "'; there are auto, auto_ordinary, MPI_Allreduce and those of --help in "
                 "explain_allreduce");
  return all;
}

void race(dpsgd::mpi::world& world, std::vector<contest>& all, double seconds, std::size_t most) {
  const auto shared = dpsgd::make_buffer<float>(world, most / sizeof(float));
  const dpsgd::buffer<float> ordinary(most / sizeof(float));
  const auto of = [&](const contest& c) { return c.ordinary ? ordinary.data() : shared.data(); };
  const int size = world.size();
  for (auto& c : all) {  // is it right? (and the connections open, the memory touched)
    float* const v = of(c);
    std::fill_n(v, c.bytes / sizeof(float), static_cast<float>(world.rank() + 1));
    c.all_reduce(v);
    for (std::size_t i = 0; i < c.bytes / sizeof(float); ++i)
      dpsgd::require(v[i] == static_cast<float>(size * (size + 1) / 2), c.algorithm, " is wrong at element ", i);
  }
  for (float* const v : {shared.data(), ordinary.data()}) std::fill_n(v, most / sizeof(float), 0.0f);
  constexpr int turns = 15;
  const double slice = seconds / turns / static_cast<double>(all.size());
  std::vector<std::vector<contest*>> sizes;
  for (auto& c : all) {
    if (sizes.empty() || sizes.back().front()->bytes != c.bytes) sizes.emplace_back();
    sizes.back().push_back(&c);
  }
  std::mt19937 shuffle(1);  // the same on all ranks
  std::vector<double> times;
  const auto run = [&](contest& c, int iterations) {
    times.clear();
    for (int i = 0; i < iterations; ++i) {
      check(MPI_Barrier(world.communicator()), "MPI_Barrier");
      const double start = MPI_Wtime();
      c.all_reduce(of(c));
      times.push_back(MPI_Wtime() - start);
    }
    dpsgd::max(world, std::span<double>(times));
  };
  for (int turn = 0; turn < turns; ++turn) {
    std::shuffle(sizes.begin(), sizes.end(), shuffle);
    for (auto& contests : sizes) {
      double used = 0;
      for (const auto* c : contests) used += c->used;
      if (turn > 0 && used > slice * turn * static_cast<double>(contests.size())) continue;
      std::shuffle(contests.begin(), contests.end(), shuffle);
      std::vector<double> medians;
      double of_mpi = 0;
      for (auto* c : contests) {
        std::vector<double> mine;
        run(*c, 1);  // into the caches; not counted
        // In growing lots, since one iteration that was interrupted says nothing of how many fit in.
        double spent = 0;
        for (int lot = 1; lot == 1 || (spent < slice && lot <= 1024); lot *= 2) {
          run(*c, lot);
          for (const double t : times) spent += t;
          mine.insert(mine.end(), times.begin(), times.end());
        }
        c->used += spent;
        c->times.insert(c->times.end(), mine.begin(), mine.end());
        medians.push_back(quantile(mine, 0.5));
        if (c->algorithm == "MPI_Allreduce") of_mpi = medians.back();
      }
      for (std::size_t i = 0; i < contests.size() && of_mpi > 0; ++i)
        contests[i]->ratios.push_back(medians[i] / of_mpi);
    }
  }
}

}  // namespace

int main(int argc, char** argv) try {
  dpsgd::mpi::world world(argc, argv);
  const auto asked = read(argc, argv);
  auto all = make(world, asked.only, asked.most);
  race(world, all, asked.seconds, asked.most);
  if (world.rank() != 0) return 0;
  std::ofstream file;
  if (!asked.json.empty()) {
    file.open(asked.json);
    file << "[";
  }
  const std::string by = library();
  const char* separator = "\n";
  for (const auto& c : all) {
    char row[512], ratio[32] = "null";
    if (!c.ratios.empty()) std::snprintf(ratio, sizeof ratio, "%.3f", quantile(c.ratios, 0.5));
    const double median = quantile(c.times, 0.5) * 1e6, p99 = quantile(c.times, 0.99) * 1e6;
    std::snprintf(row, sizeof row,
                  R"({"library": "%s", "algorithm": "%s", "ranks": %d, "transport": "%s", "bytes": %zu, )"
                  R"("median_us": %.3f, "p99_us": %.3f, "over_mpi": %s, "iterations": %zu, "picked": "%s"})",
                  by.c_str(), c.algorithm.c_str(), world.size(), asked.transport.c_str(), c.bytes, median, p99, ratio,
                  c.times.size(), c.picked.c_str());
    if (file.is_open()) file << separator << row;
    separator = ",\n";
    std::printf("%-22s %10zu B %12.2f us  p99 %12.2f us  over MPI_Allreduce %s %s\n", c.algorithm.c_str(), c.bytes,
                median, p99, ratio, c.picked.c_str());
  }
  if (file.is_open()) {
    file << "\n]\n";
    file.close();
    dpsgd::require(static_cast<bool>(file), "cannot write ", asked.json);
  }
  return 0;
} catch (const std::exception& e) {
  std::cerr << "allreduce: " << e.what() << '\n';
  return 1;
}
