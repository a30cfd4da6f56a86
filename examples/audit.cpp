/// Is the claim true? Attacks the trainer with canaries and says what epsilon the attack proves; then does the same to
/// trainers with planted bugs, to show that it can tell.
///
///   audit
#include <CLI/CLI.hpp>
#include <cmath>
#include <cstdio>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "audit_cases.hpp"
#include "dpsgd/dpsgd.hpp"

namespace {

constexpr const char* description = R"(Attacks the trainer, and compares what the attack proves with what is claimed.

A canary is a record whose gradient is as long as the clip lets it be. The trainer runs many times with it and as often
without it; an adversary who sees every released value decides which was the case. Half of the runs fix how he decides,
the other half count how often he is right, and from that follows a lower bound on epsilon (Clopper and Pearson), true
with the stated confidence. If the bound is above what is claimed, the claim is false. A bound below the claim proves
nothing, but the closer it comes, the less can be hidden between them.

The planted bugs are policies that do something else than what they claim (examples/planted_bugs.hpp).

  audit                                          all of it: about a minute
  audit --only half_noise                        one line
  audit --sampling-rate 0.1 --noise-multiplier 1 --steps 10 --delta 1e-3      the honest trainer in your own setting

Exit status: 0 the honest trainer's claims stand and every bug is found, 1 not so, 2 usage.)";

std::string setting_words(const audit_cases::setting& s) {
  char words[96];
  std::snprintf(words, sizeof words, "%4llu x q %-5g z %-6.4g delta %g", static_cast<unsigned long long>(s.steps),
                s.rate, s.multiplier, s.delta);
  return words;
}

}  // namespace

int main(int argc, char** argv) {
  std::uint64_t runs = 100'000;
  double confidence = 0.999;
  std::string only;
  bool as_json = false;
  audit_cases::setting own;

  // CLI::Range lets NaN pass.
  const auto within = [](double low, double high) {
    return CLI::Validator(
        [=](std::string& word) {
          double number = 0;
          return CLI::detail::lexical_cast(word, number) && number >= low && number <= high
                     ? std::string()
                     : dpsgd::text("must lie in [", low, ", ", high, "]; got ", word);
        },
        "");
  };
  CLI::App app(description);
  app.set_version_flag("--version", std::string("audit (dpsgd) ") + dpsgd::version);
  app.add_option("--runs", runs, "trainings with the canary, and as many without it, for each way to decide")
      ->check(CLI::Range(100, 100'000'000))
      ->capture_default_str();
  app.add_option("--confidence", confidence, "with which a bound on epsilon is true, in [0.5, 1 - 1e-9]")
      ->check(within(0.5, 1 - 1e-9))
      ->capture_default_str();
  app.add_option("--only", only, "one line of the table, by its name");
  std::vector<CLI::Option*> settings = {
      app.add_option("--sampling-rate", own.rate, "q, in [1e-9, 1]")->check(within(1e-9, 1)),
      app.add_option("--noise-multiplier", own.multiplier, "z: standard deviation of the noise / bound")
          ->check(within(1e-3, 1e6)),
      app.add_option("--steps", own.steps, "of each run")->check(CLI::Range(1, 1'000'000)),
      app.add_option("--delta", own.delta, "")->check(within(1e-12, 0.5))};
  app.add_flag("--json", as_json, "the table as JSON on stdout");
  auto cases = audit_cases::all();
  try {
    app.parse(argc, argv);
    std::size_t given = 0;
    for (const auto* s : settings) given += s->count();
    if (given > 0) {
      if (given < settings.size())
        throw CLI::ValidationError("your own setting",
                                   "needs all of --sampling-rate, --noise-multiplier, --steps and --delta");
      if (!only.empty()) throw CLI::ValidationError("--only", "goes without a setting of your own");
      cases.front().name = "yours", cases.front().what = "the honest trainer in this setting";
      cases.front().at = own;
      cases.resize(1);
    } else if (!only.empty()) {
      std::erase_if(cases, [&](const auto& c) { return c.name != only; });
      if (cases.empty()) {
        std::string names;
        for (const auto& c : audit_cases::all()) names += (names.empty() ? "" : ", ") + c.name;
        throw CLI::ValidationError("--only", "must be one of: " + names + "; got " + only);
      }
    }
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : 2;
  }

  try {
    nlohmann::ordered_json rows = nlohmann::ordered_json::array();
    bool as_it_should_be = true;
    if (!as_json)
      std::printf("%-22s %-42s %9s %9s %9s  %s\n", "trainer", "setting (steps x sampling, noise)", "claimed", "proved",
                  "runs", "verdict");
    for (const auto& c : cases) {
      const auto f = c.run(c.at, runs, confidence);
      const bool expected = f.refuted() != c.honest;
      as_it_should_be = as_it_should_be && expected;
      const char* verdict = f.refuted() ? "the claim is false" : "the claim stands";
      if (as_json)
        rows.push_back({{"name", c.name},
                        {"what", c.what},
                        {"honest", c.honest},
                        {"steps", c.at.steps},
                        {"sampling_rate", c.at.rate},
                        {"noise_multiplier", c.at.multiplier},
                        {"delta", c.at.delta},
                        {"epsilon", f.claimed},
                        {"epsilon_at_least", f.shown},
                        {"confidence", confidence},
                        {"runs", f.runs},
                        {"refuted", f.refuted()}});
      else
        std::printf("%-22s %-42s %9.4g %9.4g %9llu  %s%s\n", c.name.c_str(), setting_words(c.at).c_str(), f.claimed,
                    f.shown, static_cast<unsigned long long>(f.runs), verdict,
                    expected   ? ""
                    : c.honest ? ": A BUG"
                               : ": the bug was not found");
      std::fflush(stdout);
    }
    if (as_json) std::cout << rows.dump(2) << std::endl;
    else
      std::printf("\nclaimed: epsilon at most, by the accountant. proved: epsilon at least, with confidence %.9g.\n",
                  confidence);
    if (std::fflush(stdout) != 0 || !std::cout) dpsgd::fail("cannot write to standard output");
    return as_it_should_be ? 0 : 1;
  } catch (const std::exception& e) {
    std::cerr << "audit: " << e.what() << '\n';
    return 1;
  }
}
