// EXPECT: dpsgd: this sampling cannot amplify the event of this noise
// ERRORS: 1
// What is published of fixed sizes has not been carried over to the discrete Gaussian here.
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
  trainer t{flat_clip{}, discrete_gaussian_noise{}, fixed_size_sampling{0.1}, rdp_accountant{}};
#else
  trainer t{flat_clip{}, gaussian_noise{}, fixed_size_sampling{0.1}, rdp_accountant{}};
#endif
  (void)t;
}
