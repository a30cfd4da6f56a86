#include "dpsgd/data/dataset.hpp"

#include <doctest/doctest.h>

#include <numeric>
#include <string>

using namespace dpsgd;

namespace {

struct place {
  int me, of;
  int rank() const { return me; }
  int size() const { return of; }
};

/// Rows 0, 1, .. of the file, of which every `gap`-th is missing (none when 0); row p has the features (p, -p).
dataset numbered(std::size_t universe, std::size_t gap = 0) {
  dataset::contents c;
  c.features = float_array(universe * 2), c.labels = float_array(universe);
  std::vector<std::uint64_t> bits((universe + 63) / 64);
  std::size_t row = 0;
  for (std::size_t p = 0; p < universe; ++p) {
    if (gap && p % gap == gap - 1) continue;
    bits[p / 64] |= std::uint64_t{1} << p % 64;
    c.features.data()[2 * row] = static_cast<float>(p), c.features.data()[2 * row + 1] = -static_cast<float>(p);
    c.labels.data()[row++] = static_cast<float>(p % 2);
  }
  c.width = 2, c.universe = c.rows = universe;
  c.positions = gap ? position_set::of_bits(std::move(bits)) : position_set::range(0, universe);
  return dataset(std::move(c));
}

/// Every record sits where its position says, and can be found by it.
void check_places(const dataset& data) {
  REQUIRE(data.features().rows == data.records());
  std::uint64_t found = 0;
  for (std::size_t i = 0; i < data.records(); ++i) {
    const auto p = data.position(i);
    REQUIRE(data.features()(i, 0) == static_cast<float>(p));
    REQUIRE(data.features()(i, 1) == -static_cast<float>(p));
    REQUIRE(data.labels()[i] == static_cast<float>(p % 2));
    if (i) REQUIRE(data.position(i - 1) < p);
  }
  for (std::uint64_t p = 0; p < data.universe() + 130; ++p)
    if (const auto i = data.locate(p); i >= 0) {
      REQUIRE(data.position(static_cast<std::size_t>(i)) == p);
      ++found;
    }
  REQUIRE(found == data.records());
}

}  // namespace

TEST_CASE("a split partitions the records, whether it works in place or on a copy") {
  for (const std::size_t universe : {0, 1, 2, 63, 64, 65, 1000, 4096})
    for (const std::size_t gap : {0, 2, 7}) {
      auto whole = numbered(universe, gap);
      check_places(whole);
      const auto copied = split(whole, {.test_fraction = 0.3, .seed = 5});
      check_places(whole);
      const auto moved = split(std::move(whole), {.test_fraction = 0.3, .seed = 5});
      for (const auto* parts : {&copied, &moved}) {
        check_places(parts->train), check_places(parts->test);
        CHECK(parts->train.all() + parts->test.all() == universe);
        CHECK(parts->train.records() + parts->test.records() + (gap ? universe / gap : 0) == universe);
        CHECK(parts->train.dropped() + parts->test.dropped() == (gap ? universe / gap : 0));
        CHECK(parts->train.records() + parts->train.dropped() == parts->train.all());
      }
      CHECK(copied.test.positions() == moved.test.positions());
      const auto again = split(moved.train, {.test_fraction = 0.5, .seed = 5});  // validation: a stream of its own
      check_places(again.train), check_places(again.test);
      CHECK(again.train.all() + again.test.all() == moved.train.all());
      if (universe == 4096) CHECK(again.test.records() > 500);
    }
}

TEST_CASE("dropping rows moves no other row to the other side") {
  const auto clean = split(numbered(3000), {.test_fraction = 0.2, .seed = 9});
  const auto holes = split(numbered(3000, 3), {.test_fraction = 0.2, .seed = 9});
  CHECK(clean.train.all() == holes.train.all());
  for (std::uint64_t p = 0; p < 3000; ++p) {
    if (p % 3 == 2) continue;
    CHECK((clean.test.locate(p) >= 0) == (holes.test.locate(p) >= 0));
    CHECK((clean.train.locate(p) >= 0) == (holes.train.locate(p) >= 0));
  }
}

// The test side of n rows is Binomial(n, f). It leaves 6 standard deviations with probability below 2e-9 a check; 30
// checks: below 1e-7. It cannot show that sides are independent of one another, which rests on ChaCha20.
TEST_CASE("the test fraction is right") {
  for (int seed = 0; seed < 10; ++seed)
    for (const double f : {0.01, 0.2, 0.9}) {
      const auto [train, test] = split(numbered(20000), {.test_fraction = f, .seed = static_cast<std::uint64_t>(seed)});
      CHECK(std::abs(static_cast<double>(test.records()) - 20000 * f) < 6 * std::sqrt(20000 * f * (1 - f)));
    }
  CHECK(split(numbered(1000), {.test_fraction = 0}).test.records() == 0);
}

TEST_CASE("the split is the documented function of seed and position") {
  const auto [train, test] = split(numbered(5000), {.test_fraction = 0.25, .seed = 77});
  const random_stream stream{random_key::from_seed(77), domain::split, 0, 0};
  for (std::uint32_t p = 0; p < 5000; ++p) CHECK((stream.block(p / 16)[p % 16] < 0x40000000u) == (test.locate(p) >= 0));
}

TEST_CASE("shards partition the records in order and keep the public counts") {
  for (const std::size_t gap : {0, 5})
    for (const int size : {1, 2, 3, 7, 40}) {
      const auto train = split(numbered(200, gap)).train;
      std::vector<std::uint64_t> positions;
      std::uint64_t dropped = 0;
      for (int rank = 0; rank < size; ++rank) {
        const auto mine = shard(train, place{rank, size});
        check_places(mine);
        CHECK(mine.all() == train.all());
        CHECK(mine.universe() == 200);
        CHECK(mine.records() >= train.records() / static_cast<std::size_t>(size));
        dropped += mine.dropped();
        for (const auto p : mine.positions()) positions.push_back(p);
      }
      CHECK(positions == train.positions());
      CHECK(dropped == train.dropped());
    }
  CHECK_THROWS_WITH_AS(shard(numbered(3), place{0, 4}),
                       doctest::Contains("more ranks than records: 4 ranks, 3 records"), error);
  const auto inner = shard(shard(numbered(90, 9), place{1, 2}), place{1, 2});  // a shard of a shard
  check_places(inner);
  CHECK(inner.position(0) == 67);
  CHECK(inner.records() == 20);
  CHECK(inner.dropped() == 3);
  const auto half = shard(numbered(100), place{1, 2});  // a shard can be split, too
  check_places(split(half, {.test_fraction = 0.5}).test);
  auto alone = shard(numbered(100), place{1, 2});
  const auto parts = split(std::move(alone), {.test_fraction = 0.5});
  check_places(parts.train), check_places(parts.test);
}

TEST_CASE("a dataset from the user's floats") {
  const std::vector<float> x = {1, 2, 3, 4, 5, 6}, y = {0, 1, 1};
  for (const auto& data : {dataset::from(x, 2, y), dataset::view(x, 2, y)}) {
    CHECK(data.records() == 3);
    CHECK(data.features()(2, 1) == 6);
    CHECK(data.universe() == 3);
    CHECK(data.all() == 3);
    CHECK(data.dropped() == 0);
    CHECK(!constant_label(data));
    CHECK(data.digest() == dataset::from(x, 2, y).digest());
    CHECK(data.digest() != dataset::from(x, 1, std::vector<float>(6, 0.0f)).digest());
  }
  CHECK(dataset::view(x, 2, y).features().data == x.data());
  CHECK(dataset::from(x, 2, y, label_kind::regression).classes() == 1);
  CHECK(constant_label(dataset::from(x, 2, std::vector<float>{1, 1, 1})));
  const auto apart = split(dataset::view(x, 2, y), {.test_fraction = 0.5});  // copies: the user's floats stay
  CHECK(apart.train.records() + apart.test.records() == 3);
  CHECK(x == std::vector<float>{1, 2, 3, 4, 5, 6});

  CHECK_THROWS_WITH_AS(dataset::from(x, 4, y), doctest::Contains("6 floats are not 3 rows"), error);
  CHECK_THROWS_WITH_AS(dataset::from(x, 0, y), doctest::Contains("at least one feature"), error);
  CHECK_THROWS_WITH_AS(dataset::from(x, 2, std::vector<float>{0, 1, 2}), doctest::Contains("label of row 2"), error);
  CHECK_THROWS_WITH_AS(dataset::from(x, 2, y, label_kind::classes, 1), doctest::Contains("at least 2"), error);
  CHECK_THROWS_WITH_AS(dataset::from(std::vector<float>{1, NAN}, 1, std::vector<float>{0, 1}),
                       doctest::Contains("feature 0 of row 1"), error);
}

TEST_CASE("a digest depends on every byte and on the length") {
  std::vector<unsigned char> bytes(600000);
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<unsigned char>(i * 7 + i / 256);
  const auto whole = digest_of(bytes.data(), bytes.size());
  CHECK(whole.hex().size() == 32);
  for (std::size_t at = 0; at < bytes.size(); at += 4999) {
    bytes[at] ^= 1;
    CHECK(digest_of(bytes.data(), bytes.size()) != whole);
    bytes[at] ^= 1;
  }
  CHECK(digest_of(bytes.data(), bytes.size()) == whole);
  const std::vector<unsigned char> zeros(200);
  for (std::size_t n = 1; n < 200; ++n) CHECK(digest_of(zeros.data(), n) != digest_of(zeros.data(), n - 1));
}
