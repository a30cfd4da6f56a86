#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "dpsgd/privacy/clip.hpp"
#include "dpsgd/privacy/discrete_noise.hpp"
#include "dpsgd/privacy/noise.hpp"
#include "dpsgd/privacy/sampling.hpp"
#include "dpsgd/testing/laws.hpp"

using namespace dpsgd;

namespace {
/// Forgets the min(1, .): small gradients are scaled up, large ones are not scaled down enough.
struct lying_clip {
  constexpr double factor(double norm) const { return norm > 2 ? 1.5 / norm : 1.0; }
  constexpr l2_sensitivity<zero_out> sensitivity() const { return {1}; }
};
/// By layer, with bounds that are not divided by sqrt(L); a bound that a factor does not keep.
struct undivided_clip : per_layer_clip {
  double group_bound(std::size_t, std::size_t) const { return bound; }
};
struct loose_layer_clip : per_layer_clip {
  double factor(double norm, std::size_t group, std::size_t groups) const {
    return group == 1 ? 1.0 : per_layer_clip::factor(norm, group, groups);
  }
};
/// The radius from 24 bits, and the same block for two coordinates: planted mistakes of a noise.
template <int Mistake>
struct wrong_noise : gaussian_noise {
  void draw(const random_stream& words, std::uint32_t block, double sensitivity, float* out) const {
    auto stream = words;
    if (Mistake == 1) stream.step = 0;                                           // the same noise in every step
    if (Mistake == 2) stream.key = random_key::from_seed(0);                     // the same noise under every key
    gaussian_noise::draw(stream, block, Mistake == 3 ? 1.0 : sensitivity, out);  // sigma not times the sensitivity
    if (Mistake == 4)
      for (std::size_t i = 0; i < block_size; ++i) out[i] *= 0.9f;
    if (Mistake == 5)
      for (std::size_t i = 1; i < block_size; i += 2) out[i] = out[i - 1];
  }
};
template <class Noise, class Clip>
concept protects = requires(Noise n, Clip c) {
  n.event(c.sensitivity());
};
}  // namespace

TEST_CASE("clips keep their sensitivity, and check_clip catches one that does not") {
  for (const double bound : {1e-6, 0.5, 1.0, 100.0}) {
    CHECK_NOTHROW(testing::check_clip(flat_clip{bound}));
    CHECK_NOTHROW(testing::check_clip(automatic_clip{bound}));
    CHECK_NOTHROW(testing::check_clip(psac_clip{bound}));
    for (const std::size_t layers : {1, 3, 17}) CHECK_NOTHROW(testing::check_clip(per_layer_clip{bound}, layers));
    CHECK_NOTHROW(testing::check_clip(layer_bounds_clip<2>{{bound, 7.0}}, 2));
  }
  CHECK_THROWS_WITH_AS(testing::check_clip(undivided_clip{}), doctest::Contains("jointly"), error);
  CHECK_THROWS_WITH_AS(testing::check_clip(loose_layer_clip{}), doctest::Contains("more than the sensitivity"), error);
  CHECK_THROWS_WITH_AS(testing::check_clip(layer_bounds_clip<2>{{1.0, 7.0}}, 3),
                       doctest::Contains("2 bounds, but the model 3 layers"), error);
  CHECK_THROWS_AS(testing::check_clip(layer_bounds_clip<2>{{1.0, -7.0}}, 2), error);
  CHECK_THROWS_AS(testing::check_clip(automatic_clip{1, -0.5}), error);
  CHECK_THROWS_AS(testing::check_clip(psac_clip{1, 0}), error);
  CHECK_THROWS_AS(testing::check_clip(lying_clip{}), error);
  CHECK_THROWS_AS(testing::check_clip(flat_clip{-1}), error);
  CHECK(flat_clip{2}.factor(1) == 1);
  CHECK(flat_clip{2}.factor(8) == 0.25);
}

// By hand, from the papers' formulas.
TEST_CASE("the clips of the literature have their factors and joint sensitivity") {
  CHECK(automatic_clip{2, 0.5}.factor(1.5) == 1);  // C / (|g| + gamma)
  CHECK(psac_clip{3, 0.5}.factor(0.5) == 3);       // C / (|g| + r / (|g| + r)) = 3 / (0.5 + 0.5)
  CHECK(psac_clip{2, 0.1}.factor(0) == 2);
  CHECK(per_layer_clip{2}.factor(3, 1, 4) == 1.0 / 3);  // C / sqrt(L) = 1
  CHECK(per_layer_clip{2}.factor(0.5, 1, 4) == 1);
  CHECK(per_layer_clip{2}.sensitivity().value == 2);
  CHECK(layer_bounds_clip<2>{{3, 4}}.sensitivity().value == 5);
  CHECK(layer_bounds_clip<2>{{3, 4}}.factor(8, 1, 2) == 0.5);
}

TEST_CASE("gaussian noise has its standard deviation, and check_noise catches planted mistakes") {
  for (const double z : {0.3, 1.0, 5.0}) CHECK_NOTHROW(testing::check_noise(gaussian_noise{z}, 0.7));
  CHECK_THROWS_WITH_AS(testing::check_noise(wrong_noise<1>{}), doctest::Contains("two steps share noise"), error);
  CHECK_THROWS_WITH_AS(testing::check_noise(wrong_noise<2>{}), doctest::Contains("two keys share noise"), error);
  CHECK_THROWS_WITH_AS(testing::check_noise(wrong_noise<3>{}), doctest::Contains("sensitivity"), error);
  CHECK_THROWS_WITH_AS(testing::check_noise(wrong_noise<4>{}), doctest::Contains("variance"), error);
  CHECK_THROWS_WITH_AS(testing::check_noise(wrong_noise<5>{}), doctest::Contains("correlated"), error);
}

// The event never says more noise than there is.
TEST_CASE("discrete noise rounds its multiplier up to the grid, and says so") {
  for (const double z : {0.3, 0.9, 1.0}) CHECK_NOTHROW(testing::check_noise(discrete_gaussian_noise{z}, 0.7));
  for (const double z : {1e-7, 1e-6, 0.3, 0.9, 1.0, 1.0 + 1e-9, 7.77, 1e6}) {
    const discrete_gaussian_noise n{z};
    const double used = n.event(flat_clip{3}.sensitivity()).multiplier;
    CHECK(used >= z);
    CHECK(used < z + 0x1p-20);
    CHECK(used * 0x1p20 == static_cast<double>(n.sigma()));
    CHECK(n.variance(3) == doctest::Approx(9 * used * used));
  }
  CHECK(discrete_gaussian_noise{1.0}.sigma() == 1u << 20);
  CHECK(discrete_gaussian_noise{1.0 + 0x1p-50}.sigma() == (1u << 20) + 1);
  const auto event =
      exact_poisson_sampling{0.01}.amplify(discrete_gaussian_noise{0.5}.event(flat_clip{}.sensitivity()));
  CHECK(event.rate == 0.01);
  CHECK(event.event.multiplier == 0.5);
  static_assert(decltype(event)::exactness == arithmetic::exact);
  static_assert(protects<discrete_gaussian_noise, flat_clip> && !protects<discrete_gaussian_noise, no_clip>);
}

TEST_CASE("events carry what the policies do") {
  const auto event = poisson_sampling{0.01}.amplify(gaussian_noise{0.9}.event(flat_clip{3}.sensitivity()));
  CHECK(event.rate == 0.01);
  CHECK(event.event.multiplier == 0.9);
  CHECK(no_noise{}.event(flat_clip{}.sensitivity()).why == exposure{.no_noise = true});
  CHECK(no_noise{}.event(no_clip{}.sensitivity()).why == exposure{.no_noise = true, .no_clip = true});
  static_assert(protects<gaussian_noise, flat_clip> && !protects<gaussian_noise, no_clip> &&
                protects<no_noise, no_clip>);
}
