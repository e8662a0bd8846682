// Records of the third-party data, for tests of the stages.
#pragma once

#include <string>
#include <vector>

#include "core/ordered_json.h"
#include "formats/byte_source.h"
#include "support/support.h"

namespace quern::test {

inline std::vector<OrderedJson> read_records(const fs::path& path) {
  LineReader lines(ByteSource::open(path), path.string(), uint64_t{64} << 20);
  std::vector<OrderedJson> out;
  for (std::string line; lines.next(line);) {
    if (!line.empty()) out.push_back(OrderedJson::parse(line, path.string()));
  }
  return out;
}

inline const OrderedJson& at(const OrderedJson& object, std::string_view key) {
  const OrderedJson* value = object.find(key);
  if (value == nullptr) throw std::out_of_range(std::string(key));
  return *value;
}

}  // namespace quern::test
