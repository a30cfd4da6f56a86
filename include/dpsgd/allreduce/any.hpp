/// Any algorithm, chosen when the program runs: one type, so that `--allreduce NAME` needs one trainer type. The names
/// are in allreduce/all.hpp, which a program that chooses none need not include.
#pragma once

#include <string_view>

#include "dpsgd/allreduce/circulant.hpp"
#include "dpsgd/allreduce/schedule.hpp"

namespace dpsgd::allreduce {

/// A name and how its schedule is derived. allreduce::from_name("ring"), or one of your own:
/// any("left_ring", [](int size) { return derive(left_ring{}, size); }). The default is circulant.
class any {
 public:
  constexpr any() : any("circulant", [](int size) { return allreduce::derive(circulant{}, size); }) {}
  /// `how` derives the schedule; null for native, which has none. The name's characters must outlive this.
  constexpr any(std::string_view name, schedule (*how)(int size)) : name_(name), derive_(how) {}

  constexpr std::string_view name() const { return name_; }
  constexpr bool is_native() const { return derive_ == nullptr; }
  /// Its arrows among `size` members. Not for native.
  schedule derive(int size) const { return derive_(size); }

 private:
  std::string_view name_;
  schedule (*derive_)(int size);
};

}  // namespace dpsgd::allreduce
