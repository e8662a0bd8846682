#include "text/piece_encoder.h"

#include <bit>
#include <cstring>

#include "text/splitter.h"
#include "text/unicode.h"

namespace quern {
namespace {

// Pieces wait in a batch: when one is cut, the place of its answer is asked for, and by the time
// the batch is full these places have come from memory.
class PieceEncoder {
 public:
  PieceEncoder(const Bpe& bpe, PieceCache& cache, std::vector<TokenId>& out)
      : bpe_(bpe), cache_(cache), long_(cache.long_pieces()), out_(out) {}

  void encode(std::string_view text) {
    size_t begin = 0;
    while (text.size() - begin >= kReach) begin = take_block(text, begin);
    text.remove_prefix(begin);
    if (!text.empty()) {
      // The end of the text, with room to read past it.
      char tail[2 * kReach];
      std::memcpy(tail, text.data(), text.size());
      std::memset(tail + text.size(), '\xFF', sizeof tail - text.size());
      const std::string_view copy(tail, text.size());
      for (begin = 0; begin < copy.size();) begin = take_block(copy, begin);
      answer();
    }
    answer();
    flush();
  }

 private:
  static constexpr size_t kReach = kSplitBlock + PieceCache::kReadAhead;
  static constexpr size_t kBatch = 40;         // pieces, from which on they are answered
  static constexpr size_t kBatchBytes = 1024;  // or bytes
  static constexpr size_t kBuffer = 1024;      // ids

  // Of a short piece its key and the place of its answer; of a long one its hash and size.
  struct Waiting {
    PieceCache::Key key;
    size_t place;
    const char* piece;
    bool is_short() const noexcept { return key.high >> 56 != 0; }
  };

  // Takes the pieces that are known to end within a block, or one piece; returns where they end.
  size_t take_block(std::string_view text, size_t begin) {
    const char* block = text.data() + begin;
    uint64_t cuts = cuts_of_(block, classes_);
    size_t at = 0;
    if (cuts == 0) [[unlikely]] {
      const size_t size = piece_end(text, begin) - begin;
      if (size > LongPieces::kMaxBytes) {
        answer();
        flush();
        bpe_.encode_piece({block, size}, out_);
        return begin + size;
      }
      wait(block, size);
      at = size;
    }
    for (; cuts != 0; cuts &= cuts - 1) {
      const auto end = static_cast<size_t>(std::countr_zero(cuts));
      wait(block + at, end - at);
      at = end;
    }
    waiting_bytes_ += at;
    if (waiting_ >= kBatch || waiting_bytes_ >= kBatchBytes) answer();
    return begin + at;
  }

  void wait(const char* piece, size_t size) noexcept {
    Waiting& next = batch_[waiting_++];
    next.piece = piece;
    if (size <= PieceCache::kMaxBytes) [[likely]] {
      next.key = PieceCache::key_of(piece, size);
      next.place = PieceCache::place_of(next.key);
      cache_.prefetch(next.place);
    } else {
      next.key = {LongPieces::hash({piece, size}), size};
      long_.prefetch(next.key.low);
      bpe_.prefetch(next.key.low);
    }
  }

  void answer() {
    if (to_ > buffer_ + kBuffer) flush();
    TokenId* to = to_;
    for (size_t i = 0; i < waiting_; ++i) {
      const Waiting& next = batch_[i];
      if (next.is_short()) [[likely]] {
        size_t count = cache_.find(next.key, next.place, to);
        if (count == 0) [[unlikely]]
          count = answer_short(next, to);
        to += count;
      } else {
        to += answer_long(next.key.low, {next.piece, next.key.high}, to);
      }
    }
    to_ = to;
    waiting_ = waiting_bytes_ = 0;
  }

  [[gnu::noinline]] size_t answer_short(const Waiting& next, TokenId* to) {
    const std::string_view piece(next.piece, next.key.high >> 56);
    if (cache_.has_many(next.key, next.place)) {
      return answer_long(LongPieces::hash(piece), piece, to);
    }
    cache_.count_miss(bpe_);
    const size_t count = bpe_.encode_short(piece, to);
    const bool many = count > PieceCache::kMaxTokens;
    cache_.insert(next.key, next.place, to, many ? 0 : count);
    if (many) long_.insert(LongPieces::hash(piece), piece, {to, count});
    return count;
  }

  [[gnu::noinline]] size_t answer_long(uint64_t hash, std::string_view piece, TokenId* to) {
    if (const auto known = long_.find(hash, piece); !known.empty()) {
      std::memcpy(to, known.data(), known.size_bytes());
      return known.size();
    }
    size_t count = 0;
    if (piece.size() <= Bpe::kShortPiece) {
      count = bpe_.encode_short(piece, hash, to);
    } else {
      merged_.clear();
      bpe_.encode_piece(piece, merged_);
      count = merged_.size();
      std::memcpy(to, merged_.data(), count * sizeof *to);
    }
    long_.insert(hash, piece, {to, count});
    return count;
  }

  void flush() {
    out_.insert(out_.end(), buffer_, to_);
    to_ = buffer_;
  }

  const Bpe& bpe_;
  PieceCache& cache_;
  LongPieces& long_;
  std::vector<TokenId>& out_;
  const BlockCuts cuts_of_ = block_cuts();
  const unicode::Class* const classes_ = unicode::class_table();
  size_t waiting_ = 0, waiting_bytes_ = 0;
  std::vector<TokenId> merged_;
  Waiting batch_[kBatch + kSplitBlock];
  // A token has at least one byte, so that a batch has no more tokens than bytes.
  TokenId buffer_[kBuffer + kBatchBytes + LongPieces::kMaxBytes + PieceCache::kWriteAhead];
  TokenId* to_ = buffer_;
};

}  // namespace

void encode_pieces(const Bpe& bpe, PieceCache& cache, std::string_view text,
                   std::vector<TokenId>& out) {
  if (out.empty()) out.reserve(text.size() / 3 + 8);
  PieceEncoder(bpe, cache, out).encode(text);
}

}  // namespace quern
