// EXPECT: dpsgd: a clip with coordinates of its own needs all of extra, contribution(norm, k), next(k, mean)
// ERRORS: 1
// A count that nobody loads, or that the vector has no room for, would silently leave the bound where it is.
#include "dpsgd/cpu/backend.hpp"
#include "dpsgd/privacy/adaptive_clip.hpp"
#include "dpsgd/train/trainer.hpp"

template <>
struct dpsgd::default_backend<void> {
  using type = dpsgd::cpu::backend;
};
using namespace dpsgd;

struct counting_clip : flat_clip {
  static constexpr std::size_t extra = 1;
  double contribution(double norm, std::size_t) const { return norm <= bound ? 0.05 : -0.05; }
  double next(std::size_t, double mean) const { return mean > 0 ? bound / 2 : bound * 2; }
  l2_sensitivity<zero_out> sensitivity() const { return {2 * bound}; }
#ifndef DPSGD_WRONG
  void load(std::size_t, double value) { bound = value; }
  double value(std::size_t) const { return bound; }
#endif
};
int main() {
  trainer t{counting_clip{}, gaussian_noise{}, poisson_sampling{0.1}};
  (void)t;
}
