// What pieces became: most of those of ordinary text are one of a few thousand, seen again and
// again. Bounded, and without locks: one thread uses one cache at a time.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <mutex>
#include <span>
#include <string_view>
#include <vector>

#include "core/huge_pages.h"
#include "core/opaque.h"
#include "text/bpe.h"

namespace quern {

// Pieces of any size by a hash of their bytes, with their tokens, in memory that is filled from
// front to back and, when it is full, forgotten as a whole.
class LongPieces {
 public:
  static constexpr size_t kMaxBytes = 512;  // of a piece

  static uint64_t hash(std::string_view piece) noexcept { return Bpe::hash_of(piece); }
  void prefetch(uint64_t hash) const noexcept {
    __builtin_prefetch(index_.data() + bucket_of(hash));
  }

  // Empty where the piece is not known. Valid until the next insert.
  std::span<const TokenId> find(uint64_t hash, std::string_view piece) const noexcept;
  void insert(uint64_t hash, std::string_view piece, std::span<const TokenId> ids) noexcept;

 private:
  // A record: its piece's size, the number of tokens, the bytes, filled up to a word, the tokens.
  // Where it begins stands in the lower bits of a word of the index, of the hash the upper ones.
  static constexpr int kPlaceBits = 23, kBucketBits = 15;
  static constexpr size_t kWays = 8;  // words of a cache line
  static constexpr uint64_t kPlace = (uint64_t{1} << kPlaceBits) - 1;

  static size_t bucket_of(uint64_t hash) noexcept {
    return (hash & ((size_t{1} << kBucketBits) - 1)) * kWays;
  }

  ZeroPages<uint64_t> index_{kWays << kBucketBits};
  ZeroPages<uint32_t> records_{size_t{1} << kPlaceBits, 1};
  size_t used_ = 1;  // words; place 0 is nobody's
};

class PieceCache {
 public:
  static constexpr size_t kMaxBytes = 15;   // of a piece that is its own key
  static constexpr size_t kMaxTokens = 3;   // that it became
  static constexpr size_t kReadAhead = 16;  // bytes that are read at a piece, whatever its length
  static constexpr size_t kWriteAhead = 4;  // ids that may be written, of which some are no answer

  // A piece as two words: its bytes, zeros, and its length in the last byte.
  struct Key {
    uint64_t low, high;
    bool operator==(const Key&) const = default;
  };
  static Key key_of(const char* piece, size_t size) noexcept {
    Key key;
    std::memcpy(&key, piece, sizeof key);
    const Key& keep = kKeep[size];
    key.low &= keep.low;
    key.high = (key.high & keep.high) | uint64_t{size} << 56;
    return key;
  }

  // Where a key's answer would be; prefetch fetches it.
  static size_t place_of(const Key& key) noexcept {
    const auto product = static_cast<unsigned __int128>(key.low ^ 0x9E3779B97F4A7C15u) *
                         (key.high ^ 0xD6E8FEB86659FD93u);
    const auto folded = static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
    return folded >> (64 - kBits);
  }
  void prefetch(size_t place) const noexcept { __builtin_prefetch(lines_.data() + place); }

  // Writes the tokens and returns their number, or 0 where the piece is not known, or has more
  // than kMaxTokens.
  size_t find(const Key& key, size_t place, TokenId* out) const noexcept {
    const Slot* slots = lines_.data()[place].slots;
    const uint64_t first = (slots[0].key.low ^ key.low) | (slots[0].key.high ^ key.high);
    const uint64_t second = (slots[1].key.low ^ key.low) | (slots[1].key.high ^ key.high);
    const Slot& slot = slots[opaque(static_cast<size_t>(second == 0))];
    std::memcpy(out, slot.ids, sizeof slot.ids + sizeof slot.count);
    return first == 0 || second == 0 ? slot.count : 0;
  }
  // Whether the piece is known to have more than kMaxTokens; they may be among the long pieces.
  bool has_many(const Key& key, size_t place) const noexcept {
    const Slot* slots = lines_.data()[place].slots;
    return (slots[0].key == key && slots[0].count == 0) ||
           (slots[1].key == key && slots[1].count == 0);
  }

  // Remembers 1 to kMaxTokens tokens, or with a count of 0 that there are more, in the place of an
  // older piece.
  void insert(const Key& key, size_t place, const TokenId* ids, size_t count) noexcept {
    Slot* slots = lines_.data()[place].slots;
    if (slots[1].key != key && slots[0].key != key) slots[1] = slots[0];
    slots[0].key = key;
    std::copy_n(ids, count, slots[0].ids);
    slots[0].count = static_cast<uint32_t>(count);
  }

  // Counts a piece that was not known. The first time there have been many, every token of the
  // vocabulary that fits beside what is known is entered: long texts need most of them, and to find
  // one by one those that short texts need costs less.
  void count_miss(const Bpe& bpe) noexcept {
    if (++misses_ == kManyMisses && bpe.whole_pieces()) enter_tokens(bpe);
  }

  LongPieces& long_pieces() noexcept { return long_; }

 private:
  struct Slot {
    Key key;
    TokenId ids[kMaxTokens];
    uint32_t count;
  };
  struct alignas(64) Line {
    Slot slots[2];
  };
  static constexpr int kBits = 17;  // 8 MB: the words of some languages, of which most are rare
  static constexpr size_t kManyMisses = 1024;
  static const Key kKeep[16];

  void enter_tokens(const Bpe& bpe) noexcept;

  size_t misses_ = 0;
  ZeroPages<Line> lines_{size_t{1} << kBits};  // a key of zeros is no piece's: its length is not 0
  LongPieces long_;
};

// Caches for the threads that use one tokenizer at once, kept for those that come after.
class PieceCaches {
 public:
  class Lease {
   public:
    explicit Lease(PieceCaches& caches) : caches_(caches), cache_(caches.take()) {}
    ~Lease() { caches_.give_back(std::move(cache_)); }
    Lease(const Lease&) = delete;
    Lease& operator=(const Lease&) = delete;
    PieceCache& operator*() const noexcept { return *cache_; }

   private:
    PieceCaches& caches_;
    std::unique_ptr<PieceCache> cache_;
  };

 private:
  std::unique_ptr<PieceCache> take();
  void give_back(std::unique_ptr<PieceCache> cache) noexcept;

  std::mutex mutex_;
  std::vector<std::unique_ptr<PieceCache>> idle_;
};

}  // namespace quern
