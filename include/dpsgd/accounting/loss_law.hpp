/// One step's privacy loss on a grid: a law that spends more than the Poisson-sampled Gaussian, and one that spends
/// less.
///
/// A step releases x from A = (1 - q) N(0, s^2) + q N(1, s^2) with the row, or from B = N(0, s^2) without it (rate q,
/// multiplier s; the sensitivity is the unit). Its ratio and its loss are
///   R(x) = dA/dB = 1 - q + q e^((x - 1/2)/s^2),   l(x) = ln R(x), which grows with x from ln(1 - q) on.
/// A discrete pair of laws puts masses b_i of B on losses l_i = offset + i h, and masses e^(l_i) b_i of A.
///
///   upper  connect-the-dots (Doroshenko et al. 2022): the B-mass of a cell between neighbouring losses goes to its two
///          ends, so that its A-mass stays as it is. Every convex function of R then has a larger mean, and so has
///          delta.
///   lower  all x of an interval are told apart no more, and count as one outcome, whose loss is the interval's mean
///          ratio: post-processing, which never adds to delta. The intervals are cut so that these losses lie on the
///          grid.
///
/// Both err by the square of the grid's step (rounding each loss up, or down, would err by its first power), and both
/// hold for any number of steps composed: an order of pairs of laws is kept by products.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

namespace dpsgd::detail {

/// B-masses on the grid. What the tails beyond hold is left out; of A and of B it is at most `left_out` each.
struct loss_law {
  struct atom {
    std::int64_t knot;  // the loss is offset + knot * h
    double loss;        // that, rounded
    double log_mass;    // ln of the B-mass
  };
  double offset = 0;
  std::vector<atom> atoms;
  double left_out = 0;

  void add(std::int64_t knot, double loss, double log_mass) {
    if (log_mass > -std::numeric_limits<double>::infinity()) atoms.push_back({knot, loss, log_mass});
  }
};

/// The grid: losses at offset + i step. Away from 0, where a ratio is told by its first digits, the knots that are used
/// lie 2^k steps apart, up to |loss| / fineness (and 64 / fineness: a large loss comes from a thin tail).
struct loss_grid {
  double step, fineness, offset;

  double loss(std::int64_t knot) const { return offset + static_cast<double>(knot) * step; }
  /// The last knot used at or below the loss l, and the first one well above l.
  std::int64_t at_or_below(double l) const { return index(l) & -spacing(l); }
  std::int64_t above(double l) const {
    std::int64_t knot = at_or_below(l) + spacing(l);
    while (loss(knot) <= l + step / 256) ++knot;
    return knot;
  }
  std::int64_t after(std::int64_t knot) const {
    const auto k = spacing(loss(knot));
    return (knot & -k) + k;
  }

 private:
  std::int64_t index(double l) const { return static_cast<std::int64_t>(std::floor((l - offset) / step)); }
  std::int64_t spacing(double l) const {
    const double room = std::min(std::abs(l), 64.0) / (fineness * step);
    return room < 2 ? 1 : std::int64_t{1} << std::min(40, std::ilogb(room));
  }
};

/// The privacy loss of one step of Gaussian noise on a Poisson batch, 0 < q <= 1 and 0 < s < infinity.
class sampled_gaussian_loss {
 public:
  /// tail: how much of A, and of B, may be left out.
  sampled_gaussian_loss(double q, double s, double tail)
      : q_(q), s_(s), log_q_(std::log(q)), floor_(std::log1p(-q)), tail_(tail) {
    // A normal variable is beyond z with probability at most e^(-z^2/2)/2: at most a quarter of `tail` is left of
    // left_, in B and so in A; and right of right_ in A, and so in B.
    const auto reach = [](double mass) { return std::sqrt(std::max(0.0, -2 * std::log(mass))); };
    left_ = -s * reach(tail / 2);
    right_ = std::max(s * reach(tail / 4), 1 + s * reach(tail / 4 / q));
  }

  double left() const { return left_; }
  double right() const { return right_; }

  /// l(x).
  double loss(double x) const {
    const double t = exponent(x);
    if (t > 30) return t + log_q_ + std::log1p((1 - q_) / q_ * std::exp(-t));
    const double less_one = q_ * std::expm1(t);
    return less_one > -0.5 ? std::log1p(less_one) : std::log(1 - q_ + q_ * std::exp(t));
  }

  loss_law upper(loss_grid grid) const {
    loss_law law{grid.offset, {}, tail_};
    std::int64_t knot = grid.at_or_below(std::max(floor_, loss(left_)));
    double a = grid.loss(knot), x = place(a), so_far = none;  // the left end of a cell, and ln of the mass put there
    while (x < right_) {
      const std::int64_t next = grid.after(knot);
      const double b = grid.loss(next), x_next = place(b);
      double to_a = none, to_b = none;
      if (x < x_next) {
        // With a the reference R is e^a (1 + expm1((x - x_a)/s^2)/v(a)); the mean of R says how the mass is shared.
        const bool whole = std::isinf(x);  // no x has a loss below a: seen from b then
        const auto cell = whole ? piece(x_next, -infinity) : piece(x, x_next - x);
        const double share = whole ? 1 + cell.mean / (steepness(b) * -std::expm1(a - b))  // of b
                                   : cell.mean / (steepness(a) * std::expm1(b - a));
        to_a = cell.log_mass + std::log1p(-std::clamp(share, 0.0, 1.0));
        to_b = cell.log_mass + std::log(std::clamp(share, 0.0, 1.0));
      }
      law.add(knot, a, log_sum(so_far, to_a));
      knot = next, a = b, x = x_next, so_far = to_b;
    }
    law.add(knot, a, so_far);
    return law;
  }

  /// Chooses the grid's offset: the loss of its first outcome, which is everything left of a point t.
  loss_law lower(loss_grid& grid) const {
    loss_law law{0, {}, tail_};
    double t = left_;
    if (loss(t) - floor_ < grid.step / 2)  // (tiny rates: nearly all of B is here)
      t = std::max(left_, place(floor_ + grid.step / 2));
    const auto first = piece(t, -infinity);
    law.offset = grid.offset = loss(t) + std::log1p(first.mean / steepness_at(t));
    law.add(0, grid.offset, first.log_mass);
    while (t < right_) {
      const double l = loss(t);
      const auto knot = grid.above(l);
      const double e = grid.loss(knot);
      const auto [width, log_mass] = width_with_mean(t, steepness_at(t) * std::expm1(e - l));
      if (width > 0) law.add(knot, e, log_mass);
      t = width > 0 ? t + width  // leaving something out is valid too
                    : std::max(place(e), std::nextafter(t + s_ * s_ * grid.step, right_));
    }
    return law;
  }

 private:
  static constexpr double infinity = std::numeric_limits<double>::infinity(), none = -infinity;

  static double log_sum(double a, double b) {
    const double most = std::max(a, b);
    return most == none ? none : most + std::log1p(std::exp(std::min(a, b) - most));
  }

  double exponent(double x) const { return (x - 0.5) / (s_ * s_); }

  /// e^l - (1 - q): the part of R that grows with x, q e^((x - 1/2)/s^2).
  double growing(double l) const {
    const double less_one = std::expm1(l);
    return less_one > -0.5 ? less_one + q_ : std::exp(l) - (1 - q_);
  }

  /// The x whose loss is l; -infinity where no x has so small a loss.
  double place(double l) const {
    double log_ratio;  // ln(growing / q)
    if (l > 1) log_ratio = l + std::log1p((q_ - 1) * std::exp(-l)) - log_q_;
    else if (const double less_one = std::expm1(l); std::abs(less_one) < q_ / 2) log_ratio = std::log1p(less_one / q_);
    else if (const double w = growing(l); w > 1e-12 * q_) log_ratio = std::log(w / q_);
    else return -infinity;
    return s_ * s_ * log_ratio + 0.5;
  }

  /// v = e^l / (e^l - (1 - q)), so that dx/dl = s^2 v, and R at x + d is e^l (1 + expm1(d/s^2)/v).
  double steepness(double l) const { return l > 1 ? 1 / (1 + (q_ - 1) * std::exp(-l)) : std::exp(l) / growing(l); }
  double steepness_at(double x) const { return std::exp(loss(x) - exponent(x) - log_q_); }

  /// What B has between two points: ln of its mass there, and the mean there of expm1((x - t)/s^2).
  struct part {
    double log_mass, mean;
  };

  /// Between t and t + width (left of t where width < 0, perhaps -infinity). Gauss-Legendre quadrature of five nodes on
  /// panels over which no exponent changes by more than a half, so that it is exact to rounding; nothing is subtracted.
  part piece(double t, double width) const {
    static constexpr double nodes[5] = {0.0469100770306680036, 0.230765344947158454, 0.5, 0.769234655052841546,
                                        0.953089922969331996};
    static constexpr double weights[5] = {0.118463442528094544, 0.239314335249683234, 0.284444444444444444,
                                          0.239314335249683234, 0.118463442528094544};
    const double sign = width < 0 ? -1 : 1, z = sign * t / s_,
                 wide = std::abs(width) / s_;  // u = sign x/s: z to z + wide
    const double nearest = std::max(z, std::min(0.0, z + wide)), peak = nearest * nearest / 2;
    const double reach = std::sqrt(nearest * nearest + 160);  // beyond it the density is e^-80 of its peak
    const double to = std::min(wide, reach - z);
    double mass = 0, moment = 0;
    for (double from = std::max(0.0, -reach - z); from < to;) {
      const double panel = std::min(to - from, 0.5 / (std::abs(z + from) + 2 + 1 / s_));
      for (int i = 0; i < 5; ++i) {
        const double y = from + nodes[i] * panel, u = z + y, density = weights[i] * panel * std::exp(peak - u * u / 2);
        mass += density;
        moment += density * std::expm1(sign * y / s_);
      }
      from += panel;
    }
    return {std::log(mass) - peak - log_root_two_pi, moment / mass};
  }

  /// The width of the interval from t on in which the mean of expm1((x - t)/s^2) is `mean`, and ln of its B-mass; 0
  /// where even infinity is too narrow. Newton's method between bounds.
  std::pair<double, double> width_with_mean(double t, double mean) const {
    const double least = s_ * s_ * std::log1p(mean);  // there the integrand is `mean` at the end
    const double far = std::max(2 * least, right_ + 10 * s_ - t);
    double low = least, high = infinity, width = 2 * least;
    for (int i = 0; i < 60; ++i) {
      const auto now = piece(t, width);
      const double end = (t + width) / s_, missing = mean - now.mean;
      if (missing > 0 && width >= far) break;
      (missing > 0 ? low : high) = width;
      const double density = std::exp(-end * end / 2 - log_root_two_pi - now.log_mass) / s_;  // of the mass
      const double change = missing / (density * (std::expm1(width / (s_ * s_)) - now.mean));
      if (std::abs(change) < 1e-8 * width) return {width + change, now.log_mass + std::log1p(change * density)};
      width += change;
      if (!(width > low && width < std::min(high, far))) width = high == infinity ? far : (low + high) / 2;
    }
    return {0, 0};
  }

  static constexpr double log_root_two_pi = 0.918938533204672742;  // ln sqrt(2 pi)
  double q_, s_, log_q_, floor_, tail_, left_ = 0, right_ = 0;
};

}  // namespace dpsgd::detail
