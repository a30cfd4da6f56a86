/// How the ranks add up: draws an allreduce algorithm, counts what it costs and checks that it is right.
///
///   explain_allreduce --algorithm circulant --ranks 7
///   explain_allreduce --algorithm ring --compare circulant --ranks 7 --html ring.html
///   explain_allreduce --algorithm ring --ranks 2 --measure
#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "dpsgd/allreduce/all.hpp"
#include "dpsgd/allreduce/cost.hpp"
#include "dpsgd/comm/auto_allreduce.hpp"
#include "dpsgd/comm/threads.hpp"
#include "dpsgd/version.hpp"
#include "explain_page.hpp"

namespace {

namespace ar = dpsgd::allreduce;

constexpr const char* description = R"(An allreduce leaves every rank with the sum of all ranks' vectors.

An algorithm cuts the vector into blocks and says in which round which rank sends which blocks to whom. This program
draws that, counts rounds, messages and elements, predicts the time, and proves that every contribution is counted
exactly once. With --measure it also runs the algorithm, on threads of this program, and sets the predicted time over
the measured one. docs/allreduce.md explains the algorithms and how to read the pictures.

  explain_allreduce --algorithm circulant --ranks 7
  explain_allreduce --algorithm ring --compare circulant --ranks 7 --html rings.html)";

/// An algorithm among so many ranks, with all that is shown of it.
struct subject {
  std::string name;
  ar::schedule schedule;
  ar::verdict verdict;
  ar::costs costs;                // in elements
  double seconds;                 // predicted
  double measured;                // seconds; negative: not measured
  std::vector<ar::arrow> arrows;  // of both phases, their rounds numbered from 0 without gaps
  std::size_t reducing;           // how many of them belong to the first
  int rounds = 0;
};

/// What --measure finds.
struct measurements {
  ar::network network{};        // fitted as auto_allreduce does, by bytes
  std::vector<double> seconds;  // of each algorithm: the median of some runs, each as long as its slowest rank's
};

/// Runs the algorithms in turn on `ranks` threads, some fifth of a second each.
measurements measure(const std::vector<ar::any>& algorithms, int ranks, std::size_t elements) {
  using clock = std::chrono::steady_clock;
  measurements m;
  dpsgd::threads::run(ranks, [&](auto& world) {
    const dpsgd::auto_allreduce fitted(world);
    const auto v = dpsgd::make_buffer<float>(world, elements);
    std::vector<dpsgd::bound_any<float, dpsgd::threads::world>> bound;
    bound.reserve(algorithms.size());
    for (const auto& a : algorithms) bound.emplace_back(a, world, elements);
    std::vector<std::vector<double>> times(algorithms.size());
    double used = 0;  // by what all agree on, so all stop together
    for (int run = 0; run < 4 || (run < 1000 && used < 0.2 * static_cast<double>(algorithms.size())); ++run)
      for (std::size_t i = 0; i < bound.size(); ++i) {
        dpsgd::barrier(world);
        const auto start = clock::now();
        bound[i].all_reduce(v.data());
        const double time = dpsgd::max(world, std::chrono::duration<double>(clock::now() - start).count());
        used += time;
        if (run > 0) times[i].push_back(time);  // the first one touches memory
      }
    if (world.rank() != 0) return;
    m.network = fitted.network();
    for (auto& t : times) {
      std::nth_element(t.begin(), t.begin() + static_cast<std::ptrdiff_t>(t.size() / 2), t.end());
      m.seconds.push_back(t[t.size() / 2]);
    }
  });
  return m;
}

subject examine(const ar::any& a, int ranks, std::uint64_t elements, const ar::network& of_elements, double measured) {
  subject s{std::string(a.name()), a.derive(ranks), {}, {}, 0, measured, {}, 0};
  s.verdict = verify(s.schedule);
  s.costs = cost(s.schedule, elements);
  s.seconds = seconds(s.schedule, elements, of_elements);
  for (const auto* arrows : {&s.schedule.reduce, &s.schedule.gather}) {
    int last = -1;
    for (ar::arrow arrow : *arrows) {
      if (arrow.round != last) last = arrow.round, ++s.rounds;
      arrow.round = s.rounds - 1;
      s.arrows.push_back(arrow);
    }
    if (arrows == &s.schedule.reduce) s.reducing = s.arrows.size();
  }
  return s;
}

/// "3", "4-6", "6,0-1" (round the corner).
std::string numbers(const ar::block_range& r, int blocks) {
  const auto span = [](int first, int last) {
    return std::to_string(first) + (last > first ? "-" + std::to_string(last) : "");
  };
  const int last = r.first + r.count - 1;
  if (last < blocks) return span(r.first, last);
  return span(r.first, blocks - 1) + "," + span(0, last - blocks);
}

/// The time-space diagram: a column for each rank, time downwards. Arrows of a round that do not cross share a line.
void draw(std::ostream& out, const subject& s) {
  const int size = s.schedule.size, wide = 6;
  const auto column = [&](int rank) { return static_cast<std::size_t>(rank * wide + 2); };
  const auto lanes = std::vector<std::string>(column(size - 1) + 4, " ");
  auto idle = lanes;
  for (int r = 0; r < size; ++r) idle[column(r)] = "│";
  const auto print = [&](const std::string& head, const std::vector<std::string>& line, const std::string& tail) {
    out << head << std::string(10 - std::min<std::size_t>(10, head.size()), ' ');
    for (const auto& c : line) out << c;
    out << tail << '\n';
  };
  auto names = lanes;
  for (int r = 0; r < size; ++r) names[column(r)] = std::to_string(r).back(), names[column(r) - 1] = r > 9 ? "1" : " ";
  print("rank", names, "");
  for (std::size_t i = 0; i < s.arrows.size();) {
    auto end = i;
    while (end < s.arrows.size() && s.arrows[end].round == s.arrows[i].round) ++end;
    if (i == s.reducing && i > 0) print("", idle, "  and back");
    std::vector<std::pair<std::vector<std::string>, std::string>> lines;
    std::vector<std::vector<char>> taken;
    for (auto k = i; k < end;) {  // each message into the first line that has room
      const auto& a = s.arrows[k];
      std::string what;
      for (; k < end && s.arrows[k].from == a.from && s.arrows[k].to == a.to; ++k)
        what += (what.empty() ? "" : ",") + numbers(s.arrows[k].blocks, s.schedule.blocks);
      const int low = std::min(a.from, a.to), high = std::max(a.from, a.to);
      std::size_t at = 0;
      const auto free = [&](std::size_t line) {
        return std::all_of(taken[line].begin() + low, taken[line].begin() + high, [](char c) { return !c; });
      };
      while (at < lines.size() && !free(at)) ++at;
      if (at == lines.size()) lines.push_back({idle, ""}), taken.emplace_back(static_cast<std::size_t>(size), 0);
      std::fill(taken[at].begin() + low, taken[at].begin() + high, 1);
      auto& line = lines[at].first;
      for (auto c = column(low) + 1; c < column(high); ++c) line[c] = a.then == ar::on_receive::add ? "─" : "═";
      line[column(a.from)] = "●";
      line[a.to > a.from ? column(a.to) - 1 : column(a.to) + 1] = a.to > a.from ? "▶" : "◀";
      lines[at].second += "  " + std::to_string(a.from) + "→" + std::to_string(a.to);
      if (s.schedule.blocks > 1) lines[at].second += " [" + what + "]";
    }
    for (std::size_t l = 0; l < lines.size(); ++l)
      print(l == 0 ? "round " + std::to_string(s.arrows[i].round) : "", lines[l].first, lines[l].second);
    print("", idle, "");
    i = end;
  }
}

std::string in_words(double seconds) {
  char room[32];
  if (seconds < 1e-3) std::snprintf(room, sizeof room, "%.3g us", seconds * 1e6);
  else if (seconds < 1) std::snprintf(room, sizeof room, "%.3g ms", seconds * 1e3);
  else std::snprintf(room, sizeof room, "%.3g s", seconds);
  return room;
}

std::string in_figures(double ratio) {
  char room[32];
  std::snprintf(room, sizeof room, "%.2f", ratio);
  return room;
}

std::string verdict_in_words(const subject& s) {
  if (s.verdict) return "every contribution counts exactly once in every block, with the same bits on every rank";
  std::ostringstream out;
  out << "WRONG: " << describe(s.verdict.flaw) << " (round " << s.verdict.round << ", rank " << s.verdict.rank
      << ", block " << s.verdict.block << ")";
  return out.str();
}

void print(std::ostream& out, const subject& s, std::uint64_t elements, const ar::lower_bounds& best) {
  const int size = s.schedule.size;
  out << s.name << " among " << size << (size == 1 ? " rank" : " ranks") << ": " << s.schedule.blocks
      << (s.schedule.blocks == 1 ? " block" : " blocks")
      << (s.schedule.scattered ? "; reduce-scatter, and the same backwards\n\n" : "; no reduce-scatter\n\n");
  if (size > 16) out << "(drawn for up to 16 ranks)\n\n";
  else if (size > 1) {
    draw(out, s);
    out << "──▶ the receiver adds   ══▶ it replaces what it has   "
        << (s.schedule.blocks > 1 ? "[blocks]" : "each message is the whole vector") << "\n\n";
  }
  const auto row = [&](const char* what, auto value, auto least) {
    std::ostringstream word;
    word << value;
    out << what << word.str() << std::string(word.str().size() < 12 ? 12 - word.str().size() : 1, ' ') << least << '\n';
  };
  out << "for " << elements << " elements          here        at best\n";
  row("  rounds                      ", s.costs.rounds, best.rounds);
  row("  messages, all ranks         ", s.costs.messages, size > 1 ? 2 * (size - 1) : 0);
  row("  messages, busiest sender    ", s.costs.most_messages, best.rounds);
  row("  elements, all ranks         ", s.costs.bytes, 2 * (static_cast<std::uint64_t>(size) - 1) * elements);
  row("  elements, busiest sender    ", s.costs.most_sent, static_cast<std::uint64_t>(std::ceil(best.bytes)));
  row("  additions, busiest rank     ", s.costs.most_reduced, static_cast<std::uint64_t>(std::ceil(best.reduced)));
  row("  predicted time              ", in_words(s.seconds),
      in_words(std::max(best.latency, best.bandwidth + best.computation)));
  if (s.measured >= 0) {
    row("  measured time               ", in_words(s.measured), "(on threads, median)");
    if (s.measured > 0) row("  predicted over measured     ", in_figures(s.seconds / s.measured), "(1: as predicted)");
  }
  out << "(each best is reached by some algorithm, not all by one)\n"
      << "verified: " << verdict_in_words(s) << '\n';
}

nlohmann::json as_json(const subject& s, std::uint64_t elements, const ar::lower_bounds& best) {
  using nlohmann::json;
  json arrows = json::array();
  for (std::size_t i = 0; i < s.arrows.size(); ++i) {
    const auto& a = s.arrows[i];
    arrows.push_back({{"round", a.round},
                      {"phase", i < s.reducing ? "reduce" : "gather"},
                      {"from", a.from},
                      {"to", a.to},
                      {"first", a.blocks.first},
                      {"count", a.blocks.count},
                      {"then", a.then == ar::on_receive::add ? "add" : "replace"}});
  }
  return {{"algorithm", s.name},
          {"ranks", s.schedule.size},
          {"blocks", s.schedule.blocks},
          {"scattered", s.schedule.scattered},
          {"verified", bool(s.verdict)},
          {"verdict", verdict_in_words(s)},
          {"length", elements},
          {"rounds", s.rounds},
          {"messages", s.costs.messages},
          {"elements", s.costs.bytes},
          {"busiest",
           {{"messages", s.costs.most_messages},
            {"sent", s.costs.most_sent},
            {"received", s.costs.most_received},
            {"added", s.costs.most_reduced}}},
          {"best",
           {{"rounds", best.rounds},
            {"sent", best.bytes},
            {"added", best.reduced},
            {"seconds", std::max(best.latency, best.bandwidth + best.computation)}}},
          {"seconds", s.seconds},
          {"measured", s.measured < 0 ? json() : json(s.measured)},
          {"predicted_over_measured", s.measured > 0 ? json(s.seconds / s.measured) : json()},
          {"arrows", std::move(arrows)}};
}

/// The page's data: the subjects, and their predicted times over the size of the vector.
std::string page(const std::vector<subject>& subjects, std::uint64_t elements, const ar::network& of_elements) {
  nlohmann::json data{{"subjects", nlohmann::json::array()}, {"sizes", nlohmann::json::array()}};
  data["network"] = {{"alpha", of_elements.alpha}, {"beta", of_elements.beta / 4}, {"gamma", of_elements.gamma / 4}};
  for (int power = 1; power <= 26; ++power) data["sizes"].push_back(std::uint64_t{1} << power);
  for (const auto& s : subjects) {
    auto one = as_json(s, elements, ar::bounds(s.schedule.size, elements, of_elements));
    for (const std::uint64_t n : data["sizes"]) one["curve"].push_back(seconds(s.schedule, n, of_elements));
    data["subjects"].push_back(std::move(one));
  }
  for (const std::uint64_t n : data["sizes"]) {
    const auto best = ar::bounds(subjects[0].schedule.size, n, of_elements);
    data["floor"].push_back(std::max(best.latency, best.bandwidth + best.computation));
  }
  std::string text = explain_page;
  const std::string place = "\"THE DATA\"";
  return text.replace(text.find(place), place.size(), data.dump());
}

}  // namespace

int main(int argc, char** argv) {
  std::string algorithm = "circulant", compare, html;
  int ranks = 7;
  std::uint64_t elements = 1'000'000;
  ar::network net{1e-5, 1e-9, 1e-10};
  bool json = false, run = false;
  std::vector<std::string> names;
  for (const auto& a : ar::all_algorithms)
    if (!a.is_native()) names.emplace_back(a.name());  // native is no schedule

  CLI::App app(description);
  app.set_version_flag("--version", std::string("explain_allreduce (dpsgd) ") + dpsgd::version);
  app.add_option("--algorithm", algorithm, "how they add up")->check(CLI::IsMember(names))->capture_default_str();
  app.add_option("--ranks", ranks, "among how many")->check(CLI::Range(1, 1024))->capture_default_str();
  app.add_option("--compare", compare, "a second algorithm beside it")->check(CLI::IsMember(names));
  app.add_option("--elements", elements, "floats in the vector: what messages, elements and time are counted for")
      ->check(CLI::Range(std::uint64_t{0}, std::uint64_t{1} << 40))
      ->capture_default_str();
  app.add_option("--html", html, "write a page to step through it, with pictures; up to 32 ranks");
  app.add_flag("--json", json, "one JSON object on stdout (with --compare an array of two)");
  app.add_flag("--measure", run,
               "run it on as many threads, fit the time model to them, and set both times beside each other; up to 64 "
               "ranks, 1 GiB of vectors");
  const auto positive = CLI::Range(0.0, 1e9);
  app.add_option("--alpha", net.alpha, "the time model: seconds to start a message")
      ->check(positive)
      ->capture_default_str();
  app.add_option("--beta", net.beta, "seconds to move a byte")->check(positive)->capture_default_str();
  app.add_option("--gamma", net.gamma, "seconds to add a byte")->check(positive)->capture_default_str();
  try {
    app.parse(argc, argv);
    if (!html.empty() && ranks > 32)
      throw CLI::ValidationError("--html", "draws up to 32 ranks; got " + std::to_string(ranks));
    if (run && (ranks > 64 || elements > (std::uint64_t{1} << 28) / static_cast<std::uint64_t>(ranks)))
      throw CLI::ValidationError("--measure", "runs up to 64 ranks and 1 GiB of vectors, all ranks' together; got " +
                                                  std::to_string(ranks) + " ranks with " + std::to_string(elements) +
                                                  " floats each");
    if (run && (app.count("--alpha") + app.count("--beta") + app.count("--gamma")) > 0)
      throw CLI::ValidationError("--measure", "finds alpha, beta and gamma itself; leave them out");
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : 2;
  }

  try {
    std::vector<ar::any> algorithms{ar::from_name(algorithm)};
    if (!compare.empty()) algorithms.push_back(ar::from_name(compare));
    measurements found;
    if (run) found = measure(algorithms, ranks, elements), net = found.network;
    const ar::network of_elements{net.alpha, 4 * net.beta, 4 * net.gamma};
    const auto best = ar::bounds(ranks, elements, of_elements);
    std::vector<subject> subjects;
    for (std::size_t i = 0; i < algorithms.size(); ++i)
      subjects.push_back(examine(algorithms[i], ranks, elements, of_elements, run ? found.seconds[i] : -1));
    if (json) {
      nlohmann::json all = nlohmann::json::array();
      for (const auto& s : subjects) all.push_back(as_json(s, elements, best));
      std::cout << (compare.empty() ? all[0] : all).dump(2) << '\n';
    } else {
      for (const auto& s : subjects) {
        if (&s != subjects.data()) std::cout << '\n';
        print(std::cout, s, elements, best);
      }
    }
    if (!html.empty()) {
      std::ofstream file(html, std::ios::binary);
      file << page(subjects, elements, of_elements);
      if (!file.flush()) throw std::runtime_error("cannot write " + html);
      if (!json) std::cout << "written: " << html << '\n';
    }
    std::cout.flush();
    if (!std::cout) throw std::runtime_error("cannot write to standard output");
    for (const auto& s : subjects)
      if (!s.verdict) return 1;
    return 0;
  } catch (const std::exception& e) {
    std::cerr << "explain_allreduce: " << e.what() << '\n';
    return 1;
  }
}
