/// Bad input gets a clear error and nothing is lost: one table, a line for each mistake, with the exit status and what
/// the message must say. Below it, what takes more than a line: full disks, lost and stopped ranks.
#include <doctest/doctest.h>

#include <algorithm>
#include <chrono>
#include <string>
#include <string_view>

#include "examples/programs.hpp"

using namespace test;

namespace {

/// Where a case begins: a small task, perhaps with something spoilt.
struct bad_case {
  const char* what;
  int status;
  const char* says;           // a piece of stderr
  words arguments = {};       // of train_mlp, beside --csv, --schema and --hidden
  const char* csv = nullptr;  // instead of the good one
  const char* schema = nullptr;
  words before = {};                           // a run that comes first, with these arguments
  void (*spoil)(const small_task&) = nullptr;  // after it
};

// A few rows of a good file, for cases that change one of them.
#define ROWS "1,2,0,x,1\n-3,2,1,x,0\n5,1,2,x,1\n-5,-1,2,x,0\n"

const bad_case table[] = {
    // the command line
    {"no --csv", 2, "--csv"},  // (built without it below)
    {"an unknown option", 2, "--colour", {"--colour", "red"}},
    {"epochs and steps", 2, "--epochs", {"--epochs", "1", "--steps", "5"}},
    {"privacy and none", 2, "--no-privacy", {"--no-privacy", "--target-epsilon", "2"}},
    {"a budget for a run that cannot keep one", 2, "--budget", {"--insecure-seed", "1", "--budget", "2"}},
    {"resume without a checkpoint's name", 2, "--checkpoint", {"--resume"}},
    {"an unknown allreduce", 2, "recursive_doubling", {"--allreduce", "star"}},
    {"hidden layers of width zero", 2, "--hidden: must be widths", {"--hidden", "16,0"}},
    {"hidden layers that are no numbers", 2, "--hidden: must be widths", {"--hidden", "wide"}},
    {"no ranks", 2, "--ranks", {"--ranks", "0"}},
    {"negative noise", 2, "--noise-multiplier: must be a positive number; got -1", {"--noise-multiplier", "-1"}},
    {"noise that is no number", 2, "got nan", {"--noise-multiplier", "nan"}},
    {"a sampling rate of zero", 2, "--batch-size: must be a positive number; got 0", {"--batch-size", "0"}},
    {"a sampling rate above one", 1, "gives a sampling rate above 1", {"--batch-size", "100000"}},
    {"delta above one", 2, "--delta: must lie in (0, 1); got 2", {"--delta", "2"}},
    {"delta of zero", 2, "--delta: must lie in (0, 1); got 0", {"--delta", "0"}},
    {"delta >= 1/N is a warning", 0, "warning: delta 0.01 is not below 1/N", {"--delta", "0.01", "--steps", "3"}},
    {"nothing to train on", 2, "--test-fraction: must lie in [0, 1)", {"--test-fraction", "1"}},
    {"more ranks than records", 1, "more ranks than records", {"--ranks", "30"}, "a,b,kind,unused,y\n" ROWS ROWS ROWS},
    // files that are not there
    {"no such CSV",
     1,
     "cannot open",
     {},
     nullptr,
     nullptr,
     {},
     [](const small_task& t) { fs::remove(t / "data.csv"); }},
    {"no such schema",
     1,
     "cannot read the schema",
     {},
     nullptr,
     nullptr,
     {},
     [](const small_task& t) { fs::remove(t / "schema.json"); }},
    {"results into a directory that is not there",
     1,
     "--json no/such/place.json: cannot write",
     {"--json", "no/such/place.json"}},
    {"a model into a directory that is not there",
     1,
     "--save no/such/place: cannot write",
     {"--save", "no/such/place"}},
    // the schema
    {"a schema that is not JSON", 1, "schema.json: this is no JSON", {}, nullptr, "{\"columns\": ["},
    {"a schema whose columns are no objects", 1, "schema.json: ", {}, nullptr, "{\"columns\": [1]}"},
    {"nothing left to train on", 1, "lower --test-fraction", {"--test-fraction", "0.9999"}},
    {"a target that promises nothing", 1, "must lie in (0, 1000]", {"--target-epsilon", "1e9"}},
    {"a schema with an unknown kind",
     1,
     "unknown kind \"text\"",
     {},
     nullptr,
     R"({"columns": [{"name": "y", "kind": "label"}, {"name": "a", "kind": "text"}]})"},
    {"a schema with the bounds turned round",
     1,
     "column \"a\": the bounds must be finite with min < max",
     {},
     nullptr,
     R"({"columns": [{"name": "y", "kind": "label"}, {"name": "a", "kind": "numeric", "min": 1, "max": 0}]})"},
    {"an unknown column",
     1,
     "the file has no column \"age\"",
     {},
     nullptr,
     R"({"columns": [{"name": "y", "kind": "label"}, {"name": "age", "kind": "numeric", "min": 0, "max": 100}]})"},
    // the records
    {"an empty file", 1, "data.csv is empty", {}, ""},
    {"a header and nothing else", 1, "has a header and no records", {}, "a,b,kind,unused,y\n"},
    {"a word where a number should be",
     1,
     "data.csv:3:4: column \"b\": \"two\" is not a finite number",
     {},
     "a,b,kind,unused,y\n1,2,0,x,1\n-3,two,1,x,0\n"},
    {"NaN in a field",
     1,
     "data.csv:2:1: column \"a\": \"NaN\" is not a finite number",
     {},
     "a,b,kind,unused,y\nNaN,2,0,x,1\n" ROWS},
    {"a missing value without a default",
     1,
     "column \"a\": the value is missing",
     {},
     "a,b,kind,unused,y\nNA,2,0,x,1\n" ROWS},
    {"a missing label", 1, "the label is missing", {}, "a,b,kind,unused,y\n1,2,0,x,\n" ROWS},
    {"a value out of its category",
     1,
     "data.csv:2:5: column \"kind\": \"7\" is not an integer from 0 to 2",
     {},
     "a,b,kind,unused,y\n1,2,7,x,1\n" ROWS},
    {"a label of no class", 1, "column \"y\": \"2\" is not a label", {}, "a,b,kind,unused,y\n1,2,0,x,2\n" ROWS},
    {"a row that is too short", 1, "the row ends after 3 fields", {}, "a,b,kind,unused,y\n1,2,0\n" ROWS},
    {"a quote that is never closed", 1, "never closed", {}, "a,b,kind,unused,y\n1,2,0,\"x,1\n" ROWS},
    {"a constant label",
     1,
     "the label is constant: every training record has y = 1",
     {"--test-fraction", "0"},
     "a,b,kind,unused,y\n1,2,0,x,1\n3,2,1,x,1\n5,1,2,x,1\n"},
    {"nothing left after dropping", 1, "no", {"--drop-bad-rows"}, "a,b,kind,unused,y\nNA,2,0,x,1\nNA,2,1,x,0\n"},
    {"no test set is a warning", 0, "warning: there is no test set", {"--test-fraction", "0", "--steps", "3"}},
    {"more ranks than cores is a warning", 0, "more ranks than cores", {"--ranks", "40", "--steps", "3"}},
    // checkpoints
    {"nothing to resume", 1, "there is nothing to resume", {"--checkpoint", "kept", "--resume"}},
    {"a checkpoint that would be overwritten",
     1,
     "exists: resume it, or name another directory",
     {"--checkpoint", "kept", "--steps", "5"},
     nullptr,
     nullptr,
     {"--checkpoint", "kept", "--steps", "5"}},
    {"a checkpoint that was cut off",
     1,
     "latest.checkpoint: the file is cut off or damaged",
     {"--checkpoint", "kept", "--resume", "--steps", "5"},
     nullptr,
     nullptr,
     {"--checkpoint", "kept", "--steps", "5"},
     [](const small_task& t) {
       fs::resize_file(t / "kept/latest.checkpoint", fs::file_size(t / "kept/latest.checkpoint") / 2);
     }},
    {"a checkpoint of another model",
     1,
     "this checkpoint is of another run",
     {"--checkpoint", "kept", "--resume", "--steps", "5", "--hidden", "8"},
     nullptr,
     nullptr,
     {"--checkpoint", "kept", "--steps", "5"}},
    {"a checkpoint of less noise",
     1,
     "this checkpoint is of another run",
     {"--checkpoint", "kept", "--resume", "--steps", "5", "--noise-multiplier", "2"},
     nullptr,
     nullptr,
     {"--checkpoint", "kept", "--steps", "5", "--noise-multiplier", "1"}},
    {"a checkpoint without privacy goes on with it",
     1,
     "this checkpoint is of another run",
     {"--checkpoint", "kept", "--resume", "--steps", "9"},
     nullptr,
     nullptr,
     {"--checkpoint", "kept", "--steps", "5", "--no-privacy"}},
    // ledgers
    {"a ledger of other data",
     1,
     "it belongs to another data set",
     {"--ledger", "book", "--steps", "5"},
     nullptr,
     nullptr,
     {"--ledger", "book", "--steps", "5"},
     [](const small_task& t) { write(t / "data.csv", small_csv(799)); }},
    {"a damaged ledger",
     1,
     "this line is damaged",
     {"--ledger", "book", "--steps", "5"},
     nullptr,
     nullptr,
     {"--ledger", "book", "--steps", "5"},
     [](const small_task& t) {
       auto bytes = contents(t / "book");
       bytes[bytes.find("multiplier=") + 11] ^= 1;
       write(t / "book", bytes);
     }},
    {"a file that is no ledger", 1, "this is no ledger", {"--ledger", "data.csv", "--steps", "5"}},
    {"a budget that is spent",
     1,
     "the budget does not allow this run",
     {"--steps", "5", "--budget", "3.5"},
     nullptr,
     nullptr,
     {"--steps", "5"}},
    {"a budget too small from the start", 1, "the budget does not allow this run", {"--steps", "5", "--budget", "1"}},
};

/// Paths among the arguments are those of the workplace.
words placed(const small_task& task, words arguments) {
  for (auto& a : arguments)
    if (a == "kept" || a == "book" || a == "data.csv") a = task / a;
  return arguments;
}

}  // namespace

TEST_CASE("bad input: the table") {
  for (const auto& c : table) {
    const std::string what = c.what;
    CAPTURE(what);
    const small_task task(c.csv ? 1 : 800);
    if (c.csv) write(task / "data.csv", c.csv);
    if (c.schema) write(task / "schema.json", c.schema);
    if (!c.before.empty()) {
      const auto first = run(task, task.train(placed(task, c.before)));
      REQUIRE_MESSAGE(first.status == 0, first.err);
    }
    if (c.spoil) c.spoil(task);
    const auto kept = contents(task / "kept/latest.checkpoint"), book = contents(task / "book"),
               default_book = contents(task / "data.csv.ledger");

    auto command = task.train(placed(task, c.arguments));
    if (std::string_view(c.what) == "no --csv") command.erase(command.begin() + 1, command.begin() + 3);
    if (std::count(command.begin(), command.end(), "--hidden") > 1)
      command.erase(command.begin() + 5, command.begin() + 7);
    const auto result = run(task, command);
    CHECK_MESSAGE(result.status == c.status, result.err);
    CHECK_MESSAGE(result.err.find(c.says) != std::string::npos, result.err);
    if (c.status == 0) continue;
    // Nothing is lost, and nothing is spent.
    CHECK(result.err.find("terminate called") == std::string::npos);
    CHECK(contents(task / "kept/latest.checkpoint") == kept);
    CHECK(contents(task / "book") == book);
    if (!default_book.empty()) CHECK(contents(task / "data.csv.ledger") == default_book);
    for (const auto& entry : fs::recursive_directory_iterator(task.path()))
      CHECK_MESSAGE(entry.path().extension() != ".part", entry.path());
  }
}

TEST_CASE("bad input: a full disk while a checkpoint is written leaves the previous one") {
  const small_task task;
  const words wide{"--hidden", "64,64", "--steps", "40", "--checkpoint", task / "kept", "--checkpoint-every", "10"};
  auto command =
      task.train() + wide + words{"--insecure-seed", "1", "--noise-multiplier", "1", "--save", task / "model"};
  command.erase(command.begin() + 5, command.begin() + 7);
  REQUIRE(run(task, command).status == 0);
  const auto kept = contents(task / "kept/latest.checkpoint"), model = contents(task / "model");
  REQUIRE(kept.size() > 40'000);

  // The disk takes the small files (the ledger, what is said), and not a whole checkpoint.
  auto longer = command + words{"--resume"};
  *std::find(longer.begin(), longer.end(), "40") = "80";
  const auto full = run(task, longer, 20'000);
  CHECK(full.status == 1);
  CHECK_MESSAGE(full.err.find("latest.checkpoint: cannot write to it") != std::string::npos, full.err);
  CHECK_MESSAGE(full.err.find("in step") != std::string::npos, full.err);
  CHECK(contents(task / "kept/latest.checkpoint") == kept);
  CHECK(contents(task / "model") == model);
  CHECK(std::distance(fs::directory_iterator(task / "kept"), {}) == 1);  // nothing half written stays

  // With room again it goes on from there.
  const auto again = run(task, longer);
  CHECK_MESSAGE(again.status == 0, again.err);
}

TEST_CASE("bad input: a model that cannot be saved hides neither the claim nor the JSON") {
  const small_task task;
  const auto result = run(task, task.train({"--save", "/dev/full", "--json", task / "result.json"}));
  CHECK(result.status == 1);
  CHECK_MESSAGE(result.out.find("privacy: (epsilon ") != std::string::npos, result.out);
  CHECK_MESSAGE(result.err.find("/dev/full: cannot write to it") != std::string::npos, result.err);
  CHECK(contents(task / "result.json").find("\"epsilon\"") != std::string::npos);
}

TEST_CASE("bad input: a full disk while the ledger is written releases no step") {
  const small_task task;
  write(task / "data.csv.ledger", "");
  const auto full = run(task, task.train({"--steps", "400", "--target-epsilon", "2"}), 200);
  CHECK(full.status == 1);
  CHECK_MESSAGE(full.err.find("data.csv.ledger: cannot write to it") != std::string::npos, full.err);
  CHECK(run(task, task.train({"--steps", "10"})).status == 0);  // the ledger is still whole
}

namespace {
const bool no_mpi = std::string_view(DPSGD_MPIEXEC).empty();  // MPI is not installed here

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}
const words endless{"--steps", "100000000", "--batch-size", "32", "--noise-multiplier", "1", "--insecure-seed", "1"};
}  // namespace

TEST_CASE("bad input under mpirun: --ranks is refused; the first bad row in the file is named once" *
          doctest::skip(no_mpi)) {
  const small_task task;
  const auto ranks = run(task, mpirun(2, task.train({"--ranks", "2"})));
  CHECK(ranks.status == 2);
  CHECK_MESSAGE(ranks.err.find("leave --ranks out") != std::string::npos, ranks.err);

  auto csv = contents(task / "data.csv");
  csv += "1,bad,0,x,1\n1,worse,0,x,1\n";
  write(task / "data.csv", csv);
  const auto bad = run(task, mpirun(2, task.train()));
  CHECK(bad.status == 1);
  CHECK_MESSAGE(bad.err.find("\"bad\" is not a finite number") != std::string::npos, bad.err);
  CHECK_MESSAGE(bad.err.find("worse") == std::string::npos, bad.err);

  write(task / "data.csv", "a,b,kind,unused,y\n1,2,0,x,1\n");
  const auto few = run(task, mpirun(2, task.train()));
  CHECK(few.status == 1);
  CHECK_MESSAGE(few.err.find("more ranks than records") != std::string::npos, few.err);
}

TEST_CASE("a rank that is killed: the others end within 10 s and say at which step" * doctest::skip(no_mpi)) {
  const small_task task;
  process job(task, mpirun(3, task.train(endless)));
  job.until([&] { return job.err().find("step ") != std::string::npos; });
  const auto victim = job.rank(2);
  REQUIRE(victim > 0);
  const auto start = std::chrono::steady_clock::now();
  ::kill(victim, SIGKILL);
  const auto result = job.wait(10);
  CHECK(seconds_since(start) < 10);
  CHECK(result.status != 0);
  CHECK_MESSAGE(result.err.find("in step ") != std::string::npos, result.err);
}

TEST_CASE("a rank that is stopped: the deadline names it" * doctest::skip(no_mpi)) {
  const small_task task;
  process job(task, mpirun(2, task.train(endless + words{"--deadline", "1.5"})));
  job.until([&] { return job.err().find("step ") != std::string::npos; });
  const auto victim = job.rank(1);
  REQUIRE(victim > 0);
  ::kill(victim, SIGSTOP);
  const auto start = std::chrono::steady_clock::now();
  outcome result{0, "", ""};
  try {
    result = job.wait(15);
  } catch (...) {
    ::kill(victim, SIGCONT);
    throw;
  }
  CHECK(seconds_since(start) < 15);
  CHECK(result.status == 1);
  CHECK_MESSAGE(result.err.find("in step ") != std::string::npos, result.err);
  CHECK_MESSAGE(result.err.find("in vain for rank 1") != std::string::npos, result.err);
}
