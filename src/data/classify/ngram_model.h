// Word n-gram language models: interpolated modified Kneser-Ney smoothing (Chen and Goodman 1999;
// Heafield et al. 2013), in ARPA's text format. Words are those of shingle_words(): letters and digits
// in lower case, Han, kana, Hangul and Thai characters singly.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "core/file.h"

namespace quern {

std::vector<std::string> ngram_words(std::string_view text);

class NGramModel {
 public:
  static constexpr int kMostOrder = 6;

  // Estimates the model of sentences, each a list of words. `fallback` is told of an order whose counts
  // are too few for its discounts: 0.5, 1 and 1.5 are taken. Throws BadInput without a word.
  static NGramModel train(const std::vector<std::vector<std::string>>& sentences, int order,
                          const std::function<void(int order)>& fallback);

  // Throws BadInput naming line and problem: counts that are not those of the head, an n-gram twice, a
  // number that is none.
  static NGramModel load_arpa(const fs::path& path);
  static NGramModel parse_arpa(std::string_view text, const std::string& source);
  std::string arpa() const;

  int order() const noexcept { return static_cast<int>(tables_.size()); }
  size_t size(int order) const noexcept { return tables_[size_t(order - 1)].size(); }

  struct Score {
    double log10 = 0;   // of all words and the ends of the sentences
    int64_t words = 0;  // with the ends
    int64_t unknown = 0;
    double perplexity() const noexcept;
  };
  // Adds a sentence's words and its end.
  void score(const std::vector<std::string>& words, Score& score) const;
  // Of a word behind others of a sentence, "</s>" its end.
  double probability(const std::vector<std::string>& context, const std::string& word) const;
  // Lines as sentences, those without words left out.
  Score score_text(std::string_view text) const;

 private:
  struct Entry {
    float log10 = 0, backoff = 0;
  };
  using Key = std::u32string;  // ids, in the order of the text
  using Table = std::unordered_map<Key, Entry>;

  uint32_t id_of(const std::string& word) const noexcept;
  double log10_of(Key context, uint32_t word) const;

  std::vector<std::string> words_;  // by id: <unk>, <s>, </s>, then the others
  std::unordered_map<std::string, uint32_t> ids_;
  std::vector<Table> tables_;  // by order
};

}  // namespace quern
