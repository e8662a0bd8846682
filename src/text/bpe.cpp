#include "text/bpe.h"

#define XXH_INLINE_ALL
#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>
#include <bit>

#include "core/error.h"
#include "core/utf8.h"

namespace quern {
namespace {

inline uint64_t hash_bytes(std::string_view bytes) noexcept {
  return XXH3_64bits(bytes.data(), bytes.size());
}

constexpr uint64_t kUpperHalf = ~uint64_t{0} << 32;

bool is_continuation(char byte) noexcept {
  return (static_cast<unsigned char>(byte) & 0xC0) == 0x80;
}

// Bytes of the character that `lead` begins.
size_t character_bytes(char lead) noexcept {
  const auto byte = static_cast<unsigned char>(lead);
  return byte < 0xC0 ? 1 : byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : 4;
}

// Where tokens are, by a hash of their bytes that every prefix and suffix of a string shares work
// on: a polynomial over all its bytes.
class TokenFinder {
 public:
  explicit TokenFinder(std::span<const std::string> tokens)
      : tokens_(tokens), slots_(std::bit_ceil(2 * tokens.size() + 1), 0) {
    shift_ = 64 - std::countr_zero(slots_.size());
    for (size_t id = 0; id < tokens.size(); ++id) {
      if (tokens[id].empty()) continue;
      uint64_t hash = 0;
      for (const char byte : tokens[id]) hash = extend(hash, byte);
      const uint64_t mixed = mix(hash);
      size_t slot = mixed >> shift_;
      while (slots_[slot] != 0) slot = (slot + 1) & (slots_.size() - 1);
      slots_[slot] = (mixed << 32) | (id + 1);
    }
  }

  static uint64_t extend(uint64_t hash, char byte) noexcept {
    return (hash + static_cast<unsigned char>(byte) + 1) * kBase;
  }
  static constexpr uint64_t kBase = 0x9E3779B97F4A7C15;

  TokenId find(uint64_t hash, std::string_view bytes) const noexcept {
    const uint64_t mixed = mix(hash);
    for (size_t slot = mixed >> shift_; slots_[slot] != 0;
         slot = (slot + 1) & (slots_.size() - 1)) {
      if ((slots_[slot] ^ mixed << 32) >> 32 != 0) continue;
      const auto id = static_cast<uint32_t>(slots_[slot]) - 1;
      if (tokens_[id] == bytes) return static_cast<TokenId>(id);
    }
    return -1;
  }

 private:
  static uint64_t mix(uint64_t hash) noexcept {
    hash ^= hash >> 32;
    hash *= 0xD6E8FEB86659FD93;
    return hash ^ hash >> 29;
  }

  std::span<const std::string> tokens_;
  std::vector<uint64_t, HugePages<uint64_t>> slots_;
  int shift_;
};

}  // namespace

PairRanks::PairRanks(size_t expected) {
  const size_t size = std::bit_ceil(std::max<size_t>(64, expected + expected * 2 / 3));
  slots_.assign(size, kEmpty);
  mask_ = size - 1;
  shift_ = 64 - std::countr_zero(size);
}

void PairRanks::add(TokenId left, TokenId right, int32_t rank) {
  if (5 * (count_ + 1) > 3 * slots_.size()) {
    PairRanks larger(2 * (count_ + 1));
    for (const uint64_t word : slots_) {
      if (word == kEmpty) continue;
      const uint64_t key = word >> kRankBits;
      larger.add(static_cast<TokenId>(key >> kIdBits),
                 static_cast<TokenId>(key & ((1u << kIdBits) - 1)),
                 static_cast<int32_t>(word & kRankMask));
    }
    *this = std::move(larger);
  }
  const uint64_t key = key_of(left, right);
  size_t slot = index_of(key);
  for (; slots_[slot] != kEmpty; slot = (slot + 1) & mask_) {
    if (slots_[slot] >> kRankBits == key) return;
  }
  slots_[slot] = key << kRankBits | static_cast<uint64_t>(rank);
  ++count_;
}

Bpe::Bpe(std::span<const std::string> tokens) {
  constexpr size_t kMaxTokens = (size_t{1} << PairRanks::kIdBits) - 1;
  if (tokens.size() > kMaxTokens) {
    throw Error(Kind::Unsupported, fmt::format("the vocabulary has {} tokens, of which at most {} "
                                               "are supported",
                                               tokens.size(), kMaxTokens));
  }
  offsets_.reserve(tokens.size() + 1);
  size_t total = 0;
  for (const std::string& token : tokens) total += token.size();
  arena_.reserve(total);
  offsets_.push_back(0);
  by_bytes_.assign(std::bit_ceil(2 * tokens.size() + 1), 0);
  filter_.assign(size_t{1} << (kFilterBits - 6), 0);
  byte_ids_.fill(-1);
  for (size_t id = 0; id < tokens.size(); ++id) {
    const std::string& token = tokens[id];
    arena_.insert(arena_.end(), token.begin(), token.end());
    offsets_.push_back(static_cast<uint32_t>(arena_.size()));
    if (token.empty()) continue;  // a gap in the ids
    longest_ = std::max(longest_, token.size());
    const uint64_t hash = hash_bytes(token);
    size_t slot = hash & (by_bytes_.size() - 1);
    while (by_bytes_[slot] != 0) slot = (slot + 1) & (by_bytes_.size() - 1);
    by_bytes_[slot] = (hash & kUpperHalf) | (id + 1);
    const uint64_t bit = hash >> (64 - kFilterBits);
    filter_[bit >> 6] |= uint64_t{1} << (bit & 63);
    if (token.size() == 1) {
      byte_ids_[static_cast<unsigned char>(token[0])] = static_cast<TokenId>(id);
    }
  }
  for (size_t byte = 0; byte < 256; ++byte) {
    if (byte_ids_[byte] < 0) {
      throw_bad_input("the vocabulary lacks a token for the single byte " + std::to_string(byte));
    }
  }
}

std::optional<TokenId> Bpe::find(std::string_view wanted) const noexcept {
  const uint64_t hash = hash_bytes(wanted);
  const uint64_t bit = hash >> (64 - kFilterBits);
  if ((filter_[bit >> 6] >> (bit & 63) & 1) == 0) return std::nullopt;
  for (size_t slot = hash & (by_bytes_.size() - 1); by_bytes_[slot] != 0;
       slot = (slot + 1) & (by_bytes_.size() - 1)) {
    if (((by_bytes_[slot] ^ hash) & kUpperHalf) != 0) continue;
    const auto id = static_cast<TokenId>(static_cast<uint32_t>(by_bytes_[slot]) - 1);
    if (bytes(id) == wanted) return id;
  }
  return std::nullopt;
}

// Every way to cut a token into two tokens is a pair that merges.
void Bpe::add_splits(std::span<const std::string> tokens) {
  const TokenFinder finder(tokens);
  pairs_ = PairRanks(2 * tokens.size());
  std::vector<uint64_t> prefix, power;
  for (size_t id = 0; id < tokens.size(); ++id) {
    const std::string_view token = tokens[id];
    if (token.size() < 2) continue;
    prefix.assign(1, 0);
    for (const char byte : token) prefix.push_back(TokenFinder::extend(prefix.back(), byte));
    if (power.empty()) power.push_back(1);
    while (power.size() <= token.size()) power.push_back(power.back() * TokenFinder::kBase);
    for (size_t cut = 1; cut < token.size(); ++cut) {
      const TokenId left = finder.find(prefix[cut], token.substr(0, cut));
      if (left < 0) continue;
      const uint64_t suffix = prefix.back() - prefix[cut] * power[token.size() - cut];
      const TokenId right = finder.find(suffix, token.substr(cut));
      if (right >= 0) pairs_.add(left, right, static_cast<int32_t>(id));
    }
  }
}

Bpe Bpe::from_ranks(std::span<const std::string> tokens) {
  Bpe bpe(tokens);
  bpe.whole_pieces_ = true;
  bpe.add_splits(tokens);
  std::vector<int32_t> ranks(tokens.size());
  for (size_t id = 0; id < tokens.size(); ++id) ranks[id] = static_cast<int32_t>(id);
  bpe.find_whole_characters(ranks);
  return bpe;
}

Bpe Bpe::from_merges(std::span<const std::string> tokens, std::span<const Merge> merges,
                     bool whole_pieces) {
  constexpr size_t kMaxMerges = (size_t{1} << PairRanks::kRankBits) - 1;
  if (merges.size() > kMaxMerges) {
    throw Error(Kind::Unsupported,
                fmt::format("the tokenizer has {} merges, of which at most {} are supported",
                            merges.size(), kMaxMerges));
  }
  Bpe bpe(tokens);
  bpe.whole_pieces_ = whole_pieces;
  bpe.pairs_ = PairRanks(merges.size());
  bpe.joined_.reserve(merges.size() + 1);
  std::vector<int32_t> first_rank(tokens.size(), PairRanks::kNone);
  for (const Merge& merge : merges) {
    const auto rank = static_cast<int32_t>(bpe.joined_.size());
    bpe.pairs_.add(merge.left, merge.right, rank);
    bpe.joined_.push_back(merge.joined);
    int32_t& first = first_rank[static_cast<size_t>(merge.joined)];
    if (first < 0) first = rank;
  }
  bpe.joined_.push_back(-1);  // never empty, even without merges
  bpe.find_whole_characters(first_rank);
  return bpe;
}

// A text of Chinese has three bytes a character, of which nearly every character is a token: to
// begin the merging with these tokens gives the same result with a third of the work, if
// 1. the character's bytes alone merge into its token;
// 2. no token has part of the character on one side of its edge and something on the other;
//    `crossed_` has the bytes on both sides of an edge that some token crosses in such a way;
// 3. every token that holds the whole character and more has a higher rank than any merge inside
//    the character has, so that the character is ready in time.
// Then nothing ever merges with part of it (2), it comes into being (1), and does so before any
// merge that it takes part in would be due (3); merges elsewhere do not see the difference.
//
// `first_rank`: of each token, the lowest rank of a merge that makes it; -1 where none does.
void Bpe::find_whole_characters(const std::vector<int32_t>& first_rank) {
  characters_.assign(size_t{1} << 16, -1);
  std::vector<int32_t> ready(size_t{1} << 16, -1);  // the highest rank inside
  for (size_t id = 0; id < size(); ++id) {
    const std::string_view token = bytes(static_cast<TokenId>(id));
    if (token.size() != 2 && token.size() != 3) continue;
    const utf8::Point point = utf8::decode(token);
    if (!point.valid || point.length != token.size()) continue;
    TokenId parts[3];
    size_t count = token.size();
    for (size_t i = 0; i < count; ++i) {
      parts[i] = byte_ids_[static_cast<unsigned char>(token[i])];
    }
    int32_t highest = -1;
    while (count > 1) {
      size_t best = 0;
      int32_t best_rank = PairRanks::kNone;
      for (size_t i = 0; i + 1 < count; ++i) {
        const int32_t rank = pairs_.find(parts[i], parts[i + 1]);
        if (rank >= 0 && (best_rank < 0 || rank < best_rank)) {
          best = i;
          best_rank = rank;
        }
      }
      if (best_rank < 0) break;
      highest = std::max(highest, best_rank);
      parts[best] = joined(best_rank);
      --count;
      for (size_t i = best + 1; i < count; ++i) parts[i] = parts[i + 1];
    }
    if (count != 1 || parts[0] != static_cast<TokenId>(id)) continue;
    characters_[point.value] = parts[0];
    ready[point.value] = highest;
  }
  for (size_t id = 0; id < size(); ++id) {
    const std::string_view token = bytes(static_cast<TokenId>(id));
    size_t i = 0;
    while (i < token.size() && is_continuation(token[i])) ++i;
    if (i > 0 && i < token.size()) {
      crossed_.set(size_t{static_cast<unsigned char>(token[i - 1])} << 8 |
                   static_cast<unsigned char>(token[i]));
    }
    while (i < token.size()) {
      const size_t length = character_bytes(token[i]);
      if (i + length > token.size()) {
        if (i > 0) {
          crossed_.set(size_t{static_cast<unsigned char>(token[i - 1])} << 8 |
                       static_cast<unsigned char>(token[i]));
        }
        break;
      }
      if ((length == 2 || length == 3) && length < token.size()) {
        const utf8::Point point = utf8::decode(token.substr(i));
        if (point.valid && first_rank[id] >= 0 && first_rank[id] <= ready[point.value]) {
          characters_[point.value] = -1;
        }
      }
      i += length;
    }
  }
}

}  // namespace quern
