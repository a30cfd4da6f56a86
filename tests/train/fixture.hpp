/// What the tests of the trainer share: a small problem, the algorithms to try, a directory that goes away.
#pragma once

#include <cmath>
#include <cstddef>
#include <filesystem>
#include <string>
#include <vector>

#include "dpsgd/core/random.hpp"
#include "dpsgd/data/dataset.hpp"

namespace test {

inline constexpr std::size_t width = 6;

/// Records of two classes that a line divides.
inline dpsgd::dataset two_classes(std::size_t n) {
  dpsgd::random_words words({dpsgd::random_key::from_seed(3), dpsgd::domain::user, 0, 0});
  std::vector<float> features(n * width), labels(n);
  for (std::size_t i = 0; i < n; ++i) {
    float side = 0;
    for (std::size_t j = 0; j < width; ++j) {
      features[i * width + j] = static_cast<float>(2 * words.uniform() - 1);
      side += features[i * width + j] * (j % 2 ? 1.0f : -1.0f);
    }
    labels[i] = side > 0 ? 1.0f : 0.0f;
  }
  return dpsgd::dataset::from(features, width, labels);
}

/// |a - b| / |b|.
inline double distance(const std::vector<float>& a, const std::vector<float>& b) {
  double difference = 0, size = 0;
  for (std::size_t i = 0; i < a.size(); ++i)
    difference += std::pow(double{a[i]} - b[i], 2), size += double{b[i]} * b[i];
  return std::sqrt(difference / size);
}

/// Of each kind one: whole, scattered, everything owned by one rank or two, two levels, the ranks' own.
inline constexpr const char* algorithms[] = {"naive",       "ring",         "circulant", "chain",
                                             "double_tree", "hierarchical", "native"};

/// A directory that goes away with the test.
struct scratch {
  std::filesystem::path path =
      std::filesystem::temp_directory_path() / ("dpsgd-test-" + std::to_string(dpsgd::random_key::fresh().words[0]));
  scratch() { std::filesystem::create_directories(path); }
  ~scratch() { std::filesystem::remove_all(path); }
};

}  // namespace test
