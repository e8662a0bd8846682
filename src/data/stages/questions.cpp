#include "data/stages/questions.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "core/ascii.h"
#include "core/error.h"
#include "core/json.h"
#include "data/pipeline/record.h"
#include "formats/byte_source.h"
#include "formats/csv.h"

namespace quern {
namespace {

constexpr std::array<std::string_view, 4> kFields = {"question", "prompt", "query", "text"};

// The name without what says how the file is packed.
std::string unpacked(const fs::path& path) {
  std::string name = ascii_lower(path.filename().string());
  for (const std::string_view packed : {".gz", ".zst"}) {
    if (name.ends_with(packed)) name.resize(name.size() - packed.size());
  }
  return name;
}

bool is_question_file(const fs::path& path) {
  const std::string name = unpacked(path);
  return name.ends_with(".jsonl") || name.ends_with(".csv");
}

std::string task_of(const fs::path& path) {
  std::string name = path.filename().string();
  name.resize(std::min(name.size(), name.find('.', 1)));
  // Folders that part a set stand below the one that names it.
  for (fs::path folder = fs::absolute(path).parent_path(); folder.has_filename();
       folder = folder.parent_path()) {
    const std::string part = folder.filename().string();
    name = part + "/" + name;
    if (part != "test" && part != "val" && part != "dev" && part != "train") break;
  }
  return name;
}

[[noreturn]] void no_question(const fs::path& path, const std::string& where,
                              const std::string& field) {
  throw_bad_input(fmt::format("{}: {} has no question", path.string(), where),
                  field.empty() ? "name the field with --field"
                                : fmt::format("looked in the field '{}'", printable(field, 80)));
}

void read_csv_questions(const fs::path& path, const std::string& field,
                        std::vector<Question>& out) {
  const std::vector<CsvRow> rows = read_csv(path);
  if (rows.empty()) throw_bad_input(path.string() + ": holds no questions");
  size_t column = rows[0].size(), id_column = rows[0].size();
  for (size_t i = 0; i < rows[0].size(); ++i) {
    const std::string name = ascii_lower(rows[0][i]);
    const bool asked = field.empty() ? name == "question" || name == "prompt" || name == "query"
                                     : name == ascii_lower(field);
    if (asked && column == rows[0].size()) column = i;
    if (name == "id") id_column = i;
  }
  const bool header = column < rows[0].size();
  if (!header && !field.empty()) no_question(path, "the first row", field);
  if (!header) column = 0;
  for (size_t i = header ? 1 : 0; i < rows.size(); ++i) {
    if (rows[i].size() <= column) no_question(path, fmt::format("row {}", i + 1), field);
    const bool named = header && id_column < rows[i].size();
    out.push_back({task_of(path), named ? rows[i][id_column] : fmt::format("row {}", i + 1),
                   rows[i][column]});
  }
}

void read_json_questions(const fs::path& path, const std::string& field,
                         std::vector<Question>& out) {
  LineReader lines(ByteSource::open(path), path.string(), uint64_t{64} << 20);
  RecordParser parser;
  const size_t before = out.size();
  for (std::string line; lines.next(line);) {
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    const std::string where = fmt::format("line {}", lines.number());
    try {
      const Record record(parser, line, "");
      std::optional<std::string> text;
      if (!field.empty()) {
        text = record.string(field);
      } else {
        for (const std::string_view name : kFields) {
          if (!text) text = record.string(name);
        }
      }
      if (!text) no_question(path, where, field);
      std::string id = where;
      for (const std::string_view name : {"task_id", "id"}) {
        if (const auto word = record.string(name)) {
          id = *word;
        } else if (const auto number = record.number(name)) {
          id = json_number(*number);
        }
      }
      out.push_back({task_of(path), std::move(id), std::move(*text)});
    } catch (const Error& error) {
      const std::string_view what = error.what();
      if (error.kind() != Kind::BadInput || what.starts_with(path.string())) throw;
      throw_bad_input(fmt::format("{}: {} {}", path.string(), where, what));
    }
  }
  if (out.size() == before) throw_bad_input(path.string() + ": holds no questions");
}

}  // namespace

std::vector<Question> read_questions(const std::vector<std::string>& files,
                                     const std::string& field) {
  std::vector<Question> out;
  for (const std::string& word : files) {
    std::vector<fs::path> paths;
    if (fs::is_directory(word)) {
      for (const auto& entry : fs::recursive_directory_iterator(word)) {
        if (entry.is_regular_file() && is_question_file(entry.path())) paths.push_back(entry);
      }
      std::ranges::sort(paths);
      if (paths.empty()) throw_bad_input(word + ": holds no .jsonl and no .csv file");
    } else {
      paths.emplace_back(word);
    }
    for (const fs::path& path : paths) {
      if (unpacked(path).ends_with(".csv")) {
        read_csv_questions(path, field, out);
      } else {
        read_json_questions(path, field, out);
      }
    }
  }
  return out;
}

}  // namespace quern
