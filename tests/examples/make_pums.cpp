/// The program examples/make_pums, from outside: what it prints, its exit status, and that no half file is left.
#include <doctest/doctest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

namespace {

struct outcome {
  int status;
  std::string out;
};

/// Through a shell; `before` goes before the program's name.
outcome make_pums(const std::string& arguments, const std::string& before = "") {
  outcome result{-1, {}};
  std::FILE* pipe =
      ::popen(("(" + before + " '" DPSGD_EXAMPLES_DIR "/make_pums' " + arguments + ") 2>&1").c_str(), "r");
  REQUIRE(pipe);
  char block[4096];
  for (std::size_t got; (got = std::fread(block, 1, sizeof block, pipe)) > 0;) result.out.append(block, got);
  result.status = WEXITSTATUS(::pclose(pipe));
  return result;
}

bool has(const outcome& run, const char* words) { return run.out.find(words) != run.out.npos; }

std::string content(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

/// A folder of its own, removed at the end.
struct folder {
  std::filesystem::path path =
      std::filesystem::temp_directory_path() / ("dpsgd-make-pums-" + std::to_string(::getpid()));
  folder() { std::filesystem::create_directory(path); }
  ~folder() { std::filesystem::remove_all(path); }
  std::size_t files() const {
    return static_cast<std::size_t>(std::distance(std::filesystem::directory_iterator(path), {}));
  }
};

}  // namespace

TEST_CASE("make_pums writes the same file to a path and to standard output, and says what it made") {
  const folder here;
  const auto path = here.path / "people.csv";
  const auto run = make_pums("--rows 40000 --seed 3 --dirty 0.01 --output " + path.string());
  CHECK(run.status == 0);
  CHECK(has(run, "40000 synthetic records (seed 3)"));
  CHECK(has(run, "Bayes accuracy of the model: 84."));
  CHECK(has(run, "one field NA: "));
  CHECK(make_pums("--rows 40000 --seed 3 --dirty 0.01 2>/dev/null").out == content(path));
  CHECK(here.files() == 1);
  CHECK(make_pums("--rows 0 2>/dev/null").out.starts_with("\"state\",\"puma\""));
}

TEST_CASE("make_pums: bad usage is status 2, and --help and --version are 0") {
  for (const char* arguments :
       {"--rows -5", "--rows abc", "--seed -1", "--dirty 1.5", "--dirty -0.1", "--no-such", "x"}) {
    INFO(arguments);
    CHECK(make_pums(arguments).status == 2);
  }
  CHECK(has(make_pums("--help"), "No record is a person"));
  CHECK(make_pums("--help").status == 0);
  CHECK(make_pums("--version").status == 0);
}

TEST_CASE("make_pums: what cannot be written is status 1 with the reason, and the old file stays") {
  const folder here;
  const auto path = here.path / "people.csv";
  auto run = make_pums("--rows 5 --output " + (here.path / "no" / "people.csv").string());
  CHECK(run.status == 1);
  CHECK(has(run, "No such file"));
  run = make_pums("--rows 5 --output " + here.path.string());
  CHECK(run.status == 1);
  for (const char* arguments : {"--rows 5 --output /dev/full", "--rows 5 > /dev/full"}) {
    run = make_pums(arguments);
    CHECK(run.status == 1);
    CHECK(has(run, "No space left on device"));
  }

  CHECK(make_pums("--rows 5 --output " + path.string()).status == 0);
  const auto old = content(path);
  run = make_pums("--rows 200000 --output " + path.string(), "ulimit -f 1000;");  // a limit of 0.5 or 1 MB
  CHECK(run.status == 1);
  CHECK(has(run, "File too large"));
  run = make_pums("--rows 9000000000 --output " + path.string(), "timeout -s TERM 0.5");
  CHECK(has(run, "interrupted"));
  CHECK(content(path) == old);
  CHECK(here.files() == 1);
}
