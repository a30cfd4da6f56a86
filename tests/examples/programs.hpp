/// Runs the built example programs as a user would, and looks at what they leave behind.
#pragma once

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "dpsgd/core/random.hpp"

namespace test {

namespace fs = std::filesystem;
using words = std::vector<std::string>;

inline std::string contents(const fs::path& file) {
  std::ifstream in(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}
inline void write(const fs::path& file, const std::string& bytes) { std::ofstream(file, std::ios::binary) << bytes; }

/// A directory of its own for a test, removed at its end.
class workplace {
 public:
  workplace() {
    std::string name = (fs::temp_directory_path() / "dpsgd-test-XXXXXX").string();
    if (!::mkdtemp(name.data())) throw std::runtime_error("no temporary directory");
    path_ = name;
  }
  workplace(const workplace&) = delete;
  ~workplace() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  std::string operator/(const std::string& name) const { return (path_ / name).string(); }
  const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

/// The path of an example program.
inline std::string program(const std::string& name) { return std::string(DPSGD_EXAMPLES_DIR) + "/" + name; }

/// The words that start `ranks` ranks of what follows.
inline words mpirun(int ranks, const words& command) {
  words all{DPSGD_MPIEXEC, "-n", std::to_string(ranks)};
  all.insert(all.end(), command.begin(), command.end());
  return all;
}

struct outcome {
  int status;  // of the exit, or 128 + the signal that ended it
  std::string out, err;
};

/// A program that is running. `file_limit`: bytes that any file it writes may have (RLIMIT_FSIZE); 0: no limit.
class process {
 public:
  process(const workplace& place, const words& command, std::size_t file_limit = 0)
      : out_(place / "stdout"), err_(place / "stderr") {
    write(out_, ""), write(err_, "");  // what an earlier program said must not be taken for this one's
    pid_ = ::fork();
    if (pid_ < 0) throw std::runtime_error("cannot fork");
    if (pid_ > 0) return;
    // The child. mpirun must not see that the test itself may run under CTest with other settings: a session of its
    // own.
    ::setsid();
    if (command.front() == DPSGD_MPIEXEC)
      ::setenv("ASAN_OPTIONS", "detect_leaks=0", 1);  // Open MPI's own: see mpi_leaks
    const auto redirect = [](const std::string& file, int to) {
      const int fd = ::open(file.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0666);
      ::dup2(fd, to);
      ::close(fd);
    };
    redirect(out_, STDOUT_FILENO), redirect(err_, STDERR_FILENO);
    if (file_limit) {
      const rlimit limit{file_limit, file_limit};
      ::setrlimit(RLIMIT_FSIZE, &limit);
    }
    std::vector<char*> argv;
    for (const auto& w : command) argv.push_back(const_cast<char*>(w.c_str()));
    argv.push_back(nullptr);
    ::execvp(argv[0], argv.data());
    ::_exit(127);
  }
  process(const process&) = delete;
  ~process() {
    if (pid_ > 0) {
      ::kill(-pid_, SIGKILL);  // whatever is left of it
      ::waitpid(pid_, nullptr, 0);
    }
  }

  pid_t pid() const { return pid_; }
  std::string err() const { return contents(err_); }

  /// Waits until `holds()`; throws with what the program said when it ends before, or after 30 s.
  template <class Condition>
  void until(Condition holds) {
    for (int i = 0; i < 3000; ++i) {
      if (holds()) return;
      int status = 0;
      if (::waitpid(pid_, &status, WNOHANG) == pid_) {
        pid_ = -1;
        if (holds()) return;
        throw std::runtime_error("the program ended too early: " + contents(out_) + err());
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    throw std::runtime_error("the program did not come so far: " + contents(out_) + err());
  }

  /// Waits for its end, for at most `seconds`.
  outcome wait(double seconds = 60) {
    int status = 0;
    const auto start = std::chrono::steady_clock::now();
    while (::waitpid(pid_, &status, WNOHANG) != pid_) {
      if (std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() > seconds)
        throw std::runtime_error("the program did not end: " + contents(out_) + err());
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    pid_ = -1;
    return {WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status), contents(out_), err()};
  }

  /// The process that is rank `rank` of this mpirun; -1 when there is none (yet).
  pid_t rank(int rank) const {
    const std::string mark = std::string("OMPI_COMM_WORLD_RANK=") + std::to_string(rank) + '\0';
    for (const auto& entry : fs::directory_iterator("/proc")) {
      const auto name = entry.path().filename().string();
      if (name.find_first_not_of("0123456789") != name.npos) continue;
      const auto stat = contents(entry.path() / "stat");  // pid (name) state ppid ...
      const auto after = stat.rfind(") ");
      if (after == stat.npos || std::atoi(stat.c_str() + after + 4) != pid_) continue;
      if (contents(entry.path() / "environ").find(mark) != std::string::npos) return std::atoi(name.c_str());
    }
    return -1;
  }

 private:
  pid_t pid_ = -1;
  std::string out_, err_;
};

inline outcome run(const workplace& place, const words& command, std::size_t file_limit = 0) {
  return process(place, command, file_limit).wait();
}

/// What a headless Chromium shows of a page. "" where there is none.
inline std::string in_browser(const workplace& place, const std::string& page) {
  for (const char* name : {"chromium", "chromium-browser", "google-chrome"}) {
    const auto result = run(place, {"sh", "-c", std::string("command -v ") + name});
    if (result.status != 0) continue;
    return process(place, {name, "--headless", "--no-sandbox", "--disable-gpu", "--user-data-dir=" + place / "profile",
                           "--virtual-time-budget=2000", "--dump-dom", "file://" + page})
        .wait(50)
        .out;
  }
  return "";
}

inline words operator+(words left, const words& right) {
  left.insert(left.end(), right.begin(), right.end());
  return left;
}

/// `rows` records that a small network learns easily: y = 1 when a + b > 0, with every tenth label turned.
inline std::string small_csv(int rows) {
  std::string csv = "a,b,kind,unused,y\n";
  dpsgd::random_words draw({dpsgd::random_key::from_seed(7), dpsgd::domain::user, 0, 0});
  for (int i = 0; i < rows; ++i) {
    const int a = static_cast<int>(draw.below(201)) - 100, b = static_cast<int>(draw.below(201)) - 100;
    const bool turned = draw.below(10) == 0;
    csv += std::to_string(a) + "," + std::to_string(b) + "," + std::to_string(draw.below(3)) + ",x," +
           ((a + b > 0) != turned ? "1" : "0") + "\n";
  }
  return csv;
}
inline const char* small_schema = R"({"columns": [
  {"name": "y", "kind": "label"},
  {"name": "a", "kind": "numeric", "min": -100, "max": 100},
  {"name": "b", "kind": "numeric", "min": -100, "max": 100},
  {"name": "kind", "kind": "categorical", "min": 0, "max": 2}
]})";

/// A workplace with data.csv and schema.json in it, and the words that train on them.
struct small_task : workplace {
  explicit small_task(int rows = 800) {
    write(*this / "data.csv", small_csv(rows));
    write(*this / "schema.json", small_schema);
  }
  words train(const words& more = {}) const {
    return words{program("train_mlp"), "--csv", *this / "data.csv", "--schema", *this / "schema.json",
                 "--hidden",           "16"} +
           more;
  }
};

}  // namespace test
