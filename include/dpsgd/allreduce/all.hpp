/// Every algorithm of the library, and all of them by name: what `--allreduce NAME` can be.
#pragma once

#include <array>
#include <stdexcept>
#include <string>
#include <string_view>

#include "dpsgd/allreduce/all_to_all.hpp"
#include "dpsgd/allreduce/any.hpp"
#include "dpsgd/allreduce/binomial_tree.hpp"
#include "dpsgd/allreduce/butterfly.hpp"
#include "dpsgd/allreduce/chain.hpp"
#include "dpsgd/allreduce/circulant.hpp"
#include "dpsgd/allreduce/double_tree.hpp"
#include "dpsgd/allreduce/halving_doubling.hpp"
#include "dpsgd/allreduce/hierarchical.hpp"
#include "dpsgd/allreduce/naive.hpp"
#include "dpsgd/allreduce/native.hpp"
#include "dpsgd/allreduce/recursive_doubling.hpp"
#include "dpsgd/allreduce/recursive_multiplying.hpp"
#include "dpsgd/allreduce/ring.hpp"
#include "dpsgd/allreduce/round_robin.hpp"
#include "dpsgd/allreduce/schedule.hpp"
#include "dpsgd/allreduce/swing.hpp"

namespace dpsgd::allreduce {

// The proof of hierarchical, which itself knows no other algorithm. More: tests/allreduce.
static_assert(scatter_algorithm<hierarchical<ring, circulant>> && whole_algorithm<hierarchical<ring, naive>>);
static_assert(prove(hierarchical{ring{}, circulant{}, 2}, 5) && prove(hierarchical{circulant{}, naive{}, 3}, 6));

/// All that have a name, in the order in which a person should read them. Parameters have sensible values: degree 4
/// where 2 has a name of its own, 8 chunks, nodes of 4 members.
inline constexpr std::array all_algorithms = {
    any("naive", [](int size) { return derive(naive{}, size); }),
    any("all_to_all", [](int size) { return derive(all_to_all{}, size); }),
    any("binomial_tree", [](int size) { return derive(binomial_tree{}, size); }),
    any("recursive_doubling", [](int size) { return derive(recursive_doubling{}, size); }),
    any("recursive_multiplying", [](int size) { return derive(recursive_multiplying{4}, size); }),
    any("round_robin", [](int size) { return derive(round_robin{}, size); }),
    any("ring", [](int size) { return derive(ring{}, size); }),
    any("halving_doubling", [](int size) { return derive(halving_doubling{}, size); }),
    any("butterfly", [](int size) { return derive(butterfly{4}, size); }),
    any("circulant", [](int size) { return derive(circulant{}, size); }),
    any("swing", [](int size) { return derive(swing{}, size); }),
    any("chain", [](int size) { return derive(chain{8}, size); }),
    any("double_tree", [](int size) { return derive(double_tree{8}, size); }),
    any("hierarchical",
        [](int size) {
          return derive(hierarchical{ring{}, circulant{}, 4}, size);
        }),
    any("native", nullptr),
};

/// Throws std::invalid_argument, which lists the names, when there is no such algorithm.
inline any from_name(std::string_view name) {
  std::string names;
  for (const any& a : all_algorithms) {
    if (a.name() == name) return a;
    names += (names.empty() ? "" : ", ") + std::string(a.name());
  }
  throw std::invalid_argument("no allreduce algorithm is called '" + std::string(name) + "'; there are: " + names);
}

}  // namespace dpsgd::allreduce
