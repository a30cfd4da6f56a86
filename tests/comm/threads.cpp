#include "dpsgd/comm/threads.hpp"

#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <exception>
#include <span>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

using namespace dpsgd;

namespace {

template <class Error, class Body>
std::string words_of(int size, Body body) {
  try {
    threads::run(size, body);
  } catch (const Error& e) {
    return e.what();
  } catch (const std::exception& e) {
    return std::string("another type: ") + e.what();
  }
  return "nothing thrown";
}

bool contains(const std::string& text, const std::string& part) { return text.find(part) != text.npos; }

void sleep_for(double seconds) { std::this_thread::sleep_for(std::chrono::duration<double>(seconds)); }

}  // namespace

TEST_CASE("messages of all sizes arrive, zero bytes too, to and from several ranks at once") {
  for (int size : {2, 3, 7}) {
    std::atomic<int> right{0};
    threads::run(size, [&](auto& world) {
      bool good = true;
      const int me = world.rank();
      for (std::size_t bytes : {0, 1, 63, 4096, 1'000'000}) {
        std::vector<std::vector<char>> out, in;
        std::vector<outgoing> sends;
        std::vector<incoming> receives;
        for (int r = 0; r < size; ++r) {
          out.emplace_back(bytes, static_cast<char>(me * 16 + r)), in.emplace_back(bytes, '?');
          if (r != me) sends.push_back({r, out.back().data(), bytes}), receives.push_back({r, in.back().data(), bytes});
        }
        world.exchange(sends, receives);
        for (int r = 0; r < size; ++r)
          if (r != me)
            good = good && in[static_cast<std::size_t>(r)] == std::vector<char>(bytes, static_cast<char>(r * 16 + me));
      }
      right += good;
    });
    CHECK(right == size);
  }
}

TEST_CASE("an empty message holds its receiver until it has been sent") {
  std::atomic<bool> sent{false};
  std::atomic<bool> early{false};
  threads::run(2, [&](auto& world) {
    const outgoing letter{1, nullptr, 0};
    const incoming expected{0, nullptr, 0};
    if (world.rank() == 0) sleep_for(0.02), sent = true, world.exchange({&letter, 1}, {});
    else world.exchange({}, {&expected, 1}), early = !sent;
  });
  CHECK(!early);
}

TEST_CASE("impossible messages are refused by name") {
  char data[8] = {};
  CHECK(contains(words_of<error>(2,
                                 [&](auto& world) {
                                   const outgoing letter{world.rank(), data, 8};
                                   world.exchange({&letter, 1}, {});
                                 }),
                 "there is no rank"));
  CHECK(contains(words_of<error>(2,
                                 [&](auto& world) {
                                   const outgoing letter{2, data, 8};
                                   world.exchange({&letter, 1}, {});
                                 }),
                 "there is no rank 2"));
  CHECK(contains(words_of<error>(2,
                                 [&](auto& world) {
                                   char other[8] = {};
                                   const outgoing letter{1, data, 8};
                                   const incoming expected{0, other, 4};
                                   if (world.rank() == 0) world.exchange({&letter, 1}, {});
                                   else world.exchange({}, {&expected, 1});
                                 }),
                 "rank 0 sent 8 bytes where 4 were expected"));
  CHECK(contains(words_of<error>(2,
                                 [&](auto& world) {
                                   if (world.rank() == 1) return barrier(world);
                                   const outgoing twice[2] = {{1, data, 0}, {1, data, 0}};
                                   world.exchange(twice, {});
                                 }),
                 "two messages to rank 1"));
  CHECK_THROWS_AS(threads::run(0, [](auto&) {}), error);
}

TEST_CASE("a rank that throws ends all, and run throws what it said, with its rank") {
  std::atomic<int> told{0};
  const auto body = [&](auto& world) {
    if (world.rank() == 2) sleep_for(0.01), throw std::out_of_range("no such column");
    try {
      std::vector<double> v(1000, 1.0);
      auto all = bind<double>(allreduce::circulant{}, world, v.size());
      for (;;) all.all_reduce(v.data());
    } catch (const error& e) {
      told += contains(e.what(), "rank 2: no such column");
      throw;
    }
  };
  CHECK(words_of<error>(4, body) == "rank 2: no such column");
  CHECK(told == 3);
  try {
    threads::run(4, body);
  } catch (const error& e) {
    CHECK_THROWS_AS(std::rethrow_if_nested(e), std::out_of_range);
  }
  // One that throws at once, before anybody waits; and a second failure does not hide the first.
  CHECK(words_of<error>(3, [](auto& world) {
          if (world.rank() == 1) throw std::runtime_error("first");
          sleep_for(0.02);
          throw std::runtime_error("second");
        }) == "rank 1: first");
  CHECK_THROWS_AS(threads::run(2,
                               [](auto& world) {
                                 if (world.rank() == 1) throw 42;
                                 barrier(world);
                               }),
                  int);
  CHECK(words_of<error>(1, [](auto&) { throw std::runtime_error("alone"); }) == "rank 0: alone");
}

TEST_CASE("a message is taken back when its sender fails, for its memory goes") {
  std::atomic<bool> gone{false}, taken{false};
  words_of<error>(3, [&](auto& world) {
    double value = 1;
    if (world.rank() == 2) throw std::runtime_error("stop");
    if (world.rank() == 0) {
      try {
        const outgoing letter{1, &value, sizeof value};
        const incoming never{2, nullptr, 0};
        world.exchange({&letter, 1}, {&never, 1});
      } catch (const error&) {
        gone = true;
        throw;
      }
    } else {
      while (!gone) std::this_thread::yield();
      const incoming letter{0, &value, sizeof value};
      world.exchange({}, {&letter, 1});
      taken = true;
    }
  });
  CHECK(gone);
  CHECK(!taken);
}

TEST_CASE("a sender that fails waits for the receiver that is reading its memory") {
  std::atomic<bool> reading{false}, has_read{false}, right{false};
  words_of<error>(3, [&](auto& world) {
    double value = 1;
    if (world.rank() == 2) {
      while (!reading) std::this_thread::yield();
      throw std::runtime_error("stop");
    }
    if (world.rank() == 0) {
      try {
        const outgoing letter{1, &value, sizeof value};
        world.exchange({&letter, 1}, {});
      } catch (const error&) {
        right = has_read.load();
      }
    } else {
      incoming letter{0, &value, sizeof value};
      world.exchange({}, std::span<incoming>(&letter, 1), [&] {
        reading = true;
        sleep_for(0.05);
        has_read = true;
      });
    }
  });
  CHECK(right);
}

TEST_CASE("what is read in place is the sender's own memory, and is given back when a later message does not come") {
  threads::run(2, [](auto& world) {
    double mine = world.rank() + 1, copy = 0;
    double* const theirs = world.rank() == 0 ? nullptr : &mine;
    const auto address = broadcast_value(world, theirs, 1);
    const outgoing letter{1 - world.rank(), &mine, sizeof mine};
    incoming expected{1 - world.rank(), &copy, sizeof copy};
    double got = 0;
    world.exchange({&letter, 1}, std::span<incoming>(&expected, 1),
                   [&] { got = *static_cast<double*>(expected.data); });
    if (got != 2 - world.rank() || copy != 0) fail("got ", got);
    if (world.rank() == 0 && expected.data != address) fail("it was copied");
  });
  // Rank 1 waits for rank 0, which waits for its letter to be given back: by rank 1's deadline, not by its own.
  const auto words = words_of<peer_lost>(3, [](auto& world) {
    double value = 0;
    world.deadline(world.rank() == 1 ? 0.1 : 60);
    const outgoing letter{1, &value, sizeof value};
    incoming two[] = {{0, &value, sizeof value}, {2, &value, sizeof value}};
    if (world.rank() == 0) world.exchange({&letter, 1}, {});
    if (world.rank() == 1) world.exchange({}, std::span<incoming>(two), [] { fail("nothing to do"); });
  });
  CHECK(contains(words, "rank 1: waited 0.1 s in vain for rank 2 to send 8 bytes"));
}

TEST_CASE("a rank that does not answer within the deadline is named, with bytes and seconds") {
  const auto words = words_of<peer_lost>(3, [](auto& world) {
    world.deadline(0.1);
    if (world.rank() == 1) return sleep_for(0.5);
    double mine = 1, theirs = 0;
    const outgoing letter{1, &mine, sizeof mine};
    const incoming expected{1, &theirs, sizeof theirs};
    if (world.rank() == 0) world.exchange({&letter, 1}, {&expected, 1});
  });
  CHECK(contains(words, "rank 0: waited 0.1 s in vain for rank 1 to send 8 bytes"));
  CHECK_THROWS_AS(threads::run(1, [](auto& world) { world.deadline(0); }), error);
}

TEST_CASE("when asked to stop, a wait ends after the grace and says so; a wait that succeeds goes on") {
  std::atomic<bool> stop{false};
  std::atomic<int> finished{0};
  const auto words = words_of<interrupted>(2, [&](auto& world) {
    world.stop_flag(&stop, 0.05);
    barrier(world);
    stop = true;
    for (int i = 0; i < 100; ++i) barrier(world);  // the other one answers: no harm
    ++finished;
    if (world.rank() == 0) barrier(world);
  });
  CHECK(finished == 2);
  CHECK(contains(words, "rank 0: asked to stop while waiting for rank 1"));
}

TEST_CASE("a wait does not last longer for the work that went before it") {
  std::atomic<bool> stop{true};
  std::atomic<int> met{0};
  threads::run(2, [&](auto& world) {
    world.stop_flag(&stop, 0.2);
    for (int i = 0; i < 4; ++i) {  // 0.08 s each: every wait has its own 0.2 s
      if (world.rank() == 0) sleep_for(0.08);
      barrier(world);
    }
    ++met;
  });
  CHECK(met == 2);
}
