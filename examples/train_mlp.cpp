/// train_mlp: trains a multi-layer perceptron on a CSV file with DP-SGD, on ranks that are threads or an MPI job.
///
///   train_mlp --csv people.csv --schema people.schema.json [--ranks 2]
///   mpirun -n 2 train_mlp --csv people.csv --schema people.schema.json
///
/// train() below is the program: the same code on every kind of rank. What stands around it reads options
/// (train_settings.hpp), signals and progress (console.hpp), and writes down what came out.
#include <array>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <exception>
#include <filesystem>
#include <functional>
#include <iostream>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <sstream>
#include <string>
#include <variant>
#include <vector>

#include "console.hpp"
#include "dpsgd/allreduce/all.hpp"
#include "dpsgd/comm/auto_allreduce.hpp"
#include "dpsgd/data/schema_json.hpp"
#include "dpsgd/dpsgd.hpp"
#include "dpsgd/nn/model_file.hpp"
#include "dpsgd/train/journal.hpp"
#include "train_settings.hpp"
#ifdef DPSGD_HAS_MPI
#include "dpsgd/mpi.hpp"
#endif

namespace {

using clock_type = std::chrono::steady_clock;
double seconds_since(clock_type::time_point start) {
  return std::chrono::duration<double>(clock_type::now() - start).count();
}

/// The learning-rate schedule that the command line named.
struct named_schedule {
  enum { constant, cosine, linear } kind;
  explicit named_schedule(const std::string& name)
      : kind(name == "constant" ? constant
             : name == "cosine" ? cosine
                                : linear) {}
  double factor(std::uint64_t step, std::uint64_t steps) const {
    if (kind == cosine) return dpsgd::cosine_decay{}.factor(step, steps);
    if (kind == linear) return dpsgd::linear_decay{}.factor(step, steps);
    return 1;
  }
};
static_assert(dpsgd::learning_rate_schedule<named_schedule>);

/// The clip that the command line named. One type for all of them, so that the trainer is compiled once; so each has
/// the coordinate that only the adaptive one uses (with the others it stays 0). A clip by layer would be another trainer.
struct named_clip {
  static constexpr std::size_t extra = 1;
  std::variant<dpsgd::flat_clip, dpsgd::automatic_clip, dpsgd::psac_clip, dpsgd::adaptive_clip> chosen;

  named_clip(const settings& asked, double bound) {
    if (asked.clipping == "automatic") chosen = dpsgd::automatic_clip{.bound = bound};
    else if (asked.clipping == "psac") chosen = dpsgd::psac_clip{.bound = bound};
    else if (asked.clipping == "adaptive")
      chosen = dpsgd::adaptive_clip{.bound = bound, .quantile = asked.clip_quantile};
    else chosen = dpsgd::flat_clip{.bound = bound};
  }
  double factor(double norm) const {
    return std::visit([&](const auto& c) { return c.factor(norm); }, chosen);
  }
  dpsgd::l2_sensitivity<dpsgd::zero_out> sensitivity() const {
    return std::visit([](const auto& c) { return c.sensitivity(); }, chosen);
  }
  void check(std::size_t layers) const {
    std::visit(
        [&](const auto& c) {
          if constexpr (requires { c.check(layers); }) c.check(layers);
        },
        chosen);
  }
  const dpsgd::adaptive_clip* adaptive() const { return std::get_if<dpsgd::adaptive_clip>(&chosen); }
  double contribution(double norm, std::size_t k) const { return adaptive() ? adaptive()->contribution(norm, k) : 0; }
  double next(std::size_t k, double mean) const { return adaptive() ? adaptive()->next(k, mean) : 0; }
  double value(std::size_t k) const { return adaptive() ? adaptive()->value(k) : 0; }
  void load(std::size_t k, double value) {
    if (auto* c = std::get_if<dpsgd::adaptive_clip>(&chosen)) c->load(k, value);
  }
};
static_assert(dpsgd::clip_with_coordinates<named_clip>);

/// The correlated noise that the command line named. One type for both, so that the trainer is compiled once for them.
struct named_noise {
  using value = float;
  static constexpr std::size_t block_size = dpsgd::normal_block_size;
  std::variant<dpsgd::banded_noise, dpsgd::tree_noise> chosen;
  double multiplier;  // the trainer checks it

  named_noise(const settings& asked, double z) : multiplier(z) {
    if (asked.noise == "tree") chosen = dpsgd::tree_noise{multiplier};
    else chosen = dpsgd::banded_noise{multiplier, static_cast<std::uint32_t>(asked.correlated_bands())};
  }
  void draw(const dpsgd::random_stream& words, std::uint32_t block, double sensitivity, float* out) const {
    std::visit([&](const auto& n) { n.draw(words, block, sensitivity, out); }, chosen);
  }
  double covariance(double sensitivity, std::uint64_t step, std::uint64_t other) const {
    return std::visit([&](const auto& n) { return n.covariance(sensitivity, step, other); }, chosen);
  }
  auto event(dpsgd::l2_sensitivity<dpsgd::zero_out> sensitivity) const {
    return std::visit([&](const auto& n) { return n.event(sensitivity); }, chosen);
  }
};
static_assert(dpsgd::noise_policy<named_noise>);

/// The records of one rank, both sides of the split.
struct records {
  dpsgd::dataset train, test;
  double seconds_read = 0;
};

records read_records(const settings& asked, const dpsgd::schema& columns, const dpsgd::csv_options& how) {
  const auto start = clock_type::now();
  auto sides = dpsgd::split(dpsgd::read_csv(asked.csv, columns, how), {asked.test_fraction, asked.seed});
  return {std::move(sides.train), std::move(sides.test), seconds_since(start)};
}

dpsgd::mlp make_model(const settings& asked, const dpsgd::schema& columns) {
  std::vector<std::size_t> widths{columns.width()};
  widths.insert(widths.end(), asked.hidden.begin(), asked.hidden.end());
  dpsgd::mlp::options options{.activation = dpsgd::relu{}, .loss = {}, .seed = asked.seed};
  if (asked.activation == "leaky_relu") options.activation = dpsgd::leaky_relu{};
  if (asked.activation == "tanh") options.activation = dpsgd::tanh{};
  switch (columns.label_kind()) {
    case dpsgd::label_kind::two_classes:
      options.loss = dpsgd::any_loss{dpsgd::sigmoid_cross_entropy{}};
      break;
    case dpsgd::label_kind::classes:
      options.loss = dpsgd::any_loss{dpsgd::softmax_cross_entropy{}};
      break;
    case dpsgd::label_kind::regression:
      options.loss = dpsgd::any_loss{dpsgd::squared_error{}};
      break;
  }
  widths.push_back(options.loss->outputs(columns.classes()));
  dpsgd::mlp model(widths, options);
  if (asked.hidden.empty())  // convex: no symmetry to break, and what is random at the start is one more noise
    for (auto& w : model.parameters()) w = 0;
  return model;
}

/// What must be the same in a checkpoint and in the run that resumes it: all that the claim and the test set hang on.
/// Public: no digest of the data, which would tell somebody who knows all rows but one whether a guess at that one is
/// right.
std::string describe(const settings& asked, const plan& p, const dpsgd::mlp& model, const dpsgd::dataset& data) {
  std::string widths = std::to_string(model.inputs());
  for (const auto w : asked.hidden) widths += "-" + std::to_string(w);
  widths += "-" + std::to_string(model.outputs());
  std::string privacy = "no privacy";
  if (!asked.no_privacy)
    privacy = dpsgd::text(asked.clipping, " clip ", p.clip, ", noise multiplier ", p.noise_multiplier,
                          asked.exact ? ", exact" : "",
                          asked.cyclic() ? dpsgd::text(", ", asked.correlated_bands(), " bands, cyclic") : "");
  if (asked.insecure_seed) privacy += dpsgd::text(", insecure seed ", *asked.insecure_seed);
  return dpsgd::text("[", data.universe(), " rows, schema ", console::schema_digest(asked.schema), ", split seed ",
                     asked.seed, ", test fraction ", asked.test_fraction, ", mlp ", widths, " ", asked.activation, ", ",
                     asked.optimizer, ", sampling rate ", p.rate, ", ", privacy, "]");
}

/// How well `model` does on the records held back, over all ranks. None of it is private.
struct test_result {
  double records = 0, correct = 0, loss = 0, squared_error = 0;
  std::vector<double> of_class;  // records of each class
};
template <class World>
test_result test_on(World& world, const dpsgd::mlp& model, const dpsgd::schema& columns, const dpsgd::dataset& mine) {
  const bool regression = columns.label_kind() == dpsgd::label_kind::regression;
  std::vector<double> sums(4 + (regression ? 0 : static_cast<std::size_t>(columns.classes())));
  if (mine.records() > 0) {
    const auto e = dpsgd::evaluate(model, mine).value;
    sums[0] = e.records, sums[1] = e.correct, sums[2] = e.loss;
    const auto labels = mine.labels();
    if (regression) {
      const auto guesses = dpsgd::predict(model, mine.features());
      for (std::size_t i = 0; i < guesses.size(); ++i) {
        const double off = columns.the_label().value(guesses[i]) - columns.the_label().value(labels[i]);
        sums[3] += off * off;
      }
    } else {
      for (const float label : labels) sums[4 + static_cast<std::size_t>(label)] += 1;
    }
  }
  dpsgd::sum(world, std::span<double>(sums));
  return {sums[0], sums[1], sums[2], sums[3], {sums.begin() + 4, sums.end()}};
}

/// Throws when all training labels are one, over all ranks.
template <class World>
void check_labels(World& world, const dpsgd::schema& columns, const dpsgd::dataset& train) {
  constexpr double infinity = std::numeric_limits<double>::infinity();
  std::array<double, 2> facts{-infinity, -infinity};  // -least, most
  for (const float label : train.labels()) {
    facts[0] = std::max(facts[0], -static_cast<double>(label));
    facts[1] = std::max(facts[1], static_cast<double>(label));
  }
  dpsgd::max(world, std::span<double>(facts));
  dpsgd::require(facts[1] > -infinity,
                 "no records are left to train on (not private: all rows of the training side were dropped)");
  dpsgd::require(-facts[0] < facts[1], "the label is constant: every training record has ", columns.the_label().name(),
                 " = ", columns.the_label().value(facts[1]), ", so there is nothing to learn");
}

/// What all runs in the ledger have spent. Throws when there are some that the accountant cannot add up.
double epsilon_of(const dpsgd::ledger& book, const settings& asked, double delta) {
  for (const auto& run : book.runs())
    dpsgd::require(
        asked.exact || std::visit([](const auto& e) { return e.exactness; }, run.event) == dpsgd::arithmetic::idealised,
        "the ledger ", asked.ledger,
        " has runs in exact mode, which the PLD accountant cannot add up to others; train with --exact too, "
        "whose RDP accountant takes them all");
  return with_accountant(asked, [&](auto spent) {
    book.add_to(spent);
    return spent.spent(delta).epsilon;
  });
}

/// Throws when the whole run would take the ledger past the budget: nothing is spent then. (The journal would stop it
/// half way.)
void check_budget(const dpsgd::ledger& book, const settings& asked, const plan& p) {
  const auto before = epsilon_of(book, asked, p.delta);
  const auto fits = with_step(asked, p, [&](auto spent, const auto& event_of) -> std::uint64_t {
    book.add_to(spent);
    if (before >= *asked.budget) return 0;
    return dpsgd::most_steps({*asked.budget, p.delta}, event_of(p.noise_multiplier), spent, p.steps);
  });
  dpsgd::require(fits >= p.steps || asked.resume, "the budget does not allow this run: the ledger ", asked.ledger,
                 " has epsilon ", before, " at delta ", p.delta, ", and of the ", p.steps, " steps only ", fits,
                 " keep it below --budget ", *asked.budget, "; lower --target-epsilon or --steps, or raise the budget");
}

void warn(const std::string& words) { std::cerr << "train_mlp: warning: " << words << '\n'; }

/// Everything that came out, with stable keys. What is infinite or does not apply is null.
nlohmann::ordered_json to_json(const settings& asked, const plan& p, int ranks, bool by_mpirun) {
  const auto or_null = [](const auto& value) {
    return value ? nlohmann::ordered_json(*value) : nlohmann::ordered_json();
  };
  const auto word_or_null = [](const std::string& word) {
    return word.empty() ? nlohmann::ordered_json() : nlohmann::ordered_json(word);
  };
  nlohmann::ordered_json s;
  s["csv"] = asked.csv, s["schema"] = asked.schema, s["drop_bad_rows"] = asked.drop_bad_rows;
  s["test_fraction"] = asked.test_fraction, s["seed"] = asked.seed;
  s["hidden"] = asked.hidden, s["activation"] = asked.activation;
  s["optimizer"] = asked.optimizer;
  s["momentum"] = asked.optimizer == "sgd" ? nlohmann::ordered_json(asked.momentum) : nlohmann::ordered_json();
  s["learning_rate"] = p.learning_rate, s["schedule"] = asked.schedule, s["average"] = asked.average;
  s["batch_size"] = p.batch_size, s["sampling_rate"] = p.rate, s["epochs"] = p.epochs, s["steps"] = p.steps;
  s["clip"] = asked.no_privacy ? nlohmann::ordered_json() : nlohmann::ordered_json(p.clip);
  s["clipping"] = asked.no_privacy ? nlohmann::ordered_json() : nlohmann::ordered_json(asked.clipping);
  s["clip_quantile"] =
      asked.clipping == "adaptive" ? nlohmann::ordered_json(asked.clip_quantile) : nlohmann::ordered_json();
  s["noise_multiplier"] = asked.no_privacy ? nlohmann::ordered_json() : nlohmann::ordered_json(p.noise_multiplier);
  s["noise"] = word_or_null(asked.no_privacy ? "" : asked.exact ? "discrete gaussian" : asked.noise);
  s["bands"] = asked.noise == "banded" ? nlohmann::ordered_json(asked.bands) : nlohmann::ordered_json();
  s["sampling"] = asked.sampling;
  s["rows_per_owner"] = p.rows_per_owner;
  s["target_epsilon"] = or_null(asked.target_epsilon), s["delta"] = p.delta, s["no_privacy"] = asked.no_privacy;
  s["exact"] = asked.exact;
  s["insecure_seed"] = or_null(asked.insecure_seed);
  s["ledger"] = word_or_null(asked.ledger), s["budget"] = or_null(asked.budget);
  s["ranks"] = ranks, s["mpi"] = by_mpirun, s["allreduce"] = asked.allreduce, s["deadline"] = asked.deadline;
  s["checkpoint"] = word_or_null(asked.checkpoint), s["checkpoint_every"] = asked.checkpoint_every;
  s["resume"] = asked.resume, s["save"] = word_or_null(asked.save);
  return s;
}

nlohmann::ordered_json number(double value) {
  return std::isfinite(value) ? nlohmann::ordered_json(value) : nlohmann::ordered_json();
}

/// Trains on every rank of `world`, each with its own records. Rank 0 speaks, and keeps ledger, checkpoints and
/// results. Returns the exit status, the same on all ranks.
template <class World>
int train(World& world, settings asked, const dpsgd::schema& columns, const records& mine, bool by_mpirun) {
  const bool root = world.rank() == 0;
  world.deadline(asked.deadline);
  world.stop_flag(&console::stop);
  const auto seconds_read = dpsgd::max(world, mine.seconds_read);
  check_labels(world, columns, mine.train);
  const std::uint64_t all = mine.train.universe();

  // The plan: by rank 0, so that it is the same everywhere.
  plan p{};
  if (root) p = make_plan(asked, all, mine.train);
  p = dpsgd::broadcast_value(world, p);
  if (asked.schedule.empty())
    asked.schedule = recipe_for(mine.train.all(), asked.no_privacy, asked.optimizer != "sgd").schedule;
  if (root) {
    if (asked.is_private() && p.delta >= 1 / static_cast<double>(all))
      warn(dpsgd::text("delta ", p.delta, " is not below 1/N (N = ", all,
                       " rows): it allows for giving somebody's row away entirely"));
    if (mine.test.all() == 0) warn("there is no test set (--test-fraction 0), so accuracy is not measured");
    if (!by_mpirun && asked.ranks > dpsgd::cores())
      warn(dpsgd::text(asked.ranks, " ranks on ", dpsgd::cores(),
                       " cores: more ranks than cores are slower, not faster"));
  }

  // Rank 0's ledger and checkpoints.
  auto model = make_model(asked, columns);
  std::optional<dpsgd::ledger> book;
  dpsgd::journal journal;
  dpsgd::basic_journal<dpsgd::rdp_accountant> exact_journal;  // instead, in exact mode
  const auto with_journal = [&](auto use) { asked.exact ? use(exact_journal) : use(journal); };
  if (root) {
    if (asked.ledger.empty() && asked.is_private()) asked.ledger = asked.csv + ".ledger";
    if (!asked.checkpoint.empty())
      with_journal(
          [&](auto& j) { j.keep_checkpoints(asked.checkpoint, describe(asked, p, model, mine.train), asked.resume); });
    if (!asked.ledger.empty()) {
      book.emplace(asked.ledger, mine.train.digest().hex(), all);
      epsilon_of(*book, asked, p.delta);  // refuses now, not when all is spent, if the ledger has runs of other kinds
      if (asked.budget) check_budget(*book, asked, p);
      with_journal([&](auto& j) {
        j.keep(*book, asked.budget ? std::optional(dpsgd::privacy_target{*asked.budget, p.delta}) : std::nullopt);
      });
    } else if (!asked.is_private()) {
      warn("this run is not private and no ledger counts it: do not release what comes out of it");
    }
  }

  // How the ranks add up: one type, whatever it is. What travels is the parameters, the clip's coordinate and one flag.
  const auto allreduce = [&] {
    if (asked.allreduce != "auto") return dpsgd::allreduce::from_name(asked.allreduce);
    const auto n = model.parameters().size() + 2;
    const dpsgd::auto_allreduce race(world);
    const auto choice =
        asked.exact ? race.template choose<std::int64_t>(world, n) : race.template choose<float>(world, n);
    if (root) std::cerr << "allreduce: " << choice.text() << '\n';
    asked.allreduce = choice.picked.name();  // the results say what ran
    return choice.picked;
  }();

  // Train. The policies' types are chosen here, once.
  std::optional<console::progress_view> view;
  if (root) view.emplace(p.batch_size, asked.is_private());
  dpsgd::journal_base* keep = &journal;
  if (asked.exact) keep = &exact_journal;
  dpsgd::parameter_average average;
  decltype(dpsgd::fit_options::on_step) after_step;
  if (asked.average != "none") after_step = std::ref(average);
  if (asked.average == "tail") average.first = p.steps / 2 + 1;
  if (asked.average == "ema") average.decay = std::exp(-20 / static_cast<double>(p.steps));
  const auto fit = [&](const auto& optimizer, const auto&... privacy) {
    dpsgd::trainer trainer{world, optimizer, named_schedule(asked.schedule), allreduce, privacy...};
    return trainer.fit(model, mine.train,
                       {.steps = p.steps,
                        .learning_rate = p.learning_rate,
                        .delta = p.delta,
                        .insecure_seed = asked.insecure_seed,
                        .journal = keep,  // of rank 0 alone
                        .checkpoint_every = asked.checkpoint_every,
                        .stop = &console::stop,
                        .on_progress = [&](const dpsgd::progress& now) { (*view)(now); },
                        .progress_every = view ? view->every() : 1.0,
                        .on_step = after_step});
  };
  const auto fit_with = [&](const auto& optimizer) {
    const dpsgd::poisson_sampling sampling{.rate = p.rate};
    const named_clip clip(asked, p.clip);
    if (asked.no_privacy) return fit(optimizer, dpsgd::no_clip{}, dpsgd::no_noise{}, sampling);
    if (asked.exact)
      return fit(optimizer, clip, dpsgd::discrete_gaussian_noise{.multiplier = p.noise_multiplier},
                 dpsgd::exact_poisson_sampling{.rate = p.rate}, dpsgd::rdp_accountant{});
    if (asked.cyclic())
      return fit(optimizer, clip, named_noise(asked, p.noise_multiplier), dpsgd::cyclic_sampling{.batches = p.batches});
    return fit(optimizer, clip, dpsgd::gaussian_noise{.multiplier = p.noise_multiplier}, sampling);
  };
  const auto report = asked.optimizer == "sgd" ? fit_with(dpsgd::sgd{.momentum = asked.momentum})
                                               : fit_with(dpsgd::adam{.correct_noise = asked.optimizer == "adam-bc"});
  view.reset();
  if (!report.stopped) average.store(model);

  // What came out.
  std::optional<test_result> tested;
  if (!report.stopped && mine.test.all() > 0) tested = test_on(world, model, columns, mine.test);
  std::array<double, 2> dropped{static_cast<double>(mine.train.dropped()), static_cast<double>(mine.test.dropped())};
  dpsgd::sum(world, std::span<double>(dropped));
  const double peak = dpsgd::max(world, console::peak_rss_mib());
  if (!root)
    return report.stopped && !asked.checkpoint.empty() ? console::resumable
           : report.stopped                            ? console::failed
                                                       : console::done;

  double epsilon_all_runs = std::numeric_limits<double>::infinity();
  if (book) epsilon_all_runs = epsilon_of(*book, asked, p.delta);
  const double per_epoch =
      report.steps_here > 0 ? report.seconds / static_cast<double>(report.steps_here) / p.rate : NAN;
  const double per_second =
      report.seconds > 0 ? static_cast<double>(report.steps_here) * p.batch_size / report.seconds : NAN;
  std::ostringstream claim;
  claim << report.claim;
  const bool regression = columns.label_kind() == dpsgd::label_kind::regression;
  const bool has_test = tested && tested->records > 0;
  const double accuracy = has_test && !regression ? tested->correct / tested->records : NAN;
  const double majority = has_test && !regression
                              ? *std::max_element(tested->of_class.begin(), tested->of_class.end()) / tested->records
                              : NAN;
  const double rmse = has_test && regression ? std::sqrt(tested->squared_error / tested->records) : NAN;

  // The adaptive clip's bound is released in every step: it is as public as the parameters.
  const double final_clip = asked.clipping == "adaptive" ? report.clip_state.at(0) : NAN;

  // Said first, then written: what cannot be written must not hide what was spent, nor the one file the other.
  const auto say = [&]() -> int {
    if (report.not_finite.value > 0)
      warn(dpsgd::text(report.not_finite.value, " gradients were not finite and counted as zero (not private)"));
    auto& out = asked.json == "-" ? std::cerr : std::cout;
    if (report.stopped) {
      out << "stopped after step " << report.steps << " of " << report.target_steps << "; so far: " << claim.str()
          << '\n';
      if (asked.checkpoint.empty()) {
        std::cerr << "train_mlp: the run cannot be resumed: it had no --checkpoint\n";
        return console::failed;
      }
      out << "to go on, give the same options and --resume\n";
      return console::resumable;
    }
    if (asked.resume && report.steps_here == 0)
      warn(dpsgd::text("the checkpoint has ", report.steps, " steps already, and ", report.target_steps,
                       " were asked for: nothing was trained"));
    if (report.out_of_budget)
      out << "stopped after step " << report.steps << " of " << report.target_steps
          << ": the ledger's budget is spent\n";
    out.precision(4);
    if (dropped[0] + dropped[1] > 0) out << "rows dropped: " << dpsgd::not_private{dropped[0] + dropped[1]} << '\n';
    if (has_test && regression) out << "test error, root mean square: " << dpsgd::not_private{rmse} << '\n';
    else if (has_test)
      out << "test accuracy: " << dpsgd::not_private{accuracy}
          << "; always the commonest class: " << dpsgd::not_private{majority} << '\n';
    else out << "test accuracy: not measured, there are no test records\n";
    if (asked.clipping == "adaptive") out << "clip bound: " << p.clip << " at first, " << final_clip << " in the end\n";
    out << "privacy: " << claim.str() << '\n';
    if (book) out << "all runs in " << asked.ledger << ": epsilon " << dpsgd::rounded_up(epsilon_all_runs) << '\n';
    out.precision(3);
    if (report.steps_here > 0)
      out << per_epoch << " s per epoch, " << console::brief(per_second) << " records per second" << std::endl;
    return report.out_of_budget || !console::printed() ? console::failed : console::done;
  };
  const auto save_model = [&] {
    if (!asked.save.empty() && !report.stopped)
      dpsgd::save_model(model, asked.save, claim.str() + "\nschema " + console::schema_digest(asked.schema));
  };
  const auto write_json = [&] {
    if (!asked.json.empty()) {
      nlohmann::ordered_json j;
      j["test_accuracy"] = number(accuracy), j["majority_accuracy"] = number(majority);
      j["test_loss"] = number(has_test ? tested->loss / tested->records : NAN), j["test_rmse"] = number(rmse);
      j["epsilon"] = number(report.claim.epsilon), j["epsilon_all_runs"] = number(epsilon_all_runs),
      j["delta"] = p.delta;
      j["private"] = report.claim.is_private(), j["claim"] = claim.str();
      j["steps"] = report.steps, j["steps_here"] = report.steps_here,
      j["stopped"] = report.stopped || report.out_of_budget;
      j["final_clip"] = number(final_clip);
      j["ranks"] = world.size(), j["records"] = all;
      j["train_positions"] = mine.train.all(), j["test_positions"] = mine.test.all();
      j["dropped"] = dropped[0] + dropped[1], j["not_finite"] = report.not_finite.value;
      j["seconds_read"] = seconds_read, j["seconds_training"] = report.seconds;
      j["seconds_per_epoch"] = number(per_epoch), j["records_per_second"] = number(per_second),
      j["peak_rss_mib"] = peak;
      j["parameters"] = model.parameters().size(), j["features"] = columns.width();
      j["version"] = dpsgd::version, j["settings"] = to_json(asked, p, world.size(), by_mpirun);
      if (asked.json == "-") std::cout << j.dump(2) << std::endl;
      else dpsgd::write_durably(asked.json, j.dump(2) + "\n");
    }
  };
  const int status = say();
  std::exception_ptr trouble;
  for (const auto& write : {std::function<void()>(save_model), std::function<void()>(write_json)}) try {
      write();
    } catch (...) {
      if (!trouble) trouble = std::current_exception();
    }
  if (trouble) std::rethrow_exception(trouble);
  return status == console::done && !console::printed() ? console::failed : status;
}

/// Ranks are threads of this process, and the file is read once, by as many.
int train_on_threads(const settings& asked, const dpsgd::schema& columns) {
  const auto whole = read_records(asked, columns,
                                  {.threads = std::min(asked.ranks, dpsgd::cores()),
                                   .bad_rows = asked.drop_bad_rows ? dpsgd::bad_rows::drop : dpsgd::bad_rows::error});
  dpsgd::require(whole.train.records() > 0, "no records are left to train on: lower --test-fraction (not private)");
  dpsgd::require(static_cast<std::size_t>(asked.ranks) <= whole.train.records(), "more ranks than records: --ranks ",
                 asked.ranks, " for ", whole.train.records(), " training records (not private)");
  int status = console::failed;
  dpsgd::threads::run(asked.ranks, [&](auto& world) {
    records mine{dpsgd::shard(whole.train, world), dpsgd::dataset(), whole.seconds_read};
    const bool enough = whole.test.records() >= static_cast<std::size_t>(asked.ranks);
    if (enough) mine.test = dpsgd::shard(whole.test, world);
    else if (world.rank() == 0) mine.test = whole.test;
    const int mine_status = train(world, asked, columns, mine, false);
    if (world.rank() == 0) status = mine_status;
  });
  return status;
}

#ifdef DPSGD_HAS_MPI
/// Ranks are an MPI job, and each reads its own part of the file.
int train_on_mpi(int argc, char** argv, const settings& asked, const dpsgd::schema& columns) {
  dpsgd::mpi::world world(argc, argv);
  world.deadline(asked.deadline);
  records mine;
  std::string problem;
  try {
    mine = read_records(asked, columns,
                        {.part = world.rank(),
                         .parts = world.size(),
                         .bad_rows = asked.drop_bad_rows ? dpsgd::bad_rows::drop : dpsgd::bad_rows::error});
  } catch (const dpsgd::error& e) {
    problem = e.what();
  }
  // The first rank with a problem speaks for all: its part of the file comes first.
  const auto bad = dpsgd::gather_all(world, static_cast<char>(!problem.empty()));
  if (const auto first = std::find(bad.begin(), bad.end(), 1); first != bad.end()) {
    if (world.rank() == first - bad.begin()) std::cerr << "train_mlp: " << problem << std::endl;
    return console::failed;
  }
  return train(world, asked, columns, mine, true);
}
#endif

/// Results are written at the end: find out now whether they can be.
void check_place(const char* option, const std::string& file) {
  if (file.empty() || file == "-") return;
  auto directory = std::filesystem::path(file).parent_path();
  if (directory.empty()) directory = ".";
  const bool can = ::access(directory.c_str(), W_OK) == 0;
  const std::string reason = can ? "" : std::strerror(errno);
  dpsgd::require(can, option, " ", file, ": cannot write into ", directory.string(), " (", reason, ")");
  dpsgd::require(!std::filesystem::is_directory(file), option, " ", file, " is a directory");
}

}  // namespace

int main(int argc, char** argv) {
  const auto start = console::start::detect();
  settings asked;
  if (const auto status = parse(argc, argv, start, asked)) return *status;
  console::stop_on_signals();
  try {
    check_place("--json", asked.json);
    check_place("--save", asked.save);
    if (std::filesystem::exists(asked.csv) && !std::filesystem::is_regular_file(asked.csv)) {  // a pipe, /dev/stdin
      dpsgd::require(!start.by_mpirun, "--csv ", asked.csv,
                     " is no plain file: under mpirun every rank reads its own part of it");
      dpsgd::require(!asked.ledger.empty() || !asked.is_private(), "--csv ", asked.csv,
                     " is no plain file, so its ledger has no place beside it: say --ledger FILE");
    }
    const auto columns = dpsgd::read_schema(asked.schema);
    if (!start.by_mpirun) return train_on_threads(asked, columns);
#ifdef DPSGD_HAS_MPI
    return train_on_mpi(argc, argv, asked, columns);
#else
    dpsgd::fail("this train_mlp was built without MPI; start it without mpirun, with --ranks");
#endif
  } catch (const dpsgd::interrupted& e) {
    const bool kept = !asked.checkpoint.empty() && std::filesystem::exists(asked.checkpoint + "/latest.checkpoint");
    std::cerr << "train_mlp: stopped: " << e.what()
              << (kept ? "\nthe last checkpoint can be resumed: --resume\n" : "\n");
    return kept ? console::resumable : console::failed;
  } catch (const std::exception& e) {
    std::string_view what = e.what();
    if (!start.by_mpirun && asked.ranks == 1 && what.starts_with("rank 0: ")) what.remove_prefix(8);
    std::cerr << "train_mlp: " << what << std::endl;
    return console::failed;
  }
}
