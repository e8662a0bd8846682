// Byte pair encoding: a vocabulary of byte strings, and the merging of a piece into its tokens.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace quern {

using TokenId = int32_t;

class Bpe {
 public:
  // A vocabulary in which a token's rank is its id and any two tokens whose joined bytes are a
  // token may merge: tiktoken's rule. `tokens[id]` are the bytes; every single byte must be among
  // them.
  static Bpe from_ranks(const std::vector<std::string>& tokens);

  // A vocabulary with an explicit list of merges, in order: Hugging Face's rule. A piece that is
  // itself a token still has to be reached by merges, unless `whole_pieces`.
  struct Merge {
    TokenId left, right, joined;
  };
  static Bpe from_merges(const std::vector<std::string>& tokens, const std::vector<Merge>& merges,
                         bool whole_pieces = false);

  // Ids are [0, size()); an id whose bytes are empty is a gap, left for special tokens.
  size_t size() const noexcept { return offsets_.size() - 1; }
  std::string_view bytes(TokenId id) const noexcept {
    const auto i = static_cast<size_t>(id);
    return std::string_view(arena_).substr(offsets_[i], offsets_[i + 1] - offsets_[i]);
  }
  std::optional<TokenId> find(std::string_view bytes) const noexcept;

  // Appends the tokens of one piece: the pair of lowest rank is merged first, the leftmost of
  // equals. Time grows with n log n at worst.
  void encode_piece(std::string_view piece, std::vector<TokenId>& out) const;

 private:
  struct PairSlot {
    uint64_t key = ~uint64_t{0};
    uint32_t rank = 0;
    TokenId joined = 0;
  };
  static constexpr uint32_t kNoRank = ~uint32_t{0};

  explicit Bpe(const std::vector<std::string>& tokens);
  void add_pair(TokenId left, TokenId right, uint32_t rank, TokenId joined);
  const PairSlot* find_pair(TokenId left, TokenId right) const noexcept;
  void merge_short(std::string_view piece, std::vector<TokenId>& out) const;
  void merge_long(std::string_view piece, std::vector<TokenId>& out) const;

  std::string arena_;
  std::vector<uint32_t> offsets_;
  std::vector<TokenId> by_bytes_;  // open addressing: ids, -1 empty
  std::vector<PairSlot> pairs_;    // open addressing
  size_t pair_count_ = 0;
  TokenId byte_ids_[256];
  bool whole_pieces_ = false;  // a piece that is a token is that token
};

}  // namespace quern
