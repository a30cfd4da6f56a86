/// One step of DP-SGD on a few records, taken apart: what examples/explain_step.cpp shows. It is made of the library's
/// own pieces, in the order of train/run.hpp, so that what is shown is what the trainer does (a test compares the
/// parameters bit for bit).
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "dpsgd/allreduce/all.hpp"
#include "dpsgd/comm/threads.hpp"
#include "dpsgd/dpsgd.hpp"
#include "pums.hpp"

namespace explain {

/// What somebody may choose.
struct settings {
  std::uint64_t records = 8;
  std::size_t hidden = 2;  // units; 0: no hidden layer
  int ranks = 3;
  double clip = 1, noise_multiplier = 1, batch_size = 4, learning_rate = 0.5, delta = 1e-2;
  std::string allreduce = "circulant";
  std::uint64_t seed = 1;  // of records, initialisation, sampling and noise

  double rate() const { return batch_size / static_cast<double>(records); }
};

/// The columns that are shown; few, so that the vector fits a screen.
inline dpsgd::schema columns() {
  return dpsgd::schema{}
      .label("employed")
      .numeric("age", 16, 99)
      .numeric("income", -20'000, 1'000'000, dpsgd::scale::signed_log)
      .numeric("educ", 1, 16)
      .binary("sex")
      .binary("married");
}

/// The first `records` synthetic people of this seed, as make_pums writes them.
inline std::string census(const settings& s) {
  std::string csv = pums::header();
  pums::summary ignored;
  pums::append_records(csv, dpsgd::random_key::from_seed(s.seed), 0, s.records, 0, ignored);
  return csv;
}

inline dpsgd::mlp make_model(const settings& s) {
  std::vector<std::size_t> widths{columns().width()};
  if (s.hidden > 0) widths.push_back(s.hidden);
  widths.push_back(1);
  return dpsgd::mlp(widths, {.activation = dpsgd::tanh{}, .loss = {}, .seed = s.seed});
}

/// One record. All of it is private.
struct record {
  pums::person person;
  int rank = 0;                                        // that holds it
  bool drawn = false;                                  // joins this step
  double loss = 0, norm = 0, factor = 0, clipped = 0;  // of its gradient: length, what it is multiplied by, length then
};

/// One rank: the coordinates that it owns, and (private) its share of the sum.
struct shard {
  std::size_t first = 0, count = 0;
  std::vector<float> partial;
};

/// The whole step. Each vector has one value for each parameter.
struct step {
  std::vector<record> records;
  std::vector<shard> shards;
  std::vector<std::string> names;  // of the parameters
  std::vector<float> before, sum, noise, gradient, after;
  double deviation = 0;   // of the noise on each coordinate of the sum
  dpsgd::claim claim;     // of one such step, had its key been a secret one
  bool scattered = true;  // else every rank owns everything
};

inline double length(std::span<const float> v) {
  double square = 0;
  for (const double x : v) square += x * x;
  return std::sqrt(square);
}

/// "layer 1: age to unit 0", in the order of the vector that travels.
inline std::vector<std::string> parameter_names(const settings& s) {
  std::vector<std::string> names;
  const auto layer = [&](const std::string& name, const std::vector<std::string>& inputs, std::size_t outputs) {
    for (std::size_t o = 0; o < outputs; ++o)
      for (const auto& in : inputs) names.push_back(name + in + (outputs > 1 ? " to unit " + std::to_string(o) : ""));
    for (std::size_t o = 0; o < outputs; ++o)
      names.push_back(name + "bias" + (outputs > 1 ? " of unit " + std::to_string(o) : ""));
  };
  std::vector<std::string> inputs, units;
  const auto shown = columns();
  for (const auto& c : shown.columns()) inputs.push_back(c.name());
  for (std::size_t u = 0; u < s.hidden; ++u) units.push_back("unit " + std::to_string(u));
  if (s.hidden > 0) layer("layer 1: ", inputs, s.hidden), layer("layer 2: ", units, 1);
  else layer("layer 1: ", inputs, 1);
  return names;
}

/// Takes the step on `s.ranks` ranks, each a thread. Throws dpsgd::error where the trainer would.
inline step take_step(const settings& s) {
  const auto data = dpsgd::parse_csv(census(s), columns());
  const auto begin = make_model(s);
  const std::size_t size = begin.parameters().size();
  const dpsgd::flat_clip clip{.bound = s.clip};
  const dpsgd::gaussian_noise noise{.multiplier = s.noise_multiplier};
  const dpsgd::poisson_sampling sampling{.rate = s.rate()};
  const double sensitivity = clip.sensitivity().value, expected = sampling.expected_batch(data.all());
  const auto key = dpsgd::random_key::from_seed(s.seed);

  step seen;
  seen.records.resize(data.records());
  seen.shards.resize(static_cast<std::size_t>(s.ranks));
  seen.names = parameter_names(s);
  seen.before.assign(begin.parameters().begin(), begin.parameters().end());
  seen.sum.resize(size), seen.noise.resize(size), seen.gradient.resize(size);
  seen.deviation = std::sqrt(noise.variance(sensitivity));

  dpsgd::threads::run(s.ranks, [&](dpsgd::threads::world& world) {
    // Each rank: its records, the model, and the vector that travels: the parameters, then the wish to stop.
    const auto mine = dpsgd::shard(data, world);
    dpsgd::cpu::backend backend;
    auto vector = dpsgd::bind<float>(dpsgd::allreduce::from_name(s.allreduce), world, size + 1);
    dpsgd::buffer<float> sum(size + 1), parameters(size + 1), alone(size);
    std::copy(seen.before.begin(), seen.before.end(), parameters.data());
    dpsgd::cpu::backend::weights weights(begin.shapes());
    backend.weights_changed(weights, parameters.data());
    dpsgd::clipped_sum_workspace<dpsgd::cpu::backend, dpsgd::mlp, dpsgd::ghost_norms> clipped_sum(
        backend, begin, dpsgd::tile_rows<dpsgd::cpu::backend>(begin));
    const auto add_up = [&](std::span<const std::uint32_t> rows, const auto& by, float* to) {
      double not_finite = 0;
      clipped_sum(weights, mine.features(), {mine.labels().data(), mine.labels().size(), 1, 1},
                  {rows.data(), rows.size()}, by, to, &not_finite);
    };

    // Who is drawn; and, for the student alone, each record's gradient by itself, before and after the clip.
    std::vector<std::uint32_t> rows;
    sampling.draw({key, dpsgd::domain::sampling, 0, 0}, mine, rows);
    for (std::uint32_t i = 0; i < mine.records(); ++i) {
      auto& r = seen.records[mine.position(i)];
      r.person = pums::draw(dpsgd::random_key::from_seed(s.seed), mine.position(i));
      r.rank = world.rank();
      r.drawn = std::find(rows.begin(), rows.end(), i) != rows.end();
      add_up({&i, 1}, dpsgd::no_clip{}, alone.data());
      r.norm = length({alone.data(), size});
      add_up({&i, 1}, clip, alone.data());
      r.clipped = length({alone.data(), size});
      r.factor = r.norm > 0 ? r.clipped / r.norm : 1;
    }
    dpsgd::each_output(backend, begin, mine.features(), [&](std::size_t i, std::span<const float> y) {
      seen.records[mine.position(i)].loss = begin.loss().value(y, mine.labels()[i]);
    });

    // The clipped sum of my records; all ranks' sums added up, my shard of them here.
    auto& own = seen.shards[static_cast<std::size_t>(world.rank())];
    add_up(rows, clip, sum.data());
    own.partial.assign(sum.data(), sum.data() + size);
    vector.reduce(sum.data());
    own.first = vector.mine().first;
    own.count = own.first < size ? std::min(own.first + vector.mine().count, size) - own.first : 0;

    // The release of my shard: noise on the sum, the division by the expected batch, the optimizer's step.
    const dpsgd::random_stream stream{key, dpsgd::domain::noise, 0, 0};
    if (vector.scattered() || world.rank() == 0)  // else every rank owns everything
      std::copy_n(sum.data() + own.first, own.count, seen.sum.data() + own.first);
    dpsgd::buffer<float> momentum(size);
    const auto rule = dpsgd::sgd{}.rule({1, s.learning_rate, noise.variance(sensitivity) / (expected * expected)});
    dpsgd::release(noise, stream, sensitivity, expected, rule, own.first, own.count, sum.data(), parameters.data(),
                   std::array{momentum.data()});
    vector.gather(parameters.data());
    if (world.rank() == 0)
      seen.after.assign(parameters.data(), parameters.data() + size), seen.scattered = vector.scattered();
  });

  // The noise once more, to show it.
  for (std::size_t block = 0; block * noise.block_size < size; ++block) {
    alignas(64) float drawn[dpsgd::gaussian_noise::block_size];
    noise.draw({key, dpsgd::domain::noise, 0, 0}, static_cast<std::uint32_t>(block), sensitivity, drawn);
    for (std::size_t i = block * noise.block_size; i < std::min(size, (block + 1) * noise.block_size); ++i)
      seen.noise[i] = drawn[i - block * noise.block_size];
  }
  const auto scale = static_cast<float>(1 / expected);
  for (std::size_t i = 0; i < size; ++i) seen.gradient[i] = (seen.sum[i] + seen.noise[i]) * scale;

  dpsgd::pld_accountant spent;
  const auto event = dpsgd::step_event(clip, noise, sampling);
  spent.add(event, 1);
  seen.claim = dpsgd::make_claim(spent, event, s.delta, {});
  return seen;
}

}  // namespace explain
