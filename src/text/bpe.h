// Byte pair encoding: a vocabulary of byte strings, and the merging of a piece into its tokens.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "text/table.h"

namespace quern {

using TokenId = int32_t;

// Which pairs of tokens merge, and how early. Open addressing in lines of four words, a pair with
// its rank in each; before it a bit for each of many hashes, which tells of most pairs that do not
// merge, and is small enough to stay near.
class PairRanks {
 public:
  static constexpr int kIdBits = 20, kRankBits = 24;
  static constexpr int32_t kNone = -1;
  static constexpr size_t kLine = 4;  // words

  PairRanks() = default;
  explicit PairRanks(size_t expected);

  // The first rank that a pair is given counts. Both ids have kIdBits, the rank kRankBits and is
  // not the highest of these.
  void add(TokenId left, TokenId right, int32_t rank);

  int32_t find(TokenId left, TokenId right) const noexcept {
    return may_hold(left, right) ? look_up(left, right) : kNone;
  }

  // In two steps, with a fetch between: false where there is surely no such pair.
  bool may_hold(TokenId left, TokenId right) const noexcept {
    return may_hold(hash_of(key_of(left, right)));
  }
  int32_t look_up(TokenId left, TokenId right) const noexcept {
    const uint64_t key = key_of(left, right);
    const size_t index = index_of(hash_of(key));
    for (size_t line = index & ~(kLine - 1);; line = (line + kLine) & mask_) {
      for (size_t i = 0; i < kLine; ++i) {
        const uint64_t word = slots_.data()[line + ((index + i) & (kLine - 1))];
        if (word >> kRankBits == key) return static_cast<int32_t>(word & kRankMask);
        if (word == kEmpty) return kNone;
      }
    }
  }

  // Fetches what look_up, or add, is going to read.
  void prefetch(TokenId left, TokenId right) const noexcept {
    __builtin_prefetch(slots_.data() + index_of(hash_of(key_of(left, right))));
  }

  // The same for those who ask of several pairs at a time.
  static constexpr uint64_t kRankMask = (uint64_t{1} << kRankBits) - 1;
  static constexpr uint64_t kEmpty = ~uint64_t{0};
  static uint64_t key_of(TokenId left, TokenId right) noexcept {
    return static_cast<uint64_t>(static_cast<uint32_t>(left)) << kIdBits |
           static_cast<uint32_t>(right);
  }
  static uint64_t hash_of(uint64_t key) noexcept { return key * 0x9E3779B97F4A7C15u; }
  bool may_hold(uint64_t hash) const noexcept {
    const uint64_t bit = hash >> filter_shift_;
    return (filter_.data()[bit >> 6] >> (bit & 63) & 1) != 0;
  }
  // The line in which a search begins; it goes on in the next one where this one is full.
  const uint64_t* line_of(uint64_t hash) const noexcept {
    return slots_.data() + (index_of(hash) & ~(kLine - 1));
  }
  const uint64_t* line_after(const uint64_t* line) const noexcept {
    return slots_.data() + ((static_cast<size_t>(line - slots_.data()) + kLine) & mask_);
  }

 private:
  friend class BpeTables;
  static constexpr int kFilterBits = 2;  // more than the index has: 4 bits for each slot

  size_t index_of(uint64_t hash) const noexcept { return hash >> shift_; }

  Table<uint64_t> slots_;
  Table<uint64_t> filter_;
  size_t mask_ = 0, count_ = 0;
  int shift_ = 63, filter_shift_ = 63;
};

class Bpe {
 public:
  // A vocabulary in which a token's rank is its id and any two tokens whose joined bytes are a
  // token may merge: tiktoken's rule. `tokens[id]` are the bytes; every single byte must be among
  // them.
  static Bpe from_ranks(std::span<const std::string> tokens);

  // A vocabulary with an explicit list of merges, in order: Hugging Face's rule. A piece that is
  // itself a token still has to be reached by merges, unless `whole_pieces`. Of a pair that is there
  // twice the first place counts. Single bytes may have no token: pieces that hold one of these must
  // not be encoded.
  struct Merge {
    TokenId left, right, joined;
  };
  static Bpe from_merges(std::span<const std::string> tokens, std::span<const Merge> merges,
                         bool whole_pieces = false);

  // Ids are [0, size()); an id whose bytes are empty is a gap, left for special tokens.
  size_t size() const noexcept { return offsets_.size() - 1; }
  std::string_view bytes(TokenId id) const noexcept {
    const auto i = static_cast<size_t>(id);
    const uint32_t* offset = offsets_.data() + i;
    return {arena_.data() + offset[0], offset[1] - offset[0]};
  }
  std::optional<TokenId> find(std::string_view bytes) const noexcept {
    return find(bytes, hash_of(bytes));
  }

  bool has_byte(unsigned char byte) const noexcept { return byte_ids_[byte] >= 0; }
  bool has_all_bytes() const noexcept;

  // Whether two tokens have the same bytes; the first of them is the one that is found.
  bool has_equal_tokens() const noexcept { return has_equal_tokens_; }

  // Whether a piece that is a token is that token, however it would merge.
  bool whole_pieces() const noexcept { return whole_pieces_; }

  // A piece's hash, for those who need it elsewhere too.
  static uint64_t hash_of(std::string_view piece) noexcept;
  // Fetches what a look-up of such a piece reads first.
  void prefetch(uint64_t hash) const noexcept {
    __builtin_prefetch(filter_.data() + (hash >> (64 - kFilterBits + 6)));
  }

  // Appends the tokens of one piece of valid UTF-8: the pair of lowest rank is merged first, the
  // leftmost of equals. Time and memory are linear in the piece: `work` grows by the bytes that
  // were merged, of which some are merged again with other neighbours.
  void encode_piece(std::string_view piece, std::vector<TokenId>& out,
                    size_t* work = nullptr) const;

  // By merges alone, whether the piece is a token or not.
  void encode_by_merges(std::string_view piece, std::vector<TokenId>& out) const;

  // The same for a piece of at most kShortPiece bytes. Returns the number of tokens, at most one a
  // byte.
  static constexpr size_t kShortPiece = 128;
  size_t encode_short(std::string_view piece, TokenId* out) const noexcept {
    return encode_short(piece, hash_of(piece), out);
  }
  size_t encode_short(std::string_view piece, uint64_t hash, TokenId* out) const noexcept;

  // The same for several pieces, which are merged side by side, so that what one of them waits for
  // comes from memory while the others go on.
  struct Job {
    std::string_view piece;
    uint64_t hash;  // hash_of(piece)
    TokenId* out;   // room for an id a byte
    size_t count;   // set to the number of tokens
  };
  void encode_many(std::span<Job> jobs) const noexcept;

  // The definition, which the others are tested against: n² at worst.
  void encode_piece_reference(std::string_view piece, std::vector<TokenId>& out) const;

 private:
  friend class BpeTables;
  friend class MergeLanes;

  Bpe() = default;
  explicit Bpe(std::span<const std::string> tokens);
  std::optional<TokenId> find(std::string_view bytes, uint64_t hash) const noexcept;
  void index_tokens();
  void need_all_bytes() const;
  void add_splits(bool parallel);
  void find_whole_characters(std::span<const int32_t> first_rank);
  TokenId joined(int32_t rank) const noexcept {
    return joined_.empty() ? rank : joined_.data()[rank];
  }
  // Whether a token that holds part of a character may come to lie over the edge before `at`.
  bool crossed(std::string_view piece, size_t at) const noexcept {
    if (at == 0 || at == piece.size()) return false;
    const uint8_t list = crossing_list_.data()[pair_of_bytes(piece[at - 1], piece[at])];
    return list != 0 && crossed_by(list, piece, at);
  }
  static size_t pair_of_bytes(char before, char after) noexcept {
    return static_cast<size_t>(static_cast<unsigned char>(before)) << 8 |
           static_cast<unsigned char>(after);
  }
  bool crossed_by(uint8_t list, std::string_view piece, size_t at) const noexcept;
  void find_ascii_pairs();
  size_t begin_symbols(std::string_view piece, TokenId* ids, size_t& count) const noexcept;
  size_t merge_symbols(TokenId* ids, size_t count, const char* ascii = nullptr) const noexcept;
  size_t merge_symbols_inline(TokenId* ids, size_t count, const char* ascii) const noexcept;
  size_t merge_symbols_scalar(TokenId* ids, size_t count, const char* ascii) const noexcept;
  size_t merge_symbols_avx2(TokenId* ids, size_t count, const char* ascii) const noexcept;
  size_t merge_window(TokenId* ids, size_t count) const noexcept;
  size_t merge_window_inline(TokenId* ids, size_t count) const noexcept;
  size_t merge_window_scalar(TokenId* ids, size_t count) const noexcept;
  size_t merge_window_avx2(TokenId* ids, size_t count) const noexcept;
  void merge_long(std::string_view piece, std::vector<TokenId>& out) const;
  void merge_with_heap(std::string_view piece, std::vector<TokenId>& out) const;
  bool stand_side_by_side(TokenId left, TokenId right) const;

  Table<char> arena_;
  Table<uint32_t> offsets_;
  // Open addressing: half a hash, and the id + 1. Most pieces that are looked up are no tokens,
  // which one bit for each of kFilterBits hashes mostly tells.
  Table<uint64_t> by_bytes_;
  static constexpr int kFilterBits = 20;
  Table<uint64_t> filter_;
  size_t longest_ = 0;
  PairRanks pairs_;
  std::vector<TokenId> joined_;  // by rank; empty where a token's rank is its id
  std::array<TokenId, 256> byte_ids_;
  bool has_equal_tokens_ = false;
  bool whole_pieces_ = false;  // a piece that is a token is that token

  // A character of two or three bytes by its code point, if merging may begin with its token
  // instead of its bytes; else -1. See find_whole_characters.
  Table<TokenId> characters_;
  // By the bytes on both sides of an edge: 0, or the list of tokens that may lie over it, or
  // kAnyCrossing. List i is [crossing_begins_[i], crossing_begins_[i + 1]) of the crossings.
  Table<uint8_t> crossing_list_;
  Table<uint32_t> crossing_begins_;
  struct Crossing {
    TokenId id;
    uint32_t before;  // bytes of the token that stand before the edge
  };
  Table<Crossing> crossings_;
  static constexpr uint8_t kAnyCrossing = 255;
  static constexpr size_t kMaxCrossings = 64;  // in one list
  // The rank of a pair of ASCII characters by both; kNone where they do not merge.
  Table<int32_t> ascii_pairs_;
  std::shared_ptr<const void> file_;  // what the tables lie in, where they are views
};

}  // namespace quern
