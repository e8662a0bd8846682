#include "data/classify/labelled_records.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/ascii.h"
#include "core/error.h"
#include "data/pipeline/stage.h"

namespace quern {

namespace {

// Calls `see` with each record; what it cannot read is named with file and line.
void each_record(const std::vector<fs::path>& files, const std::string& text_field,
                 const std::function<void(const Record&)>& see) {
  StageOptions options;
  options.inputs = files;
  RecordParser parser;
  for (size_t input = 0; input < files.size(); ++input) {
    BatchReader reader(options, input);
    while (const auto batch = reader.next()) {
      for_each_line(*batch, [&](std::string_view line, const Place& place) {
        try {
          see(Record(parser, line, text_field));
        } catch (const Error& error) {
          if (error.kind() != Kind::BadInput) throw;
          throw_bad_input(
              fmt::format("{}: line {}: {}", files[input].string(), place.line, error.what()),
              error.hint());
        }
      });
    }
  }
}

}  // namespace

void for_each_labelled(const std::vector<fs::path>& files, const std::string& text_field,
                       const std::string& label_field,
                       const std::function<void(std::string text, std::string label)>& see) {
  each_record(files, text_field, [&](const Record& record) {
    std::optional<std::string> label = record.string(label_field);
    if (const auto number = record.number(label_field)) label = json_number(*number);
    if (const auto yes = record.boolean(label_field)) label = *yes ? "1" : "0";
    if (!label) {
      throw_bad_input(fmt::format("has no label in {}", label_field),
                      "--label-field names another field");
    }
    see(std::string(record.text()), *std::move(label));
  });
}

void for_each_text(const std::vector<fs::path>& files, const std::string& text_field,
                   const std::function<void(std::string_view text)>& see) {
  each_record(files, text_field, [&](const Record& record) { see(record.text()); });
}

int binary_label(const std::string& label, const std::string& positive) {
  if (!positive.empty()) return label == positive;
  const std::string word = ascii_lower(label);
  for (const char* yes : {"1", "true", "yes", "good", "positive"}) {
    if (word == yes) return 1;
  }
  for (const char* no : {"0", "false", "no", "bad", "negative", "-1"}) {
    if (word == no) return 0;
  }
  throw_bad_input(fmt::format("has the label '{}', neither yes nor no", printable(label, 60)),
                  "--positive names the label to find");
}

}  // namespace quern
