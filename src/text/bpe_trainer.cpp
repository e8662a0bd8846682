#include "text/bpe_trainer.h"

#include <algorithm>
#include <bit>
#include <deque>
#include <queue>
#include <span>

#include "core/huge_pages.h"
#include "text/pieces.h"
#include "text/unicode.h"

namespace quern {
namespace {

using Pair = uint64_t;  // left id, right id

constexpr Pair pair_of(TokenId left, TokenId right) noexcept {
  return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
}
constexpr TokenId left_of(Pair pair) noexcept { return static_cast<TokenId>(pair >> 32); }
constexpr TokenId right_of(Pair pair) noexcept { return static_cast<TokenId>(pair & 0xFFFFFFFF); }

// How often a pair stands in the text, and the words where it does or did.
struct Place {
  int64_t count = 0;
  std::vector<uint32_t> words;
};

// The places of pairs, numbered as they are met. Open addressing: pair and number side by side.
class Places {
 public:
  Places() { resize(size_t{1} << 16); }

  Place& operator[](Pair pair) {
    size_t slot = index_of(pair);
    for (; slots_[slot].pair != kEmpty; slot = (slot + 1) & (slots_.size() - 1)) {
      if (slots_[slot].pair == pair) return places_[slots_[slot].number];
    }
    slots_[slot] = {pair, static_cast<uint32_t>(places_.size())};
    pairs_.push_back(pair);
    places_.emplace_back();
    if (2 * places_.size() > slots_.size()) resize(2 * slots_.size());
    return places_.back();
  }
  size_t size() const noexcept { return places_.size(); }
  Pair pair(size_t number) const noexcept { return pairs_[number]; }
  const Place& at(size_t number) const noexcept { return places_[number]; }

 private:
  static constexpr Pair kEmpty = ~Pair{0};  // ids are not negative
  struct Slot {
    Pair pair = kEmpty;
    uint32_t number = 0;
  };

  size_t index_of(Pair pair) const noexcept { return pair * 0x9E3779B97F4A7C15u >> shift_; }
  void resize(size_t size) {
    slots_.assign(size, Slot{});
    shift_ = 64 - std::countr_zero(size);
    for (size_t number = 0; number < pairs_.size(); ++number) {
      size_t slot = index_of(pairs_[number]);
      while (slots_[slot].pair != kEmpty) slot = (slot + 1) & (size - 1);
      slots_[slot] = {pairs_[number], static_cast<uint32_t>(number)};
    }
  }

  std::vector<Slot, HugePages<Slot>> slots_;
  std::vector<Pair> pairs_;
  std::deque<Place> places_;  // stay where they are
  int shift_ = 0;
};

// The order of merging. Counts change while an entry waits: one that is out of date goes back in
// when it comes up.
struct Candidate {
  int64_t count;
  Pair pair;
  bool operator<(const Candidate& other) const noexcept {
    return count != other.count ? count < other.count : pair > other.pair;
  }
};

// The words as tokens, one after the other; a word only ever gets shorter.
class Words {
 public:
  void add(std::string_view bytes, const TokenId* byte_ids, int64_t count) {
    words_.push_back({symbols_.size(), static_cast<uint32_t>(bytes.size()), count});
    for (const char byte : bytes) symbols_.push_back(byte_ids[static_cast<unsigned char>(byte)]);
  }
  uint32_t size() const noexcept { return static_cast<uint32_t>(words_.size()); }
  int64_t count(uint32_t word) const noexcept { return words_[word].count; }
  std::span<TokenId> tokens(uint32_t word) noexcept {
    return std::span(symbols_).subspan(words_[word].begin, words_[word].length);
  }
  // Fetches what is going to be read of a word: first where its tokens are, then these.
  void prefetch(uint32_t word) const noexcept { __builtin_prefetch(&words_[word]); }
  void prefetch_tokens(uint32_t word) const noexcept {
    __builtin_prefetch(&symbols_[words_[word].begin]);
  }
  void shorten(uint32_t word, size_t length) noexcept {
    words_[word].length = static_cast<uint32_t>(length);
  }

 private:
  struct Word {
    size_t begin;
    uint32_t length;
    int64_t count;
  };
  std::vector<Word, HugePages<Word>> words_;
  std::vector<TokenId, HugePages<TokenId>> symbols_;
};

// Joins every `pair` of a word, left to right, and reports how the counts of its pairs change.
template <class Change>
void join_in_word(Words& words, uint32_t word, Pair pair, TokenId joined, Change&& change) {
  const std::span<TokenId> tokens = words.tokens(word);
  const TokenId left = left_of(pair), right = right_of(pair);
  const int64_t count = words.count(word);
  size_t out = 0;
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (tokens[i] != left || i + 1 == tokens.size() || tokens[i + 1] != right) {
      tokens[out++] = tokens[i];
      continue;
    }
    if (out > 0) {
      change(pair_of(tokens[out - 1], left), -count);
      change(pair_of(tokens[out - 1], joined), count);
    }
    ++i;
    if (i + 1 < tokens.size()) {
      change(pair_of(right, tokens[i + 1]), -count);
      change(pair_of(joined, tokens[i + 1]), count);
    }
    tokens[out++] = joined;
  }
  words.shorten(word, out);
}

std::vector<std::string> byte_tokens() {
  std::vector<std::string> out;
  const auto printable = [](int b) {
    return (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
  };
  for (const bool first : {true, false}) {
    for (int b = 0; b < 256; ++b) {
      if (printable(b) == first) out.emplace_back(1, static_cast<char>(b));
    }
  }
  return out;
}

}  // namespace

void BpeTrainer::add(std::string_view text) {
  std::string storage;
  for_each_piece(unicode::to_nfc(text, storage), [&](std::string_view word) { counts_.add(word); });
}

TrainedBpe BpeTrainer::train(const BpeTrainerOptions& options,
                             const std::function<void(int64_t)>& progress) const {
  TrainedBpe out;
  out.tokens = byte_tokens();
  TokenId byte_ids[256];
  std::unordered_map<std::string, TokenId> by_bytes;
  for (size_t id = 0; id < out.tokens.size(); ++id) {
    byte_ids[static_cast<unsigned char>(out.tokens[id][0])] = static_cast<TokenId>(id);
    by_bytes.emplace(out.tokens[id], static_cast<TokenId>(id));
  }
  Words words;
  for (size_t i = 0; i < counts_.size(); ++i)
    words.add(counts_.word(i), byte_ids, counts_.times(i));

  Places places;
  for (uint32_t word = 0; word < words.size(); ++word) {
    const std::span<const TokenId> tokens = words.tokens(word);
    for (size_t i = 0; i + 1 < tokens.size(); ++i) {
      Place& place = places[pair_of(tokens[i], tokens[i + 1])];
      place.count += words.count(word);
      if (place.words.empty() || place.words.back() != word) place.words.push_back(word);
    }
  }
  std::vector<Candidate> candidates;
  for (size_t i = 0; i < places.size(); ++i) {
    candidates.push_back({places.at(i).count, places.pair(i)});
  }
  std::priority_queue<Candidate> queue(std::less<Candidate>(), std::move(candidates));

  std::vector<Pair> grown;  // pairs whose count rose with this merge
  while (static_cast<int64_t>(out.tokens.size()) < options.vocab && !queue.empty()) {
    const Candidate top = queue.top();
    queue.pop();
    Place& place = places[top.pair];
    if (place.count != top.count) {
      if (place.count > 0) queue.push({place.count, top.pair});
      continue;
    }
    if (top.count < std::max<int64_t>(1, options.min_frequency)) break;
    const std::string bytes = out.tokens[static_cast<size_t>(left_of(top.pair))] +
                              out.tokens[static_cast<size_t>(right_of(top.pair))];
    const auto [known, is_new] = by_bytes.emplace(bytes, static_cast<TokenId>(out.tokens.size()));
    const TokenId joined = known->second;
    if (is_new) out.tokens.push_back(bytes);
    out.merges.push_back({left_of(top.pair), right_of(top.pair), joined});

    const std::vector<uint32_t> where = std::move(place.words);
    place.words = {};
    grown.clear();
    for (size_t i = 0; i < where.size(); ++i) {
      const uint32_t word = where[i];
      if (i + 8 < where.size()) words.prefetch(where[i + 8]);
      if (i + 4 < where.size()) words.prefetch_tokens(where[i + 4]);
      join_in_word(words, word, top.pair, joined, [&](Pair pair, int64_t change) {
        Place& changed = places[pair];
        changed.count += change;
        if (change < 0) return;
        if (changed.words.empty() || changed.words.back() != word) {
          changed.words.push_back(word);
        }
        if (grown.empty() || grown.back() != pair) grown.push_back(pair);
      });
    }
    places[top.pair].count = 0;
    std::sort(grown.begin(), grown.end());
    grown.erase(std::unique(grown.begin(), grown.end()), grown.end());
    for (const Pair pair : grown) {
      if (const int64_t count = places[pair].count; count > 0) queue.push({count, pair});
    }
    if (progress && out.tokens.size() % 256 == 0) {
      progress(static_cast<int64_t>(out.tokens.size()));
    }
  }
  return out;
}

}  // namespace quern
