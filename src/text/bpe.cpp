#include "text/bpe.h"

#define XXH_INLINE_ALL
#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <future>
#include <numeric>
#include <utility>

#include "core/error.h"
#include "core/utf8.h"

namespace quern {
namespace {

constexpr uint64_t kUpperHalf = ~uint64_t{0} << 32;

bool is_continuation(char byte) noexcept {
  return (static_cast<unsigned char>(byte) & 0xC0) == 0x80;
}

// Bytes of the character that `lead` begins.
size_t character_bytes(char lead) noexcept {
  const auto byte = static_cast<unsigned char>(lead);
  return byte < 0xC0 ? 1 : byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : 4;
}

template <class T>
using Scratch = std::vector<T, HugePages<T>>;

// A token for sorting.
struct Sorted {
  uint64_t head;  // eight bytes, the first one highest, filled up with zeros
  uint32_t id, size;
};

// The ids below `count` in the order of their bytes, which `text` gives; those without any are left
// out.
template <class Text>
Scratch<Sorted> sorted_by_bytes(size_t count, Text&& text) {
  Scratch<Sorted> entries, sorted;
  entries.reserve(count);
  for (size_t id = 0; id < count; ++id) {
    const std::string_view bytes = text(id);
    if (bytes.empty()) continue;
    uint64_t head = 0;
    std::memcpy(&head, bytes.data(), std::min<size_t>(8, bytes.size()));
    entries.push_back(
        {__builtin_bswap64(head), static_cast<uint32_t>(id), static_cast<uint32_t>(bytes.size())});
  }
  // By some bits after the others, the lowest first; each pass keeps the order of the one before.
  constexpr int kDigit = 11, kPasses = 6;
  static_assert(kDigit * kPasses >= 64);
  constexpr uint64_t kMask = (uint64_t{1} << kDigit) - 1;
  sorted.resize(entries.size());
  std::vector<std::array<uint32_t, size_t{1} << kDigit>> places(kPasses);
  for (const Sorted& entry : entries) {
    for (int pass = 0; pass < kPasses; ++pass) {
      ++places[static_cast<size_t>(pass)][entry.head >> (pass * kDigit) & kMask];
    }
  }
  for (int pass = 0; pass < kPasses; ++pass) {
    uint32_t place = 0;
    auto& digit = places[static_cast<size_t>(pass)];
    for (uint32_t& number : digit) number = std::exchange(place, place + number);
    uint32_t* const next = digit.data();
    for (const Sorted& entry : entries) {
      sorted.data()[next[entry.head >> (pass * kDigit) & kMask]++] = entry;
    }
    entries.swap(sorted);
  }
  for (size_t i = 0; i < entries.size();) {
    size_t end = i + 1;
    while (end < entries.size() && entries[end].head == entries[i].head) ++end;
    if (end - i > 1) {
      std::sort(entries.begin() + static_cast<ptrdiff_t>(i),
                entries.begin() + static_cast<ptrdiff_t>(end),
                [&](const Sorted& a, const Sorted& b) {
                  const int order_of_bytes = text(a.id).compare(text(b.id));
                  return order_of_bytes != 0 ? order_of_bytes < 0 : a.id < b.id;
                });
    }
    i = end;
  }
  return entries;
}

// Of a token its size, and the one whose bytes are the longest proper prefix of its own, of equals
// the first; -1 where there is none.
struct Link {
  TokenId shorter = -1;
  uint32_t size = 0;
};

template <class Text>
Scratch<Link> longest_prefixes(size_t count, const Scratch<Sorted>& sorted, Text&& text) {
  Scratch<Link> links(count);
  std::vector<Sorted> open;  // each is a prefix of the next
  const auto is_prefix = [&](const Sorted& prefix, const Sorted& whole) {
    if (prefix.size > whole.size) return false;
    if (prefix.size < 8) return (prefix.head ^ whole.head) >> (64 - 8 * prefix.size) == 0;
    return prefix.head == whole.head && text(whole.id).starts_with(text(prefix.id));
  };
  for (const Sorted& entry : sorted) {
    links[entry.id].size = entry.size;
    while (!open.empty() && !is_prefix(open.back(), entry)) open.pop_back();
    if (!open.empty() && open.back().size == entry.size) {
      links[entry.id].shorter = links[open.back().id].shorter;
      continue;
    }
    if (!open.empty()) links[entry.id].shorter = static_cast<TokenId>(open.back().id);
    open.push_back(entry);
  }
  return links;
}

// Both of these of the tokens' bytes, or of these from the last to the first.
struct Ends {
  Scratch<Sorted> order;
  Scratch<Link> links;
};

template <class Text>
Ends find_ends(size_t count, Text&& text) {
  Ends ends;
  ends.order = sorted_by_bytes(count, text);
  ends.links = longest_prefixes(count, ends.order, text);
  return ends;
}

// Does both, on two threads where that pays.
template <class First, class Second>
void both(bool parallel, First&& first, Second&& second) {
  if (!parallel) {
    first();
    second();
    return;
  }
  // Waits for its end, whatever happens here; without a thread to be had it runs in get().
  auto other = std::async(std::launch::async | std::launch::deferred, second);
  first();
  other.get();
}

}  // namespace

PairRanks::PairRanks(size_t expected) {
  const size_t size = std::bit_ceil(std::max<size_t>(64, expected + expected * 2 / 3));
  slots_ = Table<uint64_t>(size, kEmpty);
  mask_ = size - 1;
  shift_ = 64 - std::countr_zero(size);
  filter_ = Table<uint64_t>((size << kFilterBits) / 64, 0);
  filter_shift_ = shift_ - kFilterBits;
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
  const uint64_t key = key_of(left, right), hash = hash_of(key);
  const size_t index = index_of(hash);
  size_t slot = index;
  for (size_t tries = 0; slots_[slot] != kEmpty; ++tries) {
    if (slots_[slot] >> kRankBits == key) return;
    // Around in the line, then around in the next one.
    slot = (slot & ~(kLine - 1)) | ((slot + 1) & (kLine - 1));
    if (tries % kLine == kLine - 1) slot = (slot + kLine) & mask_;
  }
  slots_.writable()[slot] = key << kRankBits | static_cast<uint64_t>(rank);
  const uint64_t bit = hash >> filter_shift_;
  filter_.writable()[bit >> 6] |= uint64_t{1} << (bit & 63);
  ++count_;
}

Bpe::Bpe(std::span<const std::string> tokens) {
  constexpr size_t kMaxTokens = (size_t{1} << PairRanks::kIdBits) - 1;
  if (tokens.size() > kMaxTokens) {
    throw Error(Kind::Unsupported, fmt::format("the vocabulary has {} tokens, of which at most {} "
                                               "are supported",
                                               tokens.size(), kMaxTokens));
  }
  size_t total = 0;
  for (const std::string& token : tokens) total += token.size();
  Scratch<char> arena(total);
  Scratch<uint32_t> offsets(tokens.size() + 1);
  byte_ids_.fill(-1);
  size_t at = 0;
  for (size_t id = 0; id < tokens.size(); ++id) {
    const std::string& token = tokens[id];
    std::memcpy(arena.data() + at, token.data(), token.size());
    at += token.size();
    offsets[id + 1] = static_cast<uint32_t>(at);
    longest_ = std::max(longest_, token.size());
    if (token.size() == 1 && byte_ids_[static_cast<unsigned char>(token[0])] < 0) {
      byte_ids_[static_cast<unsigned char>(token[0])] = static_cast<TokenId>(id);
    }
  }
  arena_ = std::move(arena);
  offsets_ = std::move(offsets);
}

bool Bpe::has_all_bytes() const noexcept {
  return std::all_of(byte_ids_.begin(), byte_ids_.end(), [](TokenId id) { return id >= 0; });
}

void Bpe::need_all_bytes() const {
  for (size_t byte = 0; byte < 256; ++byte) {
    if (byte_ids_[byte] < 0) {
      throw_bad_input("the vocabulary lacks a token for the single byte " + std::to_string(byte));
    }
  }
}

void Bpe::index_tokens() {
  Scratch<uint64_t> slots(std::bit_ceil(size() + size() / 2 + 1), 0);
  Scratch<uint64_t> filter(size_t{1} << (kFilterBits - 6), 0);
  constexpr size_t kAhead = 16;
  uint64_t hashes[kAhead] = {};
  const size_t mask = slots.size() - 1;
  const auto hash = [&](size_t id) {
    hashes[id % kAhead] = hash_of(bytes(static_cast<TokenId>(id)));
    __builtin_prefetch(&slots[hashes[id % kAhead] & mask], 1);
  };
  for (size_t id = 0; id < std::min(kAhead, size()); ++id) hash(id);
  for (size_t id = 0; id < size(); ++id) {
    const uint64_t own = hashes[id % kAhead];
    if (id + kAhead < size()) hash(id + kAhead);
    if (bytes(static_cast<TokenId>(id)).empty()) continue;  // a gap in the ids
    size_t slot = own & mask;
    for (; slots[slot] != 0; slot = (slot + 1) & mask) {
      if (((slots[slot] ^ own) & kUpperHalf) != 0) continue;
      const auto other = static_cast<TokenId>(static_cast<uint32_t>(slots[slot]) - 1);
      has_equal_tokens_ |= bytes(other) == bytes(static_cast<TokenId>(id));
    }
    slots[slot] = (own & kUpperHalf) | (id + 1);
    const uint64_t bit = own >> (64 - kFilterBits);
    filter[bit >> 6] |= uint64_t{1} << (bit & 63);
  }
  by_bytes_ = std::move(slots);
  filter_ = std::move(filter);
}

uint64_t Bpe::hash_of(std::string_view piece) noexcept {
  return XXH3_64bits(piece.data(), piece.size());
}

std::optional<TokenId> Bpe::find(std::string_view wanted, uint64_t hash) const noexcept {
  const uint64_t bit = hash >> (64 - kFilterBits);
  if ((filter_.data()[bit >> 6] >> (bit & 63) & 1) == 0) return std::nullopt;
  for (size_t slot = hash & (by_bytes_.size() - 1); by_bytes_[slot] != 0;
       slot = (slot + 1) & (by_bytes_.size() - 1)) {
    if (((by_bytes_[slot] ^ hash) & kUpperHalf) != 0) continue;
    const auto id = static_cast<TokenId>(static_cast<uint32_t>(by_bytes_[slot]) - 1);
    if (bytes(id) == wanted) return id;
  }
  return std::nullopt;
}

// Every way to cut a token into two tokens is a pair that merges. The tokens that a token begins
// with, longest first, and those that it ends with, longest first, each point to the next one.
void Bpe::add_splits(bool parallel) {
  const auto text = [&](size_t id) { return bytes(static_cast<TokenId>(id)); };
  Ends prefixes, suffixes;
  both(
      parallel, [&] { prefixes = find_ends(size(), text); },
      [&] {
        Scratch<char> mirrored(arena_.size());
        std::reverse_copy(arena_.begin(), arena_.end(), mirrored.begin());
        const char* const end = mirrored.data() + mirrored.size();
        suffixes = find_ends(size(), [&](size_t id) {
          return std::string_view(end - offsets_[id + 1], offsets_[id + 1] - offsets_[id]);
        });
      });
  const Link* const prefix = prefixes.links.data();
  const Link* const suffix = suffixes.links.data();
  // In this order the ends of a token are those of its neighbours, and near; its beginnings are
  // not.
  const std::span<const Sorted> order = suffixes.order;
  constexpr size_t kAhead = 16;
  const auto find_splits = [&](std::span<const Sorted> tokens, Scratch<Merge>& found) {
    found.reserve(2 * tokens.size() + 16);
    struct Right {
      TokenId id;
      uint32_t size;
    };
    std::vector<Right> rights;
    for (size_t i = 0; i < tokens.size(); ++i) {
      if (i + 2 * kAhead < tokens.size()) {
        __builtin_prefetch(&prefix[tokens[i + 2 * kAhead].id]);
        const TokenId next = prefix[tokens[i + kAhead].id].shorter;
        __builtin_prefetch(&prefix[std::max(next, 0)]);
      }
      const size_t id = tokens[i].id;
      rights.clear();
      for (TokenId end = suffix[id].shorter; end >= 0;) {
        const Link& link = suffix[end];
        rights.push_back({end, link.size});
        end = link.shorter;
      }
      for (TokenId left = prefix[id].shorter; left >= 0 && !rights.empty();) {
        const Link& link = prefix[left];
        const uint32_t rest = prefix[id].size - link.size;
        while (!rights.empty() && rights.back().size < rest) rights.pop_back();
        if (!rights.empty() && rights.back().size == rest) {
          found.push_back({left, rights.back().id, static_cast<TokenId>(id)});
        }
        left = link.shorter;
      }
    }
  };
  const size_t half = order.size() / 2;
  Scratch<Merge> found[2];
  both(
      parallel, [&] { find_splits(order.first(half), found[0]); },
      [&] { find_splits(order.subspan(half), found[1]); });
  pairs_ = PairRanks(found[0].size() + found[1].size());
  for (const Scratch<Merge>& part : found) {
    for (size_t i = 0; i < part.size(); ++i) {
      if (i + kAhead < part.size()) pairs_.prefetch(part[i + kAhead].left, part[i + kAhead].right);
      pairs_.add(part[i].left, part[i].right, part[i].joined);
    }
  }
}

Bpe Bpe::from_ranks(std::span<const std::string> tokens) {
  constexpr size_t kMany = 1 << 14;
  const bool parallel = tokens.size() >= kMany;
  Bpe bpe(tokens);
  bpe.need_all_bytes();
  bpe.whole_pieces_ = true;
  bpe.add_splits(parallel);
  both(
      parallel, [&] { bpe.index_tokens(); },
      [&] {
        Scratch<int32_t> ranks(tokens.size());
        std::iota(ranks.begin(), ranks.end(), 0);
        bpe.find_whole_characters(ranks);
        bpe.find_ascii_pairs();
      });
  return bpe;
}

Bpe Bpe::from_merges(std::span<const std::string> tokens, std::span<const Merge> merges,
                     bool whole_pieces) {
  constexpr size_t kMaxMerges = PairRanks::kRankMask;
  if (merges.size() > kMaxMerges) {
    throw Error(Kind::Unsupported,
                fmt::format("the tokenizer has {} merges, of which at most {} are supported",
                            merges.size(), kMaxMerges));
  }
  Bpe bpe(tokens);
  bpe.index_tokens();
  bpe.whole_pieces_ = whole_pieces;
  bpe.pairs_ = PairRanks(merges.size());
  bpe.joined_.reserve(merges.size() + 1);
  Scratch<int32_t> first_rank(tokens.size(), PairRanks::kNone);
  for (const Merge& merge : merges) {
    const auto rank = static_cast<int32_t>(bpe.joined_.size());
    bpe.pairs_.add(merge.left, merge.right, rank);
    bpe.joined_.push_back(merge.joined);
    int32_t& first = first_rank[static_cast<size_t>(merge.joined)];
    if (first < 0) first = rank;
  }
  bpe.joined_.push_back(-1);  // never empty, even without merges
  bpe.find_whole_characters(first_rank);
  bpe.find_ascii_pairs();
  return bpe;
}

// A text of Chinese has three bytes a character, of which nearly every character is a token: to
// begin the merging with these tokens gives the same result with a third of the work, if
// 1. the character's bytes alone merge into its token;
// 2. no token has part of the character on one side of its edge and something on the other; where
//    the bytes on both sides of the edge are those of such a token, the whole token is compared;
// 3. every token that holds the whole character and more has a higher rank than any merge inside
//    the character has, so that the character is ready in time.
// Then nothing ever merges with part of it (2), it comes into being (1), and does so before any
// merge that it takes part in would be due (3); merges elsewhere do not see the difference.
//
// `first_rank`: of each token, the lowest rank of a merge that makes it; -1 where none does.
void Bpe::find_whole_characters(std::span<const int32_t> first_rank) {
  characters_ = Table<TokenId>(size_t{1} << 16, -1);
  TokenId* const characters = characters_.writable();
  Scratch<int32_t> ready(size_t{1} << 16, -1);  // the highest rank inside
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
    if (std::find(parts, parts + count, -1) != parts + count) continue;
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
    characters[point.value] = parts[0];
    ready[point.value] = highest;
  }
  crossing_list_ = Table<uint8_t>(size_t{1} << 16, 0);
  std::vector<std::vector<Crossing>> lists(1);
  const auto add_crossing = [&](TokenId id, size_t at) {
    const std::string_view token = bytes(id);
    uint8_t& list = crossing_list_.writable()[pair_of_bytes(token[at - 1], token[at])];
    if (list == 0 && lists.size() < kAnyCrossing) {
      list = static_cast<uint8_t>(lists.size());
      lists.emplace_back();
    }
    if (list == 0 || list == kAnyCrossing || lists[list].size() == kMaxCrossings) {
      list = kAnyCrossing;
      return;
    }
    lists[list].push_back({id, static_cast<uint32_t>(at)});
  };
  for (size_t id = 0; id < size(); ++id) {
    const std::string_view token = bytes(static_cast<TokenId>(id));
    if (std::all_of(token.begin(), token.end(), [](char byte) { return byte >= 0; })) continue;
    size_t i = 0;
    while (i < token.size() && is_continuation(token[i])) ++i;
    if (i > 0 && i < token.size()) add_crossing(static_cast<TokenId>(id), i);
    while (i < token.size()) {
      const size_t length = character_bytes(token[i]);
      if (i + length > token.size()) {
        if (i > 0) add_crossing(static_cast<TokenId>(id), i);
        break;
      }
      if ((length == 2 || length == 3) && length < token.size()) {
        const utf8::Point point = utf8::decode(token.substr(i));
        if (point.valid && first_rank[id] >= 0 && first_rank[id] <= ready[point.value]) {
          characters[point.value] = -1;
        }
      }
      i += length;
    }
  }
  Table<Crossing>::Vector all;
  Table<uint32_t>::Vector begins = {0};
  for (const std::vector<Crossing>& list : lists) {
    all.insert(all.end(), list.begin(), list.end());
    begins.push_back(static_cast<uint32_t>(all.size()));
  }
  crossings_ = std::move(all);
  crossing_begins_ = std::move(begins);
}

bool Bpe::crossed_by(uint8_t list, std::string_view piece, size_t at) const noexcept {
  if (list == kAnyCrossing) return true;
  for (size_t i = crossing_begins_[list]; i < crossing_begins_[list + 1u]; ++i) {
    const Crossing& crossing = crossings_[i];
    const std::string_view token = bytes(crossing.id);
    if (crossing.before <= at && piece.substr(at - crossing.before).starts_with(token)) return true;
  }
  return false;
}

void Bpe::find_ascii_pairs() {
  ascii_pairs_ = Table<int32_t>(size_t{1} << 14, PairRanks::kNone);
  for (size_t left = 0; left < 128; ++left) {
    for (size_t right = 0; right < 128; ++right) {
      if (byte_ids_[left] < 0 || byte_ids_[right] < 0) continue;
      ascii_pairs_.writable()[left << 7 | right] = pairs_.find(byte_ids_[left], byte_ids_[right]);
    }
  }
}

}  // namespace quern
