// EXPECT: dpsgd: a trainer needs exactly one clip
// ERRORS: 1
// With two clips nobody could tell which sensitivity is meant.
#include "dpsgd/cpu/backend.hpp"
#include "dpsgd/train/trainer.hpp"

template <>
struct dpsgd::default_backend<void> {
  using type = dpsgd::cpu::backend;
};
using namespace dpsgd;

int main() {
#ifdef DPSGD_WRONG
  trainer t{flat_clip{1.0}, flat_clip{2.0}, gaussian_noise{}, poisson_sampling{0.1}};
#else
  trainer t{flat_clip{1.0}, gaussian_noise{}, poisson_sampling{0.1}};
#endif
  (void)t;
}
