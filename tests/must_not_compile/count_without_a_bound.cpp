// EXPECT: and a sensitivity() that bounds gradient and contributions together
// ERRORS: 1
// A query of the data needs a bound, even if nothing else is private.
#include "dpsgd/cpu/backend.hpp"
#include "dpsgd/privacy/adaptive_clip.hpp"
#include "dpsgd/train/trainer.hpp"

template <>
struct dpsgd::default_backend<void> {
  using type = dpsgd::cpu::backend;
};
using namespace dpsgd;

struct free_count : adaptive_clip {
#ifdef DPSGD_WRONG
  unbounded sensitivity() const { return {}; }
#endif
};
int main() {
  trainer t{free_count{}, no_noise{}, poisson_sampling{0.1}};
  (void)t;
}
