// The program examples/audit, from outside. What it finds is tested in tests/audit/.
#include <doctest/doctest.h>

#include <nlohmann/json.hpp>

#include "programs.hpp"

using namespace test;

namespace {
outcome audit(const words& arguments) {
  const workplace place;
  return process(place, words{program("audit")} + arguments).wait();
}
}  // namespace

TEST_CASE("audit: one line, the same as JSON, one's own setting, and wrong commands") {
  const words sure{"--confidence", "0.9999999"};  // a false alarm once in ten million runs
  const auto line = audit(words{"--only", "noise_not_times_bound", "--runs", "5000"} + sure);
  CHECK(line.status == 0);
  CHECK(line.out.find("the claim is false\n") != std::string::npos);

  const auto own = audit(words{"--sampling-rate", "0.5", "--noise-multiplier", "2", "--steps", "3", "--delta", "1e-3",
                               "--runs", "1000", "--json"} +
                         sure);
  REQUIRE(own.status == 0);
  const auto rows = nlohmann::json::parse(own.out);
  REQUIRE(rows.size() == 1);
  CHECK(rows[0]["name"] == "yours");
  CHECK(rows[0]["runs"] == 4000);
  CHECK(rows[0]["refuted"] == false);
  CHECK(rows[0]["epsilon_at_least"].get<double>() <= rows[0]["epsilon"].get<double>());

  CHECK(audit({"--only", "nothing"}).status == 2);
  CHECK(audit({"--steps", "3"}).status == 2);
  CHECK(audit({"--runs", "10"}).status == 2);
}
