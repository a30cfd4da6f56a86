#include "dpsgd/cpu/products.hpp"

#include <doctest/doctest.h>

// The oracle need not be fast, and g++ 12 warns of its own AVX-512 header where Eigen uses it.
#define EIGEN_DONT_VECTORIZE
#include <Eigen/Core>
#include <vector>

#include "dpsgd/cpu/backend.hpp"
#include "support.hpp"

using namespace dpsgd;
using test::matrix;

namespace {
using eigen = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
eigen to_eigen(matrix_view<const float> m) {
  eigen e(m.rows, m.cols);
  for (std::size_t r = 0; r < m.rows; ++r)
    for (std::size_t c = 0; c < m.cols; ++c) e(static_cast<long>(r), static_cast<long>(c)) = m(r, c);
  return e;
}
double distance(matrix_view<const float> a, const eigen& b) { return (to_eigen(a) - b).norm() / (1 + b.norm()); }
const std::size_t sizes[] = {1, 2, 3, 5, 7, 11, 12, 13, 16, 17, 31, 32, 33, 48, 63, 64, 65, 80, 100, 128, 130};
}  // namespace

TEST_CASE("the products agree with Eigen's in double, for all small shapes") {
  cpu::backend b;
  for (const std::size_t batch : {1, 2, 5, 12, 13, 29})
    for (const auto in : sizes)
      for (const auto out : sizes) {
        CAPTURE(batch);
        CAPTURE(in);
        CAPTURE(out);
        matrix x(batch, in, 1), w(out, in, 2), bias(1, out, 3), dy(batch, out, 4), y(batch, out), dx(batch, in),
            g(out, in, 5);
        std::vector<float> parameters;
        for (const auto* m : {&w, &bias})
          for (std::size_t r = 0; r < m->view.rows; ++r)
            for (std::size_t c = 0; c < m->view.cols; ++c) parameters.push_back(m->view(r, c));
        struct shape {
          std::size_t rows, cols;
        };
        cpu::backend::weights weights(std::vector<shape>{{out, in}, {1, out}});
        b.weights_changed(weights, parameters.data());
        const eigen before = to_eigen(g.view);

        b.product(x.view, *(weights + 0), *(weights + 1), y.view);
        const eigen wanted = (to_eigen(x.view) * to_eigen(w.view).transpose()).rowwise() + to_eigen(bias.view).row(0);
        REQUIRE(distance(y.view, wanted) < 1e-6);
        b.product_back(dy.view, *(weights + 0), dx.view);
        REQUIRE(distance(dx.view, to_eigen(dy.view) * to_eigen(w.view)) < 1e-6);
        b.outer_sum(dy.view, x.view, g.view);
        REQUIRE(distance(g.view, before + to_eigen(dy.view).transpose() * to_eigen(x.view)) < 1e-6);
      }
}

TEST_CASE("a row has the same bits alone and in any batch; a gradient the same bits in any cut") {
  cpu::backend b;
  for (const auto in : sizes)
    for (const std::size_t out : {1, 3, 16, 20, 64, 65}) {
      const std::size_t batch = 31;
      matrix x(batch, in, 1), dy(batch, out, 2), y(batch, out), alone(1, out), g(out, in), cut(out, in), w(out, in, 3);
      struct shape {
        std::size_t rows, cols;
      };
      std::vector<float> parameters(out * in + out, 0.125f);
      for (std::size_t r = 0; r < out; ++r)
        for (std::size_t c = 0; c < in; ++c) parameters[r * in + c] = w.view(r, c);
      cpu::backend::weights weights(std::vector<shape>{{out, in}, {1, out}});
      b.weights_changed(weights, parameters.data());
      b.product(x.view, *(weights + 0), *(weights + 1), y.view);
      for (std::size_t r = 0; r < batch; ++r) {
        b.product(x.view.rows_of(r, 1), *(weights + 0), *(weights + 1), alone.view);
        for (std::size_t c = 0; c < out; ++c) REQUIRE(alone.view(0, c) == y.view(r, c));
      }
      b.outer_sum(dy.view, x.view, g.view);
      for (std::size_t first = 0, n = 1; first < batch; first += n, n = std::min<std::size_t>(n + 2, batch - first - 0))
        b.outer_sum(dy.view.rows_of(first, std::min(n, batch - first)),
                    x.view.rows_of(first, std::min(n, batch - first)), cut.view);
      for (std::size_t r = 0; r < out; ++r)
        for (std::size_t c = 0; c < in; ++c) REQUIRE(g.view(r, c) == cut.view(r, c));
    }
}
