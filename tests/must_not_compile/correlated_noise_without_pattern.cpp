// EXPECT: dpsgd: this accountant cannot account for this clip, noise and sampler
// ERRORS: 1
// A step of correlated noise spends nothing by itself that could be added up: a sampler must say which steps a row joins.
#include "dpsgd/cpu/backend.hpp"
#include "dpsgd/privacy/correlated_noise.hpp"
#include "dpsgd/train/trainer.hpp"

template <>
struct dpsgd::default_backend<void> {
  using type = dpsgd::cpu::backend;
};
using namespace dpsgd;

/// Hands the noise's event on as it is.
struct silent_sampling : cyclic_sampling {
  template <class Event>
  Event amplify(Event event) const {
    return event;
  }
};
int main() {
#ifdef DPSGD_WRONG
  trainer t{flat_clip{}, banded_noise{}, silent_sampling{}};
#else
  trainer t{flat_clip{}, banded_noise{}, cyclic_sampling{}};
#endif
  (void)t;
}
