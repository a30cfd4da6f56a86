// A GPU where there is one, else the reason in words: both are right here.
#include <dpsgd/cuda.hpp>
#include <iostream>

int main() {
  try {
    std::cout << "dpsgd on " << dpsgd::cuda::gpu().name() << '\n';
  } catch (const dpsgd::error& e) {
    std::cout << e.what() << '\n';
  }
}
