// EXPECT: dpsgd: this sampling cannot amplify the event of this noise
// ERRORS: 1
// A shuffle is drawn anew in each epoch: a row may join the last step of one and the first of the next.
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
  trainer t{flat_clip{}, tree_noise{}, shuffling{10}};
#else
  trainer t{flat_clip{}, tree_noise{}, cyclic_sampling{10}};
#endif
  (void)t;
}
