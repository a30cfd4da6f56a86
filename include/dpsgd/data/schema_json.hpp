/// A schema from JSON (needs nlohmann-json, so it is opt-in: the core does not include it).
///
///   {"columns": [
///     {"name": "employed", "kind": "label"},
///     {"name": "age",    "kind": "numeric", "min": 0, "max": 120, "cuts": [25, 45, 65], "default": 40},
///     {"name": "income", "kind": "numeric", "min": -10000, "max": 1000000, "scale": "signed_log"},
///     {"name": "educ",   "kind": "categorical", "min": 1, "max": 16},
///     {"name": "sex",    "kind": "binary", "default": 0},
///     {"name": "person", "kind": "owner", "rows": 4}
///   ]}
/// "scale" is "linear" or "signed_log"; "cuts" and "default" are optional (feature_column says what they do). A label
/// is of two classes, 0 and 1; with "min" and "max" a number to predict (and "scale"); with "classes": k one of the
/// integers 0 .. k - 1, or min .. min + k - 1 with "min". An owner's column is optional: without it each row is a person
/// of its own (schema::owner). "comment" is allowed everywhere; any other key is an error.
#pragma once

#include <algorithm>
#include <cmath>
#include <fstream>
#include <initializer_list>
#include <iterator>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "dpsgd/core/error.hpp"
#include "dpsgd/data/schema.hpp"

namespace dpsgd {

namespace detail {

/// One object of "columns", read key by key; every complaint names the column.
class column_json {
 public:
  column_json(const nlohmann::json& object, std::size_t index)
      : object_(object), where_("column " + std::to_string(index + 1)) {
    require(object.is_object(), where_, ": expected an object with \"name\" and \"kind\"; got ", object.dump());
    const auto name = word("name");
    where_ = "column \"" + name + "\"";
  }

  bool has(const char* key) const { return object_.contains(key); }

  std::string word(const char* key) const {
    require(has(key), where_, ": the key \"", key, "\" is missing");
    require(object_[key].is_string(), where_, ": \"", key, "\" must be a string; got ", object_[key].dump());
    return object_[key].get<std::string>();
  }

  double number(const char* key) const {
    require(has(key), where_, ": the key \"", key, "\" is missing");
    require(object_[key].is_number(), where_, ": \"", key, "\" must be a number; got ", object_[key].dump());
    return object_[key].get<double>();
  }

  int integer(const char* key) const {
    const double value = number(key);
    require(value == std::floor(value) && std::abs(value) <= 1e9, where_, ": \"", key, "\" must be an integer; got ",
            object_[key].dump());
    return static_cast<int>(value);
  }

  std::optional<double> missing() const { return has("default") ? std::optional(number("default")) : std::nullopt; }

  scale scaling() const {
    const auto word_of_scale = has("scale") ? word("scale") : "linear";
    require(word_of_scale == "linear" || word_of_scale == "signed_log", where_, ": unknown scale \"", word_of_scale,
            "\"; expected \"linear\" or \"signed_log\"");
    return word_of_scale == "linear" ? scale::linear : scale::signed_log;
  }

  std::vector<double> cuts() const {
    std::vector<double> list;
    if (!has("cuts")) return list;
    require(object_["cuts"].is_array(), where_, ": \"cuts\" must be a list of numbers; got ", object_["cuts"].dump());
    for (const auto& cut : object_["cuts"]) {
      require(cut.is_number(), where_, ": \"cuts\" must be a list of numbers; got ", object_["cuts"].dump());
      list.push_back(cut.get<double>());
    }
    return list;
  }

  /// Throws when there is a key besides name, kind, comment and these.
  void only(std::initializer_list<std::string_view> allowed) const {
    for (const auto& [key, value] : object_.items()) {
      if (key == "name" || key == "kind" || key == "comment") continue;
      if (std::find(allowed.begin(), allowed.end(), key) != allowed.end()) continue;
      std::string list = "\"name\", \"kind\", \"comment\"";
      for (const auto word_allowed : allowed) list.append(", \"").append(word_allowed).append("\"");
      fail(where_, ": unknown key \"", key, "\" for kind \"", word("kind"), "\"; expected ", list);
    }
  }

  schema add_to(const schema& columns) const {
    const auto name = word("name"), kind = word("kind");
    if (kind == "numeric") {
      only({"min", "max", "scale", "cuts", "default"});
      return columns.numeric(name, number("min"), number("max"), scaling(), {.missing = missing(), .cuts = cuts()});
    }
    if (kind == "categorical") {
      only({"min", "max", "default"});
      return columns.categorical(name, integer("min"), integer("max"), {.missing = missing()});
    }
    if (kind == "binary") {
      only({"default"});
      return columns.binary(name, {.missing = missing()});
    }
    if (kind == "owner") {
      only({"rows"});
      return columns.owner(name, integer("rows"));
    }
    require(kind == "label", where_, ": unknown kind \"", kind,
            "\"; expected \"numeric\", \"categorical\", \"binary\", \"owner\" or \"label\"");
    if (has("classes")) {
      only({"classes", "min"});
      const int first = has("min") ? integer("min") : 0;
      return columns.class_label(name, first, first + integer("classes") - 1);
    }
    only({"classes", "min", "max", "scale"});
    if (!has("min") && !has("max") && !has("scale")) return columns.label(name);
    return columns.value_label(name, number("min"), number("max"), scaling());
  }

 private:
  const nlohmann::json& object_;
  std::string where_;
};

}  // namespace detail

/// The schema of a JSON text; `name` stands in the messages. Throws dpsgd::error "name: column ...: what is wrong".
inline schema parse_schema(std::string_view json, const std::string& name = "schema") {
  try {
    const auto whole = nlohmann::json::parse(json);
    require(whole.is_object() && whole.contains("columns") && whole["columns"].is_array(),
            "expected {\"columns\": [...]}");
    for (const auto& [key, value] : whole.items())
      require(key == "columns" || key == "comment", "unknown key \"", key, "\"; expected \"columns\"");
    schema columns;
    for (std::size_t i = 0; i < whole["columns"].size(); ++i)
      columns = detail::column_json(whole["columns"][i], i).add_to(columns);
    columns.the_label();  // there must be one
    require(columns.width() > 0, "the schema has no column of features");
    return columns;
  } catch (const error& problem) {
    throw error(name + ": " + problem.what());
  } catch (const nlohmann::json::exception& problem) {
    std::string_view what = problem.what();  // "[json.exception.parse_error.101] parse error at line 2, column 1: ..."
    what.remove_prefix(std::min(what.find("] ") + 2, what.size()));
    fail(name, ": this is no JSON, or not of the right types: ", what);
  }
}

/// The schema of a JSON file.
inline schema read_schema(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::string json(std::istreambuf_iterator<char>(file), {});
  require(!file.bad() && !json.empty(), "cannot read the schema ", path, ", or it is empty");
  return parse_schema(json, path);
}

}  // namespace dpsgd
