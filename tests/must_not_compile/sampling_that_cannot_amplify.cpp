// EXPECT: dpsgd: this sampling cannot amplify the event of this noise
// ERRORS: 1
// A sampler accounts only for the events whose amplification it knows.
#include "dpsgd/cpu/backend.hpp"
#include "dpsgd/train/trainer.hpp"

template <>
struct dpsgd::default_backend<void> {
  using type = dpsgd::cpu::backend;
};
using namespace dpsgd;

/// All records in each step: what it amplifies it does not say.
struct every_record {
  double expected_batch(std::uint64_t all) const { return static_cast<double>(all); }
};
int main() {
#ifdef DPSGD_WRONG
  trainer t{flat_clip{}, gaussian_noise{}, every_record{}};
#else
  trainer t{flat_clip{}, gaussian_noise{}, poisson_sampling{0.1}};
#endif
  (void)t;
}
