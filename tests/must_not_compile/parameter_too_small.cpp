// EXPECT: an allreduce algorithm's parameter is
// ERRORS: 1
// A butterfly of degree 1 would never get anywhere.
#include "dpsgd/allreduce/butterfly.hpp"

using namespace dpsgd::allreduce;

#ifdef DPSGD_WRONG
constexpr butterfly narrow{1};
#else
constexpr butterfly narrow{2};
#endif
int main() { return narrow.k == 0; }
