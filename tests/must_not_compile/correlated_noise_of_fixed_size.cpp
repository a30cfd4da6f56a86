// EXPECT: dpsgd: this sampling cannot amplify the event of this noise
// ERRORS: 1
// Batches of a fixed size are drawn anew in every step.
#include "dpsgd/accounting/rdp.hpp"
#include "dpsgd/cpu/backend.hpp"
#include "dpsgd/privacy/correlated_noise.hpp"
#include "dpsgd/train/trainer.hpp"

template <>
struct dpsgd::default_backend<void> {
  using type = dpsgd::cpu::backend;
};
using namespace dpsgd;

int main() {
#ifdef DPSGD_WRONG
  trainer t{flat_clip{}, banded_noise{}, fixed_size_sampling{0.1}, rdp_accountant{}};
#else
  trainer t{flat_clip{}, banded_noise{}, cyclic_sampling{10}, rdp_accountant{}};
#endif
  (void)t;
}
