// EXPECT: dpsgd: do not compile with -ffast-math
// FLAGS: -ffast-math
// Under -ffast-math the compiler may drop the guard that counts a non-finite gradient as zero.
#include "dpsgd/core/error.hpp"

int main() {}
