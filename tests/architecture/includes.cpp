/// Who may include whom: the #include lines of include/dpsgd/ against the table below.
#include <doctest/doctest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

namespace {

struct rule {
  std::string_view who;               // a folder of include/dpsgd/, or one header at its top
  std::vector<std::string_view> may;  // folders and headers of dpsgd that it may include; "*" is all
};

// The whole architecture. A folder may also include its own headers, save allreduce, whose algorithms know nothing but
// the vocabulary. Nobody but the umbrella includes a backend, so nobody but the umbrella can name the default one.
const std::vector<rule> table = {
    {"version.hpp", {}},
    {"core", {}},
    {"data", {"core"}},
    {"cpu", {"core"}},
    {"cuda", {"core"}},
    {"accounting", {"core"}},
    {"privacy", {"core", "accounting/events.hpp", "accounting/participation.hpp"}},
    {"allreduce/all.hpp", {"allreduce"}},
    {"allreduce/any.hpp", {"allreduce/schedule.hpp", "allreduce/circulant.hpp"}},
    {"allreduce", {"allreduce/schedule.hpp"}},
    {"comm", {"core", "allreduce"}},
    {"mpi", {"comm", "core", "allreduce/schedule.hpp"}},
    {"nn", {"core"}},
    {"optim", {"core"}},
    // Every extension point on one page.
    {"concepts.hpp",
     {"accounting/events.hpp", "allreduce/schedule.hpp", "comm/communicator.hpp", "nn/layer.hpp", "optim/optimizer.hpp",
      "privacy"}},
    // The trainer knows policies, and neither a backend nor where data and ranks come from.
    {"train", {"concepts.hpp", "core", "accounting", "privacy", "nn", "optim", "comm", "allreduce"}},
    // The adversary is a user of the library.
    {"audit", {"core", "data", "nn", "optim", "privacy", "train", "accounting"}},
    {"testing", {"*"}},
    // The umbrellas, each over what is its own.
    {"dpsgd.hpp",
     {"version.hpp", "concepts.hpp", "core", "data", "cpu", "accounting", "privacy", "allreduce", "comm", "nn", "optim",
      "train"}},
    {"mpi.hpp", {"mpi"}},
    {"cuda.hpp",
     {"version.hpp", "concepts.hpp", "core", "data", "cuda", "accounting", "privacy", "allreduce", "comm", "nn",
      "optim", "train"}},
    {"json.hpp", {"core", "data"}},
};

// Where the headers of others may appear. What is not listed (the standard library, Linux) may appear anywhere.
const std::vector<rule> others = {
    {"Eigen/", {}},     {"mpi.h", {"mpi"}},   {"nlohmann/", {"json.hpp", "data/schema_json.hpp"}},
    {"cuda", {"cuda"}}, {"cublas", {"cuda"}},
};

// "data/csv.hpp" lies in "data", and is "data/csv.hpp"; "mpi.hpp" is itself.
bool lies_in(std::string_view header, std::string_view place) {
  return place == "*" || header == place ||
         (header.starts_with(place) && header.size() > place.size() && header[place.size()] == '/');
}

bool any(const std::vector<std::string_view>& places, std::string_view header) {
  return std::any_of(places.begin(), places.end(), [&](auto place) { return lies_in(header, place); });
}

// What is wrong with `header` (its path under include/dpsgd/) having the line #include "name" or <name>; "" if nothing.
std::string flaw(std::string_view header, std::string_view name, bool quoted) {
  const std::string line = std::string(header) + " includes " + std::string(name) + ": ";
  if (!quoted) {
    for (const auto& [prefix, may] : others)
      if (name.starts_with(prefix) && !any(may, header)) return line + "not its business";
    return name.starts_with("dpsgd/") ? line + "write it in quotes" : "";
  }
  if (!name.starts_with("dpsgd/")) return line + "write the whole path, dpsgd/...";
  const auto target = name.substr(6);
  const auto who = std::find_if(table.begin(), table.end(), [&](const rule& r) { return lies_in(header, r.who); });
  if (who == table.end()) return line + "its place has no row in the table";
  const bool own = lies_in(target, who->who) && who->who != "allreduce";
  return own || any(who->may, target) ? "" : line + "not in its row of the table";
}

// All flaws of the header `header` with the text `text`.
std::vector<std::string> flaws(std::string_view header, const std::string& text) {
  std::vector<std::string> found;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    const auto hash = line.find_first_not_of(" \t");
    if (hash == line.npos || line[hash] != '#') continue;
    const auto word = line.find_first_not_of(" \t", hash + 1);
    if (word == line.npos || line.compare(word, 7, "include") != 0) continue;
    const auto open = line.find_first_of("<\"", word), close = line.find_first_of(">\"", open + 1);
    if (open == line.npos || close == line.npos) continue;
    const auto what = flaw(header, std::string_view(line).substr(open + 1, close - open - 1), line[open] == '"');
    if (!what.empty()) found.push_back(what);
  }
  return found;
}

}  // namespace

TEST_CASE("every header includes only what its row of the table allows") {
  namespace fs = std::filesystem;
  const fs::path root = fs::path(DPSGD_SOURCE_DIR) / "include/dpsgd";
  int headers = 0;
  for (const auto& entry : fs::recursive_directory_iterator(root)) {
    if (entry.path().extension() != ".hpp") continue;
    ++headers;
    std::ostringstream text;
    text << std::ifstream(entry.path()).rdbuf();
    for (const auto& what : flaws(fs::relative(entry.path(), root).generic_string(), text.str())) FAIL_CHECK(what);
  }
  CHECK(headers > 3);
}

TEST_CASE("a planted violation is found") {
  const auto count = [](std::string_view header, const std::string& text) { return flaws(header, text).size(); };
  CHECK(count("nn/linear.hpp", "#include \"dpsgd/core/view.hpp\"\n#include \"dpsgd/nn/layer.hpp\"\n") == 0);
  CHECK(count("nn/linear.hpp", "#include \"dpsgd/cpu/backend.hpp\"\n") == 1);
  CHECK(count("nn/linear.hpp", "  #  include  \"dpsgd/cpu/backend.hpp\"  // why\n") == 1);
  CHECK(count("nn/linear.hpp", "#include \"layer.hpp\"\n") == 1);
  CHECK(count("nn/linear.hpp", "#include <dpsgd/core/view.hpp>\n") == 1);
  CHECK(count("nn/linear.hpp", "// #include \"dpsgd/cpu/backend.hpp\"\n") == 0);
  CHECK(count("privacy/clip.hpp", "#include \"dpsgd/comm/execute.hpp\"\n") == 1);
  CHECK(count("privacy/clip.hpp", "#include \"dpsgd/accounting/events.hpp\"\n") == 0);
  CHECK(count("privacy/clip.hpp", "#include \"dpsgd/accounting/ledger.hpp\"\n") == 1);
  CHECK(count("comm/execute.hpp", "#include \"dpsgd/privacy/clip.hpp\"\n") == 1);
  CHECK(count("allreduce/ring.hpp", "#include \"dpsgd/allreduce/schedule.hpp\"\n#include <vector>\n") == 0);
  CHECK(count("allreduce/ring.hpp", "#include \"dpsgd/allreduce/naive.hpp\"\n") == 1);
  CHECK(count("allreduce/ring.hpp", "#include \"dpsgd/core/error.hpp\"\n") == 1);
  CHECK(count("train/trainer.hpp", "#include \"dpsgd/cpu/backend.hpp\"\n") == 1);
  CHECK(count("train/trainer.hpp", "#include <mpi.h>\n") == 1);
  CHECK(count("core/view.hpp", "#include <Eigen/Core>\n") == 1);
  CHECK(count("cuda.hpp", "#include \"dpsgd/dpsgd.hpp\"\n") == 1);
  CHECK(count("mpi.hpp", "#include \"dpsgd/mpi/world.hpp\"\n") == 0);
  CHECK(count("novelty/thing.hpp", "#include \"dpsgd/core/view.hpp\"\n") == 1);
  CHECK(count("data/schema_json.hpp", "#include <nlohmann/json.hpp>\n") == 0);
  CHECK(count("data/schema.hpp", "#include <nlohmann/json.hpp>\n") == 1);
}
