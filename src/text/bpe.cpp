#include "text/bpe.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>
#include <array>
#include <bit>
#include <queue>

#include "core/error.h"

namespace quern {
namespace {

// Pieces up to this many bytes are merged by scanning arrays on the stack, longer ones with a heap.
constexpr size_t kShortPiece = 64;

inline uint64_t hash_bytes(std::string_view bytes) noexcept {
  return XXH3_64bits(bytes.data(), bytes.size());
}

inline uint64_t pair_key(TokenId left, TokenId right) noexcept {
  return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
}

inline uint64_t mix(uint64_t key) noexcept {
  key *= 0x9E3779B97F4A7C15u;
  return key ^ (key >> 29);
}

}  // namespace

Bpe::Bpe(const std::vector<std::string>& tokens) {
  offsets_.reserve(tokens.size() + 1);
  size_t total = 0;
  for (const std::string& token : tokens) total += token.size();
  arena_.reserve(total);
  offsets_.push_back(0);
  by_bytes_.assign(std::bit_ceil(2 * tokens.size() + 1), -1);
  std::fill(std::begin(byte_ids_), std::end(byte_ids_), -1);
  for (size_t id = 0; id < tokens.size(); ++id) {
    const std::string& token = tokens[id];
    arena_ += token;
    offsets_.push_back(static_cast<uint32_t>(arena_.size()));
    if (token.empty()) continue;  // a gap in the ids
    size_t slot = hash_bytes(token) & (by_bytes_.size() - 1);
    while (by_bytes_[slot] >= 0) slot = (slot + 1) & (by_bytes_.size() - 1);
    by_bytes_[slot] = static_cast<TokenId>(id);
    if (token.size() == 1) {
      byte_ids_[static_cast<unsigned char>(token[0])] = static_cast<TokenId>(id);
    }
  }
  for (int byte = 0; byte < 256; ++byte) {
    if (byte_ids_[byte] < 0) {
      throw_bad_input("the vocabulary lacks a token for the single byte " + std::to_string(byte));
    }
  }
}

std::optional<TokenId> Bpe::find(std::string_view wanted) const noexcept {
  size_t slot = hash_bytes(wanted) & (by_bytes_.size() - 1);
  while (by_bytes_[slot] >= 0) {
    if (bytes(by_bytes_[slot]) == wanted) return by_bytes_[slot];
    slot = (slot + 1) & (by_bytes_.size() - 1);
  }
  return std::nullopt;
}

void Bpe::add_pair(TokenId left, TokenId right, uint32_t rank, TokenId joined) {
  if (2 * (pair_count_ + 1) > pairs_.size()) {
    std::vector<PairSlot> old = std::move(pairs_);
    pairs_.assign(std::max<size_t>(1024, 2 * old.size()), {});
    pair_count_ = 0;
    for (const PairSlot& slot : old) {
      if (slot.key == ~uint64_t{0}) continue;
      add_pair(static_cast<TokenId>(slot.key >> 32), static_cast<TokenId>(slot.key), slot.rank,
               slot.joined);
    }
  }
  const uint64_t key = pair_key(left, right);
  size_t slot = mix(key) & (pairs_.size() - 1);
  while (pairs_[slot].key != ~uint64_t{0}) {
    if (pairs_[slot].key == key) return;  // the first rank of a pair counts
    slot = (slot + 1) & (pairs_.size() - 1);
  }
  pairs_[slot] = {key, rank, joined};
  ++pair_count_;
}

inline const Bpe::PairSlot* Bpe::find_pair(TokenId left, TokenId right) const noexcept {
  const uint64_t key = pair_key(left, right);
  size_t slot = mix(key) & (pairs_.size() - 1);
  while (true) {
    if (pairs_[slot].key == key) return &pairs_[slot];
    if (pairs_[slot].key == ~uint64_t{0}) return nullptr;
    slot = (slot + 1) & (pairs_.size() - 1);
  }
}

Bpe Bpe::from_ranks(const std::vector<std::string>& tokens) {
  Bpe bpe(tokens);
  bpe.whole_pieces_ = true;
  bpe.pairs_.assign(std::bit_ceil(4 * tokens.size() + 1024), {});
  for (size_t id = 0; id < tokens.size(); ++id) {
    const std::string_view token = tokens[id];
    for (size_t cut = 1; cut < token.size(); ++cut) {
      const auto left = bpe.find(token.substr(0, cut));
      if (!left) continue;
      const auto right = bpe.find(token.substr(cut));
      if (!right) continue;
      bpe.add_pair(*left, *right, static_cast<uint32_t>(id), static_cast<TokenId>(id));
    }
  }
  return bpe;
}

Bpe Bpe::from_merges(const std::vector<std::string>& tokens, const std::vector<Merge>& merges,
                     bool whole_pieces) {
  Bpe bpe(tokens);
  bpe.whole_pieces_ = whole_pieces;
  bpe.pairs_.assign(std::bit_ceil(2 * merges.size() + 1024), {});
  for (size_t i = 0; i < merges.size(); ++i) {
    bpe.add_pair(merges[i].left, merges[i].right, static_cast<uint32_t>(i), merges[i].joined);
  }
  return bpe;
}

void Bpe::encode_piece(std::string_view piece, std::vector<TokenId>& out) const {
  if (piece.size() == 1) {
    out.push_back(byte_ids_[static_cast<unsigned char>(piece[0])]);
    return;
  }
  if (whole_pieces_) {
    if (const auto id = find(piece)) {
      out.push_back(*id);
      return;
    }
  }
  if (piece.size() <= kShortPiece) {
    merge_short(piece, out);
  } else {
    merge_long(piece, out);
  }
}

void Bpe::merge_short(std::string_view piece, std::vector<TokenId>& out) const {
  std::array<TokenId, kShortPiece> ids;
  std::array<uint32_t, kShortPiece> ranks;  // of the pair (i, i + 1)
  std::array<TokenId, kShortPiece> joined;
  size_t count = piece.size();
  for (size_t i = 0; i < count; ++i) ids[i] = byte_ids_[static_cast<unsigned char>(piece[i])];
  const auto look_up = [&](size_t i) {
    const PairSlot* pair = find_pair(ids[i], ids[i + 1]);
    ranks[i] = pair != nullptr ? pair->rank : kNoRank;
    joined[i] = pair != nullptr ? pair->joined : 0;
  };
  for (size_t i = 0; i + 1 < count; ++i) look_up(i);
  while (count > 1) {
    const auto best = std::min_element(ranks.begin(), ranks.begin() + (count - 1));
    if (*best == kNoRank) break;
    const auto i = static_cast<size_t>(best - ranks.begin());
    ids[i] = joined[i];
    std::copy(ids.begin() + i + 2, ids.begin() + count, ids.begin() + i + 1);
    std::copy(ranks.begin() + i + 1, ranks.begin() + (count - 1), ranks.begin() + i);
    std::copy(joined.begin() + i + 1, joined.begin() + (count - 1), joined.begin() + i);
    --count;
    if (i + 1 < count) look_up(i);
    if (i > 0) look_up(i - 1);
  }
  out.insert(out.end(), ids.begin(), ids.begin() + count);
}

// A doubly linked list of symbols in arrays, and a heap of candidate pairs. A candidate that a
// neighbour's merge has made stale is recognized by its ids and dropped.
void Bpe::merge_long(std::string_view piece, std::vector<TokenId>& out) const {
  struct Candidate {
    uint32_t rank;
    uint32_t at;
    TokenId left, right, joined;
    bool operator>(const Candidate& other) const noexcept {
      return rank != other.rank ? rank > other.rank : at > other.at;
    }
  };
  const auto count = static_cast<uint32_t>(piece.size());
  constexpr TokenId kGone = -1;
  std::vector<TokenId> ids(count);
  std::vector<uint32_t> next(count), previous(count);
  std::vector<Candidate> initial;
  for (uint32_t i = 0; i < count; ++i) {
    ids[i] = byte_ids_[static_cast<unsigned char>(piece[i])];
    next[i] = i + 1;
    previous[i] = i - 1;  // wraps for the first, which is checked for
  }
  const auto candidate = [&](uint32_t at, std::vector<Candidate>& to) {
    if (next[at] >= count) return false;
    const PairSlot* pair = find_pair(ids[at], ids[next[at]]);
    if (pair == nullptr) return false;
    to.push_back({pair->rank, at, ids[at], ids[next[at]], pair->joined});
    return true;
  };
  for (uint32_t i = 0; i < count; ++i) candidate(i, initial);
  std::vector<Candidate>& heap = initial;
  std::make_heap(heap.begin(), heap.end(), std::greater<>());
  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end(), std::greater<>());
    const Candidate top = heap.back();
    heap.pop_back();
    if (ids[top.at] != top.left || next[top.at] >= count || ids[next[top.at]] != top.right) {
      continue;
    }
    const uint32_t gone = next[top.at];
    ids[top.at] = top.joined;
    ids[gone] = kGone;
    next[top.at] = next[gone];
    if (next[gone] < count) previous[next[gone]] = top.at;
    if (candidate(top.at, heap)) std::push_heap(heap.begin(), heap.end(), std::greater<>());
    if (top.at != 0 && candidate(previous[top.at], heap)) {
      std::push_heap(heap.begin(), heap.end(), std::greater<>());
    }
  }
  for (uint32_t i = 0; i < count; i = next[i]) out.push_back(ids[i]);
}

}  // namespace quern
