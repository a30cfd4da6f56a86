/// Synthetic census records with the columns of a prepared ACS PUMS person file: no record is a person.
///
/// Everything that is assumed is in the tables below: rounded shares and simple dependencies that give the records the
/// shape of adults in one US county, and a non-linear model of `employed` given the other columns. All arithmetic is on
/// integers, so the records are a function of (seed, record number) alone: not of the compiler, libm or the machine.
/// Record i can be made without record i-1, and the first n of a longer file are the file of n.
///
/// Units: shares are per mille, probabilities per million, logits and log10 dollars in thousandths.
#pragma once

#include <algorithm>
#include <array>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "dpsgd/core/error.hpp"
#include "dpsgd/core/random.hpp"

namespace pums {

inline constexpr std::array<std::string_view, 18> columns = {
    "state",          "puma",    "sex",      "age",       "educ",     "income",     "latino",          "black",
    "asian",          "married", "divorced", "uscitizen", "children", "disability", "militaryservice", "employed",
    "englishability", "fips"};

/// One record, in the order of the columns. Flags are 0 or 1; sex 1 is female; income in dollars a year.
struct person {
  int state = 13, puma = 0, sex = 0, age = 0, educ = 0, income = 0, latino = 0, black = 0, asian = 0, married = 0,
      divorced = 0, uscitizen = 0, children = 0, disability = 0, militaryservice = 0, employed = 0, englishability = 0,
      fips = 13121;
  constexpr std::array<int, 18> values() const {
    return {state,   puma,     sex,       age,      educ,       income,          latino,   black,          asian,
            married, divorced, uscitizen, children, disability, militaryservice, employed, englishability, fips};
  }
  constexpr bool operator==(const person&) const = default;
};

// ---- How a number is drawn from 32 random bits ----

/// True with probability share / whole.
constexpr bool chance(std::uint32_t word, int share, int whole = 1000) {
  return static_cast<int>(std::uint64_t{word} * static_cast<std::uint64_t>(whole) >> 32) < share;
}

/// The index of a weight, with probability proportional to it.
constexpr int pick(std::uint32_t word, std::span<const int> weights) {
  int total = 0;
  for (const int w : weights) total += w;
  auto left = static_cast<int>(std::uint64_t{word} * static_cast<std::uint64_t>(total) >> 32);
  int i = 0;
  while (left >= weights[i]) left -= weights[i++];
  return i;
}

/// The piece [knots[i], knots[i+1]] that x lies in; the ends beyond the first and the last knot belong to their pieces.
constexpr std::size_t piece(std::span<const int> knots, int x) {
  std::size_t i = 0;
  while (i + 2 < knots.size() && x >= knots[i + 1]) ++i;
  return i;
}

/// From a to b, linearly, as x goes from x0 to x1; constant outside.
constexpr int between(int x, int x0, int x1, int a, int b) {
  const std::int64_t at = std::clamp(x, x0, x1) - x0;
  return a + static_cast<int>(at * (b - a) / (x1 - x0));
}

/// A curve through (knots[i], values[i]), straight in between, constant outside.
constexpr int curve(std::span<const int> knots, std::span<const int> values, int x) {
  const auto i = piece(knots, x);
  return between(x, knots[i], knots[i + 1], values[i], values[i + 1]);
}

// ---- The marginals ----

// Where: seven areas, and who lives there (per mille).
inline constexpr std::array area_weight = {125, 220, 145, 145, 120, 125, 120};
inline constexpr std::array area_black = {55, 100, 120, 510, 770, 960, 770};
inline constexpr std::array area_latino = {25, 90, 70, 50, 65, 10, 25};
inline constexpr std::array area_asian = {70, 40, 30, 45, 15, 5, 5};
inline constexpr std::array area_schooled = {900, 830, 850, 550,
                                             340, 300, 560};  // share with the education of `schooled`

// Age: weight of each band, uniform inside it.
inline constexpr std::array age_from = {18, 21, 23, 26, 31, 36, 41, 46, 51, 56, 61, 66, 71, 76, 81, 86, 94};
inline constexpr std::array age_weight = {61, 39, 65, 125, 113, 114, 102, 93, 78, 57, 39, 30, 30, 24, 17, 13};

// Education 1..16 (1 none, 9 high school, 11 some college, 13 bachelor, 16 doctorate): a mixture of two populations.
inline constexpr std::array schooled = {1, 1, 4, 4, 4, 6, 7, 10, 110, 40, 145, 50, 390, 145, 60, 23};
inline constexpr std::array unschooled = {20, 10, 24, 32, 36, 52, 66, 74, 300, 70, 170, 40, 75, 22, 6, 3};
inline constexpr std::array student = {8, 3, 13, 16, 27, 50, 100, 75, 255, 107, 285, 16, 43, 2, 0, 0};

// By age: per mille.
inline constexpr std::array age_knots = {18, 20, 24, 28, 35, 50, 58, 63, 68, 80, 93};
inline constexpr std::array married_at = {110, 160, 230, 330, 510, 590, 580, 550, 510, 380, 250};
inline constexpr std::array divorced_at = {0, 10, 30, 60, 190, 470, 480, 430, 290, 130, 80};  // of those not married
inline constexpr std::array children_at = {90, 160, 260, 360, 580, 200, 20, 5, 0, 0, 0};      // of women
inline constexpr std::array disabled_at = {130, 130, 150, 150, 170, 220, 290, 330, 330, 520, 700};
inline constexpr std::array veteran_at = {15, 30, 70, 90, 130, 350, 430, 560, 630, 670, 670};  // of men; of women 35

// Income: zero for some; else 10 to the power of (centre by age, shifted) + (spread at a uniform quantile).
inline constexpr std::array zero_income_at = {270, 210, 90, 75, 70, 80, 95, 80, 40, 50, 50};
inline constexpr std::array log_income_at = {3450, 3860, 4120, 4290, 4340, 4410, 4360, 4280, 4250, 4260, 4260};
inline constexpr std::array log_income_by_educ = {-250, -250, -230, -260, -260, -280, -280, -240,
                                                  -130, 20,   0,    60,   220,  300,  430,  340};
inline constexpr std::array quantiles = {0, 10, 100, 500, 1000, 2500, 5000, 7500, 9000, 9500, 9900, 9990, 10000};
inline constexpr std::array spread = {-2200, -1850, -1300, -800, -570, -240, 40, 270, 480, 610, 900, 1120, 1300};
inline constexpr int least_income = -10000, top_income = 717000;

/// 10^(x/1000), for 0 <= x < 6000, straight between tenths of a decade.
constexpr int power_of_ten(int x) {
  constexpr std::array tenths = {10000, 12589, 15849, 19953, 25119, 31623, 39811, 50119, 63096, 79433, 100000};
  const int decade = x / 1000, tenth = x % 1000 / 100;
  std::int64_t value = between(x % 100, 0, 100, tenths[tenth], tenths[tenth + 1]);
  for (int i = 0; i < decade; ++i) value *= 10;
  return static_cast<int>(value / 10000);
}

/// As the Census Bureau rounds dollars: to 10 below 1000, to 100 below 50000, else to 1000.
constexpr int round_income(int dollars) {
  const int step = dollars < 1000 ? 10 : dollars < 50000 ? 100 : 1000;
  return (dollars + step / 2) / step * step;
}

// ---- The model of `employed` ----

// The logit as a surface over age and income, straight between the knots: income tells much about the young and those
// in mid-life, less about those past 62, whose income is a pension. This alone is no sum of an age and an income part.
inline constexpr std::array logit_age = {18, 22, 30, 50, 58, 63, 68, 75, 93};
inline constexpr std::array logit_income = {-10000, 0, 1500, 4000, 8000, 15000, 30000, 60000, 120000, 717000};
inline constexpr int surface[9][10] = {{0, -2000, -1050, -950, 200, 1500, 1700, 1700, 1700, 1700},      // 18: students
                                       {0, -1700, -400, -400, 550, 1600, 1900, 2100, 2200, 2200},       // 22
                                       {900, -2100, -1000, -150, 550, 1400, 2300, 2900, 3100, 3100},    // 30
                                       {900, -2300, -1000, -400, 100, 1200, 2000, 2800, 3200, 3300},    // 50
                                       {300, -3200, -900, -900, -900, 700, 1400, 2000, 1900, 1700},     // 58
                                       {-800, -3300, -2000, -2400, -1600, -500, 300, 900, 700, 500},    // 63
                                       {-2000, -2800, -2900, -2800, -2800, -1200, -600, -200, 100, 0},  // 68
                                       {-3000, -4000, -3600, -3500, -3500, -2300, -1600, -1400, -1200, -1200},
                                       {-4500, -4500, -4500, -4500, -4500, -3500, -2800, -2500, -2300, -2300}};

/// The logit of `employed`, in thousandths: the surface and what else matters, much of it only together.
constexpr int employed_logit(const person& p) {
  const auto a = piece(logit_age, p.age), d = piece(logit_income, p.income);
  const auto along = [&](std::size_t row) {
    return between(p.income, logit_income[d], logit_income[d + 1], surface[row][d], surface[row][d + 1]);
  };
  int logit = between(p.age, logit_age[a], logit_age[a + 1], along(a), along(a + 1));
  const bool working_age = p.age > 24 && p.age < 62, poor = p.income < 12000;
  logit += (p.educ - 10) * (poor ? 100 : 70);
  logit += p.sex ? 0 : 350;
  if (p.disability) logit -= poor && working_age ? 1100 : 500;
  if (p.sex && p.married && p.income < 15000) logit -= 600;  // keeps the house
  if (!p.sex && p.married && working_age) logit += 400;
  if (p.children) logit += p.married ? -600 : 300;
  if (!p.uscitizen) logit += poor ? 1000 : -200;
  if (p.militaryservice) logit += p.age < 30 ? 800 : p.age > 50 ? -300 : 0;
  if (p.divorced && working_age) logit += 250;
  if (!p.englishability && p.educ > 9) logit -= 400;
  return logit * 21 / 20 + 250;  // the whole a little steeper and higher: 63 % employed
}

/// The logistic function, per million, straight between halves.
constexpr int logistic(int logit) {
  constexpr std::array half = {500000, 622459, 731059, 817574, 880797, 924142, 952574, 970688, 982014,
                               989013, 993307, 995930, 997527, 998499, 999089, 999447, 999665};
  const int x = std::min(logit < 0 ? -logit : logit, 8000), i = std::min(x / 500, 15);
  const int p = between(x, 500 * i, 500 * (i + 1), half[i], half[i + 1]);
  return logit < 0 ? 1000000 - p : p;
}

/// The model's probability, per million, that the person is employed given the other columns. The best possible
/// prediction is whether it exceeds one half, and is right with probability max(p, 1 - p).
constexpr int employed_probability(const person& p) { return logistic(employed_logit(p)); }

// ---- A record ----

/// Record `index` of the file with this key (random_key::from_seed): one ChaCha20 block, about 0.2 microseconds.
constexpr person draw(const dpsgd::random_key& key, std::uint64_t index) {
  const auto w = dpsgd::random_stream{key, dpsgd::domain::synthetic, index}.block(0);
  person p;
  const int area = pick(w[0], area_weight);
  p.puma = 1101 + area;
  const std::array race = {area_black[area], area_latino[area], area_asian[area],
                           1000 - area_black[area] - area_latino[area] - area_asian[area]};
  const int kind = pick(w[1], race);
  p.black = kind == 0, p.latino = kind == 1, p.asian = kind == 2;

  // The band from the word, and the year within the band from the same word spread again (its low bits are still free).
  const int band = pick(w[2], age_weight);
  p.age = age_from[band] +
          static_cast<int>(std::uint64_t{w[2] * 0x9E3779B9u} * (age_from[band + 1] - age_from[band]) >> 32);
  p.sex = chance(w[3], 527);
  p.uscitizen = chance(w[4], p.latino ? 470 : p.asian ? 640 : 972);
  p.englishability = chance(w[5], p.uscitizen ? (p.latino || p.asian ? 890 : 995) : (p.latino ? 370 : 750));

  const bool old = p.age >= 62;
  const int share = (area_schooled[area] - (old ? 250 : 0)) * (p.latino ? 6 : p.black ? 7 : 10) / 10;
  // The first 16 bits choose the population, the last 16 the level.
  p.educ = 1 + pick(w[6] << 16, p.age <= 22 ? student : chance(w[6], share) ? schooled : unschooled);

  p.married = chance(w[7], curve(age_knots, married_at, p.age) * (p.black ? 7 : 12) / 10);
  p.divorced = !p.married && chance(w[8], curve(age_knots, divorced_at, p.age));
  p.children = p.sex && chance(w[9], curve(age_knots, children_at, p.age) * (p.married ? 13 : 8) / 10);
  p.disability = chance(w[10], curve(age_knots, disabled_at, p.age) * (p.educ < 9 ? 17 : p.educ < 12 ? 11 : 7) / 10);
  p.militaryservice = chance(w[11], p.sex ? 35 : curve(age_knots, veteran_at, p.age));

  const int no_income = curve(age_knots, zero_income_at, p.age) * (p.sex && p.married ? 22 : 10) / 10;
  if (chance(w[12], 1)) {
    p.income = -round_income(1 + static_cast<int>(std::uint64_t{w[13]} * static_cast<unsigned>(-least_income) >> 32));
  } else if (!chance(w[13], no_income)) {
    const int centre = curve(age_knots, log_income_at, p.age) + log_income_by_educ[p.educ - 1] +
                       (p.sex       ? (p.married ? -40 : 0)
                        : p.married ? 220
                                    : 70) -
                       (p.disability ? 110 : 0) - (p.black ? 60 : 0);
    const int u = static_cast<int>(std::uint64_t{w[14]} * 10000 >> 32);
    p.income =
        std::min(round_income(power_of_ten(std::clamp(centre + curve(quantiles, spread, u), 0, 5999))), top_income);
  }
  p.employed = chance(w[15], employed_probability(p), 1000000);
  return p;
}

// ---- Dirt ----

/// What may be wrong, or only odd, with one field of a dirty record.
enum class dirt { none, empty, na, text, out_of_range, scientific, quoted };
inline constexpr std::array<std::string_view, 7> dirt_names = {
    "clean",         "empty", "NA", "text (\"unknown\")", "out of range (9999999)", "in scientific form (valid)",
    "quoted (valid)"};

struct blemish {
  dirt kind = dirt::none;
  std::size_t column = 0;
};

/// A share in [0, 1] as a count of 2^32. Throws dpsgd::error outside of [0, 1].
inline std::uint64_t dirty_words(double share) {
  dpsgd::require(share >= 0 && share <= 1, "the dirty share must lie in [0, 1]; got ", share);
  return static_cast<std::uint64_t>(share * 0x1p32);
}

/// Which field of record `index` is dirty, and how: each of the six kinds and each of the 18 columns is equally likely.
/// Words of a stream of its own, so that all the other fields are those of the clean file.
constexpr blemish draw_blemish(const dpsgd::random_key& key, std::uint64_t index, std::uint64_t dirty) {
  if (dirty == 0) return {};
  const auto w = dpsgd::random_stream{key, dpsgd::domain::synthetic, index, 1}.block(0);
  if (w[0] >= dirty) return {};
  return {static_cast<dirt>(1 + (std::uint64_t{w[1]} * 6 >> 32)),
          static_cast<std::size_t>(std::uint64_t{w[2]} * 18 >> 32)};
}

// ---- Text ----

inline void append(std::string& out, int value) {
  if (value >= 0 && value < 10) {
    out += static_cast<char>('0' + value);
    return;
  }
  char digits[12];
  out.append(digits, std::to_chars(digits, digits + sizeof digits, value).ptr);
}

/// 44 as 4.4e+01, 200000 as 2e+05: the same value.
inline void append_scientific(std::string& out, int value) {
  std::string digits;
  append(digits, value < 0 ? -value : value);
  const auto exponent = digits.size() - 1;
  digits.erase(std::max<std::size_t>(digits.find_last_not_of('0') + 1, 1));
  if (digits.size() > 1) digits.insert(1, ".");
  if (value < 0) out += '-';
  out += digits + "e+0" + std::to_string(exponent);
}

/// The record as a line of the file, with its newline.
inline void append(std::string& out, const person& p, blemish b = {}) {
  const auto values = p.values();
  for (std::size_t c = 0; c < values.size(); ++c) {
    if (c) out += ',';
    switch (c == b.column ? b.kind : dirt::none) {
      case dirt::none:
        append(out, values[c]);
        break;
      case dirt::empty:
        break;
      case dirt::na:
        out += "NA";
        break;
      case dirt::text:
        out += "unknown";
        break;
      case dirt::out_of_range:
        out += "9999999";
        break;
      case dirt::scientific:
        append_scientific(out, values[c]);
        break;
      case dirt::quoted:
        out += '"', append(out, values[c]), out += '"';
        break;
    }
  }
  out += '\n';
}

/// The header line: every name quoted, as in the prepared files.
inline std::string header() {
  std::string line;
  for (const auto name : columns) line += (line.empty() ? "\"" : ",\"") + std::string(name) + '"';
  return line + '\n';
}

/// What was made: the model's Bayes accuracy is the mean of max(p, 1 - p) over the records.
struct summary {
  std::uint64_t records = 0, employed = 0, best_per_million = 0;
  std::array<std::uint64_t, 7> blemishes{};
  double bayes_accuracy() const {
    return records ? static_cast<double>(best_per_million) / 1e6 / static_cast<double>(records) : 0;
  }
};

/// Appends the lines of records [first, last) to `out`.
inline void append_records(std::string& out, const dpsgd::random_key& key, std::uint64_t first, std::uint64_t last,
                           std::uint64_t dirty, summary& made) {
  for (auto i = first; i < last; ++i) {
    const auto p = draw(key, i);
    const auto b = draw_blemish(key, i, dirty);
    append(out, p, b);
    const int q = employed_probability(p);
    ++made.records, made.employed += static_cast<std::uint64_t>(p.employed);
    made.best_per_million += static_cast<std::uint64_t>(std::max(q, 1000000 - q));
    ++made.blemishes[static_cast<std::size_t>(b.kind)];
  }
}

}  // namespace pums
