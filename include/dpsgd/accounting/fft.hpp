/// The Fourier transform of the PLD accountant (accounting/pld.hpp): two real sequences at once, in place.
///
/// A sequence of length n lies in two arrays, real and imaginary parts. forward() leaves the spectrum in bit-reversed
/// order, and backward() takes it in that order: what is between them only multiplies, so nothing is ever reordered.
/// Where frequency f lies at p, its mirror n - f lies at mirror(p).
#pragma once

#include <cmath>
#include <cstddef>
#include <vector>

namespace dpsgd::detail {

/// Discrete Fourier transforms of one length. Cost: about 5 n log2(n) operations each, n/8 sines once; 24 n bytes.
/// Error, in the Euclidean norm: at most 5 u log2(n) of the result's norm, u = 2^-53. (A radix-4 stage stands for two
/// of log2(n): two additions, u each, and one product with a twiddle that is itself within 1.5 u: (sqrt(5) + 1.5) u.
/// Higham 2002, section 24.1; Brent, Percival and Zimmermann 2007 for the sqrt(5).)
class fourier {
 public:
  /// n: a power of two.
  explicit fourier(std::size_t n) : n_(n) {
    const std::size_t eighth = n / 8;
    std::vector<double> cosine(eighth + 1), sine(eighth + 1);
    for (std::size_t k = 0; k <= eighth; ++k) {
      const double angle = 6.283185307179586477 * (static_cast<double>(k) / static_cast<double>(n));
      cosine[k] = std::cos(angle), sine[k] = std::sin(angle);
    }
    // e^(-2 pi i k / n) for k < 3n/4, from the first eighth of the circle.
    const auto twiddle = [&](std::size_t k, double& re, double& im) {
      const std::size_t turn = k / (n / 4), rest = k % (n / 4);
      const bool near = rest <= eighth;
      const double c = near ? cosine[rest] : sine[n / 4 - rest], s = near ? sine[rest] : cosine[n / 4 - rest];
      re = turn == 0 ? c : turn == 1 ? -s : -c;
      im = turn == 0 ? -s : turn == 1 ? -c : s;
    };
    for (std::size_t m = n; m >= 8; m /= 4) {  // for each stage: six rows, w, w^2 and w^3
      const std::size_t quarter = m / 4, at = twiddles_.size();
      twiddles_.resize(at + 6 * quarter);
      for (std::size_t power = 1; power <= 3; ++power) {
        double* const re = twiddles_.data() + at + (2 * power - 2) * quarter;
        for (std::size_t j = 0; j < quarter; ++j) twiddle(power * j * (n / m), re[j], re[j + quarter]);
      }
    }
  }

  std::size_t size() const { return n_; }

  /// x -> sum over j of x[j] e^(-2 pi i f j / n), f in bit-reversed order.
  void forward(double* re, double* im) const { forward(re, im, n_, twiddles_.data()); }

  /// The inverse of forward, times n.
  void backward(double* re, double* im) const { backward(re, im, n_, twiddles_.data()); }

  /// Where frequency n - f lies, when f lies at p.
  static std::size_t mirror(std::size_t p) {
    std::size_t block = 1;  // the frequencies at block..2 block - 1 are the odd multiples of n / (2 block)
    while (2 * block <= p) block *= 2;
    return p == 0 ? 0 : 3 * block - 1 - p;
  }

 private:
  [[gnu::noinline]] static void forward(double* re, double* im, std::size_t m, const double* w) {
    if (m <= 4) return small(re, im, m, 1);
    const std::size_t q = m / 4;
    double *const r0 = re, *const r1 = re + q, *const r2 = re + 2 * q, *const r3 = re + 3 * q;
    double *const i0 = im, *const i1 = im + q, *const i2 = im + 2 * q, *const i3 = im + 3 * q;
#if !defined(__clang__)
#pragma GCC ivdep
#endif
    for (std::size_t j = 0; j < q; ++j) {
      const double t0r = r0[j] + r2[j], t0i = i0[j] + i2[j], t1r = r0[j] - r2[j], t1i = i0[j] - i2[j];
      const double t2r = r1[j] + r3[j], t2i = i1[j] + i3[j], t3r = i1[j] - i3[j], t3i = r3[j] - r1[j];  // times -i
      const double ar = t0r - t2r, ai = t0i - t2i, br = t1r + t3r, bi = t1i + t3i, cr = t1r - t3r, ci = t1i - t3i;
      const double *const w1 = w + j, *const w2 = w1 + 2 * q, *const w3 = w1 + 4 * q;
      r0[j] = t0r + t2r, i0[j] = t0i + t2i;
      r1[j] = ar * w2[0] - ai * w2[q], i1[j] = ar * w2[q] + ai * w2[0];
      r2[j] = br * w1[0] - bi * w1[q], i2[j] = br * w1[q] + bi * w1[0];
      r3[j] = cr * w3[0] - ci * w3[q], i3[j] = cr * w3[q] + ci * w3[0];
    }
    for (std::size_t part = 0; part < 4; ++part) forward(re + part * q, im + part * q, q, w + 6 * q);
  }

  [[gnu::noinline]] static void backward(double* re, double* im, std::size_t m, const double* w) {
    if (m <= 4) return small(re, im, m, -1);
    const std::size_t q = m / 4;
    for (std::size_t part = 0; part < 4; ++part) backward(re + part * q, im + part * q, q, w + 6 * q);
    double *const r0 = re, *const r1 = re + q, *const r2 = re + 2 * q, *const r3 = re + 3 * q;
    double *const i0 = im, *const i1 = im + q, *const i2 = im + 2 * q, *const i3 = im + 3 * q;
#if !defined(__clang__)
#pragma GCC ivdep
#endif
    for (std::size_t j = 0; j < q; ++j) {
      const double *const w1 = w + j, *const w2 = w1 + 2 * q, *const w3 = w1 + 4 * q;
      const double ar = r1[j] * w2[0] + i1[j] * w2[q], ai = i1[j] * w2[0] - r1[j] * w2[q];
      const double br = r2[j] * w1[0] + i2[j] * w1[q], bi = i2[j] * w1[0] - r2[j] * w1[q];
      const double cr = r3[j] * w3[0] + i3[j] * w3[q], ci = i3[j] * w3[0] - r3[j] * w3[q];
      const double t0r = r0[j] + ar, t0i = i0[j] + ai, t1r = r0[j] - ar, t1i = i0[j] - ai;
      const double t2r = br + cr, t2i = bi + ci, t3r = ci - bi, t3i = br - cr;  // times i
      r0[j] = t0r + t2r, i0[j] = t0i + t2i, r1[j] = t1r + t3r, i1[j] = t1i + t3i;
      r2[j] = t0r - t2r, i2[j] = t0i - t2i, r3[j] = t1r - t3r, i3[j] = t1i - t3i;
    }
  }

  /// Lengths 1, 2 and 4, without twiddles. sign: 1 forward, -1 backward (where the order of x and spectrum is swapped).
  static void small(double* re, double* im, std::size_t m, double sign) {
    if (m == 2) {
      const double r = re[0] - re[1], i = im[0] - im[1];
      re[0] += re[1], im[0] += im[1], re[1] = r, im[1] = i;
    } else if (m == 4) {
      const std::size_t p = sign > 0 ? 2 : 1, o = 3 - p;  // x comes, and the spectrum goes, in order; or the reverse
      const double t0r = re[0] + re[p], t0i = im[0] + im[p], t1r = re[0] - re[p], t1i = im[0] - im[p];
      const double t2r = re[o] + re[3], t2i = im[o] + im[3];
      const double t3r = sign * (im[o] - im[3]), t3i = sign * (re[3] - re[o]);
      re[0] = t0r + t2r, im[0] = t0i + t2i, re[o] = t0r - t2r, im[o] = t0i - t2i;
      re[p] = t1r + t3r, im[p] = t1i + t3i;
      re[3] = t1r - t3r, im[3] = t1i - t3i;
    }
  }

  std::size_t n_;
  std::vector<double> twiddles_;
};

}  // namespace dpsgd::detail
