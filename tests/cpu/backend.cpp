#include "dpsgd/cpu/backend.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "support.hpp"

using namespace dpsgd;
using test::matrix;

TEST_CASE("row norms, outer norms, row sums, scaling and gathering agree with plain loops") {
  cpu::backend b;
  for (const std::size_t rows : {1, 3, 15, 16, 17, 40})
    for (const std::size_t cols : {1, 5, 16, 31, 64, 70}) {
      CAPTURE(rows);
      CAPTURE(cols);
      matrix x(rows, cols, 1), dy(rows, 7, 2), sum(1, cols, 3), scaled(rows, cols, 1), gathered(rows, cols);
      buffer<float> norms(rows), outer(rows), factor(rows);
      std::vector<std::uint32_t> pick(rows);
      for (std::size_t r = 0; r < rows; ++r) {
        norms[r] = 1, outer[r] = 2, factor[r] = r % 3 == 2 ? 0.0f : 0.5f;
        pick[r] = static_cast<std::uint32_t>((r * 7 + 3) % rows);
      }
      const std::vector<float> before(sum.view.data, sum.view.data + cols);
      b.add_row_norms(x.view, norms);
      b.add_outer_norms(x.view, dy.view, outer);
      b.sum_rows(x.view, sum.view);
      b.scale_rows(factor, scaled.view);
      b.gather_rows(x.view, {pick.data(), rows}, gathered.view);
      for (std::size_t r = 0; r < rows; ++r) {
        double xx = 0, dd = 0;
        for (std::size_t c = 0; c < cols; ++c) {
          xx += double{x.view(r, c)} * x.view(r, c);
          REQUIRE(scaled.view(r, c) == x.view(r, c) * factor[r]);
          REQUIRE(gathered.view(r, c) == x.view(pick[r], c));
        }
        for (std::size_t c = 0; c < 7; ++c) dd += double{dy.view(r, c)} * dy.view(r, c);
        REQUIRE(norms[r] == doctest::Approx(1 + xx).epsilon(1e-5));
        REQUIRE(outer[r] == doctest::Approx(2 + dd * (xx + 1)).epsilon(1e-5));
      }
      for (std::size_t c = 0; c < cols; ++c) {
        double total = before[c];
        for (std::size_t r = 0; r < rows; ++r) total += x.view(r, c);
        REQUIRE(sum.view(0, c) == doctest::Approx(total).epsilon(1e-5));
      }
    }
}

TEST_CASE("a row whose factor is zero is assigned zero: neither NaN nor infinity survives") {
  cpu::backend b;
  matrix m(3, 20, 1);
  m.view(1, 4) = std::numeric_limits<float>::quiet_NaN();
  m.view(1, 19) = std::numeric_limits<float>::infinity();
  buffer<float> factor(3);
  factor[0] = factor[2] = 1;
  matrix cleared(3, 20, 1);
  cleared.view(1, 7) = -std::numeric_limits<float>::infinity();
  b.scale_rows(factor, m.view);
  b.clear_rows(factor, cleared.view);
  for (std::size_t c = 0; c < 20; ++c) {
    CHECK(m.view(1, c) == 0);
    CHECK(cleared.view(1, c) == 0);
    CHECK(m.view(0, c) == cleared.view(0, c));
    CHECK(m.view(0, c) != 0);
  }
}

TEST_CASE("weights_changed keeps W and W^T") {
  cpu::backend b;
  struct shape {
    std::size_t rows, cols;
  };
  for (const auto s : {shape{1, 1}, {3, 5}, {16, 16}, {17, 40}, {64, 33}, {1, 64}, {64, 1}}) {
    std::vector<float> p(s.rows * s.cols);
    std::iota(p.begin(), p.end(), 1.0f);
    cpu::backend::weights w(std::vector<shape>{s});
    b.weights_changed(w, p.data());
    for (std::size_t r = 0; r < s.rows; ++r)
      for (std::size_t c = 0; c < s.cols; ++c) {
        REQUIRE((w + 0)->plain(r, c) == p[r * s.cols + c]);
        REQUIRE((w + 0)->transposed(c, r) == p[r * s.cols + c]);
      }
  }
}
