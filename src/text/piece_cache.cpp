#include "text/piece_cache.h"

namespace quern {

const PieceCache::Key PieceCache::kKeep[16] = {
    {0, 0},
    {0xFF, 0},
    {0xFFFF, 0},
    {0xFFFFFF, 0},
    {0xFFFFFFFF, 0},
    {0xFFFFFFFFFF, 0},
    {0xFFFFFFFFFFFF, 0},
    {0xFFFFFFFFFFFFFF, 0},
    {~uint64_t{0}, 0},
    {~uint64_t{0}, 0xFF},
    {~uint64_t{0}, 0xFFFF},
    {~uint64_t{0}, 0xFFFFFF},
    {~uint64_t{0}, 0xFFFFFFFF},
    {~uint64_t{0}, 0xFFFFFFFFFF},
    {~uint64_t{0}, 0xFFFFFFFFFFFF},
    {~uint64_t{0}, 0xFFFFFFFFFFFFFF},
};

// From the first ids on, which are the commonest. A single byte is no matter of finding.
void PieceCache::enter_tokens(const Bpe& bpe) noexcept {
  constexpr size_t kAhead = 16;
  struct Entry {
    Key key;
    size_t place, size;
  } ahead[kAhead] = {};
  const auto read = [&](size_t id) {
    Entry& entry = ahead[id % kAhead];
    entry.size = 0;
    if (id >= bpe.size()) return;
    const std::string_view token = bpe.bytes(static_cast<TokenId>(id));
    if (token.size() < 2 || token.size() > kMaxBytes) return;
    char padded[kReadAhead] = {};
    std::memcpy(padded, token.data(), token.size());
    entry.key = key_of(padded, token.size());
    entry.place = place_of(entry.key);
    entry.size = token.size();
    prefetch(entry.place);
  };
  for (size_t id = 0; id < kAhead; ++id) read(id);
  for (size_t id = 0; id < bpe.size(); ++id) {
    const Entry& entry = ahead[id % kAhead];
    if (entry.size != 0) {
      for (Slot& slot : lines_.data()[entry.place].slots) {
        if (slot.key == entry.key) break;
        if (slot.key != Key{0, 0}) continue;
        slot.key = entry.key;
        slot.ids[0] = static_cast<TokenId>(id);
        slot.count = 1;
        break;
      }
    }
    read(id + kAhead);
  }
}

std::span<const TokenId> LongPieces::find(uint64_t hash, std::string_view piece) const noexcept {
  const uint64_t* bucket = &index_[bucket_of(hash)];
  for (size_t way = 0; way < kWays; ++way) {
    if (((bucket[way] ^ hash) & ~kPlace) != 0) continue;
    const size_t place = bucket[way] & kPlace;
    if (place == 0) continue;
    const uint32_t* record = &records_[place];
    if (record[0] != piece.size()) continue;
    if (std::memcmp(record + 2, piece.data(), piece.size()) != 0) continue;
    const uint32_t* ids = record + 2 + (piece.size() + 3) / 4;
    return {reinterpret_cast<const TokenId*>(ids), record[1]};
  }
  return {};
}

void LongPieces::insert(uint64_t hash, std::string_view piece,
                        std::span<const TokenId> ids) noexcept {
  const size_t text_words = (piece.size() + 3) / 4;
  const size_t words = 2 + text_words + ids.size();
  if (used_ + words > kPlace) {
    std::memset(index_.data(), 0, index_.size() * sizeof index_[0]);
    used_ = 1;
    if (words > kPlace) return;
  }
  uint32_t* record = &records_[used_];
  record[0] = static_cast<uint32_t>(piece.size());
  record[1] = static_cast<uint32_t>(ids.size());
  std::memcpy(record + 2, piece.data(), piece.size());
  std::memcpy(record + 2 + text_words, ids.data(), ids.size_bytes());
  uint64_t* bucket = &index_[bucket_of(hash)];
  std::memmove(bucket + 1, bucket, (kWays - 1) * sizeof *bucket);  // the oldest goes
  bucket[0] = (hash & ~kPlace) | used_;
  used_ += words;
}

std::unique_ptr<PieceCache> PieceCaches::take() {
  {
    const std::lock_guard lock(mutex_);
    if (!idle_.empty()) {
      std::unique_ptr<PieceCache> cache = std::move(idle_.back());
      idle_.pop_back();
      return cache;
    }
    idle_.reserve(idle_.capacity() + 1);  // so that giving it back cannot fail
  }
  return std::make_unique<PieceCache>();
}

void PieceCaches::give_back(std::unique_ptr<PieceCache> cache) noexcept {
  const std::lock_guard lock(mutex_);
  if (idle_.size() < idle_.capacity()) idle_.push_back(std::move(cache));
}

}  // namespace quern
