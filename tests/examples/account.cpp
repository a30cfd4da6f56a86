// The program examples/account, from outside: what it prints, its JSON and its exit status.
#include <doctest/doctest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>

#include "dpsgd/accounting/calibrate.hpp"
#include "dpsgd/accounting/pld.hpp"

namespace {

struct outcome {
  int status;
  std::string out;
};

outcome account(const std::string& arguments) {
  outcome result{-1, {}};
  std::FILE* pipe = ::popen(("'" DPSGD_EXAMPLES_DIR "/account' " + arguments + " 2>&1").c_str(), "r");
  REQUIRE(pipe);
  char block[4096];
  for (std::size_t got; (got = std::fread(block, 1, sizeof block, pipe)) > 0;) result.out.append(block, got);
  result.status = WEXITSTATUS(::pclose(pipe));
  return result;
}

}  // namespace

TEST_CASE("account prints the claim, and the same as JSON") {
  const auto printed = account("--sampling-rate 0.01 --noise-multiplier 0.7 --steps 120 --delta 1e-5");
  CHECK(printed.status == 0);
  CHECK(printed.out.starts_with(
      "(epsilon 2.47, delta 1e-05)-DP, unit: one row, zero-out adjacency, Poisson sampling, PLD, "
      "idealised arithmetic\n"));
  CHECK(printed.out.find("           120          1.2  2.46") != std::string::npos);  // the table's last row

  const auto json =
      nlohmann::json::parse(account("--sampling-rate 0.01 --noise-multiplier 0.7 --steps 120 --delta 1e-5 --json").out);
  const double epsilon = json["epsilon"], epsilon_lo = json["epsilon_lo"];
  CHECK(epsilon == doctest::Approx(2.4612).epsilon(1e-3));
  CHECK(epsilon_lo <= epsilon);
  CHECK(epsilon_lo >= epsilon * (1 - 1e-3));
  CHECK(json["order"].is_null());
  CHECK(json["delta"] == 1e-5);
  CHECK(json["noise_multiplier"] == 0.7);
  CHECK(json["sampling_rate"] == 0.01);
  CHECK(json["steps"] == 120);
  CHECK(json["accountant"] == "pld");

  const auto rdp = nlohmann::json::parse(
      account("--sampling-rate 0.01 --noise-multiplier 0.7 --steps 120 --delta 1e-5 --json --accountant rdp").out);
  CHECK(rdp["epsilon"].get<double>() == doctest::Approx(3.23717).epsilon(1e-5));
  CHECK(rdp["epsilon_lo"].is_null());
  CHECK(rdp["order"].get<double>() == doctest::Approx(4.365).epsilon(1e-3));
  CHECK(rdp["accountant"] == "rdp");
}

TEST_CASE("the central-limit figure is marked wherever it stands, and makes no claim") {
  const std::string run = "--sampling-rate 0.01 --noise-multiplier 0.7 --steps 120 --delta 1e-5 --accountant gdp ";
  const std::string mark = "an approximation that can be too low";
  const auto printed = account(run);
  CHECK(printed.status == 0);
  CHECK(printed.out.starts_with("no claim: the central-limit figure (GDP) is " + mark));
  CHECK(printed.out.find("epsilon, " + mark) != std::string::npos);
  const auto json = nlohmann::json::parse(account(run + "--json").out);
  CHECK(json["epsilon"].is_null());
  CHECK(json["approximation_that_can_be_too_low"].get<double>() > 0);
  CHECK(json["claim"].get<std::string>().starts_with("no claim"));
  const auto target = account("--sampling-rate 0.01 --steps 120 --delta 1e-5 --target-epsilon 3 --accountant gdp");
  CHECK(target.status == 2);
  CHECK(target.out.find("no noise is chosen by it") != std::string::npos);
}

TEST_CASE("advice for one record is one batch of it, and epochs have a limit") {
  CHECK(nlohmann::json::parse(account("--advise --records 1 --delta 1e-5 --target-epsilon 3 --json").out)["settings"]
            .size() == 1);
  CHECK(account("--advise --records 100 --delta 1e-5 --target-epsilon 3 --epochs inf").status != 0);
}

TEST_CASE("what is advised keeps the promise, and no smaller batch is as quiet") {
  for (const char* asked : {"--records 1600 --delta 1e-4 --target-epsilon 0.1 --json",
                            "--records 20613 --delta 1e-5 --target-epsilon 1 --steps 100 --json",
                            "--records 20613 --delta 1e-5 --target-epsilon 1 --epochs 10 --json"}) {
    CAPTURE(asked);
    const auto j = nlohmann::json::parse(account(std::string("--advise ") + asked).out);
    const double target = j["epsilon"], delta = j["delta"], records = j["records"];
    double least = INFINITY, before = INFINITY;
    for (const auto& s : j["settings"]) {
      const double batch = s["batch_size"], rate = s["sampling_rate"], z = s["noise_multiplier"], noise = s["noise"];
      const std::uint64_t steps = s["steps"];
      CHECK(rate == doctest::Approx(batch / records));
      CHECK(s["epochs"].get<double>() == doctest::Approx(rate * static_cast<double>(steps)));
      CHECK(noise == doctest::Approx(z / (batch * std::sqrt(static_cast<double>(steps)))));
      dpsgd::pld_accountant spent;
      spent.add(dpsgd::poisson_sampled{rate, dpsgd::gaussian_event<dpsgd::zero_out>{z}}, steps);
      CHECK(spent.spent(delta).epsilon <= target);
      CHECK(spent.spent(delta).epsilon >= target * (1 - 1e-3));
      CHECK(noise <= before * (1 + 1e-3));  // larger batches are not noisier
      before = noise, least = std::min(least, noise);
    }
    // On all records, any number of steps leaves what one leaves: T steps of multiplier z are one of z / sqrt T.
    const double alone = dpsgd::smallest_multiplier<dpsgd::pld_accountant>({target, delta}, 1, [](double z) {
      return dpsgd::poisson_sampled{1.0, dpsgd::gaussian_event<dpsgd::zero_out>{z}};
    });
    CHECK(least == doctest::Approx(alone / records).epsilon(2e-3));
    const double advised = j["advised"]["noise"];
    CHECK(advised <= 1.05 * least);
    for (const auto& s : j["settings"])
      if (s["batch_size"] < j["advised"]["batch_size"]) CHECK(s["noise"].get<double>() > 1.05 * least);
    CHECK(j["parameters_at_most"].get<double>() == doctest::Approx(0.01 / (advised * advised)));
    CHECK(j["learning_rate"]["linear"].get<double>() ==
          doctest::Approx(0.35 / std::sqrt(j["advised"]["steps"].get<double>())));
  }
  const auto words = account("--advise --records 1600 --delta 1e-4 --target-epsilon 0.1");
  CHECK(words.status == 0);
  CHECK(words.out.find("-> ") != std::string::npos);
  CHECK(words.out.find("train_mlp --csv FILE --schema FILE --target-epsilon 0.1") != std::string::npos);
}

TEST_CASE("advice says what it needs") {
  const auto refused = [](const char* arguments, const char* words) {
    CAPTURE(arguments);
    const auto result = account(std::string("--delta 1e-5 --advise ") + arguments);
    CHECK(result.status != 0);
    CHECK(result.out.find(words) != std::string::npos);
  };
  refused("--target-epsilon 1", "--records");
  refused("--records 100", "--target-epsilon");
  refused("--records 100 --target-epsilon 1 --steps 5 --epochs 5", "--epochs");
  refused("--records 100 --target-epsilon 1 --steps 0", "steps must be above 0");
  refused("--records 100 --target-epsilon 1 --epochs -1", "epochs must be above 0");
  refused("--records -1 --target-epsilon 1", "--records");
  refused("--records 100 --target-epsilon 1 --sampling-rate 0.1", "it finds the rest");
}

TEST_CASE("a curve is one SVG file that loads nothing, for light and dark pages") {
  const auto file = std::filesystem::temp_directory_path() / ("dpsgd-curve-" + std::to_string(::getpid()) + ".svg");
  const auto drawn =
      account("--sampling-rate 0.01 --noise-multiplier 0.7 --steps 120 --delta 1e-5 --svg '" + file.string() + "'");
  CHECK(drawn.status == 0);
  std::ostringstream text;
  text << std::ifstream(file).rdbuf();
  std::filesystem::remove(file);
  const std::string svg = text.str();
  CHECK(svg.starts_with("<svg xmlns=\"http://www.w3.org/2000/svg\""));
  CHECK(svg.ends_with("</svg>\n"));
  CHECK(svg.find("<polyline") != std::string::npos);
  CHECK(svg.find("prefers-color-scheme: dark") != std::string::npos);
  CHECK(svg.find("href") == std::string::npos);
  CHECK(svg.find("nan") == std::string::npos);
}

TEST_CASE("account finds the noise, the steps or the rate for a target") {
  const auto found =
      nlohmann::json::parse(account("--sampling-rate 0.01 --steps 120 --delta 1e-5 --target-epsilon 2 --json").out);
  CHECK(found["epsilon"].get<double>() <= 2);
  CHECK(found["epsilon"].get<double>() >= 2 * (1 - 2e-3));
  const auto rate =
      nlohmann::json::parse(account("--noise-multiplier 0.7 --steps 120 --delta 1e-5 --target-epsilon 2 --json").out);
  CHECK(rate["epsilon"].get<double>() <= 2);
  CHECK(rate["epsilon"].get<double>() >= 2 * (1 - 2e-3));
  CHECK(rate["sampling_rate"].get<double>() < 0.01);

  const auto noise = nlohmann::json::parse(
      account("--sampling-rate 0.01 --steps 120 --delta 1e-5 --target-epsilon 3.23717 --json --accountant rdp").out);
  CHECK(noise["epsilon"].get<double>() <= 3.23717);
  CHECK(noise["noise_multiplier"].get<double>() == doctest::Approx(0.7).epsilon(1e-5));
  const auto steps = nlohmann::json::parse(
      account(
          "--sampling-rate 0.01 --noise-multiplier 0.7 --delta 1e-5 --target-epsilon 3.2372 --json --accountant rdp")
          .out);
  CHECK(steps["steps"] == 120);
  const auto all =
      account("--sampling-rate 0.01 --noise-multiplier 9 --steps 120 --delta 1e-5 --target-epsilon 3.23717");
  CHECK(all.status == 0);
  CHECK(all.out.find("--noise-multiplier not used") != all.out.npos);
}

TEST_CASE("what is infinite is null") {
  const auto json =
      nlohmann::json::parse(account("--sampling-rate 0.01 --noise-multiplier 0 --steps 1 --delta 1e-5 --json").out);
  CHECK(json["epsilon"].is_null());
  CHECK(json["order"].is_null());
  CHECK(json["claim"].get<std::string>().starts_with("not private"));
}

TEST_CASE("exit status: 0 done, 1 error, 2 usage") {
  const struct {
    const char* arguments;
    int status;
    const char* says;
  } table[] = {
      {"--help", 0, "--target-epsilon"},
      {"--version", 0, "0."},
      {"--sampling-rate 2 --noise-multiplier 1 --steps 1 --delta 1e-6", 1, "sampling rate"},
      {"--sampling-rate nan --noise-multiplier 1 --steps 1 --delta 1e-6", 1, "sampling rate"},
      {"--sampling-rate .1 --noise-multiplier -1 --steps 1 --delta 1e-6", 1, "noise multiplier"},
      {"--sampling-rate .1 --noise-multiplier 1 --steps 1 --delta -1", 2, "delta must lie in [0, 1)"},
      {"--sampling-rate .1 --noise-multiplier 1 --steps 1 --delta 2", 2, "delta must lie in [0, 1)"},
      {"--sampling-rate .1 --noise-multiplier 1 --steps 1 --delta nan", 2, "delta must lie in [0, 1)"},
      {"--sampling-rate .1 --steps 1 --delta 1e-6 --target-epsilon 0", 1, "target epsilon"},
      {"--sampling-rate .1 --noise-multiplier .1 --delta 1e-6 --target-epsilon 2", 1, "not one step"},
      {"", 2, "required"},
      {"--sampling-rate .1 --noise-multiplier 1 --steps 1", 2, "--delta"},
      {"--sampling-rate .1 --noise-multiplier 1 --delta 1e-6", 2, "--steps"},
      {"--sampling-rate .1 --steps 1 --delta 1e-6", 2, "--noise-multiplier or --target-epsilon"},
      {"--sampling-rate .1 --noise-multiplier x --steps 1 --delta 1e-6", 2, "--noise-multiplier"},
      {"--sampling-rate .1 --noise-multiplier 1 --steps -3 --delta 1e-6", 2, "--steps"},
      {"--sampling-rate .1 --noise-multiplier 1 --steps 1 --delta 1e-6 --accountant prv", 2, "pld"},
      {"--noise-multiplier 1 --steps 1 --delta 1e-6", 2, "--sampling-rate"},
      {"--steps 1 --delta 1e-6 --target-epsilon 1", 2, "two of"},
      {"--sampling-rate .1 --noise-multiplier 1 --steps 1 --delta 1e-6 --nonsense", 2, "--nonsense"},
  };
  for (const auto& row : table) {
    CAPTURE(row.arguments);
    const auto got = account(row.arguments);
    CHECK(got.status == row.status);
    CHECK(got.out.find(row.says) != got.out.npos);
  }
}
