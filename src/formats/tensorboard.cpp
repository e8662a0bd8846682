#include "formats/tensorboard.h"

#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <bit>
#include <cstring>

#include "core/error.h"

namespace quern {
namespace {

static_assert(std::endian::native == std::endian::little, "numbers are written as they lie");

constexpr std::array<uint32_t, 256> kCrcTable = [] {
  std::array<uint32_t, 256> table{};
  for (uint32_t i = 0; i < 256; ++i) {
    uint32_t value = i;
    for (int bit = 0; bit < 8; ++bit) value = value >> 1 ^ (value & 1 ? 0x82F63B78u : 0);
    table[i] = value;
  }
  return table;
}();

template <class T>
void append_raw(std::string& out, T value) {
  char bytes[sizeof value];
  std::memcpy(bytes, &value, sizeof value);
  out.append(bytes, sizeof value);
}

// Fields of a protocol buffer message.
enum Wire { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };

void append_varint(std::string& out, uint64_t value) {
  for (; value >= 0x80; value >>= 7) out += static_cast<char>(value | 0x80);
  out += static_cast<char>(value);
}
void append_key(std::string& out, int field, Wire wire) {
  append_varint(out, static_cast<uint64_t>(field << 3 | wire));
}
void append_bytes(std::string& out, int field, std::string_view bytes) {
  append_key(out, field, kBytes);
  append_varint(out, bytes.size());
  out += bytes;
}

std::string event_at(int64_t step, double wall_seconds) {
  std::string event;
  append_key(event, 1, kFixed64);
  append_raw(event, wall_seconds);
  append_key(event, 2, kVarint);
  append_varint(event, static_cast<uint64_t>(step));
  return event;
}

// The form in which TFRecord keeps a checksum, so that one of data with checksums in it is no
// fixed point.
uint32_t masked(uint32_t crc) noexcept { return std::rotr(crc, 15) + 0xA282EAD8u; }

}  // namespace

uint32_t crc32c(std::string_view bytes) noexcept {
  uint32_t crc = ~uint32_t{0};
  for (const char byte : bytes) {
    crc = crc >> 8 ^ kCrcTable[(crc ^ static_cast<unsigned char>(byte)) & 0xFF];
  }
  return ~crc;
}

EventFile::EventFile(const fs::path& folder, int64_t step, double wall_seconds) {
  // Names sort by time; two files of one second are told apart by step and process.
  path_ = folder /
          fmt::format("events.out.tfevents.{:010.0f}.quern.{}.{}", wall_seconds, step, ::getpid());
  out_.open(path_, std::ios::binary | std::ios::trunc);
  std::string version = event_at(0, wall_seconds);
  append_bytes(version, 3, "brain.Event:2");
  record(version);
  constexpr std::string_view kStart("\x08\x01", 2);  // SessionLog.status = START
  std::string start = event_at(step, wall_seconds);
  append_bytes(start, 7, kStart);
  record(start);
}

void EventFile::scalar(std::string_view tag, int64_t step, double wall_seconds, double value) {
  std::string entry, summary;
  append_bytes(entry, 1, tag);
  append_key(entry, 2, kFixed32);
  append_raw(entry, static_cast<float>(value));
  append_bytes(summary, 1, entry);
  std::string event = event_at(step, wall_seconds);
  append_bytes(event, 5, summary);
  record(event);
}

void EventFile::record(std::string_view event) {
  std::string length;
  append_raw(length, static_cast<uint64_t>(event.size()));
  std::string bytes = length;
  append_raw(bytes, masked(crc32c(length)));
  bytes += event;
  append_raw(bytes, masked(crc32c(event)));
  out_.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  if (!out_.flush()) {
    throw Error(Kind::NoResources, path_.string() + ": cannot be written to", "is the disk full?");
  }
}

}  // namespace quern
