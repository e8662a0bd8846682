#include "data/classify/ngram_model.h"

#include <fmt/format.h>
#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <limits>

#include "core/error.h"
#include "core/python_text.h"
#include "core/utf8.h"
#include "data/stages/words.h"

namespace quern {
namespace {

constexpr uint32_t kUnknown = 0, kBegin = 1, kEnd = 2;
constexpr float kNever = -99;  // the probability of <s>, which nothing predicts

using Key = std::u32string;
using Counts = std::unordered_map<Key, uint64_t>;

// What counts of 1, 2 and more lose.
struct Discounts {
  std::array<double, 4> of = {0, 0.5, 1, 1.5};
  double at(uint64_t count) const noexcept { return of[std::min<uint64_t>(count, 3)]; }
};

// False where the counts of counts are too few: the usual ones stand.
bool estimate(const Counts& counts, Discounts& out) {
  std::array<double, 5> n = {};
  for (const auto& [key, count] : counts) {
    if (count <= 4) ++n[count];
  }
  if (n[1] == 0 || n[2] == 0 || n[3] == 0 || n[4] == 0) return false;
  const double y = n[1] / (n[1] + 2 * n[2]);
  std::array<double, 4> d = {};
  for (size_t i = 1; i <= 3; ++i) {
    d[i] = static_cast<double>(i) - static_cast<double>(i + 1) * y * n[i + 1] / n[i];
    if (!(d[i] >= 0) || d[i] > static_cast<double>(i)) return false;
  }
  out.of = d;
  return true;
}

// Of the n-grams with one context: the sum of their counts, and how many have 1, 2, more.
struct Context {
  double sum = 0;
  std::array<double, 4> with = {};
};

double gamma(const Context& context, const Discounts& d) noexcept {
  double mass = 0;
  for (size_t i = 1; i <= 3; ++i) mass += d.of[i] * context.with[i];
  return mass / context.sum;
}

float to_float(double probability) {
  return probability > 0 ? static_cast<float>(std::log10(probability)) : kNever;
}

}  // namespace

std::vector<std::string> ngram_words(std::string_view text) {
  std::vector<uint64_t> hashes;
  std::vector<WordPlace> places;
  shingle_words(text, hashes, &places);
  std::vector<std::string> words;
  for (const WordPlace& place : places) {
    std::string word;
    for (const char32_t point : python::points(text.substr(place.begin, place.end - place.begin))) {
      utf8::append(word,
                   static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(point))));
    }
    words.push_back(std::move(word));
  }
  return words;
}

NGramModel NGramModel::train(const std::vector<std::vector<std::string>>& sentences, int order,
                             const std::function<void(int order)>& fallback) {
  NGramModel model;
  model.words_ = {"<unk>", "<s>", "</s>"};
  for (uint32_t id = 0; id < 3; ++id) model.ids_.emplace(model.words_[id], id);
  const auto n = static_cast<size_t>(order);
  // Counts as they are, of the highest order and of what begins a sentence.
  std::vector<Counts> counts(n);
  for (const auto& sentence : sentences) {
    if (sentence.empty()) continue;
    Key ids = {kBegin};
    for (const std::string& word : sentence) {
      const auto [found, added] =
          model.ids_.try_emplace(word, static_cast<uint32_t>(model.words_.size()));
      if (added) model.words_.push_back(word);
      ids += found->second;
    }
    ids += kEnd;
    for (size_t i = 0; i + n <= ids.size(); ++i) ++counts[n - 1][ids.substr(i, n)];
    for (size_t length = 2; length < n && length <= ids.size(); ++length) {
      ++counts[length - 1][ids.substr(0, length)];
    }
  }
  if (model.words_.size() == 3) throw_bad_input("there is no word to train on");
  // Below the highest order an n-gram counts as often as different words stand before it.
  for (size_t length = n - 1; length >= 1; --length) {
    for (const auto& [key, count] : counts[length]) {
      const Key tail = key.substr(1);
      ++counts[length - 1][tail];
    }
  }

  std::vector<Discounts> discounts(n);
  for (size_t i = 0; i < n; ++i) {
    if (!estimate(counts[i], discounts[i])) fallback(static_cast<int>(i + 1));
  }
  std::vector<std::unordered_map<Key, Context>> contexts(n);
  for (size_t i = 0; i < n; ++i) {
    for (const auto& [key, count] : counts[i]) {
      Context& context = contexts[i][key.substr(0, i)];
      context.sum += static_cast<double>(count);
      ++context.with[std::min<uint64_t>(count, 3)];
    }
  }
  // From the lowest order up: each interpolates with the one below, the lowest with all words alike.
  const double vocabulary = static_cast<double>(model.words_.size() - 1);  // without <s>
  std::vector<std::unordered_map<Key, double>> probabilities(n);
  const Context& all = contexts[0][Key()];
  const double rest = gamma(all, discounts[0]) / vocabulary;
  for (uint32_t id = 0; id < model.words_.size(); ++id) {
    const Key key = {id};
    const auto found = counts[0].find(key);
    double p = rest;
    if (found != counts[0].end()) {
      const auto count = static_cast<double>(found->second);
      p += (count - discounts[0].at(found->second)) / all.sum;
    }
    probabilities[0][key] = id == kBegin ? 0 : p;
  }
  for (size_t i = 1; i < n; ++i) {
    for (const auto& [key, count] : counts[i]) {
      const Context& context = contexts[i].at(key.substr(0, i));
      const double below = probabilities[i - 1].at(key.substr(1));
      probabilities[i][key] = (static_cast<double>(count) - discounts[i].at(count)) / context.sum +
                              gamma(context, discounts[i]) * below;
    }
  }
  model.tables_.resize(n);
  for (size_t i = 0; i < n; ++i) {
    for (const auto& [key, p] : probabilities[i]) {
      Entry entry{to_float(p), 0};
      if (i + 1 < n) {
        const auto context = contexts[i + 1].find(key);
        if (context != contexts[i + 1].end()) {
          entry.backoff = to_float(gamma(context->second, discounts[i + 1]));
        }
      }
      model.tables_[i].emplace(key, entry);
    }
  }
  return model;
}

std::string NGramModel::arpa() const {
  std::string out = "\\data\\\n";
  for (int i = 1; i <= order(); ++i) out += fmt::format("ngram {}={}\n", i, size(i));
  for (int i = 1; i <= order(); ++i) {
    out += fmt::format("\n\\{}-grams:\n", i);
    // By id, so that the file does not depend on a hash table.
    std::vector<const Table::value_type*> rows;
    for (const auto& row : tables_[size_t(i - 1)]) rows.push_back(&row);
    std::ranges::sort(rows, {}, [](const auto* row) -> const Key& { return row->first; });
    for (const auto* row : rows) {
      out += fmt::format("{}\t", row->second.log10);
      for (size_t j = 0; j < row->first.size(); ++j) {
        out += (j > 0 ? " " : "") + words_[row->first[j]];
      }
      if (i < order()) out += fmt::format("\t{}", row->second.backoff);
      out += '\n';
    }
  }
  return out + "\n\\end\\\n";
}

NGramModel NGramModel::load_arpa(const fs::path& path) {
  return parse_arpa(read_file(path, uint64_t{8} << 30), path.string());
}

NGramModel NGramModel::parse_arpa(std::string_view text, const std::string& source) {
  NGramModel model;
  model.words_ = {"<unk>", "<s>", "</s>"};
  for (uint32_t id = 0; id < 3; ++id) model.ids_.emplace(model.words_[id], id);
  std::vector<size_t> expected;
  size_t section = 0;  // the order that is read; 0: the head
  int64_t line_number = 0;
  bool ended = false;
  const auto fail = [&](const std::string& problem) {
    throw_bad_input(fmt::format("{}: line {}: {}", source, line_number, problem));
  };
  const auto number = [&](std::string_view word) {
    float value = 0;
    const auto [end, failure] = std::from_chars(word.data(), word.data() + word.size(), value);
    if (failure != std::errc() || end != word.data() + word.size() || std::isnan(value)) {
      fail(fmt::format("'{}' is no number", printable(word, 40)));
    }
    return value;
  };
  while (!text.empty() && !ended) {
    const size_t end = std::min(text.find('\n'), text.size());
    const std::string_view line = python::strip(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
    ++line_number;
    if (line.empty() || line == "\\data\\") continue;
    if (line == "\\end\\") {
      ended = true;
    } else if (line.starts_with("ngram ") && section == 0) {
      const size_t equals = line.find('=');
      if (equals == line.npos) fail("is no count");
      const auto count = number(python::strip(line.substr(equals + 1)));
      if (number(python::strip(line.substr(6, equals - 6))) !=
          static_cast<float>(expected.size() + 1)) {
        fail("counts an order out of turn");
      }
      if (!(count >= 0) || count > 4e9f) fail("is no count");
      size_t whole = 0;
      const std::string_view digits = python::strip(line.substr(equals + 1));
      std::from_chars(digits.data(), digits.data() + digits.size(), whole);
      expected.push_back(whole);
      if (expected.size() > static_cast<size_t>(kMostOrder)) fail("is of a higher order than 6");
    } else if (line.starts_with('\\') && line.ends_with("-grams:")) {
      if (expected.empty()) fail("comes before the counts");
      if (line != fmt::format("\\{}-grams:", ++section) || section > expected.size()) {
        fail("begins an order out of turn");
      }
      model.tables_.emplace_back();
    } else {
      if (section == 0) fail("is nothing that a head has");
      const auto words = python::split(line);
      const bool backoff = words.size() == section + 2;
      if (words.size() != section + 1 && !backoff) {
        fail(
            fmt::format("has {} words, a {}-gram has a number, {} words and perhaps another number",
                        words.size(), section, section));
      }
      Key key;
      for (size_t i = 1; i <= section; ++i) {
        std::string word(words[i]);
        if (word == "<UNK>") word = "<unk>";
        const auto known = model.ids_.find(word);
        if (known != model.ids_.end()) {
          key += known->second;
        } else if (section == 1) {
          const auto id = static_cast<uint32_t>(model.words_.size());
          model.ids_.emplace(word, id);
          model.words_.push_back(word);
          key += id;
        } else {
          fail(fmt::format("'{}' is no unigram", printable(word, 40)));
        }
      }
      const Entry entry{number(words[0]), backoff ? number(words.back()) : 0};
      if (!model.tables_.back().emplace(key, entry).second) fail("is there twice");
    }
  }
  if (!ended || model.tables_.size() != expected.size() || expected.empty()) {
    throw_bad_input(source + ": is no whole ARPA file",
                    "it begins with \\data\\ and ends with \\end\\");
  }
  for (size_t i = 0; i < expected.size(); ++i) {
    if (model.tables_[i].size() == expected[i]) continue;
    throw_bad_input(fmt::format("{}: has {} {}-grams, its head counts {}", source,
                                model.tables_[i].size(), i + 1, expected[i]));
  }
  return model;
}

uint32_t NGramModel::id_of(const std::string& word) const noexcept {
  const auto found = ids_.find(word);
  return found == ids_.end() ? kUnknown : found->second;
}

double NGramModel::log10_of(Key context, uint32_t word) const {
  double backoff = 0;
  while (true) {
    const auto& table = tables_[context.size()];
    const auto found = table.find(context + static_cast<char32_t>(word));
    if (found != table.end()) return backoff + static_cast<double>(found->second.log10);
    if (context.empty()) return backoff + static_cast<double>(kNever);
    const auto& below = tables_[context.size() - 1];
    const auto known = below.find(context);
    if (known != below.end()) backoff += static_cast<double>(known->second.backoff);
    context.erase(0, 1);
  }
}

void NGramModel::score(const std::vector<std::string>& words, Score& score) const {
  Key context = {kBegin};
  const auto most = static_cast<size_t>(order() - 1);
  const auto add = [&](uint32_t id) {
    if (context.size() > most) context.erase(0, context.size() - most);
    score.log10 += log10_of(context, id);
    ++score.words;
    score.unknown += id == kUnknown;
    context += id;
  };
  for (const std::string& word : words) add(id_of(word));
  add(kEnd);
}

double NGramModel::probability(const std::vector<std::string>& context,
                               const std::string& word) const {
  Key ids;
  for (const std::string& one : context) ids += id_of(one);
  const auto most = static_cast<size_t>(order() - 1);
  if (ids.size() > most) ids.erase(0, ids.size() - most);
  return std::pow(10, log10_of(ids, id_of(word)));
}

NGramModel::Score NGramModel::score_text(std::string_view text) const {
  Score total;
  for (const std::string_view line : python::split_at(text, "\n")) {
    const std::vector<std::string> words = ngram_words(line);
    if (!words.empty()) score(words, total);
  }
  return total;
}

double NGramModel::Score::perplexity() const noexcept {
  return words == 0 ? std::numeric_limits<double>::infinity()
                    : std::pow(10, -log10 / static_cast<double>(words));
}

}  // namespace quern
