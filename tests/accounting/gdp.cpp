#include "dpsgd/accounting/gdp.hpp"

#include <doctest/doctest.h>

#include <cmath>

#include "dpsgd/accounting/pld.hpp"

using namespace dpsgd;

TEST_CASE("the central-limit figure is the published one, and too low") {
  const poisson_sampled step{0.04, gaussian_event<zero_out>{1.5}};
  gdp_approximation gdp;
  gdp.add(step, 2249);
  CHECK(gdp.estimate(1e-5) > 6.59);  // pytorch/opacus: tests/accountants_test.py:116
  CHECK(gdp.estimate(1e-5) < 6.60);
  pld_accountant pld;
  pld.add(step, 2249);
  CHECK(gdp.estimate(1e-5) < pld.spent(1e-5).epsilon_lo);
}

TEST_CASE("its edges") {
  CHECK(gdp_approximation{}.estimate(1e-5) == 0);
  gdp_approximation gdp;
  gdp.add({0.01, {1}}, 1);
  CHECK(gdp.estimate(0) == INFINITY);
  CHECK(gdp.estimate(1) == 0);
  CHECK(gdp.estimate(0.5) == 0);
  CHECK_THROWS_AS(gdp.estimate(std::nan("")), error);
  CHECK_THROWS_AS(gdp.add({2, {1}}, 1), error);
  gdp.add({0.01, {0}}, 1);
  CHECK(gdp.estimate(1e-5) == INFINITY);
}
