/// One step of DP-SGD, taken apart: who is drawn, the gradients before and after the clip, the sum, the noise, who owns
/// what, the new parameters; and what of it is private.
///
///   explain_step
///   explain_step --ranks 4 --clip 0.5 --html step.html
#include "explain_step.hpp"

#include <CLI/CLI.hpp>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>

#include "dpsgd/version.hpp"
#include "explain_step_page.hpp"

namespace {

using explain::settings;
using explain::step;

constexpr const char* description = R"(Takes one step of DP-SGD on a few synthetic census records, and shows all of it.

  1. Each record is drawn or not, by itself, with probability batch size / records.
  2. Each drawn record's gradient is cut down to the clip bound C, if it is longer.
  3. The ranks add these up; each then owns a shard of the sum.
  4. The owner adds noise of standard deviation (noise multiplier) x C to each coordinate, once.
  5. It divides by the expected batch size, and the optimizer takes a step.

Everything before the noise is private, and marked so. The numbers are those of the library's own pieces: the trainer
comes to the same parameters, bit for bit.

  explain_step
  explain_step --ranks 4 --clip 0.5 --html step.html)";

std::string printed(const char* format, auto... values) {
  char room[256];
  std::snprintf(room, sizeof room, format, values...);
  return room;
}

/// Who owns coordinate i; -1: every rank.
int owner(const step& seen, std::size_t i) {
  if (!seen.scattered) return -1;
  for (std::size_t r = 0; r < seen.shards.size(); ++r)
    if (i - seen.shards[r].first < seen.shards[r].count) return static_cast<int>(r);
  return -1;
}

void print(std::ostream& out, const settings& s, const step& seen) {
  const auto n = seen.records.size();
  std::size_t drawn = 0;
  for (const auto& r : seen.records) drawn += r.drawn;
  out << "One step of DP-SGD: " << n << " records, " << seen.before.size() << " parameters, " << s.ranks
      << (s.ranks == 1 ? " rank" : " ranks") << ".\n"
      << "What stands behind ▌ is private: nobody but the ranks may see it. The rest may be published.\n\n"
      << printed("1. Who is drawn: each record by itself, with probability %g / %zu = %g\n", s.batch_size, n, s.rate())
      << printed("2. Its gradient, cut down to C = %g: times min(1, C / length)\n\n", s.clip)
      << "▌ record  rank   age  income  educ  sex  married  employed   drawn   loss     length   times    length "
         "then\n";
  for (std::size_t i = 0; i < n; ++i) {
    const auto& r = seen.records[i];
    out << printed("▌ %6zu %5d %5d %7d %5d %4d %8d %9d   %5s   %-7.4f  %-7.4f  %-7.4f  %.4f\n", i, r.rank, r.person.age,
                   r.person.income, r.person.educ, r.person.sex, r.person.married, r.person.employed,
                   r.drawn ? "yes" : "-", r.loss, r.norm, r.factor, r.clipped);
  }
  out << "▌ drawn: " << drawn
      << printed(". The sum is divided by %g, what is expected, since the true number is private.\n\n", s.batch_size);

  out << "3. The ranks add up, by " << s.allreduce
      << (seen.scattered ? ": each then owns a shard of the sum.\n"
                         : ": every rank then has all of it, and adds the same noise.\n");
  for (std::size_t r = 0; r < seen.shards.size(); ++r) {
    const auto& shard = seen.shards[r];
    out << "   rank " << r << " owns ";
    if (shard.count == 0) out << "nothing\n";
    else out << "coordinates " << shard.first << " to " << shard.first + shard.count - 1 << '\n';
  }
  out << printed("4. Noise of standard deviation %g x %g = %g on each coordinate, once.\n", s.noise_multiplier, s.clip,
                 seen.deviation)
      << printed("5. Divided by %g; the new value is the old one less %g x this.\n\n", s.batch_size, s.learning_rate);
  std::size_t wide = 0;
  for (const auto& name : seen.names) wide = std::max(wide, name.size());
  const auto pad = [&](const std::string& word) { return word + std::string(wide - word.size(), ' '); };
  out << "    " << pad("coordinate") << "  owner    before   ▌     sum     noise ▌  together  divided     after\n";
  for (std::size_t i = 0; i < seen.before.size(); ++i) {
    const int who = owner(seen, i);
    out << printed("%3zu ", i) << pad(seen.names[i]) << (who < 0 ? "    all" : printed("  %5d", who))
        << printed("  %8.4f   ▌%8.4f  %8.4f ▌  %8.4f %8.4f  %8.4f\n", seen.before[i], seen.sum[i], seen.noise[i],
                   seen.sum[i] + seen.noise[i], seen.gradient[i], seen.after[i]);
  }
  out << printed("\n▌ length of the sum: %.4f (at most %zu x %g), of the noise: %.4f\n", explain::length(seen.sum),
                 drawn, s.clip, explain::length(seen.noise))
      << "  The sum grows with the batch and the noise does not: with few records there is mostly noise.\n\n"
      << "With a secret key such a step is " << seen.claim.words() << ".\n"
      << "This one's key is the seed " << s.seed << ", so that it can be repeated: it is not private.\n";
}

/// Two parts: what is private, and what may be published.
nlohmann::ordered_json as_json(const settings& s, const step& seen) {
  using nlohmann::ordered_json;
  ordered_json hidden, open;
  for (std::size_t i = 0; i < seen.records.size(); ++i) {
    const auto& r = seen.records[i];
    hidden["records"].push_back({{"record", i},
                                 {"rank", r.rank},
                                 {"age", r.person.age},
                                 {"income", r.person.income},
                                 {"educ", r.person.educ},
                                 {"sex", r.person.sex},
                                 {"married", r.person.married},
                                 {"employed", r.person.employed},
                                 {"drawn", r.drawn},
                                 {"loss", r.loss},
                                 {"norm", r.norm},
                                 {"factor", r.factor},
                                 {"clipped_norm", r.clipped}});
  }
  for (const auto& shard : seen.shards) hidden["partial_sums"].push_back(shard.partial);
  hidden["sum"] = seen.sum, hidden["noise"] = seen.noise;

  open["records"] = seen.records.size(), open["ranks"] = s.ranks, open["hidden"] = s.hidden;
  open["batch_size"] = s.batch_size, open["sampling_rate"] = s.rate(), open["clip"] = s.clip;
  open["noise_multiplier"] = s.noise_multiplier, open["noise_deviation"] = seen.deviation;
  open["learning_rate"] = s.learning_rate, open["allreduce"] = s.allreduce, open["seed"] = s.seed;
  open["scattered"] = seen.scattered;
  for (const auto& shard : seen.shards) open["shards"].push_back({{"first", shard.first}, {"count", shard.count}});
  open["coordinates"] = seen.names, open["before"] = seen.before;
  for (std::size_t i = 0; i < seen.sum.size(); ++i) open["noised_sum"].push_back(seen.sum[i] + seen.noise[i]);
  open["gradient"] = seen.gradient, open["after"] = seen.after;
  open["epsilon_of_such_a_step"] = seen.claim.epsilon, open["delta"] = s.delta;
  open["claim_of_such_a_step"] = seen.claim.words();
  return {{"private", hidden}, {"public", open}};
}

}  // namespace

int main(int argc, char** argv) {
  settings s;
  std::string html;
  bool json = false;
  std::vector<std::string> names;
  for (const auto& a : dpsgd::allreduce::all_algorithms) names.emplace_back(a.name());

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
  app.set_version_flag("--version", std::string("explain_step (dpsgd) ") + dpsgd::version);
  app.add_option("--records", s.records, "how many synthetic people")->check(CLI::Range(1, 64))->capture_default_str();
  app.add_option("--batch-size", s.batch_size, "how many of them are drawn, on average")->check(within(1e-6, 64));
  app.add_option("--hidden", s.hidden, "units of the hidden layer; 0: none")
      ->check(CLI::Range(0, 8))
      ->capture_default_str();
  app.add_option("--ranks", s.ranks, "among how many the records are divided")
      ->check(CLI::Range(1, 16))
      ->capture_default_str();
  app.add_option("--allreduce", s.allreduce, "how they add up")->check(CLI::IsMember(names))->capture_default_str();
  app.add_option("--clip", s.clip, "the longest that a gradient may be")
      ->check(within(1e-6, 1e6))
      ->capture_default_str();
  app.add_option("--noise-multiplier", s.noise_multiplier, "the noise's standard deviation / the clip")
      ->check(within(1e-3, 1e3))
      ->capture_default_str();
  app.add_option("--learning-rate", s.learning_rate, "")->check(within(1e-6, 1e3))->capture_default_str();
  app.add_option("--delta", s.delta, "of the claim")->check(within(1e-12, 0.5))->capture_default_str();
  app.add_option("--seed", s.seed, "of the records, the network's start, the sample and the noise")
      ->capture_default_str();
  app.add_option("--html", html, "write a page with pictures");
  app.add_flag("--json", json, "one JSON object on stdout: what is private, and what is public");
  try {
    app.parse(argc, argv);
    if (app.count("--batch-size") == 0) s.batch_size = static_cast<double>(s.records) / 2;
    if (s.batch_size > static_cast<double>(s.records))
      throw CLI::ValidationError("--batch-size", "cannot be more than the records");
    if (static_cast<std::uint64_t>(s.ranks) > s.records)
      throw CLI::ValidationError("--ranks", "each needs a record: there cannot be more ranks than records");
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : 2;
  }

  try {
    const auto seen = explain::take_step(s);
    const auto data = as_json(s, seen);
    if (json) std::cout << data.dump(2) << '\n';
    else print(std::cout, s, seen);
    if (!html.empty()) {
      std::string text = explain_step_page;
      const std::string place = "\"THE DATA\"";
      text.replace(text.find(place), place.size(), data.dump());
      std::ofstream file(html, std::ios::binary);
      file << text;
      if (!file.flush()) throw std::runtime_error("cannot write " + html);
      if (!json) std::cout << "written: " << html << '\n';
    }
    std::cout.flush();
    if (!std::cout) throw std::runtime_error("cannot write to standard output");
    return 0;
  } catch (const std::exception& e) {
    std::cerr << "explain_step: " << e.what() << '\n';
    return 1;
  }
}
