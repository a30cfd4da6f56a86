#include "dpsgd/accounting/loss_law.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <utility>
#include <vector>

#include "dpsgd/accounting/fft.hpp"

using namespace dpsgd::detail;

namespace {

double normal_tail(double x) { return std::erfc(x / std::sqrt(2.0)) / 2; }

/// delta of one step, exactly, and of a law on a grid. The sum over how many of the rows are sampled, j, of its chance,
/// is taken where the loss is above eps: right of a cut, which halving finds.
double exact(double q, double s, int rows, double eps) {
  if (rows == 1) {
    const double cut = s * s * std::log1p(std::expm1(eps) / q) + 0.5;
    return q * normal_tail((cut - 1) / s) + (1 - q - std::exp(eps)) * normal_tail(cut / s);
  }
  const auto chance = [&](int j) {
    return std::exp(std::lgamma(rows + 1.0) - std::lgamma(j + 1.0) - std::lgamma(rows - j + 1.0)) * std::pow(q, j) *
           std::pow(1 - q, rows - j);
  };
  long double low = -100 * s, high = rows + 100 * s;
  for (int i = 0; i < 200; ++i) {
    const long double x = (low + high) / 2;
    long double ratio = 0;
    for (int j = 0; j <= rows; ++j) ratio += chance(j) * std::exp(j * (2 * x - j) / (2 * s * s));
    (std::log(ratio) > eps ? high : low) = x;
  }
  const auto cut = static_cast<double>(high);
  double delta = -std::exp(eps) * normal_tail(cut / s);
  for (int j = 0; j <= rows; ++j) delta += chance(j) * normal_tail((cut - j) / s);
  return delta;
}
double delta_of(const loss_law& law, double eps) {
  double sum = 0;
  for (const auto& a : law.atoms)
    if (a.loss > eps) sum += std::exp(a.log_mass + a.loss) * -std::expm1(eps - a.loss);
  return sum;
}

}  // namespace

TEST_CASE("the upper law is above and the lower law below, at every epsilon; both have masses that sum to 1") {
  for (const auto& [rate, together] : {std::pair{1e-6, 1},
                                       {1e-3, 1},
                                       {0.1, 1},
                                       {0.7, 1},
                                       {1.0, 1},
                                       {1e-6, 3},
                                       {1e-3, 2},
                                       {0.1, 5},
                                       {0.1, 40},
                                       {0.7, 2}}) {
    const double q = rate;  // clang 14 captures no structured binding
    const int rows = together;
    for (const double s : {0.2, 0.7, 2.0, 50.0})
      for (const double h : {1e-1, 1e-2, 1e-3}) {
        const double tail = 1e-20, scale = std::min(1.0, 1 / s), none = std::pow(1 - q, rows);
        INFO("q ", q, " rows ", rows, " s ", s, " h ", h * scale);
        const sampled_gaussian_loss loss(q, s, tail, rows);
        loss_grid grid{h * scale, 256, 0};
        const auto lower = loss.lower(grid), upper = loss.upper(grid);
        CHECK(lower.offset == upper.offset);
        double mass = 0, mass_with = 0, low_mass = 0;
        const double error = rows == 1 ? 2e-14 : upper.rounding;
        for (const auto& a : upper.atoms) mass += std::exp(a.log_mass), mass_with += std::exp(a.log_mass + a.loss);
        for (const auto& a : lower.atoms) low_mass += std::exp(a.log_mass);
        CHECK(std::abs(mass - 1) <= error);
        CHECK(std::abs(mass_with - 1) <= error);
        CHECK(low_mass <= 1 + error);
        for (int i = 0; i <= 60; ++i) {
          const double least = std::log1p(-(1 - none) * 0.999);
          const double eps = least + (loss.loss(loss.right()) - least) * i / 80;
          if (eps > 700) break;
          const double truth = exact(q, s, rows, eps);
          CAPTURE(eps);
          REQUIRE(delta_of(upper, eps) + upper.left_out >= truth * (1 - 1e-9) - 1e-15);
          REQUIRE(delta_of(lower, eps) <= truth * (1 + 1e-9) + 1e-15);
        }
      }
  }
}

TEST_CASE("the laws' errors fall with the square of the step") {
  const sampled_gaussian_loss loss(0.1, 1, 1e-20);
  double gap[2];
  for (const int i : {0, 1}) {
    loss_grid grid{i == 0 ? 0.02 : 0.005, i == 0 ? 64.0 : 256.0, 0};
    const auto lower = loss.lower(grid), upper = loss.upper(grid);
    gap[i] = delta_of(upper, 0.1234) - delta_of(lower, 0.1234);
  }
  CHECK(gap[0] > 0);
  CHECK(gap[1] < gap[0] / 4);
}

TEST_CASE("the Fourier transform is the sum that defines it, within its stated error, and its inverse undoes it") {
  for (const std::size_t n : {std::size_t{8}, std::size_t{64}, std::size_t{512}, std::size_t{1024}}) {
    CAPTURE(n);
    const auto bits = static_cast<int>(std::log2(n));
    const auto frequency = [&](std::size_t p) {
      std::size_t f = 0;
      for (int k = 0; k < bits; ++k) f |= (p >> k & 1) << (bits - 1 - k);
      return f;
    };
    std::vector<double> re(n), im(n);
    for (std::size_t j = 0; j < n; ++j)
      re[j] = std::sin(static_cast<double>(j * j)), im[j] = std::cos(static_cast<double>(3 * j * j));
    auto spectrum_re = re, spectrum_im = im;
    const fourier transform(n);
    transform.forward(spectrum_re.data(), spectrum_im.data());
    long double off = 0, size = 0;
    for (std::size_t p = 0; p < n; ++p) {
      const std::size_t f = frequency(p);
      CHECK((f + frequency(fourier::mirror(p))) % n == 0);
      long double a = 0, b = 0;
      for (std::size_t j = 0; j < n; ++j) {
        const long double angle = -2 * 3.14159265358979323846L * static_cast<long double>(f * j % n) / n;
        a += re[j] * std::cos(angle) - im[j] * std::sin(angle), b += re[j] * std::sin(angle) + im[j] * std::cos(angle);
      }
      off += std::pow(a - spectrum_re[p], 2) + std::pow(b - spectrum_im[p], 2), size += a * a + b * b;
    }
    CHECK(std::sqrt(off / size) < 5 * 0x1p-53 * bits);
    transform.backward(spectrum_re.data(), spectrum_im.data());
    for (std::size_t j = 0; j < n; ++j) CHECK(spectrum_re[j] / static_cast<double>(n) == doctest::Approx(re[j]));
  }
}
