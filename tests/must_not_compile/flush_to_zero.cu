// EXPECT: dpsgd__do_not_compile_with__use_fast_math_or_ftz
// FLAGS: --ftz=true
// The part of --use_fast_math that changes the bits of noise, by itself.
#include "dpsgd/cuda/gpu.hpp"

struct add_one {
  static constexpr int threads = 32;
  float* x;
  constexpr void operator()(auto& team) const {
    team.each([&](int thread, dpsgd::cuda::no_registers&) { x[thread] += 1; });
  }
};
void run(dpsgd::cuda::gpu& device, float* x) { device.launch(add_one{x}, 1); }
