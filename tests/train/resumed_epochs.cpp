#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "dpsgd/dpsgd.hpp"
#include "dpsgd/train/journal.hpp"

using namespace dpsgd;

namespace {
constexpr std::size_t records = 200, width = 3;

/// Shuffling that writes down who was drawn in each step.
struct watched_shuffling : shuffling {
  std::vector<std::vector<std::uint32_t>>* seen;
  template <class Records>
  void draw(const random_stream& stream, const Records& data, std::vector<std::uint32_t>& rows, memory& plan) const {
    shuffling::draw(stream, data, rows, plan);
    seen->push_back(rows);
  }
};
}  // namespace

// What the claim of a resumed run counts on: its epochs begin where it begins, and in each of them a row joins once. Had
// they gone on where the first run was cut (in the middle of an epoch), two of them would meet the ten steps that are
// claimed as one.
TEST_CASE("a resumed run begins an epoch: each row joins once in every ten of its steps, not of all steps") {
  const auto path =
      std::filesystem::temp_directory_path() / ("dpsgd-test-" + std::to_string(random_key::fresh().words[0]));
  std::vector<float> features(records * width, 0.5f), labels(records, 1.0f);
  const auto data = dataset::from(features, width, labels);
  std::vector<std::vector<std::uint32_t>> seen;
  const auto fit = [&](std::uint64_t steps, bool resume) {
    journal keep;
    keep.keep_checkpoints(path, "toy", resume);
    seen.clear();
    mlp model({width, 1});
    trainer t{flat_clip{}, gaussian_noise{2.0}, watched_shuffling{{10}, &seen}};
    t.fit(model, data, {.steps = steps, .delta = 1e-5, .journal = &keep});
  };
  const auto check = [&](std::size_t steps) {
    REQUIRE(seen.size() == steps);
    for (std::size_t first = 0; first < steps; first += 10) {
      std::vector<int> joined(records);
      for (std::size_t s = first; s < std::min(first + 10, steps); ++s)
        for (const auto row : seen[s]) ++joined[row];
      CHECK(*std::max_element(joined.begin(), joined.end()) == 1);
    }
  };
  fit(25, false);
  check(25);
  fit(58, true);
  check(33);
  std::filesystem::remove_all(path);
}
