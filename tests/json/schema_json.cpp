#include "dpsgd/data/schema_json.hpp"

#include <doctest/doctest.h>

#include "dpsgd/data/csv.hpp"

using namespace dpsgd;

namespace {

std::string refusal(const std::string& json) {
  try {
    parse_schema(json, "s.json");
    return "accepted";
  } catch (const error& e) {
    return e.what();
  }
}

const std::string label = R"({"name": "y", "kind": "label"})";
std::string with(const std::string& column) { return R"({"columns": [)" + label + ", " + column + "]}"; }

}  // namespace

TEST_CASE("a schema from JSON reads as the one from code") {
  const auto json = parse_schema(R"({"comment": "bounds of the codebook", "columns": [
    {"name": "y", "kind": "label"},
    {"name": "age", "kind": "numeric", "min": 0, "max": 120, "cuts": [25, 45.5], "default": 40},
    {"name": "income", "kind": "numeric", "min": -1e4, "max": 1000000, "scale": "signed_log", "comment": "dollars"},
    {"name": "educ", "kind": "categorical", "min": 1, "max": 4, "default": 2},
    {"name": "sex", "kind": "binary", "default": 1}]})");
  const auto code = schema{}
                        .label("y")
                        .numeric("age", 0, 120, {.missing = 40, .cuts = {25, 45.5}})
                        .numeric("income", -1e4, 1e6, scale::signed_log)
                        .categorical("educ", 1, 4, {.missing = 2})
                        .binary("sex", {.missing = 1});
  REQUIRE(json.width() == code.width());
  const std::string csv = "y,age,income,educ,sex\n0,NA,100,,NA\n1,33,-5,4,0\n1,99,5e5,1,1\n";
  const auto a = parse_csv(csv, json), b = parse_csv(csv, code);
  for (std::size_t i = 0; i < 3; ++i)
    for (std::size_t k = 0; k < code.width(); ++k) CHECK(a.features()(i, k) == b.features()(i, k));
}

TEST_CASE("owners from JSON") {
  const auto owned =
      parse_schema(with(R"({"name": "x", "kind": "binary"}, {"name": "who", "kind": "owner", "rows": 4})"));
  CHECK(owned.owner() == "who");
  CHECK(owned.rows_per_owner() == 4);
  CHECK(owned.width() == 1);
}

TEST_CASE("labels from JSON") {
  const auto x = std::string(R"({"name": "x", "kind": "binary"})");
  const auto of = [&](const std::string& keys) {
    return parse_schema(R"({"columns": [{"name": "y", "kind": "label")" + keys + "}, " + x + "]}").the_label();
  };
  CHECK(of("").kind() == label_kind::two_classes);
  CHECK(of(R"(, "classes": 5)").classes() == 5);
  CHECK(of(R"(, "classes": 5)").encode(4) == 4);
  CHECK(of(R"(, "classes": 16, "min": 1)").encode(16) == 15);
  CHECK(of(R"(, "min": -1, "max": 3)").kind() == label_kind::regression);
  CHECK(of(R"(, "min": -1, "max": 3)").encode(1) == 0);
}

TEST_CASE("what is wrong with a schema is said with file and column") {
  struct bad {
    std::string json, message;
  };
  for (const auto& b : std::vector<bad>{
           {"{", "s.json: this is no JSON, or not of the right types: parse error at line 1"},
           {"[]", "s.json: expected {\"columns\""},
           {R"({"columns": {}})", "expected {\"columns\""},
           {R"({"columns": [], "rows": 1})", "unknown key \"rows\""},
           {R"({"columns": []})", "the schema has no label"},
           {R"({"columns": [)" + label + "]}", "no column of features"},
           {with("3"), "s.json: column 2: expected an object"},
           {with(R"({"kind": "binary"})"), "s.json: column 2: the key \"name\" is missing"},
           {with(R"({"name": 5, "kind": "binary"})"), "column 2: \"name\" must be a string; got 5"},
           {with(R"({"name": "x"})"), "s.json: column \"x\": the key \"kind\" is missing"},
           {with(R"({"name": "x", "kind": "number"})"), "column \"x\": unknown kind \"number\"; expected \"numeric\""},
           {with(R"({"name": "x", "kind": "numeric", "min": 0})"), "column \"x\": the key \"max\" is missing"},
           {with(R"({"name": "x", "kind": "numeric", "min": "0", "max": 1})"), "\"min\" must be a number; got \"0\""},
           {with(R"({"name": "x", "kind": "numeric", "min": 2, "max": 1})"), "s.json: column \"x\": the bounds"},
           {with(R"({"name": "x", "kind": "numeric", "min": 0, "max": 1, "mim": 2})"), "unknown key \"mim\" for kind"},
           {with(R"({"name": "x", "kind": "numeric", "min": 0, "max": 1, "scale": "log"})"), "unknown scale \"log\""},
           {with(R"({"name": "x", "kind": "numeric", "min": 0, "max": 1, "cuts": 3})"), "\"cuts\" must be a list"},
           {with(R"({"name": "x", "kind": "numeric", "min": 0, "max": 1, "cuts": ["a"]})"), "\"cuts\" must be a list"},
           {with(R"({"name": "x", "kind": "numeric", "min": 0, "max": 1, "cuts": [2]})"), "cuts must ascend"},
           {with(R"({"name": "x", "kind": "numeric", "min": 0, "max": 1e999})"),
            "s.json: this is no JSON, or not of the right types: number overflow"},
           {with(R"({"name": "x", "kind": "categorical", "min": 0.5, "max": 3})"), "\"min\" must be an integer"},
           {with(R"({"name": "x", "kind": "categorical", "min": 0, "max": 3, "scale": "linear"})"), "unknown key"},
           {with(R"({"name": "x", "kind": "binary", "default": 2})"), "column \"x\": the default 2 is not 0 or 1"},
           {with(R"({"name": "y", "kind": "binary"})"), "s.json: the schema names column \"y\" twice"},
           {with(R"({"name": "z", "kind": "label"})"), "two labels"},
           {with(R"({"name": "z", "kind": "label", "min": 0})"), "column \"z\": the key \"max\" is missing"},
       }) {
    CAPTURE(b.json);
    const auto got = refusal(b.json);
    CHECK_MESSAGE(got.find(b.message) != got.npos, got, "\nexpected: ", b.message);
  }
  CHECK_THROWS_WITH_AS(read_schema("/nonexistent/s.json"),
                       doctest::Contains("cannot read the schema /nonexistent/s.json"), error);
}
