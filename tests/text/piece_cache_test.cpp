// The caches give back what was put in, or nothing.
#include "text/piece_cache.h"

#include <map>

#include "core/rng.h"
#include "support/support.h"

namespace quern {
namespace {

using Ids = std::vector<TokenId>;

std::string random_bytes(Rng& rng, size_t size) {
  std::string out;
  while (out.size() < size) out += static_cast<char>(rng.below(4) == 0 ? rng.below(256) : 'a');
  return out;
}

TEST(PieceCache, GivesBackWhatAPieceBecame) {
  PieceCache cache;
  Rng rng(61);
  std::map<std::string, Ids> all;  // no count of ids: more than the cache keeps
  size_t found = 0, asked = 0;
  for (int round = 0; round < 200'000; ++round) {
    const std::string piece = random_bytes(rng, 1 + rng.below(PieceCache::kMaxBytes));
    const std::string padded = piece + random_bytes(rng, PieceCache::kReadAhead);
    const PieceCache::Key key = PieceCache::key_of(padded.data(), piece.size());
    const size_t place = PieceCache::place_of(key);
    TokenId out[PieceCache::kWriteAhead];
    const size_t count = cache.find(key, place, out);
    const auto known = all.find(piece);
    if (known == all.end()) {
      ASSERT_EQ(count, 0U) << printable(piece);
      ASSERT_FALSE(cache.has_many(key, place)) << printable(piece);
    } else {
      ++asked;
      if (count != 0 || cache.has_many(key, place)) {
        ++found;
        ASSERT_EQ(Ids(out, out + count), known->second) << printable(piece);
      }
    }
    Ids ids(rng.below(PieceCache::kMaxTokens + 1));
    for (TokenId& id : ids) id = static_cast<TokenId>(rng.below(1 << 20));
    if (count != 0 || cache.has_many(key, place)) continue;
    cache.insert(key, place, ids.data(), ids.size());
    all[piece] = ids;
  }
  EXPECT_GT(found, asked / 2);
}

// Far more than it holds, so that it has to forget.
TEST(LongPieces, GiveBackWhatAPieceBecame) {
  LongPieces cache;
  Rng rng(62);
  std::map<std::string, Ids> all;
  size_t found = 0;
  std::string last;
  for (int round = 0; round < 60'000; ++round) {
    const std::string piece = rng.below(3) == 0 && !last.empty()
                                  ? last
                                  : random_bytes(rng, 1 + rng.below(LongPieces::kMaxBytes));
    last = piece;
    const uint64_t hash = LongPieces::hash(piece);
    const auto known = cache.find(hash, piece);
    if (const auto expected = all.find(piece); expected == all.end()) {
      ASSERT_TRUE(known.empty());
    } else if (!known.empty()) {
      ++found;
      ASSERT_EQ(Ids(known.begin(), known.end()), expected->second);
    }
    Ids ids(1 + rng.below(piece.size()));
    for (TokenId& id : ids) id = static_cast<TokenId>(rng.below(1 << 20));
    cache.insert(hash, piece, ids);
    all[piece] = ids;
  }
  EXPECT_GT(found, 10'000U);
}

}  // namespace
}  // namespace quern
