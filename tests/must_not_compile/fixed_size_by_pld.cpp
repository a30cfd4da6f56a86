// EXPECT: dpsgd: this accountant cannot account for this clip, noise and sampler
// EXPECT: rdp_accountant{} for fixed_size_sampling
// ERRORS: 1
// The privacy loss of fixed-size batches has no pair of laws that is known to compose: moments alone bound it.
#include "dpsgd/accounting/rdp.hpp"
#include "dpsgd/cpu/backend.hpp"
#include "dpsgd/train/trainer.hpp"

template <>
struct dpsgd::default_backend<void> {
  using type = dpsgd::cpu::backend;
};
using namespace dpsgd;

int main() {
#ifdef DPSGD_WRONG
  trainer t{flat_clip{}, gaussian_noise{}, fixed_size_sampling{0.1}};
#else
  trainer t{flat_clip{}, gaussian_noise{}, fixed_size_sampling{0.1}, rdp_accountant{}};
#endif
  (void)t;
}
