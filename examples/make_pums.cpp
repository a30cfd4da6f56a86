/// make_pums: writes any number of synthetic census records (examples/pums.hpp) as a CSV file.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>
#include <iostream>
#include <optional>

#include "dpsgd/core/durable_file.hpp"
#include "dpsgd/version.hpp"
#include "pums.hpp"

namespace {

volatile std::sig_atomic_t interrupted = 0;

constexpr const char* about = R"(make_pums: synthetic census records as CSV, to try private training on.

No record is a person. The 18 columns are those of a prepared census (ACS PUMS) person file; their shares, and
the non-linear model that decides who is employed, stand in examples/pums.hpp. The file depends on --rows, --seed
and --dirty alone, and the first rows of a longer file are the shorter file.

  make_pums --output people.csv                          1.2 million records
  make_pums --rows 10 --seed 7                           ten, to the terminal
  make_pums --rows 100000 --dirty 0.01 --output d.csv    one record in a hundred has a bad or an odd field

Exit status: 0 done, 1 error (the file is not there, or is the old one), 2 usage.)";

}  // namespace

int main(int argc, char** argv) {
  std::uint64_t rows = 1200000, seed = 1;
  const auto natural = CLI::Validator(  // for unsigned options: CLI11 would take -1 for 2^64 - 1
      [](const std::string& s) { return s.starts_with('-') ? "must not be negative" : std::string(); }, "");
  std::string path = "-";
  double share = 0;
  CLI::App app{about};
  app.add_option("--rows", rows, "how many records")->check(natural)->capture_default_str();
  app.add_option("--seed", seed, "which records: another seed gives others")->check(natural)->capture_default_str();
  app.add_option("--output", path, "the file to write; - is standard output")->capture_default_str();
  app.add_option("--dirty", share,
                 "share of records with one field, anywhere, that is empty, NA, text or out of range,\n"
                 "or that is valid but odd (2e+05, or quoted): each as often as the others")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  app.set_version_flag("--version", std::string("make_pums (dpsgd) ") + dpsgd::version);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : 2;
  }
  try {
    const auto start = std::chrono::steady_clock::now();
    const auto key = dpsgd::random_key::from_seed(seed);
    const auto dirty = pums::dirty_words(share);
    std::optional<dpsgd::durable_file> file;  // unfinished, it is removed: also when interrupted
    if (path != "-") {
      file.emplace(path);
      for (const int s : {SIGINT, SIGTERM, SIGHUP}) std::signal(s, [](int) { interrupted = 1; });
    }
    const auto write = [&](const std::string& lines) {
      if (file) return file->write(lines);
      if (!dpsgd::detail::write_all(STDOUT_FILENO, lines.data(), lines.size()))
        dpsgd::fail("cannot write to standard output: ", std::strerror(errno));
    };
    pums::summary made;
    std::string text = pums::header();
    constexpr std::uint64_t chunk = 16384;  // rows, about 1 MB
    text.reserve(chunk * 80);
    while (made.records < rows) {
      pums::append_records(text, key, made.records, std::min(made.records + chunk, rows), dirty, made);
      write(text);
      text.clear();
      dpsgd::require(!interrupted, "interrupted: ", path, " is as it was before");
    }
    write(text);  // of no rows, the header
    if (file) file->commit();
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    std::cerr << "make_pums: " << made.records << " synthetic records (seed " << seed << ") in " << seconds.count()
              << " s";
    if (rows) {
      std::cerr << "; employed: " << 100.0 * static_cast<double>(made.employed) / static_cast<double>(rows)
                << " %; Bayes accuracy of the model: " << 100 * made.bayes_accuracy() << " %";
    }
    std::cerr << '\n';
    for (std::size_t k = 1; k < made.blemishes.size() && dirty; ++k)
      std::cerr << "make_pums: one field " << pums::dirt_names[k] << ": " << made.blemishes[k] << " records\n";
  } catch (const std::exception& e) {
    std::cerr << "make_pums: " << e.what() << '\n';
    return 1;
  }
}
