/// A layer of your own: a gain on every column, y = (1 + g) x, learnt privately in front of an MLP.
///
/// A layer is a plain struct that writes its mathematics; it inherits nothing and registers nowhere (nn/layer.hpp lists
/// the members). check_layer tests it: dx and the gradient against finite differences, each row alone against the batch
/// (a layer that mixes examples would break the privacy claim), ghost norms against norms of gradients really formed.
#include <array>
#include <cmath>
#include <iostream>
#include <vector>

#include "dpsgd/dpsgd.hpp"
#include "dpsgd/testing/laws.hpp"

/// Backends run elementwise work as structs with a call operator, not as lambdas, so that a GPU can run them too.
template <class X, class G, class Y>
struct times_gain {
  X x;
  G g;
  Y y;
  constexpr void operator()(std::size_t r, std::size_t c) const { y(r, c) = x(r, c) * (1.0f + g(0, c)); }
};
template <class X, class Dy, class Norm2>
struct norm_of_row {
  X x;
  Dy dy;
  Norm2 norm2;
  constexpr void operator()(std::size_t r) const {
    for (std::size_t c = 0; c < x.cols; ++c) norm2[r] += x(r, c) * dy(r, c) * (x(r, c) * dy(r, c));
  }
};

struct gain {
  std::size_t outputs(std::size_t inputs) const { return inputs; }
  /// One tensor of 1 x inputs. It begins at zero (bound 0), so the layer begins as the identity.
  std::array<dpsgd::tensor_shape, 1> tensors(std::size_t inputs) const { return {dpsgd::tensor_shape{1, inputs, 0}}; }
  void forward(auto& b, auto w, auto x, auto y) const {  // x, y: (batch, inputs)
    b.each(x.rows, x.cols, times_gain<decltype(x), decltype(w[0].plain), decltype(y)>{x, w[0].plain, y});
  }
  void backward(auto& b, auto w, auto, auto, auto dy, auto dx) const {
    b.each(dy.rows, dy.cols, times_gain<decltype(dy), decltype(w[0].plain), decltype(dx)>{dy, w[0].plain, dx});
  }
  /// g[0] += the sum over the rows of x * dy. The rows of dy come scaled by the clip factors: never divide by their
  /// number.
  void gradient(auto&, auto x, auto dy, auto g) const {
    for (std::size_t r = 0; r < dy.rows; ++r)
      for (std::size_t c = 0; c < dy.cols; ++c) g[0](0, c) += x(r, c) * dy(r, c);
  }
  /// Ghost norm: |x * dy|^2 of each row, without storing its gradient. Leave it out and the trainer forms every row's.
  void norms(auto& b, auto x, auto dy, auto norm2) const {
    b.each(x.rows, norm_of_row<decltype(x), decltype(dy), decltype(norm2)>{x, dy, norm2});
  }
};
static_assert(dpsgd::layer_with_parameters<gain>);

/// 4,000 records of 8 features in [-1, 1]; the class is 1 when the first two have the same sign. The rest is noise.
dpsgd::dataset records() {
  dpsgd::random_words words({dpsgd::random_key::from_seed(1), dpsgd::domain::synthetic, 0, 0});
  std::vector<float> features(4000 * 8), labels(4000);
  for (auto& f : features) f = static_cast<float>(2 * words.uniform() - 1);
  for (std::size_t i = 0; i < labels.size(); ++i) labels[i] = features[8 * i] * features[8 * i + 1] > 0 ? 1.0f : 0.0f;
  return dpsgd::dataset::from(features, 8, labels);
}

int main() {
  for (const std::size_t inputs : {1, 8, 33}) dpsgd::testing::check_layer(gain{}, inputs);
  std::cout << "check_layer: the gain obeys the laws of a layer\n";

  const auto [train, test] = dpsgd::split(records(), {.test_fraction = 0.2, .seed = 1});
  using network = dpsgd::sequential<dpsgd::sigmoid_cross_entropy, gain, dpsgd::linear, dpsgd::relu>;
  network model(8, {}, {gain{}, dpsgd::linear{32}, dpsgd::relu{}, dpsgd::linear{1, dpsgd::initial::glorot}});
  dpsgd::trainer trainer{dpsgd::flat_clip{.bound = 1.0}, dpsgd::gaussian_noise{.multiplier = 2.0},
                         dpsgd::poisson_sampling{.rate = 0.05}, dpsgd::adam{}};
  const auto report = trainer.fit(model, train, {.steps = 400, .learning_rate = 0.02, .delta = 1e-5});
  std::cout << "accuracy " << dpsgd::accuracy(model, test) << '\n' << report.claim << '\n';
  std::cout << "gains";
  for (const float g : model.parameters().first(8)) std::cout << ' ' << 1 + std::round(100 * g) / 100;
  std::cout << "  (covered by the claim: they are part of the model)\n";
}
