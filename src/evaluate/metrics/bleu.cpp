#include "evaluate/metrics/bleu.h"

#include <cmath>
#include <unordered_map>

#include "core/python_text.h"
#include "core/utf8.h"

namespace quern {
namespace {

struct Range {
  char32_t first, last;
};

// The characters that sacrebleu's `zh` takes for tokens of their own. Its two ranges beyond the
// basic plane are written with four digits there and compared as text: what they hold in fact is
// U+2001 to U+2A6D (dashes, curly quotes, arrows, mathematical signs) and U+2F81 to U+2FA1.
constexpr Range kChinese[] = {
    {0x2001, 0x2A6D}, {0x2E80, 0x2EFF}, {0x2F00, 0x2FDF}, {0x2FF0, 0x2FFF}, {0x3000, 0x303F},
    {0x3100, 0x312F}, {0x31A0, 0x31BF}, {0x31C0, 0x31EF}, {0x3200, 0x32FF}, {0x3300, 0x33FF},
    {0x3400, 0x4DB5}, {0x4E00, 0x9FBB}, {0xF900, 0xFA2D}, {0xFA30, 0xFA6A}, {0xFA70, 0xFAD9},
    {0xFE10, 0xFE1F}, {0xFE30, 0xFE4F}, {0xFF00, 0xFFEF},
};

bool is_chinese(char32_t point) noexcept {
  for (const Range& range : kChinese) {
    if (point >= range.first && point <= range.last) return true;
  }
  return false;
}

bool is_ascii_digit(char byte) noexcept { return byte >= '0' && byte <= '9'; }

// Symbols that stand alone wherever they are: all of ASCII's but ' , - and the full stop.
bool is_symbol(char byte) noexcept {
  return (byte >= '{' && byte <= '~') || (byte >= '[' && byte <= '`') ||
         (byte >= ' ' && byte <= '&') || (byte >= '(' && byte <= '+') ||
         (byte >= ':' && byte <= '@') || byte == '/';
}

bool is_stop(char byte) noexcept { return byte == '.' || byte == ','; }

// The language-dependent rules of mteval-v13a, one after the other over the whole line, matches
// from left to right without overlap. Bytes do: what they look for is ASCII.
std::string mteval_rules(const std::string& line) {
  std::string symbols;
  for (const char byte : line) {
    if (is_symbol(byte)) {
      symbols.append({' ', byte, ' '});
    } else {
      symbols += byte;
    }
  }
  const auto pairs = [](const std::string& text, auto matches, auto write) {
    std::string out;
    size_t i = 0;
    while (i < text.size()) {
      if (i + 1 < text.size() && matches(text[i], text[i + 1])) {
        write(out, text[i], text[i + 1]);
        i += 2;
      } else {
        out += text[i++];
      }
    }
    return out;
  };
  // A full stop or comma is split from the character before it unless that is a digit, then from
  // the character after it unless that is one; a dash is split from a digit before it.
  const std::string before = pairs(
      symbols, [](char a, char b) { return !is_ascii_digit(a) && is_stop(b); },
      [](std::string& out, char a, char b) {
        out.append({a, ' ', b, ' '});
      });
  const std::string after = pairs(
      before, [](char a, char b) { return is_stop(a) && !is_ascii_digit(b); },
      [](std::string& out, char a, char b) {
        out.append({' ', a, ' ', b});
      });
  const std::string dashes = pairs(
      after, [](char a, char b) { return is_ascii_digit(a) && b == '-'; },
      [](std::string& out, char a, char b) {
        out.append({a, ' ', b, ' '});
      });
  std::string out;
  for (const std::string_view token : python::split(dashes)) {
    if (!out.empty()) out += ' ';
    out += token;
  }
  return out;
}

std::string tokenize_13a(std::string_view segment) {
  std::string line = python::replace(segment, "<skipped>", "");
  line = python::replace(line, "-\n", "");
  line = python::replace(line, "\n", " ");
  constexpr std::pair<const char*, const char*> kEntities[] = {
      {"&quot;", "\""}, {"&amp;", "&"}, {"&lt;", "<"}, {"&gt;", ">"}};
  for (const auto& [entity, character] : kEntities) line = python::replace(line, entity, character);
  return mteval_rules(" " + line + " ");
}

std::string tokenize_zh(std::string_view segment) {
  std::string line;
  for (std::string_view rest = python::strip(segment); !rest.empty();) {
    const utf8::Point point = utf8::decode(rest);
    const bool alone = is_chinese(point.value);
    if (alone) line += ' ';
    line += rest.substr(0, point.length);
    if (alone) line += ' ';
    rest.remove_prefix(point.length);
  }
  return mteval_rules(line);
}

using NGrams = std::unordered_map<std::string_view, int64_t>;

// The n-grams of tokens with one space between them: each is a stretch of the text.
NGrams n_grams(std::span<const std::string_view> tokens, size_t n) {
  NGrams counts;
  for (size_t i = 0; i + n <= tokens.size(); ++i) {
    const char* begin = tokens[i].data();
    const std::string_view last = tokens[i + n - 1];
    ++counts[{begin, static_cast<size_t>(last.data() + last.size() - begin)}];
  }
  return counts;
}

}  // namespace

std::optional<BleuTokenizer> bleu_tokenizer_from_name(std::string_view name) {
  if (name == "13a") return BleuTokenizer::Mteval13a;
  if (name == "zh") return BleuTokenizer::Chinese;
  return std::nullopt;
}

std::string_view name(BleuTokenizer tokenizer) noexcept {
  return tokenizer == BleuTokenizer::Chinese ? "zh" : "13a";
}

std::string bleu_tokenize(std::string_view segment, BleuTokenizer tokenizer) {
  const std::string_view text = python::rstrip(segment);
  return tokenizer == BleuTokenizer::Chinese ? tokenize_zh(text) : tokenize_13a(text);
}

BleuCounts& BleuCounts::operator+=(const BleuCounts& other) noexcept {
  for (size_t n = 0; n < matches.size(); ++n) {
    matches[n] += other.matches[n];
    totals[n] += other.totals[n];
  }
  hypothesis_tokens += other.hypothesis_tokens;
  reference_tokens += other.reference_tokens;
  return *this;
}

BleuCounts bleu_counts(std::string_view hypothesis, std::string_view reference,
                       BleuTokenizer tokenizer) {
  const std::string hypothesis_text = bleu_tokenize(hypothesis, tokenizer);
  const std::string reference_text = bleu_tokenize(reference, tokenizer);
  const auto hypothesis_tokens = python::split(hypothesis_text);
  const auto reference_tokens = python::split(reference_text);
  BleuCounts counts;
  counts.hypothesis_tokens = static_cast<int64_t>(hypothesis_tokens.size());
  counts.reference_tokens = static_cast<int64_t>(reference_tokens.size());
  for (size_t n = 1; n <= counts.matches.size(); ++n) {
    const NGrams wanted = n_grams(reference_tokens, n);
    for (const auto& [gram, times] : n_grams(hypothesis_tokens, n)) {
      const auto found = wanted.find(gram);
      if (found != wanted.end()) counts.matches[n - 1] += std::min(times, found->second);
    }
    counts.totals[n - 1] =
        std::max<int64_t>(0, counts.hypothesis_tokens - static_cast<int64_t>(n) + 1);
  }
  return counts;
}

BleuScore bleu_score(const BleuCounts& counts) {
  BleuScore score;
  score.counts = counts;
  if (counts.hypothesis_tokens < counts.reference_tokens) {
    score.brevity_penalty = counts.hypothesis_tokens > 0
                                ? std::exp(1 - static_cast<double>(counts.reference_tokens) /
                                                   static_cast<double>(counts.hypothesis_tokens))
                                : 0;
  }
  if (counts.matches == std::array<int64_t, 4>{}) return score;
  double smoothing = 1;
  for (size_t n = 0; n < counts.matches.size() && counts.totals[n] > 0; ++n) {
    const auto total = static_cast<double>(counts.totals[n]);
    if (counts.matches[n] > 0) {
      score.precisions[n] = 100 * static_cast<double>(counts.matches[n]) / total;
    } else {
      smoothing *= 2;
      score.precisions[n] = 100 / (smoothing * total);
    }
  }
  double sum = 0;
  for (const double precision : score.precisions) {
    if (precision == 0) return score;  // shorter than four tokens: no BLEU
    sum += std::log(precision);
  }
  score.bleu = score.brevity_penalty * std::exp(sum / 4);
  return score;
}

BleuScore corpus_bleu(std::span<const std::string> hypotheses,
                      std::span<const std::string> references, BleuTokenizer tokenizer) {
  BleuCounts counts;
  for (size_t i = 0; i < hypotheses.size(); ++i) {
    counts += bleu_counts(hypotheses[i], references[i], tokenizer);
  }
  return bleu_score(counts);
}

}  // namespace quern
