#include "dpsgd/allreduce/schedule.hpp"

#include <doctest/doctest.h>

#include <bit>
#include <cstdint>
#include <set>
#include <string>

#include "dpsgd/allreduce/any.hpp"

using namespace dpsgd::allreduce;

namespace {

// The plain meaning of a schedule, played with one number a block: what verify is checked against.
// Member r contributes 64^r, so that the digits of a sum to the base 64 count the contributions.
bool sums_come_out_right(const schedule& s) {
  using block_values = std::vector<std::vector<std::int64_t>>;
  block_values v(static_cast<std::size_t>(s.size));
  std::int64_t all = 0;
  for (int r = 0; r < s.size; ++r) {
    v[r].assign(static_cast<std::size_t>(s.blocks), std::int64_t{1} << 6 * r);
    all += std::int64_t{1} << 6 * r;
  }
  for (const auto* arrows : {&s.reduce, &s.gather})
    for (std::size_t i = 0; i < arrows->size();) {
      const block_values before = v;
      for (const int round = (*arrows)[i].round; i < arrows->size() && (*arrows)[i].round == round; ++i) {
        const arrow& a = (*arrows)[i];
        for (int k = 0; k < a.blocks.count; ++k) {
          const int b = (a.blocks.first + k) % s.blocks;
          if (a.then == on_receive::add) v[a.to][b] += before[a.from][b];
          else v[a.to][b] = before[a.from][b];
        }
      }
    }
  for (const auto& blocks : v)
    for (const auto x : blocks)
      if (x != all) return false;
  return true;
}

int rounds(const std::vector<arrow>& arrows) {
  std::set<int> used;
  for (const auto& a : arrows) used.insert(a.round);
  return static_cast<int>(used.size());
}

// Blocks sent by the member that sends most.
int most_blocks_sent(const schedule& s) {
  std::vector<int> sent(static_cast<std::size_t>(s.size), 0);
  for (const auto* arrows : {&s.reduce, &s.gather})
    for (const auto& a : *arrows) sent[a.from] += a.blocks.count;
  return *std::max_element(sent.begin(), sent.end());
}

int messages(const schedule& s) { return static_cast<int>(s.reduce.size() + s.gather.size()); }

int ceil_log2(int p) { return std::bit_width(static_cast<unsigned>(p - 1)); }

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

TEST_CASE("every algorithm is proved for 1 .. 128, 255 and 256 members") {
  for (int size = 1; size <= 256; ++size) {
    if (size > 128 && size < 255) continue;
    for (const auto& e : any::all()) {
      if (!e.derive) continue;
      const verdict v = verify(e.derive(size));
      INFO(e.name, " among ", size, ": ", describe(v.flaw), ", round ", v.round, ", rank ", v.rank, ", block ",
           v.block);
      REQUIRE(bool(v));
    }
  }
}

TEST_CASE("rounds, messages and blocks are those of the formulas in the comments") {
  for (int p = 1; p <= 64; ++p) {
    CAPTURE(p);
    const int power = static_cast<int>(std::bit_floor(static_cast<unsigned>(p))), extra = p - power;
    const auto n = derive(naive{}, p), d = derive(recursive_doubling{}, p), r = derive(ring{}, p),
               c = derive(circulant{}, p);
    CHECK(rounds(n.reduce) == (p > 1 ? 2 : 0));
    CHECK(messages(n) == 2 * (p - 1));
    CHECK(most_blocks_sent(n) == p - 1);
    CHECK(rounds(d.reduce) == ceil_log2(power) + (extra ? 2 : 0));
    CHECK(messages(d) == power * ceil_log2(power) + 2 * extra);
    CHECK(rounds(r.reduce) + rounds(r.gather) == 2 * (p - 1));
    CHECK(messages(r) == 2 * p * (p - 1));
    CHECK(most_blocks_sent(r) == 2 * (p - 1));
    CHECK(rounds(c.reduce) + rounds(c.gather) == 2 * ceil_log2(p));
    CHECK(messages(c) == 2 * p * ceil_log2(p));
    CHECK(most_blocks_sent(c) == 2 * (p - 1));
  }
}

TEST_CASE("a member's receives are the others' sends, and the owners' ranges cut the blocks up") {
  for (int p : {1, 2, 3, 7, 8, 16})
    for (const auto& e : any::all()) {
      if (!e.derive) continue;
      INFO(e.name, " among ", p);
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

TEST_CASE("a schedule with one arrow broken is refused, or still right") {
  const auto break_arrow = [](std::vector<arrow>& arrows, std::size_t i, int how, int size, int blocks) {
    arrow& a = arrows[i];
    switch (how) {
      case 0:
        arrows.erase(arrows.begin() + static_cast<std::ptrdiff_t>(i));
        break;
      case 1:
        arrows.push_back(arrow(a));
        break;
      case 2:
        a.to = (a.to + 1) % size;
        break;
      case 3:
        a.from = (a.from + 1) % size;
        break;
      case 4:
        a.blocks.first = (a.blocks.first + 1) % blocks;
        break;
      case 5:
        a.blocks.count += a.blocks.count < blocks ? 1 : -1;
        break;
      case 6:
        ++a.round;
        break;
      case 7:
        --a.round;
        break;
      case 8:
        a.then = a.then == on_receive::add ? on_receive::replace : on_receive::add;
        break;
      default:
        std::swap(a.from, a.to);
    }
    sort(arrows);
  };
  const auto kinds = 10;
  int refused = 0, harmless = 0, missed = 0, overcautious = 0;
  const auto judge = [&](const schedule& s, int how) {
    const bool accepted = bool(verify(s)), right = sums_come_out_right(s);
    if (how <= 1) CHECK(!accepted);  // no arrow can be spared, and none doubled
    accepted ? (right ? ++harmless : ++missed) : ++refused;
    overcautious += !accepted && right;
  };
  const auto try_all = [&](const schedule& good) {
    REQUIRE(bool(verify(good)));
    REQUIRE(sums_come_out_right(good));
    for (int how = 0; how < kinds; ++how) {
      for (std::size_t i = 0; i < good.reduce.size(); ++i) {
        schedule s = good;
        break_arrow(s.reduce, i, how, s.size, s.blocks);
        if (s.scattered) s.gather = backwards(s.reduce);  // the algorithm's line is wrong, and so is the way back
        judge(s, how);
      }
      for (std::size_t i = 0; i < good.gather.size(); ++i) {
        schedule s = good;
        break_arrow(s.gather, i, how, s.size, s.blocks);
        judge(s, how);
      }
    }
  };
  for (int size = 2; size <= 9; ++size)
    for (const auto& e : any::all())
      if (e.derive) try_all(e.derive(size));
  try_all(derive(interleaved_halving{}, 8));
  MESSAGE("broken schedules refused: ", refused, ", of them harmless: ", overcautious,
          "; accepted and right: ", harmless);
  CHECK(missed == 0);
  CHECK(refused > 5000);
  CHECK(harmless < refused / 5);  // mostly another round, or the other direction of a swap
}

TEST_CASE("any finds an algorithm by its name, and lists the names when there is none") {
  for (const auto& e : any::all()) CHECK(any::from_name(e.name).name() == e.name);
  CHECK(any{}.name() == "circulant");
  CHECK(any::from_name("native").is_native());
  std::string words;
  try {
    any::from_name("rings");
  } catch (const std::invalid_argument& e) {
    words = e.what();
  }
  CHECK(words ==
        "no allreduce algorithm is called 'rings'; there are: naive, recursive_doubling, ring, circulant, native");
}
