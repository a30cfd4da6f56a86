/// predict: what a saved model says about each row of a CSV file.
///
///   predict --model people.model --schema people.schema.json --csv new_people.csv > predictions.csv
#include <CLI/CLI.hpp>
#include <cmath>
#include <fstream>
#include <iostream>
#include <sstream>
#include <string>

#include "console.hpp"
#include "dpsgd/data/schema_json.hpp"
#include "dpsgd/dpsgd.hpp"
#include "dpsgd/nn/model_file.hpp"

namespace {

/// One line for each row of the file: the class, or the estimate, in the label's own units; for two classes also the
/// probability of a 1. A row that was dropped says NA.
std::string predictions(const dpsgd::mlp& model, const dpsgd::schema& columns, const dpsgd::dataset& data) {
  const auto& label = columns.the_label();
  const bool two = label.kind() == dpsgd::label_kind::two_classes;
  std::ostringstream out;
  out.precision(7);
  out << (two ? "prediction,probability\n" : "prediction\n");
  std::uint64_t next = 0;  // the row of the file that has no line yet
  const auto fill = [&](std::uint64_t position) {
    for (; next < position; ++next) out << (two ? "NA,NA\n" : "NA\n");
  };
  dpsgd::cpu::backend b;
  dpsgd::each_output(b, model, data.features(), [&](std::size_t i, std::span<const float> y) {
    fill(data.position(i));
    out << label.value(model.loss().predict(y));
    if (two) out << ',' << 1 / (1 + std::exp(-static_cast<double>(y[0])));
    out << '\n';
    ++next;
  });
  fill(data.universe());
  return out.str();
}

}  // namespace

int main(int argc, char** argv) {
  std::string model_file, schema_file, csv, output = "-";
  bool drop_bad_rows = false;
  CLI::App app(R"(Writes what a model saved by train_mlp predicts, one line for each row of a CSV file.

  predict --model people.model --schema people.schema.json --csv new_people.csv > predictions.csv

The schema must be the one that the model was trained with. The label's column may be missing from the file, and is not
read. For a label of two classes the second column is the probability of a 1. Exit status: 0 done, 1 error, 2 usage.)");
  app.set_version_flag("--version", std::string("predict (dpsgd) ") + dpsgd::version);
  app.add_option("--model", model_file, "the saved model")->required();
  app.add_option("--schema", schema_file, "the description of the columns: a JSON file")->required();
  app.add_option("--csv", csv, "the records: a CSV file with a header line")->required();
  app.add_option("--output", output, "file for the predictions; - is stdout")->capture_default_str();
  app.add_flag("--drop-bad-rows", drop_bad_rows,
               "rows that do not fit the schema get the prediction NA; else an error");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? console::done : console::bad_usage;
  }
  try {
    const auto columns = dpsgd::read_schema(schema_file);
    const auto saved = dpsgd::load_model(model_file);
    const auto note = saved.note.find("\nschema ");
    dpsgd::require(note == saved.note.npos || saved.note.substr(note + 8) == console::schema_digest(schema_file),
                   model_file, " was trained with another schema than ", schema_file,
                   "; give the one that it was trained with");
    dpsgd::require(saved.model.inputs() == columns.width() &&
                       saved.model.outputs() == saved.model.loss().outputs(columns.classes()),
                   "the model and the schema do not belong together: ", model_file, " has ", saved.model.inputs(),
                   " inputs and ", saved.model.outputs(), " outputs; ", schema_file, " gives ", columns.width(),
                   " features and ", columns.classes(), " classes");
    const auto data = dpsgd::read_csv(
        csv, columns, {.bad_rows = drop_bad_rows ? dpsgd::bad_rows::drop : dpsgd::bad_rows::error, .labels = false});
    const auto lines = predictions(saved.model, columns, data);
    if (output == "-") std::cout << lines << std::flush;
    else dpsgd::write_durably(output, lines);
    dpsgd::require(static_cast<bool>(std::cout), "cannot write to stdout");
    return console::done;
  } catch (const std::exception& e) {
    std::cerr << "predict: " << e.what() << std::endl;
    return console::failed;
  }
}
