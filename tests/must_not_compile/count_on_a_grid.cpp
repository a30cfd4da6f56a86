// EXPECT: dpsgd: a clip's own coordinates are summed in floats, this noise is for whole numbers
// ERRORS: 1
// What the clip counts would be added to sums of whole numbers, unchecked by their rule for the sensitivity.
#include "dpsgd/cpu/backend.hpp"
#include "dpsgd/privacy/adaptive_clip.hpp"
#include "dpsgd/train/trainer.hpp"

template <>
struct dpsgd::default_backend<void> {
  using type = dpsgd::cpu::backend;
};
using namespace dpsgd;

struct whole_noise : gaussian_noise {
#ifdef DPSGD_WRONG
  using value = std::int64_t;
#endif
  using gaussian_noise::draw;
  void draw(const random_stream&, std::uint32_t, double, std::int64_t* out) const { *out = 0; }
  double unit(double sensitivity) const { return sensitivity / 256; }
};
int main() {
  trainer t{adaptive_clip{}, whole_noise{}, poisson_sampling{0.1}};
  (void)t;
}
