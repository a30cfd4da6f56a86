// The Renyi filter where runs are kept: the ledger's runs, a journal's budget, the trainer's claim.
#include "dpsgd/accounting/filter.hpp"

#include <doctest/doctest.h>

#include "dpsgd/accounting/ledger.hpp"
#include "dpsgd/dpsgd.hpp"
#include "dpsgd/train/journal.hpp"
#include "train/fixture.hpp"

using namespace dpsgd;

TEST_CASE("runs that are chosen one after the other end where the filter's budget does, and claim it") {
  const auto data = test::two_classes(500);
  const test::scratch dir;
  ledger book(dir.path / "ledger", data.digest().hex(), data.universe());
  const privacy_target budget{3, 1e-5};
  const auto fit = [&](double multiplier, std::uint64_t steps) {
    basic_journal<rdp_filter> keep;
    keep.keep(book, budget);
    rdp_filter filter(budget);
    book.add_to(filter);
    mlp model({test::width, 8, 1});
    trainer t{flat_clip{}, gaussian_noise{multiplier}, poisson_sampling{0.1}, filter};
    return t.fit(model, data, {.steps = steps, .delta = budget.delta, .journal = &keep});
  };
  CHECK(fit(2, 20).claim.epsilon == 3);
  CHECK(fit(1.5, 10).claim.epsilon == 3);  // somebody saw the first, and wanted less noise
  rdp_filter so_far(budget);
  book.add_to(so_far);
  const poisson_sampled<gaussian_event<zero_out>> event{0.1, {4}};
  const auto left = most_steps(budget, event, so_far);
  REQUIRE(left > 0);
  REQUIRE(left < 5000);
  const auto last = fit(4, 5000);
  CHECK(last.out_of_budget);
  CHECK(last.steps == left);
  CHECK(last.claim.epsilon == 3);
  CHECK(last.claim.accountant == "RDP filter");
  rdp_filter all(budget);
  book.add_to(all);
  CHECK(all.fits());
  CHECK(!all.admit(event, 1));
}
