// EXPECT: dpsgd: the GDP figure is an approximation that can be too low
// ERRORS: 1
// An approximation that can be too low makes no claim.
#include "dpsgd/accounting/gdp.hpp"
#include "dpsgd/accounting/pld.hpp"

using namespace dpsgd;

int main() {
  const poisson_sampled step{0.01, gaussian_event<zero_out>{1}};
#ifdef DPSGD_WRONG
  gdp_approximation spent;
#else
  pld_accountant spent;
#endif
  spent.add(step, 1000);
  (void)make_claim(spent, step, 1e-5);
}
