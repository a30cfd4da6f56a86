/// What does a private training run promise, before it is run? Prints epsilon, or the noise or the steps for a target.
///
///   account --sampling-rate 0.01 --noise-multiplier 1.1 --steps 10000 --delta 1e-6
#include <CLI/CLI.hpp>
#include <cmath>
#include <iostream>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>

#include "dpsgd/accounting/calibrate.hpp"
#include "dpsgd/accounting/claim.hpp"
#include "dpsgd/accounting/rdp.hpp"
#include "dpsgd/version.hpp"

namespace {

constexpr const char* description = R"(Privacy of a training run with DP-SGD: Gaussian noise on Poisson-sampled batches.

Each step draws every row of the data with probability q, clips each row's gradient to norm C, and adds Gaussian noise
of standard deviation s C to the sum. After T such steps the model is (epsilon, delta)-DP: whatever anybody concludes
from it, they would have concluded with nearly the same probability (a factor of at most e^epsilon, except with
probability delta) had any one row been blanked. Smaller is more private: below 1 is strong, above 10 says little.

Give the sampling rate, delta, and two of noise, steps and target; the third is found:
  account --sampling-rate 0.01 --noise-multiplier 1.1 --steps 10000 --delta 1e-6     what is epsilon?
  account --sampling-rate 0.01 --steps 10000 --delta 1e-6 --target-epsilon 3         how much noise?
  account --sampling-rate 0.01 --noise-multiplier 1.1 --delta 1e-6 --target-epsilon 3   how many steps?)";

struct question {
  double rate = 0, delta = 0;
  std::optional<double> multiplier, target;
  std::optional<std::uint64_t> steps;
};

struct answer {
  dpsgd::claim claim;
  double epsilon, order, multiplier;
  std::uint64_t steps;
};

template <class Accountant>
answer answer_with(const question& asked) {
  using namespace dpsgd;
  const auto event = [&](double multiplier) {
    return poisson_sampled{asked.rate, gaussian_event<zero_out>{multiplier}};
  };
  double multiplier = asked.multiplier.value_or(0);
  std::uint64_t steps = asked.steps.value_or(0);
  if (asked.target) {
    const privacy_target target{*asked.target, asked.delta};
    if (asked.steps) multiplier = smallest_multiplier<Accountant>(target, steps, event);
    else steps = most_steps<Accountant>(target, event(multiplier));
    require(steps > 0 || asked.steps, "not one step keeps epsilon ", target.epsilon,
            ": it needs more noise, or a larger target");
  }
  Accountant accountant;
  accountant.add(event(multiplier), steps);
  const auto spent = accountant.spent(asked.delta);
  return {make_claim(accountant, event(multiplier), asked.delta), spent.epsilon, spent.order, multiplier, steps};
}

}  // namespace

int main(int argc, char** argv) {
  question asked;
  std::string accountant = "rdp";
  bool json = false;

  CLI::App app(description);
  app.set_version_flag("--version", std::string("account (dpsgd) ") + dpsgd::version);
  app.add_option("--sampling-rate", asked.rate, "q: expected batch size / number of rows, in [0, 1]")->required();
  app.add_option("--noise-multiplier", asked.multiplier, "s: standard deviation of the noise / clipping bound");
  app.add_option("--steps", asked.steps, "T: how many steps; an epoch has 1/q of them")->check(CLI::NonNegativeNumber);
  app.add_option("--delta", asked.delta, "delta: well below 1 / number of rows")->required();
  app.add_option("--target-epsilon", asked.target, "find the noise (or the steps) that just keeps this epsilon");
  app.add_option("--accountant", accountant, "how the steps are added up; rdp: Renyi moments, an upper bound")
      ->check(CLI::IsMember({"rdp"}))
      ->capture_default_str();
  app.add_flag("--json", json, "one JSON object on stdout; what is infinite or has no value is null");
  try {
    app.parse(argc, argv);
    if (!asked.steps && !(asked.target && asked.multiplier)) throw CLI::RequiredError("--steps");
    if (!asked.multiplier && !asked.target) throw CLI::RequiredError("--noise-multiplier or --target-epsilon");
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : 2;
  }

  try {
    if (asked.target && asked.multiplier && asked.steps)
      std::cerr
          << "account: noise, steps and a target are given: the noise is found, and --noise-multiplier not used\n";
    const answer found = answer_with<dpsgd::rdp_accountant>(asked);  // the only one so far
    if (json) {
      std::cout << nlohmann::ordered_json{{"epsilon", found.epsilon},    {"delta", asked.delta},
                                          {"order", found.order},        {"noise_multiplier", found.multiplier},
                                          {"sampling_rate", asked.rate}, {"steps", found.steps},
                                          {"accountant", accountant},    {"claim", found.claim.words()}}
                       .dump(2)
                << '\n';
    } else {
      std::cout << found.claim << '\n';
      if (asked.target && asked.steps)
        std::cout << "noise multiplier " << dpsgd::text(found.multiplier) << ", the smallest for epsilon "
                  << *asked.target << '\n';
      else if (asked.target)
        std::cout << found.steps
                  << (found.steps < std::uint64_t{1} << 40 ? " steps, the most for epsilon "
                                                           : " steps or more keep epsilon ")
                  << *asked.target << '\n';
      std::cout << "sampling rate " << asked.rate << ", noise multiplier " << dpsgd::text(found.multiplier) << ", "
                << found.steps << " steps";
      if (!std::isnan(found.order)) std::cout << "; best Renyi order " << found.order;
      std::cout << '\n';
    }
  } catch (const std::exception& e) {
    std::cerr << "account: " << e.what() << '\n';
    return 1;
  }
  std::cout.flush();
  if (std::cout) return 0;
  std::cerr << "account: cannot write to standard output\n";
  return 1;
}
