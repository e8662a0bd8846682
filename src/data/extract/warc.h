// Web archives (WARC 1.0, 1.1; WET): their records, one after another, also out of damaged files.
//
// Files are plain or gzip, a member for each record or several records in one. What is damaged (a
// header without a colon, a Content-Length that isn't the record's, a member cut off) is given back
// as such with its place in the file as it lies on disk, and reading goes on with the next record.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/file.h"

namespace quern {

struct WarcRecord {
  int64_t offset = 0;  // in the file on disk: of the record, or of the gzip member that holds it
  std::string damage;  // what is wrong; then the rest is empty
  std::vector<std::pair<std::string, std::string>> fields;  // names in lower case
  std::string block;
  std::string_view field(std::string_view name) const noexcept;
};

class WarcReader {
 public:
  static constexpr size_t kMaxRecord = size_t{32} << 20;  // bytes of a record, decompressed

  explicit WarcReader(const fs::path& path);  // Throws BadInput where the file can't be read.
  ~WarcReader();
  std::optional<WarcRecord> next();
  uint64_t consumed_bytes() const noexcept;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// The body of an HTTP response: chunks joined, gzip and deflate unpacked.
struct HttpResponse {
  int status = 0;
  std::string content_type;  // "text/html; charset=utf-8"
  std::string body;
};
// Throws BadInput for one that is malformed or in an encoding that nobody here unpacks.
HttpResponse read_http_response(std::string_view block);

}  // namespace quern
