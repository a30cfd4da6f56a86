// EXPECT: dpsgd: this noise cannot protect what this clip lets through
// ERRORS: 1
// Noise in proportion to a bound that does not exist would protect nobody.
#include "dpsgd/cpu/backend.hpp"
#include "dpsgd/train/trainer.hpp"

template <>
struct dpsgd::default_backend<void> {
  using type = dpsgd::cpu::backend;
};
using namespace dpsgd;

int main() {
#ifdef DPSGD_WRONG
  trainer t{no_clip{}, gaussian_noise{}, poisson_sampling{0.1}};
#else
  trainer t{no_clip{}, no_noise{}, poisson_sampling{0.1}};
#endif
  (void)t;
}
