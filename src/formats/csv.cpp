#include "formats/csv.h"

#include <fmt/format.h>

#include "core/error.h"
#include "core/utf8.h"

namespace quern {

std::vector<CsvRow> parse_csv(std::string_view text, const std::string& source) {
  if (text.starts_with("\xEF\xBB\xBF")) text.remove_prefix(3);
  if (const size_t bad = utf8::first_invalid(text); bad != text.npos) {
    throw_bad_input(fmt::format("{}: is not valid UTF-8 at byte {}", source, bad));
  }
  std::vector<CsvRow> rows;
  CsvRow row;
  std::string field;
  bool begun = false;  // something of the row was read
  const auto end_field = [&] {
    row.push_back(std::move(field));
    field.clear();
  };
  const auto end_row = [&] {
    if (begun) {
      end_field();
      rows.push_back(std::move(row));
    }
    row.clear();
    begun = false;
  };
  for (size_t at = 0; at < text.size();) {
    const char c = text[at];
    if (c == '"' && field.empty()) {
      // Up to the closing quote; what follows it up to the comma belongs to the field, too.
      begun = true;
      for (++at;;) {
        const size_t quote = text.find('"', at);
        if (quote == text.npos) {
          throw_bad_input(fmt::format("{}: row {} opens a quote that is never closed", source,
                                      rows.size() + 1));
        }
        field += text.substr(at, quote - at);
        at = quote + 1;
        if (at >= text.size() || text[at] != '"') break;
        field += '"';
        ++at;
      }
      while (at < text.size() && text[at] != ',' && text[at] != '\n' && text[at] != '\r') {
        field += text[at++];
      }
    } else if (c == ',') {
      begun = true;
      end_field();
      ++at;
    } else if (c == '\n' || c == '\r') {
      at += c == '\r' && at + 1 < text.size() && text[at + 1] == '\n' ? 2 : 1;
      end_row();
    } else {
      begun = true;
      while (at < text.size() && text[at] != ',' && text[at] != '\n' && text[at] != '\r') {
        field += text[at++];
      }
    }
  }
  end_row();
  return rows;
}

std::vector<CsvRow> read_csv(const fs::path& path) {
  return parse_csv(read_file(path), path.string());
}

}  // namespace quern
