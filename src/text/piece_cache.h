// What short pieces became: each piece of ordinary text is one of a few thousand, seen again and
// again. Bounded, and without locks: one thread uses one cache at a time.
#pragma once

#include <cstdint>
#include <cstring>
#include <memory>
#include <mutex>
#include <vector>

#include "text/bpe.h"

namespace quern {

class PieceCache {
 public:
  static constexpr size_t kMaxBytes = 15;   // of a piece
  static constexpr size_t kMaxTokens = 3;   // that it became
  static constexpr size_t kReadAhead = 16;  // bytes that are read at a piece, whatever its length
  static constexpr size_t kWriteAhead = 4;  // ids that may be written, of which some are no answer

  PieceCache();

  // A piece as two words: its bytes, zeros, and its length in the last byte.
  struct Key {
    uint64_t low, high;
  };
  static Key key_of(const char* piece, size_t size) noexcept {
    Key key;
    std::memcpy(&key, piece, sizeof key);
    const Key& keep = kKeep[size];
    key.low &= keep.low;
    key.high = (key.high & keep.high) | uint64_t{size} << 56;
    return key;
  }

  // Writes the tokens and returns their number, or 0 where the piece is not known.
  size_t find(const Key& key, TokenId* out) noexcept {
    const Slot* slot = &slots_[index_of(key)];
    if (slot->key.low != key.low || slot->key.high != key.high) {
      slot = neighbour(slot);
      if (slot->key.low != key.low || slot->key.high != key.high) return 0;
    }
    std::memcpy(out, slot->ids, sizeof slot->ids + sizeof slot->count);
    return slot->count;
  }

  // Fetches what find is going to read.
  void prefetch(const Key& key) const noexcept { __builtin_prefetch(&slots_[index_of(key)]); }

  // Remembers 1 to kMaxTokens tokens in the place of an older piece.
  void insert(const Key& key, const TokenId* ids, size_t count) noexcept {
    Slot* slot = &slots_[index_of(key)];
    *neighbour(slot) = *slot;
    slot->key = key;
    std::memcpy(slot->ids, ids, count * sizeof *ids);
    slot->count = static_cast<uint32_t>(count);
  }

 private:
  struct alignas(32) Slot {
    Key key;
    TokenId ids[kMaxTokens];
    uint32_t count;
  };
  static constexpr int kBits = 17;  // 4 MB: the words of a language, of which most are rare
  static const Key kKeep[16];

  static size_t index_of(const Key& key) noexcept {
    const auto product = static_cast<unsigned __int128>(key.low ^ 0x9E3779B97F4A7C15u) *
                         (key.high ^ 0xD6E8FEB86659FD93u);
    const auto folded = static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
    return folded >> (64 - kBits);
  }
  // The other slot of a cache line.
  template <class S>
  static S* neighbour(S* slot) noexcept {
    return reinterpret_cast<S*>(reinterpret_cast<uintptr_t>(slot) ^ sizeof(Slot));
  }

  struct Free {
    void operator()(Slot* slots) const noexcept;
  };
  std::unique_ptr<Slot[], Free> slots_;
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
