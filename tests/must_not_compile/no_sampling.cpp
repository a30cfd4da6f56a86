// EXPECT: dpsgd: a trainer needs exactly one sampling
// ERRORS: 1
// Who joins a step is never a default.
#include "dpsgd/cpu/backend.hpp"
#include "dpsgd/train/trainer.hpp"

template <>
struct dpsgd::default_backend<void> {
  using type = dpsgd::cpu::backend;
};
using namespace dpsgd;

int main() {
#ifdef DPSGD_WRONG
  trainer t{flat_clip{}, gaussian_noise{}};
#else
  trainer t{flat_clip{}, gaussian_noise{}, poisson_sampling{0.1}};
#endif
  (void)t;
}
