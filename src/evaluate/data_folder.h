// The folder of benchmark files; errors say where a missing file is published.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "core/file.h"
#include "core/json.h"
#include "formats/csv.h"

namespace quern {

class DataFolder {
 public:
  // Throws BadInput where there is no such folder.
  explicit DataFolder(fs::path path);

  const fs::path& path() const noexcept { return path_; }
  fs::path operator/(const std::string& relative) const { return path_ / relative; }

  // A file or folder below; throws BadInput that says where the data are published.
  fs::path need(const std::string& relative, const std::string& published) const;

  // The names in `folder` that end in `suffix`, without it, sorted. At least one.
  std::vector<std::string> names(const std::string& folder, const std::string& suffix,
                                 const std::string& published) const;

 private:
  fs::path path_;
};

// Each line of a JSONL file (also gzip or zstd) as an object; throws BadInput naming the line.
void for_each_record(const fs::path& path,
                     const std::function<void(const Json& record, int64_t row)>& take);

// A table whose columns are found by their names in the first row. Throws BadInput naming what is
// missing, and the row that is too short.
class CsvTable {
 public:
  CsvTable(const fs::path& path, const std::vector<std::string>& columns);
  // Reads a file without a header, whose rows have `columns` cells.
  static CsvTable headless(const fs::path& path, size_t columns);

  int64_t rows() const noexcept { return static_cast<int64_t>(rows_.size()); }
  const std::string& cell(int64_t row, size_t column) const {
    return rows_[static_cast<size_t>(row)][column];
  }
  const std::string& source() const noexcept { return source_; }

 private:
  CsvTable() = default;
  std::string source_;
  std::vector<CsvRow> rows_;  // cells in the order of `columns`
};

// The lines of a text file, split at LF only.
std::vector<std::string> read_lines(const fs::path& path);

}  // namespace quern
