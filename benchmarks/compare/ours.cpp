/// Our side of the comparison (benchmarks/compare/run.sh): does one piece of work as often as it is told to.
///
///   ours training   --folder DIR --widths 16-64-64-1 --records N --batch B --threads T --private 1 --epoch 0 --draws 10
///                   --output FILES
///   ours reading    --csv FILE --schema FILE --threads T --output FILE
///   ours accounting --accountant pld --rate q --noise z --steps T --delta d [--target EPSILON: finds the noise]
///
/// It obeys words on standard input, and answers each by one line of JSON, as every peer does (peer.py):
///   check      the answer of the work, to be compared with the peer's
///   prepare    warms up, and finds how many repetitions make a time worth reading
///   time       {"seconds": of one repetition}
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iostream>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "dpsgd/accounting/calibrate.hpp"
#include "dpsgd/accounting/rdp.hpp"
#include "dpsgd/dpsgd.hpp"
#include "dpsgd/json.hpp"

namespace {

using namespace dpsgd;
using clock_type = std::chrono::steady_clock;
double seconds_since(clock_type::time_point start) {
  return std::chrono::duration<double>(clock_type::now() - start).count();
}

/// What stands behind the name of the part: --name value.
struct settings {
  std::map<std::string, std::string> said;
  const std::string& operator[](const std::string& name) const {
    const auto found = said.find(name);
    require(found != said.end(), "--", name, " is missing");
    return found->second;
  }
  double number(const std::string& name) const { return std::stod((*this)[name]); }
  std::uint64_t count(const std::string& name) const { return std::stoull((*this)[name]); }
};

template <class T>
std::vector<T> read_file(const std::filesystem::path& file) {
  std::ifstream in(file, std::ios::binary);
  require(in.good(), "cannot read ", file.string());
  std::vector<T> values(std::filesystem::file_size(file) / sizeof(T));
  in.read(reinterpret_cast<char*>(values.data()), static_cast<std::streamsize>(values.size() * sizeof(T)));
  require(in.good(), "cannot read ", file.string());
  return values;
}

void write_floats(std::ofstream& out, const float* values, std::size_t n) {
  out.write(reinterpret_cast<const char*>(values), static_cast<std::streamsize>(n * sizeof(float)));
}
void write_file(const std::string& file, const std::vector<float>& values) {
  std::ofstream out(file, std::ios::binary);
  write_floats(out, values.data(), values.size());
  require(out.flush().good(), "cannot write ", file);
}

/// A piece of work: its answer as JSON, and the seconds that so many repetitions took.
struct work {
  std::function<std::string()> check;
  std::function<double(std::uint64_t)> repeat;
};

/// DP-SGD with clip bound 1 and noise multiplier 1 (or neither), plain SGD, on files that the peers read too:
/// weights.f32 in the parameters' order, features.f32 (records, inputs), labels.f32, rows-B.u32: whole batches of
/// record numbers, taken one after the other.
class training {
 public:
  explicit training(const settings& s)
      : folder_(s["folder"]),
        output_(s["output"]),
        batch_(s.count("batch")),
        draws_(s.count("draws")),
        ranks_(static_cast<int>(s.count("threads"))),
        private_(s.count("private") == 1),
        epoch_(s.count("epoch") == 1) {
    std::stringstream words(s["widths"]);
    for (std::string word; std::getline(words, word, '-');) widths_.push_back(std::stoul(word));
    const std::filesystem::path folder = folder_;
    start_ = read_file<float>(folder / "weights.f32");
    features_ = read_file<float>(folder / "features.f32");
    labels_ = read_file<float>(folder / "labels.f32");
    rows_ = read_file<std::uint32_t>(folder / ("rows-" + s["batch"] + ".u32"));
    const bool two = widths_.back() == 1;
    data_ = dataset::view(features_, widths_.front(), labels_, two ? label_kind::two_classes : label_kind::classes,
                          two ? 2 : static_cast<int>(widths_.back()));
    require(start_.size() == mlp(widths_).parameters().size(), "weights.f32 does not belong to these widths");
    require(rows_.size() >= batch_ && data_.records() == s.count("records"), "the files are not those of this point");
  }

  /// A learning rate of B and a division by B: a step moves the weights by the sum itself.
  std::string check() {
    const auto sum = moved(0);
    write_file(output_ + ".sum.f32", sum);
    if (!private_) return text("{\"sum\": \"", output_, ".sum.f32\"}");
    std::vector<float> noise;
    for (std::uint64_t draw = 0; draw < draws_; ++draw) {
      const auto noised = moved(1);
      for (std::size_t i = 0; i < sum.size(); ++i) noise.push_back(noised[i] - sum[i]);
    }
    write_file(output_ + ".noise.f32", noise);
    return text("{\"sum\": \"", output_, ".sum.f32\", \"noise\": \"", output_, ".noise.f32\"}");
  }

  double repeat(std::uint64_t n) {
    if (!epoch_) return steps(start_, n, 0.01, 1, false);
    double seconds = 0;
    for (std::uint64_t i = 0; i < n; ++i)
      seconds += private_ ? epoch(flat_clip{1.0}, gaussian_noise{1.0}) : epoch(no_clip{}, no_noise{});
    return seconds;
  }

 private:
  /// By how much the first step moves the weights.
  std::vector<float> moved(double multiplier) {
    auto weights = start_;
    steps(weights, 1, static_cast<double>(batch_), multiplier);
    for (std::size_t i = 0; i < weights.size(); ++i) weights[i] = start_[i] - weights[i];
    return weights;
  }

  /// The trainer as README.md shows it: Poisson sampling, and a fresh key for the noise.
  template <class Clip, class Noise>
  double epoch(const Clip& clip, const Noise& noise) {
    const auto n = static_cast<double>(data_.records());
    const auto count = static_cast<std::uint64_t>(std::ceil(n / static_cast<double>(batch_)));
    double seconds = 0;
    threads::run(ranks_, [&](auto& world) {
      mlp model(widths_);
      trainer t{world, clip, noise, poisson_sampling{static_cast<double>(batch_) / n}};
      const auto report = t.fit(model, shard(data_, world), {.steps = count, .learning_rate = 0.01, .delta = 1e-7});
      if (world.rank() == 0) seconds = report.seconds;
    });
    return seconds;
  }

  double steps(std::vector<float>& weights, std::uint64_t n, double rate, double multiplier, bool keep = true) {
    if (private_) return steps(weights, n, rate, flat_clip{1.0}, gaussian_noise{multiplier}, 1.0, keep);
    return steps(weights, n, rate, no_clip{}, no_noise{}, 0.0, keep);
  }

  /// n steps of every rank, from `weights` on; rank r has a share of every batch. Returns the seconds of the steps.
  template <class Clip, class Noise>
  double steps(std::vector<float>& weights, std::uint64_t n, double rate, const Clip& clip, const Noise& noise,
               double sensitivity, bool keep) {
    double seconds = 0;
    const auto key = random_key::fresh();
    threads::run(ranks_, [&](auto& world) {
      const mlp model(widths_);
      cpu::backend backend;
      const auto size = weights.size();
      const auto ranks = static_cast<std::size_t>(world.size()), me = static_cast<std::size_t>(world.rank());
      const std::size_t first = batch_ * me / ranks, count = batch_ * (me + 1) / ranks - first;
      clipped_sum_workspace<cpu::backend, mlp> clipped_sum(backend, model, tile_rows<cpu::backend>(model));
      cpu::backend::weights device_weights(model.shapes());
      auto vector = bind<float>(allreduce::circulant{}, world, size);
      buffer<float> sum(size), parameters(size), moment(size);
      std::copy(weights.begin(), weights.end(), parameters.data());
      backend.weights_changed(device_weights, parameters.data());
      double not_finite = 0;
      barrier(world);
      const auto start = clock_type::now();
      for (std::uint64_t t = 0; t < n; ++t) {
        const auto batch = t % (rows_.size() / batch_) * batch_;
        clipped_sum(device_weights, data_.features(), {labels_.data(), labels_.size(), 1, 1},
                    {rows_.data() + batch + first, count}, clip, sum.data(), &not_finite);
        vector.reduce(sum.data());
        const auto mine = vector.mine();
        release(noise, {key, domain::noise, t, 0}, sensitivity, static_cast<double>(batch_),
                sgd{}.rule({t + 1, rate, 0}), mine.first, mine.count, sum.data(), parameters.data(),
                std::array<float*, 1>{moment.data()});
        vector.gather(parameters.data());
        backend.weights_changed(device_weights, parameters.data());
      }
      barrier(world);
      if (world.rank() != 0) return;
      seconds = seconds_since(start);
      if (keep) std::copy_n(parameters.data(), size, weights.begin());
    });
    return seconds;
  }

  std::string folder_, output_;
  std::vector<std::size_t> widths_;
  std::uint64_t batch_, draws_;
  int ranks_;
  bool private_, epoch_;
  std::vector<float> start_, features_, labels_;
  std::vector<std::uint32_t> rows_;
  dataset data_;
};

/// The CSV into the float matrix; rows that do not fit the schema are dropped.
class reading {
 public:
  explicit reading(const settings& s)
      : csv_(s["csv"]),
        output_(s["output"]),
        schema_(read_schema(s["schema"])),
        threads_(static_cast<int>(s.count("threads"))) {}

  dataset read() const { return read_csv(csv_, schema_, {.threads = threads_, .bad_rows = bad_rows::drop}); }

  std::string check() const {
    const auto data = read();
    std::ofstream out(output_, std::ios::binary);
    write_floats(out, data.features().data, data.records() * data.width());
    write_floats(out, data.labels().data(), data.records());
    require(out.flush().good(), "cannot write ", output_);
    return text("{\"rows\": ", data.records(), ", \"columns\": ", data.width(), ", \"file\": \"", output_, "\"}");
  }

  double repeat(std::uint64_t n) const {
    double seconds = 0;
    for (std::uint64_t i = 0; i < n; ++i) {
      const auto start = clock_type::now();
      const auto data = read();
      seconds += seconds_since(start);
    }
    return seconds;
  }

 private:
  std::string csv_, output_;
  schema schema_;
  int threads_;
};

/// Epsilon after so many steps; or, given a target, the least noise that keeps it.
template <class Accountant>
double account(const settings& s) {
  const auto steps = s.count("steps");
  const double rate = s.number("rate"), delta = s.number("delta");
  const auto event = [&](double z) { return poisson_sampled{rate, gaussian_event<zero_out>{z}}; };
  if (s.said.count("target"))
    return smallest_multiplier<Accountant>(privacy_target{s.number("target"), delta}, steps, event);
  Accountant spent;
  spent.add(event(s.number("noise")), steps);
  return spent.spent(delta).epsilon;
}

work make_work(const std::string& part, const settings& s) {
  if (part == "training") {
    const auto w = std::make_shared<training>(s);
    return {[w] { return w->check(); }, [w](std::uint64_t n) { return w->repeat(n); }};
  }
  if (part == "reading") {
    const auto w = std::make_shared<reading>(s);
    return {[w] { return w->check(); }, [w](std::uint64_t n) { return w->repeat(n); }};
  }
  require(part == "accounting", "unknown part ", part);
  const auto answer = s["accountant"] == "rdp" ? account<rdp_accountant> : account<pld_accountant>;
  return {[=] {
            char number[32];
            std::snprintf(number, sizeof number, "%.17g", answer(s));
            return std::string("{\"value\": ") + number + "}";
          },
          [=](std::uint64_t n) {
            const auto start = clock_type::now();
            for (std::uint64_t i = 0; i < n; ++i) answer(s);
            return seconds_since(start);
          }};
}

}  // namespace

int main(int argc, char** argv) try {
  require(argc >= 2, "usage: ours training|reading|accounting --name value ... (see the top of ours.cpp)");
  settings s;
  double enough = 0.2;  // seconds that make a time worth reading
  for (int i = 2; i + 1 < argc; i += 2) s.said[argv[i] + 2] = argv[i + 1];
  if (s.said.count("enough")) enough = s.number("enough");
  auto job = make_work(argv[1], s);
  std::uint64_t n = 1;
  for (std::string word; std::cin >> word;) {
    std::string answer;
    if (word == "check") {
      answer = job.check();
    } else if (word == "prepare") {
      const double once = job.repeat(1);
      while (once < 20 * enough && job.repeat(n) < enough && n < (std::uint64_t{1} << 30)) n *= 2;
      answer = text("{\"first\": ", once, ", \"repetitions\": ", n, "}");
    } else if (word == "time") {
      char line[96];
      std::snprintf(line, sizeof line, "{\"seconds\": %.9g}", job.repeat(n) / static_cast<double>(n));
      answer = line;
    } else {
      fail("unknown word ", word, "; expected check, prepare or time");
    }
    std::cout << answer << std::endl;
  }
} catch (const std::exception& e) {
  std::cerr << "ours: " << e.what() << '\n';
  return 1;
}
