/// The public description of a table: which columns are features, within which bounds, and which one is the label.
///
/// Everything in a schema must be known without looking at the data (from a codebook, say): bounds and categories that
/// were read off the records would leak them, and no privacy claim would cover it.
///   const auto s = schema{}.label("employed").numeric("age", 0, 120).categorical("educ", 1, 16).binary("sex");
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "dpsgd/core/error.hpp"

namespace dpsgd {

/// What a label is: 0 or 1; a class 0 .. classes - 1; or a real number.
enum class label_kind { two_classes, classes, regression };

/// How a number is laid on [-1, 1]: as it is, or sign(x) log(1 + |x|) first (for incomes and other long tails).
enum class scale { linear, signed_log };

/// What a numeric column may add to its bounds. Both are public.
struct numeric_options {
  std::optional<double> missing = {};  // stands for a missing value; without it a missing value is an error
  std::vector<double> cuts = {};       // ascending, strictly inside the bounds: see encode
};

/// The default for missing values of a categorical or binary column.
struct category_options {
  std::optional<double> missing = {};
};

/// An interval laid on [-1, 1] by a scale. Values outside are clamped to it.
class bounds {
 public:
  bounds(double min, double max, scale scaling) : min_(min), max_(max), scaling_(scaling) {
    low_ = bend(min);
    span_ = bend(max) - low_;
  }
  double min() const { return min_; }
  double max() const { return max_; }
  /// value -> [-1, 1]; the bounds become exactly -1 and 1.
  double operator()(double value) const { return 2 * ((bend(std::clamp(value, min_, max_)) - low_) / span_) - 1; }
  /// The value that is laid on s: the inverse.
  double value(double s) const {
    const double bent = (s + 1) / 2 * span_ + low_;
    return scaling_ == scale::linear ? bent : std::copysign(std::expm1(std::abs(bent)), bent);
  }

 private:
  double bend(double x) const { return scaling_ == scale::linear ? x : std::copysign(std::log1p(std::abs(x)), x); }

  double min_, max_, low_, span_;
  scale scaling_;
};

/// One column of features: turns a value into width() floats in [-1, 1].
///   numeric          the scaled value: 1 float. With k cuts, k + 1 floats, one for each interval between bounds and
///                    cuts: -1 below it, 1 above it, running from -1 to 1 inside it (on the column's scale). Their
///                    weighted sums are the continuous functions that are straight between cuts, so a linear model
///                    can bend at each cut ("piecewise linear encoding", Gorishniy et al. 2022).
///   categorical      one float for each integer in [min, max]: 1 for the value's, 0 for the others
///   binary           -1 for 0, 1 for 1
class feature_column {
 public:
  [[gnu::cold]] static feature_column numeric(std::string name, const bounds& range, const numeric_options& options) {
    feature_column c{std::move(name), how::number, range, options.missing};
    c.edges_.push_back(-1);
    for (const double cut : options.cuts) c.edges_.push_back(range(cut));
    c.edges_.push_back(1);
    c.width_ = options.cuts.size() + 1;
    return c;
  }
  static feature_column categorical(std::string name, int min, int max, const category_options& options) {
    feature_column c{std::move(name), how::one_hot, bounds(min, max, scale::linear), options.missing};
    c.width_ = static_cast<std::size_t>(max - min) + 1;
    return c;
  }
  static feature_column binary(std::string name, const category_options& options) {
    return {std::move(name), how::two, bounds(0, 1, scale::linear), options.missing};
  }

  const std::string& name() const { return name_; }
  std::size_t width() const { return width_; }
  const std::optional<double>& missing() const { return missing_; }

  /// Whether encode takes this finite value: any number; a category; 0 or 1.
  bool accepts(double value) const {
    if (how_ == how::two) return value == 0 || value == 1;
    return how_ == how::number || (value >= range_.min() && value <= range_.max() && value == std::floor(value));
  }
  /// What is expected, for messages.
  std::string expected() const {
    if (how_ == how::number) return "a finite number";
    if (how_ == how::two) return "0 or 1";
    return text("an integer from ", range_.min(), " to ", range_.max());
  }
  /// An accepted value -> out[0 .. width()).
  void encode(double value, float* out) const {
    if (how_ == how::one_hot) {
      std::fill_n(out, width_, 0.0f);
      out[static_cast<std::size_t>(value - range_.min())] = 1;
    } else if (how_ == how::two) {
      *out = value != 0 ? 1.0f : -1.0f;
    } else if (width_ == 1) {
      *out = static_cast<float>(range_(value));
    } else {
      const double s = range_(value);
      for (std::size_t k = 0; k < width_; ++k)
        out[k] = static_cast<float>(std::clamp(2 * (s - edges_[k]) / (edges_[k + 1] - edges_[k]) - 1, -1.0, 1.0));
    }
  }

 private:
  enum class how { number, one_hot, two };
  feature_column(std::string name, how h, const bounds& range, const std::optional<double>& missing)
      : name_(std::move(name)), how_(h), range_(range), missing_(missing) {}

  std::string name_;
  how how_;
  bounds range_;
  std::optional<double> missing_;
  std::vector<double> edges_;  // of the intervals between cuts, on [-1, 1]
  std::size_t width_ = 1;
};

/// The label column: turns a value into one float.
///   two_classes 0 or 1, classes value - min, regression the value scaled to [-1, 1]
class label_column {
 public:
  label_column(std::string name, dpsgd::label_kind kind, const bounds& range)
      : name_(std::move(name)), kind_(kind), range_(range) {}

  const std::string& name() const { return name_; }
  dpsgd::label_kind kind() const { return kind_; }
  int classes() const {
    return kind_ == dpsgd::label_kind::regression ? 1 : static_cast<int>(range_.max() - range_.min()) + 1;
  }
  bool accepts(double value) const {
    return kind_ == dpsgd::label_kind::regression ||
           (value >= range_.min() && value <= range_.max() && value == std::floor(value));
  }
  std::string expected() const {
    if (kind_ == dpsgd::label_kind::regression) return "a finite number";
    return text("a label: an integer from ", range_.min(), " to ", range_.max());
  }
  float encode(double value) const {
    return static_cast<float>(kind_ == dpsgd::label_kind::regression ? range_(value) : value - range_.min());
  }
  /// The label in the file's units: the inverse of encode, for predictions.
  double value(double encoded) const {
    return kind_ == dpsgd::label_kind::regression ? range_.value(encoded) : encoded + range_.min();
  }

 private:
  std::string name_;
  dpsgd::label_kind kind_;
  bounds range_;
};

/// The columns, in the order in which their features stand. Each call gives a larger schema and leaves this one as it
/// is. Every call throws when a name is empty or taken, when bounds are not finite with min < max, or when a default
/// is not a value of its column. Columns of the file that the schema does not name are ignored.
class schema {
 public:
  /// A label of two classes: 0 or 1.
  [[nodiscard]] schema label(std::string name) const {
    return with_label(std::move(name), dpsgd::label_kind::two_classes, 0, 1, scale::linear);
  }
  /// A label of several classes: the integers from `first` to `last`, which become 0 .. last - first.
  [[nodiscard]] schema class_label(std::string name, int first, int last) const {
    check_categories(name, first, last);
    return with_label(std::move(name), dpsgd::label_kind::classes, first, last, scale::linear);
  }
  /// A number to predict: clamped to public bounds and scaled to [-1, 1].
  [[nodiscard]] schema value_label(std::string name, double min, double max, scale scaling = scale::linear) const {
    return with_label(std::move(name), dpsgd::label_kind::regression, min, max, scaling);
  }

  /// A number: clamped to [min, max], then scaled to [-1, 1]; with cuts as feature_column says.
  [[nodiscard]] schema numeric(std::string name, double min, double max, scale scaling = scale::linear,
                               const numeric_options& options = {}) const {
    check_bounds(name, min, max);
    const bounds range(min, max, scaling);
    double last = min;
    for (const double cut : options.cuts) {
      require(cut > last && cut < max && range(cut) > range(last) && range(cut) < 1, "column \"", name,
              "\": cuts must ascend strictly inside (", min, ", ", max, "); got ", cut, " after ", last);
      last = cut;
    }
    if (options.missing)
      require(*options.missing >= min && *options.missing <= max, "column \"", name, "\": the default ",
              *options.missing, " lies outside [", min, ", ", max, "]");
    return with(feature_column::numeric(std::move(name), range, options));
  }
  [[nodiscard]] schema numeric(std::string name, double min, double max, const numeric_options& options) const {
    return numeric(std::move(name), min, max, scale::linear, options);
  }
  /// One of the integers min .. max: one feature each.
  [[nodiscard]] schema categorical(std::string name, int min, int max, const category_options& options = {}) const {
    check_categories(name, min, max);
    return with(feature_column::categorical(std::move(name), min, max, options));
  }
  /// 0 or 1: one feature.
  [[nodiscard]] schema binary(std::string name, const category_options& options = {}) const {
    return with(feature_column::binary(std::move(name), options));
  }

  /// Whose row it is: rows with the same text in this column belong to one owner, who is protected as a whole. Of each
  /// owner the file's first `rows` rows are read and the others dropped. Throws when rows is not in 1 .. 64, or there
  /// are two such columns.
  [[nodiscard]] schema owner(std::string name, int rows) const {
    check_name(name);
    require(owner_.empty(), "the schema has two columns of owners: \"", owner_, "\" and \"", name, "\"");
    require(rows >= 1 && rows <= 64, "column \"", name, "\": an owner may have 1 to 64 rows; got ", rows);
    schema next = *this;
    next.owner_ = std::move(name), next.rows_per_owner_ = rows;
    return next;
  }

  /// The number of features.
  std::size_t width() const { return width_; }
  dpsgd::label_kind label_kind() const { return the_label().kind(); }
  /// The number of classes of the label; 1 for regression.
  int classes() const { return the_label().classes(); }

  const std::vector<feature_column>& columns() const { return columns_; }
  /// The column that says whose row it is; empty: each row has an owner of its own.
  const std::string& owner() const { return owner_; }
  int rows_per_owner() const { return rows_per_owner_; }
  bool has_label() const { return label_.has_value(); }
  /// The label column. Throws when there is none.
  const label_column& the_label() const {
    require(label_.has_value(), "the schema has no label: say which column to predict, as in .label(\"employed\")");
    return *label_;
  }

  /// The features of one record given as values, one for each of columns() and in that order (NaN: missing), as a
  /// reader would make them. For predictions. Throws when the count is wrong or a value is not of its column.
  std::vector<float> encode(std::span<const double> values) const {
    require(values.size() == columns_.size(), "the schema has ", columns_.size(), " columns of features; got ",
            values.size(), " values");
    std::vector<float> features(width_);
    std::size_t at = 0;
    for (std::size_t c = 0; c < columns_.size(); ++c) {
      const auto& column = columns_[c];
      double value = values[c];
      if (std::isnan(value) && column.missing()) value = *column.missing();
      require(std::isfinite(value) && column.accepts(value), "column \"", column.name(), "\": ", value, " is not ",
              column.expected());
      column.encode(value, features.data() + at);
      at += column.width();
    }
    return features;
  }

 private:
  static void check_bounds(const std::string& name, double min, double max) {
    require(min < max && std::isfinite(max - min), "column \"", name,
            "\": the bounds must be finite with min < max; got ", min, " and ", max);
  }
  static void check_categories(const std::string& name, int min, int max) {
    require(min < max && static_cast<long long>(max) - min < 65536, "column \"", name,
            "\": expected 2 to 65536 categories; got ", min, " to ", max);
  }
  [[gnu::cold]] void check_name(const std::string& name) const {
    require(!name.empty(), "a column of the schema has no name");
    const bool taken = (label_ && label_->name() == name) || owner_ == name ||
                       std::any_of(columns_.begin(), columns_.end(), [&](const auto& c) { return c.name() == name; });
    require(!taken, "the schema names column \"", name, "\" twice");
  }
  [[gnu::cold]] schema with(feature_column column) const {
    check_name(column.name());
    if (column.missing())
      require(std::isfinite(*column.missing()) && column.accepts(*column.missing()), "column \"", column.name(),
              "\": the default ", *column.missing(), " is not ", column.expected());
    schema next = *this;
    next.width_ += column.width();
    next.columns_.push_back(std::move(column));
    return next;
  }
  [[gnu::cold]] schema with_label(std::string name, dpsgd::label_kind kind, double min, double max,
                                  scale scaling) const {
    check_name(name);
    check_bounds(name, min, max);
    require(!label_, "the schema has two labels: \"", label_ ? label_->name() : "", "\" and \"", name, "\"");
    schema next = *this;
    next.label_.emplace(std::move(name), kind, bounds(min, max, scaling));
    return next;
  }

  std::vector<feature_column> columns_;
  std::optional<label_column> label_;
  std::string owner_;
  int rows_per_owner_ = 1;
  std::size_t width_ = 0;
};

}  // namespace dpsgd
