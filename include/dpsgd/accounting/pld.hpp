/// The PLD accountant: epsilon from the law of the privacy loss itself, as an interval [lo, hi] that holds the truth.
///
/// Let A and B be the laws of all that a run releases with and without one row, and loss = ln(dA/dB)
/// (docs/accounting.md says what that means). At every epsilon
///   delta(epsilon) = E_A[(1 - e^(epsilon - loss))+]
/// is exactly the delta that holds. Losses of independent steps add up, so the law of the sum is a convolution, and a
/// Fourier transform makes it a power. What is computed is not that law but two others (accounting/loss_law.hpp): one
/// whose delta is larger at every epsilon, and one whose delta is smaller. Everything that the arithmetic may have got
/// wrong is added to the first and taken from the second:
///
///   tilt        Masses are weighted by e^(lambda loss - K), K so that they sum to 1; with y = loss - epsilon
///                 delta(epsilon) = C E_tilted[f(y)],  f(y) = e^(-lambda y) (1 - e^-y)+,  C = e^(T K - lambda epsilon).
///               lambda minimises the Chernoff bound C max f, max f = m = lambda^lambda/(1 + lambda)^(1 + lambda): then
///               errors relative to that bound are small beside delta, however small delta is.
///   aliasing    The transform knows sums modulo the window's width W. What lies left of the window adds at most
///               1.01 e^(-lambda W); the tilted mass eta right of it (by a second Chernoff bound) at most 2 C m eta.
///   masses      each to a relative r of a step's law: T r C m.
///   transforms  |f| (2 T |p| + 2 |y|) 5 u (log2 n + 2) C, and 8 u T |f| |y| C for the power, 4 u n |f| |y| C for the
///               sums over the window; norms are Euclidean, p is the law of a step, y that of the sum.
///   tails       what was left out of the upper law, T times.
///
/// Both directions, A against B (remove) and B against A (add), are composed separately; hi is the larger one.
#pragma once

#include <algorithm>
#include <cmath>
#include <concepts>
#include <cstdint>
#include <limits>
#include <string_view>
#include <utility>
#include <vector>

#include "dpsgd/accounting/events.hpp"
#include "dpsgd/accounting/fft.hpp"
#include "dpsgd/accounting/loss_law.hpp"

namespace dpsgd {

namespace detail {

/// `steps` equal steps: a Gaussian of multiplier s on Poisson batches of rate q, for `rows` rows together.
struct loss_event {
  double q, s;
  std::uint64_t steps;
  int rows = 1;

  /// ln of the chance that none of the rows is in any of the batches.
  double log_missed() const { return static_cast<double>(steps) * rows * std::log1p(-q); }
};

/// The smallest epsilon at one delta, in one direction: where it surely is not below, and where it surely is not above.
struct epsilon_bounds {
  double lo = -std::numeric_limits<double>::infinity(), hi = std::numeric_limits<double>::infinity();
  bool narrow = false;  // the window is what keeps them apart
};

/// The spectra of a sum of steps under two laws of a step: the products over the events of phi^steps. The first law's
/// lies where frequency f lies, the second's where its mirror does.
class spectrum_product {
 public:
  explicit spectrum_product(std::size_t n) : re(n, 1.0), im(n, 0.0) { im[0] = im[1] = 1; }

  /// step_re, step_im: the transform of both laws of a step, the first in re and the second in im, without their atoms
  /// at knot 0, whose spectrum is constant.
  [[gnu::noinline]] void multiply(const std::vector<double>& step_re, const std::vector<double>& step_im, double first,
                                  double second, std::uint64_t steps) {
    const double least_square = std::exp(-170 / static_cast<double>(steps));  // below it a power is 0 to e^-85
    for (std::size_t p = 0; p < 2; ++p) {  // frequencies 0 and n/2 are real, and their own mirrors
      re[p] *= power({step_re[p] + first, 0}, steps, least_square).re;
      im[p] *= power({step_im[p] + second, 0}, steps, least_square).re;
    }
    const auto put = [&](std::size_t at, complex phi) {
      const complex now = times({re[at], im[at]}, power(phi, steps, least_square));
      re[at] = now.re, im[at] = now.im;
    };
    for (std::size_t block = 2; block < re.size(); block *= 2)
      for (std::size_t p = block, m = 2 * block - 1; p < m; ++p, --m) {
        put(p, {(step_re[p] + step_re[m]) / 2 + first, (step_im[p] - step_im[m]) / 2});
        put(m, {(step_im[p] + step_im[m]) / 2 + second, (step_re[m] - step_re[p]) / 2});
      }
  }

  /// From spectra to masses: the first law's in re, the second's in im.
  [[gnu::noinline]] void transform_back(const fourier& transform) {
    for (std::size_t block = 2; block < re.size(); block *= 2)
      for (std::size_t p = block, m = 2 * block - 1; p < m; ++p, --m) {
        const complex a{re[p], im[p]}, b{re[m], im[m]};
        re[p] = a.re - b.im, im[p] = a.im + b.re;
        re[m] = a.re + b.im, im[m] = b.re - a.im;
      }
    transform.backward(re.data(), im.data());
    for (double& mass : re) mass /= static_cast<double>(re.size());
    for (double& mass : im) mass /= static_cast<double>(im.size());
  }

  std::vector<double> re, im;

 private:
  struct complex {
    double re, im;
  };
  static complex times(complex a, complex b) { return {a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re}; }

  /// z^steps, by squaring.
  static complex power(complex z, std::uint64_t steps, double least_square) {
    if (!(z.re * z.re + z.im * z.im >= least_square)) return {0, 0};
    complex result{1, 0};
    for (;; z = times(z, z)) {
      if (steps & 1) result = times(result, z);
      if ((steps >>= 1) == 0) return result;
    }
  }
};

/// One direction of a composition, at one delta.
class loss_composition {
 public:
  enum direction { remove, add };

  /// Finds the tilt and the window. Cost: 0.2 ms an event.
  [[gnu::noinline]] loss_composition(const std::vector<loss_event>& events, double delta, direction way)
      : events_(events), delta_(delta), remove_(way == remove) {
    for (const auto& e : events) steps_ += static_cast<double>(e.steps);
    tail_ = 5e-7 * delta / steps_;
    for (const auto& e : events) outline_.push_back(outline(e));
    // The Chernoff bound g(lambda)/lambda has a convex g: its derivative changes its sign once.
    double low = std::log(1e-12), high = std::log(1e18);
    while (high - low > 1e-4) {
      const double middle = (low + high) / 2, x = std::exp(middle);
      const auto all = moments(x);
      (x * all.mean - all.log + std::log(delta) + std::log1p(x) > 0 ? high : low) = middle;
    }
    lambda_ = std::exp((low + high) / 2);
    aim(12, 16.2);
  }

  /// Lays the window: from `lower` 1/lambda below where the root is expected, to where e^-right of the tilted mass is
  /// left.
  [[gnu::noinline]] void aim(double lower, double right) {
    lower_ = lower, right_ = right;
    const auto all = moments(lambda_);
    deviation_ = std::sqrt(all.variance);
    start_ = (all.log - std::log(delta_) + log_peak() - lower) / lambda_;
    double edge = std::numeric_limits<double>::infinity();
    for (int i = -1; i < 12; ++i) {
      const double more = std::ldexp(std::sqrt(2 * right), -i) / deviation_;
      const double at = (moments(lambda_ + more).log - all.log + right) / more;
      if (at < edge) edge = at, more_ = more;
    }
    width_ = std::max((9.5 - std::log(delta_)) / lambda_, edge - start_);
  }
  /// Widens the window, for a root that lies further left, or a delta far below the Chernoff bound.
  void widen(bool left) { aim(left ? lower_ + 24 : lower_, right_ + 14); }

  /// The grid's length with which to begin.
  std::size_t first_length() const {
    const double wanted = width_ / (deviation_ / std::sqrt(steps_)) * 2;
    std::size_t n = 512;
    while (n < (std::size_t{1} << 15) && static_cast<double>(n) < wanted) n *= 2;
    return n;
  }

  /// Bounds by a grid of n points. Cost: 1 to 3 ms for the laws of each event, and two transforms.
  [[gnu::noinline]] epsilon_bounds on_grid(std::size_t n, double fineness) const {
    const double h = width_ / static_cast<double>(n);
    if (!(h < 16)) return {};  // too coarse for any law
    const fourier transform(n);
    std::vector<double> re(n), im(n);
    spectrum_product product(n);
    sums upper, lower;
    double offset = 0, shift_error = 0, step_errors = 0, power_errors = 0;
    for (const auto& e : events_) {
      const sampled_gaussian_loss loss(e.q, e.s, tail_, e.rows);
      loss_grid grid{h, fineness, 0};
      if (std::max(std::abs(loss.loss(loss.left())), loss.loss(loss.right())) > 0x1p50 * h)
        return {};  // beyond doubles
      const auto below = loss.lower(grid), above = loss.upper(grid);
      const double steps = static_cast<double>(e.steps);
      std::fill(re.begin(), re.end(), 0.0), std::fill(im.begin(), im.end(), 0.0);
      spread(above, steps, upper, re);
      spread(below, steps, lower, im);
      upper.left_out += steps * above.left_out;
      offset += steps * (remove_ ? grid.offset : -grid.offset);
      shift_error += steps * std::abs(grid.offset);
      const double upper_atom = std::exchange(re[0], 0.0), lower_atom = std::exchange(im[0], 0.0);
      step_errors += steps * (transform_error(n) + 2 * u) * norm(re, im);
      power_errors += steps * (4 + upper_atom + lower_atom) * u;
      transform.forward(re.data(), im.data());
      product.multiply(re, im, upper_atom, lower_atom, e.steps);
    }
    product.transform_back(transform);
    const double sum_norm = norm(product.re, product.im), reach = 2 / (lambda_ * h) + 2;  // 1.8/(lambda h) + 1 knots
    const double transforms = 2 * step_errors + 2 * transform_error(n) * sum_norm + power_errors * sum_norm +
                              8 * std::numeric_limits<long double>::epsilon() * reach * sum_norm;

    const double first = std::ceil((start_ - offset) / h);  // the window's first knot
    const window w{h, offset + first * h, modulo(first, n)};
    const double shift = 8 * u * (shift_error + std::abs(offset) + std::abs(first * h) + width_);
    epsilon_bounds found;
    const double missed = beyond(upper, w), wrong = error(upper, h, transforms);
    found.hi = highest(product.re, w, upper.log, missed + wrong, upper.left_out) + shift;
    found.lo = lowest(product.im, w, lower.log, beyond(lower, w) + error(lower, h, transforms)) - shift;
    found.narrow = missed > wrong || std::isinf(found.lo);
    return found;
  }

 private:
  static constexpr double u = 0x1p-53;

  /// Sums over the events of steps times ...
  struct sums {
    double log = 0;        // K at lambda
    double log_right = 0;  // K at lambda + more
    double rounding = 0;   // the relative error of the masses
    double left_out = 0;
  };
  struct window {
    double h, start;  // knots at start + j h
    std::size_t at;   // where knot 0 lies in the arrays
  };
  struct moment {
    double log = 0, mean = 0, variance = 0;  // ln E_P[e^(lambda loss)], and of the tilted loss
  };
  /// A step's loss by its values at some points: good enough to choose the tilt and the window, which any numbers
  /// serve.
  struct sketch {
    std::vector<double> log_mass, loss;  // under the first law of this direction
    double steps;
  };

  [[gnu::noinline]] sketch outline(const loss_event& e) const {
    const sampled_gaussian_loss loss(e.q, e.s, tail_, e.rows);
    const double from = loss.left(), range = loss.right() - from;
    const int points = static_cast<int>(std::clamp(8 * range / e.s, 64.0, 8192.0));
    sketch all{{}, {}, static_cast<double>(e.steps)};
    for (int i = 0; i <= points; ++i) {
      const double x = from + range * i / points, l = loss.loss(x), z = x / e.s;
      all.log_mass.push_back(-z * z / 2 + std::log(range / points / e.s / 2.5066282746310002) + (remove_ ? l : 0));
      all.loss.push_back(remove_ ? l : -l);
    }
    return all;
  }

  [[gnu::noinline]] moment moments(double lambda) const {
    moment all;
    for (const auto& part : outline_) {
      double most = -std::numeric_limits<double>::infinity(), mass = 0, first = 0, second = 0;
      for (std::size_t i = 0; i < part.loss.size(); ++i)
        most = std::max(most, part.log_mass[i] + lambda * part.loss[i]);
      for (std::size_t i = 0; i < part.loss.size(); ++i) {
        const double weight = std::exp(part.log_mass[i] + lambda * part.loss[i] - most);
        mass += weight, first += weight * part.loss[i];
      }
      const double mean = first / mass;
      for (std::size_t i = 0; i < part.loss.size(); ++i) {
        const double weight = std::exp(part.log_mass[i] + lambda * part.loss[i] - most), away = part.loss[i] - mean;
        second += weight * away * away;
      }
      all.log += part.steps * (most + std::log(mass));
      all.mean += part.steps * mean, all.variance += part.steps * second / mass;
    }
    return all;
  }

  /// ln m.
  double log_peak() const { return -lambda_ * std::log1p(1 / lambda_) - std::log1p(lambda_); }

  static double norm(const std::vector<double>& re, const std::vector<double>& im) {
    double square = 0;
    for (std::size_t i = 0; i < re.size(); ++i) square += re[i] * re[i] + im[i] * im[i];
    return std::sqrt(square);
  }

  static std::size_t modulo(double knot, std::size_t n) {
    return static_cast<std::size_t>(static_cast<std::int64_t>(knot)) & (n - 1);
  }

  /// Puts the tilted masses of one step at their knots modulo n.
  [[gnu::noinline]] void spread(const loss_law& law, double steps, sums& all, std::vector<double>& masses) const {
    const double k = remove_ ? 1 + lambda_ : -lambda_, more = remove_ ? more_ : -more_;
    double most = -std::numeric_limits<double>::infinity(), most_right = most, mass = 0, right = 0, rounding = 0;
    for (const auto& a : law.atoms) {
      most = std::max(most, a.log_mass + k * a.loss);
      most_right = std::max(most_right, a.log_mass + (k + more) * a.loss);
    }
    for (const auto& a : law.atoms) {
      mass += std::exp(a.log_mass + k * a.loss - most);
      right += std::exp(a.log_mass + (k + more) * a.loss - most_right);
    }
    const double log_mass = most + std::log(mass);
    for (const auto& a : law.atoms) {
      const double share = std::exp(a.log_mass + k * a.loss - log_mass);
      masses[static_cast<std::size_t>(remove_ ? a.knot : -a.knot) & (masses.size() - 1)] += share;
      rounding += share * (std::abs(a.log_mass) + std::abs(k * a.loss));
    }
    all.log += steps * log_mass;
    all.log_right += steps * (most_right + std::log(right));
    all.rounding += steps * (law.rounding + 4 * u * rounding);
  }

  /// The errors of E_tilted[f]: by what lies right of the window, ...
  double beyond(const sums& all, const window& w) const {
    return 2 * std::exp(log_peak() + std::min(0.0, all.log_right - all.log - more_ * (w.start + width_)));
  }
  /// ... and by rounding.
  double error(const sums& all, double h, double transforms) const {
    const double peak = std::exp(log_peak());
    return peak * all.rounding +
           std::sqrt(1 / (2 * lambda_ * (2 * lambda_ + 1) * (lambda_ + 1)) / h + peak * peak) * transforms;
  }

  /// Of a transform, relative, in the Euclidean norm.
  static double transform_error(std::size_t n) { return 5 * u * (std::log2(static_cast<double>(n)) + 2); }

  /// Of C, relative.
  double exponent_error(const window& w, double log) const {
    return 1e-12 + 8 * u * (std::abs(log) + lambda_ * (std::abs(w.start) + width_));
  }

  double aliasing() const { return 1.01 * std::exp(-lambda_ * width_); }

  /// The smallest epsilon at which delta of the upper law, with all errors, is at most delta_.
  [[gnu::noinline]] double highest(const std::vector<double>& masses, const window& w, double log, double error,
                                   double left_out) const {
    const double room = delta_ * (1 - exponent_error(w, log)) - left_out - aliasing();
    const long double h = w.h, decay = std::exp(-lambda_ * h), gain = decay * -std::expm1(-h),
                      fast = decay * std::exp(-h);
    const std::size_t n = masses.size();
    long double payoff = 0, rest = 0, allowed = 0;
    for (std::size_t j = n; j-- > 0;) {
      if (j % 64 == 63 || j + 1 == n)
        allowed = room * std::exp(lambda_ * (w.start + static_cast<double>(j) * w.h) - log);
      else allowed *= decay;
      const long double payoff_here = decay * payoff + gain * rest;
      const long double rest_here = fast * rest + masses[(w.at + j) & (n - 1)];
      if (!(payoff_here + error <= allowed)) {  // the knot above is the last one that holds
        if (j + 1 == n) return std::numeric_limits<double>::infinity();
        const double above = w.start + static_cast<double>(j + 1) * w.h;
        const double spare =
            room * std::exp(lambda_ * above - log) - error / decay - payoff;  // delta is linear in e^epsilon
        const double part = spare > 0 && spare < rest ? -std::log1p(-spare / rest) : 0;
        return above - std::min(part, w.h);
      }
      payoff = payoff_here, rest = rest_here;
    }
    return w.start;
  }

  /// The largest epsilon at which delta of the lower law, less all errors, is at least delta_.
  [[gnu::noinline]] double lowest(const std::vector<double>& masses, const window& w, double log, double error) const {
    const double needed_delta = delta_ * (1 + exponent_error(w, log)) + aliasing();
    const long double h = w.h, decay = std::exp(-lambda_ * h), gain = decay * -std::expm1(-h),
                      fast = decay * std::exp(-h);
    const std::size_t n = masses.size();
    long double payoff = 0, rest = 0, needed = 0;
    for (std::size_t j = n; j-- > 0;) {
      if (j % 64 == 63 || j + 1 == n)
        needed = needed_delta * std::exp(lambda_ * (w.start + static_cast<double>(j) * w.h) - log);
      else needed *= decay;
      const long double payoff_here = decay * payoff + gain * rest;
      const long double rest_here = fast * rest + masses[(w.at + j) & (n - 1)];
      if (payoff_here - error >= needed) {  // this knot holds, the one above does not
        const double here = w.start + static_cast<double>(j) * w.h, above = here + w.h;
        const double missing = needed_delta * std::exp(lambda_ * above - log) + error / decay - payoff;
        const double part = missing > 0 && missing < rest ? -std::log1p(-missing / rest) : w.h;
        return std::max(here, above - part);
      }
      payoff = payoff_here, rest = rest_here;
    }
    return -std::numeric_limits<double>::infinity();
  }

  const std::vector<loss_event>& events_;
  double delta_, steps_ = 0, tail_ = 0;
  bool remove_;
  std::vector<sketch> outline_;
  double lambda_ = 0, more_ = 0, deviation_ = 0, lower_ = 0, right_ = 0, start_ = 0, width_ = 0;
};

/// Bounds of the smallest epsilon at `delta`, both directions, by grids ever finer until the gap is small: at most
/// max(1e-3 hi, 1e-9), above 20 a quarter of that, or until `question` lies outside of it, or until a finer grid would
/// not help.
class loss_search {
 public:
  loss_search(const std::vector<loss_event>& events, double delta)
      : remove_(events, delta, loss_composition::remove), add_(events, delta, loss_composition::add) {
    double most = 0;  // the loss of B against A: R is at least the chance that no row is sampled
    for (const auto& e : events) most -= e.log_missed();
    add_.best.hi = most * (1 + 1e-12);
  }

  [[gnu::noinline]] epsilon_bounds bounds(double question) {
    while (true) {
      const epsilon_bounds now{std::max({0.0, remove_.best.lo, add_.best.lo}),
                               std::max({0.0, remove_.best.hi, add_.best.hi})};
      const double gap = std::isinf(now.hi) ? 0 : std::max((now.hi > 20 ? 2.5e-4 : 1e-3) * now.hi, 1e-9);
      if (now.hi - now.lo <= gap || now.hi <= question || now.lo > question) return {std::min(now.lo, now.hi), now.hi};
      const bool finer = remove_.refine(now.lo, gap);
      const bool finer_too = add_.refine(std::max(now.lo, remove_.best.lo), gap);
      if (!finer && !finer_too) return now;
    }
  }

 private:
  struct side {
    side(const std::vector<loss_event>& events, double delta, loss_composition::direction way)
        : law(events, delta, way), next(law.first_length()) {}

    /// Tries the next grid, unless this direction is near enough to `lo` already. False: nothing was left to try.
    bool refine(double lo, double wanted) {
      const double gap = best.hi - lo;
      if (gap <= wanted || next > longest) return false;
      const auto found = law.on_grid(next, fineness);
      best.lo = std::max(best.lo, found.lo), best.hi = std::min(best.hi, found.hi);
      // The gap falls with the square of the grid's step. Where it does not, errors decide: then a wider window may
      // help.
      const double now = best.hi - std::max(lo, best.lo), expected = gap / (grown * grown);
      if (!(now < 3 * expected) && found.narrow) law.widen(std::isinf(found.lo));
      grown = 2;
      while (grown < 4 && now / (grown * grown) > 0.9 * wanted) grown *= 2;
      next = next == longest ? next + 1 : std::min(longest, next * grown);
      fineness *= 2;
      return true;
    }

    static constexpr std::size_t longest = std::size_t{1} << 20;
    loss_composition law;
    std::size_t next, grown = 1;
    double fineness = 128;
    epsilon_bounds best;
  };
  side remove_, add_;
};

}  // namespace detail

/// Adds up Gaussian events, Poisson-sampled or not, under zero-out adjacency, by the law of their privacy loss. Any
/// mixture of them composes. hi - lo is at most max(1e-3 hi, 1e-9), save where rounding does not allow it (a single
/// rare hit among 10^6 steps: 2.3e-3); what is claimed is hi.
///   add    O(number of distinct events)
///   spent  1 to 3 ms for a thousand steps of one event, 5 to 25 ms for a million, up to 0.3 s where a single hit
///          decides; each further event 1 to 3 ms for its law and one more transform. k rows of one owner: some k^2
///          times as long (64 rows: a second or two)
/// A value, and const: copies and threads are independent.
class pld_accountant {
 public:
  static constexpr std::string_view name = "PLD";

  struct result {
    double epsilon;     // hi: the true epsilon is not above
    double epsilon_lo;  // nor is it below this
  };

  /// `steps` releases of `event`. Throws dpsgd::error on impossible numbers (NaN, a rate above 1, ...).
  [[gnu::noinline]] void add(const poisson_sampled<gaussian_event<zero_out>>& event, std::uint64_t steps) {
    event.check();
    if (steps == 0) return;
    unit_.add(event);
    if (event.is_free()) return;
    detail::loss_event step{event.rate, event.event.multiplier, steps, static_cast<int>(event.event.rows)};
    if (step.q == 1) step.s /= step.rows, step.rows = 1;  // all of them are in every batch
    for (auto& e : events_)
      if (e.q == step.q && e.s == step.s && e.rows == step.rows) {
        require(steps <= ~e.steps, "more steps than can be counted");
        e.steps += steps;
        return;
      }
    events_.push_back(step);
  }
  void add(const gaussian_event<zero_out>& event, std::uint64_t steps) { add(poisson_sampled{1.0, event}, steps); }

  /// `steps` steps in a row from the begin of a run: as many Gaussian releases as epochs they begin.
  void add(const once_per_epoch<gaussian_event<zero_out>>& event, std::uint64_t steps) {
    event.check();
    add(event.event, event.releases(steps));
  }

  /// All steps of one key: one Gaussian release.
  template <one_release_event Event>
  requires std::same_as<typename Event::adjacency, zero_out>
  void add(const Event& event, std::uint64_t steps) {
    event.check();
    if (steps > 0) add(event.release(steps), 1);
  }

  /// A step without protection: epsilon is infinite from now on.
  void add(const no_privacy_event& event, std::uint64_t steps) {
    event.check();
    exposed_ = exposed_ || steps > 0;
  }

  /// The smallest epsilon that holds at `delta`, as an interval; never negative. Edges: nothing spent gives 0, also at
  /// delta = 0; else delta = 0 gives infinity (a Gaussian's loss is unbounded). A delta of at least the chance to be
  /// sampled at all, 1 - (1 - q)^T, gives exactly 0. A multiplier of 0 gives infinity below that delta, and hi counts
  /// one below 1/32 as 0. Throws dpsgd::error when delta is negative or NaN, and where rounding leaves nothing that
  /// could be certified (far beyond 10^9 steps).
  result spent(double delta) const { return answer(delta, std::numeric_limits<double>::quiet_NaN(), true); }

  /// Whether spent(delta).epsilon <= epsilon. Cheaper: grids only as fine as it takes to tell. False
  /// where spent() would refuse.
  bool keeps(double epsilon, double delta) const { return answer(delta, epsilon, false).epsilon <= epsilon; }

 private:
  static constexpr double least_multiplier = 1.0 / 32;

  [[gnu::noinline]] result answer(double delta, double question, bool refuse) const {
    require(delta >= 0, "delta must be a number >= 0; got ", delta);
    constexpr double infinity = std::numeric_limits<double>::infinity();
    if ((events_.empty() && !exposed_) || delta >= 1) return {0, 0};
    if (exposed_ || delta == 0) return {infinity, infinity};

    // Rows that no step samples are told apart by nothing. A noise too small counts as none: who is sampled is seen.
    std::vector<detail::loss_event> all, protected_ones;
    double log_unsampled = 0, log_unseen = 0;
    bool no_noise = false;
    for (auto e : events_) {
      log_unsampled += e.log_missed();
      if (e.s < least_multiplier) log_unseen += e.log_missed();
      else protected_ones.push_back(e);
      no_noise = no_noise || e.s == 0;
      e.s = std::max(e.s, least_multiplier);
      all.push_back(e);
    }
    if (delta >= -std::expm1(log_unsampled)) return {0, 0};
    const double seen = -std::expm1(log_unseen);
    if (protected_ones.size() == all.size()) return certified(detail::loss_search(all, delta).bounds(question), refuse);
    if (no_noise && delta < seen) return {infinity, infinity};
    auto found = detail::loss_search(all, delta).bounds(question);  // more noise than there is: for lo alone
    found.hi = infinity;
    if (delta > seen && !protected_ones.empty())
      found.hi = detail::loss_search(protected_ones, (delta - seen) / (1 - seen)).bounds(question).hi - log_unseen;
    return {found.hi, std::min(found.lo, found.hi)};
  }

  static result certified(const detail::epsilon_bounds& found, bool refuse) {
    require(!refuse || found.hi < std::numeric_limits<double>::infinity(),
            "the PLD accountant cannot certify an epsilon here: rounding errors could exceed delta; ask for a larger "
            "delta, or use rdp_accountant, whose bound is looser but needs no grid");
    return {found.hi, found.lo};
  }

  std::vector<detail::loss_event> events_;
  protected_unit unit_;
  bool exposed_ = false;
};
static_assert(accounts<pld_accountant, gaussian_event<zero_out>>);
static_assert(accounts<pld_accountant, poisson_sampled<gaussian_event<zero_out>>>);
static_assert(accounts<pld_accountant, once_per_epoch<gaussian_event<zero_out>>>);
static_assert(accounts<pld_accountant, cyclically_sampled<correlated_gaussian_event<zero_out>>>);
static_assert(!accounts<pld_accountant, correlated_gaussian_event<zero_out>>);
static_assert(accounts<pld_accountant, no_privacy_event>);
// No pair of laws is known to dominate a fixed-size batch's and to compose (Lebeda et al. 2024): moments alone.
static_assert(!accounts<pld_accountant, fixed_size_sampled<gaussian_event<zero_out>>>);

}  // namespace dpsgd
