// EXPECT: dpsgd: dpsgd/cuda.hpp is for nvcc
// A GPU's umbrella in a file that is not compiled as CUDA; what the host emulates may be.
#if defined(DPSGD_WRONG)
#include "dpsgd/cuda.hpp"
#else
#include "dpsgd/cuda/backend.hpp"
#include "dpsgd/cuda/emulator.hpp"
#endif

int main() {}
