/// However one rank fails, the job ends, long before the deadline of the others' waits (60 s), and says why.
#include <doctest/doctest.h>
#include <sys/wait.h>

#include <array>
#include <cstdio>
#include <string>

namespace {

struct ending {
  int status = -1;  // 124: had to be killed after 20 s
  std::string output;
};

ending run(const std::string& how) {
  const std::string command = "timeout -k 5 20 '" DPSGD_MPIEXEC "' -n 3 '" FAILING_PROGRAM "' " + how + " 2>&1";
  ending e;
  FILE* pipe = popen(command.c_str(), "r");
  REQUIRE(pipe != nullptr);
  std::array<char, 4096> part;
  while (const auto got = fread(part.data(), 1, part.size(), pipe)) e.output.append(part.data(), got);
  const int status = pclose(pipe);
  e.status = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  return e;
}

void check(const std::string& how, int status, const std::string& words) {
  const ending e = run(how);
  INFO(how, " ended with status ", e.status, " and said:\n", e.output);
  CHECK(e.status == status);
  CHECK(e.output.find(words) != e.output.npos);
}

}  // namespace

TEST_CASE("a job without a failure is done") { check("not", 0, "done"); }
TEST_CASE("an exception that nobody catches is printed with its rank and ends the job") {
  check("throw", 1, "rank 1: no such column");
}
TEST_CASE("an exception caught outside the world is for the handler to print, and its status is the job's") {
  check("caught-outside", 5, "caught: no such column");
}
TEST_CASE("a handler inside the world ends the job with abort") { check("caught-inside", 4, "caught: no such column"); }
TEST_CASE("a rank that does not answer is named by the others") {
  check("sleep", 1, "waited 0.5 s in vain for rank 1 to ");
  check("sleep-native", 5, "waited 0.5 s in vain for the other ranks in MPI_I");
}
TEST_CASE("a rank that is asked to stop leaves when the others do not answer, and its status is the job's") {
  check("stop", 3, "asked to stop while waiting for rank 1 to ");
}
TEST_CASE("a rank that is stopped or killed while others read its vector in place does not hold them") {
  check("stopped-in-place", 1, "waited 0.5 s in vain for rank 1 to ");
  check("stopped-in-place", 1, " of the ");  // the round, too
  const ending killed = run("killed-in-place");
  INFO(killed.output);
  CHECK(killed.status == 128 + 9);  // mpirun's; 124 if it hung
}
TEST_CASE("messages of different sizes at the two ends are an error") {
  check("sizes", 1, "rank 1 sent 4 bytes where 8 were expected");
  check("sizes-in-place", 1, "rank 1 sent 100000 bytes where 50000 were expected");
}
