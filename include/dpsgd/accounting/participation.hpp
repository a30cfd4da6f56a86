/// How far one row moves the release of correlated noise, when it joins once every `separation` steps.
///
/// Correlated noise (privacy/correlated_noise.hpp) adds to step t's sum the combination sum_s L[t][s] w_s of independent
/// normal w_0, w_1, ...; L is lower triangular with ones on its diagonal. Since
///   x + L w = L (C x + w),  C = L^-1,
/// who sees all noised sums sees C x + w, and no more: one Gaussian release of C x, also where each sum was chosen after
/// seeing the noised ones before it (Denisov et al. 2022). A row that joins steps p, p + separation, ...
/// moves x there by vectors of at most one sensitivity each. No entry of C is negative, so C x moves furthest when all of
/// them are one and the same, of full length, and then by
///   | C e_p + C e_{p + separation} + ... |;
/// a row that stays away, or a gradient that is shorter, moves it less. What is computed here is the largest of these, p
/// being any of the first steps, squared: "how many releases of the same multiplier the steps are".
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace dpsgd {

/// The coefficients 1, -1/2, -1/8, -1/16, ... of (1 - x)^(1/2), each from the one before: a(i) = a(i - 1) (i - 3/2) / i.
constexpr double next_root_coefficient(double last, std::uint64_t i) {
  return last * ((static_cast<double>(i) - 1.5) / static_cast<double>(i));
}

/// For L with `bands` diagonals, on which the coefficients of (1 - x)^(1/2) stand as floats, which is how the noise has
/// them (the banded inverse square root of Kalinin, McKenna, Upadhyay and Lampert 2025).
///
/// C is Toeplitz: entry (t, s) is c(t - s) >= 0, and c(n) = -sum_{0 < i < bands} a(i) c(n - i). A later p only shifts the
/// moved entries out of the first `steps`, so p = 0 is worst. (As c also falls, so is it among all patterns of steps *at
/// least* `separation` apart: Kalinin and Lampert 2024.) Rounded up by more than the rounding of the sums.
/// Cost: steps x bands additions.
inline double banded_releases(std::uint64_t bands, std::uint64_t steps, std::uint64_t separation) {
  const auto n = static_cast<std::size_t>(steps), apart = static_cast<std::size_t>(std::min(separation, steps));
  std::vector<double> weights;  // -a(1), -a(2), ...
  double a = 1;
  for (std::uint64_t i = 1; i < std::min(bands, steps); ++i) {
    a = next_root_coefficient(a, i);
    weights.push_back(-static_cast<double>(static_cast<float>(a)));
  }
  std::vector<double> c(n), moved(n);
  double square = 0;
  for (std::size_t t = 0; t < n; ++t) {
    if (t == 0) c[t] = 1;
    for (std::size_t i = 1; i <= std::min(t, weights.size()); ++i) c[t] += weights[i - 1] * c[t - i];
    moved[t] = c[t] + (t >= apart ? moved[t - apart] : 0);
    square += moved[t] * moved[t];
  }
  return square * (1 + 0x1p-50 * static_cast<double>(steps) * static_cast<double>(bands + 2));
}

/// For the binary tree: row t of C (counted from 1) adds up the steps (t - lowbit(t), t], the left children of a binary
/// tree of which each step ends one. Every left child with j of the row's steps moves by j: an exact count, which is
/// floor(log2 steps) + 1 for a row that joins once. Cost: steps x log2(steps).
inline double tree_releases(std::uint64_t steps, std::uint64_t separation) {
  double most = 0;
  for (std::uint64_t first = 0; first < std::min(separation, steps); ++first) {
    double square = 0;
    std::uint64_t last[64], count[64] = {};  // by level: the left child that the last step was in, and how many were
    for (std::uint64_t s = first; s < steps; s += separation)
      for (unsigned level = 0; steps >> level != 0; ++level) {
        const std::uint64_t node = s >> level;
        if (node % 2 != 0 || node >= steps >> level) continue;  // a right child, or one that has not ended
        count[level] = count[level] > 0 && last[level] == node ? count[level] + 1 : 1;
        last[level] = node;
        square += 2.0 * static_cast<double>(count[level]) - 1;  // j^2 - (j - 1)^2
      }
    most = std::max(most, square);
  }
  return most;
}

}  // namespace dpsgd
