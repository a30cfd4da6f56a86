// The programs that show how to write a type of one's own: they run, and what they teach is still true.
#include <doctest/doctest.h>
#include <sys/wait.h>

#include <cstdio>
#include <string>

namespace {

/// What a program of examples/ prints. It must end with status 0.
std::string said_by(const std::string& program) {
  std::FILE* pipe = ::popen(("'" DPSGD_EXAMPLES_DIR "/" + program + "' 2>&1").c_str(), "r");
  REQUIRE(pipe);
  std::string said;
  char block[4096];
  for (std::size_t got; (got = std::fread(block, 1, sizeof block, pipe)) > 0;) said.append(block, got);
  CAPTURE(said);
  CHECK(WEXITSTATUS(::pclose(pipe)) == 0);
  return said;
}

bool holds(const std::string& text, const std::string& words) { return text.find(words) != text.npos; }

}  // namespace

TEST_CASE("own_layer: the layer passes check_layer and is trained with a claim") {
  const auto said = said_by("own_layer");
  CAPTURE(said);
  CHECK(holds(said, "obeys the laws of a layer"));
  CHECK(holds(said, "(not private)"));
  CHECK(holds(said, "-DP, unit: one row, zero-out adjacency, Poisson sampling"));
}

TEST_CASE("own_clip: a wrong clip is found out, and every run spends the same") {
  const auto said = said_by("own_clip");
  CAPTURE(said);
  CHECK(holds(said, "check_clip: a gradient of norm"));
  const auto at = said.find("epsilon ");
  REQUIRE(at != said.npos);
  const auto epsilon = said.substr(at, said.find('\n', at) + 1 - at);
  int runs = 0;
  for (auto i = said.find(epsilon); i != said.npos; i = said.find(epsilon, i + 1)) ++runs;
  CHECK(runs == 6);
}

TEST_CASE("own_allreduce: the ring is right, its broken variants are not") {
  const auto said = said_by("own_allreduce");
  CAPTURE(said);
  CHECK(holds(said, "left_ring among 4 members: no flaw"));
  CHECK(holds(said, "crossed_ring among 4 members: a contribution is missing in the end"));
  CHECK(holds(
      said, "hasty_ring among 4 members: a reduce-scatter sends and receives the same block in one round, in round 0"));
  CHECK(holds(said, "10 everywhere"));
}
