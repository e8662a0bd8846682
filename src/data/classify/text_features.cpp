#include "data/classify/text_features.h"

#include <utf8proc.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/python_text.h"
#include "core/utf8.h"

namespace quern {
namespace {

constexpr uint64_t kPrime = 0x9E3779B97F4A7C15u;

uint64_t add_point(uint64_t hash, char32_t point) noexcept { return (hash ^ point) * kPrime; }

// The upper half of a product depends on all bits below it; a last mix spreads the first ones.
uint32_t finish(uint64_t hash) noexcept {
  hash ^= hash >> 32;
  hash *= kPrime;
  return static_cast<uint32_t>(hash >> 32);
}

struct CharacterTables {
  // By code point of the first plane: lower case, and whether it belongs to a word.
  std::vector<char16_t> lower;
  std::vector<bool> in_word;

  CharacterTables() : lower(0x10000), in_word(0x10000) {
    for (int32_t point = 0; point < 0x10000; ++point) {
      const int32_t small = utf8proc_tolower(point);
      lower[static_cast<size_t>(point)] = static_cast<char16_t>(small < 0x10000 ? small : point);
      switch (utf8proc_category(point)) {
        case UTF8PROC_CATEGORY_LU:
        case UTF8PROC_CATEGORY_LL:
        case UTF8PROC_CATEGORY_LT:
        case UTF8PROC_CATEGORY_LM:
        case UTF8PROC_CATEGORY_LO:
        case UTF8PROC_CATEGORY_MN:
        case UTF8PROC_CATEGORY_MC:
        case UTF8PROC_CATEGORY_ND:
        case UTF8PROC_CATEGORY_NL:
        case UTF8PROC_CATEGORY_NO:
          in_word[static_cast<size_t>(point)] = true;
          break;
        default:
          in_word[static_cast<size_t>(point)] = point == '_';
      }
    }
  }
};
const CharacterTables& tables() {
  static const CharacterTables kTables;
  return kTables;
}

char32_t lower(const CharacterTables& t, char32_t point) noexcept {
  return point < 0x10000 ? t.lower[point] : point;
}

bool in_word(const CharacterTables& t, char32_t point) noexcept {
  return point >= 0x10000 || t.in_word[point];
}

void count(std::vector<uint32_t>& hashes, std::vector<std::pair<uint32_t, uint32_t>>& out) {
  std::ranges::sort(hashes);
  out.clear();
  for (const uint32_t hash : hashes) {
    if (!out.empty() && out.back().first == hash) {
      ++out.back().second;
    } else {
      out.emplace_back(hash, 1);
    }
  }
}

}  // namespace

nlohmann::ordered_json to_json(const FeatureOptions& o) {
  return {{"chars", {o.char_least, o.char_most}},
          {"words", {o.word_least, o.word_most}},
          {"bucket_bits", o.bucket_bits},
          {"values", o.values == FeatureOptions::Values::TfIdf ? "tfidf" : "counts"}};
}

FeatureOptions features_from_json(const Json& json) {
  FeatureOptions o;
  const auto range = [&](const char* key, int& least, int& most) {
    const auto items = json.at(key).items();
    if (items.size() != 2) throw_bad_input(json.where() + "." + key + " is no pair");
    least = static_cast<int>(items[0].integer(1, 16));
    most = static_cast<int>(items[1].integer(0, 16));
  };
  range("chars", o.char_least, o.char_most);
  range("words", o.word_least, o.word_most);
  o.bucket_bits = static_cast<int>(json.at("bucket_bits").integer(0, 24));
  o.values = json.at("values").string() == "counts" ? FeatureOptions::Values::Counts
                                                    : FeatureOptions::Values::TfIdf;
  return o;
}

inline uint32_t NGramReader::bucket(uint64_t hash) const noexcept {
  const uint32_t mixed = finish(hash);
  return options_.bucket_bits == 0 ? mixed : mixed >> (32 - options_.bucket_bits);
}

void NGramReader::normalize(std::string_view text) {
  const CharacterTables& t = tables();
  points_.clear();
  bool space = true;  // the text begins as if behind one
  points_.push_back(' ');
  for (size_t i = 0; i < text.size();) {
    char32_t point;
    const auto byte = static_cast<unsigned char>(text[i]);
    if (byte < 0x80) {
      point = byte;
      ++i;
    } else {
      const utf8::Point next = utf8::decode(text.substr(i));
      point = next.value;
      i += next.length;
    }
    if (python::is_space(point)) {
      if (!space) points_.push_back(' ');
      space = true;
      continue;
    }
    space = false;
    points_.push_back(lower(t, point));
  }
  if (!space) points_.push_back(' ');
}

void NGramReader::char_hashes(std::vector<uint32_t>& out) const {
  const auto least = static_cast<size_t>(options_.char_least);
  const auto most = static_cast<size_t>(options_.char_most);
  const size_t n = points_.size();
  for (size_t begin = 0; begin < n; ++begin) {
    uint64_t hash = kPrime;
    const size_t end = std::min(n, begin + most);
    for (size_t i = begin; i < end; ++i) {
      hash = add_point(hash, points_[i]);
      if (i - begin + 1 >= least) out.push_back(bucket(hash + (i - begin)));
    }
  }
}

void NGramReader::word_hashes(std::vector<uint32_t>& out) const {
  if (options_.word_most == 0) return;
  const CharacterTables& t = tables();
  std::vector<uint64_t> words;
  uint64_t hash = 0;
  size_t length = 0;
  for (const char32_t point : points_) {
    if (in_word(t, point)) {
      hash = add_point(length == 0 ? ~kPrime : hash, point);
      ++length;
      continue;
    }
    if (length >= 2) words.push_back(hash);
    length = 0;
  }
  for (size_t begin = 0; begin < words.size(); ++begin) {
    uint64_t joined = ~kPrime;
    const size_t end = std::min(words.size(), begin + static_cast<size_t>(options_.word_most));
    for (size_t i = begin; i < end; ++i) {
      joined = (joined ^ words[i]) * kPrime + 1;
      if (i - begin + 1 >= static_cast<size_t>(options_.word_least)) out.push_back(bucket(joined));
    }
  }
}

void NGramReader::read(std::string_view text, NGrams& out) {
  normalize(text);
  hashes_.clear();
  char_hashes(hashes_);
  count(hashes_, out.chars);
  hashes_.clear();
  word_hashes(hashes_);
  count(hashes_, out.words);
}

const std::vector<uint32_t>& NGramReader::hashes(std::string_view text) {
  normalize(text);
  hashes_.clear();
  char_hashes(hashes_);
  word_hashes(hashes_);
  return hashes_;
}

}  // namespace quern
