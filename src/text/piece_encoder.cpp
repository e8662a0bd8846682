#include "text/piece_encoder.h"

#include <algorithm>
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
  PieceEncoder(const Bpe& bpe, PieceCache& cache, const Splitter& splitter,
               std::vector<TokenId>& out)
      : bpe_(bpe), cache_(cache), long_(cache.long_pieces()), out_(out), splitter_(splitter) {}

  void encode(std::string_view text) {
    all_bytes_ = text.size();
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
      fill_gaps();  // while the copy is there
    }
    answer();
    flush();
  }

  void encode(std::string_view text, std::span<const Cut> cuts) {
    all_bytes_ = text.size();
    for (const Cut& cut : cuts) {
      take_piece(text.data() + cut.begin, cut.end - cut.begin);
      taken_bytes_ = cut.end;
      if (waiting_ >= kBatch || waiting_bytes_ >= kBatchBytes) answer();
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
    uint64_t cuts = splitter_.cuts(block, classes_);
    size_t at = 0;
    if (cuts == 0) [[unlikely]] {
      const size_t size = splitter_.end(text, begin) - begin;
      take_piece(block, size);
      taken_bytes_ += size;
      if (waiting_ >= kBatch || waiting_bytes_ >= kBatchBytes) answer();
      return begin + size;
    }
    for (; cuts != 0; cuts &= cuts - 1) {
      const auto end = static_cast<size_t>(std::countr_zero(cuts));
      wait(block + at, end - at);
      at = end;
    }
    waiting_bytes_ += at;
    taken_bytes_ += at;
    if (waiting_ >= kBatch || waiting_bytes_ >= kBatchBytes) answer();
    return begin + at;
  }

  void take_piece(const char* piece, size_t size) {
    if (size > LongPieces::kMaxBytes) {
      answer();
      flush();
      bpe_.encode_piece({piece, size}, out_);
      return;
    }
    wait(piece, size);
    waiting_bytes_ += size;
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
        const size_t count = cache_.find(next.key, next.place, to);
        if (count == 0) [[unlikely]] {
          to = answer_short(next, to);
        }
        to += count;
      } else {
        to = answer_long(next.key.low, next, next.key.high, to);
      }
    }
    to_ = to;
    waiting_ = waiting_bytes_ = 0;
  }

  [[gnu::noinline]] TokenId* answer_short(const Waiting& next, TokenId* to) {
    const size_t size = next.key.high >> 56;
    const uint64_t hash = LongPieces::hash({next.piece, size});
    if (cache_.has_many(next.key, next.place)) return answer_long(hash, next, size, to);
    cache_.count_miss(bpe_);
    return leave_gap(hash, next, size, to);
  }

  [[gnu::noinline]] TokenId* answer_long(uint64_t hash, const Waiting& next, size_t size,
                                         TokenId* to) {
    const std::string_view piece(next.piece, size);
    if (const auto known = long_.find(hash, piece); !known.empty()) {
      std::memcpy(to, known.data(), known.size_bytes());
      return to + known.size();
    }
    if (size <= Bpe::kShortPiece) return leave_gap(hash, next, size, to);
    merged_.clear();
    bpe_.encode_piece(piece, merged_);
    std::memcpy(to, merged_.data(), merged_.size() * sizeof *to);
    long_.insert(hash, piece, merged_);
    return to + merged_.size();
  }

  // What has to be merged is merged together with others, later; what comes behind it is moved
  // along then.
  TokenId* leave_gap(uint64_t hash, const Waiting& next, size_t size, TokenId* to) {
    const std::string_view piece(next.piece, size);
    size_t job = 0;
    while (job < jobs_ && (job_[job].hash != hash || job_[job].piece != piece)) ++job;
    if (job == jobs_) {
      if (jobs_ == kJobs || merging_bytes_ + size > kMergingBytes) {
        to_ = to;
        fill_gaps();
        to = to_;
        job = 0;
      }
      bpe_.prefetch(hash);
      job_[job] = {piece, hash, job_ids_ + merging_bytes_, 0};
      key_[job] = next.key;
      place_[job] = next.place;
      merging_bytes_ += size;
      ++jobs_;
    }
    gap_[gaps_++] = {to, job};
    if (gaps_ == kGaps) {
      to_ = to;
      fill_gaps();
      to = to_;
    }
    return to;
  }

  void fill_gaps() {
    if (gaps_ == 0) return;
    bpe_.encode_many({job_, jobs_});
    for (size_t i = 0; i < jobs_; ++i) {
      const Bpe::Job& job = job_[i];
      const bool is_short = job.piece.size() <= PieceCache::kMaxBytes;
      const bool many = !is_short || job.count > PieceCache::kMaxTokens;
      if (is_short) cache_.insert(key_[i], place_[i], job.out, many ? 0 : job.count);
      if (many) long_.insert(job.hash, job.piece, {job.out, job.count});
    }
    size_t all = 0;
    for (size_t i = 0; i < gaps_; ++i) all += job_[gap_[i].job].count;
    TokenId* from_end = to_;
    to_ += all;
    TokenId* to_end = to_;
    while (gaps_ > 0) {
      const Gap& gap = gap_[--gaps_];
      const Bpe::Job& job = job_[gap.job];
      const auto behind = static_cast<size_t>(from_end - gap.at);
      std::memmove(to_end - behind, gap.at, behind * sizeof *to_);
      to_end -= behind + job.count;
      std::memcpy(to_end, job.out, job.count * sizeof *to_);
      from_end = gap.at;
    }
    jobs_ = merging_bytes_ = 0;
  }

  // The ids of a short text are all here when room for them is made; those of a long one are
  // expected to go on as they began. Behind other ids the vector grows as ever.
  void flush() {
    fill_gaps();
    const auto more = static_cast<size_t>(to_ - buffer_);
    if (was_empty_ && taken_bytes_ < all_bytes_ && out_.capacity() - out_.size() < more) {
      const size_t answered = std::max<size_t>(1, taken_bytes_ - waiting_bytes_);
      const size_t expected = (out_.size() + more) * all_bytes_ / answered;
      out_.reserve(expected + expected / 16);
    }
    out_.insert(out_.end(), buffer_, to_);
    to_ = buffer_;
  }

  // A piece to be merged, for which nothing has been written yet.
  struct Gap {
    TokenId* at;
    size_t job;
  };
  static constexpr size_t kJobs = 32, kGaps = 64, kMergingBytes = 2048;
  static constexpr size_t kMostGapBytes = kGaps * Bpe::kShortPiece;

  const Bpe& bpe_;
  PieceCache& cache_;
  LongPieces& long_;
  std::vector<TokenId>& out_;
  const bool was_empty_ = out_.empty();
  size_t all_bytes_ = 0, taken_bytes_ = 0;
  const Splitter splitter_;
  const unicode::Class* const classes_ = unicode::class_table();
  size_t waiting_ = 0, waiting_bytes_ = 0;
  std::vector<TokenId> merged_;
  Waiting batch_[kBatch + kSplitBlock];
  size_t jobs_ = 0, gaps_ = 0, merging_bytes_ = 0;
  Bpe::Job job_[kJobs];
  PieceCache::Key key_[kJobs];  // of a short piece
  size_t place_[kJobs];
  Gap gap_[kGaps];
  TokenId job_ids_[kMergingBytes];
  // A token has at least one byte, so that a batch has no more tokens than bytes.
  TokenId buffer_[kBuffer + kMostGapBytes + kBatchBytes + LongPieces::kMaxBytes +
                  PieceCache::kWriteAhead];
  TokenId* to_ = buffer_;
};

}  // namespace

void encode_pieces(const Bpe& bpe, PieceCache& cache, const Splitter& splitter,
                   std::string_view text, std::vector<TokenId>& out) {
  PieceEncoder(bpe, cache, splitter, out).encode(text);
}

void encode_pieces(const Bpe& bpe, PieceCache& cache, std::string_view text,
                   std::span<const Cut> cuts, std::vector<TokenId>& out) {
  PieceEncoder(bpe, cache, {}, out).encode(text, cuts);
}

}  // namespace quern
