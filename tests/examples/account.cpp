// The program examples/account, from outside: what it prints, its JSON and its exit status.
#include <doctest/doctest.h>
#include <sys/wait.h>

#include <cstdio>
#include <nlohmann/json.hpp>
#include <string>

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
      "(epsilon 3.24, delta 1e-05)-DP, unit: one row, zero-out adjacency, Poisson sampling, RDP, "
      "idealised arithmetic\n"));

  const auto json =
      nlohmann::json::parse(account("--sampling-rate 0.01 --noise-multiplier 0.7 --steps 120 --delta 1e-5 --json").out);
  CHECK(json["epsilon"].get<double>() == doctest::Approx(3.23717).epsilon(1e-5));
  CHECK(json["order"].get<double>() == doctest::Approx(4.365).epsilon(1e-3));
  CHECK(json["delta"] == 1e-5);
  CHECK(json["noise_multiplier"] == 0.7);
  CHECK(json["sampling_rate"] == 0.01);
  CHECK(json["steps"] == 120);
  CHECK(json["accountant"] == "rdp");
}

TEST_CASE("account finds the noise, or the steps, for a target") {
  const auto noise = nlohmann::json::parse(
      account("--sampling-rate 0.01 --steps 120 --delta 1e-5 --target-epsilon 3.23717 --json").out);
  CHECK(noise["epsilon"].get<double>() <= 3.23717);
  CHECK(noise["noise_multiplier"].get<double>() == doctest::Approx(0.7).epsilon(1e-5));
  const auto steps = nlohmann::json::parse(
      account("--sampling-rate 0.01 --noise-multiplier 0.7 --delta 1e-5 --target-epsilon 3.2372 --json").out);
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
      {"--sampling-rate .1 --noise-multiplier 1 --steps 1 --delta -1", 1, "delta"},
      {"--sampling-rate .1 --steps 1 --delta 1e-6 --target-epsilon 0", 1, "target epsilon"},
      {"--sampling-rate .1 --noise-multiplier .1 --delta 1e-6 --target-epsilon 2", 1, "not one step"},
      {"", 2, "required"},
      {"--sampling-rate .1 --noise-multiplier 1 --steps 1", 2, "--delta"},
      {"--sampling-rate .1 --noise-multiplier 1 --delta 1e-6", 2, "--steps"},
      {"--sampling-rate .1 --steps 1 --delta 1e-6", 2, "--noise-multiplier or --target-epsilon"},
      {"--sampling-rate .1 --noise-multiplier x --steps 1 --delta 1e-6", 2, "--noise-multiplier"},
      {"--sampling-rate .1 --noise-multiplier 1 --steps -3 --delta 1e-6", 2, "--steps"},
      {"--sampling-rate .1 --noise-multiplier 1 --steps 1 --delta 1e-6 --accountant pld", 2, "rdp"},
      {"--sampling-rate .1 --noise-multiplier 1 --steps 1 --delta 1e-6 --nonsense", 2, "--nonsense"},
  };
  for (const auto& row : table) {
    CAPTURE(row.arguments);
    const auto got = account(row.arguments);
    CHECK(got.status == row.status);
    CHECK(got.out.find(row.says) != got.out.npos);
  }
}
