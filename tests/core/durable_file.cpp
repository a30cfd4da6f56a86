#include "dpsgd/core/durable_file.hpp"

#include <doctest/doctest.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include <fstream>
#include <iterator>

using namespace dpsgd;
namespace fs = std::filesystem;

namespace {

struct scratch {  // a directory of our own
  fs::path path;
  scratch() {
    std::string name = (fs::temp_directory_path() / "dpsgd-durable-XXXXXX").string();
    REQUIRE(::mkdtemp(name.data()));
    path = name;
  }
  ~scratch() { fs::remove_all(path); }
  std::size_t files() const {
    return static_cast<std::size_t>(std::distance(fs::directory_iterator(path), fs::directory_iterator()));
  }
};

std::string content(const fs::path& file) {
  std::ifstream in(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

/// Files cannot grow past `bytes` while it lives: what a full disk looks like to a writer.
struct small_disk {
  rlimit before{};
  explicit small_disk(rlim_t bytes) {
    REQUIRE(::getrlimit(RLIMIT_FSIZE, &before) == 0);
    const rlimit now{bytes, before.rlim_max};
    REQUIRE(::setrlimit(RLIMIT_FSIZE, &now) == 0);
  }
  ~small_disk() { ::setrlimit(RLIMIT_FSIZE, &before); }
};

}  // namespace

TEST_CASE("a durable file replaces its target, and leaves nothing else") {
  const scratch dir;
  const auto file = dir.path / "model";
  write_durably(file, "one");
  CHECK(content(file) == "one");
  {
    durable_file next(file);
    next.write("tw"), next.write("o");
    CHECK(content(file) == "one");  // not before commit
    next.commit();
  }
  CHECK(content(file) == "two");
  CHECK(dir.files() == 1);
}

TEST_CASE("a durable file that is not committed changes nothing") {
  const scratch dir;
  const auto file = dir.path / "model";
  write_durably(file, "one");
  { durable_file(file).write("half"); }
  CHECK(content(file) == "one");
  CHECK(dir.files() == 1);
}

TEST_CASE("a full disk is an error, not the end of the process, and the previous file survives") {
  const scratch dir;
  const auto file = dir.path / "model";
  write_durably(file, "one");
  std::string message;
  {
    const small_disk full(1 << 16);  // the default action of the SIGXFSZ that follows would kill us
    try {
      write_durably(file, std::string(1 << 20, 'x'));
    } catch (const error& e) {
      message = e.what();
    }
    sigset_t pending;
    sigpending(&pending);
    CHECK(sigismember(&pending, SIGXFSZ) == 0);  // nothing is left to kill us later
  }
  CHECK(message.find(file.string()) != message.npos);
  CHECK(message.find("File too large") != message.npos);
  CHECK(message.find("untouched") != message.npos);
  CHECK(content(file) == "one");
  CHECK(dir.files() == 1);
}

TEST_CASE("a writer killed at any time leaves the old file or the new one") {
  const scratch dir;
  const auto file = dir.path / "model";
  const std::string old(5000, 'a'), fresh(300000, 'b');
  write_durably(file, old);
  for (int round = 0; round < 30; ++round) {
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      for (;;) {
        durable_file next(file);
        for (std::size_t at = 0; at < fresh.size(); at += 10000) next.write(fresh.substr(at, 10000));
        next.commit();
      }
    }
    ::usleep(static_cast<useconds_t>(round * 150));
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
    const auto now = content(file);
    REQUIRE((now == old || now == fresh));
  }
}

TEST_CASE("errors name the file; links and devices stay what they are") {
  const scratch dir;
  CHECK_THROWS_WITH_AS(write_durably(dir.path / "absent" / "model", "x"), doctest::Contains("absent/model"), error);
  CHECK_THROWS_WITH_AS(write_durably(dir.path, "x"), doctest::Contains("is a directory"), error);
  write_durably(dir.path / "target", "one");
  fs::create_symlink("target", dir.path / "link");
  write_durably(dir.path / "link", "two");
  CHECK(fs::is_symlink(dir.path / "link"));
  CHECK(content(dir.path / "target") == "two");
  write_durably("/dev/null", "gone");
  CHECK(fs::is_character_file("/dev/null"));
}
