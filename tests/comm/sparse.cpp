#include "dpsgd/comm/sparse.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <map>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "comm/oracle.hpp"
#include "dpsgd/allreduce/all.hpp"
#include "dpsgd/comm/threads.hpp"
#include "dpsgd/core/random.hpp"

using namespace dpsgd;

namespace {

bool contains(const std::string& text, const std::string& part) { return text.find(part) != text.npos; }

// Which elements a rank has: where(rank, ranks, element, a random number in [0, 1)).
using pattern = bool (*)(int, int, std::size_t, double);
struct named_pattern {
  const char* name;
  pattern where;
};
const named_pattern patterns[] = {
    {"nothing", [](int, int, std::size_t, double) { return false; }},
    {"everything", [](int, int, std::size_t, double) { return true; }},
    {"disjoint", [](int r, int p, std::size_t i, double) { return static_cast<int>(i) % p == r; }},
    {"the same few", [](int, int, std::size_t i, double) { return i % 7 == 3; }},
    {"a tenth by chance", [](int, int, std::size_t, double u) { return u < 0.1; }},
    {"half by chance", [](int, int, std::size_t, double u) { return u < 0.5; }},
    {"one rank's alone", [](int r, int p, std::size_t, double) { return r == p - 1; }},
    {"some have none", [](int r, int, std::size_t, double u) { return r % 2 == 0 && u < 0.3; }},
};

// Rank r's vector, dense; values of very different sizes, whose sums show the order of addition.
template <class T>
std::vector<T> vector_of(const named_pattern& which, int rank, int ranks, std::size_t n) {
  auto v = oracle::values<T>(rank, n, false);
  random_words words({random_key::from_seed(8), domain::user, static_cast<std::uint64_t>(rank), 0});
  for (std::size_t i = 0; i < n; ++i)
    if (!which.where(rank, ranks, i, words.uniform())) v[i] = T{};
  return v;
}

template <class T>
std::vector<sparse_entry<T>> entries_of(const std::vector<T>& v) {
  std::vector<sparse_entry<T>> entries;
  for (std::size_t i = 0; i < v.size(); ++i)
    if (v[i] != T{}) entries.push_back({static_cast<std::uint32_t>(i), v[i]});
  return entries;
}

// As one type: the tests compile several times as fast.
template <auto Make>
const allreduce::any any_of("", [](int size) { return allreduce::derive(Make(), size); });

// The sparse sum has the dense one's bits, at every owner; twice, for what one call leaves must not show in the next.
template <class T>
void compare_with_dense(const allreduce::any& a, int p, std::size_t n) {
  std::vector<std::string> wrong(static_cast<std::size_t>(p));
  threads::run(p, [&](auto& world) {
    auto dense = bind<T>(a, world, n);
    auto sparse = bind_sparse<T>(a, world, n);
    const auto mine = sparse.mine();
    require(mine == dense.mine(), "sparse has other owners than dense");
    for (const auto& which : patterns) {
      auto v = vector_of<T>(which, world.rank(), p, n);
      const auto entries = entries_of(v);
      dense.reduce(v.data());
      std::vector<T> expected(v.begin() + static_cast<std::ptrdiff_t>(mine.first),
                              v.begin() + static_cast<std::ptrdiff_t>(mine.first + mine.count));
      for (T& x : expected) x = static_cast<T>(x + T{});  // -0 becomes +0
      const auto shard = sparse.reduce(entries);
      if (shard.size() != mine.count ||
          (mine.count > 0 && std::memcmp(shard.data(), expected.data(), mine.count * sizeof(T)) != 0))
        wrong[static_cast<std::size_t>(world.rank())] += std::string(which.name) + "; ";
    }
  });
  for (const auto& w : wrong) CHECK(w == "");
}

}  // namespace

TEST_CASE_TEMPLATE("on threads the sparse sum has the bits of the dense one, by every scatter algorithm", T, float,
                   double, std::int64_t) {
  for (const int p : {1, 2, 3, 4, 5, 7, 8})
    for (const std::size_t n : {std::size_t{0}, std::size_t{1}, static_cast<std::size_t>(p), std::size_t{129}}) {
      INFO(p, " ranks, n = ", n);
      for (const auto& e : allreduce::all_algorithms) {
        if (e.is_native() || !e.derive(p).scattered) continue;
        INFO(e.name());
        compare_with_dense<T>(e, p, n);
      }
      compare_with_dense<T>(any_of<[] { return allreduce::butterfly{2}; }>, p, n);
      compare_with_dense<T>(any_of<[] { return allreduce::butterfly{3}; }>, p, n);
      compare_with_dense<T>(any_of<[] { return oracle::direct{}; }>, p, n);    // many receipts in one round
      compare_with_dense<T>(any_of<[] { return oracle::lopsided{}; }>, p, n);  // owners with two blocks, and with none
      if (oracle::interleaved{}.serves(p))
        compare_with_dense<T>(any_of<[] { return oracle::interleaved{}; }>, p, n);  // many pieces
    }
}

TEST_CASE("zeros given as entries count as zeros, and their sums are +0") {
  threads::run(3, [](auto& world) {
    auto sparse = bind_sparse<float>(allreduce::ring{}, world, 6);
    const std::vector<sparse_entry<float>> zeros = {{0, -0.0f}, {2, 0.0f}, {3, -0.0f}, {5, 1.0f}};
    for (const float x : sparse.reduce(zeros))
      require((x == 0 || x == 3) && !std::signbit(x), "the sum of zeros is ", x);
  });
}

namespace {

// What travels, counted where it is handed over.
struct recording_world {
  threads::world& world;
  std::uint64_t messages = 0, bytes = 0;
  int rank() const { return world.rank(); }
  int size() const { return world.size(); }
  void exchange(std::span<const outgoing> sends, std::span<const incoming> receives) {
    for (const auto& s : sends) ++messages, bytes += s.bytes;
    world.exchange(sends, receives);
  }
};

struct traffic {
  std::uint64_t messages = 0, bytes = 0;
  friend bool operator==(const traffic&, const traffic&) = default;
};

template <class T>
std::vector<traffic> counted(const allreduce::any& a, int p, std::size_t n,
                             const std::vector<std::vector<sparse_entry<T>>>& entries) {
  std::vector<traffic> of(static_cast<std::size_t>(p));
  threads::run(p, [&](auto& world) {
    recording_world recorder{world};
    auto sparse = bind_sparse<T>(a, recorder, n);
    const traffic before{recorder.messages, recorder.bytes};
    const auto me = static_cast<std::size_t>(world.rank());
    sparse.reduce(entries[me]);
    of[me] = {recorder.messages - before.messages, recorder.bytes - before.bytes};
  });
  return of;
}

// The formula of the header, by playing the arrows with sets of places: for each message 4 bytes, and the lesser of its
// entries and its elements.
template <class T>
std::vector<traffic> predicted(const allreduce::schedule& s, std::size_t n,
                               const std::vector<std::vector<sparse_entry<T>>>& entries) {
  std::vector<std::set<std::size_t>> held;
  for (const auto& list : entries) {
    held.emplace_back();
    for (const auto& e : list) held.back().insert(e.index);
  }
  std::vector<traffic> of(entries.size());
  for (std::size_t i = 0; i < s.reduce.size();) {
    const auto before = held;
    std::map<std::pair<int, int>, std::pair<std::uint64_t, std::uint64_t>> messages;  // elements, entries
    for (const int round = s.reduce[i].round; i < s.reduce.size() && s.reduce[i].round == round; ++i) {
      const auto& a = s.reduce[i];
      auto& [elements, count] = messages[{a.from, a.to}];
      for (int k = 0; k < a.blocks.count; ++k) {
        const int b = (a.blocks.first + k) % s.blocks;
        for (auto e = allreduce::block_start(n, s.blocks, b); e < allreduce::block_start(n, s.blocks, b + 1); ++e) {
          ++elements;
          if (!before[static_cast<std::size_t>(a.from)].count(e)) continue;
          ++count;
          held[static_cast<std::size_t>(a.to)].insert(e);
        }
      }
    }
    for (const auto& [ends, size] : messages) {
      if (size.first == 0) continue;
      auto& t = of[static_cast<std::size_t>(ends.first)];
      t.messages += size.second > 0 ? 2 : 1;
      t.bytes += 4 + std::min(size.first * sizeof(T), size.second * (sizeof(T) + 4));
    }
  }
  return of;
}

}  // namespace

TEST_CASE_TEMPLATE("messages and bytes that are sent are those of the formula, and at most 4 a message above dense", T,
                   float, double) {
  for (const int p : {1, 2, 3, 4, 5, 7, 8})
    for (const std::size_t n : {std::size_t{0}, std::size_t{1}, static_cast<std::size_t>(p), std::size_t{200}})
      for (const auto& which : patterns) {
        std::vector<std::vector<sparse_entry<T>>> entries;
        for (int r = 0; r < p; ++r) {
          entries.push_back(entries_of(vector_of<T>(which, r, p, n)));
          for (auto& e : entries.back()) e.value = 1;  // no sum is zero
        }
        for (const auto& e : allreduce::all_algorithms) {
          if (e.is_native() || !e.derive(p).scattered) continue;
          INFO(e.name(), " on ", p, " ranks, n = ", n, ", ", which.name);
          const auto s = e.derive(p);
          const auto sent = counted<T>(e, p, n, entries);
          CHECK(sent == predicted<T>(s, n, entries));
          std::vector<std::vector<sparse_entry<T>>> all(static_cast<std::size_t>(p));
          for (auto& list : all)
            for (std::size_t i = 0; i < n; ++i) list.push_back({static_cast<std::uint32_t>(i), T{1}});
          const auto dense = predicted<T>(s, n, all);
          for (std::size_t r = 0; r < sent.size(); ++r) CHECK(sent[r].bytes <= dense[r].bytes);
        }
      }
}

TEST_CASE("butterfly{2} sends z(P-1)/P entries where all have the same places, z m / 2 where none have one in common") {
  const auto butterfly =
      allreduce::any("butterfly{2}", [](int size) { return allreduce::derive(allreduce::butterfly{2}, size); });
  constexpr int p = 8, m = 3;
  constexpr std::size_t n = 8 * 8 * 16, z = 64;  // z / p of them in each block
  std::vector<std::vector<sparse_entry<float>>> same(p), disjoint(p);
  for (std::uint32_t r = 0; r < p; ++r)
    for (std::uint32_t i = 0; i < z; ++i) {
      same[r].push_back({16 * i, 1.0f});
      disjoint[r].push_back({16 * i + r, 1.0f});
    }
  for (const auto& t : counted<float>(butterfly, p, n, same)) CHECK(t == traffic{2 * m, 4 * m + 8 * (z * (p - 1) / p)});
  for (const auto& t : counted<float>(butterfly, p, n, disjoint)) CHECK(t == traffic{2 * m, 4 * m + 8 * (z * m / 2)});
}

TEST_CASE("what cannot be summed sparsely is refused in words") {
  single alone;
  const auto words_of = [](const std::function<void()>& call) -> std::string {
    try {
      call();
    } catch (const error& e) {
      return e.what();
    }
    return "";
  };
  auto sparse = bind_sparse<float>(allreduce::butterfly{}, alone, 10);
  const auto reduce = [&](std::vector<sparse_entry<float>> entries) {
    return words_of([&] { sparse.reduce(entries); });
  };
  CHECK(reduce({{0, 1.0f}, {9, 1.0f}}) == "");
  CHECK(contains(reduce({{0, 1.0f}, {10, 1.0f}}), "entry 1 has index 10; a sparse vector's indices must increase"));
  CHECK(contains(reduce({{3, 1.0f}, {3, 1.0f}}), "entry 1 has index 3"));
  CHECK(contains(reduce({{3, 1.0f}, {2, 1.0f}}), "entry 1 has index 2"));
  const auto bind_by = [&](const char* name, std::size_t n) {
    return words_of([&] { bind_sparse<float>(allreduce::from_name(name), alone, n); });
  };
  CHECK(contains(bind_by("native", 10), "the communicator's own allreduce is dense"));
  CHECK(contains(bind_by("recursive_doubling", 10), "has no reduce-scatter form"));
  CHECK(contains(bind_by("ring", std::size_t{1} << 32), "at most 2^32 - 1 elements; got 4294967296"));

  for (const bool one_is_dense : {true, false}) {  // a rank that binds dense, or another count
    std::vector<std::string> words(3);
    threads::run(3, [&](auto& world) {
      const bool other = world.rank() == 1;
      words[static_cast<std::size_t>(world.rank())] = words_of([&] {
        if (other && one_is_dense) bind<float>(allreduce::ring{}, world, 10);
        else bind_sparse<float>(allreduce::ring{}, world, other ? 11 : 10);
      });
    });
    for (const auto& w : words) CHECK(contains(w, one_is_dense ? "rank 1: another algorithm" : "rank 1: count 11"));
  }
}
