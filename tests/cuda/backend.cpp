// The device's operations, on emulated devices: the body that tests/cpu/backend.cpp has, the fast kernels against the
// plain ones, and noise bit by bit.
#include "dpsgd/cuda/backend.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "backends.hpp"
#include "dpsgd/core/numeric.hpp"
#include "dpsgd/cuda/emulator.hpp"
#include "dpsgd/nn/activations.hpp"
#include "dpsgd/optim/sgd.hpp"
#include "dpsgd/privacy/correlated_noise.hpp"
#include "dpsgd/privacy/noise.hpp"
#include "dpsgd/testing/laws.hpp"

using namespace dpsgd;
using emulated = cuda::basic_backend<cuda::emulator>;
using test::matrix_on, test::vector_on;

namespace {
struct racing {
  static constexpr int threads = 64;
  float* to;
  constexpr void operator()(auto& team) const {
    team.each([&](int thread, cuda::no_registers&) { *to = static_cast<float>(thread); });
  }
};
}  // namespace

TEST_CASE("what holds for every backend, holds on a device in any order of its threads") {
  for (const std::uint64_t order : {1, 2}) {
    emulated b(std::make_shared<cuda::emulator>(order));
    test::check_rows(b);
    test::check_sum_error(b);
    test::check_lost_rows(b);
    test::check_underflow(b);
    test::check_products(b);
    test::check_each(b);
  }
}

TEST_CASE("four floats at a time give what one at a time gives") {
  auto device = std::make_shared<cuda::emulator>(3);
  emulated b(device);
  const std::size_t rows = 37, cols = 64;
  matrix_on<emulated> from(b, 50, cols, 1), a(b, rows, cols, 2), c(b, rows, cols, 2);
  std::vector<std::uint32_t> picks(rows);
  std::vector<float> factors(rows), biases(cols);
  for (std::size_t r = 0; r < rows; ++r) picks[r] = static_cast<std::uint32_t>(r * 7 % 50), factors[r] = r % 4 * 0.3f;
  for (std::size_t i = 0; i < cols; ++i) biases[i] = 0.1f * static_cast<float>(i) - 3;
  vector_on<emulated, std::uint32_t> pick(b, picks);
  vector_on<emulated> factor(b, factors), bias(b, biases);
  const auto same = [&](auto four, auto one) {
    a.put(), c.put();
    const cuda::each_of_rows<4, decltype(four)> fast{rows, cols, four};
    const cuda::each_of_rows<1, decltype(one)> plain{rows, cols, one};
    device->launch(fast, fast.teams()), device->launch(plain, 2);  // in turns
    const auto before = a.values;
    a.get(), c.get();
    CHECK(a.values == c.values);
    CHECK(a.values != before);
    c.values = a.values;
  };
  same(cuda::gathered_rows<4>{from.view, pick.there.data(), a.view},
       cuda::gathered_rows<1>{from.view, pick.there.data(), c.view});
  same(cuda::scaled_rows<4>{factor.there.data(), a.view}, cuda::scaled_rows<1>{factor.there.data(), c.view});
  same(cuda::biased<4, functions::tanh>{bias.there.data(), a.view, {}},
       cuda::biased<1, functions::tanh>{bias.there.data(), c.view, {}});
  // In one pass, and in two.
  const auto two_passes = [&](auto f) {
    a.put(), c.put();
    const cuda::each_of_rows<4, cuda::biased<4, decltype(f)>> joined{rows, cols, {bias.there.data(), a.view, f}};
    const cuda::each_of_rows<1, cuda::biased<1, cuda::identity>> apart{rows, cols, {bias.there.data(), c.view, {}}};
    device->launch(joined, joined.teams()), device->launch(apart, apart.teams());
    activation<decltype(f)>{f}.forward(b, 0, c.view, c.view);
    a.get(), c.get();
    CHECK(a.values == c.values);
  };
  two_passes(functions::relu{}), two_passes(functions::leaky_relu{0.2f}), two_passes(functions::tanh{});
}

TEST_CASE("column sums in two stages agree with those in one, for tall matrices too") {
  auto device = std::make_shared<cuda::emulator>(4);
  emulated b(device);
  for (const std::size_t rows : {1, 127, 256, 1000, 20'000})
    for (const std::size_t cols : {1, 33}) {
      CAPTURE(rows);
      matrix_on<emulated> m(b, rows, cols, 1), two(b, 1, cols, 2), one(b, 1, cols, 2);
      const auto launches = device->launches();
      b.sum_rows(m.view, two.view);
      CHECK(device->launches() - launches == (rows < 256 ? 1 : 2));
      const cuda::column_sums reference{m.view, one.view.data};
      device->launch(reference, reference.teams());
      two.get(), one.get();
      for (std::size_t c = 0; c < cols; ++c) {
        double wanted = two.values[c] - one.values[c];
        CHECK(std::abs(wanted) < 1e-5 * std::sqrt(static_cast<double>(rows)));
      }
    }
}

TEST_CASE_TEMPLATE("the noise of a step has the same bits as on the host, however the vector is cut", Noise,
                   gaussian_noise, no_noise, banded_noise, tree_noise) {
  const Noise noise{};
  const std::size_t n = 1000;
  emulated b(std::make_shared<cuda::emulator>(5));
  for (const std::uint64_t step : {0, 5, 63}) {
    const random_stream stream{random_key::from_seed(step + 1), domain::noise, step, 0};
    std::vector<float> wanted((n / Noise::block_size + 1) * Noise::block_size);
    for (std::uint32_t block = 0; block * Noise::block_size < n; ++block)
      noise.draw(stream, block, 0.7, wanted.data() + block * Noise::block_size);
    wanted.resize(n);
    vector_on<emulated> sum(b, std::vector<float>(n)), parameters(b, std::vector<float>(n));
    const auto rule = sgd{}.rule({1, 1.0, 0.0});
    const std::array<float*, 0> none{};
    std::size_t first = 0;
    for (const std::size_t count : {1, 0, 158, 3, 500, 338}) {
      b.release(noise, stream, 0.7, 1.0, rule, first, count, sum.there.data(), parameters.there.data(), none);
      first += count;
    }
    parameters.get();
    for (std::size_t i = 0; i < n; ++i) {
      const float drawn = -parameters.values[i];  // 0 - 1 x (0 + noise) / 1
      REQUIRE(std::bit_cast<std::uint32_t>(drawn + 0.0f) == std::bit_cast<std::uint32_t>(wanted[i] + 0.0f));
    }
  }
}

TEST_CASE("a device that has too little memory says how much is missing") {
  emulated b(std::make_shared<cuda::emulator>(1, 3, std::size_t{8} << 20));
  const auto held = b.make<float>(std::size_t{1} << 20);
  CHECK_THROWS_WITH_AS(b.make<float>(std::size_t{4} << 20),
                       doctest::Contains("16 MiB more were asked for, and 4 of its 8 MiB are free: 12 MiB are missing, "
                                         "and 25 % of what was asked for would fit"),
                       error);
  CHECK_NOTHROW(b.make<float>(std::size_t{1} << 20));  // and it goes on
}

TEST_CASE("an emulated device shows what a real one would: races, and values read before they are there") {
  std::vector<float> last;
  for (std::uint64_t order = 0; order < 8; ++order) {
    cuda::emulator device(order);
    const auto memory = device.make<float>(1);
    device.launch(racing{memory.data()}, 1);
    float value = 0;
    device.download(memory.data(), 1, &value);
    CHECK(value != value);  // until
    device.wait();
    last.push_back(value);
  }
  CHECK(std::count(last.begin(), last.end(), last[0]) < 8);
}

TEST_CASE("operands are rounded to the nearest of so many bits") {
  using cuda::precision, cuda::detail::as_operand;
  CHECK(as_operand(1 + 0x1p-11f, precision::tf32) == 1);
  CHECK(as_operand(1 + 0x1.8p-11f, precision::tf32) == 1 + 0x1p-10f);
  CHECK(as_operand(1 + 0x1p-8f, precision::bf16) == 1);
  CHECK(as_operand(-1 - 0x1.8p-8f, precision::bf16) == -1 - 0x1p-7f);
  CHECK(as_operand(1 + 0x1p-23f, precision::single) == 1 + 0x1p-23f);
  random_words words({random_key::from_seed(3), domain::user, 0, 0});
  for (const auto p : {precision::tf32, precision::bf16}) {
    double most = 0;
    for (int i = 0; i < 100'000; ++i) {
      const auto x = static_cast<float>(1 + words.uniform());
      most = std::max(most, double{as_operand(x, p)} / x - 1);
    }
    CHECK(most <= cuda::operand_growth(p));
    CHECK(most > 0.9 * cuda::operand_growth(p));
  }
}
