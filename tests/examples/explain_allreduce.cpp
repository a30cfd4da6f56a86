// The program examples/explain_allreduce, from outside: its JSON for every algorithm, its words, its page in a browser.
#include <doctest/doctest.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "dpsgd/allreduce/all.hpp"
#include "examples/programs.hpp"

using namespace test;
using nlohmann::json;

namespace {

// holds[rank][block] after the first `rounds` rounds: whose contributions, from the arrows in the JSON alone.
using holdings = std::vector<std::vector<std::multiset<int>>>;
holdings play(const json& j, int rounds) {
  const auto ranks = j["ranks"].get<std::size_t>(), blocks = j["blocks"].get<std::size_t>();
  holdings now(ranks);
  for (std::size_t r = 0; r < ranks; ++r) now[r].assign(blocks, {static_cast<int>(r)});
  for (int t = 0; t < rounds; ++t) {
    const auto before = now;
    for (const auto& a : j["arrows"])
      for (std::size_t k = 0; a["round"] == t && k < a["count"].get<std::size_t>(); ++k) {
        const auto b = (a["first"].get<std::size_t>() + k) % blocks;
        const auto& sent = before[a["from"].get<std::size_t>()][b];
        auto& held = now[a["to"].get<std::size_t>()][b];
        if (a["then"] == "replace") held = sent;
        else held.insert(sent.begin(), sent.end());
      }
  }
  return now;
}

bool whole(const holdings& all, int ranks) {
  std::multiset<int> everybody;
  for (int r = 0; r < ranks; ++r) everybody.insert(r);
  for (const auto& blocks : all)
    for (const auto& held : blocks)
      if (held != everybody) return false;
  return true;
}

std::string cell(int rank, int block, const std::string& holds) {
  return "data-rank=\"" + std::to_string(rank) + "\" data-block=\"" + std::to_string(block) + "\" data-holds=\"" +
         holds + "\"";
}

}  // namespace

TEST_CASE("explain_allreduce --json: for every algorithm the arrows bring everything to all, and are counted right") {
  const workplace place;
  for (const auto& algorithm : dpsgd::allreduce::all_algorithms) {
    if (algorithm.is_native()) continue;
    for (const int ranks : {1, 2, 7, 8}) {
      const std::string name(algorithm.name());
      INFO(name, " among ", ranks);
      const auto result = run(place, {program("explain_allreduce"), "--algorithm", name, "--ranks",
                                      std::to_string(ranks), "--elements", "6720", "--json"});
      REQUIRE(result.status == 0);
      const auto j = json::parse(result.out);
      CHECK(j["algorithm"] == name);
      CHECK(j["ranks"] == ranks);
      CHECK(j["verified"] == true);
      const int rounds = j["rounds"];
      CHECK(whole(play(j, rounds), ranks));
      if (ranks > 1) CHECK(!whole(play(j, rounds - 1), ranks));
      std::set<std::tuple<int, int, int>> messages;
      std::set<int> used;
      const long block = 6720 / j["blocks"].get<long>();  // 6720 is a multiple of every number of blocks here
      long elements = 0;
      for (const auto& a : j["arrows"]) {
        messages.emplace(a["round"].get<int>(), a["from"].get<int>(), a["to"].get<int>());
        used.insert(a["round"].get<int>());
        elements += a["count"].get<long>() * block;
      }
      CHECK(j["messages"] == messages.size());
      CHECK(rounds == static_cast<int>(used.size()));
      CHECK((used.empty() || *used.rbegin() == rounds - 1));
      CHECK(j["elements"] == elements);
      CHECK(j["seconds"].get<double>() >= j["best"]["seconds"].get<double>() * (1 - 1e-9));
    }
  }
}

TEST_CASE("explain_allreduce in words: a picture, the counts, the verdict; two algorithms under each other") {
  const workplace place;
  const auto said =
      run(place, {program("explain_allreduce"), "--algorithm", "naive", "--ranks", "3", "--compare", "ring"});
  CHECK(said.status == 0);
  CHECK(said.err.empty());
  for (const char* words : {"naive among 3 ranks: 1 block", "round 0     │◀────●     │     1→0\n",
                            "            │◀──────────●     2→0\n", "ring among 3 ranks: 3 blocks",
                            "round 0     │◀──────────●     2→0 [1]\n            ●────▶●────▶│     0→1 [2]  1→2 [0]\n",
                            "verified: every contribution counts exactly once"})
    CHECK_MESSAGE(said.out.find(words) != std::string::npos, words, "\n", said.out);
  const auto two = json::parse(
      run(place, {program("explain_allreduce"), "--algorithm", "naive", "--compare", "ring", "--json"}).out);
  CHECK((two.size() == 2 && two[1]["algorithm"] == "ring"));
}

TEST_CASE("explain_allreduce --measure runs it and sets the predicted time over the measured one, everywhere") {
  const workplace place;
  const words command{
      program("explain_allreduce"), "--algorithm", "ring", "--compare", "naive", "--ranks", "2", "--elements", "50000"};
  for (const auto& j : json::parse(run(place, command + words{"--json"}).out))
    CHECK((j["measured"].is_null() && j["predicted_over_measured"].is_null()));
  const auto page = run(place, command + words{"--measure", "--json", "--html", place / "page.html"});
  REQUIRE(page.status == 0);
  const auto j = json::parse(page.out);
  REQUIRE(j.size() == 2);
  for (const auto& one : j) {
    CHECK(one["measured"].get<double>() > 0);
    CHECK(one["predicted_over_measured"].get<double>() ==
          doctest::Approx(one["seconds"].get<double>() / one["measured"].get<double>()));
  }
  const auto said = run(place, command + words{"--measure"});
  CHECK(said.status == 0);
  for (const char* row : {"measured time ", "predicted over measured "}) {
    CHECK(said.out.find(row) != said.out.rfind(row));  // of both
    CHECK(said.out.find(row) != said.out.npos);
  }
  const auto one = run(place, {program("explain_allreduce"), "--ranks", "1", "--elements", "0", "--measure"});
  CHECK(one.status == 0);
  const auto dom = in_browser(place, place / "page.html");
  if (dom.empty()) {
    MESSAGE("skipped: there is no Chromium here");
    return;
  }
  CHECK(dom.find("predicted over measured</dt>") != dom.npos);
  for (const char* name : {"data-measured=\"ring\"", "data-measured=\"naive\""})
    CHECK_MESSAGE(dom.find(name) != dom.npos, name);
}

TEST_CASE("explain_allreduce refuses what it cannot do, by name") {
  const workplace place;
  const struct {
    words options;
    int status;
    const char* says;
  } table[] = {
      {{"--algorithm", "star"}, 2, "circulant"},
      {{"--algorithm", "native"}, 2, "circulant"},
      {{"--ranks", "0"}, 2, "1"},
      {{"--ranks", "33", "--html", place / "big.html"}, 2, "up to 32 ranks"},
      {{"--beta", "-1"}, 2, "--beta"},
      {{"--ranks", "65", "--measure"}, 2, "up to 64 ranks"},
      {{"--elements", "1000000000", "--measure"}, 2, "1 GiB"},
      {{"--measure", "--alpha", "1e-6"}, 2, "leave them out"},
      {{"--html", "/nowhere/at/all.html"}, 1, "cannot write /nowhere/at/all.html"},
  };
  for (const auto& [options, status, says] : table) {
    const auto result = run(place, words{program("explain_allreduce")} + options);
    CAPTURE(result.err);
    CHECK(result.status == status);
    CHECK(result.err.find(says) != std::string::npos);
  }
}

TEST_CASE("the page opens in a browser, steps through the rounds and shows what every block holds") {
  const workplace place;
  const words command{program("explain_allreduce"), "--algorithm", "circulant", "--compare", "ring", "--ranks", "5"};
  REQUIRE(run(place, command + words{"--html", place / "page.html"}).status == 0);
  const auto text = contents(place / "page.html");
  CHECK(text.find("http://") == text.rfind("http://www.w3.org/2000/svg"));  // it loads nothing
  CHECK(text.find("https://") == text.npos);
  const auto j = json::parse(run(place, command + words{"--json"}).out);
  // The same page, where somebody presses the button for the next round.
  auto pressed = text;
  const std::string end = "</html>";
  write(place / "pressed.html", pressed.insert(pressed.rfind(end), "<script>$('on').click()</script>"));

  const auto dom = in_browser(place, place / "page.html#round=0");
  if (dom.empty()) {
    MESSAGE("skipped: there is no Chromium here");
    return;
  }
  CHECK(dom.find("Allreduce among 5 ranks: circulant and ring</title>") != dom.npos);
  for (const auto& step : {std::pair{dom, 0}, std::pair{in_browser(place, place / "pressed.html#round=1"), 2},
                           std::pair{in_browser(place, place / "page.html"), 8}}) {
    const auto& page = step.first;
    const int rounds = step.second;  // (clang 14 captures no structured bindings)
    const auto second = page.find("<h2>ring</h2>");
    REQUIRE(second != page.npos);
    for (const auto& algorithm : j) {
      const auto panel = algorithm["algorithm"] == "ring" ? page.substr(second) : page.substr(0, second);
      const auto held = play(algorithm, std::min(rounds, algorithm["rounds"].get<int>()));
      for (int r = 0; r < 5; ++r)
        for (int b = 0; b < 5; ++b) {
          std::string list;
          for (const int who : held[static_cast<std::size_t>(r)][static_cast<std::size_t>(b)])
            list += (list.empty() ? "" : ",") + std::to_string(who);
          CHECK_MESSAGE(panel.find(cell(r, b, list)) != panel.npos, "after ", rounds, " rounds of ",
                        algorithm["algorithm"], ": ", cell(r, b, list));
        }
    }
  }
}
