#include "text/pipeline/added_tokens.h"

#include <algorithm>
#include <cstring>

#include "text/pipeline/characters.h"

namespace quern {

AddedTokens::AddedTokens(const std::vector<AddedToken>& tokens, std::vector<std::string> contents,
                         bool longest_first)
    : tokens_(&tokens), contents_(std::move(contents)), longest_first_(longest_first) {
  std::vector<std::pair<std::string_view, int32_t>> strings;
  for (size_t i = 0; i < contents_.size(); ++i) {
    if (!contents_[i].empty()) strings.emplace_back(contents_[i], static_cast<int32_t>(i));
  }
  trie_ = ByteTrie(std::move(strings));
  for (int byte = 0; byte < 256; ++byte) {
    if (trie_.begins(static_cast<unsigned char>(byte))) first_bytes_ += static_cast<char>(byte);
  }
}

// The leftmost, of these the longest.
void AddedTokens::find_leftmost(std::string_view text, std::vector<Match>& matches) const {
  const auto next = [&](size_t at) {
    if (first_bytes_.size() == 1) return text.find(first_bytes_[0], at);
    while (at < text.size() && !trie_.begins(static_cast<unsigned char>(text[at]))) ++at;
    return at < text.size() ? at : text.npos;
  };
  for (size_t at = next(0); at != text.npos; at = next(at)) {
    Match best = {at, at, -1};
    trie_.each_prefix(text, at, [&](size_t length, int32_t token) {
      best.end = at + length;
      best.token = token;
    });
    if (best.token >= 0) {
      matches.push_back(best);
      at = best.end;
    } else {
      ++at;
    }
  }
}

// The longest names first, each over the whole text.
void AddedTokens::find_longest(std::string_view text, std::vector<Match>& matches) const {
  std::vector<Match> all;
  for (size_t at = 0; at < text.size(); ++at) {
    trie_.each_prefix(text, at, [&](size_t length, int32_t token) {
      all.push_back({at, at + length, token});
    });
  }
  std::stable_sort(all.begin(), all.end(), [](const Match& a, const Match& b) {
    return a.end - a.begin != b.end - b.begin ? a.end - a.begin > b.end - b.begin
                                              : a.begin < b.begin;
  });
  std::vector<bool> taken(text.size());
  for (const Match& match : all) {
    const auto begin = taken.begin() + static_cast<ptrdiff_t>(match.begin);
    const auto end = taken.begin() + static_cast<ptrdiff_t>(match.end);
    if (std::find(begin, end, true) != end) continue;
    std::fill(begin, end, true);
    matches.push_back(match);
  }
  std::sort(matches.begin(), matches.end(),
            [](const Match& a, const Match& b) { return a.begin < b.begin; });
}

void AddedTokens::cut(std::string_view text, const std::function<bool(const AddedToken&)>& allowed,
                      std::vector<Part>& parts) const {
  std::vector<Match> matches;
  if (!empty()) longest_first_ ? find_longest(text, matches) : find_leftmost(text, matches);
  size_t kept = 0;
  for (const Match& match : matches) {
    const AddedToken& token = (*tokens_)[static_cast<size_t>(match.token)];
    if (!allowed(token)) continue;
    size_t begin = match.begin, end = match.end;
    if (token.single_word) {
      size_t ignored = 0;
      const bool before =
          begin > 0 && characters::is_word(characters::before(text, begin, ignored));
      const bool behind =
          end < text.size() && characters::is_word(utf8::decode(text.substr(end)).value);
      if (before || behind) continue;
    }
    if (token.lstrip) {
      size_t at = begin;
      while (begin > kept && characters::is_space(characters::before(text, begin, at)) &&
             at >= kept) {
        begin = at;
      }
    }
    if (token.rstrip) {
      while (end < text.size()) {
        const utf8::Point point = utf8::decode(text.substr(end));
        if (!characters::is_space(point.value)) break;
        end += point.length;
      }
    }
    begin = std::max(begin, kept);
    if (kept < begin) parts.push_back({nullptr, kept, begin});
    parts.push_back({&token, begin, std::max(begin, end)});
    kept = std::max(begin, end);
  }
  if (kept < text.size()) parts.push_back({nullptr, kept, text.size()});
}

}  // namespace quern
