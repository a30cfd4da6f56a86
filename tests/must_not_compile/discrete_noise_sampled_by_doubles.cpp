// EXPECT: dpsgd: this sampling cannot amplify the event of this noise
// EXPECT: exact_poisson_sampling with discrete_gaussian_noise
// ERRORS: 1
// Gaps that are drawn in doubles are within 2^-53 of the rate, not at it: the claim would not be exact.
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
  trainer t{flat_clip{}, discrete_gaussian_noise{}, poisson_sampling{0.1}, rdp_accountant{}};
#else
  trainer t{flat_clip{}, discrete_gaussian_noise{}, exact_poisson_sampling{0.1}, rdp_accountant{}};
#endif
  (void)t;
}
