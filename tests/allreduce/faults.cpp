/// Schedules broken on purpose: what verify refuses, and that what it still accepts comes out right.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "allreduce/zoo.hpp"

using namespace dpsgd::allreduce;

namespace {

// What member r contributes: up to 10 members 64^r, a bit of its own with room beside it, so that no sum of wrong
// contributions looks like the right one; beyond them a number of 64 random bits, so that hardly one in 2^64 does.
std::uint64_t contribution(std::size_t r, int size) {
  if (size <= 10) return std::uint64_t{1} << 6 * r;
  std::uint64_t x = (r + 1) * 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

// The plain meaning of a schedule, played with one number a block: what verify is checked against.
class plain_sums {
 public:
  bool come_out_right(const schedule& s) {
    const auto blocks = static_cast<std::size_t>(s.blocks);
    std::uint64_t all = 0;
    v_.assign(static_cast<std::size_t>(s.size) * blocks, 0);
    for (std::size_t r = 0; r < static_cast<std::size_t>(s.size); ++r) {
      const auto mine = contribution(r, s.size);
      std::fill_n(v_.begin() + static_cast<std::ptrdiff_t>(r * blocks), s.blocks, mine);
      all += mine;
    }
    for (const auto* arrows : {&s.reduce, &s.gather})
      for (std::size_t i = 0; i < arrows->size();) {
        before_ = v_;
        for (const int round = (*arrows)[i].round; i < arrows->size() && (*arrows)[i].round == round; ++i) {
          const arrow& a = (*arrows)[i];
          for (int k = 0; k < a.blocks.count; ++k) {
            const auto b = static_cast<std::size_t>((a.blocks.first + k) % s.blocks);
            const auto sent = before_[static_cast<std::size_t>(a.from) * blocks + b];
            auto& held = v_[static_cast<std::size_t>(a.to) * blocks + b];
            held = a.then == on_receive::add ? held + sent : sent;
          }
        }
      }
    return std::all_of(v_.begin(), v_.end(), [&](auto x) { return x == all; });
  }

 private:
  std::vector<std::uint64_t> v_, before_;
};

enum fault {
  dropped,
  doubled,
  wrong_peer,
  wrong_sender,
  wrong_block,
  wrong_length,
  late,
  early,
  wrong_then,
  turned,
  kinds
};

// False when this arrow cannot be broken so.
bool break_arrow(std::vector<arrow>& arrows, std::size_t i, int how, const schedule& s) {
  arrow& a = arrows[i];
  const arrow good = a;
  switch (how) {
    case dropped:
      arrows.erase(arrows.begin() + static_cast<std::ptrdiff_t>(i));
      return true;
    case doubled:
      arrows.push_back(arrow(a));
      break;
    case wrong_peer:
      a.to = (a.to + 1) % s.size;
      break;
    case wrong_sender:
      a.from = (a.from + 1) % s.size;
      break;
    case wrong_block:
      a.blocks.first = (a.blocks.first + 1) % s.blocks;
      if (a.blocks.count == s.blocks) return false;
      break;
    case wrong_length:
      a.blocks.count += a.blocks.count < s.blocks ? 1 : -1;
      break;
    case late:
      ++a.round;
      break;
    case early:
      --a.round;
      break;
    case wrong_then:
      a.then = a.then == on_receive::add ? on_receive::replace : on_receive::add;
      break;
    default:
      std::swap(a.from, a.to);
  }
  sort(arrows);
  return how == doubled || !(a == good);
}

}  // namespace

TEST_CASE("every arrow broken in ten ways: the schedule is refused, or comes out right all the same") {
  int refused[kinds] = {}, harmless[kinds] = {}, missed = 0;
  plain_sums sums;
  for (const auto& e : zoo::all())
    for (int size : {2, 3, 4, 5, 6, 7, 8, 9, 10, 13, 16, 17}) {
      const schedule good = e.derive(size);
      INFO(e.name(), " among ", size);
      REQUIRE(bool(verify(good)));
      REQUIRE(sums.come_out_right(good));
      const auto judge = [&](const schedule& s, int how, std::size_t i) {
        if (!verify(s)) {
          ++refused[how];
          return;
        }
        ++harmless[how];
        if (sums.come_out_right(s)) return;
        ++missed;
        FAIL_CHECK("accepted with arrow ", i, " broken in way ", how, ", and the sums are wrong");
      };
      schedule s = good;
      for (int how = 0; how < kinds; ++how) {
        for (std::size_t i = 0; i < good.reduce.size(); ++i) {
          s.reduce = good.reduce, s.gather = good.gather;
          if (!break_arrow(s.reduce, i, how, s)) continue;
          if (s.scattered) s.gather = backwards(s.reduce);  // the algorithm's line is wrong, and so is the way back
          judge(s, how, i);
        }
        s.reduce = good.reduce;
        for (std::size_t i = 0; i < good.gather.size(); ++i) {
          s.gather = good.gather;
          if (break_arrow(s.gather, i, how, s)) judge(s, how, i);
        }
      }
    }
  CHECK(missed == 0);
  // No arrow can be spared and none doubled, and none added where it ought to replace.
  CHECK(harmless[dropped] == 0);
  CHECK(harmless[doubled] == 0);
  int all_refused = 0, all_harmless = 0;
  for (int how = 0; how < kinds; ++how) all_refused += refused[how], all_harmless += harmless[how];
  MESSAGE("broken schedules refused: ", all_refused, "; accepted, and right: ", all_harmless, " (late ", harmless[late],
          ", early ", harmless[early], ", another peer ", harmless[wrong_peer], ", another sender ",
          harmless[wrong_sender], ", turned ", harmless[turned], ", add or replace ", harmless[wrong_then],
          ", another block ", harmless[wrong_block], ", another length ", harmless[wrong_length], ")");
  CHECK(all_refused > 200'000);
  CHECK(all_harmless < all_refused / 5);  // mostly another round, or the other direction of a swap
}
