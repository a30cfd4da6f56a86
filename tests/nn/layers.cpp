#include <doctest/doctest.h>

#include <array>
#include <cmath>
#include <string>

#include "dpsgd/nn/activations.hpp"
#include "dpsgd/nn/linear.hpp"
#include "dpsgd/nn/losses.hpp"
#include "dpsgd/nn/mlp.hpp"
#include "dpsgd/testing/laws.hpp"
#include "support.hpp"

using namespace dpsgd;
using testing::check_layer;

TEST_CASE("every layer obeys the laws of a layer") {
  for (const std::size_t in : {1, 3, 16, 17, 40}) {
    for (const std::size_t out : {1, 2, 16, 33}) check_layer(linear{out}, in, in + out);
    check_layer(relu{}, in);
    check_layer(leaky_relu{}, in);
    check_layer(leaky_relu{{0.3f}}, in);
    check_layer(dpsgd::tanh{}, in);
  }
}

namespace {
/// A gain on every column, without ghost norms. `Wrong` plants a bug.
template <int Wrong>
struct gain {
  std::size_t outputs(std::size_t inputs) const { return inputs; }
  std::array<tensor_shape, 1> tensors(std::size_t inputs) const { return {tensor_shape{1, inputs, 1.0}}; }
  void forward(auto&, auto w, auto x, auto y) const {
    for (std::size_t r = 0; r < x.rows; ++r)
      for (std::size_t c = 0; c < x.cols; ++c)
        y(r, c) = x(r, c) * w[0].plain(0, c) * (Wrong == 3 ? static_cast<float>(x.rows) : 1.0f);
  }
  void backward(auto&, auto w, auto, auto, auto dy, auto dx) const {
    for (std::size_t r = 0; r < dy.rows; ++r)
      for (std::size_t c = 0; c < dy.cols; ++c) dx(r, c) = dy(r, c) * w[0].plain(0, c) * (Wrong == 1 ? 1.1f : 1.0f);
  }
  void gradient(auto&, auto x, auto dy, auto g) const {
    for (std::size_t r = 0; r < dy.rows; ++r)
      for (std::size_t c = 0; c < dy.cols; ++c) g[0](0, c) += dy(r, c) * x(r, c) * (Wrong == 2 ? 1.1f : 1.0f);
  }
};
/// The same with ghost norms, right or wrong.
template <bool Wrong>
struct ghost_gain : gain<0> {
  void norms(auto&, auto x, auto dy, auto norm2) const {
    for (std::size_t r = 0; r < dy.rows; ++r)
      for (std::size_t c = 0; c < dy.cols; ++c) norm2[r] += dy(r, c) * dy(r, c) * (Wrong ? 1.0f : x(r, c) * x(r, c));
  }
};
/// Says that it works in place, and needs x.
struct square : activation<functions::tanh> {  // y = x^2 needs x for its slope
  void forward(auto&, auto, auto x, auto y) const {
    for (std::size_t r = 0; r < x.rows; ++r)
      for (std::size_t c = 0; c < x.cols; ++c) y(r, c) = x(r, c) * x(r, c);
  }
  void backward(auto&, auto, auto x, auto, auto dy, auto dx) const {
    for (std::size_t r = 0; r < x.rows; ++r)
      for (std::size_t c = 0; c < x.cols; ++c) dx(r, c) = 2 * x(r, c) * dy(r, c);
  }
};
struct forgetful_tanh : dpsgd::tanh {
  static constexpr bool backward_needs_output = false;
};
}  // namespace

TEST_CASE("check_layer passes a right layer of one's own and catches a wrong one") {
  CHECK_NOTHROW(check_layer(gain<0>{}, 9));
  CHECK_NOTHROW(check_layer(ghost_gain<false>{}, 9));
  CHECK_THROWS_WITH_AS(check_layer(gain<1>{}, 9), doctest::Contains("dx is"), error);
  CHECK_THROWS_WITH_AS(check_layer(gain<2>{}, 9), doctest::Contains("a parameter's gradient"), error);
  CHECK_THROWS_WITH_AS(check_layer(gain<3>{}, 9), doctest::Contains("check_layer"), error);
  CHECK_THROWS_WITH_AS(check_layer(ghost_gain<true>{}, 9), doctest::Contains("ghost norm"), error);
}

TEST_CASE("check_layer catches a layer that says wrongly that it works in place, or that it needs no output") {
  CHECK_THROWS_WITH_AS(check_layer(square{}, 5), doctest::Contains("in place"), error);
  CHECK_THROWS_WITH_AS(check_layer(forgetful_tanh{}, 5), doctest::Contains("needs the output"), error);
}

TEST_CASE_TEMPLATE("a loss's gradient is that of its value, for each example alone", Loss, sigmoid_cross_entropy,
                   softmax_cross_entropy, squared_error) {
  const Loss loss;
  const int classes = 5;
  const std::size_t out = Loss::outputs(classes), n = 20;
  cpu::backend b;
  test::matrix y(n, out, 1), label(n, 1), dy(n, out);
  for (std::size_t r = 0; r < n; ++r) {
    label.view(r, 0) =
        std::is_same_v<Loss, softmax_cross_entropy> ? static_cast<float>(r % 5) : static_cast<float>(r % 2);
    for (std::size_t c = 0; c < out; ++c) y.view(r, c) *= 6;
  }
  loss.gradient(b, y.view, label.view, dy.view);
  for (std::size_t r = 0; r < n; ++r)
    for (std::size_t c = 0; c < out; ++c) {
      std::vector<float> row(y.view.row(r), y.view.row(r) + out);
      const float h = 1.0f / 256, old = row[c];
      row[c] = old + h;
      const double above = loss.value(row, label.view(r, 0));
      row[c] = old - h;
      const double below = loss.value(row, label.view(r, 0));
      REQUIRE(dy.view(r, c) == doctest::Approx((above - below) / (2 * double{h})).epsilon(1e-3));
    }
}

TEST_CASE("losses stay finite where the outputs are extreme") {
  const std::vector<float> far{1000.0f, -1000.0f};
  CHECK(softmax_cross_entropy{}.value(far, 1) == doctest::Approx(2000));
  CHECK(sigmoid_cross_entropy{}.value(std::vector<float>{-1000.0f}, 1) == doctest::Approx(1000));
  cpu::backend b;
  test::matrix y(1, 2), label(1, 1), dy(1, 2);
  y.view(0, 0) = 1000, y.view(0, 1) = -1000, label.view(0, 0) = 1;
  softmax_cross_entropy{}.gradient(b, y.view, label.view, dy.view);
  CHECK(dy.view(0, 0) == doctest::Approx(1));
  CHECK(dy.view(0, 1) == doctest::Approx(-1));
}

TEST_CASE("an mlp has torch.nn.Sequential's parameters, in its order, and begins as stated") {
  mlp net({3, 4, 2});
  CHECK(net.parameters().size() == 3 * 4 + 4 + 4 * 2 + 2);
  CHECK(net.shapes().size() == 4);
  CHECK(net.shapes()[0].rows == 4);
  CHECK(net.shapes()[0].cols == 3);
  for (std::size_t i = 12; i < 16; ++i) CHECK(net.parameters()[i] == 0);  // the first bias
  mlp big({100, 300, 1});
  double square = 0, most = 0;
  for (std::size_t i = 0; i < 30'000; ++i) {
    const double w = big.parameters()[i];
    square += w * w, most = std::max(most, std::abs(w));
  }
  CHECK(square / 30'000 ==
        doctest::Approx(2.0 / 100).epsilon(0.05));  // He: variance 2 / inputs; 0.05 is 10 standard errors
  CHECK(most <= std::sqrt(6.0 / 100));
  // Another seed, other weights; the same seed, the same.
  mlp a({3, 4, 2}, {.seed = 5}), c({3, 4, 2}, {.seed = 5}), d({3, 4, 2}, {.seed = 6});
  CHECK(std::equal(a.parameters().begin(), a.parameters().end(), c.parameters().begin()));
  CHECK(!std::equal(a.parameters().begin(), a.parameters().end(), d.parameters().begin()));
  CHECK(std::holds_alternative<softmax_cross_entropy>(net.loss().chosen));
  CHECK(std::holds_alternative<sigmoid_cross_entropy>(big.loss().chosen));
  CHECK_THROWS_AS(mlp({3}), error);
  CHECK_THROWS_AS(mlp({3, 0, 1}), error);
  CHECK_THROWS_AS(mlp({0, 1}), error);
}
