// EXPECT: dpsgd: a clip by layer cannot have coordinates of its own
// ERRORS: 1
// Which norm would it count by? (And the bound that the count leaves would have to be shared among the layers.)
#include "dpsgd/cpu/backend.hpp"
#include "dpsgd/privacy/adaptive_clip.hpp"
#include "dpsgd/train/trainer.hpp"

template <>
struct dpsgd::default_backend<void> {
  using type = dpsgd::cpu::backend;
};
using namespace dpsgd;

struct counting_layers : per_layer_clip {
  static constexpr std::size_t extra = 1;
  double contribution(double norm, std::size_t) const { return norm <= bound ? 0.05 : -0.05; }
  double next(std::size_t, double mean) const { return mean > 0 ? bound / 2 : bound * 2; }
  void load(std::size_t, double value) { bound = value; }
  double value(std::size_t) const { return bound; }
};
int main() {
#ifdef DPSGD_WRONG
  trainer t{counting_layers{}, gaussian_noise{}, poisson_sampling{0.1}};
#else
  trainer t{adaptive_clip{}, gaussian_noise{}, poisson_sampling{0.1}};
#endif
  (void)t;
}
