#include "evaluate/data_folder.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/error.h"
#include "formats/byte_source.h"

namespace quern {

DataFolder::DataFolder(fs::path path) : path_(std::move(path)) {
  if (!fs::is_directory(path_)) {
    throw_bad_input(path_.string() + ": there is no such folder",
                    "--data names the folder that holds ceval/, mmlu/, gsm8k/ and the others");
  }
}

fs::path DataFolder::need(const std::string& relative, const std::string& published) const {
  fs::path path = path_ / relative;
  if (!fs::exists(path)) {
    throw_bad_input(path.string() + ": is not there",
                    fmt::format("published at {}; it belongs there under this name", published));
  }
  return path;
}

std::vector<std::string> DataFolder::names(const std::string& folder, const std::string& suffix,
                                           const std::string& published) const {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(need(folder, published))) {
    const std::string name = entry.path().filename().string();
    if (name.size() > suffix.size() && name.ends_with(suffix)) {
      names.push_back(name.substr(0, name.size() - suffix.size()));
    }
  }
  if (names.empty()) {
    throw_bad_input(fmt::format("{}: holds no file named *{}", (path_ / folder).string(), suffix),
                    "published at " + published);
  }
  std::sort(names.begin(), names.end());
  return names;
}

void for_each_record(const fs::path& path,
                     const std::function<void(const Json& record, int64_t row)>& take) {
  LineReader lines(ByteSource::open(path), path.string(), uint64_t{64} << 20);
  int64_t row = 0;
  for (std::string line; lines.next(line);) {
    if (line.find_first_not_of(" \t\r") == line.npos) continue;
    if (lines.number() == 1 && line.starts_with("\xEF\xBB\xBF")) line.erase(0, 3);
    const Json record =
        Json::parse(line, fmt::format("{}: line {}", path.string(), lines.number()));
    if (!record.is_object()) record.fail("is no JSON object");
    take(record, row++);
  }
  if (row == 0) throw_bad_input(path.string() + ": holds no records");
}

CsvTable::CsvTable(const fs::path& path, const std::vector<std::string>& columns)
    : source_(path.string()) {
  std::vector<CsvRow> rows = read_csv(path);
  if (rows.empty()) throw_bad_input(source_ + ": is empty");
  std::vector<size_t> places;
  for (const std::string& column : columns) {
    const auto found = std::find(rows[0].begin(), rows[0].end(), column);
    if (found == rows[0].end()) {
      throw_bad_input(fmt::format("{}: has no column '{}'", source_, column),
                      fmt::format("its first row is: {}",
                                  printable(fmt::format("{}", fmt::join(rows[0], ",")))));
    }
    places.push_back(static_cast<size_t>(found - rows[0].begin()));
  }
  for (size_t i = 1; i < rows.size(); ++i) {
    CsvRow cells;
    for (size_t column = 0; column < places.size(); ++column) {
      if (places[column] >= rows[i].size()) {
        throw_bad_input(fmt::format("{}: row {} has {} fields, the column '{}' is missing", source_,
                                    i + 1, rows[i].size(), columns[column]));
      }
      cells.push_back(std::move(rows[i][places[column]]));
    }
    rows_.push_back(std::move(cells));
  }
  if (rows_.empty()) throw_bad_input(source_ + ": has a header and no rows");
}

CsvTable CsvTable::headless(const fs::path& path, size_t columns) {
  CsvTable table;
  table.source_ = path.string();
  table.rows_ = read_csv(path);
  if (table.rows_.empty()) throw_bad_input(table.source_ + ": is empty");
  for (size_t i = 0; i < table.rows_.size(); ++i) {
    if (table.rows_[i].size() == columns) continue;
    throw_bad_input(fmt::format("{}: row {} has {} fields, expected {}", table.source_, i + 1,
                                table.rows_[i].size(), columns));
  }
  return table;
}

std::vector<std::string> read_lines(const fs::path& path) {
  const std::string text = read_file(path);
  std::vector<std::string> lines;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    lines.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  if (lines.empty()) throw_bad_input(path.string() + ": is empty");
  return lines;
}

}  // namespace quern
