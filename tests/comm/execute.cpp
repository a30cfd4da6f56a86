#include "dpsgd/comm/execute.hpp"

#include <doctest/doctest.h>

#include <atomic>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "comm/oracle.hpp"
#include "dpsgd/allreduce/all.hpp"
#include "dpsgd/comm/threads.hpp"
#include "support.hpp"

using namespace dpsgd;

extern thread_local long allocations;  // of this thread so far: allocations.cpp

namespace {

std::vector<std::size_t> lengths(int p) {
  const auto around = static_cast<std::size_t>(p);
  return {0, 1, around - 1, around, around + 1, 129, 10007};
}

template <class T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}

// Runs `a` on `p` threads and checks its results. `expected(inputs)`: what every rank must hold, to the bit.
template <class T, class Algorithm, class Expected>
void try_out(const Algorithm& a, int p, std::size_t n, bool whole_numbers, Expected expected) {
  std::vector<std::vector<T>> inputs, results(static_cast<std::size_t>(p)), again(static_cast<std::size_t>(p));
  std::vector<element_range> shards(static_cast<std::size_t>(p));
  std::atomic<bool> scattered{false};
  for (int r = 0; r < p; ++r) inputs.push_back(oracle::values<T>(r, n, whole_numbers));
  threads::run(p, [&](auto& world) {
    const auto me = static_cast<std::size_t>(world.rank());
    auto bound = bind<T>(a, world, n);
    static_assert(std::same_as<decltype(bound), bound_allreduce<T, threads::world, Algorithm>>);
    results[me] = again[me] = inputs[me];
    shards[me] = bound.mine();
    if (world.rank() == 0) scattered = bound.scattered();
    bound.reduce(results[me].data());
    bound.gather(results[me].data());
    const auto before = allocations;
    bound.all_reduce(again[me].data());
    if (allocations != before) fail("all_reduce allocated memory");
  });
  const auto want = expected(inputs);
  for (std::size_t r = 0; r < results.size(); ++r) {
    CHECK(same_bits(results[r], want));
    CHECK(same_bits(again[r], results[r]));
  }
  if (scattered) {  // the shards are a partition
    std::vector<int> owners(n, 0);
    for (const auto& s : shards)
      for (std::size_t i = s.first; i < s.first + s.count; ++i) ++owners.at(i);
    CHECK(owners == std::vector<int>(n, 1));
  } else {
    for (const auto& s : shards) CHECK(s == element_range{0, n});
  }
}

// Both the exact sum (of whole numbers) and the bits that the schedule's order of addition gives.
template <class T>
void try_schedule(const allreduce::schedule& s, const auto& algorithm, std::size_t n) {
  for (bool whole_numbers : {true, false}) {
    const bool played = n < 1000 || s.size == 7;  // the interpreter is slow
    if (!played && !whole_numbers) continue;
    try_out<T>(algorithm, s.size, n, whole_numbers, [&](std::vector<std::vector<T>> v) {
      std::vector<T> sum(n, T{});
      for (const auto& one : v)
        for (std::size_t i = 0; i < n; ++i) sum[i] = static_cast<T>(sum[i] + one[i]);
      if (!played) return sum;
      oracle::play(s.reduce, s.blocks, v);
      oracle::play(s.gather, s.blocks, v);
      if (whole_numbers) CHECK(v[0] == sum);
      return v[0];
    });
  }
}

}  // namespace

TEST_CASE_TEMPLATE("on threads every algorithm gives the exact sum, by the schedule's order of addition to the bit", T,
                   float, double, std::int64_t) {
  for (int p : {1, 2, 3, 4, 5, 7, 8, 13})
    for (const auto& e : allreduce::all_algorithms)
      for (const auto n : lengths(p)) {
        const bool often = std::is_same_v<T, float> && !test::under_tsan;
        if (e.is_native() || (!often && (n > 1000 || p == 2 || p == 4 || p == 5))) continue;
        INFO(e.name(), " on ", p, " ranks, n = ", n);
        try_schedule<T>(e.derive(p), e, n);
      }
}

TEST_CASE("and so do algorithms with messages of many pieces, mixed receipts and uneven owners") {
  for (int p : {1, 2, 3, 4, 5, 7, 8})
    for (const auto n : lengths(p)) {
      if (n > 1000) continue;
      INFO(p, " ranks, n = ", n);
      try_schedule<float>(allreduce::derive(oracle::direct{}, p), oracle::direct{}, n);
      try_schedule<float>(allreduce::derive(oracle::whole_direct{}, p), oracle::whole_direct{}, n);
      try_schedule<float>(allreduce::derive(oracle::mixed{}, p), oracle::mixed{}, n);
      try_schedule<float>(allreduce::derive(oracle::lopsided{}, p), oracle::lopsided{}, n);
      if (oracle::interleaved{}.serves(p))
        try_schedule<float>(allreduce::derive(oracle::interleaved{}, p), oracle::interleaved{}, n);
    }
}

TEST_CASE("native on threads adds in rank order") {
  for (int p : {1, 2, 3, 4, 7})
    for (const auto n : lengths(p))
      for (bool whole_numbers : {true, false}) {
        INFO(p, " ranks, n = ", n);
        const auto in_rank_order = [](std::vector<std::vector<float>> v) {
          for (std::size_t r = 1; r < v.size(); ++r)
            for (std::size_t i = 0; i < v[0].size(); ++i) v[0][i] += v[r][i];
          return v[0];
        };
        try_out<float>(allreduce::native{}, p, n, whole_numbers, in_rank_order);
        try_out<float>(allreduce::from_name("native"), p, n, whole_numbers, in_rank_order);
      }
}

TEST_CASE("between reduce and gather the owners' changes count, and nobody else's") {
  for (int p : {1, 2, 3, 7})
    for (const auto& e : allreduce::all_algorithms) {
      INFO(e.name(), " on ", p, " ranks");
      const std::size_t n = 100;
      std::atomic<int> right{0};
      threads::run(p, [&](auto& world) {
        auto bound = bind<double>(e, world, n);
        const auto mine = bound.mine();
        std::vector<double> v(n, 1.0);
        bound.reduce(v.data());
        for (std::size_t i = 0; i < n; ++i)
          if (i >= mine.first && i < mine.first + mine.count) v[i] = v[i] * 10 + static_cast<double>(i);
          else v[i] = -1;
        bound.gather(v.data());
        bool good = true;
        for (std::size_t i = 0; i < n; ++i) good = good && v[i] == p * 10 + static_cast<double>(i);
        right += good;
      });
      CHECK(right == p);
    }
}

TEST_CASE("the same algorithm on single is nothing at all") {
  single alone;
  for (const auto& e : allreduce::all_algorithms) {
    auto bound = bind<float>(e, alone, 3);
    float v[3] = {1, 2, 3};
    bound.all_reduce(v);
    CHECK(bound.mine() == element_range{0, 3});
    CHECK((v[0] == 1 && v[1] == 2 && v[2] == 3));
  }
}

namespace {
struct wrong {
  constexpr void reduce_scatter(allreduce::member me, auto&& send) const {
    for (int t = 0; t < me.size - 1; ++t) send(t, me.at(+1), me.at(-t));
    if (me.size > 1) send(me.size, me.at(+1), me.rank);
  }
};
}  // namespace

TEST_CASE("bind refuses an algorithm that is wrong or does not serve the size") {
  std::string words;
  try {
    threads::run(3, [](auto& world) { bind<float>(wrong{}, world, 10); });
  } catch (const error& e) {
    words = e.what();
  }
  CHECK(words.find("this allreduce algorithm is wrong for 3 members") != words.npos);
  CHECK_THROWS_AS(threads::run(3, [](auto& world) { bind<float>(oracle::interleaved{}, world, 10); }), error);
}

TEST_CASE("add adds, whatever the length") {
  for (std::size_t n : {0, 1, 63, 64, 65, 200}) {
    auto a = oracle::values<float>(0, n, true);
    const auto b = oracle::values<float>(1, n, true), before = a;
    add(a.data(), b.data(), n);
    for (std::size_t i = 0; i < n; ++i) CHECK(a[i] == before[i] + b[i]);
  }
}

TEST_CASE("sums of one type, and parameters of a smaller one gathered by the same shards") {
  for (const int p : {1, 2, 3, 4, 7})
    for (const auto& e : allreduce::all_algorithms)
      for (const std::size_t n : {1, 5, 100, 1001}) {
        if (!e.is_native() && !verify(e.derive(p))) continue;
        INFO(e.name(), " on ", p, " ranks, n = ", n);
        threads::run(p, [&](auto& world) {
          auto bound = bind<std::int64_t>(e, world, n);
          std::vector<std::int64_t> sums(n);
          for (std::size_t i = 0; i < n; ++i) sums[i] = (std::int64_t{1} << 52) + static_cast<std::int64_t>(i);
          bound.reduce(sums.data());
          const auto mine = bound.mine();
          std::vector<float> parameters(n, -1);
          for (std::size_t i = mine.first; i < mine.first + mine.count; ++i) {
            require(sums[i] == p * ((std::int64_t{1} << 52) + static_cast<std::int64_t>(i)), "the sum is wrong");
            parameters[i] = static_cast<float>(i) + 0.5f;
          }
          bound.gather(parameters.data());
          for (std::size_t i = 0; i < n; ++i)
            require(parameters[i] == static_cast<float>(i) + 0.5f, "what was gathered is wrong at ", i);
        });
      }
}
