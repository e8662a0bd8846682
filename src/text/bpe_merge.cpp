// Merging: short pieces in arrays on the stack, long ones window by window.
#include <algorithm>
#include <limits>

#include "text/bpe.h"
#include "text/merge_lanes.h"
#include "text/pair_search.h"

namespace quern {
namespace {

// A rank and where the pair stands, so that the smallest of these is the next merge.
constexpr int kPlaceBits = 7;
constexpr int32_t kNoMerge = std::numeric_limits<int32_t>::max();
static_assert(Bpe::kShortPiece == 1 << kPlaceBits);
static_assert(PairRanks::kRankBits + kPlaceBits <= 31);

// Pieces of up to kWindow symbols are merged in blocks of kBlock.
constexpr size_t kWindow = 1024, kBlock = 32;

}  // namespace

// The symbols that merging a piece may begin with: bytes, or characters that are tokens. Takes as
// many characters as kShortPiece symbols hold, and returns the bytes taken.
size_t Bpe::begin_symbols(std::string_view piece, TokenId* ids, size_t& count) const noexcept {
  const auto* text = reinterpret_cast<const unsigned char*>(piece.data());
  const size_t size = piece.size();
  size_t i = 0, n = 0;
  while (i < size) {
    const unsigned lead = text[i];
    if (lead < 0x80) {
      if (n == kShortPiece) break;
      ids[n++] = byte_ids_[lead];
      ++i;
      continue;
    }
    // A window may begin or end inside a character.
    size_t length = lead < 0xC0 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
    if (i + length > size) length = 1;
    if (n + length > kShortPiece) break;
    TokenId whole = -1;
    if (length == 3) {
      whole = characters_
                  .data()[(lead & 0x0F) << 12 | (text[i + 1] & 0x3Fu) << 6 | (text[i + 2] & 0x3Fu)];
    } else if (length == 2) {
      whole = characters_.data()[(lead & 0x1F) << 6 | (text[i + 1] & 0x3Fu)];
    }
    if (whole >= 0 && !crossed(piece, i) && !crossed(piece, i + length)) {
      ids[n++] = whole;
      i += length;
    } else {
      for (size_t k = 0; k < length; ++k) ids[n++] = byte_ids_[text[i++]];
    }
  }
  count = n;
  return i;
}

[[gnu::always_inline]] inline size_t Bpe::merge_symbols_inline(TokenId* ids, size_t count,
                                                               const char* ascii) const noexcept {
  alignas(32) int32_t merges[kShortPiece];
  uint8_t next[kShortPiece], previous[kShortPiece + 1];
  const auto as_merge = [](int32_t rank, size_t at) {
    return rank < 0 ? kNoMerge : rank << kPlaceBits | static_cast<int32_t>(at);
  };
  const size_t padded = (count + 7) & ~size_t{7};
  for (size_t i = count - 1; i < padded; ++i) merges[i] = kNoMerge;
  if (ascii != nullptr) {
    for (size_t i = 0; i + 1 < count; ++i) {
      const auto left = static_cast<unsigned char>(ascii[i]);
      const auto right = static_cast<unsigned char>(ascii[i + 1]);
      merges[i] = as_merge(ascii_pairs_.data()[static_cast<size_t>(left) << 7 | right], i);
    }
  } else {
    // Of most pairs the filter says that they do not merge; what the others are comes from far.
    uint8_t maybe[kShortPiece];
    size_t maybes = 0;
    for (size_t i = 0; i + 1 < count; ++i) {
      merges[i] = kNoMerge;
      maybe[maybes] = static_cast<uint8_t>(i);
      maybes += pairs_.may_hold(ids[i], ids[i + 1]) ? 1 : 0;
    }
    if (maybes == 0) return count;
    for (size_t k = 0; k < maybes; ++k) pairs_.prefetch(ids[maybe[k]], ids[maybe[k] + 1u]);
    for (size_t k = 0; k < maybes; ++k) {
      const size_t i = maybe[k];
      merges[i] = as_merge(pairs_.look_up(ids[i], ids[i + 1]), i);
    }
  }
  for (size_t i = 0; i < count; ++i) {
    next[i] = static_cast<uint8_t>(i + 1);
    previous[i + 1] = static_cast<uint8_t>(i);
  }
  previous[0] = 0;
  while (true) {
    int32_t best = kNoMerge;
    for (size_t i = 0; i < padded; i += 8) {
      for (size_t k = 0; k < 8; ++k) best = std::min(best, merges[i + k]);
    }
    if (best == kNoMerge) break;
    const auto at = static_cast<size_t>(best & ((1 << kPlaceBits) - 1));
    const size_t gone = next[at], after = next[gone];
    ids[at] = joined(best >> kPlaceBits);
    merges[gone] = kNoMerge;
    next[at] = static_cast<uint8_t>(after);
    previous[after] = static_cast<uint8_t>(at);
    // Both pairs that are new are searched at once. At the ends there is but one, and the place of
    // the last symbol takes the answer for the other, which is that there is none.
    const bool is_last = after >= count, is_first = at == 0;
    const size_t before = previous[at];
    const PairSearch right(pairs_, ids[at], ids[is_last ? at : after], !is_last);
    const PairSearch left(pairs_, ids[before], ids[at], !is_first);
    merges[at] = as_merge(right.rank(pairs_), at);
    merges[is_first ? count - 1 : before] = as_merge(left.rank(pairs_), before);
  }
  size_t out = 0;
  for (size_t i = 0; i < count; i = next[i]) ids[out++] = ids[i];
  return out;
}

size_t Bpe::merge_symbols_scalar(TokenId* ids, size_t count, const char* ascii) const noexcept {
  return merge_symbols_inline(ids, count, ascii);
}

#if defined(__x86_64__)
// The same code, in which the compiler finds the lowest rank eight at a time.
[[gnu::target("avx2,bmi,bmi2,lzcnt")]] size_t Bpe::merge_symbols_avx2(
    TokenId* ids, size_t count, const char* ascii) const noexcept {
  return merge_symbols_inline(ids, count, ascii);
}
#endif

// Merges in place; returns how many are left. `ascii`: the bytes, if every symbol is one of them.
size_t Bpe::merge_symbols(TokenId* ids, size_t count, const char* ascii) const noexcept {
#if defined(__x86_64__)
  static const bool avx2 = merges_with_avx2();
  if (avx2) return merge_symbols_avx2(ids, count, ascii);
#endif
  return merge_symbols_scalar(ids, count, ascii);
}

// The same for up to kWindow symbols: the lowest rank of each block is kept, so that a merge looks
// at the blocks that it changes and at the lowest ranks of the others.
[[gnu::always_inline]] inline size_t Bpe::merge_window_inline(TokenId* ids,
                                                              size_t count) const noexcept {
  alignas(32) int32_t ranks[kWindow];
  alignas(32) int32_t lowest[kWindow / kBlock];
  uint16_t next[kWindow], previous[kWindow + 1];
  const auto look_up = [&](size_t left, size_t right) {
    const int32_t rank = pairs_.find(ids[left], ids[right]);
    return rank < 0 ? kNoMerge : rank;
  };
  for (size_t i = 0; i < count; ++i) {
    next[i] = static_cast<uint16_t>(i + 1);
    previous[i + 1] = static_cast<uint16_t>(i);
    if (i + 2 < count) pairs_.prefetch(ids[i + 1], ids[i + 2]);
    ranks[i] = i + 1 < count ? look_up(i, i + 1) : kNoMerge;
  }
  const size_t blocks = (count + kBlock - 1) / kBlock;
  for (size_t i = count; i < blocks * kBlock; ++i) ranks[i] = kNoMerge;
  const auto refresh = [&](size_t block) {
    int32_t best = kNoMerge;
    for (size_t k = 0; k < kBlock; ++k) best = std::min(best, ranks[block * kBlock + k]);
    lowest[block] = best;
  };
  for (size_t block = 0; block < blocks; ++block) refresh(block);
  while (true) {
    int32_t best = kNoMerge;
    for (size_t block = 0; block < blocks; ++block) best = std::min(best, lowest[block]);
    if (best == kNoMerge) break;
    size_t block = 0;
    while (lowest[block] != best) ++block;
    size_t at = block * kBlock;
    while (ranks[at] != best) ++at;
    const size_t gone = next[at], after = next[gone];
    ids[at] = joined(best);
    next[at] = static_cast<uint16_t>(after);
    previous[after] = static_cast<uint16_t>(at);
    ranks[gone] = kNoMerge;
    ranks[at] = after < count ? look_up(at, after) : kNoMerge;
    refresh(block);
    if (gone / kBlock != block) refresh(gone / kBlock);
    if (at > 0) {
      const size_t before = previous[at];
      ranks[before] = look_up(before, at);
      refresh(before / kBlock);
    }
  }
  size_t out = 0;
  for (size_t i = 0; i < count; i = next[i]) ids[out++] = ids[i];
  return out;
}

size_t Bpe::merge_window_scalar(TokenId* ids, size_t count) const noexcept {
  return merge_window_inline(ids, count);
}

#if defined(__x86_64__)
[[gnu::target("avx2,bmi,bmi2,lzcnt")]] size_t Bpe::merge_window_avx2(TokenId* ids,
                                                                     size_t count) const noexcept {
  return merge_window_inline(ids, count);
}
#endif

size_t Bpe::merge_window(TokenId* ids, size_t count) const noexcept {
#if defined(__x86_64__)
  static const bool avx2 = merges_with_avx2();
  if (avx2) return merge_window_avx2(ids, count);
#endif
  return merge_window_scalar(ids, count);
}

// Merges a piece, or part of one, from its bytes. Sets `out` to the result.
void Bpe::merge_long(std::string_view piece, std::vector<TokenId>& out) const {
  out.clear();
  if (piece.size() > kWindow) {
    merge_with_heap(piece, out);
    return;
  }
  for (const char byte : piece) out.push_back(byte_ids_[static_cast<unsigned char>(byte)]);
  out.resize(merge_window(out.data(), out.size()));
}

size_t Bpe::encode_short(std::string_view piece, uint64_t hash, TokenId* out) const noexcept {
  if (piece.size() == 1) {
    *out = byte_ids_[static_cast<unsigned char>(piece[0])];
    return 1;
  }
  if (whole_pieces_ && piece.size() <= longest_) {
    if (const auto id = find(piece, hash)) {
      *out = *id;
      return 1;
    }
  }
  TokenId ids[kShortPiece];
  size_t count = 0;
  begin_symbols(piece, ids, count);
  const bool ascii = std::all_of(piece.begin(), piece.end(), [](char byte) { return byte >= 0; });
  count = merge_symbols(ids, count, ascii ? piece.data() : nullptr);
  std::copy_n(ids, count, out);
  return count;
}

void Bpe::encode_by_merges(std::string_view piece, std::vector<TokenId>& out) const {
  std::vector<TokenId> merged;
  merge_long(piece, merged);
  out.insert(out.end(), merged.begin(), merged.end());
}

// Whether merging the bytes of both together gives the two back.
bool Bpe::stand_side_by_side(TokenId left, TokenId right) const {
  std::string both(bytes(left));
  both += bytes(right);
  TokenId ids[kShortPiece];
  size_t count = 0;
  if (begin_symbols(both, ids, count) == both.size()) {
    count = merge_symbols(ids, count);
    return count == 2 && ids[0] == left && ids[1] == right;
  }
  std::vector<TokenId> merged;
  merge_long(both, merged);
  return merged.size() == 2 && merged[0] == left && merged[1] == right;
}

// Tokens of which any two neighbours may stand side by side are the encoding of their bytes: the
// first merge over one of the edges between them would have happened in merging those two alone as
// well, for until then both have seen the same merges. So a long piece is encoded in windows: of
// each the tokens well before its end are kept, and the next begins where they end. Where the first
// token of a window may not stand beside what was kept, some of that is done again in a larger
// window, and the windows stay so large until that place is behind; if it fails there again they
// grow, so that at worst the whole piece is one window.
void Bpe::encode_piece(std::string_view piece, std::vector<TokenId>& out, size_t* work) const {
  if (piece.size() <= kShortPiece) {
    const size_t before = out.size();
    out.resize(before + piece.size());
    out.resize(before + encode_short(piece, out.data() + before));
    return;
  }
  if (whole_pieces_ && piece.size() <= longest_) {
    if (const auto id = find(piece)) {
      out.push_back(*id);
      return;
    }
  }
  const size_t first = out.size();
  std::vector<TokenId> window;
  size_t begin = 0;
  size_t window_bytes = 0;  // 0: as many bytes as fit on the stack
  size_t trouble = 0;       // up to here the windows stay large
  TokenId expected = -1;    // the token that followed in the window before
  const auto enlarge = [&](size_t at_least) {
    window_bytes = std::max({2 * window_bytes, at_least, size_t{1024}});
  };
  while (begin < piece.size()) {
    if (begin > trouble) window_bytes = 0;
    size_t taken = 0;
    window.clear();
    if (window_bytes == 0) {
      window.resize(kShortPiece);
      size_t count = 0;
      taken = begin_symbols(piece.substr(begin), window.data(), count);
      window.resize(merge_symbols(window.data(), count));
    } else {
      taken = std::min(window_bytes, piece.size() - begin);
      merge_long(piece.substr(begin, taken), window);
    }
    if (work != nullptr) *work += taken;
    if (out.size() > first && window[0] != expected && !stand_side_by_side(out.back(), window[0])) {
      trouble = std::max(trouble, begin);
      size_t undone = 0;
      for (size_t back = 4; back > 0 && out.size() > first; --back) {
        undone += bytes(out.back()).size();
        out.pop_back();
      }
      begin -= undone;
      enlarge(2 * (trouble - begin));
      expected = -1;
      continue;
    }
    size_t keep = window.size(), kept_bytes = taken;
    if (begin + taken < piece.size()) {
      while (keep > 0 && kept_bytes > taken - taken / 8) {
        kept_bytes -= bytes(window[--keep]).size();
      }
      if (keep == 0) {
        trouble = std::max(trouble, begin);
        enlarge(0);
        continue;
      }
      expected = window[keep];
    }
    out.insert(out.end(), window.begin(), window.begin() + static_cast<ptrdiff_t>(keep));
    begin += kept_bytes;
  }
}

// A doubly linked list of symbols in arrays, and a heap of candidate pairs. A candidate that a
// neighbour's merge has made stale is recognized by its ids and dropped.
void Bpe::merge_with_heap(std::string_view piece, std::vector<TokenId>& out) const {
  struct Candidate {
    int32_t rank;
    uint32_t at;
    TokenId left, right;
    bool operator>(const Candidate& other) const noexcept {
      return rank != other.rank ? rank > other.rank : at > other.at;
    }
  };
  const auto count = static_cast<uint32_t>(piece.size());
  constexpr TokenId kGone = -1;
  std::vector<TokenId> ids(count);
  std::vector<uint32_t> next(count), previous(count);
  std::vector<Candidate> heap;
  for (uint32_t i = 0; i < count; ++i) {
    ids[i] = byte_ids_[static_cast<unsigned char>(piece[i])];
    next[i] = i + 1;
    previous[i] = i - 1;  // wraps for the first, which is checked for
  }
  const auto candidate = [&](uint32_t at) {
    if (next[at] >= count) return false;
    const int32_t rank = pairs_.find(ids[at], ids[next[at]]);
    if (rank < 0) return false;
    heap.push_back({rank, at, ids[at], ids[next[at]]});
    return true;
  };
  for (uint32_t i = 0; i < count; ++i) candidate(i);
  std::make_heap(heap.begin(), heap.end(), std::greater<>());
  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end(), std::greater<>());
    const Candidate top = heap.back();
    heap.pop_back();
    if (ids[top.at] != top.left || next[top.at] >= count || ids[next[top.at]] != top.right) {
      continue;
    }
    const uint32_t gone = next[top.at];
    ids[top.at] = joined(top.rank);
    ids[gone] = kGone;
    next[top.at] = next[gone];
    if (next[gone] < count) previous[next[gone]] = top.at;
    if (candidate(top.at)) std::push_heap(heap.begin(), heap.end(), std::greater<>());
    if (top.at != 0 && candidate(previous[top.at])) {
      std::push_heap(heap.begin(), heap.end(), std::greater<>());
    }
  }
  for (uint32_t i = 0; i < count; i = next[i]) out.push_back(ids[i]);
}

void Bpe::encode_piece_reference(std::string_view piece, std::vector<TokenId>& out) const {
  if (whole_pieces_) {
    if (const auto id = find(piece)) {
      out.push_back(*id);
      return;
    }
  }
  std::vector<TokenId> ids;
  for (const char byte : piece) ids.push_back(byte_ids_[static_cast<unsigned char>(byte)]);
  while (true) {
    size_t best = 0;
    int32_t best_rank = PairRanks::kNone;
    for (size_t i = 0; i + 1 < ids.size(); ++i) {
      const int32_t rank = pairs_.find(ids[i], ids[i + 1]);
      if (rank >= 0 && (best_rank < 0 || rank < best_rank)) {
        best = i;
        best_rank = rank;
      }
    }
    if (best_rank < 0) break;
    ids[best] = joined(best_rank);
    ids.erase(ids.begin() + static_cast<ptrdiff_t>(best) + 1);
  }
  out.insert(out.end(), ids.begin(), ids.end());
}

}  // namespace quern
