#include "dpsgd/allreduce/schedule.hpp"

#include <doctest/doctest.h>

#include <bit>
#include <string>
#include <vector>

#include "dpsgd/allreduce/all.hpp"

using namespace dpsgd::allreduce;

namespace {

// Swing's partners, with whole vectors: equal sums, but at 8 members in another order here and there.
struct whole_swing {
  constexpr int blocks(int) const { return 1; }
  constexpr bool serves(int size) const { return std::has_single_bit(static_cast<unsigned>(size)); }
  constexpr void all_reduce(member me, auto&& send) const {
    int distance = 1;
    for (int t = 0; 1 << t < me.size; ++t, distance = 1 - 2 * distance)
      send(t, me.at(me.rank % 2 == 0 ? distance : -distance), 0);
  }
};

// Halving by the lowest bit first: the blocks of a message do not lie side by side.
struct interleaved_halving {
  constexpr bool serves(int size) const { return std::has_single_bit(static_cast<unsigned>(size)); }
  constexpr void reduce_scatter(member me, auto&& send) const {
    for (int t = 0; 1 << t < me.size; ++t)
      for (int b = 0; b < me.size; ++b)
        if (((b ^ me.rank) & ((2 << t) - 1)) == 1 << t) send(t, me.rank ^ (1 << t), b);
  }
};
static_assert(prove(interleaved_halving{}, 8));

// One-liners that are wrong, each in its own way.
struct lazy {  // forgets the last round
  constexpr void reduce_scatter(member me, auto&& send) const {
    for (int t = 0; t < me.size - 2; ++t) send(t, me.at(+1), me.at(-t - 1));
  }
};
struct selfish {
  constexpr int blocks(int) const { return 1; }
  constexpr void all_reduce(member me, auto&& send) const { send(0, me.rank, 0); }
};
struct early {
  constexpr int blocks(int) const { return 1; }
  constexpr void all_reduce(member me, auto&& send) const {
    if (me.rank > 0) send(-1, 0, 0);
  }
};
struct outside {
  constexpr void reduce_scatter(member me, auto&& send) const { send(0, me.at(1), {me.size, 1}); }
};
struct twice {
  constexpr int blocks(int) const { return 1; }
  constexpr void all_reduce(member me, auto&& send) const {
    if (me.rank > 0) send(0, 0, 0), send(1, 0, 0);
  }
};
struct swap_away {  // both send both blocks: nobody keeps one
  constexpr void reduce_scatter(member me, auto&& send) const { send(me.rank, me.at(1), {0, me.size}); }
};
struct overwrite {
  constexpr int blocks(int) const { return 1; }
  constexpr void all_reduce(member me, auto&& send) const { send(0, me.at(1), 0, on_receive::replace); }
};
struct overwrite_twice {
  constexpr int blocks(int) const { return 1; }
  constexpr void all_reduce(member me, auto&& send) const {
    if (me.rank > 0) send(0, 0, 0, on_receive::replace);
  }
};
struct both_ways {  // a reduce-scatter that swaps the same block
  constexpr void reduce_scatter(member me, auto&& send) const { send(0, me.at(1), 0); }
};
struct second_and_fourth {  // member 0 would own blocks 0 and 2
  constexpr int blocks(int) const { return 4; }
  constexpr void reduce_scatter(member me, auto&& send) const {
    if (me.rank == 0) send(0, 1, 1), send(0, 1, 3);
    if (me.rank == 1) send(0, 0, 0), send(0, 0, 2);
  }
};

struct neither {};
struct both : ring {
  constexpr void all_reduce(member, auto&&) const {}
};
struct scatter_that_replaces {  // what arrives in a reduce-scatter is added, and no other wish can be said
  constexpr void reduce_scatter(member, auto&& send) const requires requires {
    send(0, 1, block_range(0), on_receive::replace);
  }
  {}
};
static_assert(!algorithm<neither> && !algorithm<both> && !algorithm<scatter_that_replaces>);

}  // namespace

TEST_CASE("a member's receives are the others' sends, and the owners' ranges cut the blocks up") {
  for (int p : {1, 2, 3, 7, 8, 16})
    for (const auto& e : all_algorithms) {
      if (e.is_native()) continue;
      INFO(e.name(), " among ", p);
      const schedule s = e.derive(p);
      std::size_t sent = 0, received = 0;
      int owned_blocks = 0;
      for (int me = 0; me < p; ++me) {
        owned_blocks += owned(s, me).count;
        int last = -1;
        for (const auto& round : plan_for(me, s.reduce)) {
          CHECK(round.round > last);
          last = round.round;
          sent += round.sends.size(), received += round.receives.size();
          for (const auto& m : round.receives) {
            bool found = false;
            for (const auto& theirs : plan_for(m.peer, s.reduce))
              if (theirs.round == round.round)
                for (const auto& other : theirs.sends)
                  if (other.peer == me) {
                    REQUIRE(other.pieces.size() == m.pieces.size());
                    for (std::size_t i = 0; i < m.pieces.size(); ++i)
                      CHECK(other.pieces[i].blocks == m.pieces[i].blocks);
                    found = true;
                  }
            CHECK(found);
          }
        }
      }
      CHECK(sent == received);
      CHECK(owned_blocks == (s.scattered ? s.blocks : p * s.blocks));
    }
}

TEST_CASE("block_start cuts n elements into blocks whose sizes differ by at most one") {
  for (std::size_t n : {0, 1, 2, 6, 7, 8, 63, 10007})
    for (int blocks : {1, 2, 3, 7, 8, 13, 64}) {
      CHECK(block_start(n, blocks, 0) == 0);
      CHECK(block_start(n, blocks, blocks) == n);
      for (int b = 0; b < blocks; ++b) {
        const auto size = block_start(n, blocks, b + 1) - block_start(n, blocks, b);
        CHECK((size == n / static_cast<std::size_t>(blocks) || size == n / static_cast<std::size_t>(blocks) + 1));
      }
    }
  const auto huge = std::size_t{1} << 62;  // no overflow on the way
  CHECK(block_start(huge, 3, 3) == huge);
}

TEST_CASE("verify names the flaw") {
  CHECK(verify(lazy{}, 4).flaw == flaw::two_owners);
  CHECK(verify(selfish{}, 3) == verdict{flaw::no_such_peer, 0, 0, -1});
  CHECK(verify(early{}, 3) == verdict{flaw::no_such_round, -1, 1, -1});
  CHECK(verify(outside{}, 3).flaw == flaw::no_such_block);
  CHECK(verify(twice{}, 3) == verdict{flaw::counted_twice, 1, 0, 0});
  CHECK(verify(swap_away{}, 2).flaw == flaw::counted_twice);
  CHECK(verify(overwrite{}, 2).flaw == flaw::replaced_while_sent);
  CHECK(verify(overwrite_twice{}, 3).flaw == flaw::replaced_and_received);
  CHECK(verify(both_ways{}, 2).flaw == flaw::sent_while_received);
  CHECK(verify(second_and_fourth{}, 2) == verdict{flaw::owner_not_contiguous, -1, 0, 2});
  CHECK(verify(whole_swing{}, 4).flaw == flaw::none);
  CHECK(verify(whole_swing{}, 8).flaw == flaw::unequal_bits);
  CHECK(verify(whole_swing{}, 6).flaw == flaw::size_not_served);
  auto nobody = derive(ring{}, 2);  // member 1 gets block 1 and sends it into the void
  nobody.size = 3, nobody.blocks = 3;
  CHECK(!verify(nobody));
  auto circle = derive(ring{}, 3);  // every block goes on to where it came from
  for (int me = 0; me < 3; ++me) circle.reduce.push_back({7, me, (me + 2) % 3, me, on_receive::add});
  sort(circle.reduce);
  CHECK(!verify(circle));
}

TEST_CASE("an algorithm is found by its name, and the names are listed when there is none") {
  for (const auto& a : all_algorithms) CHECK(from_name(a.name()).name() == a.name());
  CHECK(any{}.name() == "circulant");
  CHECK(from_name("native").is_native());
  std::string words;
  try {
    from_name("rings");
  } catch (const std::invalid_argument& e) {
    words = e.what();
  }
  CHECK(words ==
        "no allreduce algorithm is called 'rings'; there are: naive, all_to_all, binomial_tree, recursive_doubling, "
        "recursive_multiplying, round_robin, ring, halving_doubling, butterfly, circulant, swing, chain, double_tree, "
        "hierarchical, native");
}

TEST_CASE("a parameter below its least value is an error that says so") {
  CHECK_THROWS_WITH_AS((void)butterfly{1}, "an allreduce algorithm's parameter is 1; it must be at least 2",
                       std::invalid_argument);
  CHECK_THROWS_AS((void)circulant{1}, std::invalid_argument);
  CHECK_THROWS_AS((void)circulant{-3}, std::invalid_argument);
  CHECK_THROWS_AS((void)recursive_multiplying{0}, std::invalid_argument);
  CHECK_THROWS_AS((void)chain{0}, std::invalid_argument);
  CHECK_THROWS_AS((void)double_tree{0}, std::invalid_argument);
  CHECK_THROWS_AS(((void)hierarchical{ring{}, ring{}, 0}), std::invalid_argument);
  // A size that a part does not serve is not served by the whole.
  const hierarchical between{ring{}, whole_swing{}, 2};
  CHECK(verify(between, 8).flaw == flaw::none);
  CHECK(verify(between, 6).flaw == flaw::size_not_served);
}
