// EXPECT: dpsgd: this sampling cannot amplify the event of this noise
// EXPECT: cyclic_sampling with banded_noise
// ERRORS: 1
// Correlated noise over a sample by chance: a row may join two steps one after the other, whose noise shares its words.
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
  trainer t{flat_clip{}, banded_noise{}, poisson_sampling{0.1}};
#else
  trainer t{flat_clip{}, banded_noise{}, cyclic_sampling{10}};
#endif
  (void)t;
}
