#include "text/pipeline/symbol_bpe.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <queue>

#include "core/error.h"
#include "text/pipeline/characters.h"

namespace quern {
namespace {

constexpr std::string_view kMark = "\u2581";
constexpr size_t kFew = 48;
constexpr char32_t kTablePoints = 0x30000;

}  // namespace

SymbolBpe::SymbolBpe(const TokenModel& model, const std::string& source)
    : model_(model), source_(source) {
  ids_.reserve(model.tokens.size());
  for (size_t id = 0; id < model.tokens.size(); ++id) {
    if (model.is_made(id)) ids_.emplace(model.tokens[id], static_cast<TokenId>(id));
  }
  bytes_.fill(-1);
  for (size_t id = 0; id < model.tokens.size(); ++id) {
    const int byte = model.known[id] ? byte_of_name(model.tokens[id]) : -1;
    if (byte >= 0 && bytes_[size_t(byte)] < 0) bytes_[size_t(byte)] = static_cast<TokenId>(id);
  }
  characters_.assign(kTablePoints, -1);
  const auto enter = [&](std::string_view text, TokenId id) {
    const utf8::Point point = utf8::decode(text);
    if (point.valid && point.length == text.size() && point.value < kTablePoints) {
      characters_[point.value] = id;
    }
  };
  for (const auto& [text, id] : ids_) {
    if (!text.empty()) enter(text, id);
  }
  if (model.merge_by_score) {
    add_splits();
    for (size_t i = 0; i < parts_.size(); ++i) {
      enter(parts_[i], static_cast<TokenId>(model.tokens.size() + i));
    }
  } else {
    add_merges();
  }
}

void SymbolBpe::add_merges() {
  constexpr size_t kMaxMerges = PairRanks::kRankMask;
  if (model_.merges.size() >= kMaxMerges) {
    throw Error(Kind::Unsupported, fmt::format("{}: has {} merges, of which fewer than {} are "
                                               "supported",
                                               source_, model_.merges.size(), kMaxMerges));
  }
  pairs_ = PairRanks(model_.merges.size());
  cuts_at_marks_ = model_.prefix.empty() && model_.suffix.empty() && !model_.ignore_merges;
  joined_.resize(model_.merges.size());
  for (size_t i = model_.merges.size();
       i-- > 0;) {  // of a pair that is there twice the last counts
    const auto [left, right, both] = model_.merges[i];
    pairs_.add(left, right, static_cast<int32_t>(i));
    joined_[i] = both;
    const std::string_view before = model_.tokens[static_cast<size_t>(left)];
    if (model_.tokens[static_cast<size_t>(right)].starts_with(kMark) && !before.ends_with(kMark)) {
      cuts_at_marks_ = false;
    }
  }
  // Where the mark is unknown itself it may be fused with what is before it.
  if (!ids_.contains(kMark)) cuts_at_marks_ = false;
}

void SymbolBpe::add_splits() {
  // Parts that are characters and no tokens need ids of their own.
  std::unordered_map<std::string, TokenId> parts;
  const auto count = static_cast<TokenId>(model_.tokens.size());
  for (size_t id = 0; id < model_.tokens.size(); ++id) {
    if (!model_.is_made(id)) continue;
    const std::string_view token = model_.tokens[id];
    characters::each(token, [&](char32_t, size_t begin, size_t end) {
      const std::string_view character = token.substr(begin, end - begin);
      if (character.size() == token.size() || ids_.contains(character)) return;
      const auto next = static_cast<TokenId>(count + static_cast<TokenId>(parts.size()));
      if (parts.try_emplace(std::string(character), next).second) {
        parts_.emplace_back(character);
      }
    });
  }
  if (model_.tokens.size() + parts_.size() >= size_t{1} << PairRanks::kIdBits) {
    throw Error(Kind::Unsupported, fmt::format("{}: has {} tokens, which are too many", source_,
                                               model_.tokens.size()));
  }
  const auto find = [&](std::string_view text) -> TokenId {
    if (const auto it = ids_.find(text); it != ids_.end()) return it->second;
    const auto it = parts.find(std::string(text));
    return it == parts.end() ? -1 : it->second;
  };
  std::vector<size_t> order;
  for (size_t id = 0; id < model_.tokens.size(); ++id) {
    if (model_.is_made(id) && ids_.at(model_.tokens[id]) == static_cast<TokenId>(id)) {
      order.push_back(id);
    }
  }
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return model_.scores[a] > model_.scores[b]; });
  pairs_ = PairRanks(2 * order.size());
  cuts_at_marks_ = true;
  int32_t priority = -1;
  double last = std::numeric_limits<double>::infinity();
  for (const size_t id : order) {
    if (model_.scores[id] != last || priority < 0) ++priority;
    last = model_.scores[id];
    const std::string_view token = model_.tokens[id];
    const auto number = static_cast<int32_t>(joined_.size());
    bool any = false;
    characters::each(token, [&](char32_t, size_t begin, size_t) {
      if (begin == 0) return;
      const TokenId left = find(token.substr(0, begin)), right = find(token.substr(begin));
      if (left < 0 || right < 0) return;
      pairs_.add(left, right, number);
      if (token.substr(begin).starts_with(kMark) && !token.substr(0, begin).ends_with(kMark)) {
        cuts_at_marks_ = false;
      }
      any = true;
    });
    if (!any) continue;
    joined_.push_back(static_cast<TokenId>(id));
    priority_.push_back(priority);
  }
}

TokenId SymbolBpe::symbol(std::string_view text, char32_t point) const {
  if (point < kTablePoints) return characters_[point];
  if (const auto it = ids_.find(text); it != ids_.end()) return it->second;
  const auto part = std::find(parts_.begin(), parts_.end(), text);
  return part == parts_.end() ? -1
                              : static_cast<TokenId>(model_.tokens.size() +
                                                     static_cast<size_t>(part - parts_.begin()));
}

bool SymbolBpe::bytes_of(std::string_view text, std::vector<TokenId>& out) const {
  for (const char c : text) {
    if (bytes_[static_cast<unsigned char>(c)] < 0) return false;
  }
  for (const char c : text) out.push_back(bytes_[static_cast<unsigned char>(c)]);
  return true;
}

// As Hugging Face does it, including where unknown tokens go: a pending one is put behind the bytes
// that follow it.
void SymbolBpe::symbols_of(std::string_view piece, std::vector<TokenId>& out) const {
  const bool affixes = !model_.prefix.empty() || !model_.suffix.empty();
  bool pending = false;
  std::string with;
  const auto flush = [&] {
    if (pending) out.push_back(static_cast<TokenId>(model_.unknown));
    pending = false;
  };
  characters::each(piece, [&](char32_t point, size_t begin, size_t end) {
    std::string_view text = piece.substr(begin, end - begin);
    TokenId id = -1;
    if (affixes) {
      with.clear();
      if (begin > 0) with += model_.prefix;
      with += text;
      if (end == piece.size()) with += model_.suffix;
      text = with;
      if (const auto it = ids_.find(text); it != ids_.end()) id = it->second;
    } else {
      id = symbol(text, point);
    }
    if (id >= 0) {
      flush();
      out.push_back(id);
      return;
    }
    if (model_.byte_fallback && bytes_of(text, out)) return;
    if (model_.unknown < 0) return;
    if (pending && !model_.fuse_unknown) flush();
    pending = true;
  });
  flush();
}

void SymbolBpe::merge_few(std::vector<TokenId>& ids) const {
  int32_t ranks[kFew];
  size_t count = ids.size();
  constexpr int32_t kNone = std::numeric_limits<int32_t>::max();
  const auto priority = [&](int32_t number) {
    return number < 0 ? kNone : priority_.empty() ? number : priority_[static_cast<size_t>(number)];
  };
  for (size_t i = 0; i + 1 < count; ++i) ranks[i] = priority(pairs_.find(ids[i], ids[i + 1]));
  while (count > 1) {
    const size_t best = static_cast<size_t>(std::min_element(ranks, ranks + count - 1) - ranks);
    if (ranks[best] == kNone) break;
    ids[best] = joined_[static_cast<size_t>(pairs_.find(ids[best], ids[best + 1]))];
    for (size_t i = best + 1; i + 1 < count; ++i) {
      ids[i] = ids[i + 1];
      ranks[i] = i + 2 < count ? ranks[i + 1] : kNone;
    }
    --count;
    if (best > 0) ranks[best - 1] = priority(pairs_.find(ids[best - 1], ids[best]));
    if (best + 1 < count) ranks[best] = priority(pairs_.find(ids[best], ids[best + 1]));
  }
  ids.resize(count);
}

// A list of symbols in arrays, and a heap of pairs that may merge; one that a neighbour's merge has
// made stale is known by its ids.
void SymbolBpe::merge_many(std::vector<TokenId>& ids) const {
  struct Candidate {
    int32_t priority;
    uint32_t at;
    TokenId left, right;
    int32_t number;
    bool operator<(const Candidate& other) const noexcept {
      return priority != other.priority ? priority > other.priority : at > other.at;
    }
  };
  const auto count = static_cast<uint32_t>(ids.size());
  constexpr TokenId kGone = -1;
  std::vector<uint32_t> next(count), previous(count);
  std::vector<Candidate> heap;
  const auto candidate = [&](uint32_t at) {
    if (next[at] >= count) return false;
    const int32_t number = pairs_.find(ids[at], ids[next[at]]);
    if (number < 0) return false;
    heap.push_back({priority_.empty() ? number : priority_[static_cast<size_t>(number)], at,
                    ids[at], ids[next[at]], number});
    return true;
  };
  for (uint32_t i = 0; i < count; ++i) {
    next[i] = i + 1;
    previous[i] = i - 1;  // wraps for the first, which is checked for
  }
  for (uint32_t i = 0; i < count; ++i) candidate(i);
  std::make_heap(heap.begin(), heap.end());
  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end());
    const Candidate top = heap.back();
    heap.pop_back();
    if (ids[top.at] != top.left || next[top.at] >= count || ids[next[top.at]] != top.right) {
      continue;
    }
    const uint32_t gone = next[top.at];
    ids[top.at] = joined_[static_cast<size_t>(top.number)];
    ids[gone] = kGone;
    next[top.at] = next[gone];
    if (next[gone] < count) previous[next[gone]] = top.at;
    if (candidate(top.at)) std::push_heap(heap.begin(), heap.end());
    if (top.at != 0 && candidate(previous[top.at])) std::push_heap(heap.begin(), heap.end());
  }
  size_t kept = 0;
  for (uint32_t i = 0; i < count; i = next[i]) ids[kept++] = ids[i];
  ids.resize(kept);
}

void SymbolBpe::merge(std::vector<TokenId>& ids) const {
  if (ids.size() < 2) return;
  ids.size() <= kFew ? merge_few(ids) : merge_many(ids);
}

void SymbolBpe::encode_word(std::string_view piece, std::vector<TokenId>& out) const {
  thread_local std::vector<TokenId> ids;
  ids.clear();
  symbols_of(piece, ids);
  merge(ids);
  const auto tokens = static_cast<TokenId>(model_.tokens.size());
  for (const TokenId id : ids) {
    if (id < tokens) {
      out.push_back(id);
    } else if (!bytes_of(parts_[static_cast<size_t>(id - tokens)], out) && model_.unknown >= 0) {
      out.push_back(static_cast<TokenId>(model_.unknown));
    }
  }
}

void SymbolBpe::encode(std::string_view piece, std::vector<TokenId>& out) const {
  if (model_.ignore_merges) {
    if (const auto it = ids_.find(piece); it != ids_.end()) {
      out.push_back(it->second);
      return;
    }
  }
  if (!cuts_at_marks_) return encode_word(piece, out);
  // A word at a time, each from the first mark of a run of them.
  size_t begin = 0;
  while (begin < piece.size()) {
    size_t at = begin;
    while (piece.substr(at).starts_with(kMark)) at += kMark.size();
    const size_t end = std::min(piece.find(kMark, at), piece.size());
    encode_word(piece.substr(begin, end - begin), out);
    begin = end;
  }
}

void merges_of_scores(TokenModel& model) {
  std::unordered_map<std::string_view, int32_t> ids;
  for (size_t id = 0; id < model.tokens.size(); ++id) {
    if (model.known[id]) ids.emplace(model.tokens[id], static_cast<int32_t>(id));
  }
  struct Merge {
    double score;
    size_t left_length, right_length;
    std::array<int32_t, 3> ids;
  };
  std::vector<Merge> merges;
  for (size_t id = 0; id < model.tokens.size(); ++id) {
    if (!model.known[id]) continue;
    const std::string_view token = model.tokens[id];
    const size_t first = merges.size();
    characters::each(token, [&](char32_t, size_t begin, size_t) {
      if (begin == 0) return;
      const auto left = ids.find(token.substr(0, begin)), right = ids.find(token.substr(begin));
      if (left == ids.end() || right == ids.end()) return;
      merges.push_back({model.scores[id],
                        begin,
                        token.size() - begin,
                        {left->second, right->second, static_cast<int32_t>(id)}});
    });
    std::stable_sort(merges.begin() + static_cast<ptrdiff_t>(first), merges.end(),
                     [](const Merge& a, const Merge& b) {
                       return std::pair(a.ids[0], a.ids[1]) < std::pair(b.ids[0], b.ids[1]);
                     });
  }
  std::stable_sort(merges.begin(), merges.end(), [](const Merge& a, const Merge& b) {
    return std::tuple(a.score, a.left_length, a.right_length) >
           std::tuple(b.score, b.left_length, b.right_length);
  });
  model.merges.clear();
  for (const Merge& merge : merges) model.merges.push_back(merge.ids);
}

}  // namespace quern
