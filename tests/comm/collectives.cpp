#include <doctest/doctest.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <numeric>
#include <vector>

#include "dpsgd/comm/communicator.hpp"
#include "dpsgd/comm/threads.hpp"

using namespace dpsgd;

static_assert(communicator<single> && communicator<threads::world>);

TEST_CASE("broadcast brings root's values to all, from every root") {
  for (int size : {1, 2, 3, 4, 5, 7, 8})
    for (int root = 0; root < size; ++root) {
      std::atomic<int> right{0};
      threads::run(size, [&](auto& world) {
        std::vector<double> v(17, world.rank());
        broadcast(world, std::span<double>(v), root);
        const bool good = std::all_of(v.begin(), v.end(), [&](double x) { return x == root; });
        right += good && broadcast_value(world, 100 + world.rank(), root) == 100 + root;
      });
      CHECK(right == size);
    }
}

TEST_CASE("gather_all, sum and max are the same on all ranks") {
  for (int size : {1, 2, 3, 5, 7}) {
    std::vector<std::vector<double>> seen(static_cast<std::size_t>(size));
    std::atomic<int> right{0};
    threads::run(size, [&](auto& world) {
      const int me = world.rank();
      const auto all = gather_all(world, std::int64_t{me} * me);
      bool good = static_cast<int>(all.size()) == size;
      for (int r = 0; r < size; ++r) good = good && all[static_cast<std::size_t>(r)] == std::int64_t{r} * r;
      good = good && sum(world, std::int64_t{1} << me) == (std::int64_t{1} << size) - 1;
      good = good && max(world, me * 1.5) == (size - 1) * 1.5;
      std::array<double, 3> few = {0.1 * me, 1e17 / (me + 1), 1.0};  // not exact: the order of addition shows
      sum(world, std::span<double>(few));
      seen[static_cast<std::size_t>(me)].assign(few.begin(), few.end());
      std::array<int, 2> two = {-me, me};
      max(world, std::span<int>(two));
      right += good && two[0] == 0 && two[1] == size - 1;
    });
    CHECK(right == size);
    for (const auto& s : seen) CHECK(s == seen[0]);
    CHECK(seen[0][2] == size);
  }
}

TEST_CASE("nobody leaves a barrier before everybody has come") {
  for (int size : {1, 2, 3, 7}) {
    std::atomic<int> come{0}, early{0};
    threads::run(size, [&](auto& world) {
      for (int i = 1; i <= 50; ++i) {
        ++come;
        barrier(world);
        early += come < i * size;
        barrier(world);
      }
    });
    CHECK(early == 0);
  }
}

TEST_CASE("a single rank has the collectives, and nobody to talk to") {
  single alone;
  alone.deadline(1), alone.stop_flag(nullptr);
  barrier(alone);
  CHECK(sum(alone, 3.5) == 3.5);
  CHECK(broadcast_value(alone, 7) == 7);
  CHECK(gather_all(alone, 7) == std::vector<int>{7});
  const outgoing letter{0, nullptr, 0};
  CHECK_THROWS_AS(alone.exchange({&letter, 1}, {}), error);
}
