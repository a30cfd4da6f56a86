// The program examples/explain_step, from outside: the step that it shows is the trainer's, its marks, its page.
#include "../../examples/explain_step.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "dpsgd/dpsgd.hpp"
#include "examples/programs.hpp"

using namespace test;
using nlohmann::json;

namespace {

json shown(const workplace& place, const words& options) {
  const auto result = run(place, words{program("explain_step"), "--json"} + options);
  REQUIRE_MESSAGE(result.status == 0, result.err);
  return json::parse(result.out);
}

/// The parameters after one step of a real trainer, on ranks that are threads.
std::vector<float> trained(const explain::settings& s) {
  const auto data = dpsgd::parse_csv(explain::census(s), explain::columns());
  std::vector<float> after;
  dpsgd::threads::run(s.ranks, [&](auto& world) {
    auto model = explain::make_model(s);
    dpsgd::trainer trainer{world, dpsgd::flat_clip{.bound = s.clip},
                           dpsgd::gaussian_noise{.multiplier = s.noise_multiplier},
                           dpsgd::poisson_sampling{.rate = s.rate()}, dpsgd::allreduce::from_name(s.allreduce)};
    trainer.fit(model, dpsgd::shard(data, world),
                {.steps = 1, .learning_rate = s.learning_rate, .delta = s.delta, .insecure_seed = s.seed});
    if (world.rank() == 0) after.assign(model.parameters().begin(), model.parameters().end());
  });
  return after;
}

}  // namespace

TEST_CASE("the step that is shown is the trainer's, bit for bit") {
  const workplace place;
  std::vector<explain::settings> all(7);  // the first: as it is without options
  all[1].ranks = 1;
  all[2].ranks = 4, all[2].seed = 12345, all[2].clip = 0.3, all[2].noise_multiplier = 0.01;
  all[3].allreduce = "naive", all[3].noise_multiplier = 2;
  all[4].allreduce = "hierarchical", all[4].ranks = 6, all[4].hidden = 0;
  all[5].allreduce = "native", all[5].records = 40, all[5].batch_size = 31, all[5].hidden = 8, all[5].ranks = 5;
  all[6].records = 64, all[6].batch_size = 64, all[6].learning_rate = 3, all[6].seed = 7;
  for (const auto& s : all) {
    words options;
    if (&s != all.data())
      options = {"--ranks",
                 std::to_string(s.ranks),
                 "--records",
                 std::to_string(s.records),
                 "--hidden",
                 std::to_string(s.hidden),
                 "--clip",
                 std::to_string(s.clip),
                 "--batch-size",
                 std::to_string(s.batch_size),
                 "--seed",
                 std::to_string(s.seed),
                 "--allreduce",
                 s.allreduce,
                 "--noise-multiplier",
                 std::to_string(s.noise_multiplier),
                 "--learning-rate",
                 std::to_string(s.learning_rate)};
    CAPTURE(options);
    const auto after = shown(place, options)["public"]["after"].get<std::vector<float>>();
    CHECK((after == trained(s)));
    const auto begin = explain::make_model(s);
    CHECK((after != std::vector<float>(begin.parameters().begin(), begin.parameters().end())));
  }
  // So the comparison can fail: one other seed.
  auto other = all[0];
  other.seed = 2;
  CHECK((shown(place, {})["public"]["after"].get<std::vector<float>>() != trained(other)));
}

TEST_CASE("what is shown hangs together: clips, sums, noise, shards") {
  const workplace place;
  const auto j = shown(place, {"--records", "30", "--ranks", "4", "--hidden", "3", "--clip", "0.9"});
  const auto& hidden = j["private"];
  const auto& open = j["public"];
  const auto n = open["coordinates"].size();
  CHECK(n == 5 * 3 + 3 + 3 + 1);
  int drawn = 0, cut = 0;
  for (const auto& r : hidden["records"]) {
    const double norm = r["norm"], clipped = r["clipped_norm"];
    CHECK(clipped == doctest::Approx(std::min(norm, 0.9)).epsilon(1e-5));
    CHECK(clipped <= 0.9);
    CHECK(r["factor"].get<double>() == doctest::Approx(std::min(1.0, 0.9 / norm)).epsilon(1e-5));
    drawn += r["drawn"].get<bool>(), cut += norm > 0.9;
  }
  CHECK((drawn > 0 && drawn < 30 && cut > 0));
  std::size_t next = 0;
  for (const auto& s : open["shards"]) {
    CHECK(s["first"] == next);
    next += s["count"].get<std::size_t>();
  }
  CHECK(next == n);
  for (std::size_t i = 0; i < n; ++i) {
    double sum = 0;
    for (const auto& partial : hidden["partial_sums"]) sum += partial[i].get<double>();
    const double whole = hidden["sum"][i], noise = hidden["noise"][i], gradient = open["gradient"][i];
    CHECK(whole == doctest::Approx(sum).epsilon(1e-5).scale(1));
    CHECK(open["noised_sum"][i].get<double>() == doctest::Approx(whole + noise).epsilon(1e-5).scale(1));
    CHECK(gradient == doctest::Approx((whole + noise) / 15).epsilon(1e-5).scale(1));
    CHECK(open["after"][i].get<double>() ==
          doctest::Approx(open["before"][i].get<double>() - 0.5 * gradient).epsilon(1e-5).scale(1));
  }
  // The noise in ordinary words: its deviation. Over 64 seeds x 22 values within 5.5 standard errors: false alarm 4e-8.
  double square = 0;
  for (int seed = 0; seed < 64; ++seed) {
    const auto one = shown(place, {"--records", "30", "--hidden", "3", "--clip", "0.9", "--noise-multiplier", "1.5",
                                   "--seed", std::to_string(seed)});
    CHECK(one["public"]["noise_deviation"].get<double>() == doctest::Approx(1.35));
    for (const double v : one["private"]["noise"]) square += v * v;
  }
  const double values = 64.0 * static_cast<double>(n);
  CHECK(std::abs(square / values / (1.35 * 1.35) - 1) < 5.5 * std::sqrt(2 / values));
}

TEST_CASE("in words: every number that is private stands behind the mark; the claim says what is and is not") {
  const workplace place;
  const auto said = run(place, {program("explain_step")});
  CHECK(said.status == 0);
  CHECK(said.err.empty());
  const auto j = shown(place, {});
  const auto fixed = [](double v) {
    char room[32];
    std::snprintf(room, sizeof room, "%.4f", v);
    return std::string(room);
  };
  // Take away what stands behind the marks: no private number is left.
  std::string open;
  std::istringstream lines(said.out);
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with("▌")) continue;
    const auto first = line.find("▌"), last = line.rfind("▌");
    if (first != last) line.erase(first, last - first);
    open += line + "\n";
  }
  std::size_t looked = 0;
  const auto is_hidden = [&](double v) {
    const auto word = fixed(v);
    if (word.size() < 6 || word == "1.0000" || word == "0.0000" || word == "-0.0000") return;
    CHECK_MESSAGE(said.out.find(word) != said.out.npos, word);
    CHECK_MESSAGE(open.find(word) == open.npos, word);
    ++looked;
  };
  for (const auto& r : j["private"]["records"]) is_hidden(r["norm"]), is_hidden(r["loss"]);
  for (const double v : j["private"]["sum"]) is_hidden(v);
  for (const double v : j["private"]["noise"]) is_hidden(v);
  CHECK(looked > 30);
  for (const double v : j["public"]["after"]) CHECK(open.find(fixed(v)) != open.npos);
  CHECK(open.find("With a secret key such a step is (epsilon ") != open.npos);
  CHECK(open.find("it is not private") != open.npos);
  CHECK_FALSE(j["public"].contains("sum"));
}

TEST_CASE("explain_step refuses what it cannot do, by name") {
  const workplace place;
  const struct {
    words options;
    int status;
    const char* says;
  } table[] = {
      {{"--ranks", "9"}, 2, "more ranks than records"},
      {{"--ranks", "0"}, 2, "--ranks"},
      {{"--records", "65"}, 2, "--records"},
      {{"--batch-size", "9"}, 2, "--batch-size"},
      {{"--clip", "nan"}, 2, "must lie in"},
      {{"--noise-multiplier", "0"}, 2, "must lie in"},
      {{"--allreduce", "star"}, 2, "circulant"},
      {{"--html", "/nowhere/at/all.html"}, 1, "cannot write /nowhere/at/all.html"},
  };
  for (const auto& [options, status, says] : table) {
    const auto result = run(place, words{program("explain_step")} + options);
    CAPTURE(result.err);
    CHECK(result.status == status);
    CHECK(result.err.find(says) != std::string::npos);
  }
}

TEST_CASE("the page of explain_step opens in a browser and shows the step, what is private on hatched ground") {
  const workplace place;
  const words options{"--records", "9", "--ranks", "2"};
  REQUIRE(run(place, words{program("explain_step"), "--html", place / "page.html"} + options).status == 0);
  const auto text = contents(place / "page.html");
  CHECK(text.find("http://") == text.rfind("http://www.w3.org/2000/svg"));  // it loads nothing
  CHECK(text.find("https://") == text.npos);
  const auto dom = in_browser(place, place / "page.html");
  if (dom.empty()) {
    MESSAGE("skipped: there is no Chromium here");
    return;
  }
  const auto j = shown(place, options);
  const auto has = [&](const std::string& words) { CHECK_MESSAGE(dom.find(words) != dom.npos, words); };
  for (const auto& r : j["private"]["records"])
    has(std::string("class=\"") + (r["drawn"].get<bool>() ? "drawn" : "away") + "\" data-record=\"" +
        r["record"].dump() + "\"");
  for (std::size_t i = 0; i < j["public"]["after"].size(); ++i)
    has("data-coordinate=\"" + std::to_string(i) + "\" data-after=\"" + j["public"]["after"][i].dump() + "\"");
  for (std::size_t r = 0; r < 2; ++r) {
    const auto& s = j["public"]["shards"][r];
    has("data-rank=\"" + std::to_string(r) + "\" data-first=\"" + s["first"].dump() + "\" data-count=\"" +
        s["count"].dump() + "\"");
  }
  for (const char* row : {"rank 0 adds up", "rank 1 adds up", "the sum", "the noise"})
    has(std::string(">") + row + "</text><text x=\"10\" y=");
  std::size_t hidden = 0, open = 0;
  for (auto at = dom.find("class=\"secret\">private</text>"); at != dom.npos;
       at = dom.find("class=\"secret\">private</text>", at + 1))
    ++hidden;
  for (auto at = dom.find("class=\"open\">public</text>"); at != dom.npos;
       at = dom.find("class=\"open\">public</text>", at + 1))
    ++open;
  CHECK(hidden == 4);  // two ranks' sums, the sum, the noise
  CHECK(open == 1);    // together
}
