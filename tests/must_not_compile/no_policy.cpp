// EXPECT: dpsgd: a trainer was given something that is no policy
// ERRORS: 1
// A clip that misspells a member is no clip: it must not be ignored.
#include "dpsgd/cpu/backend.hpp"
#include "dpsgd/train/trainer.hpp"

template <>
struct dpsgd::default_backend<void> {
  using type = dpsgd::cpu::backend;
};
using namespace dpsgd;

/// sensitivty() is no sensitivity().
struct misspelled_clip {
  constexpr double factor(double) const { return 1.0; }
  constexpr l2_sensitivity<zero_out> sensitivty() const { return {1}; }
};
int main() {
#ifdef DPSGD_WRONG
  trainer t{flat_clip{}, gaussian_noise{}, poisson_sampling{0.1}, misspelled_clip{}};
#else
  trainer t{flat_clip{}, gaussian_noise{}, poisson_sampling{0.1}};
#endif
  (void)t;
}
