// EXPECT: poisson_sampled<dpsgd::discrete_gaussian_event
// The central-limit figure knows the continuous Gaussian alone.
#include "dpsgd/accounting/gdp.hpp"
#include "dpsgd/accounting/rdp.hpp"

using namespace dpsgd;

int main() {
  const poisson_sampled step{0.01, discrete_gaussian_event<zero_out>{1}};
#ifdef DPSGD_WRONG
  gdp_approximation spent;
#else
  rdp_accountant spent;
#endif
  spent.add(step, 1000);
}
