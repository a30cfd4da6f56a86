/// Where the time of a step goes: every operation of one tile of records by itself, beside what the processor could do.
///
///   build/release/benchmarks/operations [--json FILE]
///
/// Network 16-64-64-1, a tile of 60 records, one core. For each operation: the floating-point operations and the bytes
/// that it must at least move, counted by hand; its time for one record; and its place on the roofline (Williams,
/// Waterman and Patterson 2009): the least time that the measured ceilings allow, over the measured time. The ceilings are
/// measured in the same run: fused multiply-adds, and copying within the first-level cache.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "dpsgd/dpsgd.hpp"
#include "peak.hpp"

namespace {

using namespace dpsgd;
using clock_type = std::chrono::steady_clock;

/// The least of many times of f(), in nanoseconds. (The machine is shared: what others take only adds.)
template <class F>
double nanoseconds(int times, F f) {
  double least = 1e300;
  for (int repeat = 0; repeat < 25; ++repeat) {
    const auto start = clock_type::now();
    for (int i = 0; i < times; ++i) {
      f();
      asm volatile("" : : : "memory");
    }
    least = std::min(least, std::chrono::duration<double, std::nano>(clock_type::now() - start).count() / times);
  }
  return least;
}

struct row {
  std::string name;
  double flops, bytes, ns;  // of one record (of one coordinate, for the last rows)
  bool privacy = false;     // only private training does it
};

constexpr std::size_t records = 60;  // a tile

/// A matrix of small numbers with the backend's rows.
class matrix {
 public:
  matrix(std::size_t rows, std::size_t cols)
      : memory_(rows * cpu::backend::stride(cols)), view_{memory_.data(), rows, cols, cpu::backend::stride(cols)} {
    for (std::size_t i = 0; i < memory_.size(); ++i) memory_[i] = 0.01f * static_cast<float>(i % 37) - 0.18f;
  }
  operator matrix_view<float>() const { return view_; }
  operator matrix_view<const float>() const { return view_; }

 private:
  buffer<float> memory_;
  matrix_view<float> view_;
};

/// The operations on a tile, in the order of a step.
std::vector<row> measure_tile() {
  cpu::backend b;
  const std::vector<tensor_shape> shapes{{64, 16, 1}, {1, 64, 0}, {64, 64, 1}, {1, 64, 0}, {1, 64, 1}, {1, 1, 0}};
  cpu::backend::weights weights(shapes);
  b.weights_changed(weights, std::vector<float>(64 * 16 + 64 + 64 * 64 + 64 + 64 + 1, 0.01f).data());
  const auto w = weights + 0;
  const matrix x0(records, 16), x1(records, 64), x2(records, 64), y(records, 1), label(records, 1);
  const matrix d1(records, 64), d2(records, 64), d3(records, 1);
  const matrix g1(64, 16), g2(64, 64), g3(1, 64), bias64(1, 64), bias1(1, 1);
  buffer<float> memory(2 * records);
  const vector_view<float> norm2{memory.data(), records}, factor{memory.data() + records, records};
  std::fill(memory.begin(), memory.end(), 0.999f);
  flat_clip clip{1.0};
  double limit = 1.0, shrink = 0.9999, unit = 1.0;
  std::size_t n = records;
  asm volatile(""
               : "+m"(clip), "+m"(limit), "+m"(shrink), "+m"(unit),
                 "+m"(n));  // not known to the compiler, as in training
  std::vector<row> rows;
  const auto take = [&](const char* name, double flops, double floats, auto f, bool privacy = false) {
    rows.push_back({name, flops, 4 * floats, nanoseconds(2000, f) / records, privacy});
  };
  const auto view = [](const matrix& m) { return matrix_view<float>(m); };
  take("forward 16 to 64", 2 * 16 * 64, 16 + 64, [&] { b.product(x0, w[0], w[1], x1); });
  take("relu", 64, 2 * 64, [&] { relu{}.forward(b, w, view(x1), view(x1)); });
  take("forward 64 to 64", 2 * 64 * 64, 64 + 64, [&] { b.product(x1, w[2], w[3], x2); });
  take("relu", 64, 2 * 64, [&] { relu{}.forward(b, w, view(x2), view(x2)); });
  take("forward 64 to 1", 2 * 64, 64 + 1, [&] { b.product(x2, w[4], w[5], y); });
  take("loss", 30, 3, [&] { sigmoid_cross_entropy{}.gradient(b, view(y), view(label), view(d3)); });
  take("back 1 to 64", 2 * 64, 1 + 64, [&] { b.product_back(d3, w[4], d2); });
  take("relu's slope", 64, 3 * 64, [&] { relu{}.backward(b, w, view(x2), view(x2), view(d2), view(d2)); });
  take("back 64 to 64", 2 * 64 * 64, 64 + 64, [&] { b.product_back(d2, w[2], d1); });
  take("relu's slope", 64, 3 * 64, [&] { relu{}.backward(b, w, view(x1), view(x1), view(d1), view(d1)); });
  take(
      "norms 64 x 1", 4 * 65, 64 + 1, [&] { b.add_outer_norms(x2, d3, norm2); }, true);
  take(
      "norms 64 x 64", 4 * 128, 64 + 64, [&] { b.add_outer_norms(x1, d2, norm2); }, true);
  take(
      "norms 16 x 64", 4 * 80, 16 + 64, [&] { b.add_outer_norms(x0, d1, norm2); }, true);
  std::fill_n(norm2.data, records, 2.0f);
  take(
      "clip factors", 30, 2,
      [&] {
        b.each(n, detail::clip_factors<flat_clip, vector_view<float>, vector_view<float>>{clip, limit, shrink, norm2,
                                                                                          factor, 0, 1, unit});
      },
      true);
  std::fill_n(factor.data, records, 0.999f);
  take(
      "scale 64", 64, 2 * 64, [&] { b.scale_rows(factor, d1); }, true);
  take(
      "scale 64", 64, 2 * 64, [&] { b.scale_rows(factor, d2); }, true);
  take("gradient 64 x 16", 2 * 16 * 64, 16 + 64, [&] { b.outer_sum(d1, x0, g1); });
  take("bias 64", 64, 64, [&] { b.sum_rows(d1, bias64); });
  take("gradient 64 x 64", 2 * 64 * 64, 64 + 64, [&] { b.outer_sum(d2, x1, g2); });
  take("bias 64", 64, 64, [&] { b.sum_rows(d2, bias64); });
  take("gradient 1 x 64", 2 * 64, 64 + 1, [&] { b.outer_sum(d3, x2, g3); });
  return rows;
}

/// What reads the data set: who joins, and their rows.
std::vector<row> measure_rows() {
  constexpr std::size_t all = 1'200'000, batch = 4096;
  dataset::contents c;
  c.width = 16;
  c.features = float_array(all * c.width), c.labels = float_array(all);
  std::fill_n(c.features.data(), all * c.width, 0.5f), std::fill_n(c.labels.data(), all, 1.0f);
  c.positions = position_set::range(0, all);
  c.universe = c.rows = all;
  const dataset data(std::move(c));
  std::vector<std::uint32_t> drawn;
  std::uint64_t step = 0;
  const poisson_sampling sampling{static_cast<double>(batch) / all};
  const auto draw = [&] { sampling.draw({random_key::from_seed(1), domain::sampling, ++step, 0}, data, drawn); };
  const double sample = nanoseconds(20, draw) / batch;
  const cpu::backend b;
  const matrix tile(records, 16), labels(records, 1);
  const double both = nanoseconds(20, [&] {
    draw();
    for (std::size_t first = 0; first + records <= drawn.size(); first += records) {
      const vector_view<const std::uint32_t> rows{drawn.data() + first, records};
      b.gather_rows(data.features(), rows, tile);
      b.gather_rows({data.labels().data(), all, 1, 1}, rows, labels);
    }
  });
  return {{"sample, a record", 0, 0, sample}, {"gather from 77 MB", 0, 4 * 2 * 17, both / batch - sample}};
}

/// What is done once a step for every coordinate.
row measure_release() {
  constexpr std::size_t size = 5 * 1024;
  buffer<float> sum(size), parameters(size), moment(size);
  sgd plain;
  const auto rule = plain.rule(step_facts{1, 0.1, 1.0});
  std::uint64_t step = 0;
  const double ns = nanoseconds(100, [&] {
    release(gaussian_noise{1.0}, {random_key::from_seed(1), domain::noise, ++step, 0}, 1.0, 256.0, rule, 0, size,
            sum.data(), parameters.data(), std::array{moment.data()});
  });
  return {"noise and sgd, a coordinate", 0, 4 * 3, ns / size, true};
}

/// Bytes read and written a nanosecond by a copy of 16 KiB.
double measure_copy() {
  buffer<float> from(2048), to(2048);
  const double ns = nanoseconds(20'000, [&] {
    for (std::size_t i = 0; i < from.size(); i += cpu::lanes) cpu::store(to.data() + i, cpu::load(from.data() + i));
  });
  return 2.0 * 4 * static_cast<double>(from.size()) / ns;
}

}  // namespace

int main(int argc, char** argv) {
  std::string json;
  for (int i = 1; i < argc; ++i)
    if (std::string(argv[i]) == "--json" && i + 1 < argc) json = argv[++i];
    else return std::cerr << "operations: only --json FILE is known, not " << argv[i] << '\n', 1;

  const double peak = measure_peak(), copy = measure_copy();
  auto rows = measure_tile();
  for (auto& r : measure_rows()) rows.push_back(r);
  rows.push_back(measure_release());

  std::printf("ceilings: %.0f GFLOP/s, %.0f GB/s within the first-level cache\n\n", peak, copy);
  std::printf("| one record | FLOPs | bytes | ns | of the roofline | |\n|---|---|---|---|---|---|\n");
  nlohmann::ordered_json out;
  out["fma_peak_gflops"] = peak, out["copy_gb_per_s"] = copy;
  for (const auto& r : rows) {
    const double least = std::max(r.flops / peak, r.bytes / copy);
    std::printf("| %s | %.0f | %.0f | %.2f | ", r.name.c_str(), r.flops, r.bytes, r.ns);
    if (r.flops > 0) std::printf("%.2f", least / r.ns);
    std::printf(" | %s |\n", r.privacy ? "privacy" : "");
    out["operations"].push_back({{"name", r.name},
                                 {"flops", r.flops},
                                 {"bytes", r.bytes},
                                 {"ns", r.ns},
                                 {"roofline", least / r.ns},
                                 {"privacy", r.privacy}});
  }
  if (!json.empty() && !(std::ofstream(json) << out.dump(2) << '\n'))
    return std::cerr << json << ": can't be written\n", 1;
}
