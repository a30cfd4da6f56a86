#include "dpsgd/data/schema.hpp"

#include <doctest/doctest.h>

using namespace dpsgd;

TEST_CASE("a numeric column is clamped and scaled to [-1, 1]") {
  const auto linear = schema{}.numeric("x", -10, 30);
  CHECK(linear.width() == 1);
  for (const auto& [value, expected] : {std::pair{-10.0, -1.0}, {30.0, 1.0}, {10.0, 0.0}, {-1e9, -1.0}, {1e9, 1.0}})
    CHECK(linear.encode(std::vector<double>{value})[0] == doctest::Approx(expected));
  const auto bent = schema{}.numeric("x", -1000, 1e6, scale::signed_log);
  const auto log = [](double x) { return x < 0 ? -std::log(1 - x) : std::log(1 + x); };
  for (const double x : {-1000.0, -5.0, 0.0, 1.0, 12345.0, 1e6, 1e7, -1e7}) {
    const double inside = std::min(1e6, std::max(-1000.0, x));
    CHECK(bent.encode(std::vector<double>{x})[0] ==
          doctest::Approx(2 * (log(inside) - log(-1000)) / (log(1e6) - log(-1000)) - 1).epsilon(1e-6));
  }
}

TEST_CASE("with cuts, each interval has a feature that runs from -1 to 1 inside it") {
  const auto s = schema{}.numeric("x", 0, 10, {.cuts = {1, 2, 5}});
  CHECK(s.width() == 4);
  CHECK(s.encode(std::vector<double>{0.0}) == std::vector<float>{-1, -1, -1, -1});
  CHECK(s.encode(std::vector<double>{1.0}) == std::vector<float>{1, -1, -1, -1});
  CHECK(s.encode(std::vector<double>{99.0}) == std::vector<float>{1, 1, 1, 1});
  const auto middle = s.encode(std::vector<double>{3.5});
  CHECK(middle[1] == 1);
  CHECK(middle[2] == doctest::Approx(0).epsilon(1e-6));
  CHECK(middle[3] == -1);
  // Weighted by the intervals' widths they add up to the scaled value: nothing is lost.
  for (double x = 0; x <= 10; x += 0.37) {
    const auto f = s.encode(std::vector<double>{x});
    CHECK((1 * f[0] + 1 * f[1] + 3 * f[2] + 5 * f[3]) / 10 == doctest::Approx(x / 5 - 1).epsilon(1e-6));
  }
  for (const auto scaling : {scale::linear, scale::signed_log}) {
    const auto both = schema{}.numeric("x", -100, 1e6, scaling, {.cuts = {-1, 0, 1, 1000}});
    CHECK(both.encode(std::vector<double>{0.0}) == std::vector<float>{1, 1, -1, -1, -1});
    for (const double x : {-1e9, -50.0, -0.3, 0.2, 77.0, 5e5, 1e9})
      for (const float f : both.encode(std::vector<double>{x})) CHECK(std::abs(f) <= 1);
  }
}

TEST_CASE("categories and binaries, in the schema's order, and defaults for what is missing") {
  const auto s = schema{}
                     .binary("b", {.missing = 1})
                     .label("y")
                     .categorical("c", -1, 1, {.missing = 0})
                     .numeric("x", 0, 2, {.missing = 2});
  CHECK(s.width() == 5);
  CHECK(s.classes() == 2);
  CHECK(s.encode(std::vector<double>{0.0, -1.0, 1.0}) == std::vector<float>{-1, 1, 0, 0, 0});
  CHECK(s.encode(std::vector<double>(3, NAN)) == std::vector<float>{1, 0, 1, 0, 1});
  CHECK_THROWS_WITH_AS(s.encode(std::vector<double>{0.0, 2.0, 1.0}),
                       doctest::Contains("\"c\": 2 is not an integer from -1 to 1"), error);
  CHECK_THROWS_WITH_AS(s.encode(std::vector<double>{0.5, 1.0, 1.0}), doctest::Contains("is not 0 or 1"), error);
  CHECK_THROWS_WITH_AS(s.encode(std::vector<double>{0.0, 1.0, INFINITY}), doctest::Contains("finite"), error);
  CHECK_THROWS_WITH_AS(s.encode(std::vector<double>{0.0, 1.0}), doctest::Contains("3 columns of features; got 2"),
                       error);
}

TEST_CASE("labels: two classes, several, a number") {
  CHECK(schema{}.label("y").label_kind() == label_kind::two_classes);
  const auto several = schema{}.class_label("y", 1, 16);
  CHECK(several.classes() == 16);
  CHECK(several.the_label().encode(3) == 2);
  CHECK(several.the_label().value(2) == 3);
  const auto number = schema{}.value_label("y", -10, 1000, scale::signed_log);
  CHECK(number.classes() == 1);
  CHECK(number.label_kind() == label_kind::regression);
  for (const double y : {-10.0, -1.0, 0.0, 5.0, 1000.0})
    CHECK(number.the_label().value(number.the_label().encode(y)) == doctest::Approx(y).epsilon(1e-5));
}

TEST_CASE("schemas that contradict themselves are refused") {
  const auto base = schema{}.label("y").numeric("x", 0, 1);
  const auto refused = [](auto&& make, const char* message) {
    CHECK_THROWS_WITH_AS(static_cast<void>(make()), doctest::Contains(message), error);
  };
  refused([&] { return base.numeric("x", 0, 1); }, "names column \"x\" twice");
  refused([&] { return base.binary("y"); }, "names column \"y\" twice");
  refused([&] { return base.label("z"); }, "two labels: \"y\" and \"z\"");
  refused([&] { return base.binary(""); }, "no name");
  refused([&] { return base.numeric("z", 1, 1); }, "min < max");
  refused([&] { return base.numeric("z", 0, INFINITY); }, "min < max");
  refused([&] { return base.numeric("z", NAN, 1); }, "min < max");
  refused([&] { return base.numeric("z", 0, 1, {.missing = 2}); }, "default 2 lies outside");
  refused([&] { return base.numeric("z", 0, 1, {.missing = NAN}); }, "default nan lies outside");
  refused([&] { return base.numeric("z", 0, 9, {.cuts = {3, 2}}); }, "cuts must ascend");
  refused([&] { return base.numeric("z", 0, 9, {.cuts = {0}}); }, "cuts must ascend");
  refused([&] { return base.numeric("z", 0, 9, {.cuts = {9}}); }, "cuts must ascend");
  refused([&] { return base.numeric("z", 0, 9, {.cuts = {NAN}}); }, "cuts must ascend");
  refused([&] { return base.categorical("z", 1, 1); }, "2 to 65536 categories");
  refused([&] { return base.categorical("z", 1, 1000000); }, "2 to 65536 categories");
  refused([&] { return base.categorical("z", 1, 3, {.missing = 4}); }, "default 4 is not an integer from 1 to 3");
  refused([&] { return base.binary("z", {.missing = 0.5}); }, "default 0.5 is not 0 or 1");
  refused([&] { return schema{}.value_label("z", 2, 1); }, "min < max");
  refused([&] { return schema{}.numeric("z", 0, 1).the_label(); }, "has no label");
}
