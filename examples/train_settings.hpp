/// The options of train_mlp: what can be said on its command line, and what is chosen where nothing is said.
///
/// Defaults are a function of the number of records N and of the schema, which are both public: a default that looked
/// at the records would leak them (docs/decisions/).
#pragma once

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "console.hpp"
#include "dpsgd/accounting/calibrate.hpp"
#include "dpsgd/accounting/events.hpp"
#include "dpsgd/accounting/pld.hpp"
#include "dpsgd/accounting/rdp.hpp"
#include "dpsgd/allreduce/all.hpp"
#include "dpsgd/core/error.hpp"
#include "dpsgd/data/dataset.hpp"
#include "dpsgd/version.hpp"

/// What the command line said. Empty: not said.
struct settings {
  std::string csv, schema;
  bool drop_bad_rows = false;
  double test_fraction = 0.2;
  std::uint64_t seed = 1;

  std::vector<std::size_t> hidden = {64, 64};
  std::string activation = "relu";
  std::string optimizer = "adam", schedule, average = "none";
  std::optional<double> batch_size, epochs, learning_rate, clip;
  std::optional<std::uint64_t> steps;
  double momentum = 0.9;

  bool no_privacy = false, exact = false;
  std::optional<double> noise_multiplier, target_epsilon, delta, budget;
  std::optional<std::uint64_t> insecure_seed;
  std::string ledger, clipping = "flat";
  double clip_quantile = 0.8;
  std::string noise = "gaussian", sampling;  // sampling: as the noise needs it
  std::uint32_t bands = 32;

  int ranks = 1;
  std::string allreduce = "circulant";
  double deadline = 60;

  std::string checkpoint, save, json;
  std::uint64_t checkpoint_every = 0;
  bool resume = false;

  /// Whether each record joins once in so many steps, which correlated noise needs. Independent noise is then a
  /// correlated one of one band.
  bool cyclic() const { return sampling == "cyclic"; }
  double correlated_bands() const { return noise == "tree" ? 0 : noise == "banded" ? bands : 1; }

  /// Whether the run may claim anything.
  bool is_private() const { return !no_privacy && !insecure_seed; }
};

/// Everything that training needs to be told, worked out by rank 0 and the same on all ranks.
struct plan {
  double batch_size, rate, epochs, learning_rate, clip, noise_multiplier, delta, rows_per_owner, owners;
  std::uint64_t steps, batches;  // batches: that take turns, where they do; else 0
};

/// The recipe: what to train with when nothing is said.
struct recipe {
  double batch_size, epochs, learning_rate, clip;
  const char* schedule;
};

/// The recipe for n training records; docs/decisions/ says how it was found. The more records there are, the fewer
/// times each needs to be seen, and the larger a batch may be: 512 and 20 epochs for 20,000 records, 2,048 and 6 for a
/// million.
inline recipe recipe_for(std::uint64_t n, bool no_privacy, bool adam) {
  const double size = static_cast<double>(n) / 20'000;
  const double epochs = std::clamp(std::round(20 * std::pow(size, -0.3)), 3.0, 50.0);
  const auto power_of_two = [](double x) { return std::exp2(std::round(std::log2(x))); };
  if (no_privacy) return {std::clamp(power_of_two(256 * size), 16.0, 256.0), epochs, adam ? 1e-3 : 0.02, 0, "cosine"};
  const double batch_size = std::clamp(power_of_two(512 * std::pow(size, 0.4)), 16.0, 16'384.0);
  return {batch_size, epochs, adam ? 5e-3 : 0.3, 1, "cosine"};
}

/// use(the accountant of the runs that are asked for): PLD, or in exact mode RDP.
template <class Use>
auto with_accountant(const settings& asked, Use use) {
  return asked.exact ? use(dpsgd::rdp_accountant{}) : use(dpsgd::pld_accountant{});
}

/// use(that accountant, multiplier -> what a step of the run is to it).
template <class Use>
auto with_step(const settings& asked, const plan& p, Use use) {
  using namespace dpsgd;
  const auto of_owners = [&](auto event) { return with_rows(event, p.rows_per_owner, p.owners); };
  if (asked.exact)
    return use(rdp_accountant{}, [&](double multiplier) {
      return of_owners(poisson_sampled{p.rate, discrete_gaussian_event<zero_out>{multiplier}});
    });
  if (asked.cyclic())
    return use(pld_accountant{}, [&](double multiplier) {
      const correlated_gaussian_event<zero_out> step{multiplier, asked.correlated_bands()};
      return of_owners(cyclically_sampled{static_cast<double>(p.batches), step});
    });
  return use(pld_accountant{}, [&](double multiplier) {
    return of_owners(poisson_sampled{p.rate, gaussian_event<zero_out>{multiplier}});
  });
}

/// The largest power of ten below 1 / n.
inline double default_delta(std::uint64_t n) {
  double power = 1;
  while (power <= static_cast<double>(n)) power *= 10;
  return 1 / power;
}

/// From what was said and the recipe, for `all` rows of the file of which `train` are for training.
inline plan make_plan(const settings& asked, std::uint64_t all, const dpsgd::dataset& data) {
  using dpsgd::require;
  const auto train = data.all();
  require(train > 0, "no records are left to train on: lower --test-fraction");
  const auto n = static_cast<double>(train);
  const auto choice = recipe_for(train, asked.no_privacy, asked.optimizer != "sgd");
  plan p{};
  p.rows_per_owner = data.rows_per_owner(), p.owners = data.owners();
  p.batch_size = asked.batch_size.value_or(std::min(choice.batch_size, n));
  require(p.batch_size <= n, "--batch-size ", p.batch_size, " gives a sampling rate above 1: there are ", train,
          " records to train on");
  if (asked.cyclic()) {
    p.batches = static_cast<std::uint64_t>(std::max(1.0, std::round(n / p.batch_size)));
    p.batch_size = n / static_cast<double>(p.batches);
  }
  p.rate = p.batch_size / n;
  p.learning_rate = asked.learning_rate.value_or(choice.learning_rate);
  p.clip = asked.no_privacy ? 0 : asked.clip.value_or(choice.clip);
  p.delta = asked.delta.value_or(default_delta(all));
  const double epochs = asked.epochs.value_or(choice.epochs);
  p.steps = asked.steps.value_or(static_cast<std::uint64_t>(std::ceil(epochs / p.rate)));
  if (!asked.no_privacy) {
    const dpsgd::privacy_target target{asked.target_epsilon.value_or(3.0), p.delta};
    if (!asked.noise_multiplier) {
      p.noise_multiplier = with_step(asked, p, [&](const auto& none, const auto& event_of) {
        return dpsgd::smallest_multiplier(target, p.steps, event_of, none);
      });
    } else {
      p.noise_multiplier = *asked.noise_multiplier;
      if (asked.target_epsilon) {  // train until it is spent
        const bool bounded = asked.steps || asked.epochs;
        const auto most = with_step(asked, p, [&](const auto& none, const auto& event_of) {
          return dpsgd::most_steps(target, event_of(p.noise_multiplier), none);
        });
        require(most > 0, "not even one step fits --target-epsilon ", target.epsilon, " at delta ", p.delta,
                "; raise --noise-multiplier or lower --batch-size");
        p.steps = bounded ? std::min(p.steps, most) : most;
      }
    }
  }
  p.epochs = static_cast<double>(p.steps) * p.rate;
  return p;
}

inline constexpr const char* description =
    R"(Trains a multi-layer perceptron on a CSV file with differential privacy (DP-SGD), and says what may be claimed.

  train_mlp --csv people.csv --schema people.schema.json
  train_mlp --csv people.csv --schema people.schema.json --ranks 2 --target-epsilon 1 --save people.model
  mpirun -n 4 train_mlp --csv people.csv --schema people.schema.json --checkpoint kept
  mpirun -n 4 train_mlp --csv people.csv --schema people.schema.json --checkpoint kept --resume

The promise: whatever anybody concludes from the trained model, they would have concluded with nearly the same probability
(a factor of at most e^epsilon, except with probability delta) had any one row of the file been blanked. Smaller is more
private. Test accuracy and other figures marked "not private" are outside that promise.

What is not said is chosen from the number of records and the schema, which are public: epsilon 3, delta the largest power
of ten below 1/N, the rest by a recipe (docs/decisions/). The noise is the least that keeps epsilon for the steps asked
for. The schema (JSON) names the columns to read, their public bounds and the label.

Ctrl-C stops all ranks after the same step; with --checkpoint the run can be resumed. Exit status: 0 done, 1 error,
2 usage, 3 stopped and can be resumed. (After Ctrl-C mpirun itself says 1, whatever its ranks say.))";

/// Reads the command line into `asked`. Returns the exit status if there is nothing more to do.
inline std::optional<int> parse(int argc, char** argv, const console::start& start, settings& asked) {
  CLI::App app(description);
  app.set_version_flag("--version", std::string("train_mlp (dpsgd) ") + dpsgd::version);
  app.get_formatter()->column_width(34);
  const CLI::Validator positive = CLI::Validator(
      [](std::string& word) {
        double number = 0;
        return CLI::detail::lexical_cast(word, number) && number > 0 && std::isfinite(number)
                   ? std::string()
                   : "must be a positive number; got " + word;
      },
      "");
  const CLI::Validator fraction = CLI::Validator(
      [](std::string& word) {
        double number = 0;
        return CLI::detail::lexical_cast(word, number) && number >= 0 && number < 1 ? std::string()
                                                                                    : "must lie in [0, 1); got " + word;
      },
      "");
  const CLI::Validator delta_range = CLI::Validator(
      [](std::string& word) {
        double number = 0;
        return CLI::detail::lexical_cast(word, number) && number > 0 && number < 1 ? std::string()
                                                                                   : "must lie in (0, 1); got " + word;
      },
      "");

  // A count: CLI11 would take -1 for the largest number of all.
  const CLI::Validator natural = CLI::Validator(
      [](std::string& word) {
        return !word.empty() && word.size() <= 18 && word.find_first_not_of("0123456789") == word.npos
                   ? std::string()
                   : "must be a whole number from 0 to 10^18; got " + word;
      },
      "");

  const char* group = "Data";
  app.add_option("--csv", asked.csv, "the records: a CSV file with a header line")->required()->group(group);
  app.add_option("--schema", asked.schema, "their public description: a JSON file")->required()->group(group);
  app.add_flag("--drop-bad-rows", asked.drop_bad_rows,
               "leave out rows that do not fit the schema and count them; else the first one is an error")
      ->group(group);
  app.add_option("--test-fraction", asked.test_fraction, "share of the rows held back for testing")
      ->check(fraction)
      ->capture_default_str()
      ->group(group);
  app.add_option("--seed", asked.seed,
                 "of the split and the initial weights; both are public, so this costs no privacy")
      ->check(natural)
      ->capture_default_str()
      ->group(group);

  group = "Network and training";
  std::string hidden = "64,64";
  app.add_option("--hidden", hidden, "widths of the hidden layers; 0: none (logistic or linear regression)")
      ->capture_default_str()
      ->group(group);
  app.add_option("--activation", asked.activation, "between layers")
      ->check(CLI::IsMember({"relu", "leaky_relu", "tanh"}))
      ->capture_default_str()
      ->group(group);
  app.add_option("--optimizer", asked.optimizer, "adam-bc: adam, its second moment corrected for the noise (DP-AdamBC)")
      ->check(CLI::IsMember({"sgd", "adam", "adam-bc"}))
      ->capture_default_str()
      ->group(group);
  app.add_option("--momentum", asked.momentum, "of sgd")->check(fraction)->capture_default_str()->group(group);
  app.add_option("--learning-rate", asked.learning_rate,
                 "default: 0.005 for adam, 0.3 for sgd; without privacy 0.001 and 0.02")
      ->check(positive)
      ->group(group);
  auto* average =
      app.add_option(
             "--average", asked.average,
             "the trained model gets an average of the parameters over the steps, which costs no privacy. tail: "
             "of the second half; ema: of about the last twentieth. It is "
             "kept in no checkpoint")
          ->check(CLI::IsMember({"none", "tail", "ema"}))
          ->capture_default_str()
          ->group(group);
  app.add_option("--schedule", asked.schedule, "of the learning rate; default: cosine")
      ->check(CLI::IsMember({"constant", "cosine", "linear"}))
      ->group(group);
  app.add_option("--batch-size", asked.batch_size,
                 "expected number of records a step; default: 512 for 20,000 records, 2048 for a "
                 "million")
      ->check(positive)
      ->group(group);
  auto* epochs = app.add_option("--epochs", asked.epochs, "default: 20 for 20,000 records, 6 for a million")
                     ->check(positive)
                     ->group(group);
  app.add_option("--steps", asked.steps, "instead of epochs")
      ->check(natural)
      ->check(positive)
      ->excludes(epochs)
      ->group(group);

  group = "Privacy";
  app.add_option(
         "--target-epsilon", asked.target_epsilon,
         "spend at most this: the noise that does it is found. With --noise-multiplier: train until it is spent. "
         "Default: 3, unless --noise-multiplier is given")
      ->check(positive)
      ->group(group);
  auto* noise =
      app.add_option("--noise-multiplier", asked.noise_multiplier, "standard deviation of the noise / clip bound")
          ->check(positive)
          ->group(group);
  app.add_option("--delta", asked.delta, "default: the largest power of ten below 1/N")
      ->check(delta_range)
      ->group(group);
  auto* kind =
      app.add_option("--noise", asked.noise,
                     "gaussian: each step's by itself. banded, tree: a step takes back a part of earlier steps' "
                     "noise; less noise at a large epsilon or over few epochs, more at a small one over many")
          ->check(CLI::IsMember({"gaussian", "banded", "tree"}))
          ->capture_default_str()
          ->group(group);
  auto* bands = app.add_option("--bands", asked.bands, "of banded noise: how many steps' noise a step combines")
                    ->check(CLI::Range(1, 4096))
                    ->capture_default_str()
                    ->group(group);
  auto* sampling = app.add_option("--sampling", asked.sampling,
                                  "poisson: each record joins each step by itself. cyclic: each once in so many steps; "
                                  "amplifies nothing. Default: poisson for gaussian noise, else cyclic")
                       ->check(CLI::IsMember({"poisson", "cyclic"}))
                       ->group(group);
  auto* clip = app.add_option("--clip", asked.clip,
                              "bound on the norm of each record's gradient, of adaptive clipping the first; default: 1")
                   ->check(positive)
                   ->group(group);
  auto* clipping =
      app.add_option("--clipping", asked.clipping,
                     "flat: to the bound. automatic, psac: all gradients to about the bound. adaptive: to a "
                     "bound that follows, privately, a quantile of the gradients' norms")
          ->check(CLI::IsMember({"flat", "automatic", "psac", "adaptive"}))
          ->capture_default_str()
          ->group(group);
  auto* quantile = app.add_option("--clip-quantile", asked.clip_quantile,
                                  "of adaptive clipping: the share of gradients to be no longer than the bound")
                       ->check(positive)
                       ->check(fraction)
                       ->capture_default_str()
                       ->group(group);
  app.add_option(
         "--ledger", asked.ledger,
         "the file that adds up what is spent on these records over all runs; default: the CSV's name + .ledger "
         "(runs that are not private are entered only if this option names a ledger)")
      ->group(group);
  auto* budget = app.add_option("--budget", asked.budget, "refuse to take the ledger's epsilon past this")
                     ->check(positive)
                     ->group(group);
  auto* no_privacy =
      app.add_flag("--no-privacy", asked.no_privacy, "no clipping and no noise, to compare with")->group(group);
  auto* exact =
      app.add_flag("--exact", asked.exact,
                   "whole numbers and discrete noise, so that the claim says exact arithmetic and ranks do not "
                   "show in the result; accounted by RDP, which asks for more noise, and slower")
          ->group(group);
  app.add_option("--insecure-seed", asked.insecure_seed,
                 "seed noise and sampling too, so that the run repeats bit by bit; it is then not private")
      ->check(natural)
      ->excludes(budget)
      ->group(group);
  for (auto* option : {kind, bands, sampling}) exact->excludes(option);
  for (auto* option : {noise, kind, bands, sampling, clip, clipping, quantile, budget, exact})
    no_privacy->excludes(option);
  no_privacy->excludes(app.get_option("--target-epsilon"));

  group = "Ranks";
  auto* ranks = app.add_option("--ranks", asked.ranks,
                               "threads that train together; under mpirun its ranks do, and this is refused")
                    ->check(CLI::Range(1, 1024))
                    ->capture_default_str()
                    ->group(group);
  std::vector<std::string> allreduces;
  for (const auto& a : dpsgd::allreduce::all_algorithms) allreduces.emplace_back(a.name());
  allreduces.emplace_back("auto");
  app.add_option("--allreduce", asked.allreduce, "how the ranks add up; auto: whatever is fastest here, and says what")
      ->check(CLI::IsMember(allreduces))
      ->capture_default_str()
      ->group(group);
  app.add_option("--deadline", asked.deadline, "seconds that a rank waits for another one before it gives up")
      ->check(positive)
      ->capture_default_str()
      ->group(group);

  group = "Results";
  auto* checkpoint =
      app.add_option("--checkpoint", asked.checkpoint, "directory to keep the state of training in")->group(group);
  app.add_option("--checkpoint-every", asked.checkpoint_every, "steps between checkpoints; default: only when it stops")
      ->check(natural)
      ->check(positive)
      ->needs(checkpoint)
      ->group(group);
  average->excludes(checkpoint);
  app.add_flag("--resume", asked.resume, "go on from the checkpoint, with the same options")
      ->needs(checkpoint)
      ->group(group);
  app.add_option("--save", asked.save, "file for the trained model (see predict)")->group(group);
  app.add_option("--json", asked.json, "file for all results; - is stdout, and words for people then go to stderr")
      ->group(group);

  try {
    app.parse(argc, argv);
    if (start.by_mpirun && ranks->count() > 0)
      throw CLI::ValidationError("--ranks", "mpirun says how many ranks there are; leave --ranks out");
    if (quantile->count() > 0 && asked.clipping != "adaptive")
      throw CLI::ValidationError("--clip-quantile", "only adaptive clipping has a quantile: say --clipping adaptive");
    if (bands->count() > 0 && asked.noise != "banded")
      throw CLI::ValidationError("--bands", "only banded noise has bands: say --noise banded");
    if (asked.sampling.empty()) asked.sampling = asked.noise == "gaussian" ? "poisson" : "cyclic";
    if (asked.noise != "gaussian" && !asked.cyclic())
      throw CLI::ValidationError("--sampling",
                                 "correlated noise must know which steps a record joins, so it does not go "
                                 "with poisson: say --sampling cyclic, or --noise gaussian");
    asked.hidden.clear();
    std::string word;
    for (std::stringstream words(hidden); std::getline(words, word, ',');) {
      unsigned width = 0;
      if (!CLI::detail::lexical_cast(word, width) || width > 65536 || (width == 0 && hidden != "0"))
        throw CLI::ValidationError("--hidden",
                                   "must be widths from 1 to 65536, such as 64,64, or 0 for none; got " + hidden);
      if (width > 0) asked.hidden.push_back(width);
    }
    if (asked.hidden.empty() && hidden != "0")
      throw CLI::ValidationError("--hidden", "must be widths such as 64,64, or 0");
  } catch (const CLI::ParseError& e) {
    if (start.rank != 0) return e.get_exit_code() == 0 ? console::done : console::bad_usage;
    return app.exit(e) == 0 ? console::done : console::bad_usage;
  }
  return {};
}
