// EXPECT: dpsgd__do_not_compile_with__use_fast_math
// FLAGS: --use_fast_math
// nvcc flushes subnormal numbers to zero then, and defines no macro that would tell.
#include "dpsgd/cuda/gpu.hpp"

struct add_one {
  static constexpr int threads = 32;
  float* x;
  constexpr void operator()(auto& team) const {
    team.each([&](int thread, dpsgd::cuda::no_registers&) { x[thread] += 1; });
  }
};
void run(dpsgd::cuda::gpu& device, float* x) { device.launch(add_one{x}, 1); }
