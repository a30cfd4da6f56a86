/// Any algorithm by its name, chosen when the program runs: one type, so that `--allreduce NAME` needs one trainer
/// type.
#pragma once

#include <array>
#include <stdexcept>
#include <string>
#include <string_view>

#include "dpsgd/allreduce/circulant.hpp"
#include "dpsgd/allreduce/naive.hpp"
#include "dpsgd/allreduce/native.hpp"
#include "dpsgd/allreduce/recursive_doubling.hpp"
#include "dpsgd/allreduce/ring.hpp"
#include "dpsgd/allreduce/schedule.hpp"

namespace dpsgd::allreduce {

/// One of the library's algorithms. any::from_name("ring"); the default is circulant.
class any {
 public:
  /// A name and how its schedule is derived; null for native, which has none.
  struct entry {
    std::string_view name;
    schedule (*derive)(int size);
  };

  /// All names, in the order in which a person should read them.
  static constexpr std::array<entry, 5> all() {
    return {{{"naive", &of<naive>},
             {"recursive_doubling", &of<recursive_doubling>},
             {"ring", &of<ring>},
             {"circulant", &of<circulant>},
             {"native", nullptr}}};
  }

  constexpr any() : entry_(all()[3]) {}

  /// Throws std::invalid_argument, which lists the names, when there is no such algorithm.
  static any from_name(std::string_view name) {
    std::string names;
    for (const entry& e : all()) {
      if (e.name == name) return any(e);
      names += (names.empty() ? "" : ", ") + std::string(e.name);
    }
    throw std::invalid_argument("no allreduce algorithm is called '" + std::string(name) + "'; there are: " + names);
  }

  constexpr std::string_view name() const { return entry_.name; }
  constexpr bool is_native() const { return entry_.derive == nullptr; }
  /// Its arrows among `size` members. Not for native.
  schedule derive(int size) const { return entry_.derive(size); }

 private:
  constexpr explicit any(const entry& e) : entry_(e) {}
  template <algorithm Algorithm>
  static schedule of(int size) {
    return allreduce::derive(Algorithm{}, size);
  }
  entry entry_;
};

}  // namespace dpsgd::allreduce
