// EXPECT: dpsgd: this accountant cannot account for this clip, noise and sampler
// ERRORS: 1
// An epoch in which each row joins once is amplified by nothing: Poisson's formula on top of it is no event.
#include "dpsgd/cpu/backend.hpp"
#include "dpsgd/train/trainer.hpp"

template <>
struct dpsgd::default_backend<void> {
  using type = dpsgd::cpu::backend;
};
using namespace dpsgd;

/// Shuffles, and claims that each row joined each step with the chance 1 / epoch.
struct optimistic_shuffling : shuffling {
  template <class Adjacency>
  poisson_sampled<once_per_epoch<gaussian_event<Adjacency>>> amplify(gaussian_event<Adjacency> event) const {
    return {1.0 / static_cast<double>(epoch), shuffling::amplify(event)};
  }
};
int main() {
#ifdef DPSGD_WRONG
  trainer t{flat_clip{}, gaussian_noise{}, optimistic_shuffling{}};
#else
  trainer t{flat_clip{}, gaussian_noise{}, shuffling{}};
#endif
  (void)t;
}
