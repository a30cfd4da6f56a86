#include "dpsgd/comm/agreement.hpp"

#include <doctest/doctest.h>

#include <atomic>
#include <cstdint>
#include <string>
#include <vector>

#include "dpsgd/allreduce/all.hpp"
#include "dpsgd/comm/auto_allreduce.hpp"
#include "dpsgd/comm/execute.hpp"
#include "dpsgd/comm/threads.hpp"

using namespace dpsgd;

namespace {

bool contains(const std::string& text, const std::string& part) { return text.find(part) != text.npos; }

// What every rank was told when it made its own call of bind; afterwards they can still talk to each other.
template <class Bind>
std::vector<std::string> told(int size, Bind bind_on) {
  std::vector<std::string> words(static_cast<std::size_t>(size));
  threads::run(size, [&](auto& world) {
    world.deadline(20);
    try {
      bind_on(world);
    } catch (const error& e) {
      words[static_cast<std::size_t>(world.rank())] = e.what();
    }
    require(sum(world, 1) == size, "the ranks have lost each other");
  });
  return words;
}

void check_all(const std::vector<std::string>& words, const std::string& part) {
  for (const auto& w : words) {
    INFO(w);
    CHECK(contains(w, "the ranks were given different allreduces"));
    CHECK(contains(w, part));
    CHECK(w == words[0]);
  }
}

const auto bind_to = [](auto& world, const auto& algorithm, std::size_t n = 100) { bind<float>(algorithm, world, n); };

struct odd_only {
  constexpr bool serves(int size) const { return size % 2 == 1; }
  constexpr void reduce_scatter(allreduce::member me, auto&& send) const { allreduce::ring{}.reduce_scatter(me, send); }
};

}  // namespace

TEST_CASE("all_equal is true on every rank or false on every rank") {
  for (const int size : {1, 2, 3, 4, 5, 7, 8}) {
    for (int odd_one = -1; odd_one < size; ++odd_one) {
      const bool expected = odd_one < 0 || size == 1;
      std::atomic<int> right{0};
      threads::run(size,
                   [&](auto& world) { right += all_equal(world, world.rank() == odd_one ? 1.5 : 0.5) == expected; });
      CHECK(right == size);
    }
    std::atomic<int> right{0};
    threads::run(size, [&](auto& world) {  // in two camps, and in as many as there are ranks
      right += all_equal(world, world.rank() / ((size + 1) / 2)) == (size == 1);
      right += all_equal(world, world.rank()) == (size == 1);
    });
    CHECK(right == 2 * size);
  }
}

TEST_CASE("different counts, types and algorithms are an error on every rank, which names who differs in what") {
  for (const int size : {2, 3, 5, 7})
    for (const int who : {0, 1, size - 1}) {
      INFO(size, " ranks, rank ", who, " differs");
      const auto mine = [=](auto& world) { return world.rank() == who; };
      const std::string rank = text("rank ", who == 0 ? 1 : who, ": ");
      const auto count =
          told(size, [&](auto& world) { bind_to(world, allreduce::circulant{}, mine(world) ? 101 : 100); });
      check_all(count, rank + (who == 0 ? "count 100" : "count 101"));
      const auto type = told(size, [&](auto& world) {
        if (mine(world)) bind<std::int64_t>(allreduce::ring{}, world, 100);
        else bind<double>(allreduce::ring{}, world, 100);  // of the same size
      });
      check_all(type, rank + (who == 0 ? "type double" : "type int64"));
      const auto algorithm = told(size, [&](auto& world) {
        if (mine(world)) bind_to(world, allreduce::ring{});
        else bind_to(world, allreduce::all_to_all{});
      });
      check_all(algorithm, rank + "another algorithm");
      const auto all_three = told(size, [&](auto& world) {
        if (mine(world)) bind<double>(allreduce::naive{}, world, 7);
        else bind_to(world, allreduce::ring{});
      });
      check_all(all_three, rank + (who == 0 ? "count 100, type float, another" : "count 7, type double, another"));
    }
}

TEST_CASE("so are native, auto, an algorithm chosen by name and one that does not serve the size") {
  for (const int size : {2, 5}) {
    const std::string differs = "rank 1: another algorithm. Give";
    check_all(told(size,
                   [](auto& world) {
                     if (world.rank() == 1) bind_to(world, allreduce::native{});
                     else bind_to(world, allreduce::ring{});
                   }),
              differs);
    check_all(
        told(size, [](auto& world) { bind_to(world, allreduce::from_name(world.rank() == 1 ? "native" : "chain")); }),
        differs);
    check_all(told(size,
                   [](auto& world) {
                     const auto_allreduce chosen(world);
                     if (world.rank() == 1) bind_to(world, chosen);
                     else bind_to(world, allreduce::from_name("ring"));
                   }),
              differs);
    check_all(told(size,
                   [](auto& world) {
                     const auto_allreduce chosen(world);
                     bind_to(world, chosen, world.rank() == 1 ? 10 : 1000);
                   }),
              "rank 1: count 10. Give");
  }
  check_all(told(4,
                 [](auto& world) {
                   if (world.rank() == 3) bind_to(world, odd_only{});
                   else bind_to(world, allreduce::ring{});
                 }),
            "rank 3: another algorithm");
  for (const auto& w : told(4, [](auto& world) { bind_to(world, odd_only{}); }))
    CHECK(contains(w, "does not serve 4 ranks"));
}

TEST_CASE("the same arrows are the same algorithm, whatever they are called, and nobody is told of anything") {
  const allreduce::any mine("mine", [](int size) { return allreduce::derive(odd_only{}, size); });
  for (const int size : {1, 3, 7}) {
    const auto words = told(size, [&](auto& world) {
      if (world.rank() == 0) bind_to(world, allreduce::ring{});
      else if (world.rank() == 1) bind_to(world, allreduce::from_name("ring"));
      else bind_to(world, mine);
    });
    CHECK(words == std::vector<std::string>(static_cast<std::size_t>(size)));
  }
}

TEST_CASE("of many that differ eight are named") {
  const auto words =
      told(12, [](auto& world) { bind_to(world, allreduce::ring{}, 100 + static_cast<std::size_t>(world.rank())); });
  check_all(words, "count 100, type float; rank 1: count 101; rank 2: count 102");
  check_all(words, "rank 8: count 108; and 3 more. Give all ranks the same");
}

TEST_CASE("types have names") {
  CHECK(detail::type_name(detail::type_code<float>()) == "float");
  CHECK(detail::type_name(detail::type_code<double>()) == "double");
  CHECK(detail::type_name(detail::type_code<long double>()) == "long double");
  CHECK(detail::type_name(detail::type_code<int>()) == "int32");
  CHECK(detail::type_name(detail::type_code<std::uint64_t>()) == "uint64");
}
