/// Grades a student's allreduce algorithm: compiles the header and tries it on 1 to 64 members.
///
///   grade student.hpp
///   grade homework/li.hpp --algorithm my_ring --partial
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <bit>
#include <cctype>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <map>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "dpsgd/allreduce/cost.hpp"
#include "dpsgd/allreduce/schedule.hpp"
#include "dpsgd/version.hpp"
#include "grade_words.hpp"

namespace {

namespace fs = std::filesystem;

constexpr const char* description = R"(Grades an allreduce algorithm that a student wrote, as a header with one struct:

  struct student {
    constexpr void reduce_scatter(member me, auto&& send) const {
      for (int t = 0; t < me.size - 1; ++t) send(t, me.at(+1), me.at(-t - 1));   // round, to whom, which blocks
    }
  };

The header need not include anything; docs/allreduce.md explains the vocabulary. It is compiled, and the algorithm is
tried for every number of members P = 1 .. 64: is each member's contribution counted exactly once in every block, at
every member? The exit status is 0 if it is right for all of them, 1 if it is not, and 2 if the command is wrong.

The student's code runs on this machine with your rights: use it on code that you would run anyway.)";

/// A temporary directory, removed at the end.
class scratch {
 public:
  scratch() {
    std::string name = (fs::temp_directory_path() / "dpsgd-grade-XXXXXX").string();
    if (!::mkdtemp(name.data())) throw std::runtime_error("cannot make a temporary directory");
    path_ = name;
  }
  scratch(const scratch&) = delete;
  ~scratch() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  std::string operator/(const char* name) const { return (path_ / name).string(); }

 private:
  fs::path path_;
};

std::string contents(const std::string& file) {
  std::ifstream in(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

struct ending {
  bool in_time;
  int status;  // as waitpid gives it
};

/// Runs a command with its output in `output`; after `deadline` seconds it and its children are killed.
ending run(const std::vector<std::string>& command, const std::string& output, double deadline) {
  std::vector<char*> words;
  for (const auto& w : command) words.push_back(const_cast<char*>(w.c_str()));
  words.push_back(nullptr);
  const pid_t child = ::fork();
  if (child < 0) throw std::runtime_error("cannot start another process");
  if (child == 0) {
    ::setpgid(0, 0);
    ::setenv("LC_ALL", "C", 1);
    const rlimit memory{4ul << 30, 4ul << 30}, file{256ul << 20, 256ul << 20}, core{0, 0};
    ::setrlimit(RLIMIT_AS, &memory), ::setrlimit(RLIMIT_FSIZE, &file), ::setrlimit(RLIMIT_CORE, &core);
    const int out = ::open(output.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600), in = ::open("/dev/null", O_RDONLY);
    ::dup2(in, STDIN_FILENO), ::dup2(out, STDOUT_FILENO), ::dup2(out, STDERR_FILENO);
    ::execvp(words[0], words.data());
    ::_exit(127);
  }
  ::setpgid(child, child);  // whoever comes first
  const auto start = std::chrono::steady_clock::now();
  int status = 0;
  bool in_time = true;
  while (::waitpid(child, &status, WNOHANG) == 0) {
    if (std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() > deadline) {
      in_time = false;
      ::kill(-child, SIGKILL);
      ::waitpid(child, &status, 0);
      break;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  ::kill(-child, SIGKILL);  // what it left behind
  return {in_time, status};
}

/// The part of a compiler's output that helps a student: our own words if they are in it, else its first errors.
std::string compile_errors(const std::string& output, const std::string& name) {
  std::istringstream lines(output);
  std::string line, own, errors;
  int shown = 0;
  while (std::getline(lines, line)) {
    if (const auto at = line.find("grade: this is no"); at != line.npos && own.empty())
      own = line.substr(at + 7, line.find_last_not_of("\"'") + 1 - at - 7);
    if (line.find("the_schedule_is_wrong") != line.npos && own.empty())
      if (const auto at = line.rfind("flaw::"); at != line.npos) {
        const auto end = line.find_first_not_of("abcdefghijklmnopqrstuvwxyz_", at + 6);
        own = "its own static_assert(prove(...)) fails: " + line.substr(at + 6, end - at - 6);
      }
    if (line.find("error: ") != line.npos && shown < 5) errors += "  " + line + "\n", ++shown;
  }
  if (!own.empty()) return own;
  if (shown == 0) errors = "  " + output.substr(0, 1000) + "\n";
  for (const char* way : {"' was not declared", "' does not name", "'; did you mean"})
    if (errors.find("'" + name + way) != errors.npos || errors.find("undeclared identifier '" + name) != errors.npos)
      return "there is no struct " + name + " in it (--algorithm NAME says how it is called)\n" + errors;
  return errors;
}

/// What the student's program said, and what we found about it.
struct report {
  std::map<int, dpsgd::allreduce::costs> right;
  std::vector<int> unserved;
  int trying = 0;
  std::string wrong;  // why size `trying` is
  bool done = false;
};

constexpr std::uint64_t vector_bytes = 1 << 20;

/// Reads what grade_student.hpp wrote, up to the first size that is wrong.
report read_report(const std::string& file) {
  namespace ar = dpsgd::allreduce;
  report r;
  ar::schedule s;
  std::ifstream in(file);
  const auto judge = [&] {  // the size that has been read to its end
    if (r.trying == 0 || s.size != r.trying) return;
    sort(s.reduce);
    if (s.scattered) s.gather = backwards(s.reduce);
    if (const auto v = verify(s); !v) r.wrong = grade::explain(s, v);
    else r.right[s.size] = cost(s, vector_bytes);
  };
  for (std::string line; r.wrong.empty() && std::getline(in, line);) {
    std::istringstream words(line);
    int a = 0, b = 0, c = 0, d = 0, e = 0, f = 0;
    if (std::string word; !std::isdigit(static_cast<unsigned char>(line[0])) && line[0] != '-') {
      words >> word;
      if (word == "wrong") {
        words >> a >> std::ws;
        std::getline(words, r.wrong);
        break;
      }
      judge();
      if (!r.wrong.empty() || word != "size") {
        r.done = r.wrong.empty() && word == "done";
        break;
      }
      words >> r.trying;
      if (words >> b >> c) s = {r.trying, b, c == 1, {}, {}};
      else if (words.clear(), words >> word; word == "unserved") r.unserved.push_back(r.trying);
    } else if (std::sscanf(line.c_str(), "%d %d %d %d %d %d", &a, &b, &c, &d, &e, &f) == 6 && e != 0) {
      s.reduce.push_back({a, b, c, {d, e}, f == 1 ? ar::on_receive::replace : ar::on_receive::add});
    }
  }
  return r;
}

void print_table(const report& r) {
  std::printf("\nThe busiest member, for a vector of 1 MiB; in brackets the least that any algorithm needs:\n");
  std::printf("   P   rounds      messages    bytes sent\n");
  for (const auto& [size, found] : r.right) {
    if (size != 2 && size != 3 && size != 7 && size != 13 && !(size > 3 && std::has_single_bit(unsigned(size))))
      continue;
    const int best = std::bit_width(static_cast<unsigned>(size - 1));
    const double bytes = 2.0 * vector_bytes * (size - 1) / size;
    std::printf("  %2d   %-4d (%d)    %-4llu (%d)    %-9llu (%.0f)   %.2f times the optimum\n", size, found.rounds,
                best, static_cast<unsigned long long>(found.most_messages), best,
                static_cast<unsigned long long>(found.most_sent), bytes, static_cast<double>(found.most_sent) / bytes);
  }
}

std::string numbers(const std::vector<int>& all) {
  std::string words;
  for (const int n : all) words += (words.empty() ? "" : ", ") + std::to_string(n);
  return words;
}

}  // namespace

int main(int argc, char** argv) {
  std::string header, name = "student", compiler = DPSGD_CXX;
  bool partial = false;
  double deadline = 60;
  CLI::App app(description);
  app.set_version_flag("--version", std::string("grade (dpsgd) ") + dpsgd::version);
  app.add_option("header", header, "the student's header")->required()->check(CLI::ExistingFile);
  app.add_option("--algorithm", name, "the struct in it")->capture_default_str();
  app.add_flag("--partial", partial,
               "sizes that serves(int size) refuses are left out; 2, 4, 8, 16 and 32 must be among the others");
  app.add_option("--deadline", deadline, "seconds for compiling, and again for running")
      ->check(CLI::Range(0.1, 3600.0))
      ->capture_default_str();
  app.add_option("--compiler", compiler, "a C++20 compiler")->capture_default_str();
  try {
    app.parse(argc, argv);
    if (name.empty() ||
        name.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_:<>,") != name.npos)
      throw CLI::ValidationError("--algorithm", "must be the name of a struct; got '" + name + "'");
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : 2;
  }

  const auto fail = [&](const std::string& why) {
    std::cout << name << " in " << header << ": " << why << (why.ends_with('\n') ? "" : "\n");
    return 1;
  };
  try {
    const scratch place;
    std::ofstream(place / "main.cpp") << "#include \"grade_student.hpp\"\n"
                                      << "using namespace dpsgd;\nusing namespace dpsgd::allreduce;\n"
                                      << "int main(int, char** argv) { return grade::write_arrows(" << name
                                      << "{}, argv[1]); }\n";
    std::ofstream(place / "vocabulary.hpp") << "#include \"dpsgd/allreduce/schedule.hpp\"\n"
                                            << "using namespace dpsgd;\nusing namespace dpsgd::allreduce;\n";
    const std::string source = DPSGD_SOURCE_DIR;
    const auto compiled = run({compiler, "-std=c++20", "-O0", "-w", "-I", source + "/include", "-I",
                               source + "/examples", "-include", place / "vocabulary.hpp", "-include",
                               fs::absolute(header).string(), place / "main.cpp", "-o", place / "student"},
                              place / "compiler", deadline);
    if (!compiled.in_time) return fail("the compiler did not finish within " + std::to_string(deadline) + " s");
    if (WIFEXITED(compiled.status) && WEXITSTATUS(compiled.status) == 127) {
      std::cerr << "grade: cannot run the compiler " << compiler << " (--compiler names another)\n";
      return 2;
    }
    if (compiled.status != 0)
      return fail("it does not compile:\n" + compile_errors(contents(place / "compiler"), name));

    const auto judged = run({place / "student", place / "report"}, place / "output", deadline);
    const report r = read_report(place / "report");
    const std::string size = std::to_string(r.trying) + (r.trying == 1 ? " member" : " members");
    if (!judged.in_time)
      return fail("it did not end within " + std::to_string(deadline) + " s for " + size +
                  "; is there a loop without end?");
    if (!r.wrong.empty()) return fail("wrong for " + size + ": " + r.wrong);
    if (judged.status != 0 || !r.done)
      return fail("it ended in the middle, for " + size +
                  (WIFSIGNALED(judged.status) ? ", by signal " + std::to_string(WTERMSIG(judged.status)) +
                                                    " (a place outside an array, or an endless recursion?)"
                                              : std::string()));
    if (!partial && !r.unserved.empty())
      return fail("serves() refuses " + numbers(r.unserved) + " members (with --partial that is allowed)");
    for (const int power : {2, 4, 8, 16, 32})
      if (!r.right.contains(power))
        return fail("serves() refuses " + std::to_string(power) + " members, even for --partial");
    std::cout << name << " in " << header << ": right for "
              << (r.unserved.empty() ? "all P = 1 .. 64"
                                     : "the " + std::to_string(r.right.size()) + " sizes that it serves")
              << std::endl;
    print_table(r);
    if (std::fflush(stdout) == 0 && std::cout) return 0;
    std::cerr << "grade: cannot write to standard output\n";
    return 2;
  } catch (const std::exception& e) {
    std::cerr << "grade: " << e.what() << '\n';
    return 2;
  }
}
