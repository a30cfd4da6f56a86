// EXPECT: dpsgd: a trainer was given something that is no policy
// ERRORS: 1
// A clip by layer that does not say its layers' bounds would leave the trainer nothing to hold its factors to.
#include "dpsgd/cpu/backend.hpp"
#include "dpsgd/train/trainer.hpp"

template <>
struct dpsgd::default_backend<void> {
  using type = dpsgd::cpu::backend;
};
using namespace dpsgd;

struct unbounded_layers {
  double factor(double norm, std::size_t, std::size_t) const { return norm > 1 ? 1 / norm : 1.0; }
  l2_sensitivity<zero_out> sensitivity() const { return {1}; }
};
int main() {
#ifdef DPSGD_WRONG
  trainer t{flat_clip{}, gaussian_noise{}, poisson_sampling{0.1}, unbounded_layers{}};
#else
  trainer t{per_layer_clip{}, gaussian_noise{}, poisson_sampling{0.1}};
#endif
  (void)t;
}
