// What is kept between runs gives the same ids, and nothing that lies there can do harm.
#include "text/vocabulary_cache.h"

#include <sys/stat.h>

#include <cstdlib>
#include <cstring>

#include "core/rng.h"
#include "formats/tiktoken.h"
#include "support/support.h"
#include "text/bpe_file.h"
#include "text/load.h"

namespace quern {
namespace {

constexpr size_t kHeaderBytes = 8 + 8 + 24 + 16 + 12 * 16;  // see bpe_file.cpp

// Every byte, and tokens of two and three: pairs, characters, and parts of characters.
std::vector<std::string> some_tokens(size_t count) {
  std::vector<std::string> tokens;
  for (int byte = 0; byte < 256; ++byte) tokens.emplace_back(1, static_cast<char>(byte));
  for (const char* token : {"中", "国", "中国", "\xE4\xB8", "é", "aé", "\xA9z"}) {
    tokens.emplace_back(token);
  }
  for (size_t i = 0; tokens.size() < count; ++i) {
    std::string token;
    for (size_t n = i; n > 0; n /= 26) token += static_cast<char>('a' + n % 26);
    if (token.size() > 1) tokens.push_back(token);
  }
  return tokens;
}

std::vector<TokenId> encoded(const Bpe& bpe, std::string_view piece) {
  std::vector<TokenId> ids;
  bpe.encode_piece(piece, ids);
  return ids;
}

std::string random_piece(Rng& rng) {
  static const char* const kParts[] = {"a", "b", "c", "中", "国", "é", "z", "\xB8", "丐"};
  std::string out;
  for (uint64_t n = 1 + rng.below(200); n > 0; --n) out += kParts[rng.below(std::size(kParts))];
  return out;
}

class VocabularyCache : public testing::Test {
 protected:
  VocabularyCache() : tokens_(some_tokens(30'000)), bpe_(Bpe::from_ranks(tokens_)) {
    source_ = folder_.path() / "vocabulary.tiktoken";
    write_tiktoken(source_, {.first_rank = 0, .tokens = tokens_});
    id_ = source_id(read_file(source_));
    bytes_ = BpeFile::make(bpe_, id_);
  }
  std::optional<Bpe> open(const std::string& bytes) {
    return BpeFile::open(MappedFile(folder_.write("some.bpe", bytes)), id_);
  }
  // As it would be if who changed it had seen to the checksum, too.
  std::string with_checksum(std::string bytes);

  test::TempFolder folder_;
  std::vector<std::string> tokens_;
  Bpe bpe_;
  fs::path source_;
  SourceId id_;
  std::string bytes_;
};

std::string VocabularyCache::with_checksum(std::string bytes) {
  const uint64_t checksum = Bpe::hash_of(std::string_view(bytes).substr(kHeaderBytes));
  std::memcpy(bytes.data() + 48, &checksum, sizeof checksum);
  return bytes;
}

TEST_F(VocabularyCache, WhatIsReadBackEncodesAsWhatWasMade) {
  const std::optional<Bpe> again = open(bytes_);
  ASSERT_TRUE(again);
  EXPECT_EQ(with_checksum(bytes_), bytes_);  // this test knows where it stands
  Rng rng(1);
  for (int round = 0; round < 2000; ++round) {
    const std::string piece = random_piece(rng);
    std::vector<TokenId> expected;
    bpe_.encode_piece_reference(piece, expected);
    ASSERT_EQ(encoded(*again, piece), expected) << printable(piece);
  }
  for (size_t id = 0; id < tokens_.size(); ++id) {
    ASSERT_EQ(again->bytes(static_cast<TokenId>(id)), tokens_[id]);
    ASSERT_EQ(again->find(tokens_[id]), static_cast<TokenId>(id));
  }
}

TEST_F(VocabularyCache, CutOrChangedFilesAreNotUsed) {
  Rng rng(2);
  for (int round = 0; round < 300; ++round) {
    ASSERT_FALSE(open(bytes_.substr(0, rng.below(bytes_.size()))));
    std::string bytes = bytes_;
    // Any byte; every byte of the header, which comes first.
    const size_t at = round < int(kHeaderBytes) ? size_t(round) : rng.below(bytes.size());
    bytes[at] = static_cast<char>(bytes[at] ^ (1 << rng.below(8)));
    const std::optional<Bpe> opened = open(bytes);
    ASSERT_FALSE(opened && (at >= kHeaderBytes || at < 56)) << at;
  }
  EXPECT_FALSE(open(""));
  EXPECT_FALSE(open(bytes_ + '\0'));
  EXPECT_FALSE(BpeFile::open(MappedFile(folder_.write("b", bytes_)), {id_.size, {id_.hash[0], 7}}));
}

// With a checksum that is right: it is refused, or what it gives has the length of the text.
TEST_F(VocabularyCache, HostileTablesStayInsideThemselves) {
  Rng rng(3);
  int used = 0;
  for (int round = 0; round < 300; ++round) {
    std::string bytes = bytes_;
    for (uint64_t changes = 1 + rng.below(4); changes > 0; --changes) {
      const bool header = rng.below(3) == 0;
      const size_t at = header ? 56 + rng.below(kHeaderBytes - 56) : rng.below(bytes.size());
      bytes[at] = static_cast<char>(rng.below(256));
    }
    const std::optional<Bpe> opened = open(with_checksum(bytes));
    if (!opened) continue;
    ++used;
    for (int piece = 0; piece < 5; ++piece) {
      const std::string text = random_piece(rng);
      size_t size = 0;
      for (const TokenId id : encoded(*opened, text)) {
        ASSERT_LT(static_cast<size_t>(id), opened->size());
        size += opened->bytes(id).size();
      }
      ASSERT_EQ(size, text.size());
    }
  }
  EXPECT_GT(used, 0);
}

TEST_F(VocabularyCache, IsFilledOnceAndFollowsTheSource) {
  const fs::path folder = folder_.path() / "cache" / "deep";
  ASSERT_GT(fs::file_size(source_), 256u << 10);
  const auto files = [&] {
    std::vector<fs::path> out;
    for (const auto& entry : fs::directory_iterator(folder)) out.push_back(entry.path());
    return out;
  };
  EXPECT_EQ(load_ranks(source_, folder).size(), tokens_.size());
  ASSERT_EQ(files().size(), 1u);
  const auto first = fs::last_write_time(files()[0]);
  EXPECT_EQ(encoded(load_ranks(source_, folder), "中国aé"), encoded(bpe_, "中国aé"));
  EXPECT_EQ(fs::last_write_time(files()[0]), first);
  // A damaged one is made again.
  write_file(files()[0], "damage");
  EXPECT_EQ(load_ranks(source_, folder).size(), tokens_.size());
  EXPECT_EQ(fs::file_size(files()[0]), bytes_.size());
  // One that others may write is not trusted.
  ASSERT_EQ(::chmod(files()[0].c_str(), 0666), 0);
  const auto theirs = fs::last_write_time(files()[0]);
  load_ranks(source_, folder);
  EXPECT_NE(fs::last_write_time(files()[0]), theirs);
  // Another source, another file.
  std::vector<std::string> more = tokens_;
  more.push_back("quern quern");
  write_tiktoken(source_, {.first_rank = 0, .tokens = more});
  EXPECT_EQ(load_ranks(source_, folder).size(), more.size());
  EXPECT_EQ(files().size(), 2u);
}

TEST_F(VocabularyCache, WhereNothingCanBeKeptItIsMadeEachTime) {
  const fs::path file = folder_.write("a-file", "x");
  EXPECT_EQ(load_ranks(source_, file / "folder").size(), tokens_.size());
  EXPECT_EQ(load_ranks(source_, {}).size(), tokens_.size());
  EXPECT_EQ(load_ranks(source_, "/proc/no-such-folder").size(), tokens_.size());
}

TEST_F(VocabularyCache, TheEnvironmentSaysWhere) {
  ::setenv("QUERN_TOKENIZER_CACHE", "off", 1);
  EXPECT_EQ(vocabulary_cache_folder(), fs::path());
  ::setenv("QUERN_TOKENIZER_CACHE", "/somewhere", 1);
  EXPECT_EQ(vocabulary_cache_folder(), fs::path("/somewhere"));
  ::unsetenv("QUERN_TOKENIZER_CACHE");
  ::setenv("XDG_CACHE_HOME", "/xdg", 1);
  EXPECT_EQ(vocabulary_cache_folder(), fs::path("/xdg/quern/tokenizers"));
  ::setenv("XDG_CACHE_HOME", "relative", 1);
  ::setenv("HOME", "/home/me", 1);
  EXPECT_EQ(vocabulary_cache_folder(), fs::path("/home/me/.cache/quern/tokenizers"));
  ::unsetenv("HOME");
  EXPECT_EQ(vocabulary_cache_folder(), fs::path());
  ::setenv("QUERN_TOKENIZER_CACHE", "off", 1);
}

}  // namespace
}  // namespace quern
