/// The schema that is shipped, examples/pums.schema.json, fits the records of make_pums.
#include <doctest/doctest.h>

#include <algorithm>
#include <dpsgd/data/csv.hpp>

#include "../../examples/pums.hpp"

#if __has_include(<nlohmann/json.hpp>)
#include <dpsgd/data/schema_json.hpp>

TEST_CASE("the shipped schema reads the synthetic records, and drops just the dirty ones that it must") {
  const auto columns = dpsgd::read_schema(DPSGD_SOURCE_DIR "/examples/pums.schema.json");
  CHECK(columns.width() == 32);
  CHECK(columns.the_label().name() == "employed");
  CHECK(columns.label_kind() == dpsgd::label_kind::two_classes);

  const auto key = dpsgd::random_key::from_seed(1);
  constexpr std::uint64_t rows = 20000;
  pums::summary made;
  auto text = pums::header();
  pums::append_records(text, key, 0, rows, 0, made);
  const auto clean = dpsgd::parse_csv(text, columns);
  CHECK(clean.records() == rows);

  // What the schema can mend, in which column: a missing feature has a default; age and income are clamped.
  const auto dirty = pums::dirty_words(0.2);
  std::uint64_t lost = 0;
  for (std::uint64_t i = 0; i < rows; ++i) {
    const auto b = pums::draw_blemish(key, i, dirty);
    const auto name = pums::columns[b.column];
    const bool ignored = name == "state" || name == "puma" || name == "fips", label = name == "employed";
    const bool number = name == "age" || name == "income" || name == "educ";
    if (ignored) continue;
    lost += b.kind == pums::dirt::text || (b.kind == pums::dirt::out_of_range && !number) ||
            (label && (b.kind == pums::dirt::empty || b.kind == pums::dirt::na));
  }
  text = pums::header();
  pums::append_records(text, key, 0, rows, dirty, made);
  CHECK_THROWS_AS(dpsgd::parse_csv(text, columns), dpsgd::error);
  const auto kept = dpsgd::parse_csv(text, columns, {.bad_rows = dpsgd::bad_rows::drop});
  CHECK(lost > 500);
  CHECK(kept.records() == rows - lost);
}
#endif
