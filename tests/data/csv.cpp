#include "dpsgd/data/csv.hpp"

#include <doctest/doctest.h>
#include <unistd.h>

#include <clocale>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <locale>
#include <map>

#include "support.hpp"

using namespace dpsgd;

namespace {

const auto people = schema{}.label("employed").numeric("age", 0, 100).categorical("educ", 1, 3).binary("sex");
// Features of a row: age, educ = 1, educ = 2, educ = 3, sex.

/// All of a dataset that a reader decides: bits of the floats, places and public counts.
std::string fingerprint(const dataset& data) {
  std::string out = text(data.records(), ' ', data.width(), ' ', data.universe(), ' ', data.all(), ' ', data.dropped(),
                         ' ', data.digest().hex(), '\n');
  const auto x = data.features();
  for (std::size_t i = 0; i < data.records(); ++i) {
    out += text(data.position(i), ':', data.labels()[i]);
    for (std::size_t k = 0; k < data.width(); ++k) out += text(' ', x(i, k));
    out += '\n';
  }
  return out;
}

/// What reading this text gives: its fingerprint, or the message. The text sits in memory of exactly its size, so that
/// the address sanitizer sees any step outside.
std::string outcome(const std::string& content, const schema& columns, const csv_options& options = {}) {
  const std::vector<char> exact(content.begin(), content.end());
  try {
    return fingerprint(parse_csv({exact.data(), exact.size()}, columns, options, "f.csv"));
  } catch (const error& e) {
    return e.what();
  }
}

using rows = std::vector<std::vector<float>>;
rows matrix(const dataset& data) {
  rows out;
  for (std::size_t i = 0; i < data.records(); ++i) {
    out.emplace_back(data.features().row(i), data.features().row(i) + data.width());
    out.back().push_back(data.labels()[i]);
  }
  return out;
}

/// Small random choices for generated files.
struct dice {
  random_words words;
  explicit dice(std::uint64_t seed) : words({random_key::from_seed(seed), domain::user}) {}
  std::size_t below(std::size_t n) { return static_cast<std::size_t>(words.below(n)); }
  bool one_in(std::size_t n) { return below(n) == 0; }
};

struct style {
  std::string line_end = "\n";
  bool quotes = false, blanks = false, mark = false, last_end = true, exponents = false, ignored = false;
  std::size_t trailing = 0, shuffle = 0;
};

/// A table, and what reading it should give by the schema's definition, worked out from the values.
struct table {
  std::vector<std::vector<std::string>> fields;  // age, educ, sex, employed
  rows expected;

  table(std::size_t n, dice& die) {
    for (std::size_t i = 0; i < n; ++i) {
      char age[40];
      switch (die.below(4)) {
        case 0:
          std::snprintf(age, sizeof age, "%d", static_cast<int>(die.below(130)) - 10);
          break;
        case 1:
          std::snprintf(age, sizeof age, "%.3f", 100 * die.words.uniform());
          break;
        case 2:
          std::snprintf(age, sizeof age, "%.17g", 100 * die.words.uniform());
          break;
        default:
          std::snprintf(age, sizeof age, "%.4e", 100 * die.words.uniform());
      }
      const auto educ = 1 + die.below(3), sex = die.below(2), employed = die.below(2);
      const double years = std::min(100.0, std::max(0.0, std::strtod(age, nullptr)));
      fields.push_back({age, std::to_string(educ), std::to_string(sex), std::to_string(employed)});
      expected.push_back({static_cast<float>(years * 0.02 - 1), educ == 1 ? 1.0f : 0, educ == 2 ? 1.0f : 0,
                          educ == 3 ? 1.0f : 0, sex ? 1.0f : -1.0f, static_cast<float>(employed)});
    }
  }

  std::string as_text(const style& s, dice& die) const {
    static const std::vector<std::string> names = {"age", "educ", "sex", "employed", "note", "code"};
    static const std::vector<std::string> notes = {
        "",         "\"\"", "plain", "\"a,b\"", "\"two\nlines\"", "\"cr\r\nlf\"", "\"x\ry\"", "\"say \"\"hi\"\"\"",
        "\"\"\"\"", "NA"};
    std::vector<std::size_t> order = {0, 1, 2, 3};
    if (s.ignored) order.push_back(4), order.push_back(5);
    for (std::size_t k = 0; k < s.shuffle; ++k)
      std::swap(order[die.below(order.size())], order[die.below(order.size())]);
    std::string out = s.mark ? "\xEF\xBB\xBF" : "";
    const auto line = [&](auto&& field) {
      for (std::size_t k = 0; k < order.size(); ++k) out += (k ? "," : "") + field(order[k]);
      out += s.line_end;
    };
    line([&](std::size_t c) { return s.quotes && die.one_in(2) ? '"' + names[c] + '"' : names[c]; });
    for (const auto& row : fields)
      line([&](std::size_t c) -> std::string {
        if (c >= 4) return notes[die.below(notes.size())];
        std::string field = row[c];
        if (s.exponents && die.one_in(3) && field.find_first_of(".e") == field.npos)
          field = die.one_in(2) ? field + "e+00" : field + "0E-1";
        if (s.blanks && die.one_in(3)) field += " ";
        if (s.blanks && !s.quotes && die.one_in(3)) field = " \t" + field;
        if (s.quotes && die.one_in(2)) field = '"' + field + '"';
        return field;
      });
    if (!s.last_end) out.erase(out.size() - s.line_end.size());
    for (std::size_t k = 0; k < s.trailing; ++k) out += s.line_end;
    return out;
  }
};

void check_close(const rows& got, const rows& expected) {
  REQUIRE(got.size() == expected.size());
  for (std::size_t i = 0; i < got.size(); ++i)
    for (std::size_t k = 0; k < got[i].size(); ++k) REQUIRE(std::abs(got[i][k] - expected[i][k]) <= 2e-7f);
}

style random_style(dice& die) {
  static const std::string ends[] = {"\n", "\r\n", "\r"};
  style s;
  s.line_end = ends[die.below(3)];
  s.quotes = die.one_in(2), s.blanks = die.one_in(2), s.mark = die.one_in(2), s.last_end = die.one_in(2);
  s.exponents = die.one_in(2), s.ignored = die.one_in(2);
  s.trailing = die.below(3), s.shuffle = die.below(9);
  return s;
}

}  // namespace

TEST_CASE("one file by hand") {
  const auto data = parse_csv(
      "name,sex,age,educ,employed\n"
      "Ann,0,25,1,1\n"
      "\"Bo, Jr.\",1,1e+02,3,0\n"
      "Cy,1,-7,2,1\n",
      people);
  CHECK(matrix(data) == rows{{-0.5f, 1, 0, 0, -1, 1}, {1, 0, 0, 1, 1, 0}, {-1, 0, 1, 0, 1, 1}});
  CHECK(data.universe() == 3);
  CHECK(data.all() == 3);
  CHECK(data.label_kind() == label_kind::two_classes);
}

TEST_CASE("any style of any table gives the table") {
  dice die(1);
  for (int k = 0; k < 1500; ++k) {
    const table t(1 + die.below(30), die);
    const auto content = t.as_text(random_style(die), die);
    CAPTURE(content);
    check_close(matrix(parse_csv(content, people)), t.expected);
  }
}

TEST_CASE("threads change nothing, and the parts make up the whole") {
  dice die(2);
  for (int k = 0; k < (test::under_tsan ? 60 : 300); ++k) {
    const std::size_t n = 1 + die.below(40);
    const table t(n, die);
    auto content = t.as_text(random_style(die), die);
    const auto policy = die.one_in(2) ? bad_rows::drop : bad_rows::error;
    if (policy == bad_rows::drop)
      for (int spoil = 0; spoil < 3; ++spoil) content[content.size() / 2 + die.below(content.size() / 2)] = 'x';
    CAPTURE(content);
    const auto whole = outcome(content, people, {.bad_rows = policy});
    for (const int threads : {2, 3, 8, 50})
      CHECK(outcome(content, people, {.threads = threads, .bad_rows = policy}) == whole);
    if (whole.find("f.csv") == 0) continue;
    const auto data = parse_csv(content, people, {.bad_rows = policy});
    for (const int parts : {1, 2, 5}) {
      if (static_cast<std::uint64_t>(parts) > data.universe()) continue;
      rows joined;
      std::vector<std::uint64_t> positions;
      std::uint64_t dropped = 0;
      for (int part = 0; part < parts; ++part) {
        const auto mine = parse_csv(content, people, {.threads = 2, .part = part, .parts = parts, .bad_rows = policy});
        for (auto& row : matrix(mine)) joined.push_back(row);
        for (const auto p : mine.positions()) positions.push_back(p);
        dropped += mine.dropped();
        CHECK(mine.universe() == data.universe());
        CHECK(mine.all() == data.all());
        CHECK(mine.digest() == data.digest());
        const auto sides = split(mine, {.test_fraction = 0.3}), sides_of_all = split(data, {.test_fraction = 0.3});
        CHECK(sides.test.all() == sides_of_all.test.all());
        for (const auto p : sides.test.positions()) CHECK(sides_of_all.test.locate(p) >= 0);
      }
      CHECK(joined == matrix(data));
      CHECK(positions == data.positions());
      CHECK(dropped == data.dropped());
    }
  }
}

TEST_CASE("a text of many blocks, with and without quoted line ends") {
  dice die(3);
  for (const bool ignored : {false, true})
    for (const std::string line_end : {"\n", "\r\n", "\r"}) {
      style s;
      s.line_end = line_end, s.ignored = ignored, s.last_end = false;
      const table t(40000, die);
      const auto content = t.as_text(s, die);
      REQUIRE(content.size() > 2 * detail::digest_block);
      const auto data = parse_csv(content, people);
      check_close(matrix(data), t.expected);
      for (const int threads : {2, 5}) {
        const auto again = parse_csv(content, people, {.threads = threads});
        CHECK(matrix(again) == matrix(data));
        CHECK(again.digest() == data.digest());
      }
      CHECK(data.digest() == digest_of(content.data(), content.size()));
    }
}

// Thousands of broken files: nothing but a dataset or a dpsgd::error comes out, the same for any number of threads.
// Under the sanitizers this also shows that no byte outside the text is read.
TEST_CASE("mutated files are read alike by any number of threads, or refused") {
  dice die(4);
  const std::string alphabet = std::string("\"\"\"\",,\r\n\n 019.eE+-NAnaninf\t\xEF\xBB\xBF\xff") + '\0';
  int read = 0, refused = 0;
  for (int k = 0; k < (test::under_tsan ? 1000 : 5000); ++k) {
    const table t(1 + die.below(6), die);
    auto content = t.as_text(random_style(die), die);
    for (auto changes = 1 + die.below(3); changes > 0 && !content.empty(); --changes) {
      const auto at = die.below(content.size());
      switch (die.below(4)) {
        case 0:
          content[at] = alphabet[die.below(alphabet.size())];
          break;
        case 1:
          content.insert(at, 1, alphabet[die.below(alphabet.size())]);
          break;
        case 2:
          content.erase(at, 1 + die.below(3));
          break;
        default:
          content.resize(at);
      }
    }
    const auto policy = die.one_in(2) ? bad_rows::drop : bad_rows::error;
    const auto whole = outcome(content, people, {.bad_rows = policy});
    CAPTURE(content);
    REQUIRE(outcome(content, people, {.threads = 2, .bad_rows = policy}) == whole);
    REQUIRE(outcome(content, people, {.threads = 5, .bad_rows = policy}) == whole);
    ++(whole.find("[dpsgd/") == whole.npos ? read : refused);
  }
  CHECK(read > 100);
  CHECK(refused > 100);
}

TEST_CASE("plain numbers are the nearest doubles") {
  dice die(5);
  for (int k = 0; k < 200000; ++k) {
    char field[64];
    const auto digits = 1 + die.below(17);
    std::string number = die.one_in(2) ? "-" : "";
    const auto point = die.below(digits + 3);
    for (std::size_t d = 0; d < digits; ++d) {
      if (d == point) number += '.';
      number += static_cast<char>('0' + die.below(10));
    }
    std::snprintf(field, sizeof field, "%s,", number.c_str());
    double value = -1;
    const auto* end = detail::plain_number(field, value);
    if (!end) continue;
    REQUIRE(*end == ',');
    REQUIRE(value == std::strtod(number.c_str(), nullptr));
  }
  double value;
  for (const char* bad : {",", "-,", ".,", "-.,", "+1,", "1234567890123456,", "e5,", "\","})
    CHECK(!detail::plain_number(bad, value));
}

TEST_CASE("fields that are read") {
  const auto one = schema{}.label("y").numeric("x", -1e6, 1e6);
  const auto x = [&](const std::string& field) {
    return parse_csv("x,y\n" + field + ",1\n", one).features()(0, 0) * 1e6f;
  };
  struct good {
    std::string field;
    float value;
  };
  for (const auto& g : std::vector<good>{{"200000", 200000},
                                         {"2e+05", 200000},
                                         {"2E5", 200000},
                                         {"+5e5", 500000},
                                         {"\"2e+05\"", 200000},
                                         {" 250000 ", 250000},
                                         {"\" 250000\"", 250000},
                                         {"-.5e6", -500000},
                                         {"250000.", 250000},
                                         {"000000000000000000250000", 250000},
                                         {"250000.00000000000000000000", 250000},
                                         {"1e300", 1e6f},
                                         {"-0", 0}})
    CHECK_MESSAGE(x(g.field) == doctest::Approx(g.value).epsilon(1e-6), g.field);
}

TEST_CASE("bad input gets an error with its place") {
  const std::string head = "age,educ,sex,employed\n";
  struct bad {
    std::string content, message;
  };
  for (const auto& b : std::vector<bad>{
           {"", "f.csv is empty"},
           {"\xEF\xBB\xBF", "f.csv:1:1: the file has no column \"employed\""},
           {head, "f.csv has a header and no records"},
           {"age,educ,sex,employed", "f.csv has a header and no records"},
           {"age,educ,sex,employed\r\n\r\n\n", "f.csv has a header and no records"},
           {"age,educ,gender,employed\n1,1,1,1\n",
            "f.csv:1:1: the file has no column \"sex\" that the schema asks for; its columns are \"age\", \"educ\", "
            "\"gender\", \"employed\""},
           {"age,educ,sex\n1,1,1\n", "no column \"employed\""},
           {"age,educ,sex,employed,age\n1,1,1,1,1\n", "names column \"age\" twice"},
           {"age,\"educ\",sex,\"employed\n1,1,1,1\n", "f.csv:1:16: the header has a quote that is never closed"},
           {"age,ed\"uc,sex,employed\n1,1,1,1\n", "f.csv:1:7: the header has a quote inside the field \"ed\"\""},
           {head + "30,1,0,1\nforty,1,0,1\n", "f.csv:3:1: column \"age\": \"forty\" is not a finite number"},
           {head + "30,4,0,1\n", "f.csv:2:4: column \"educ\": \"4\" is not an integer from 1 to 3"},
           {head + "30,1.5,0,1\n", "f.csv:2:4: column \"educ\": \"1.5\" is not an integer"},
           {head + "30,1,2,1\n", "f.csv:2:6: column \"sex\": \"2\" is not 0 or 1"},
           {head + "30,1,0,2\n", "f.csv:2:8: column \"employed\": \"2\" is not a label: an integer from 0 to 1"},
           {head + "30,1,0,\n", "f.csv:2:8: column \"employed\": the label is missing (\"\"); drop such rows"},
           {head + "NA,1,0,1\n", "f.csv:2:1: column \"age\": the value is missing (\"NA\"); give the column a public"},
           {head + ",1,0,1\n", "the value is missing (\"\")"},
           {head + "nan,1,0,1\n", "\"nan\" is not a finite number"},
           {head + "NaN,1,0,1\n", "\"NaN\" is not a finite number"},
           {head + "-inf,1,0,1\n", "\"-inf\" is not a finite number"},
           {head + "1e999,1,0,1\n", "\"1e999\" is not a finite number"},
           {head + "0x10,1,0,1\n", "\"0x10\" is not a finite number"},
           {head + "1 2,1,0,1\n", "\"1 2\" is not a finite number"},
           {head + "+-1,1,0,1\n", "\"+-1\" is not a finite number"},
           {head + "1,5,1,0,1\n", "f.csv:2:3: column \"educ\": \"5\" is not"},
           {head + "30,1,0,1,9\n", "f.csv:2:10: the row goes on after 4 fields, as many as the header has, with \"9\""},
           {head + "30,1,0\n", "f.csv:2:7: the row ends after 3 fields; the header has 4"},
           {head + "\n30,1,0,1\n", "f.csv:2:1: column \"age\": the value is missing"},
           {head + "30,1,0,1\r\n3\"0,1,0,1\n", "f.csv:3:1: a quote inside the field \"3\"0\""},
           {head + "\"30\"x,1,0,1\n", "f.csv:2:1: a quote inside the field \"\"30\"x\""},
           {head + "30,1,0,1\n\"30,1,0,1\n", "f.csv:3:1: the quote of the field \"\"30,1,0,1"},
           {head + "30,1,0,1\n" + std::string(100, '7') + "x,1,0,1\n",
            "7\"... (101 characters) is not a finite number"},
           {head + "a\x01\tb,1,0,1\n", "\"a\\x01\\x09b\""},
           {"note,age,educ,sex,employed\n\"a\nb\",30,1,0,1\n\"c\r\nd\",x,1,0,1\n", "f.csv:5:4: column \"age\": \"x\""},
           {"age,educ,sex,employed\r30,1,0,1\r30,x,0,1\r", "f.csv:3:4: column \"educ\": \"x\""},
           {"\xEF\xBB\xBF"
            "age,educ,sex,employed\n30,1,0,1\n30,x,0,1\n",
            "f.csv:3:4: column \"educ\": \"x\""},
       }) {
    CAPTURE(b.content);
    for (const int threads : {1, 3}) {
      const auto got = outcome(b.content, people, {.threads = threads});
      CHECK_MESSAGE(got.find(b.message) != got.npos, got, "\nexpected: ", b.message);
    }
  }
  CHECK(outcome(head + "1,1,1,1\n", schema{}.numeric("age", 0, 1)).find("the schema has no label") == 0);
  CHECK(outcome(head + "1,1,1,1\n", people, {.threads = 0}).find("at least one thread") != std::string::npos);
  CHECK(outcome(head + "1,1,1,1\n", people, {.part = 2, .parts = 2}).find("part 2 of 2") != std::string::npos);
  CHECK(outcome(head + "1,1,1,1\n", people, {.part = 0, .parts = 2}).find("more ranks than records") !=
        std::string::npos);
}

TEST_CASE("missing values take the public default") {
  const auto s = schema{}
                     .label("y")
                     .numeric("x", 0, 10, {.missing = 5})
                     .categorical("c", 1, 2, {.missing = 2})
                     .binary("b", {.missing = 0});
  const rows expected = {{0, 0, 1, -1, 1}, {0, 0, 1, -1, 0}, {1, 1, 0, 1, 0}};
  CHECK(matrix(parse_csv("x,c,b,y\n,NA,,1\nNA,\"\",\"NA\",0\n10,1,1,0", s)) == expected);
}

TEST_CASE("bad rows can be dropped, and keep their place") {
  const std::string content =
      "age,educ,sex,employed\n"
      "NA,1,0,1\n"    // 0: dropped
      "0,1,0,1\n"     // 1
      "x,1,0,1\n"     // 2: dropped
      "50,1,0\n"      // 3: dropped
      "50,2,1,0\n"    // 4
      "50,9,1,0\n"    // 5: dropped
      "50,2,1,0,7\n"  // 6: dropped
      "100,3,0,0\n"   // 7
      ",,,\n";        // 8: dropped
  for (const int threads : {1, 2, 4}) {
    const auto data = parse_csv(content, people, {.threads = threads, .bad_rows = bad_rows::drop});
    CHECK(data.positions() == std::vector<std::uint64_t>{1, 4, 7});
    CHECK(data.dropped() == 6);
    CHECK(data.universe() == 9);
    CHECK(data.all() == 9);
    CHECK(matrix(data) == rows{{-1, 1, 0, 0, -1, 1}, {0, 0, 1, 0, 1, 0}, {1, 0, 0, 1, -1, 0}});
    CHECK(data.locate(4) == 1);
    CHECK(data.locate(5) == -1);
  }
  // Wrong quotes leave unclear where rows end: always an error.
  CHECK(outcome("age,educ,sex,employed\nx,1,\"0\"y,1\n", people, {.bad_rows = bad_rows::drop})
            .find("f.csv:2:5: a quote") == 0);
}

TEST_CASE("of each owner the first rows are read, however many threads and parts there are") {
  dice die(6);
  for (int k = 0; k < (test::under_tsan ? 50 : 200); ++k) {
    const int most = 1 + static_cast<int>(die.below(4));
    const auto owned = schema{}.label("employed").numeric("age", 0, 100).binary("sex").owner("educ", most);
    const table t(1 + die.below(30), die);
    auto s = random_style(die);
    s.exponents = false;  // 2e+00 is another owner than 2
    const auto content = t.as_text(s, die);
    CAPTURE(content);
    std::map<std::string, int> seen;
    std::vector<std::uint64_t> expected;
    for (std::uint64_t i = 0; i < t.fields.size(); ++i)
      if (++seen[t.fields[i][1]] <= most) expected.push_back(i);
    for (const int threads : {1, 3}) {
      const auto data = parse_csv(content, owned, {.threads = threads});
      CHECK(data.positions() == expected);
      CHECK(data.rows_per_owner() == most);
      CHECK(data.all() == t.fields.size());
      for (std::size_t i = 0; i < expected.size(); ++i) {
        REQUIRE(data.features()(i, 0) == doctest::Approx(t.expected[expected[i]][0]));
        REQUIRE(data.labels()[i] == t.expected[expected[i]][5]);
      }
      CHECK(split(data, {.test_fraction = 0.3}).train.rows_per_owner() == most);
    }
    const int parts = 1 + static_cast<int>(die.below(std::min<std::size_t>(4, t.fields.size())));
    std::vector<std::uint64_t> joined;
    for (int part = 0; part < parts; ++part)
      for (const auto p : parse_csv(content, owned, {.part = part, .parts = parts}).positions()) joined.push_back(p);
    CHECK(joined == expected);

    std::vector<float> features, labels;  // the same from the user's own floats
    std::vector<std::uint64_t> owners;
    for (std::size_t i = 0; i < t.fields.size(); ++i)
      features.push_back(t.expected[i][0]), labels.push_back(t.expected[i][5]), owners.push_back(t.fields[i][1][0]);
    const auto own = dataset::from(features, 1, labels).by_owner(owners, most);
    CHECK(own.positions() == expected);
    CHECK(own.rows_per_owner() == most);
    for (std::size_t i = 0; i < expected.size(); ++i) REQUIRE(own.features()(i, 0) == features[expected[i]]);
  }
}

TEST_CASE("a row without an owner is an error, or dropped; predictions need no owner") {
  const auto owned = schema{}.label("y").numeric("x", 0, 1).owner("who", 1);
  const std::string text = "who,y,x\nAnn,1,0\nNA,1,0\n\"Ann\",1,0\n ,1,0\nBo,1,0\n";
  CHECK_THROWS_WITH_AS(parse_csv(text, owned, {}, "f.csv"),
                       doctest::Contains("f.csv:3:1: column \"who\": this row names no owner; drop such rows"), error);
  CHECK(parse_csv(text, owned, {.bad_rows = bad_rows::drop}).positions() == std::vector<std::uint64_t>{0, 4});
  CHECK(parse_csv("x\n0.5\n", owned, {.labels = false}).records() == 1);
  // Where owners are not read, nobody's rows are bounded, and the data does not say that they were.
  const auto whole = schema{}.label("y").numeric("x", 0, 1).owner("who", 2);
  const auto unread = parse_csv("who,x\nA,0\nA,1\nA,0\n", whole, {.labels = false});
  CHECK(unread.records() == 3);
  CHECK(unread.rows_per_owner() == 1);
  CHECK(unread.owners() == 0);
  const auto read = parse_csv("who,y,x\nA,1,0\nA,1,1\nA,1,0\n", whole);
  CHECK(read.records() == 2);
  CHECK(read.rows_per_owner() == 2);
  CHECK(read.owners() != 0);
  CHECK_THROWS_WITH_AS(parse_csv("y,x\n1,0\n", owned), doctest::Contains("no column \"who\""), error);
  CHECK_THROWS_WITH_AS(parse_csv("who,y,x\nA,1,0\nA\"B,1,0\nC,1,0\nD,1,0\n", owned, {.part = 1, .parts = 2}, "f.csv"),
                       doctest::Contains("f.csv:3:1: a quote inside"), error);
  CHECK_THROWS_WITH_AS(static_cast<void>(owned.owner("other", 2)), doctest::Contains("two columns of owners"), error);
  CHECK_THROWS_WITH_AS(static_cast<void>(schema{}.owner("who", 0)), doctest::Contains("1 to 64 rows; got 0"), error);
  CHECK_THROWS_WITH_AS(static_cast<void>(owned.binary("who")), doctest::Contains("names column \"who\" twice"), error);
  const auto data = parse_csv(text, owned, {.bad_rows = bad_rows::drop});
  CHECK_THROWS_WITH_AS(data.by_owner(std::vector<std::uint64_t>{1}, 2), doctest::Contains("2 records, but owners of 1"),
                       error);
  CHECK_THROWS_WITH_AS(split(dataset::from({}, 1, {})).train.by_owner({}, 1), doctest::Contains("before it is split"),
                       error);
}

TEST_CASE("a file of one column") {
  const auto s = schema{}.label("y");
  CHECK(parse_csv("y\n1\n0\n\n", s).records() == 2);
  CHECK(outcome("y\n1\n\n0\n", s).find("f.csv:3:1: column \"y\": the label is missing") == 0);
}

TEST_CASE("constant_label sees a label that never changes") {
  CHECK(constant_label(parse_csv("age,educ,sex,employed\n1,1,1,1\n2,1,1,1\n", people)));
  CHECK(!constant_label(parse_csv("age,educ,sex,employed\n1,1,1,1\n2,1,1,0\n", people)));
}

TEST_CASE("labels of several classes and of numbers") {
  const auto several = parse_csv("x,y\n1,3\n1,5\n", schema{}.class_label("y", 3, 6).numeric("x", 0, 1));
  CHECK(several.classes() == 4);
  CHECK(matrix(several) == rows{{1, 0}, {1, 2}});
  const auto number = parse_csv("x,y\n1,30\n1,1e9\n", schema{}.value_label("y", 0, 40).numeric("x", 0, 1));
  CHECK(number.label_kind() == label_kind::regression);
  CHECK(number.classes() == 1);
  CHECK(matrix(number) == rows{{1, 0.5f}, {1, 1}});
}

TEST_CASE("parsing does not depend on the locale") {
  struct comma : std::numpunct<char> {
    char do_decimal_point() const override { return ','; }
    char do_thousands_sep() const override { return '.'; }
    std::string do_grouping() const override { return "\1"; }
  };
  const std::string content = "age,educ,sex,employed\n12.5,1,0,1\n2.5e+01,1,0,1\n",
                    bad = content + std::string(2000, '\n') + "1,1,1,1";
  const auto plain = parse_csv(content, people);
  const auto message = outcome(bad, people);
  const auto before = std::locale::global(std::locale(std::locale::classic(), new comma));
  const std::string c_before = std::setlocale(LC_ALL, nullptr);
  for (const char* name : {"de_DE.UTF-8", "de_DE.utf8", "fr_FR.UTF-8"})
    if (std::setlocale(LC_ALL, name)) break;
  const auto there = parse_csv(content, people);
  const auto message_there = outcome(bad, people);
  std::setlocale(LC_ALL, c_before.c_str());
  std::locale::global(before);
  CHECK(matrix(there) == matrix(plain));
  CHECK(message_there.substr(0, 12) == message.substr(0, 12));
}

TEST_CASE("files: read, missing, a directory, a pipe") {
  namespace fs = std::filesystem;
  const fs::path folder = fs::temp_directory_path() / ("dpsgd_csv_" + std::to_string(::getpid()));
  fs::create_directory(folder);
  dice die(6);
  const table t(30000, die);
  const auto content = t.as_text({}, die);
  const auto path = (folder / "people.csv").string();
  std::ofstream(path, std::ios::binary) << content;
  const auto data = read_csv(path, people, {.threads = 3});
  CHECK(matrix(data) == matrix(parse_csv(content, people)));
  CHECK(data.digest() == parse_csv(content, people).digest());
  CHECK_THROWS_WITH_AS(read_csv((folder / "no.csv").string(), people), doctest::Contains("No such file"), error);
  CHECK_THROWS_WITH_AS(read_csv(folder.string(), people), doctest::Contains("is a directory"), error);
  std::ofstream(path, std::ios::binary) << "";
  CHECK_THROWS_WITH_AS(read_csv(path, people), doctest::Contains("is empty"), error);
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  const std::string small = "age,educ,sex,employed\n50,1,1,1\n";
  REQUIRE(::write(ends[1], small.data(), small.size()) == static_cast<ssize_t>(small.size()));
  ::close(ends[1]);
  CHECK(read_csv("/dev/fd/" + std::to_string(ends[0]), people).records() == 1);
  ::close(ends[0]);
  fs::remove_all(folder);
}
