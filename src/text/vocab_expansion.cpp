#include "text/vocab_expansion.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <map>
#include <unordered_map>

#include "core/error.h"
#include "core/utf8.h"
#include "text/bpe.h"
#include "text/splitter.h"
#include "text/unicode.h"

namespace quern {
namespace {

struct Word {
  std::string text;
  int64_t frequency;
  std::vector<std::string> parts;  // tokens' bytes
};

std::string_view stripped(std::string_view text) {
  const auto white_at = [&](size_t at) {
    const unicode::Class kind = unicode::class_of(utf8::decode(text.substr(at)).value);
    return kind == unicode::Class::Space || kind == unicode::Class::LineBreak;
  };
  while (!text.empty() && white_at(0)) text.remove_prefix(utf8::decode(text).length);
  while (!text.empty()) {
    size_t last = text.size() - 1;
    while (last > 0 && (static_cast<unsigned char>(text[last]) & 0xC0) == 0x80) --last;
    if (!white_at(last)) break;
    text.remove_suffix(text.size() - last);
  }
  return text;
}

int64_t frequency_of(std::string_view text) {
  text = stripped(text);
  int64_t value = 0;
  const auto [end, failure] = std::from_chars(text.data(), text.data() + text.size(), value);
  const bool whole = failure == std::errc{} && end == text.data() + text.size();
  return whole && value > 0 && value < (int64_t{1} << 40) ? value : 1;
}

// The words of the list, each once, in order; those that are cut in two are left out.
std::vector<Word> read_words(std::string_view list, std::vector<std::string>& warnings) {
  std::vector<Word> words;
  std::unordered_map<std::string, size_t> places;
  while (!list.empty()) {
    const size_t end = std::min(list.find('\n'), list.size());
    const std::string_view line = stripped(list.substr(0, end));
    list.remove_prefix(std::min(end + 1, list.size()));
    if (line.empty()) continue;
    const size_t tab = line.find('\t');
    std::string storage;
    const std::string word(unicode::to_nfc(stripped(line.substr(0, tab)), storage));
    const int64_t frequency = tab == line.npos ? 1 : frequency_of(line.substr(tab + 1));
    if (word.empty()) continue;
    if (piece_end(word, 0) != word.size()) {
      std::string pieces;
      for (size_t begin = 0; begin < word.size();) {
        const size_t piece = piece_end(word, begin);
        pieces += fmt::format("{}'{}'", begin == 0 ? "" : ", ",
                              printable(word.substr(begin, piece - begin), 80));
        begin = piece;
      }
      warnings.push_back(fmt::format("'{}' is cut into {} before merging and cannot be one token",
                                     printable(word, 80), pieces));
      continue;
    }
    const auto [place, is_new] = places.emplace(word, words.size());
    if (is_new) {
      words.push_back({word, frequency, {}});
    } else {
      words[place->second].frequency += frequency;
      warnings.push_back(fmt::format("'{}' is repeated: the frequencies add up", word));
    }
  }
  return words;
}

size_t characters(std::string_view text) {
  size_t count = 0;
  for (; !text.empty(); ++count) text.remove_prefix(utf8::decode(text).length);
  return count;
}

using Pair = std::pair<std::string, std::string>;

}  // namespace

VocabExpansion expand_vocabulary(const RankedTokens& ranks, std::string_view list,
                                 int64_t first_id) {
  if (const size_t at = utf8::first_invalid(list); at != list.npos) {
    throw_bad_input(fmt::format("the list of words is not UTF-8 at byte {}", at));
  }
  const Bpe bpe = Bpe::from_ranks(ranks.tokens);
  VocabExpansion out;
  out.tokens.first_rank = first_id;
  std::vector<Word> words;
  for (Word& word : read_words(list, out.warnings)) {
    if (bpe.find(word.text)) {
      out.warnings.push_back(fmt::format("'{}' is a token already", printable(word.text, 80)));
      continue;
    }
    std::vector<TokenId> ids;
    bpe.encode_piece(word.text, ids);
    for (const TokenId id : ids) word.parts.emplace_back(bpe.bytes(id));
    words.push_back(std::move(word));
  }
  out.words = words.size();
  while (true) {
    std::map<Pair, int64_t> frequencies;
    for (const Word& word : words) {
      for (size_t i = 0; i + 1 < word.parts.size(); ++i) {
        frequencies[{word.parts[i], word.parts[i + 1]}] += word.frequency;
      }
    }
    if (frequencies.empty()) break;
    const auto better = [](const auto& a, const auto& b) {
      if (a.second != b.second) return a.second > b.second;
      const size_t of_a = characters(a.first.first + a.first.second);
      const size_t of_b = characters(b.first.first + b.first.second);
      return of_a != of_b ? of_a < of_b : a.first < b.first;
    };
    const Pair best = std::min_element(frequencies.begin(), frequencies.end(), better)->first;
    const std::string joined = best.first + best.second;
    const auto& added = out.tokens.tokens;
    if (!bpe.find(joined) && std::find(added.begin(), added.end(), joined) == added.end()) {
      out.tokens.tokens.push_back(joined);
    }
    for (Word& word : words) {
      std::vector<std::string> parts;
      for (size_t i = 0; i < word.parts.size(); ++i) {
        const bool here = i + 1 < word.parts.size() && word.parts[i] == best.first &&
                          word.parts[i + 1] == best.second;
        parts.push_back(here ? joined : word.parts[i]);
        if (here) ++i;
      }
      word.parts = std::move(parts);
    }
  }

  // Merges meet in the order of ids, not of the list: a word may end up out of their reach.
  std::vector<std::string> all = ranks.tokens;
  all.resize(static_cast<size_t>(first_id));
  all.insert(all.end(), out.tokens.tokens.begin(), out.tokens.tokens.end());
  const Bpe expanded = Bpe::from_ranks(all);
  for (const Word& word : words) {
    std::vector<TokenId> ids;
    expanded.encode_piece(word.text, ids);
    if (ids.size() == 1) continue;
    out.warnings.push_back(
        fmt::format("'{}' is still encoded as {} tokens", printable(word.text, 80), ids.size()));
  }
  return out;
}

}  // namespace quern
