/// Do all ranks mean the same allreduce? bind asks before the first message: ranks that differ in count, type or
/// algorithm would wait for messages that nobody sends, or, worse, add up what does not belong together.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "dpsgd/allreduce/schedule.hpp"
#include "dpsgd/comm/communicator.hpp"
#include "dpsgd/core/digest.hpp"
#include "dpsgd/core/error.hpp"

namespace dpsgd::detail {

/// What an allreduce is, to the other ranks.
struct reduction {
  std::uint64_t count;    // elements of the vector
  std::uint64_t type;     // of an element: type_code
  data_digest algorithm;  // of its arrows: algorithms that come to the same arrows are the same
  friend bool operator==(const reduction&, const reduction&) = default;
};

template <class T>
constexpr std::uint64_t type_code() {
  return sizeof(T) | (std::is_floating_point_v<T> ? 1u << 16 : 0u) | (std::is_signed_v<T> ? 1u << 17 : 0u);
}

/// "float", "double", "int64", "uint8", ...
[[gnu::cold]] inline std::string type_name(std::uint64_t code) {
  const auto bytes = code & 0xffff;
  if (code >> 16 & 1) return bytes == 4 ? "float" : bytes == 8 ? "double" : "long double";
  return text(code >> 17 & 1 ? "int" : "uint", 8 * bytes);
}

/// A fingerprint of all arrows.
[[gnu::cold]] inline data_digest digest_of_schedule(const allreduce::schedule& s) {
  static_assert(std::has_unique_object_representations_v<allreduce::arrow>);
  const std::array shape{s.size, s.blocks, s.scattered ? 1 : 0};
  const std::array parts{digest_of(shape.data(), sizeof shape),
                         digest_of(s.reduce.data(), s.reduce.size() * sizeof(allreduce::arrow)),
                         digest_of(s.gather.data(), s.gather.size() * sizeof(allreduce::arrow))};
  return digest_of(parts.data(), sizeof parts);
}

/// Who differs from rank 0, and in what.
[[gnu::cold]] inline std::string differences(const std::vector<reduction>& of) {
  constexpr int most = 8;  // ranks that are named
  std::string who;
  int named = 0, left = 0;
  for (std::size_t r = 1; r < of.size(); ++r) {
    if (of[r] == of[0]) continue;
    if (named == most) {
      ++left;
      continue;
    }
    std::string what;
    const auto also = [&](const std::string& part) { what += (what.empty() ? "" : ", ") + part; };
    if (of[r].count != of[0].count) also(text("count ", of[r].count));
    if (of[r].type != of[0].type) also("type " + type_name(of[r].type));
    if (of[r].algorithm != of[0].algorithm) also("another algorithm");
    who += text(named++ ? "; rank " : "rank ", r, ": ", what);
  }
  if (left > 0) who += text("; and ", left, " more");
  return who;
}

/// Throws dpsgd::error on every rank, with who differs in what, unless all ranks call it with the same. Cost:
/// ceil(log2 P) rounds of one message of 40 bytes; when they differ one more, of everybody to everybody.
template <communicator World>
[[gnu::cold]] void require_agreement(World& world, const reduction& mine) {
  if (all_equal(world, mine)) return;
  const auto of = gather_all(world, mine);
  fail("the ranks were given different allreduces. Rank 0 has count ", of[0].count, ", type ", type_name(of[0].type),
       "; ", differences(of), ". Give all ranks the same");
}

/// The same of a schedule for `count` elements of T, all of whose arrows count.
template <class T, communicator World>
[[gnu::cold]] void require_agreement(World& world, std::size_t count, const allreduce::schedule& s) {
  require_agreement(world, {count, type_code<T>(), digest_of_schedule(s)});
}

/// The same of what has no arrows, and is told by its name.
template <class T, communicator World>
[[gnu::cold]] void require_agreement(World& world, std::size_t count, std::string_view name) {
  require_agreement(world, {count, type_code<T>(), digest_of(name.data(), name.size())});
}

/// The algorithm's schedule for this many ranks. Throws when it does not serve them, on every rank, whatever the
/// others were given.
template <class T, communicator World, allreduce::algorithm Algorithm>
allreduce::schedule schedule_of(const Algorithm& a, World& world, std::size_t count) {
  if (allreduce::serves(a, world.size())) return allreduce::derive(a, world.size());
  require_agreement<T>(world, count, "does not serve");
  fail("this allreduce algorithm does not serve ", world.size(), " ranks");
}

}  // namespace dpsgd::detail
