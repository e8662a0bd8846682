#include "formats/tensorboard.h"

#include <gtest/gtest.h>

#include <cstring>
#include <vector>

#include "support/support.h"

namespace quern::test {
namespace {

template <class T>
T raw(std::string_view bytes, size_t at) {
  T value;
  std::memcpy(&value, bytes.data() + at, sizeof value);
  return value;
}

// The events of a file, each checked against its checksums, as the format's definition has them.
std::vector<std::string> records(std::string_view bytes) {
  const auto checked = [](std::string_view part, uint32_t kept) {
    const uint32_t crc = kept - 0xA282EAD8u;
    EXPECT_EQ(crc >> 17 | crc << 15, crc32c(part));
  };
  std::vector<std::string> out;
  for (size_t at = 0; at < bytes.size();) {
    const auto size = static_cast<size_t>(raw<uint64_t>(bytes, at));
    checked(bytes.substr(at, 8), raw<uint32_t>(bytes, at + 8));
    checked(bytes.substr(at + 12, size), raw<uint32_t>(bytes, at + 12 + size));
    out.emplace_back(bytes.substr(at + 12, size));
    at += size + 16;
  }
  return out;
}

TEST(Crc32c, OfTheNineDigits) {
  EXPECT_EQ(crc32c("123456789"), 0xE3069283u);  // RFC 3720's check value
  EXPECT_EQ(crc32c(std::string(32, '\0')), 0x8A9136AAu);
}

TEST(EventFile, HoldsItsVersionItsStartAndTheNumbers) {
  const TempFolder temp;
  {
    EventFile file(temp.path(), 301, 1700000000.5);
    file.scalar("train/loss", 301, 1700000001.25, 2.5);
  }
  const fs::path path = fs::directory_iterator(temp.path())->path();
  EXPECT_TRUE(path.filename().string().starts_with("events.out.tfevents.1700000000.quern"));
  const auto events = records(read_file(path));
  ASSERT_EQ(events.size(), 3u);
  // Field by field: wall_time (1, fixed64), step (2, varint), then what the event is.
  EXPECT_EQ(events[0][0], '\x09');
  EXPECT_EQ(raw<double>(events[0], 1), 1700000000.5);
  EXPECT_EQ(events[0].substr(9), std::string_view("\x10\x00\x1a\x0d"
                                                  "brain.Event:2",
                                                  17));
  EXPECT_EQ(events[1].substr(9), "\x10\xad\x02\x3a\x02\x08\x01");
  EXPECT_EQ(raw<double>(events[2], 1), 1700000001.25);
  const std::string value = events[2].substr(9);
  EXPECT_EQ(value.substr(0, value.size() - 4),
            "\x10\xad\x02\x2a\x13\x0a\x11\x0a\x0a"
            "train/loss"
            "\x15");
  EXPECT_EQ(raw<float>(value, value.size() - 4), 2.5f);
}

}  // namespace
}  // namespace quern::test
