// CSV after RFC 4180, with the latitude of pandas' reader: fields may be quoted, "" in quotes is a
// quote, what stands in quotes keeps its line ends byte for byte. Rows end with LF, CRLF or CR;
// blank lines are no rows; a byte order mark in front is dropped.
#pragma once

#include <string>
#include <vector>

#include "core/file.h"

namespace quern {

using CsvRow = std::vector<std::string>;

// All rows, the header among them. Throws BadInput naming file and row where a quote is never
// closed or the text is not UTF-8.
std::vector<CsvRow> parse_csv(std::string_view text, const std::string& source);
std::vector<CsvRow> read_csv(const fs::path& path);

}  // namespace quern
