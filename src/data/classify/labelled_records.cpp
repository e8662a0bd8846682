#include "data/classify/labelled_records.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/ascii.h"
#include "core/error.h"
#include "data/pipeline/stage.h"

namespace quern {

void for_each_labelled(const std::vector<fs::path>& files, const std::string& text_field,
                       const std::string& label_field,
                       const std::function<void(std::string text, std::string label)>& see) {
  StageOptions options;
  options.inputs = files;
  RecordParser parser;
  for (size_t input = 0; input < files.size(); ++input) {
    BatchReader reader(options, input);
    while (const auto batch = reader.next()) {
      for_each_line(*batch, [&](std::string_view line, const Place& place) {
        const auto where = [&] {
          return fmt::format("{}: line {}", files[input].string(), place.line);
        };
        try {
          const Record record(parser, line, text_field);
          std::optional<std::string> label = record.string(label_field);
          if (const auto number = record.number(label_field)) label = json_number(*number);
          if (const auto yes = record.boolean(label_field)) label = *yes ? "1" : "0";
          if (!label) {
            throw_bad_input(fmt::format("has no label in {}", label_field),
                            "--label-field names another field");
          }
          see(std::string(record.text()), *std::move(label));
        } catch (const Error& error) {
          if (error.kind() != Kind::BadInput) throw;
          throw_bad_input(where() + ": " + error.what(), error.hint());
        }
      });
    }
  }
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
