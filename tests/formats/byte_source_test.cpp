// Compressed files, whole and damaged: reliability list F.
#include "formats/byte_source.h"

#include "support/compress.h"
#include "support/support.h"

namespace quern {
namespace {

std::string contents(const fs::path& path, size_t step = 7) {
  const auto source = ByteSource::open(path);
  std::string out, buffer(step, '\0');
  while (const size_t count = source->read(buffer)) out.append(buffer, 0, count);
  EXPECT_EQ(source->consumed_bytes(), source->file_bytes());
  return out;
}

std::string long_text() {
  std::string text;
  for (int i = 0; i < 20000; ++i) text += "line " + std::to_string(i * 7919 % 10007) + "\n";
  return text;
}

TEST(ByteSource, PlainGzipAndZstdGiveTheSameBytes) {
  const test::TempFolder folder;
  const std::string text = long_text();
  EXPECT_EQ(contents(folder.write("a.txt", text), 4096), text);
  EXPECT_EQ(contents(folder.write("a.txt.gz", test::gzip(text)), 4096), text);
  EXPECT_EQ(contents(folder.write("a.txt.zst", test::zstd(text)), 4096), text);
  EXPECT_EQ(contents(folder.write("empty.txt", "")), "");
  EXPECT_EQ(contents(folder.write("empty.gz", test::gzip(""))), "");
  EXPECT_EQ(contents(folder.write("empty.zst", test::zstd(""))), "");
}

TEST(ByteSource, MembersFollowOneAnother) {
  const test::TempFolder folder;
  EXPECT_EQ(contents(folder.write("a.gz", test::gzip("one ") + test::gzip("two"))), "one two");
  EXPECT_EQ(contents(folder.write("a.zst", test::zstd("one ") + test::zstd("two"))), "one two");
  EXPECT_EQ(contents(folder.write("padded.gz", test::gzip("one") + std::string(512, '\0'))), "one");
}

TEST(ByteSource, ContentDecidesNotTheName) {
  const test::TempFolder folder;
  EXPECT_EQ(contents(folder.write("a.jsonl", test::gzip("text"))), "text");
  EXPECT_EQ(contents(folder.write("b.gz", test::zstd("text"))), "text");
  const fs::path wrong = folder.write("c.gz", "plain text");
  test::expect_error([&] { contents(wrong); }, Kind::BadInput, {"c.gz", "is named .gz"});
  const fs::path pointer =
      folder.write("d.zst", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n");
  test::expect_error([&] { contents(pointer); }, Kind::BadInput, {"d.zst", "git lfs pull"});
}

TEST(ByteSource, ACutStreamIsAnErrorWhereverItIsCut) {
  const test::TempFolder folder;
  const std::string text = "some text that is compressed, some text that is compressed";
  for (const std::string& whole : {test::gzip(text), test::zstd(text)}) {
    for (size_t keep = 4; keep < whole.size(); ++keep) {
      const fs::path cut = folder.write("cut", std::string_view(whole).substr(0, keep));
      test::expect_error([&] { contents(cut); }, Kind::BadInput, {"cut"});
    }
  }
}

TEST(ByteSource, GarbageAfterTheEndIsAnError) {
  const test::TempFolder folder;
  const fs::path gzip = folder.write("a.gz", test::gzip("text") + "garbage");
  test::expect_error([&] { contents(gzip); }, Kind::BadInput, {"a.gz", "after its end"});
  const fs::path zstd = folder.write("a.zst", test::zstd("text") + "garbage!");
  test::expect_error([&] { contents(zstd); }, Kind::BadInput, {"a.zst"});
}

TEST(ByteSource, DamageIsAnError) {
  const test::TempFolder folder;
  std::string gzip = test::gzip(long_text());
  gzip[gzip.size() / 2] = static_cast<char>(gzip[gzip.size() / 2] ^ 0x55);
  const fs::path path = folder.write("a.gz", gzip);
  test::expect_error([&] { contents(path, 4096); }, Kind::BadInput, {"a.gz", "damaged"});
}

TEST(ByteSource, ABombIsStopped) {
  const test::TempFolder folder;
  const fs::path bomb = folder.write("bomb.zst", test::zstd(std::string(size_t{100} << 20, 'a')));
  test::expect_error([&] { contents(bomb, 1 << 20); }, Kind::BadInput, {"bomb.zst", "1000-fold"});
}

TEST(ByteSource, WhatIsNoFileIsRefused) {
  const test::TempFolder folder;
  test::expect_error([&] { contents(folder.path()); }, Kind::BadInput, {"is a folder, expected a regular file"});
  test::expect_error([&] { contents(folder.path() / "absent"); }, Kind::BadInput, {"absent"});
}

std::vector<std::string> lines(const fs::path& path, uint64_t max_bytes = 100) {
  LineReader reader(ByteSource::open(path), path.string(), max_bytes);
  std::vector<std::string> out;
  for (std::string line; reader.next(line);) out.push_back(line);
  EXPECT_EQ(reader.number(), static_cast<int64_t>(out.size()));
  return out;
}

TEST(LineReader, BothLineEndsAndALastLineWithoutOne) {
  const test::TempFolder folder;
  using Lines = std::vector<std::string>;
  EXPECT_EQ(lines(folder.write("a", "one\r\ntwo\n\nthree")), (Lines{"one", "two", "", "three"}));
  EXPECT_EQ(lines(folder.write("b", "one\n")), Lines{"one"});
  EXPECT_EQ(lines(folder.write("c", "")), Lines{});
}

TEST(LineReader, ALineThatIsTooLongIsNamed) {
  const test::TempFolder folder;
  const fs::path path = folder.write("a.jsonl", "short\n" + std::string(101, 'x') + "\n");
  test::expect_error([&] { lines(path); }, Kind::BadInput, {"a.jsonl: line 2", "100 bytes"});
}

}  // namespace
}  // namespace quern
