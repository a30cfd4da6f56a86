// The audit of examples/audit.cpp, at a confidence of 1 - 10^-7: an honest line fails by chance once in ten million runs
// of this test. A bug goes unseen more seldom than that: what is proved lies more than five standard deviations above the
// claim (more runs where the margin is smaller).
#include "dpsgd/audit/canaries.hpp"

#include <doctest/doctest.h>

#include "../../examples/audit_cases.hpp"
#include "dpsgd/dpsgd.hpp"

using namespace dpsgd;

TEST_CASE("a canary's gradient is the bound along its own coordinate, and an absent one is nothing") {
  // No noise, everybody drawn: the spread over the steps is 0, and the likelihood that of the value 1 (or 0) each time.
  struct silent : gaussian_noise {
    void draw(const random_stream&, std::uint32_t, double, float* out) const { std::fill_n(out, block_size, 0.0f); }
  };
  const std::vector<bool> present = {true, false, true, true, false};
  const double z = 2;
  const auto score = [&](audit::statistic what) {
    return audit::canary_scores(flat_clip{0.5}, silent{{z}}, poisson_sampling{1}, 1, 3, what, present);
  };
  const auto likelihood = score(audit::statistic::likelihood), spread = score(audit::statistic::spread);
  for (std::size_t j = 0; j < present.size(); ++j) {
    CHECK(likelihood[j] == doctest::Approx(3 * (present[j] ? 0.5 : -0.5) / (z * z)).epsilon(1e-3));
    CHECK(spread[j] == 0);
  }
}

TEST_CASE("the audit: honest trainers keep their claims, and every planted bug is found out") {
  constexpr double confidence = 1 - 1e-7;
  for (const auto& c : audit_cases::all()) {
    const auto f = c.run(c.at, c.name == "one step" ? 200'000 : c.name == "half_noise" ? 100'000 : 20'000, confidence);
    MESSAGE(c.name << ": claimed " << f.claimed << ", proved " << f.shown);
    CHECK_MESSAGE(f.refuted() != c.honest, c.name);
    if (c.name == "one step") {
      CHECK(f.claimed == doctest::Approx(4).epsilon(1e-3));
      CHECK(f.shown >= 2);  // half of it, at the least
    }
  }
}
