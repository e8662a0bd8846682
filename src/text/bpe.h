// Byte pair encoding: a vocabulary of byte strings, and the merging of a piece into its tokens.
#pragma once

#include <array>
#include <bitset>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "text/huge_pages.h"

namespace quern {

using TokenId = int32_t;

// Which pairs of tokens merge, and how early. Open addressing, a pair with its rank in one word.
class PairRanks {
 public:
  static constexpr int kIdBits = 20, kRankBits = 24;
  static constexpr int32_t kNone = -1;

  PairRanks() = default;
  explicit PairRanks(size_t expected);

  // The first rank that a pair is given counts. Both ids have kIdBits, the rank kRankBits.
  void add(TokenId left, TokenId right, int32_t rank);

  int32_t find(TokenId left, TokenId right) const noexcept {
    const uint64_t key = key_of(left, right);
    for (size_t slot = index_of(key);; slot = (slot + 1) & mask_) {
      const uint64_t word = slots_[slot];
      if (word >> kRankBits == key) return static_cast<int32_t>(word & kRankMask);
      if (word == kEmpty) return kNone;
    }
  }

  // Fetches what find is going to read.
  void prefetch(TokenId left, TokenId right) const noexcept {
    __builtin_prefetch(&slots_[index_of(key_of(left, right))]);
  }

 private:
  static constexpr uint64_t kRankMask = (uint64_t{1} << kRankBits) - 1;
  static constexpr uint64_t kEmpty = ~uint64_t{0};

  static uint64_t key_of(TokenId left, TokenId right) noexcept {
    return static_cast<uint64_t>(static_cast<uint32_t>(left)) << kIdBits |
           static_cast<uint32_t>(right);
  }
  size_t index_of(uint64_t key) const noexcept { return key * 0x9E3779B97F4A7C15u >> shift_; }

  std::vector<uint64_t, HugePages<uint64_t>> slots_;
  size_t mask_ = 0, count_ = 0;
  int shift_ = 63;
};

class Bpe {
 public:
  // A vocabulary in which a token's rank is its id and any two tokens whose joined bytes are a
  // token may merge: tiktoken's rule. `tokens[id]` are the bytes; every single byte must be among
  // them.
  static Bpe from_ranks(std::span<const std::string> tokens);

  // A vocabulary with an explicit list of merges, in order: Hugging Face's rule. A piece that is
  // itself a token still has to be reached by merges, unless `whole_pieces`.
  struct Merge {
    TokenId left, right, joined;
  };
  static Bpe from_merges(std::span<const std::string> tokens, std::span<const Merge> merges,
                         bool whole_pieces = false);

  // Ids are [0, size()); an id whose bytes are empty is a gap, left for special tokens.
  size_t size() const noexcept { return offsets_.size() - 1; }
  std::string_view bytes(TokenId id) const noexcept {
    const auto i = static_cast<size_t>(id);
    return {arena_.data() + offsets_[i], offsets_[i + 1] - offsets_[i]};
  }
  std::optional<TokenId> find(std::string_view bytes) const noexcept;

  // Appends the tokens of one piece of valid UTF-8: the pair of lowest rank is merged first, the
  // leftmost of equals. Time and memory are linear in the piece.
  void encode_piece(std::string_view piece, std::vector<TokenId>& out) const;

  // The same for a piece of at most kShortPiece bytes. Returns the number of tokens, at most one a
  // byte.
  static constexpr size_t kShortPiece = 128;
  size_t encode_short(std::string_view piece, TokenId* out) const noexcept;

  // The definition, which the others are tested against: n² at worst.
  void encode_piece_reference(std::string_view piece, std::vector<TokenId>& out) const;

 private:
  struct Symbols;

  explicit Bpe(std::span<const std::string> tokens);
  void add_splits(std::span<const std::string> tokens);
  void find_whole_characters(const std::vector<int32_t>& first_rank);
  TokenId joined(int32_t rank) const noexcept {
    return joined_.empty() ? rank : joined_[static_cast<size_t>(rank)];
  }
  bool may_cross(char before, char after) const noexcept {
    return crossed_[static_cast<size_t>(static_cast<unsigned char>(before)) << 8 |
                    static_cast<unsigned char>(after)];
  }
  size_t begin_symbols(std::string_view piece, TokenId* ids, size_t& count) const noexcept;
  size_t merge_symbols(TokenId* ids, size_t count) const noexcept;
  size_t merge_window(TokenId* ids, size_t count) const noexcept;
  void merge_long(std::string_view piece, std::vector<TokenId>& out) const;
  void merge_with_heap(std::string_view piece, std::vector<TokenId>& out) const;
  bool stand_side_by_side(TokenId left, TokenId right) const;

  std::vector<char, HugePages<char>> arena_;
  std::vector<uint32_t, HugePages<uint32_t>> offsets_;
  // Open addressing: half a hash, and the id + 1. Most pieces that are looked up are no tokens,
  // which one bit for each of kFilterBits hashes mostly tells.
  std::vector<uint64_t, HugePages<uint64_t>> by_bytes_;
  static constexpr int kFilterBits = 20;
  std::vector<uint64_t> filter_;
  size_t longest_ = 0;
  PairRanks pairs_;
  std::vector<TokenId> joined_;  // by rank; empty where a token's rank is its id
  std::array<TokenId, 256> byte_ids_;
  bool whole_pieces_ = false;  // a piece that is a token is that token

  // A character of two or three bytes by its code point, if merging may begin with its token
  // instead of its bytes; else -1. See find_whole_characters.
  std::vector<TokenId> characters_;
  std::bitset<size_t{1} << 16> crossed_;  // pairs of bytes: see find_whole_characters
};

}  // namespace quern
