/// What does a private training run promise, before it is run? Prints epsilon and how it grows over the steps, or finds
/// the noise, the steps or the sampling rate for a target.
///
///   account --sampling-rate 0.01 --noise-multiplier 1.1 --steps 10000 --delta 1e-6
#include <CLI/CLI.hpp>
#include <cmath>
#include <cstdio>
#include <iostream>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "advice.hpp"
#include "curve_svg.hpp"
#include "dpsgd/accounting/calibrate.hpp"
#include "dpsgd/accounting/claim.hpp"
#include "dpsgd/accounting/gdp.hpp"
#include "dpsgd/accounting/pld.hpp"
#include "dpsgd/accounting/rdp.hpp"
#include "dpsgd/core/durable_file.hpp"
#include "dpsgd/version.hpp"

namespace {

constexpr const char* description = R"(Privacy of a training run with DP-SGD: Gaussian noise on Poisson-sampled batches.

Each step draws every row of the data with probability q, clips each row's gradient to norm C, and adds Gaussian noise
of standard deviation s C to the sum. After T such steps the model is (epsilon, delta)-DP: whatever anybody concludes
from it, they would have concluded with nearly the same probability (a factor of at most e^epsilon, except with
probability delta) had any one row been blanked. Smaller is more private: below 1 is strong, above 10 says little.

Give delta and q, s and T; or a target, and two of them: the third is found.
  account --sampling-rate 0.01 --noise-multiplier 1.1 --steps 10000 --delta 1e-6     what is epsilon?
  account --sampling-rate 0.01 --steps 10000 --delta 1e-6 --target-epsilon 3         how much noise?
  account --sampling-rate 0.01 --noise-multiplier 1.1 --delta 1e-6 --target-epsilon 3   how many steps?
  account --noise-multiplier 1.1 --steps 10000 --delta 1e-6 --target-epsilon 3       what batch?
Or ask what to train with:
  account --advise --records 20000 --delta 1e-5 --target-epsilon 0.1                 batch, noise, learning rate)";

using step_event = dpsgd::poisson_sampled<dpsgd::gaussian_event<dpsgd::zero_out>>;

struct question {
  double delta = 0;
  std::optional<double> rate, multiplier, target;
  double rows = 1;
  std::optional<std::uint64_t> steps;
};

/// What is spent after some steps. What an accountant does not say is NaN.
struct figure {
  double epsilon = NAN, epsilon_lo = NAN, order = NAN;
};
figure ask(const dpsgd::pld_accountant& spent, double delta) {
  const auto r = spent.spent(delta);
  return {r.epsilon, r.epsilon_lo, NAN};
}
figure ask(const dpsgd::rdp_accountant& spent, double delta) {
  const auto r = spent.spent(delta);
  return {r.epsilon, NAN, r.order};
}
figure ask(const dpsgd::gdp_approximation& spent, double delta) { return {spent.estimate(delta), NAN, NAN}; }

struct answer {
  step_event step;
  std::uint64_t steps = 0;
  std::string found, claim;  // found: what was looked for, in words
};

/// Finds what was not said, and the claim.
template <class Accountant>
answer answer_with(const question& asked) {
  using namespace dpsgd;
  answer a{{asked.rate.value_or(0), {asked.multiplier.value_or(0), asked.rows}}, asked.steps.value_or(0), "", ""};
  if constexpr (accountant<Accountant>) {
    if (asked.target) {
      const privacy_target target{*asked.target, asked.delta};
      if (!asked.rate) {
        a.step.rate = largest_rate<Accountant>(target, a.steps, [&](double rate) {
          return step_event{rate, a.step.event};
        });
        a.found = text("sampling rate ", a.step.rate, ", the largest for epsilon ", target.epsilon);
      } else if (asked.steps) {
        a.step.event.multiplier = smallest_multiplier<Accountant>(target, a.steps, [&](double multiplier) {
          return step_event{a.step.rate, {multiplier, asked.rows}};
        });
        a.found = text("noise multiplier ", a.step.event.multiplier, ", the smallest for epsilon ", target.epsilon);
      } else {
        a.steps = most_steps<Accountant>(target, a.step);
        require(a.steps > 0, "not one step keeps epsilon ", target.epsilon,
                ": it needs more noise, or a larger target");
        a.found =
            text(a.steps,
                 a.steps < std::uint64_t{1} << 40 ? " steps, the most for epsilon " : " steps or more keep epsilon ",
                 target.epsilon);
      }
    }
    Accountant spent;
    spent.add(a.step, a.steps);
    a.claim = make_claim(spent, a.step, asked.delta).words();
  } else {
    a.claim = "no claim: the central-limit figure (GDP) is " + std::string(Accountant::warning);
  }
  return a;
}

template <class Accountant>
figure after(const answer& a, std::uint64_t steps, double delta) {
  Accountant spent;
  spent.add(a.step, steps);
  return ask(spent, delta);
}

std::string shown(double epsilon) {
  if (std::isnan(epsilon)) return "";
  char room[32];
  std::snprintf(room, sizeof room, "%.6g", epsilon);
  return room;
}

struct output {
  bool json = false, advise = false;
  std::string svg;
};

template <class Accountant>
void run(const question& asked, const output& wanted, const std::string& accountant) {
  const answer a = answer_with<Accountant>(asked);
  const figure at_end = after<Accountant>(a, a.steps, asked.delta);
  const bool is_bound = dpsgd::accountant<Accountant>;

  if (!wanted.svg.empty()) {
    std::vector<curve::point> points;
    constexpr std::uint64_t count = 48;
    for (std::uint64_t i = 0; i <= count; ++i) {
      const auto steps = a.steps / count * i + a.steps % count * i / count;
      if (i > 0 && steps == static_cast<std::uint64_t>(points.back().x)) continue;
      const auto f = after<Accountant>(a, steps, asked.delta);
      if (!std::isfinite(f.epsilon))
        dpsgd::fail("epsilon is infinite after ", steps, " steps: there is no curve to draw");
      points.push_back({static_cast<double>(steps), std::isnan(f.epsilon_lo) ? f.epsilon : f.epsilon_lo, f.epsilon});
    }
    const std::string how =
        std::string(Accountant::name) + (is_bound ? ", an upper bound" : ", an approximation that can be too low");
    dpsgd::write_durably(wanted.svg, curve::svg(points, "epsilon over the steps (" + how + ")",
                                                dpsgd::text("sampling rate ", a.step.rate, ", noise multiplier ",
                                                            a.step.event.multiplier, ", delta ", asked.delta),
                                                "steps", "epsilon"));
  }

  if (wanted.json) {
    nlohmann::ordered_json j{{"epsilon", nullptr}, {"epsilon_lo", at_end.epsilon_lo}, {"delta", asked.delta}};
    if (is_bound) j["epsilon"] = at_end.epsilon;
    else j["approximation_that_can_be_too_low"] = at_end.epsilon;
    j["order"] = at_end.order, j["noise_multiplier"] = a.step.event.multiplier, j["sampling_rate"] = a.step.rate;
    j["steps"] = a.steps, j["rows_per_owner"] = a.step.event.rows, j["accountant"] = accountant, j["claim"] = a.claim;
    std::cout << j.dump(2) << '\n';
    return;
  }
  std::cout << a.claim << '\n';
  if (!a.found.empty()) std::cout << a.found << '\n';
  std::cout << "sampling rate " << dpsgd::text(a.step.rate) << ", noise multiplier "
            << dpsgd::text(a.step.event.multiplier) << ", " << a.steps << " steps";
  if (!std::isnan(at_end.order)) std::cout << "; best Renyi order " << at_end.order;
  std::cout << "\n\n";
  if (a.steps == 0) return;

  const bool has_lo = !std::isnan(at_end.epsilon_lo);
  std::printf("%14s %12s  %s%s\n", "steps", "epochs",
              is_bound ? "epsilon" : "epsilon, an approximation that can be too low",
              has_lo ? "     (the truth is not below)" : "");
  std::uint64_t last = 0;
  for (const double part : {0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0}) {
    const auto steps = part == 1 ? a.steps : static_cast<std::uint64_t>(part * static_cast<double>(a.steps));
    if (steps == last) continue;
    const auto f = after<Accountant>(a, steps, asked.delta);
    std::printf("%14llu %12s  %-10s  %s\n", static_cast<unsigned long long>(steps),
                shown(static_cast<double>(steps) * a.step.rate).c_str(), shown(f.epsilon).c_str(),
                shown(f.epsilon_lo).c_str());
    last = steps;
  }
}

/// What to train with, as a table with the reasons, or as JSON.
void advise(const advice::wish& asked, bool json) {
  const auto a = advice::advise(asked);
  const auto& best = a.settings[a.best];
  if (json) {
    const auto row = [](const advice::setting& s) {
      return nlohmann::ordered_json{{"batch_size", s.batch}, {"sampling_rate", s.rate},
                                    {"steps", s.steps},      {"epochs", s.epochs()},
                                    {"noise", s.noise},      {"noise_multiplier", s.multiplier}};
    };
    nlohmann::ordered_json j{
        {"records", asked.records}, {"epsilon", asked.target.epsilon}, {"delta", asked.target.delta}};
    for (const auto& s : a.settings) j["settings"].push_back(row(s));
    j["advised"] = row(best), j["parameters_at_most"] = a.parameters;
    j["optimizer"] = "adam", j["schedule"] = "constant";
    j["learning_rate"] = {{"linear", a.linear_rate}, {"network", a.network_rate}};
    std::cout << j.dump(2) << '\n';
    return;
  }
  std::printf("   %10s %10s %8s %8s %17s %10s\n", "batch size", "rate", "steps", "epochs", "noise multiplier", "noise");
  for (const auto& s : a.settings)
    std::printf("%s %10s %10s %8s %8s %17s %10s\n", &s == &best ? "->" : "  ", shown(s.batch).c_str(),
                shown(s.rate).c_str(), shown(static_cast<double>(s.steps)).c_str(), shown(s.epochs()).c_str(),
                shown(s.multiplier).c_str(), shown(s.noise).c_str());
  const auto command = [&](const char* model, double rate, const char* rest) {
    std::cout << dpsgd::text("train_mlp --csv FILE --schema FILE --target-epsilon ", asked.target.epsilon, " --delta ",
                             asked.target.delta, " --batch-size ", best.batch, " --steps ", best.steps, model,
                             " --optimizer adam --schedule constant --learning-rate ", shown(rate), rest, '\n');
  };
  std::cout << dpsgd::text(
      "\nnoise: what is left of it in a coordinate when all steps' mean gradients are averaged, clip bound 1\n",
      "batch size: the smallest whose noise is within ", std::round(100 * advice::close - 100),
      " % of the least; a larger one costs time and buys nothing\n", "model: of at most ",
      shown(std::floor(a.parameters)), " parameters, else the noise of all of them together is above ", advice::loud,
      " of the clip bound; a linear model stands more\n",
      "learning rate: of adam, so that noise walks equally far in any number of steps; how far was best on synthetic "
      "records\n\na linear model, or a network (docs/accuracy.md has the reasons at length):\n");
  command(" --hidden 0", a.linear_rate, "");
  command("", a.network_rate, " --average tail");
}

}  // namespace

int main(int argc, char** argv) {
  std::ios::sync_with_stdio(true);
  question asked;
  std::string accountant = "pld";
  output wanted;
  std::optional<std::uint64_t> records;
  std::optional<double> epochs;

  CLI::App app(description);
  app.set_version_flag("--version", std::string("account (dpsgd) ") + dpsgd::version);
  app.add_option("--sampling-rate", asked.rate, "q: expected batch size / number of rows, in [0, 1]");
  app.add_option("--noise-multiplier", asked.multiplier, "s: standard deviation of the noise / clipping bound");
  app.add_option("--steps", asked.steps, "T: how many steps; an epoch has 1/q of them")->check(CLI::NonNegativeNumber);
  app.add_option("--delta", asked.delta, "delta: in [0, 1), well below 1 / number of rows")
      ->required()
      ->check([](const std::string& given) {
        const double delta = std::strtod(given.c_str(), nullptr);
        return delta >= 0 && delta < 1 ? std::string() : "delta must lie in [0, 1); got " + given;
      });
  app.add_option("--target-epsilon", asked.target,
                 "find the noise, the steps or the rate that just keeps this epsilon");
  app.add_option("--rows-per-owner", asked.rows, "how many rows one person has at most, all protected together")
      ->capture_default_str();
  app.add_option("--accountant", accountant,
                 "how the steps are added up; pld: the privacy loss's law, exact to 1e-3 and never too low; rdp: Renyi "
                 "moments, an upper bound; gdp: the central-limit figure, an approximation that can be too low")
      ->check(CLI::IsMember({"pld", "rdp", "gdp"}))
      ->capture_default_str();
  auto* advised =
      app.add_flag("--advise", wanted.advise,
                   "what to train with for --target-epsilon: batch sizes with their noise, and learning rates");
  app.add_option("--records", records, "of --advise: how many records there are to train on")
      ->needs(advised)
      ->check(CLI::Range(1.0, 1e15));
  app.add_option("--epochs", epochs, "of --advise: instead of --steps; neither: 400 steps")->needs(advised);
  app.add_option("--svg", wanted.svg, "file for a picture of epsilon over the steps");
  app.add_flag("--json", wanted.json, "one JSON object on stdout; what is infinite or has no value is null");
  try {
    app.parse(argc, argv);
    if (wanted.advise) {
      if (!records) throw CLI::RequiredError("--advise needs --records, which");
      if (!asked.target) throw CLI::RequiredError("--advise needs --target-epsilon, which");
      if (asked.steps && epochs) throw CLI::ExcludesError("--epochs", "--steps");
      if (asked.rate || asked.multiplier || accountant != "pld" || asked.rows != 1 || !wanted.svg.empty())
        throw CLI::ValidationError("--advise",
                                   "takes --records, --target-epsilon, --delta, --steps or --epochs and --json; "
                                   "it finds the rest, by the PLD accountant, for one row a person");
    } else if (!asked.target) {
      if (!asked.rate) throw CLI::RequiredError("--sampling-rate");
      if (!asked.steps) throw CLI::RequiredError("--steps");
      if (!asked.multiplier) throw CLI::RequiredError("--noise-multiplier or --target-epsilon");
    } else {
      if (accountant == "gdp")
        throw CLI::ValidationError("--target-epsilon",
                                   "gdp is an approximation that can be too low: no noise is chosen by it");
      if (asked.rate.has_value() + asked.steps.has_value() + asked.multiplier.has_value() < 2)
        throw CLI::RequiredError("with --target-epsilon, two of --sampling-rate, --noise-multiplier and --steps");
    }
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : 2;
  }

  try {
    if (asked.target && asked.rate && asked.multiplier && asked.steps)
      std::cerr
          << "account: noise, steps and a target are given: the noise is found, and --noise-multiplier not used\n";
    if (wanted.advise) advise({*records, {*asked.target, asked.delta}, asked.steps, epochs}, wanted.json);
    else if (accountant == "rdp") run<dpsgd::rdp_accountant>(asked, wanted, accountant);
    else if (accountant == "gdp") run<dpsgd::gdp_approximation>(asked, wanted, accountant);
    else run<dpsgd::pld_accountant>(asked, wanted, accountant);
  } catch (const std::exception& e) {
    std::cerr << "account: " << e.what() << '\n';
    return 1;
  }
  std::cout.flush();
  if (std::cout && std::fflush(stdout) == 0) return 0;
  std::cerr << "account: cannot write to standard output\n";
  return 1;
}
