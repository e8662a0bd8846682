#include "evaluate/metrics/wratio.h"

#include <utf8proc.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "evaluate/metrics/common_subsequence.h"
#include "evaluate/python_text.h"

namespace quern {
namespace {

using Text = std::u32string_view;
using Words = std::vector<Text>;

// Likeness of two texts of `total` characters together between which `distance` characters have to
// be deleted or inserted.
double likeness(size_t distance, size_t total) {
  if (total == 0) return 100;
  return 100.0 - 100.0 * static_cast<double>(distance) / static_cast<double>(total);
}

double ratio_of(size_t common, size_t total) {
  // The order of these operations is rapidfuzz's: ties between options are decided by last bits.
  if (total == 0) return 100;
  const double distance = static_cast<double>(total - 2 * common) / static_cast<double>(total);
  return (1.0 - distance) * 100;
}

double ratio(Text a, Text b) {
  return ratio_of(CommonSubsequence<char32_t>(a).length(b), a.size() + b.size());
}

// The best ratio of `needle` with any stretch of `text` of its length, or shorter at the ends.
double best_stretch(Text needle, Text text) {
  CommonSubsequence<char32_t> prepared(needle);
  double best = 0;
  const auto consider = [&](Text stretch) {
    // A stretch this short cannot do better.
    const double bound = ratio_of(stretch.size(), needle.size() + stretch.size());
    if (bound <= best) return;
    best = std::max(best, ratio_of(prepared.length(stretch), needle.size() + stretch.size()));
  };
  for (size_t i = 0; i + needle.size() <= text.size() && best < 100; ++i) {
    consider(text.substr(i, needle.size()));
  }
  for (size_t length = needle.size() - 1; length > 0 && best < 100; --length) {
    consider(text.substr(0, length));
    consider(text.substr(text.size() - length));
  }
  return best;
}

double partial_ratio(Text a, Text b) {
  if (a.size() > b.size()) std::swap(a, b);
  if (a.empty() || b.empty()) return a.size() == b.size() ? 100 : 0;
  const double best = best_stretch(a, b);
  return best < 100 && a.size() == b.size() ? std::max(best, best_stretch(b, a)) : best;
}

Words sorted_words(Text text) {
  Words words;
  size_t begin = 0;
  for (size_t i = 0; i <= text.size(); ++i) {
    if (i < text.size() && !python::is_space(text[i])) continue;
    if (i > begin) words.push_back(text.substr(begin, i - begin));
    begin = i + 1;
  }
  std::sort(words.begin(), words.end());
  return words;
}

std::u32string join(const Words& words) {
  std::u32string out;
  for (const Text word : words) {
    if (!out.empty()) out += U' ';
    out += word;
  }
  return out;
}

// The words of two texts as sets: shared, and of one side only.
struct WordSets {
  WordSets(Words a, Words b) {
    a.erase(std::unique(a.begin(), a.end()), a.end());
    b.erase(std::unique(b.begin(), b.end()), b.end());
    std::set_intersection(a.begin(), a.end(), b.begin(), b.end(), std::back_inserter(shared));
    std::set_difference(a.begin(), a.end(), b.begin(), b.end(), std::back_inserter(only_a));
    std::set_difference(b.begin(), b.end(), a.begin(), a.end(), std::back_inserter(only_b));
  }
  Words shared, only_a, only_b;
};

// The better of the ratio of the sorted words and that of the sets of words.
double token_ratio(Text a, Text b) {
  const Words words_a = sorted_words(a), words_b = sorted_words(b);
  const WordSets sets(words_a, words_b);
  if (!sets.shared.empty() && (sets.only_a.empty() || sets.only_b.empty())) return 100;
  double best = ratio(join(words_a), join(words_b));
  const std::u32string only_a = join(sets.only_a), only_b = join(sets.only_b);
  const size_t shared = join(sets.shared).size(), gap = shared > 0 ? 1 : 0;
  // The shared words followed by either side's own: what they begin with is equal.
  const size_t long_a = shared + gap + only_a.size(), long_b = shared + gap + only_b.size();
  const size_t common = CommonSubsequence<char32_t>(Text(only_a)).length(Text(only_b));
  best = std::max(best, likeness(only_a.size() + only_b.size() - 2 * common, long_a + long_b));
  if (shared == 0) return best;
  // The shared words alone against them followed by one side's.
  best = std::max(best, likeness(gap + only_a.size(), shared + long_a));
  return std::max(best, likeness(gap + only_b.size(), shared + long_b));
}

double partial_token_ratio(Text a, Text b) {
  const Words words_a = sorted_words(a), words_b = sorted_words(b);
  const WordSets sets(words_a, words_b);
  if (!sets.shared.empty()) return 100;
  const double best = partial_ratio(join(words_a), join(words_b));
  if (words_a.size() == sets.only_a.size() && words_b.size() == sets.only_b.size()) return best;
  return std::max(best, partial_ratio(join(sets.only_a), join(sets.only_b)));
}

enum class Latin1 { Kept, Deleted };  // U+0080 to U+00FF

std::u32string prepare(const std::u32string& text, Latin1 latin1) {
  std::u32string out;
  for (const char32_t point : text) {
    if (latin1 == Latin1::Deleted && point >= 0x80 && point <= 0xFF) continue;
    out += python::is_alnum(point)
               ? static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(point)))
               : U' ';
  }
  const size_t first = out.find_first_not_of(U' ');
  if (first == out.npos) return {};
  return out.substr(first, out.find_last_not_of(U' ') - first + 1);
}

}  // namespace

std::u32string fuzzy_text(std::string_view text) {
  return prepare(python::points(text), Latin1::Deleted);
}

std::u32string fuzzy_query(std::string_view text) {
  return prepare(prepare(python::points(text), Latin1::Kept), Latin1::Deleted);
}

double wratio(std::u32string_view a, std::u32string_view b) {
  if (a.empty() || b.empty()) return 0;
  constexpr double kWordsWeight = 0.95;
  const double lengths = static_cast<double>(std::max(a.size(), b.size())) /
                         static_cast<double>(std::min(a.size(), b.size()));
  const double whole = ratio(a, b);
  if (lengths < 1.5) return std::max(whole, token_ratio(a, b) * kWordsWeight);
  const double partial_weight = lengths <= 8 ? 0.9 : 0.6;
  const double part = std::max(whole, partial_ratio(a, b) * partial_weight);
  return std::max(part, partial_token_ratio(a, b) * kWordsWeight * partial_weight);
}

double wratio(std::string_view a, std::string_view b) {
  return wratio(fuzzy_text(a), fuzzy_text(b));
}

int rounded_score(double score) noexcept { return static_cast<int>(std::nearbyint(score)); }

int fuzzy_score(std::string_view query, std::string_view choice) {
  return rounded_score(wratio(fuzzy_query(query), fuzzy_text(choice)));
}

BestChoice most_alike(std::string_view text, std::span<const std::string> choices) {
  const std::u32string prepared = fuzzy_query(text);
  BestChoice best;
  for (size_t i = 0; i < choices.size(); ++i) {
    const double score = wratio(prepared, fuzzy_text(choices[i]));
    if (i == 0 || score > best.score) best = {i, score};
  }
  return best;
}

}  // namespace quern
