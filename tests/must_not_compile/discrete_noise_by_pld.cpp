// EXPECT: dpsgd: this accountant cannot account for this clip, noise and sampler
// EXPECT: rdp_accountant{} for fixed_size_sampling and for discrete_gaussian_noise
// ERRORS: 1
// The discrete Gaussian's delta is larger than the continuous one's: no PLD accountant of that law may take it.
#include "dpsgd/accounting/rdp.hpp"
#include "dpsgd/cpu/backend.hpp"
#include "dpsgd/privacy/discrete_noise.hpp"
#include "dpsgd/train/trainer.hpp"

template <>
struct dpsgd::default_backend<void> {
  using type = dpsgd::cpu::backend;
};
using namespace dpsgd;

int main() {
#ifdef DPSGD_WRONG
  trainer t{flat_clip{}, discrete_gaussian_noise{}, exact_poisson_sampling{0.1}};
#else
  trainer t{flat_clip{}, discrete_gaussian_noise{}, exact_poisson_sampling{0.1}, rdp_accountant{}};
#endif
  (void)t;
}
