#include "evaluate/extract/choices.h"

#include <algorithm>
#include <array>
#include <numeric>

#include "core/utf8.h"
#include "evaluate/extract/regex.h"
#include "evaluate/metrics/wratio.h"
#include "evaluate/python_text.h"

namespace quern {
namespace {

using python::Regex;

// Four patterns, the letter being group 1. "Other" characters are all but A to D.
using Rules = std::array<Regex, 4>;

// White space as Python has it; PCRE2's \s knows four control characters less.
constexpr const char* kSpace = R"([\s\x{1c}-\x{1f}])";

const Rules& chinese_rules() {
  static const Rules rules = [] {
    const std::string others = "[^ABCD]";
    const std::string says = "(?:是|选|为|：|:|】)";
    const std::string right = "(?:正确|对[的，。：]|符合)";
    const std::string denied = "(?:不|非)";
    // 选 X, 答案是 X, with something that ends it after.
    const std::string chosen = std::string("(?:选择|选定|选)[：:]?") + kSpace + "*";
    const std::string answer = "(?:答案|选项)(?!" + others + "{0,10}?" + denied + others +
                               "{0,10}?" + says + ")" + others + "{0,10}?" + says + others +
                               "{0,10}?";
    return Rules{
        Regex("(?:" + chosen + "|" + answer + ")([ABCD])(?:选项)?(?:[)。.，,．、ABCD：:）]|$)"),
        Regex("([ABCD])(?:选?项)?(?!" + others + "{0,4}?" + denied + others + "{0,4}?" + right +
              ")" + others + "{0,4}?" + right),
        Regex("^[(（]?([ABCD])(?:[。)）.，,．：:]|$)"),
        Regex("(?<![a-zA-Z])([ABCD])(?![a-zA-Z=])"),
    };
  }();
  return rules;
}

const Rules& english_rules() {
  static const Rules rules = [] {
    const std::string others = "[^ABCD]";
    const std::string denied = "(?:n't|not)";
    const std::string right = "(?:correct|right)";
    const std::string answer = "(?:[Aa]nswer|[Cc]hoice)(?!" + others + "{0,20}?" + denied + ")" +
                               others + R"({0,10}?\b(?:|is|:|be)\b)";
    return Rules{
        Regex("(?:[Cc]hoose|" + answer + ")" + others + R"({0,20}?\b([ABCD])\b)"),
        Regex(R"(\b([ABCD])\b(?!)" + others + "{0,8}?" + denied + others + "{0,5}?" + right + ")" +
              others + R"({0,10}?\b)" + right + R"(\b)"),
        Regex("^([ABCD])(?:[.,:]|$)"),
        Regex("(?<![a-zA-Z])([ABCD])(?![a-zA-Z=])"),
    };
  }();
  return rules;
}

ExtractedChoice by_rules(const std::string& text, const Rules& rules, size_t count) {
  for (size_t i = 0; i < count; ++i) {
    if (const auto match = rules[i].search(text)) {
      return {match->group[1][0] - 'A', static_cast<int>(i) + 1};
    }
  }
  return {};
}

// The options by their lengths in characters, longest first, equal ones in order.
std::vector<size_t> longest_first(const std::vector<std::string>& options) {
  std::vector<size_t> order(options.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return python::length(options[a]) > python::length(options[b]);
  });
  return order;
}

std::string letter(size_t option) { return std::string(1, static_cast<char>('A' + option)); }

// A reply that repeats the question or an option: those become "the answer is" and letters.
std::string rewrite_chinese(std::string reply, const ChoiceQuestion& question) {
  const std::string_view text = python::rstrip_all(question.question, "。");
  const std::string_view sentence = python::split_at(text, "。").back();
  const auto pieces = python::split_at(sentence, "_");
  constexpr size_t kLongEnough = 4;
  if (python::length(python::strip(pieces.front())) > kLongEnough) {
    reply = python::replace(reply, pieces.front(), "答案是");
  }
  if (python::length(python::strip(pieces.back())) > kLongEnough) {
    reply = python::replace(reply, pieces.back(), "");
  }
  for (const size_t i : longest_first(question.options)) {
    reply = python::replace(reply, python::rstrip_all(question.options[i], "。"), letter(i));
  }
  return reply;
}

std::string rewrite_english(std::string reply, const ChoiceQuestion& question) {
  for (const size_t i : longest_first(question.options)) {
    const std::string_view option = python::rstrip_all(question.options[i], ".");
    reply = Regex::literal(option, Regex::Case::Ignored).replace_all(reply, letter(i));
  }
  return reply;
}

ExtractedChoice parity(const std::string& rewritten, const Rules& rules,
                       const ChoiceQuestion& question) {
  const ExtractedChoice choice = by_rules(rewritten, rules, rules.size());
  if (choice.option) return choice;
  // The reference takes the first option with the text that was found.
  const std::string& best = question.options[most_alike(rewritten, question.options).index];
  const auto first = std::find(question.options.begin(), question.options.end(), best);
  return {static_cast<int>(first - question.options.begin()), 5};
}

// Full-width letters as ASCII has them.
std::string plain_letters(const std::string& reply) {
  std::string out;
  for (const char32_t point : python::points(reply)) {
    utf8::append(out, point >= U'Ａ' && point <= U'Ｄ' ? point - U'Ａ' + U'A' : point);
  }
  return out;
}

bool says_something(const std::string& text) {
  for (const char32_t point : python::points(text)) {
    if (python::is_alnum(point)) return true;
  }
  return false;
}

ExtractedChoice fixed(const std::string& plain, const std::string& text,
                      const std::string& rewritten, const Rules& rules,
                      const ChoiceQuestion& question) {
  if (!says_something(plain)) return {};
  ExtractedChoice choice = by_rules(text, rules, 3);
  if (!choice.option) choice = by_rules(rewritten, rules, 4);
  if (choice.option) return choice;
  constexpr int kAlike = 60;
  const BestChoice best = most_alike(plain, question.options);
  if (rounded_score(best.score) < kAlike) return {};
  return {static_cast<int>(best.index), 5};
}

}  // namespace

ExtractedChoice chinese_choice(const std::string& reply, const ChoiceQuestion& question) {
  return parity(rewrite_chinese(reply, question), chinese_rules(), question);
}

ExtractedChoice english_choice(const std::string& reply, const ChoiceQuestion& question) {
  return parity(rewrite_english(reply, question), english_rules(), question);
}

ExtractedChoice chinese_choice_fixed(const std::string& reply, const ChoiceQuestion& question) {
  const std::string plain = plain_letters(reply);
  return fixed(plain, plain, rewrite_chinese(plain, question), chinese_rules(), question);
}

ExtractedChoice english_choice_fixed(const std::string& reply, const ChoiceQuestion& question) {
  // An A before a word is the article, unless the word speaks of an answer.
  static const Regex kArticle(
      R"((?<![\p{L}\p{N}])A(?= [a-z])(?! (?:is|was|and|or|because|since|as|are|would|should|seems)"
      R"(|appears|best|correct|right|option|choice|answer|in|on|for|by|with|to|from|but|due|of)\b))");
  const std::string plain = plain_letters(reply);
  const std::string text = kArticle.replace_all(plain, "a");
  return fixed(plain, text, rewrite_english(text, question), english_rules(), question);
}

}  // namespace quern
