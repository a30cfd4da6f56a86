/// The laws of the extension points as checks, for our tests and for your own types. Each throws dpsgd::error that says
/// which law is broken, where and by how much; none needs a test framework.
///
///   dpsgd::testing::check_clip(my_clip{});
///   dpsgd::testing::check_layer(my_layer{}, 7);
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "dpsgd/allreduce/schedule.hpp"
#include "dpsgd/core/buffer.hpp"
#include "dpsgd/core/error.hpp"
#include "dpsgd/core/random.hpp"
#include "dpsgd/cpu/backend.hpp"
#include "dpsgd/nn/layer.hpp"
#include "dpsgd/privacy/clip.hpp"
#include "dpsgd/privacy/noise.hpp"

namespace dpsgd::testing {

/// A clip never lets more through than its sensitivity: norm * factor(norm) <= sensitivity, the factor finite and not
/// negative, for norm 0 and norms from 1e-30 to 1e30. A clip by layer: each of `groups` layers by its own bound, and all
/// bounds together by the sensitivity. A clip with coordinates of its own: gradient and contributions together, in its
/// first state and in those that it comes to by means as large as its sensitivity; and load(k, value(k)) changes nothing.
template <clip_policy Clip>
requires bounded<Clip>
void check_clip(const Clip& clip, std::size_t groups = 3) {
  const auto check = [](double most, auto factor_of, auto added_of) {
    require(most > 0 && std::isfinite(most), "check_clip: the sensitivity must be positive and finite; it is ", most);
    for (double norm = 0; norm < 1e30; norm = norm == 0 ? 1e-30 : norm * 1.01) {
      const double factor = factor_of(norm), added = added_of(norm);
      require(std::isfinite(factor) && factor >= 0, "check_clip: the factor of norm ", norm, " is ", factor);
      require(std::hypot(norm * factor, added) <= most * (1 + 1e-12), "check_clip: a gradient of norm ", norm,
              " keeps norm ", norm * factor,
              added == 0 ? "" : text(" and adds ", added, " to the clip's own coordinates, together"),
              ", more than the sensitivity ", most);
    }
  };
  const auto nothing = [](double) { return 0.0; };
  if constexpr (requires { clip.check(groups); }) clip.check(groups);
  if constexpr (grouped_clip<Clip>) {
    check_group_bounds(clip, groups);
    for (std::size_t g = 0; g < groups; ++g)
      check(
          clip.group_bound(g, groups), [&](double norm) { return clip.factor(norm, g, groups); }, nothing);
  } else if constexpr (clip_with_coordinates<Clip>) {
    auto state = clip;
    for (const int mean : {0, 1, 1, 1, -1, -1, -1, -1, -1, -1, 0}) {
      const double most = state.sensitivity().value;
      check(
          most, [&](double norm) { return state.factor(norm); },
          [&](double norm) {
            double square = 0;
            for (std::size_t k = 0; k < Clip::extra; ++k) square += std::pow(state.contribution(norm, k), 2);
            return std::sqrt(square);
          });
      auto after = state;
      for (std::size_t k = 0; k < Clip::extra; ++k) {
        const double value = state.value(k), next = state.next(k, mean * most);
        after.load(k, value);
        require(after.value(k) == value, "check_clip: load(", k, ", ", value, ") leaves value(", k, ") at ",
                after.value(k));
        require(std::abs(next) <= 3.4e38, "check_clip: next(", k, ", ", mean * most, ") is ", next,
                ", which no float holds");
        after.load(k, static_cast<float>(next));
      }
      state = after;
    }
  } else {
    check(
        clip.sensitivity().value, [&](double norm) { return clip.factor(norm); }, nothing);
  }
}

/// Noise that says how its steps are correlated: each two of the first ten have the covariance that it states. From
/// 400,000 values of each step: a false alarm has a chance below 1e-8 if they are normal and coordinates independent.
template <noise_policy Noise>
requires correlated_over_steps<Noise>
void check_covariance(const Noise& noise, double sensitivity = 2.0) {
  constexpr std::size_t size = Noise::block_size, steps = 10;
  constexpr std::size_t blocks = 400'000 / size;
  std::vector<double> products(steps * steps);
  alignas(64) typename Noise::value drawn[steps][size];
  for (std::uint32_t b = 0; b < blocks; ++b) {
    for (std::size_t s = 0; s < steps; ++s)
      noise.draw({random_key::from_seed(11), domain::noise, s, 0}, b, sensitivity, drawn[s]);
    for (std::size_t s = 0; s < steps; ++s)
      for (std::size_t t = 0; t <= s; ++t)
        for (std::size_t i = 0; i < size; ++i)
          products[s * steps + t] += static_cast<double>(drawn[s][i]) * static_cast<double>(drawn[t][i]);
  }
  const double n = static_cast<double>(blocks * size), unit = unit_of(noise, sensitivity);
  for (std::size_t s = 0; s < steps; ++s)
    for (std::size_t t = 0; t <= s; ++t) {
      const double got = unit * unit * products[s * steps + t] / n, wanted = noise.covariance(sensitivity, s, t);
      const double error =
          std::sqrt((noise.covariance(sensitivity, s, s) * noise.covariance(sensitivity, t, t) + wanted * wanted) / n);
      require(std::abs(got - wanted) <= 7 * error, "check_noise: the covariance of steps ", s, " and ", t, " is ", got,
              ", not ", wanted);
    }
}

/// Noise is a function of (stream, block), has mean 0 and the variance that it states, differs from block to block and
/// key to key, and scales with the sensitivity; two steps share none, or as much as it states (check_covariance). From
/// 1.6 million values: a false alarm has a chance below 1e-8 if values are independent with a kurtosis below 10. It
/// cannot tell good randomness from bad beyond these moments.
template <noise_policy Noise>
void check_noise(const Noise& noise, double sensitivity = 2.0) {
  using value = typename Noise::value;
  constexpr std::size_t size = Noise::block_size;
  // In units of the gradient.
  const auto draw = [&](const random_stream& of, std::uint32_t block, double at_sensitivity, std::vector<double>& to) {
    alignas(64) value drawn[size];
    noise.draw(of, block, at_sensitivity, drawn);
    const double unit = unit_of(noise, at_sensitivity);
    for (std::size_t i = 0; i < size; ++i) to[i] = unit * static_cast<double>(drawn[i]);
  };
  const auto blocks = static_cast<std::uint32_t>(1'600'000 / size);
  const random_stream stream{random_key::from_seed(7), domain::noise, 3, 0};
  std::vector<double> out(size), again(size), twice(size);
  double sum = 0, squares = 0, lag = 0, other_step = 0, other_key = 0, last = 0;
  random_stream next_step = stream, next_key = stream;
  next_step.step = 4;
  next_key.key = random_key::from_seed(8);
  std::vector<double> step(size), key(size);
  for (std::uint32_t b = 0; b < blocks; ++b) {
    draw(stream, b, sensitivity, out);
    draw(stream, b, sensitivity, again);
    draw(stream, b, 2 * sensitivity, twice);
    draw(next_step, b, sensitivity, step);
    draw(next_key, b, sensitivity, key);
    for (std::size_t i = 0; i < size; ++i) {
      require(out[i] == again[i], "check_noise: block ", b, " drawn twice differs at ", i);
      require(std::abs(twice[i] - 2 * out[i]) <= 1e-5 * std::abs(twice[i]),
              "check_noise: noise does not grow with the sensitivity");
      sum += out[i], squares += out[i] * out[i];
      lag += last * out[i], last = out[i];
      other_step += step[i] * out[i], other_key += key[i] * out[i];
    }
  }
  const double n = static_cast<double>(blocks) * size, variance = variance_of(noise, sensitivity, stream.step);
  const double band = 6 / std::sqrt(n);  // six standard errors
  require(std::abs(sum / n) <= band * std::sqrt(variance), "check_noise: the mean is ", sum / n);
  require(std::abs(squares / n - variance) <= 3 * band * variance, "check_noise: the variance is ", squares / n,
          ", not ", variance);
  require(std::abs(lag / n) <= band * variance, "check_noise: neighbouring coordinates are correlated");
  if constexpr (correlated_over_steps<Noise>) check_covariance(noise, sensitivity);
  else require(std::abs(other_step / n) <= band * variance, "check_noise: two steps share noise");
  require(std::abs(other_key / n) <= band * variance, "check_noise: two keys share noise");
}

/// An allreduce algorithm is right for every number of ranks from 1 to `most`.
template <class Algorithm>
void check_allreduce(const Algorithm& algorithm, int most = 64) {
  for (int size = 1; size <= most; ++size) {
    if constexpr (requires { algorithm.serves(size); })
      if (!algorithm.serves(size)) continue;
    const auto v = allreduce::verify(algorithm, size);
    require(static_cast<bool>(v), "check_allreduce: wrong for ", size, " members: ", describe(v.flaw), " (round ",
            v.round, ", rank ", v.rank, ", block ", v.block, ")");
  }
}

/// A layer's mathematics: dx and the gradients agree with finite differences, the gradient of a batch is the sum of its
/// rows' (so examples do not mix), ghost norms agree with the materialised ones, and a row comes out alike alone or in
/// a batch. At random points of the layer's initialisation range (biases within 0.1) and inputs in [-1, 1].
template <layer Layer, class Backend = cpu::backend>
void check_layer(const Layer& l, std::size_t inputs, std::uint64_t seed = 1) {
  constexpr std::size_t n = 5;
  Backend b;
  random_words words({random_key::from_seed(seed), domain::user, 0, 0});
  const auto draw = [&](double bound) { return static_cast<float>(bound * (2 * words.uniform() - 1)); };
  const std::size_t outputs = l.outputs(inputs);
  std::vector<buffer<float>> memory;
  const auto make = [&](std::size_t rows, std::size_t cols) {
    memory.emplace_back(rows * Backend::stride(cols));
    return matrix_view<float>{memory.back().data(), rows, cols, Backend::stride(cols)};
  };
  const auto x = make(n, inputs), y = make(n, outputs), dy = make(n, outputs), dx = make(n, inputs);
  std::vector<tensor_shape> shapes;
  if constexpr (layer_with_parameters<Layer>)
    for (const auto& s : l.tensors(inputs)) shapes.push_back(s);
  std::vector<float> parameters;
  for (const auto& s : shapes)
    for (std::size_t i = 0; i < s.size(); ++i) parameters.push_back(draw(s.bound > 0 ? s.bound : 0.1));
  typename Backend::weights weights(shapes);
  b.weights_changed(weights, parameters.data());
  const auto each = [](auto m, auto f) {
    for (std::size_t r = 0; r < m.rows; ++r)
      for (std::size_t c = 0; c < m.cols; ++c) f(m(r, c));
  };
  each(x, [&](float& v) { v = draw(1); });
  each(dy, [&](float& v) { v = draw(1); });
  // L = sum of y * dy, so dL/dy = dy; in double, from the layer's own forward.
  const auto value = [&] {
    l.forward(b, weights + 0, x, y);
    double total = 0;
    for (std::size_t r = 0; r < n; ++r)
      for (std::size_t c = 0; c < outputs; ++c) total += double{y(r, c)} * dy(r, c);
    return total;
  };
  const double scale = std::sqrt(static_cast<double>(n * outputs));
  const auto close = [&](double got, double wanted, const char* what) {
    require(std::abs(got - wanted) <= 3e-3 * (scale + std::abs(wanted)), "check_layer: ", what, " is ", got,
            ", but finite differences give ", wanted);
  };
  constexpr float h = 1e-2f;

  value();
  l.backward(b, weights + 0, x, y, dy, dx);
  for (std::size_t r = 0; r < n; ++r)
    for (std::size_t c = 0; c < inputs; ++c) {
      // Where the layer has a kink within h the two one-sided slopes differ, and finite differences say nothing.
      const float old = x(r, c);
      const double at = value();
      x(r, c) = old + h;
      const double above = value() - at;
      x(r, c) = old - h;
      const double below = at - value();
      x(r, c) = old;
      if (std::abs(above - below) > 1e-3 * (std::abs(above) + std::abs(below)) + 1e-5 * scale) continue;
      close(dx(r, c), (above + below) / (2 * double{h}), "dx");
    }

  // What it says of itself: backward does without y, or without x.
  value();
  if constexpr (!needs_output<Layer>) {
    const auto again = make(n, inputs), nothing = make(n, outputs);
    l.backward(b, weights + 0, x, nothing, dy, again);
    for (std::size_t r = 0; r < n; ++r)
      for (std::size_t c = 0; c < inputs; ++c)
        require(again(r, c) == dx(r, c), "check_layer: backward needs the output, though it says that it does not");
  }
  if constexpr (in_place<Layer>) {
    const auto both = make(n, inputs), deltas = make(n, inputs);
    for (std::size_t r = 0; r < n; ++r)
      for (std::size_t c = 0; c < inputs; ++c) both(r, c) = x(r, c), deltas(r, c) = dy(r, c);
    l.forward(b, weights + 0, both, both);
    l.backward(b, weights + 0, both, both, deltas, deltas);
    for (std::size_t r = 0; r < n; ++r)
      for (std::size_t c = 0; c < inputs; ++c)
        require(both(r, c) == y(r, c) && deltas(r, c) == dx(r, c), "check_layer: it gives another result in place");
  }

  // A row alone comes out as in the batch.
  const auto alone = make(1, outputs);
  for (std::size_t r = 0; r < n; ++r) {
    l.forward(b, weights + 0, x.rows_of(r, 1), alone);
    for (std::size_t c = 0; c < outputs; ++c)
      require(alone(0, c) == y(r, c), "check_layer: row ", r, " alone gives other bits than in a batch");
  }

  if constexpr (layer_with_parameters<Layer>) {
    std::vector<matrix_view<float>> g, g1;
    for (const auto& s : shapes) g.push_back(make(s.rows, s.cols)), g1.push_back(make(s.rows, s.cols));
    l.gradient(b, x, dy, g.data());
    std::size_t k = 0;
    for (std::size_t t = 0; t < shapes.size(); ++t)
      for (std::size_t r = 0; r < shapes[t].rows; ++r)
        for (std::size_t c = 0; c < shapes[t].cols; ++c, ++k) {
          const auto shifted = [&](float by) {
            const float old = parameters[k];
            parameters[k] = old + by;
            b.weights_changed(weights, parameters.data());
            const double v = value();
            parameters[k] = old;
            return v;
          };
          const double wanted = (shifted(h) - shifted(-h)) / (2 * double{h});
          close(g[t](r, c), wanted, "a parameter's gradient");
        }
    b.weights_changed(weights, parameters.data());
    // The rows one by one: their sum is the batch's gradient, their norms are the ghost norms.
    std::vector<std::vector<double>> sums(shapes.size());
    buffer<float> norm2(n);
    constexpr bool ghost = requires { l.norms(b, x, dy, vector_view<float>{norm2.data(), n}); };
    if constexpr (ghost) l.norms(b, x, dy, vector_view<float>{norm2.data(), n});
    for (std::size_t r = 0; r < n; ++r) {
      double square = 0;
      for (const auto& m : g1) each(m, [](float& v) { v = 0; });
      l.gradient(b, x.rows_of(r, 1), dy.rows_of(r, 1), g1.data());
      for (std::size_t t = 0; t < shapes.size(); ++t) {
        sums[t].resize(shapes[t].size());
        std::size_t i = 0;
        each(g1[t], [&](float& v) { square += double{v} * v, sums[t][i++] += v; });
      }
      if constexpr (ghost)
        require(std::abs(norm2[r] - square) <= 1e-4 * square + 1e-12, "check_layer: the ghost norm of row ", r, " is ",
                norm2[r], " (squared), the materialised one ", square);
    }
    for (std::size_t t = 0; t < shapes.size(); ++t) {
      std::size_t i = 0;
      each(g[t], [&](float& v) {
        require(std::abs(v - sums[t][i]) <= 1e-4 * (1 + std::abs(sums[t][i])), "check_layer: the batch's gradient is ",
                v, ", the sum of its rows' ", sums[t][i]);
        ++i;
      });
    }
  }
}

}  // namespace dpsgd::testing
