// EXPECT: dpsgd: a clip is no event of its own
// ERRORS: 1
// The count sees the sample that the gradient sees: as a second, separately sampled event it would be claimed too cheap
// (1.95 where 2.35 is true: tests/privacy/adaptive_clip.cpp).
#include "dpsgd/cpu/backend.hpp"
#include "dpsgd/privacy/adaptive_clip.hpp"
#include "dpsgd/train/trainer.hpp"

template <>
struct dpsgd::default_backend<void> {
  using type = dpsgd::cpu::backend;
};
using namespace dpsgd;

struct counting_clip : adaptive_clip {
#ifdef DPSGD_WRONG
  double count_multiplier = 2;
  l2_sensitivity<zero_out> sensitivity() const { return {bound}; }
  auto event(const poisson_sampling& s) const { return s.amplify(gaussian_event<zero_out>{count_multiplier}); }
#endif
};
int main() {
  trainer t{counting_clip{}, gaussian_noise{}, poisson_sampling{0.1}};
  (void)t;
}
