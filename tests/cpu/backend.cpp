#include "dpsgd/cpu/backend.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "backends.hpp"
#include "support.hpp"

using namespace dpsgd;
using test::matrix;

TEST_CASE("what holds for every backend") {
  cpu::backend b;
  test::check_rows(b);
  test::check_sum_error(b);
  test::check_lost_rows(b);
  test::check_underflow(b);
  test::check_products(b);
  test::check_each(b);
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

TEST_CASE("whole parts are towards zero and within the bound whatever the floats are, and their squares are told") {
  cpu::backend b;
  const float nan = std::numeric_limits<float>::quiet_NaN(), infinity = std::numeric_limits<float>::infinity();
  const struct {
    float from;
    int to;
  } cases[] = {{0.99f, 0},
               {-0.99f, 0},
               {1.5f, 1},
               {-7.999f, -7},
               {1048575.9f, 1048575},
               {1048576.0f, 1048576},
               {1048577.0f, 1048576},
               {-1e30f, -1048576},
               {infinity, 1048576},
               {-infinity, -1048576},
               {nan, 1048576},
               {-0.0f, 0},
               {1e-45f, 0}};
  for (const std::size_t cols : {1, 15, 16, 17, 64, 70, 300})
    for (const std::size_t rows : {1, 3}) {
      CAPTURE(cols);
      matrix m(rows, cols);
      const auto stride = m.view.stride;
      buffer<std::int32_t> whole(rows * stride), sum(rows * stride);
      const matrix_view<std::int32_t> to{whole.data(), rows, cols, stride}, total{sum.data(), rows, cols, stride};
      std::fill_n(m.view.data, rows * stride, 1e6f);  // in the padding, too
      double squares = 0;
      for (std::size_t r = 0; r < rows; ++r)
        for (std::size_t c = 0; c < cols; ++c) {
          const auto& now = cases[(r * 5 + c) % std::size(cases)];
          m.view(r, c) = now.from, squares += double(now.to) * now.to;
        }
      CHECK(b.take_whole(m.view, 0x1p20f, to) == squares);  // below 2^53
      for (std::size_t r = 0; r < rows; ++r)
        for (std::size_t c = 0; c < cols; ++c) {
          REQUIRE(to(r, c) == cases[(r * 5 + c) % std::size(cases)].to);
          REQUIRE(m.view(r, c) == 0);
        }
      b.add_whole(to, total), b.add_whole(to, total);
      for (std::size_t r = 0; r < rows; ++r)
        for (std::size_t c = 0; c < cols; ++c) REQUIRE(total(r, c) == 2 * to(r, c));
    }
  // Beyond 2^53 the sum may be rounded, but not to less.
  matrix large(64, 1024);
  buffer<std::int32_t> whole(64 * large.view.stride);
  std::fill_n(large.view.data, 64 * large.view.stride, 0x1p20f);
  CHECK(b.take_whole(large.view, 0x1p20f, {whole.data(), 64, 1024, large.view.stride}) >= 0x1p53);
}
