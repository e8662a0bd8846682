// TensorBoard's event files: named numbers by step, as records that each carry their checksum.
// Source: tensorflow/core/util/event.proto and the TFRecord format.
#pragma once

#include <cstdint>
#include <fstream>
#include <string_view>

#include "core/file.h"

namespace quern {

class EventFile {
 public:
  // Makes a new file in `folder`; `step` is the first that it may tell of: readers forget what
  // earlier files say of that step and later ones, which a killed run left behind. `wall_seconds`
  // is the time since 1970.
  EventFile(const fs::path& folder, int64_t step, double wall_seconds);

  void scalar(std::string_view tag, int64_t step, double wall_seconds, double value);

 private:
  void record(std::string_view event);

  fs::path path_;
  std::ofstream out_;
};

// CRC-32C (Castagnoli) of the bytes.
uint32_t crc32c(std::string_view bytes) noexcept;

}  // namespace quern
