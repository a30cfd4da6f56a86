/// What training costs: the price of privacy over the same trainer without it, its share of the processor's peak, an
/// epoch of 1.2 million records, reading them, and memory. Prints a table; --json FILE writes every repeat.
///
///   build/release/benchmarks/training [--json FILE] [--repeats N] [--records N]
///
/// Ratios are measured pairwise in one run, A B A B, because the machine is shared: the ratio of a pair that ran side
/// by side is steady where the times are not. What is reported is the median. It starts its own mpirun for what needs
/// one.
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "dpsgd/dpsgd.hpp"
#include "dpsgd/json.hpp"
#include "dpsgd/mpi.hpp"
#include "dpsgd/train/journal.hpp"
#include "peak.hpp"

namespace {

using namespace dpsgd;
using clock_type = std::chrono::steady_clock;

double seconds_since(clock_type::time_point start) {
  return std::chrono::duration<double>(clock_type::now() - start).count();
}
double median(std::vector<double> v) {
  std::sort(v.begin(), v.end());
  return v.empty() ? 0 : (v[v.size() / 2] + v[(v.size() - 1) / 2]) / 2;
}

const std::vector<std::size_t> widths{16, 64, 64, 1};

/// Floating-point operations of one example's forward pass, weight gradients and input gradients, as the mathematics
/// has them.
double flops_per_example() {
  double total = 0;
  for (std::size_t i = 0; i + 1 < widths.size(); ++i)
    total += 2.0 * static_cast<double>(widths[i] * widths[i + 1]) * (i == 0 ? 2 : 3);
  return total;
}

/// `records` rows of 16 uniform features with labels of a noisy line; in place, so that no second copy is made.
dataset make_matrix(std::size_t records) {
  dataset::contents c;
  c.width = widths.front();
  c.features = float_array(records * c.width), c.labels = float_array(records);
  random_words words({random_key::from_seed(1), domain::user, 0, 0});
  for (std::size_t i = 0; i < records; ++i) {
    float side = 0;
    for (std::size_t j = 0; j < c.width; j += 2) {
      const auto bits = words();
      c.features.data()[i * c.width + j] = static_cast<float>(static_cast<std::int32_t>(bits)) * 0x1p-31f;
      c.features.data()[i * c.width + j + 1] = static_cast<float>(static_cast<std::int32_t>(bits >> 32)) * 0x1p-31f;
      side += c.features.data()[i * c.width + j] - c.features.data()[i * c.width + j + 1];
    }
    c.labels.data()[i] = side > 0 ? 1.0f : 0.0f;
  }
  c.positions = position_set::range(0, records);
  c.universe = c.rows = records;
  return dataset(std::move(c));
}

/// Seconds a step of one core, over `steps` steps of about `batch` records.
template <class Clip, class Noise, class Data, class Sampling = poisson_sampling, class Accountant = pld_accountant>
double seconds_a_step(const Data& data, double batch, std::uint64_t steps, const Clip& clip, const Noise& noise,
                      std::uint64_t seed, Sampling sampling = {}, const Accountant& accountant = {}) {
  mlp model(widths);
  sampling.rate = batch / static_cast<double>(data.all());
  trainer t{clip, noise, sampling, accountant};
  // A seed, so that both sides draw the same batches. The noise is the same ChaCha20 with any key.
  const auto report = t.fit(model, data, {.steps = steps, .learning_rate = 0.1, .delta = 1e-7, .insecure_seed = seed});
  return report.seconds / static_cast<double>(steps);
}

struct step_times {
  std::vector<double> tax, plain_us, private_us, share;
};

step_times measure_steps(const dataset& data, double batch, int repeats) {
  step_times out;
  const auto steps = static_cast<std::uint64_t>(std::max(40.0, 400'000 / batch));
  for (int i = 0; i < repeats; ++i) {
    const auto seed = static_cast<std::uint64_t>(i);
    const double peak = measure_peak();
    const double plain = seconds_a_step(data, batch, steps, no_clip{}, no_noise{}, seed);
    const double with = seconds_a_step(data, batch, steps, flat_clip{1.0}, gaussian_noise{1.0}, seed);
    out.plain_us.push_back(plain * 1e6), out.private_us.push_back(with * 1e6);
    out.tax.push_back(with / plain);
    out.share.push_back(batch * flops_per_example() / plain / 1e9 / peak);
  }
  return out;
}

/// The exact step over the default private one, pairwise.
std::vector<double> measure_exact(const dataset& data, double batch, int repeats) {
  std::vector<double> ratio;
  for (int i = 0; i < repeats; ++i) {
    const auto seed = static_cast<std::uint64_t>(i);
    const double with = seconds_a_step(data, batch, 40, flat_clip{1.0}, gaussian_noise{1.0}, seed);
    ratio.push_back(seconds_a_step(data, batch, 40, flat_clip{1.0}, discrete_gaussian_noise{1.0}, seed,
                                   exact_poisson_sampling{}, rdp_accountant{}) /
                    with);
  }
  return ratio;
}

/// One private epoch at batch 256: ceil(N/256) Poisson steps with sampling, and a ledger on the disk.
template <class World>
double epoch_seconds(World& world, const dataset& mine) {
  const auto all = static_cast<double>(mine.all());
  const auto steps = static_cast<std::uint64_t>(std::ceil(all / 256));
  const auto file =
      std::filesystem::temp_directory_path() / ("dpsgd-benchmark-" + std::to_string(::getpid()) + ".ledger");
  std::optional<ledger> book;
  journal keep;
  if (world.rank() == 0) keep.keep(book.emplace(file, mine.digest().hex(), mine.universe()));
  mlp model(widths);
  trainer t{world, flat_clip{1.0}, gaussian_noise{1.0}, poisson_sampling{256 / all}, allreduce::circulant{}};
  barrier(world);
  const auto report = t.fit(model, mine, {.steps = steps, .learning_rate = 0.1, .delta = 1e-7, .journal = &keep});
  if (world.rank() == 0) std::filesystem::remove(file);
  return report.seconds;
}

/// The peak resident size of this process, in MiB.
double peak_rss() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_maxrss) / 1024;
}

/// Under mpirun: prints one line "result: NUMBER ..." from rank 0.
int work(int argc, char** argv, const std::string& what, std::size_t records, double batch) {
  mpi::world world(argc, argv);
  double result = 0;
  if (what == "empty") {
    result = max(world, peak_rss());
  } else {
    // Each rank makes and holds its own share alone; the positions are those of the whole.
    const auto n = static_cast<std::size_t>(world.size()), me = static_cast<std::size_t>(world.rank());
    const std::size_t first = records * me / n, last = records * (me + 1) / n;
    dataset::contents c;
    c.width = widths.front();
    c.features = float_array((last - first) * c.width), c.labels = float_array(last - first);
    random_words words({random_key::from_seed(me), domain::user, 0, 0});
    for (std::size_t i = 0; i < (last - first) * c.width; ++i)
      c.features.data()[i] = static_cast<float>(2 * words.uniform() - 1);
    for (std::size_t i = 0; i < last - first; ++i)
      c.labels.data()[i] = c.features.data()[i * c.width] > 0 ? 1.0f : 0.0f;
    c.positions = position_set::range(first, last - first);
    c.universe = records, c.first = first, c.rows = last - first;
    const dataset mine(std::move(c));
    if (what == "epoch") result = epoch_seconds(world, mine);
    if (what == "memory") {
      mlp model(widths);
      trainer t{world, flat_clip{1.0}, gaussian_noise{1.0}, poisson_sampling{batch / static_cast<double>(records)}};
      t.fit(model, mine, {.steps = 20, .delta = 1e-7});
      const double matrix = static_cast<double>((last - first) * (widths.front() + 1) * sizeof(float)) / (1 << 20);
      result = max(world, peak_rss() - matrix);
    }
  }
  if (world.rank() == 0) std::printf("result: %.9g\n", result);
  return 0;
}

/// Runs this program under mpirun on 2 ranks; the number that it prints.
double under_mpirun(const std::string& arguments) {
  const std::string self = std::filesystem::read_symlink("/proc/self/exe");
  const std::string command =
      "OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1 OMP_NUM_THREADS=1 "
      "mpirun -n 2 '" +
      self + "' " + arguments;
  FILE* pipe = ::popen(command.c_str(), "r");
  require(pipe != nullptr, "cannot start mpirun");
  double result = -1;
  char line[256];
  while (std::fgets(line, sizeof line, pipe)) std::sscanf(line, "result: %lf", &result);
  require(::pclose(pipe) == 0 && result >= 0, "failed: ", command);
  return result;
}

struct read_times {
  std::vector<double> seconds;
  double peak_extra_mib = 0;
};

/// Reads the CSV into the float matrix on 2 threads, in a child process each time, so that its peak memory is its own.
read_times measure_reading(const std::string& csv, const std::string& schema_file, int repeats) {
  read_times out;
  for (int i = 0; i < repeats; ++i) {
    int ends[2];
    require(::pipe(ends) == 0, "no pipe");
    const pid_t child = ::fork();
    if (child == 0) {
      const double before = peak_rss();
      const auto columns = read_schema(schema_file);
      const auto start = clock_type::now();
      const auto data = read_csv(csv, columns, {.threads = 2});
      const double took = seconds_since(start);
      const double matrix = static_cast<double>(data.records() * (data.width() + 1) * sizeof(float)) / (1 << 20);
      const double answer[2] = {took, peak_rss() - before - matrix};
      ::_exit(::write(ends[1], answer, sizeof answer) == sizeof answer ? 0 : 1);
    }
    double answer[2] = {-1, 0};
    ::close(ends[1]);
    const bool got = ::read(ends[0], answer, sizeof answer) == sizeof answer;
    ::close(ends[0]);
    ::waitpid(child, nullptr, 0);
    require(got, "reading ", csv, " failed");
    out.seconds.push_back(answer[0]);
    out.peak_extra_mib = std::max(out.peak_extra_mib, answer[1]);
  }
  return out;
}

}  // namespace

int main(int argc, char** argv) try {
  std::map<std::string, std::string> options{
      {"--json", ""}, {"--repeats", "9"}, {"--records", "1200000"}, {"--work", ""}, {"--batch", "0"}};
  for (int i = 1; i < argc; i += 2) {
    if (!options.count(argv[i]) || i + 1 == argc) {
      std::cerr << "usage: training [--json FILE] [--repeats N] [--records N]\n";
      return 2;
    }
    options[argv[i]] = argv[i + 1];
  }
  const auto records = static_cast<std::size_t>(std::stoul(options["--records"]));
  const int repeats = std::stoi(options["--repeats"]);
  if (!options["--work"].empty()) return work(argc, argv, options["--work"], records, std::stod(options["--batch"]));

  nlohmann::ordered_json out;
  out["machine"] = {{"cores", std::thread::hardware_concurrency()}, {"lanes", cpu::lanes}, {"compiler", __VERSION__}};
  out["command"] = std::vector<std::string>(argv, argv + argc);
  out["model"] = "16-64-64-1";
  out["records"] = records;
  const auto report = [&](const std::string& key, double value, const char* unit, const nlohmann::ordered_json& all) {
    out[key] = value;
    out["repeats"][key] = all;
    std::printf("%-26s %10.4g %s\n", key.c_str(), value, unit);
    std::fflush(stdout);
  };

  {
    const auto data = make_matrix(records);
    std::vector<double> peaks;
    for (int i = 0; i < repeats; ++i) peaks.push_back(measure_peak());
    report("fma_peak_gflops", median(peaks), "GFLOP/s, one core", peaks);
    for (const int batch : {256, 1024, 2048, 4096, 16384}) {
      const auto t = measure_steps(data, batch, repeats);
      const auto name = std::to_string(batch);
      report("dp_tax_" + name, median(t.tax), "private step / plain step", t.tax);
      report("share_of_peak_" + name, median(t.share), "of the FMA peak, the plain step", t.share);
      report("step_us_plain_" + name, median(t.plain_us), "us, one core", t.plain_us);
      report("step_us_private_" + name, median(t.private_us), "us, one core", t.private_us);
    }
    const auto exact = measure_exact(data, 4096, repeats);
    report("exact_over_default_4096", median(exact), "exact step / default private step", exact);
    std::vector<double> two, one;
    for (int i = 0; i < repeats; ++i) {
      threads::run(1, [&](auto& world) { one.push_back(epoch_seconds(world, data)); });
      double seconds = 0;
      threads::run(2, [&](auto& world) {
        const double s = epoch_seconds(world, shard(data, world));
        if (world.rank() == 0) seconds = s;
      });
      two.push_back(seconds);
    }
    report("epoch_seconds_256_one_core", median(one), "s, private, 1 rank", one);
    report("epoch_seconds_256_threads", median(two), "s, private, 2 ranks as threads", two);
  }
  const std::string size = " --records " + options["--records"];
  std::vector<double> epochs;
  for (int i = 0; i < repeats; ++i) epochs.push_back(under_mpirun("--work epoch" + size));
  report("epoch_seconds_256", median(epochs), "s, private, 2 MPI ranks, ledger inside", epochs);

  const double empty = under_mpirun("--work empty");
  report("empty_mpi_rss_mib", empty, "MiB, an MPI program that does nothing", empty);
  for (const int batch : {256, 4096, 16384}) {
    const double extra = under_mpirun("--work memory --batch " + std::to_string(batch) + size) - empty;
    report("peak_extra_mib_" + std::to_string(batch), extra,
           "MiB a rank: max RSS less the matrix, less an empty MPI program", extra);
  }

  const auto build = std::filesystem::path(DPSGD_BUILD_DIR);  // where examples/run.sh puts its records, too
  const auto csv = build.parent_path() / ("pums-" + std::to_string(records) + ".csv");
  if (!std::filesystem::exists(csv)) {
    const std::string command = "'" + (build / "examples/make_pums").string() + "' --rows " + options["--records"] +
                                " --seed 1 --output '" + csv.string() + "'";
    require(std::system(command.c_str()) == 0, "failed: ", command, "; build the examples first");
  }
  const auto reading =
      measure_reading(csv.string(), std::string(DPSGD_SOURCE_DIR) + "/examples/pums.schema.json", repeats);
  report("read_seconds", median(reading.seconds), "s, the CSV into the float matrix, 2 threads", reading.seconds);
  report("read_peak_extra_mib", reading.peak_extra_mib, "MiB, the reader's own, beside the matrix",
         reading.peak_extra_mib);

  if (!options["--json"].empty()) write_durably(options["--json"], out.dump(2) + "\n");
} catch (const std::exception& e) {
  std::cerr << "training: " << e.what() << '\n';
  return 1;
}
