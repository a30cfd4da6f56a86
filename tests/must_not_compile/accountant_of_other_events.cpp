// EXPECT: dpsgd: this accountant cannot account for this clip, noise and sampler
// EXPECT: use pld_accountant, the default
// ERRORS: 1
// An accountant is given only the events that it can add up.
#include "dpsgd/cpu/backend.hpp"
#include "dpsgd/train/trainer.hpp"

template <>
struct dpsgd::default_backend<void> {
  using type = dpsgd::cpu::backend;
};
using namespace dpsgd;

/// Knows Laplace noise alone.
struct laplace_accountant {
  static constexpr std::string_view name = "Laplace";
  struct result {
    double epsilon = 0;
  };
  result spent(double) const { return {}; }
};
int main() {
#ifdef DPSGD_WRONG
  trainer t{flat_clip{}, gaussian_noise{}, poisson_sampling{0.1}, laplace_accountant{}};
#else
  trainer t{flat_clip{}, gaussian_noise{}, poisson_sampling{0.1}, pld_accountant{}};
#endif
  (void)t;
}
