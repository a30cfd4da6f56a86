/// One step's privacy loss on a grid: a law that spends more than the Poisson-sampled Gaussian, and one that spends
/// less.
///
/// A step releases x from A = (1 - q) N(0, s^2) + q N(1, s^2) with the row, or from B = N(0, s^2) without it (rate q,
/// multiplier s; the sensitivity is the unit). Its ratio and its loss are
///   R(x) = dA/dB = 1 - q + q e^((x - 1/2)/s^2),   l(x) = ln R(x), which grows with x from ln(1 - q) on.
/// Where k rows come and go together, each sampled by itself, j of them are in the batch with the binomial chance w_j,
/// and the worst that they can do is to point the same way (Ganesh 2024, "Tight group-level DP guarantees for DP-SGD
/// with sampling via mixture of Gaussians mechanisms"):
///   A = sum over j of w_j N(j, s^2),   R(x) = sum over j of w_j e^(j (2x - j)/(2 s^2)),   w_j = C(k, j) q^j (1 - q)^(k - j).
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
  double rounding = 0;  // that masses may be wrong by, relative, besides the rounding of their logarithms

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

/// The privacy loss of one step of Gaussian noise on a Poisson batch, 0 < q <= 1 and 0 < s < infinity, for `rows` rows
/// together.
class sampled_gaussian_loss {
 public:
  /// tail: how much of A, and of B, may be left out.
  sampled_gaussian_loss(double q, double s, double tail, int rows = 1)
      : q_(q), s_(s), rows_(rows), log_q_(std::log(q)), floor_(rows * std::log1p(-q)), tail_(tail) {
    double log_choose = 0;  // ln C(rows, j)
    for (int j = 0; j <= rows; ++j) {
      log_weight_.push_back(log_choose + (j ? j * log_q_ : 0.0) + (j < rows ? (rows - j) * std::log1p(-q) : 0.0));
      weight_.push_back(std::exp(log_weight_.back()));
      log_choose += std::log((rows - j) / (j + 1.0));
    }
    someone_ = -std::expm1(floor_);
    if (rows > 1) rounding_ += 0x1p-51 * std::max(-log_weight_.front(), -log_weight_.back());  // of their logarithms
    // A normal variable is beyond z with probability at most e^(-z^2/2)/2: at most a quarter of `tail` is left of
    // left_, in B and so in A; and right of right_ in A, and so in B.
    const auto reach = [](double mass) { return std::sqrt(std::max(0.0, -2 * std::log(mass))); };
    left_ = -s * reach(tail / 2);
    right_ = s * reach(tail / 4);
    for (int j = 1; j <= rows; ++j) right_ = std::max(right_, j + s * reach(tail / 4 / rows / weight_[at(j)]));
  }

  double left() const { return left_; }
  double right() const { return right_; }

  /// l(x).
  double loss(double x) const {
    if (rows_ == 1) {
      const double t = (x - 0.5) / (s_ * s_);
      if (t > 30) return t + log_q_ + std::log1p((1 - q_) / q_ * std::exp(-t));
      const double less_one = q_ * std::expm1(t);
      return less_one > -0.5 ? std::log1p(less_one) : std::log(1 - q_ + q_ * std::exp(t));
    }
    double less_one = 0, sum = 0, top = 0;  // R - 1, and R
    for (int j = 0; j <= rows_; ++j) top = std::max(top, log_term(x, j));
    if (top > 30) {
      for (int j = 0; j <= rows_; ++j) sum += std::exp(log_term(x, j) - top);
      return top + std::log(sum);
    }
    for (int j = 0; j <= rows_; ++j) {
      const double t = exponent(x, j), term = std::exp(log_term(x, j));
      less_one += t < 1 ? weight_[at(j)] * std::expm1(t) : term - weight_[at(j)];
      sum += term;
    }
    return less_one > -0.5 ? std::log1p(less_one) : std::log(sum);
  }

  loss_law upper(loss_grid grid) const {
    loss_law law{grid.offset, {}, tail_, rounding_};
    std::int64_t knot = grid.at_or_below(std::max(floor_, loss(left_)));
    double a = grid.loss(knot), x = place(a), so_far = none;  // the left end of a cell, and ln of the mass put there
    while (x < right_) {
      const std::int64_t next = grid.after(knot);
      const double b = grid.loss(next), x_next = place(b);
      double to_a = none, to_b = none;
      if (x < x_next) {
        // The cell's mean of R says how its mass is shared by the ends, where R is e^a and e^b.
        const bool whole = std::isinf(x);  // no x has a loss below a: seen from b then
        const auto cell = whole ? piece(growth_from(x_next), x_next, -infinity) : piece(growth_from(x), x, x_next - x);
        const double share = whole ? 1 + cell.mean / -std::expm1(a - b)  // of b
                                   : cell.mean / std::expm1(b - a);
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
    loss_law law{0, {}, tail_, rounding_};
    double t = left_;
    if (loss(t) - floor_ < grid.step / 2)  // (tiny rates: nearly all of B is here)
      t = std::max(left_, place(floor_ + grid.step / 2));
    const auto first = piece(growth_from(t), t, -infinity);
    law.offset = grid.offset = loss(t) + std::log1p(first.mean);
    law.add(0, grid.offset, first.log_mass);
    while (t < right_) {
      const double l = loss(t);
      const auto knot = grid.above(l);
      const double e = grid.loss(knot);
      const auto [width, log_mass] = width_with_mean(t, e, std::expm1(e - l));
      const bool moves = t + width > t;  // not where the interval is narrower than doubles around t tell apart
      if (moves) law.add(knot, e, log_mass);
      t = moves ? t + width  // leaving something out is valid too
                : std::max(place(e), std::nextafter(t + s_ * s_ * grid.step, right_));
    }
    return law;
  }

 private:
  static constexpr double infinity = std::numeric_limits<double>::infinity(), none = -infinity;
  static constexpr std::size_t at(int j) { return static_cast<std::size_t>(j); }

  static double log_sum(double a, double b) {
    const double most = std::max(a, b);
    return most == none ? none : most + std::log1p(std::exp(std::min(a, b) - most));
  }

  /// The j-th term of R at x is w_j e^exponent.
  double exponent(double x, int j) const { return j * (x - 0.5 * j) / (s_ * s_); }
  double log_term(double x, int j) const { return log_weight_[at(j)] + exponent(x, j); }

  /// The x whose loss is l; -infinity where no x has so small a loss.
  double place(double l) const {
    // ln of the part of R that grows with x, e^l - (1 - q)^rows, over `someone_`, which it is where R = 1.
    double log_ratio;
    const double less_one = std::expm1(l);
    if (l > 1) log_ratio = l + std::log1p((someone_ - 1) * std::exp(-l)) - std::log(someone_);
    else if (std::abs(less_one) < someone_ / 2) log_ratio = std::log1p(less_one / someone_);
    else if (const double w = less_one > -0.5 ? less_one + someone_ : std::exp(l) - (1 - someone_);
             w > 1e-12 * someone_)
      log_ratio = std::log(w / someone_);
    else return -infinity;
    if (rows_ == 1) return s_ * s_ * log_ratio + 0.5;
    // Newton's method on the logarithm of that part: convex in x, with slopes from 1/s^2 to rows/s^2.
    const double wanted = log_ratio + std::log(someone_);
    double x = s_ * s_ * log_ratio + 0.5;
    for (int i = 0; i < 100; ++i) {
      double top = none, sum = 0, slope = 0;
      for (int j = 1; j <= rows_; ++j) top = std::max(top, log_term(x, j));
      for (int j = 1; j <= rows_; ++j) {
        const double term = std::exp(log_term(x, j) - top);
        sum += term, slope += j * term;
      }
      const double change = (top + std::log(sum) - wanted) * s_ * s_ * sum / slope;
      x -= change;
      if (std::abs(change) <= 1e-15 * (std::abs(x) + s_)) break;
    }
    return x;
  }

  /// How R grows from a point t on: R(t + d)/R(t) - 1 = sum over j of share[j - 1] expm1(j d/s^2).
  using growth = std::vector<double>;
  growth growth_from(double t) const {
    const double l = loss(t);
    growth share;
    for (int j = 1; j <= rows_; ++j) share.push_back(std::exp(log_term(t, j) - l));
    return share;
  }
  /// That sum, with once = expm1(d/s^2).
  static double grown(const growth& share, double once) {
    double all = 0, power = 0;  // expm1(j d/s^2)
    for (const double part : share) {
      power = power * (1 + once) + once;
      all += part * power;
    }
    return all;
  }

  /// What B has between two points: ln of its mass there, and the mean there of R(x)/R(t) - 1.
  struct part {
    double log_mass, mean;
  };

  /// Between t and t + width (left of t where width < 0, perhaps -infinity). Gauss-Legendre quadrature of five nodes on
  /// panels over which no exponent changes by more than a half, so that it is exact to rounding; nothing is subtracted.
  part piece(const growth& share, double t, double width) const {
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
      const double panel = std::min(to - from, 0.5 / (std::abs(z + from) + 2 + rows_ / s_));
      for (int i = 0; i < 5; ++i) {
        const double y = from + nodes[i] * panel, u = z + y, density = weights[i] * panel * std::exp(peak - u * u / 2);
        mass += density;
        moment += density * grown(share, std::expm1(sign * y / s_));
      }
      from += panel;
    }
    return {std::log(mass) - peak - log_root_two_pi, moment / mass};
  }

  /// The width of the interval from t on in which the mean of R(x)/R(t) - 1 is `mean`, which makes its loss e, and ln of
  /// its B-mass; 0 where even infinity is too narrow. Newton's method between bounds.
  std::pair<double, double> width_with_mean(double t, double e, double mean) const {
    const auto share = growth_from(t);
    // Of this width or less, the integrand is at most `mean` at the end.
    const double least = rows_ == 1 ? s_ * s_ * std::log1p(mean / share[0]) : (place(e) - t) * (1 - 1e-6);
    if (!(least > 0)) return {0, 0};
    const double far = std::max(2 * least, right_ + 10 * s_ - t);
    double low = least, high = infinity, width = 2 * least;
    for (int i = 0; i < 60; ++i) {
      const auto now = piece(share, t, width);
      const double end = (t + width) / s_, missing = mean - now.mean;
      if (missing > 0 && width >= far) break;
      (missing > 0 ? low : high) = width;
      const double density = std::exp(-end * end / 2 - log_root_two_pi - now.log_mass) / s_;  // of the mass
      const double change = missing / (density * (grown(share, std::expm1(width / (s_ * s_))) - now.mean));
      if (std::abs(change) < 1e-8 * width) return {width + change, now.log_mass + std::log1p(change * density)};
      width += change;
      if (!(width > low && width < std::min(high, far))) width = high == infinity ? far : (low + high) / 2;
    }
    return {0, 0};
  }

  static constexpr double log_root_two_pi = 0.918938533204672742;  // ln sqrt(2 pi)
  double q_, s_;
  int rows_;
  double log_q_, floor_, tail_, rounding_ = 1e-13, left_ = 0, right_ = 0;
  double someone_ = 0;                       // the chance that a row is sampled
  std::vector<double> weight_, log_weight_;  // w_j
};

}  // namespace dpsgd::detail
