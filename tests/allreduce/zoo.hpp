/// All algorithms for the tests: those that have names, and the same with other parameters.
#pragma once

#include <string_view>
#include <vector>

#include "dpsgd/allreduce/all.hpp"

namespace zoo {

namespace ar = dpsgd::allreduce;

struct entry {
  ar::any algorithm;
  std::string_view kind;  // which formula says what it costs, with `parameter`; "": none does
  int parameter;
  bool listed;  // in all_algorithms
  std::string_view name() const { return algorithm.name(); }
  ar::schedule derive(int size) const { return algorithm.derive(size); }
};

template <auto Make>
entry with(std::string_view name, std::string_view kind, int parameter) {
  return {ar::any(name, [](int size) { return ar::derive(Make(), size); }), kind, parameter, false};
}

inline std::vector<entry> all() {
  using namespace ar;
  std::vector<entry> entries;
  for (const any& a : all_algorithms) {
    const auto name = a.name();
    const bool by_four = name == "recursive_multiplying" || name == "butterfly" || name == "hierarchical";
    if (!a.is_native())
      entries.push_back({a, name, by_four ? 4 : name == "chain" || name == "double_tree" ? 8 : 2, true});
  }
  entries.push_back(
      with<[] { return recursive_multiplying{2}; }>("recursive_multiplying{2}", "recursive_multiplying", 2));
  entries.push_back(
      with<[] { return recursive_multiplying{3}; }>("recursive_multiplying{3}", "recursive_multiplying", 3));
  entries.push_back(with<[] { return butterfly{2}; }>("butterfly{2}", "butterfly", 2));
  entries.push_back(with<[] { return butterfly{3}; }>("butterfly{3}", "butterfly", 3));
  entries.push_back(with<[] { return circulant{3}; }>("circulant{3}", "circulant", 3));
  entries.push_back(with<[] { return circulant{5}; }>("circulant{5}", "circulant", 5));
  entries.push_back(with<[] { return chain{1}; }>("chain{1}", "chain", 1));
  entries.push_back(with<[] { return chain{3}; }>("chain{3}", "chain", 3));
  entries.push_back(with<[] { return double_tree{1}; }>("double_tree{1}", "double_tree", 1));
  entries.push_back(with<[] { return double_tree{3}; }>("double_tree{3}", "double_tree", 3));
  entries.push_back(with<[] { return hierarchical{ring{}, circulant{}, 2}; }>("hierarchical in 2", "hierarchical", 2));
  // Every pair of forms, and parts whose owners have no block, or many.
  entries.push_back(with<[] { return hierarchical{circulant{}, naive{}, 3}; }>("circulant, naive", "", 3));
  entries.push_back(with<[] { return hierarchical{naive{}, ring{}, 3}; }>("naive, ring", "", 3));
  entries.push_back(with<[] {
    return hierarchical{recursive_doubling{}, all_to_all{}, 4};
  }>("doubling, all_to_all", "", 4));
  entries.push_back(with<[] { return hierarchical{double_tree{2}, swing{}, 5}; }>("double_tree, swing", "", 5));
  entries.push_back(with<[] { return hierarchical{halving_doubling{}, chain{3}, 3}; }>("halving, chain", "", 3));
  entries.push_back(with<[] {
    return hierarchical{hierarchical{ring{}, butterfly{}, 2}, circulant{}, 4};
  }>("three levels", "", 4));
  return entries;
}

}  // namespace zoo
