/// What does a trained model give away about the people it was trained on? Attacks models without privacy, and private
/// ones at several epsilons, by membership inference and model inversion.
///
///   attack --csv people.csv --schema examples/pums.schema.json --sensitive married
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <iostream>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <sstream>
#include <string>
#include <vector>

#include "console.hpp"
#include "dpsgd/audit/inversion.hpp"
#include "dpsgd/audit/membership.hpp"
#include "dpsgd/data/schema_json.hpp"
#include "dpsgd/dpsgd.hpp"

namespace {

constexpr const char* description = R"(Attacks trained models, and compares what private ones give away with the others.

Each run draws a few members by independent coins, trains on them, and attacks with all other rows of the file beside:

  membership   is this row one of the members? By its loss (Yeom et al. 2018). AUC: the probability that a member looks
               more like one than another row does; 0.5 is guessing. TPR: the share of members found by a threshold that
               one in a thousand of the others passes (fixed on half of the others, measured on the other half).
  inversion    what is the sensitive attribute of this row, given all else and the label? By the value's commonness and
               the model's output (Fredrikson et al. 2014). What counts is how much more often that is right for members
               than for others: what is right for others, too, the population gives away and not the training.

The first model is trained to know its few members by heart, for many epochs: that is the case in which there is
something to find. The second is trained as the private ones are, but without clip and noise. "at most" is what the
theorem lets any adversary reach at this epsilon. Nothing here is private, and no ledger counts it: attack only data that
you may see.

  attack --csv people.csv --schema examples/pums.schema.json --sensitive married)";

struct settings {
  std::string csv, schema, sensitive;
  bool drop_bad_rows = false;
  double members = 500;
  std::vector<double> epsilons{1, 4, 16, 64};
  double delta = 0;  // 0: a tenth of 1 / members
  std::vector<std::size_t> hidden{64, 64};
  double epochs = 300, private_epochs = 30, batch_size = 50, clip = 1, private_learning_rate = 0.3;
  int runs = 20;
  double confidence = 0.95, false_positives = 1e-3;
};

/// What a run says of one model.
struct finding {
  double train_accuracy, test_accuracy, auc, true_positives, false_positives, members_right, others_right, guess_right,
      guess_others;
  std::uint64_t members, found;
};

/// How a model was trained: until it knows its members by heart, by the private recipe without clip and noise, or by the
/// private recipe.
struct kind {
  bool by_heart = false;
  std::optional<double> epsilon{};

  std::string name() const {
    if (epsilon) return dpsgd::text("epsilon ", *epsilon);
    return by_heart ? "by heart" : "no privacy";
  }
};

/// Trains one model of this kind on the members. `start` is the public seed of its initialisation; noise and sampling
/// have secret keys.
dpsgd::mlp train(const settings& s, const dpsgd::dataset& members, const kind& how, std::uint64_t start) {
  std::vector<std::size_t> widths{members.features().cols};
  widths.insert(widths.end(), s.hidden.begin(), s.hidden.end());
  widths.push_back(1);
  dpsgd::mlp model(widths, {.activation = dpsgd::relu{}, .loss = {}, .seed = start});
  const double rate = std::min(1.0, s.batch_size / static_cast<double>(members.all()));
  const dpsgd::poisson_sampling sampling{.rate = rate};
  const auto steps = [&](double epochs) { return static_cast<std::uint64_t>(std::ceil(epochs / rate)); };
  if (how.by_heart) {
    dpsgd::trainer trainer{dpsgd::no_clip{}, dpsgd::no_noise{}, sampling, dpsgd::adam{}};
    trainer.fit(model, members, {.steps = steps(s.epochs), .learning_rate = 1e-3, .delta = s.delta});
    return model;
  }
  const dpsgd::fit_options options{
      .steps = steps(s.private_epochs), .learning_rate = s.private_learning_rate, .delta = s.delta};
  if (!how.epsilon) {
    dpsgd::trainer trainer{dpsgd::no_clip{}, dpsgd::no_noise{}, sampling, dpsgd::sgd{}, dpsgd::cosine_decay{}};
    trainer.fit(model, members, options);
    return model;
  }
  const auto event = [&](double multiplier) {
    return with_rows(dpsgd::poisson_sampled{rate, dpsgd::gaussian_event<dpsgd::zero_out>{multiplier}},
                     members.rows_per_owner());
  };
  const double multiplier =
      dpsgd::smallest_multiplier<dpsgd::pld_accountant>({*how.epsilon, s.delta}, options.steps, event);
  dpsgd::trainer trainer{dpsgd::flat_clip{s.clip}, dpsgd::gaussian_noise{multiplier}, sampling, dpsgd::sgd{},
                         dpsgd::cosine_decay{}};
  const auto report = trainer.fit(model, members, options);
  dpsgd::require(report.claim.epsilon <= *how.epsilon, "the claim ", report.claim.words(), " is above ", *how.epsilon);
  return model;
}

/// Members and others of a run, by coins of a public seed, and what is known of the attribute.
struct arena {
  dpsgd::dataset members, others;
  std::vector<std::size_t> members_truth, others_truth;
  std::vector<double> common, common_members;  // how common each value is, among others and among members

  arena(const settings& s, const dpsgd::dataset& all, const dpsgd::audit::attribute& a, std::uint64_t run) {
    auto sides = dpsgd::split(all, {.test_fraction = 1 - s.members / static_cast<double>(all.records()), .seed = run});
    members = std::move(sides.train), others = std::move(sides.test);
    dpsgd::require(members.records() >= 10 && others.records() >= 2000, "run ", run, " has ", members.records(),
                   " members and ", others.records(), " others: a file of more rows is needed, or fewer members");
    members_truth = dpsgd::audit::values_of(a, members.features());
    others_truth = dpsgd::audit::values_of(a, others.features());
    common = dpsgd::audit::shares(a, others_truth), common_members = dpsgd::audit::shares(a, members_truth);
  }
};

finding attack(const settings& s, const arena& in, const dpsgd::audit::attribute& a, const dpsgd::mlp& model) {
  namespace audit = dpsgd::audit;
  finding f{};
  f.train_accuracy = dpsgd::accuracy(model, in.members).value;
  f.test_accuracy = dpsgd::accuracy(model, in.others).value;
  const auto scores = audit::membership_scores(model, in.members, in.others);
  std::vector<double> halves[2];
  for (std::size_t i = 0; i < scores.absent.size(); ++i) halves[i % 2].push_back(scores.absent[i]);
  const auto decision = audit::decide_at(s.false_positives, halves[0]);
  f.auc = audit::auc(scores.present, scores.absent);
  f.true_positives = audit::share_called(decision, scores.present);
  f.false_positives = audit::share_called(decision, halves[1]);
  f.members = in.members.records();
  f.found = static_cast<std::uint64_t>(std::llround(f.true_positives * static_cast<double>(f.members)));
  f.members_right = audit::share_right(audit::infer_attribute(model, in.members, a, in.common), in.members_truth);
  f.others_right = audit::share_right(audit::infer_attribute(model, in.others, a, in.common), in.others_truth);
  const auto commonest = std::max_element(in.common.begin(), in.common.end()) - in.common.begin();
  f.guess_right = in.common_members[static_cast<std::size_t>(commonest)];
  f.guess_others = in.common[static_cast<std::size_t>(commonest)];
  return f;
}

/// All runs of one kind of model together.
struct row {
  kind how;
  dpsgd::audit::interval train_accuracy, test_accuracy, auc, true_positives, false_positives, members_right,
      others_right, guess_right, guess_difference, difference;
  double auc_at_most = 1, true_positives_at_most = 1;
};

row summary(const settings& s, const kind& how, const std::vector<finding>& runs) {
  namespace audit = dpsgd::audit;
  const auto mean = [&](auto value) {
    std::vector<double> values;
    for (const auto& f : runs) values.push_back(value(f));
    return audit::mean_interval(values, s.confidence);
  };
  row r;
  r.how = how;
  r.train_accuracy = mean([](const finding& f) { return f.train_accuracy; });
  r.test_accuracy = mean([](const finding& f) { return f.test_accuracy; });
  r.auc = mean([](const finding& f) { return f.auc; });
  r.true_positives = mean([](const finding& f) { return f.true_positives; });
  r.false_positives = mean([](const finding& f) { return f.false_positives; });
  r.members_right = mean([](const finding& f) { return f.members_right; });
  r.others_right = mean([](const finding& f) { return f.others_right; });
  r.guess_right = mean([](const finding& f) { return f.guess_right; });
  r.guess_difference = mean([](const finding& f) { return f.guess_right - f.guess_others; });
  r.difference = mean([](const finding& f) { return f.members_right - f.others_right; });
  // A share near zero is far from normal: the wider of Student's interval and that of Clopper and Pearson for all runs'
  // members together.
  std::uint64_t members = 0, found = 0;
  for (const auto& f : runs) members += f.members, found += f.found;
  const double alpha = (1 - s.confidence) / 2;
  r.true_positives.low =
      std::max(0.0, std::min(r.true_positives.low, audit::probability_at_least(found, members, alpha)));
  r.true_positives.high = std::max(r.true_positives.high, audit::probability_at_most(found, members, alpha));
  if (how.epsilon) {
    r.auc_at_most = audit::auc_at_most(*how.epsilon, s.delta);
    r.true_positives_at_most = audit::true_positives_at_most(*how.epsilon, s.delta, r.false_positives.value);
  }
  return r;
}

nlohmann::ordered_json to_json(const row& r) {
  const auto range = [](const dpsgd::audit::interval& i) {
    return nlohmann::ordered_json{{"value", i.value}, {"low", i.low}, {"high", i.high}};
  };
  return {{"model", r.how.name()},
          {"epsilon", r.how.epsilon ? nlohmann::ordered_json(*r.how.epsilon) : nlohmann::ordered_json()},
          {"train_accuracy", range(r.train_accuracy)},
          {"test_accuracy", range(r.test_accuracy)},
          {"auc", range(r.auc)},
          {"auc_at_most", r.auc_at_most},
          {"true_positive_rate", range(r.true_positives)},
          {"false_positive_rate", range(r.false_positives)},
          {"true_positive_rate_at_most", r.true_positives_at_most},
          {"inversion_members", range(r.members_right)},
          {"inversion_others", range(r.others_right)},
          {"inversion_by_commonness", range(r.guess_right)},
          {"inversion_by_commonness_difference", range(r.guess_difference)},
          {"inversion_difference", range(r.difference)}};
}

void print(const row& r) {
  std::printf(
      "%-11s  %5.3f %5.3f   %5.3f [%5.3f, %5.3f]   %5.3f   %6.2f [%5.2f, %5.2f] %7.2f   %5.1f %5.1f  %+5.1f [%+5.1f, "
      "%+5.1f]\n",
      r.how.name().c_str(), r.train_accuracy.value, r.test_accuracy.value, r.auc.value, r.auc.low, r.auc.high,
      r.auc_at_most, 100 * r.true_positives.value, 100 * r.true_positives.low, 100 * r.true_positives.high,
      100 * r.true_positives_at_most, 100 * r.members_right.value, 100 * r.others_right.value, 100 * r.difference.value,
      100 * r.difference.low, 100 * r.difference.high);
  std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
  settings s;
  bool as_json = false;

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
  app.set_version_flag("--version", std::string("attack (dpsgd) ") + dpsgd::version);
  app.get_formatter()->column_width(34);
  app.add_option("--csv", s.csv, "the records")->required();
  app.add_option("--schema", s.schema, "their columns (JSON); the label has two classes")->required();
  app.add_option("--sensitive", s.sensitive, "the binary or categorical column that the inversion is after")
      ->required();
  app.add_flag("--drop-bad-rows", s.drop_bad_rows, "leave out rows that cannot be read");
  app.add_option("--members", s.members, "rows to train on, on average")->check(within(20, 1e6))->capture_default_str();
  app.add_option("--epsilon", s.epsilons, "of the private models")
      ->delimiter(',')
      ->check(within(1e-3, 1e6))
      ->capture_default_str();
  app.add_option("--delta", s.delta, "of their claims; by default 1 / (10 members)")->check(within(1e-12, 0.1));
  app.add_option("--hidden", s.hidden, "widths of the hidden layers")
      ->delimiter(',')
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  app.add_option("--batch-size", s.batch_size, "expected")->check(within(1, 1e6))->capture_default_str();
  app.add_option("--epochs", s.epochs, "of the model that learns by heart (adam, learning rate 0.001)")
      ->check(within(0.01, 1e5))
      ->capture_default_str();
  app.add_option("--private-epochs", s.private_epochs,
                 "of the private ones (sgd, cosine decay), and of one beside them without clip and noise")
      ->check(within(0.01, 1e5))
      ->capture_default_str();
  app.add_option("--learning-rate", s.private_learning_rate, "with privacy")
      ->check(within(1e-6, 1e3))
      ->capture_default_str();
  app.add_option("--clip", s.clip, "bound of each gradient, with privacy")
      ->check(within(1e-6, 1e6))
      ->capture_default_str();
  app.add_option("--runs", s.runs, "how often members are drawn and models are trained anew")
      ->check(CLI::Range(2, 10'000))
      ->capture_default_str();
  app.add_option("--confidence", s.confidence, "of each interval")->check(within(0.5, 1 - 1e-9))->capture_default_str();
  app.add_flag("--json", as_json, "the table as JSON on stdout");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? console::done : console::bad_usage;
  }

  try {
    if (s.delta == 0) s.delta = 0.1 / s.members;
    const auto columns = dpsgd::read_schema(s.schema);
    dpsgd::require(columns.label_kind() == dpsgd::label_kind::two_classes, "the label must have two classes; that of ",
                   s.schema, " is another kind");
    const auto attribute = dpsgd::audit::attribute_of(columns, s.sensitive);
    dpsgd::csv_options how;
    if (s.drop_bad_rows) how.bad_rows = dpsgd::bad_rows::drop;
    const auto all = dpsgd::read_csv(s.csv, columns, how);
    dpsgd::require(s.members < static_cast<double>(all.records()) / 2, s.csv, " has ", all.records(),
                   " rows: the members must be fewer than half of them");

    std::vector<kind> kinds{{.by_heart = true}, {}};
    for (const double epsilon : s.epsilons) kinds.push_back({.epsilon = epsilon});
    std::vector<std::vector<finding>> findings(kinds.size());
    for (int run = 1; run <= s.runs; ++run) {
      const arena in(s, all, attribute, static_cast<std::uint64_t>(run));
      for (std::size_t k = 0; k < kinds.size(); ++k)
        findings[k].push_back(
            attack(s, in, attribute, train(s, in.members, kinds[k], static_cast<std::uint64_t>(run))));
      std::fprintf(stderr, "run %d of %d\n", run, s.runs);
    }

    std::vector<row> rows;
    for (std::size_t k = 0; k < kinds.size(); ++k) rows.push_back(summary(s, kinds[k], findings[k]));
    if (as_json) {
      nlohmann::ordered_json out{{"records", all.records()}, {"members", s.members},       {"delta", s.delta},
                                 {"runs", s.runs},           {"confidence", s.confidence}, {"sensitive", s.sensitive},
                                 {"private", false}};
      for (const auto& r : rows) out["models"].push_back(to_json(r));
      std::cout << out.dump(2) << '\n';
    } else {
      std::printf(
          "%zu rows, of which %g are members on average; delta %g; %d runs; intervals at %g %%. Not private.\n\n",
          all.records(), s.members, s.delta, s.runs, 100 * s.confidence);
      std::printf("%-11s  %-11s   %-29s   %-31s   %s\n", "", "accuracy", "membership: AUC", "TPR at FPR 0.1 %, in %",
                  ("inversion of " + s.sensitive + ": right, in %").c_str());
      std::printf("%-11s  %-11s   %-20s  %7s   %-20s %9s   %-11s  %s\n", "model", "train others", "", "at most", "",
                  "at most", "membs others", "difference");
      for (const auto& r : rows) print(r);
      const auto fewer = [](const row& a, const row& b) { return a.false_positives.value < b.false_positives.value; };
      const auto [least, most] = std::minmax_element(rows.begin(), rows.end(), fewer);
      const auto& luck = rows[0].guess_difference;
      std::printf(
          "\nWithout a model the commonest value of %s is right for %.1f %% of the members; than for others %+.1f "
          "[%+.1f, %+.1f]\nmore: that is the luck of the draw.\n"
          "Others over the threshold (meant to be %.2g %%): %.3f to %.3f %%.\n",
          s.sensitive.c_str(), 100 * rows[0].guess_right.value, 100 * luck.value, 100 * luck.low, 100 * luck.high,
          100 * s.false_positives, 100 * least->false_positives.value, 100 * most->false_positives.value);
    }
    return console::printed() ? console::done : console::failed;
  } catch (const std::exception& e) {
    std::cerr << "attack: " << e.what() << '\n';
    return console::failed;
  }
}
