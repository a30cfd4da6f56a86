#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "dpsgd/core/error.hpp"
#include "dpsgd/optim/adam.hpp"
#include "dpsgd/optim/schedules.hpp"
#include "dpsgd/optim/sgd.hpp"

using namespace dpsgd;

namespace {
const std::vector<double> gradients{0.5, -1.0, 0.25, 2.0, -0.125, 0.0, 1.5};
}

TEST_CASE("sgd with momentum follows its recurrence in double") {
  for (const double momentum : {0.0, 0.9}) {
    double w = 1, m = 0;
    float weight = 1, moment[1] = {0};
    for (std::uint64_t t = 1; t <= gradients.size(); ++t) {
      const double g = gradients[t - 1];
      m = momentum * m + g, w -= 0.1 * m;
      weight = sgd{momentum}.rule({t, 0.1, 0}).step(weight, static_cast<float>(g), moment);
      CHECK(weight == doctest::Approx(w).epsilon(1e-6));
    }
  }
}

TEST_CASE("adam follows Kingma and Ba's algorithm 1 in double") {
  const adam a;
  double w = 1, m = 0, v = 0;
  float weight = 1, moments[2] = {0, 0};
  for (std::uint64_t t = 1; t <= gradients.size(); ++t) {
    const double g = gradients[t - 1], T = static_cast<double>(t);
    m = a.beta1 * m + (1 - a.beta1) * g, v = a.beta2 * v + (1 - a.beta2) * g * g;
    w -= 0.01 * (m / (1 - std::pow(a.beta1, T))) / (std::sqrt(v / (1 - std::pow(a.beta2, T))) + a.epsilon);
    weight = a.rule({t, 0.01, 0}).step(weight, static_cast<float>(g), moments);
    CHECK(weight == doctest::Approx(w).epsilon(1e-6));
  }
  // Nothing is divided by zero when no gradient has come yet.
  float none[2] = {0, 0};
  CHECK(a.rule({1, 0.01, 0}).step(2.0f, 0.0f, none) == 2.0f);
}

TEST_CASE("adam that corrects for noise follows Tang and Lecuyer's algorithm 1 in double") {
  const adam a{.correct_noise = true, .noise_floor = 0.5};
  double w = 1, m = 0, v = 0;
  float weight = 1, moments[2] = {0, 0};
  int floors = 0;
  for (std::uint64_t t = 1; t <= gradients.size(); ++t) {
    const double g = gradients[t - 1], T = static_cast<double>(t), noise = 0.4;
    m = a.beta1 * m + (1 - a.beta1) * g, v = a.beta2 * v + (1 - a.beta2) * g * g;
    const double square = v / (1 - std::pow(a.beta2, T)) - noise;
    floors += square < 0.5 * noise;
    w -= 0.01 * (m / (1 - std::pow(a.beta1, T))) / (std::sqrt(std::max(square, 0.5 * noise)) + a.epsilon);
    weight = a.rule({t, 0.01, noise}).step(weight, static_cast<float>(g), moments);
    CHECK(weight == doctest::Approx(w).epsilon(1e-6));
  }
  CHECK(floors == 2);  // it was seen on both sides of the floor
}

TEST_CASE("without noise adam that corrects for it is adam, bit by bit") {
  const adam plain, corrects{.correct_noise = true};
  float weights[2] = {1, 1}, moments[2][2] = {};
  for (std::uint64_t t = 1; t <= gradients.size(); ++t) {
    const auto g = static_cast<float>(gradients[t - 1]);
    weights[0] = plain.rule({t, 0.01, 0}).step(weights[0], g, moments[0]);
    weights[1] = corrects.rule({t, 0.01, 0}).step(weights[1], g, moments[1]);
    CHECK(weights[0] == weights[1]);
  }
  // And what does not correct does not look at the noise.
  CHECK(plain.rule({9, 0.01, 4}).step(1, 0.5f, moments[0]) == plain.rule({9, 0.01, 0}).step(1, 0.5f, moments[1]));
}

TEST_CASE("adam refuses a floor that would divide by nothing") {
  for (const double floor : {0.0, -1.0, std::nan("")})
    CHECK_THROWS_WITH_AS((adam{.correct_noise = true, .noise_floor = floor}.rule({1, 0.1, 1})),
                         doctest::Contains("noise_floor"), error);
}

TEST_CASE("schedules begin and end where they say") {
  CHECK(constant_rate{}.factor(7, 10) == 1);
  CHECK(linear_decay{0.1}.factor(0, 100) == 1);
  CHECK(linear_decay{0.1}.factor(99, 100) == doctest::Approx(0.1).epsilon(0.1));
  CHECK(cosine_decay{}.factor(0, 100) == doctest::Approx(1).epsilon(1e-3));
  CHECK(cosine_decay{0, 0.2}.factor(99, 100) == doctest::Approx(0.2));
  CHECK(cosine_decay{0.1, 0}.factor(4, 100) == doctest::Approx(0.5));
  CHECK(cosine_decay{0.1, 0}.factor(9, 100) == doctest::Approx(1));
  CHECK(step_decay{10, 0.5}.factor(9, 100) == 1);
  CHECK(step_decay{10, 0.5}.factor(25, 100) == 0.25);
  for (std::uint64_t k = 0; k < 100; ++k) {
    CHECK(cosine_decay{0.1, 0}.factor(k, 100) >= 0);
    CHECK(cosine_decay{0.1, 0}.factor(k, 100) <= 1);
  }
}
