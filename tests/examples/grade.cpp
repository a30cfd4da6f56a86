// The program examples/grade, from outside: what a student wrote, and what the teacher reads.
#include <doctest/doctest.h>
#include <sys/stat.h>

#include <atomic>
#include <chrono>
#include <string>
#include <thread>
#include <vector>

#include "examples/programs.hpp"

using namespace test;

namespace {

struct homework {
  std::string what;
  words options;
  int status;
  std::vector<std::string> says;
  std::string header;
};

// A struct of that name with that body in its one function.
std::string reduce_scatter(const std::string& body, const std::string& more = "", const std::string& name = "student") {
  return "struct " + name + " {\n  constexpr void reduce_scatter(member me, auto&& send) const {\n    " + body +
         "\n  }\n  " + more + "\n};\n";
}
std::string all_reduce(const std::string& body, const std::string& more = "") {
  return "struct student {\n  constexpr int blocks(int) const { return 1; }\n"
         "  constexpr void all_reduce(member me, auto&& send) const {\n    " +
         body + "\n  }\n  " + more + "\n};\n";
}
const std::string powers = "constexpr bool serves(int size) const { return (size & (size - 1)) == 0; }";
const std::string halving =
    "for (int half = me.size / 2, t = 0; half > 0; half /= 2, ++t) "
    "send(t, me.rank ^ half, {(me.rank ^ half) / half * half, half});";

const std::string ring = "for (int t = 0; t < me.size - 1; ++t) send(t, me.at(+1), me.at(-t - 1));";

const std::vector<homework> table = {
    {"loops for ever",
     {"--deadline", "5"},
     1,
     {"did not end within", "for 1 member"},
     reduce_scatter("while (me.size) {}")},
    {"a ring", {}, 0, {"right for all P = 1 .. 64", "7   12   (3)    12   (3)    1797559"}, reduce_scatter(ring)},
    {"of another name, with its own includes, in the library's namespace",
     {"--algorithm", "left"},
     0,
     {"left in ", "right for all P"},
     "#pragma once\n#include <dpsgd/allreduce/schedule.hpp>\nnamespace dpsgd::allreduce {\n" +
         reduce_scatter("for (int t = 0; t < me.size - 1; ++t) send(t, me.at(-1), me.at(t + 1));", "", "left") + "}\n"},
    {"powers of two", {"--partial"}, 0, {"right for the 7 sizes that it serves"}, reduce_scatter(halving, powers)},
    {"powers of two where all are asked for", {}, 1, {"serves() refuses 3, 5, 6"}, reduce_scatter(halving, powers)},
    {"too few sizes",
     {"--partial"},
     1,
     {"serves() refuses 32 members, even for --partial"},
     reduce_scatter(halving,
                    "constexpr bool serves(int size) const { return size < 32 && (size & (size - 1)) == 0; }")},
    {"does not compile", {}, 1, {"does not compile", "expected"}, reduce_scatter("send(0, 1, 2) for ever")},
    {"another name", {}, 1, {"there is no struct student"}, reduce_scatter("", "", "studnet")},
    {"no algorithm",
     {},
     1,
     {"exactly one of the member functions"},
     "struct student { void reduce(member) const {} };"},
    {"proves itself wrong",
     {},
     1,
     {"does not compile", "its own static_assert(prove(...)) fails: two_owners"},
     reduce_scatter("for (int t = 0; t < me.size - 2; ++t) send(t, me.at(+1), me.at(-t - 1));") +
         "static_assert(prove(student{}, 4));\n"},
    {"sends for ever",
     {},
     1,
     {"wrong for 2 members: member 0 calls send more than 4096 times"},
     reduce_scatter("for (int t = 0; me.size > 1; ++t) send(t, me.at(1), 0);")},
    {"to itself",
     {},
     1,
     {"wrong for 1 member: in round 0 member 0 sends to itself"},
     reduce_scatter("send(0, me.rank, 0);")},
    {"to nobody",
     {},
     1,
     {"wrong for 1 member: in round 3 member 0 sends to member 1, but the members are numbered 0 to 0"},
     reduce_scatter("send(3, me.rank + 1, 0);")},
    {"forgets the last round",
     {},
     1,
     {"wrong for 2 members: members 0 and 1 never send block 0, so all of them keep a part of its sum"},
     reduce_scatter("for (int t = 0; t < me.size - 2; ++t) send(t, me.at(+1), me.at(-t - 1));")},
    {"in a hurry",
     {},
     1,
     {"wrong for 3 members: in round 0 member 0 sends block 1 and receives it from member 2 at the same time"},
     reduce_scatter("for (int t = 0; t < me.size - 1; ++t) send(0, me.at(+1), me.at(-t - 1));")},
    {"the wrong direction",
     {},
     1,
     {"wrong for 3 members: member 0 is the one that keeps block 0 (it never sends it), but in the end the "
      "contribution "
      "of member 1 is missing from it"},
     reduce_scatter("for (int t = 0; t < me.size - 1; ++t) send(t, me.at(+1), me.at(t + 1));")},
    {"twice",
     {},
     1,
     {"wrong for 2 members: in round 1 member 0 adds block 0 from member 1, with the contribution of member 1, which "
      "its own block 0 already holds: it would be counted twice"},
     all_reduce("if (me.rank > 0) send(0, 0, 0), send(1, 0, 0);")},
    {"no way back",
     {},
     1,
     {"wrong for 2 members: in the end the contribution of member 0 is missing from block 0 of member 1"},
     all_reduce("if (me.rank > 0) send(0, 0, 0);")},
    {"different bits",
     {"--partial"},
     1,
     {"wrong for 8 members: all sums are complete, but member", "adds block 0 up in another order than member 0"},
     all_reduce("for (int d = 1, t = 0; 1 << t < me.size; ++t, d = 1 - 2 * d) send(t, me.at(me.rank % 2 ? -d : d), 0);",
                powers)},
    {"no blocks",
     {},
     1,
     {"wrong for 1 member: blocks(1) is 0"},
     reduce_scatter("", "constexpr int blocks(int size) const { return size - 1; }")},
    {"crashes",
     {},
     1,
     {"ended in the middle, for 5 members"},
     reduce_scatter("if (me.size == 5) __builtin_trap();\n" + ring)},
    {"wants to be over at once",
     {},
     1,
     {"ended in the middle"},
     "#include <cstdlib>\nconst int over = (std::exit(0), 1);\n" + reduce_scatter("")},
};

}  // namespace

TEST_CASE("grade: right is 0, wrong is 1 with words that help, and nothing outlives its deadline") {
  std::vector<outcome> outcomes(table.size());
  const workplace place;
  // Two at a time: most of it is the compiler.
  std::atomic<std::size_t> next{0};
  const auto work = [&] {
    for (std::size_t i; (i = next++) < table.size();) {
      const workplace mine;
      write(mine / "student.hpp", table[i].header);
      try {
        outcomes[i] = run(mine, words{program("grade"), mine / "student.hpp"} + table[i].options);
      } catch (const std::exception& e) {
        outcomes[i] = {-1, e.what(), ""};
      }
    }
  };
  std::jthread other(work);
  work();
  other.join();
  for (std::size_t i = 0; i < table.size(); ++i) {
    INFO(table[i].what, ": ", outcomes[i].status, "\n", outcomes[i].out, outcomes[i].err);
    CHECK(outcomes[i].status == table[i].status);
    for (const auto& words : table[i].says) CHECK_MESSAGE(outcomes[i].out.find(words) != std::string::npos, words);
  }
}

TEST_CASE("grade: a compiler that does not end, or is not there, and wrong commands") {
  const workplace place;
  write(place / "student.hpp", reduce_scatter(ring));
  write(place / "slow", "#!/bin/sh\nsleep 100 & wait\n");
  ::chmod((place / "slow").c_str(), 0755);
  const auto slow =
      run(place, {program("grade"), place / "student.hpp", "--compiler", place / "slow", "--deadline", "0.3"});
  CHECK(slow.status == 1);
  CHECK(slow.out.find("the compiler did not finish within") != std::string::npos);
  CHECK(run(place, {program("grade"), place / "student.hpp", "--compiler", place / "none"}).status == 2);
  CHECK(run(place, {program("grade"), place / "nothing.hpp"}).status == 2);
  CHECK(run(place, {program("grade"), place / "student.hpp", "--algorithm", "x;y"}).status == 2);
  CHECK(run(place, {program("grade")}).status == 2);
}
