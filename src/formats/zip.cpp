#include "formats/zip.h"

#include <fmt/format.h>

#include <optional>

#include "core/error.h"

namespace quern {
namespace {

constexpr size_t kEndBytes = 22;    // end of central directory, without its comment
constexpr size_t kEntryBytes = 46;  // entry of the central directory, without its names
constexpr size_t kLocalBytes = 30;  // local header, without its names
constexpr uint64_t kMaxMembers = 1'000'000;

// Little-endian numbers at checked offsets.
class Bytes {
 public:
  Bytes(std::string_view data, const std::string& source) : data_(data), source_(source) {}

  [[noreturn]] void fail(const std::string& problem) const {
    throw_bad_input(source_ + ": " + problem);
  }
  std::string_view part(uint64_t offset, uint64_t size) const {
    if (offset > data_.size() || size > data_.size() - offset) {
      fail(fmt::format("the zip file ends before byte {}", offset));
    }
    return data_.substr(offset, size);
  }
  uint64_t number(uint64_t offset, size_t size) const {
    const std::string_view bytes = part(offset, size);
    uint64_t value = 0;
    for (size_t i = size; i-- > 0;) value = value << 8 | static_cast<unsigned char>(bytes[i]);
    return value;
  }

 private:
  std::string_view data_;
  const std::string& source_;
};

std::optional<uint64_t> find_end(std::string_view file) {
  constexpr size_t kMaxComment = 65535;
  if (file.size() < kEndBytes) return std::nullopt;
  const size_t stop = file.size() - kEndBytes;
  for (size_t back = 0; back <= std::min(stop, kMaxComment); ++back) {
    if (file.substr(stop - back).starts_with("PK\x05\x06")) return stop - back;
  }
  return std::nullopt;
}

}  // namespace

std::map<std::string, std::string_view> read_stored_zip(std::string_view file,
                                                        const std::string& source) {
  const Bytes in(file, source);
  const auto end = find_end(file);
  if (!end) in.fail("is no zip file, or it is cut off");
  uint64_t count = in.number(*end + 10, 2), offset = in.number(*end + 16, 4);
  // Zip64: a locator before the end points at a larger record.
  if (*end >= 20 && file.substr(*end - 20).starts_with(std::string_view("PK\x06\x07", 4))) {
    const uint64_t record = in.number(*end - 12, 8);
    if (in.part(record, 4) != std::string_view("PK\x06\x06", 4)) in.fail("has a bad zip64 record");
    count = in.number(record + 32, 8);
    offset = in.number(record + 48, 8);
  }
  if (count > kMaxMembers) in.fail(fmt::format("claims {} members", count));
  std::map<std::string, std::string_view> members;
  for (uint64_t i = 0; i < count; ++i) {
    if (in.part(offset, 4) != std::string_view("PK\x01\x02", 4)) {
      in.fail(fmt::format("has no member entry at byte {}", offset));
    }
    const uint64_t flags = in.number(offset + 8, 2), method = in.number(offset + 10, 2);
    uint64_t packed = in.number(offset + 20, 4), size = in.number(offset + 24, 4);
    const uint64_t name_size = in.number(offset + 28, 2), extra_size = in.number(offset + 30, 2);
    uint64_t local = in.number(offset + 42, 4);
    const std::string name(in.part(offset + kEntryBytes, name_size));
    // Zip64's extra field holds, in this order, those of the three that do not fit.
    uint64_t extra = offset + kEntryBytes + name_size;
    const uint64_t extra_end = extra + extra_size;
    while (extra + 4 <= extra_end) {
      const uint64_t id = in.number(extra, 2), bytes = in.number(extra + 2, 2);
      if (id == 1) {
        uint64_t at = extra + 4;
        for (uint64_t* value : {&size, &packed, &local}) {
          if (*value != 0xFFFFFFFF) continue;
          *value = in.number(at, 8);
          at += 8;
        }
      }
      extra += 4 + bytes;
    }
    offset = extra_end + in.number(offset + 32, 2);

    const std::string shown = printable(name, 120);
    if (name.empty() || name[0] == '/' || name.find("..") != name.npos ||
        name.find('\0') != name.npos || name.find('\\') != name.npos) {
      in.fail(fmt::format("has a member named '{}'", shown));
    }
    if ((flags & 1) != 0) in.fail(fmt::format("the member {} is encrypted", shown));
    if (method != 0 || packed != size) {
      in.fail(fmt::format("the member {} is compressed, which PyTorch's files never are", shown));
    }
    if (in.part(local, 4) != std::string_view("PK\x03\x04", 4)) {
      in.fail(fmt::format("the member {} has no header at byte {}", shown, local));
    }
    const uint64_t start =
        local + kLocalBytes + in.number(local + 26, 2) + in.number(local + 28, 2);
    if (!members.emplace(name, in.part(start, size)).second) {
      in.fail(fmt::format("has two members named {}", shown));
    }
  }
  return members;
}

}  // namespace quern
