#include "data/stages/text_rules.h"

#include <fmt/format.h>
#include <utf8proc.h>

#include <algorithm>
#include <unordered_set>

#include "core/ascii.h"
#include "core/error.h"
#include "core/python_text.h"
#include "core/utf8.h"
#include "data/stages/words.h"
#include "text/unicode.h"

namespace quern {
namespace {

constexpr TextRule kRules[] = {
    {"gopher.min_words", "words that are not all punctuation", true, 50, 50},
    {"gopher.max_words", "words that are not all punctuation", false, 100000, 100000},
    {"gopher.min_mean_word_length", "mean characters of those words", true, 3, 0},
    {"gopher.max_mean_word_length", "mean characters of those words", false, 10, 10},
    {"gopher.max_hash_ratio", "# per word", false, 0.1, 0.1},
    {"gopher.max_ellipsis_ratio", "ellipses per word", false, 0.1, 0.1},
    {"gopher.max_bullet_lines", "share of lines that begin with a bullet", false, 0.9, 0.9},
    {"gopher.max_ellipsis_lines", "share of lines that end with an ellipsis", false, 0.3, 0.3},
    {"gopher.min_alpha_words", "share of words with a letter", true, 0.8, 0.6},
    {"gopher.min_stop_words", "distinct stop words", true, 2, 2},
    {"gopher_repetition.not_empty", "characters", true, 1, 1},
    {"gopher_repetition.max_dup_paragraphs", "share of repeated paragraphs", false, 0.3, 0.3},
    {"gopher_repetition.max_dup_paragraph_chars", "their share of characters", false, 0.2, 0.2},
    {"gopher_repetition.max_dup_lines", "share of repeated lines", false, 0.3, 0.3},
    {"gopher_repetition.max_dup_line_chars", "their share of characters", false, 0.2, 0.2},
    {"gopher_repetition.max_top_2_gram", "share of the commonest 2-gram", false, 0.2, 0.2},
    {"gopher_repetition.max_top_3_gram", "share of the commonest 3-gram", false, 0.18, 0.18},
    {"gopher_repetition.max_top_4_gram", "share of the commonest 4-gram", false, 0.16, 0.16},
    {"gopher_repetition.max_dup_5_gram", "share of repeated 5-grams", false, 0.15, 0.15},
    {"gopher_repetition.max_dup_6_gram", "share of repeated 6-grams", false, 0.14, 0.14},
    {"gopher_repetition.max_dup_7_gram", "share of repeated 7-grams", false, 0.13, 0.13},
    {"gopher_repetition.max_dup_8_gram", "share of repeated 8-grams", false, 0.12, 0.12},
    {"gopher_repetition.max_dup_9_gram", "share of repeated 9-grams", false, 0.11, 0.11},
    {"gopher_repetition.max_dup_10_gram", "share of repeated 10-grams", false, 0.1, 0.1},
    {"c4.no_lorem_ipsum", "lines with lorem ipsum", false, 0, 0},
    {"c4.no_curly_bracket", "lines with {", false, 0, 0},
    {"c4.min_sentences", "sentences in kept lines", true, 5, 5},
    {"fineweb.not_empty", "lines that are not blank", true, 1, 1},
    {"fineweb.min_punct_lines", "share of lines that end in punctuation", true, 0.12, 0.12},
    {"fineweb.max_short_lines", "share of lines of at most 30 characters", false, 0.67, 0.9},
    {"fineweb.max_dup_line_chars", "share of characters in repeated lines", false, 0.01, 0.01},
    {"fineweb.max_newlines_per_word", "line breaks per word", false, 0.3, 0.3},
};

constexpr std::string_view kStopWords[] = {"the", "be", "to", "of", "and", "that", "have", "with"};
constexpr std::string_view kChineseStopWords[] = {"的", "了", "是", "在", "和", "有",
                                                  "我", "不", "这", "他", "就", "也"};
constexpr std::u32string_view kPunctuation =
    U"!/—”:％１〈&(、━\\【#%「」，】；+^]~“《„';’{|∶´[=-`*．（–？！：$～«〉,><》)?）。…@_.\"}►»";

size_t count_of(std::string_view text, std::string_view what) noexcept {
  size_t count = 0;
  for (size_t at = text.find(what); at != std::string_view::npos;
       at = text.find(what, at + what.size())) {
    ++count;
  }
  return count;
}

double ratio(double part, double whole) noexcept { return whole > 0 ? part / whole : 0; }

// Repeated elements: how many, and their characters.
struct Repeats {
  double elements = 0, characters = 0;
};
Repeats repeats(const std::vector<std::string_view>& parts) {
  std::unordered_set<std::string_view> seen;
  Repeats out;
  for (const std::string_view part : parts) {
    if (seen.insert(part).second) continue;
    ++out.elements;
    out.characters += static_cast<double>(count_characters(part));
  }
  return out;
}

// Cut at runs of at least `least` line feeds, as re.split does: empty ends are kept.
std::vector<std::string_view> split_at_feeds(std::string_view text, size_t least) {
  std::vector<std::string_view> out;
  size_t begin = 0;
  for (size_t at = text.find('\n'); at != std::string_view::npos; at = text.find('\n', at)) {
    size_t end = at;
    while (end < text.size() && text[end] == '\n') ++end;
    if (end - at >= least) {
      out.push_back(text.substr(begin, at - begin));
      begin = end;
    }
    at = end;
  }
  out.push_back(text.substr(begin));
  return out;
}

// Joined words by their hash modulo 2^61 - 1. The hash of a concatenation follows from its parts',
// so n-grams of one text have one hash wherever the words in them end.
struct Joined {
  uint64_t hash, power;  // power: of the base, to the length in bytes
  uint32_t characters;
};
constexpr uint64_t kPrime = (uint64_t{1} << 61) - 1;
constexpr uint64_t kBase = 0x0F3A5C7E9B2D4F61;

uint64_t reduce(uint64_t value) noexcept {
  value = (value & kPrime) + (value >> 61);
  return value >= kPrime ? value - kPrime : value;
}
uint64_t multiply(uint64_t a, uint64_t b) noexcept {
  const auto product = static_cast<unsigned __int128>(a) * b;
  return reduce((static_cast<uint64_t>(product) & kPrime) + static_cast<uint64_t>(product >> 61));
}
Joined join(const Joined& a, const Joined& b) noexcept {
  return {reduce(multiply(a.hash, b.power) + b.hash), multiply(a.power, b.power),
          a.characters + b.characters};
}
Joined joined(std::string_view word) noexcept {
  Joined out = {0, 1, 0};
  for (const char c : word) {
    out.hash = reduce(multiply(out.hash, kBase) + static_cast<unsigned char>(c) + 1);
    out.power = multiply(out.power, kBase);
    out.characters += (static_cast<unsigned char>(c) & 0xC0) != 0x80;
  }
  return out;
}

// Counts of hashes; emptied by raising its generation.
class Counter {
 public:
  struct Slot {
    uint64_t key = 0;
    uint32_t generation = 0, count = 0;
  };
  void reset(size_t most) {
    size_t wanted = 64;
    while (wanted < most * 2) wanted *= 2;
    if (slots_.size() < wanted) {
      slots_.assign(wanted, {});
      generation_ = 0;
    }
    mask_ = slots_.size() - 1;
    ++generation_;
  }
  // Counts `key` once more and returns its slot.
  Slot& add(uint64_t key) noexcept {
    for (size_t at = (key * 0x9E3779B97F4A7C15) >> 20 & mask_;; at = (at + 1) & mask_) {
      Slot& slot = slots_[at];
      if (slot.generation != generation_) slot = {key, generation_, 0};
      if (slot.key == key) {
        ++slot.count;
        return slot;
      }
    }
  }

 private:
  std::vector<Slot> slots_;
  size_t mask_ = 0;
  uint32_t generation_ = 0;
};

constexpr Joined kSpace = {' ' + 1, kBase, 1};
constexpr size_t kLeastTop = 2, kMostTop = 4, kLeastDup = 5, kMostDup = 10;

// One set of rules on one text: its rules are checked in order until one fails.
class Course {
 public:
  Course(std::string_view set, const std::vector<double>& thresholds,
         const std::vector<double>& chinese, bool is_chinese, bool all, const RuleJudge::See& see)
      : set_(set), thresholds_(is_chinese ? chinese : thresholds), all_(all), see_(see) {
    while (next_ < std::size(kRules) && !kRules[next_].name.starts_with(std::string(set_) + ".")) {
      ++next_;
    }
  }

  // The next rule's value; false where judging may end.
  bool met(double value) {
    const TextRule& rule = kRules[next_];
    const double threshold = thresholds_[next_];
    ++next_;
    if (see_) see_(rule.name, value);
    const bool keeps = rule.at_least ? value >= threshold : value <= threshold;
    if (!keeps && verdict_.keep) verdict_ = {false, std::string(rule.name), value, threshold};
    return all_ || verdict_.keep;
  }
  // Skips a rule that does not apply, such as n-grams of a text of fewer words.
  void pass() { ++next_; }

  const Verdict& verdict() const { return verdict_; }

 private:
  std::string_view set_;
  const std::vector<double>& thresholds_;
  bool all_;
  const RuleJudge::See& see_;
  size_t next_ = 0;
  Verdict verdict_;
};

bool is_han(char32_t c) noexcept { return c >= 0x3400 && c <= 0x9FFF; }

}  // namespace

struct RuleJudge::State {
  std::vector<double> thresholds, chinese;
  std::vector<std::string_view> words, lines;
  std::vector<Joined> joined, spaced;
  Counter counters[kMostDup + 1];
  std::vector<std::pair<Counter::Slot*, size_t>> order[kMostTop + 1];

  void gopher(Course& course, std::string_view text, std::span<const std::string_view> words,
              bool chinese);
  void repetition(Course& course, std::string_view text, std::span<const std::string_view> words);
  std::string c4(Course& course, std::string_view text, bool chinese);
  void fineweb(Course& course, std::string_view text, std::span<const std::string_view> words);
};

void RuleJudge::State::gopher(Course& course, std::string_view text,
                              std::span<const std::string_view> all_words, bool is_chinese) {
  double real = 0, characters = 0, with_letter = 0;
  uint32_t stops = 0;
  for (const std::string_view word : all_words) {
    bool symbol_only = true, letter = false;
    int64_t length = 0;
    for (size_t at = 0; at < word.size(); ++length) {
      const auto byte = static_cast<unsigned char>(word[at]);
      if (byte < 0x80) {
        const bool is_letter = static_cast<unsigned char>((byte | 0x20) - 'a') < 26;
        letter |= is_letter;
        if (symbol_only && (is_letter || (byte >= '0' && byte <= '9') ||
                            (kPunctuation.find(byte) == std::u32string_view::npos && byte >= 0x20 &&
                             byte != 0x7F))) {
          symbol_only = false;
        }
        ++at;
        continue;
      }
      const utf8::Point next = utf8::decode(word.substr(at));
      at += next.length;
      letter |= unicode::class_of(next.value) == unicode::Class::Letter;
      if (symbol_only && kPunctuation.find(next.value) == std::u32string_view::npos &&
          !ends_sentence(next.value) && !(next.value >= 0x7F && next.value < 0xA0)) {
        symbol_only = false;
      }
    }
    with_letter += letter;
    if (!symbol_only) {
      ++real;
      characters += static_cast<double>(length);
    }
    if (is_chinese) {
      for (size_t i = 0; i < std::size(kChineseStopWords); ++i) {
        if (word == kChineseStopWords[i]) stops |= 1U << i;
      }
    } else if (word.size() <= 4) {
      for (size_t i = 0; i < std::size(kStopWords); ++i) {
        if (word == kStopWords[i]) stops |= 1U << i;
      }
    }
  }
  const auto count = static_cast<double>(all_words.size());
  if (!course.met(real) || !course.met(real)) return;
  const double mean = ratio(characters, real);
  if (!course.met(mean) || !course.met(mean)) return;
  if (!course.met(ratio(static_cast<double>(count_of(text, "#")), count))) return;
  const auto ellipses = static_cast<double>(count_of(text, "...") + count_of(text, "…"));
  if (!course.met(ratio(ellipses, count))) return;
  python::split_lines(text, python::LineEnds::Cut, lines);
  double bullets = 0, open_ends = 0;
  for (const std::string_view line : lines) {
    const std::string_view begin = python::lstrip(line), end = python::rstrip(line);
    bullets += begin.starts_with("•") || begin.starts_with("-");
    open_ends += end.ends_with("...") || end.ends_with("…");
  }
  const auto line_count = static_cast<double>(lines.size());
  if (!course.met(ratio(bullets, line_count))) return;
  if (!course.met(ratio(open_ends, line_count))) return;
  if (!course.met(ratio(with_letter, count))) return;
  course.met(static_cast<double>(__builtin_popcount(stops)));
}

void RuleJudge::State::repetition(Course& course, std::string_view text,
                                  std::span<const std::string_view> all_words) {
  const auto characters = static_cast<double>(count_characters(text));
  if (!course.met(characters)) return;
  const auto paragraphs = split_at_feeds(python::strip(text), 2);
  const Repeats paragraph = repeats(paragraphs);
  if (!course.met(ratio(paragraph.elements, static_cast<double>(paragraphs.size())))) return;
  if (!course.met(ratio(paragraph.characters, characters))) return;
  const auto text_lines = split_at_feeds(text, 1);
  const Repeats line = repeats(text_lines);
  if (!course.met(ratio(line.elements, static_cast<double>(text_lines.size())))) return;
  if (!course.met(ratio(line.characters, characters))) return;

  const size_t count = all_words.size();
  joined.clear();
  spaced.clear();
  for (const std::string_view word : all_words) {
    joined.push_back(quern::joined(word));
    spaced.push_back(join(kSpace, joined.back()));
  }
  for (size_t n = kLeastTop; n <= kMostDup; ++n) counters[n].reset(count + 1);
  for (size_t n = kLeastTop; n <= kMostTop; ++n) order[n].clear();
  double repeated[kMostDup + 1] = {};
  size_t next[kMostDup + 1] = {};
  for (size_t i = 0; i < count; ++i) {
    Joined gram = joined[i];
    for (size_t n = 2; n <= kMostTop && i + n <= count; ++n) {
      gram = join(gram, spaced[i + n - 1]);
      Counter::Slot& slot = counters[n].add(gram.hash);
      if (slot.count == 1) order[n].emplace_back(&slot, gram.characters);
    }
    gram = joined[i];
    for (size_t n = 2; n <= kMostDup && i + n <= count; ++n) {
      gram = join(gram, joined[i + n - 1]);
      if (n < kLeastDup || i < next[n]) continue;
      if (counters[n].add(gram.hash).count > 1) {
        repeated[n] += gram.characters;
        next[n] = i + n;
      } else {
        next[n] = i + 1;
      }
    }
  }
  for (size_t n = kLeastTop; n <= kMostTop; ++n) {
    if (count < n) {
      course.pass();
      continue;
    }
    uint32_t most = 0;
    size_t length = 0;
    for (const auto& [slot, characters_of_gram] : order[n]) {  // the first of the commonest
      if (slot->count > most) {
        most = slot->count;
        length = characters_of_gram;
      }
    }
    if (!course.met(ratio(static_cast<double>(length) * most, characters))) return;
  }
  for (size_t n = kLeastDup; n <= kMostDup; ++n) {
    if (!course.met(ratio(repeated[n], characters))) return;
  }
}

namespace {

// [12], [edit], [citation needed]: Wikipedia's marks.
std::string without_citations(std::string_view line) {
  std::string out;
  for (size_t at = 0; at < line.size();) {
    if (line[at] == '[') {
      size_t end = at + 1;
      while (end < line.size() && line[end] >= '0' && line[end] <= '9') ++end;
      if (end < line.size() && line[end] == ']') {
        at = end + 1;
        continue;
      }
      bool cut = false;
      for (const std::string_view mark : {"[edit]", "[citation needed]"}) {
        if (line.substr(at).starts_with(mark)) {
          at += mark.size();
          cut = true;
          break;
        }
      }
      if (cut) continue;
    }
    out += line[at++];
  }
  return out;
}

// Words between white space: how many, and whether one has more than 1,000 characters.
std::pair<int64_t, bool> count_words(std::string_view line) {
  int64_t count = 0, length = 0;
  bool giant = false;
  for (size_t at = 0; at < line.size();) {
    const utf8::Point next = utf8::decode(line.substr(at));
    at += next.length;
    if (python::is_space(next.value)) {
      length = 0;
      continue;
    }
    if (length == 0) ++count;
    if (++length > 1000) giant = true;
  }
  return {count, giant};
}

}  // namespace

std::string RuleJudge::State::c4(Course& course, std::string_view text, bool is_chinese) {
  constexpr std::string_view kPolicies[] = {"terms of use", "privacy policy", "cookie policy",
                                            "uses cookies", "use of cookies", "use cookies"};
  std::string kept;
  double sentences = 0;
  python::split_lines(text, python::LineEnds::Cut, lines);
  for (const std::string_view full : lines) {
    const std::string_view stripped_line = python::strip(full);
    const auto [word_count, giant] = count_words(stripped_line);
    if (giant) continue;
    const std::string line = without_citations(stripped_line);
    const char32_t last = python::last_point(line);
    const std::u32string_view ends = is_chinese ? U".?!\"'。？！”’" : U".?!\"'";
    if (line.empty() || ends.find(last) == std::u32string_view::npos || line.ends_with("...")) {
      continue;
    }
    if (!is_chinese && word_count < 3) continue;
    if (is_chinese && count_characters(line) < 6) continue;
    const std::string small = ascii_lower(line);
    if (small.find("lorem ipsum") != std::string::npos) {
      course.met(1);
      return kept;
    }
    if (small.find("javascript") != std::string::npos) continue;
    if (line.find('{') != std::string::npos) {
      course.met(0);
      course.met(1);
      return kept;
    }
    if (std::ranges::any_of(kPolicies, [&](std::string_view policy) {
          return small.find(policy) != std::string::npos;
        })) {
      continue;
    }
    sentences += static_cast<double>(count_sentences(line));
    if (!kept.empty()) kept += '\n';
    kept += line;
  }
  course.met(0);
  course.met(0);
  course.met(sentences);
  return std::string(python::strip(kept));
}

void RuleJudge::State::fineweb(Course& course, std::string_view text,
                               std::span<const std::string_view> all_words) {
  std::vector<std::string_view> full;
  double ends = 0, shorts = 0, feeds = 0;
  for (size_t at = 0; at <= text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    const std::string_view line = text.substr(at, end - at);
    feeds += end < text.size();
    at = end + 1;
    if (python::strip(line).empty()) continue;
    full.push_back(line);
    ends += ends_sentence(python::last_point(line));
    shorts += count_characters(line) <= 30;
  }
  const auto count = static_cast<double>(full.size());
  if (!course.met(count)) return;
  if (!course.met(ratio(ends, count))) return;
  if (!course.met(ratio(shorts, count))) return;
  const double characters = static_cast<double>(count_characters(text)) - feeds;
  if (!course.met(ratio(repeats(full).characters, characters))) return;
  course.met(ratio(feeds, static_cast<double>(all_words.size())));
}

std::span<const TextRule> text_rules() { return kRules; }

std::vector<std::string_view> text_rule_sets() {
  return {"gopher", "gopher_repetition", "c4", "fineweb"};
}

RuleJudge::RuleJudge(Thresholds thresholds) : state_(std::make_unique<State>()) {
  for (const TextRule& rule : kRules) {
    state_->thresholds.push_back(rule.threshold);
    state_->chinese.push_back(rule.chinese);
  }
  for (const auto& [name, value] : thresholds) {
    const auto rule = std::ranges::find(kRules, name, &TextRule::name);
    if (rule == std::end(kRules)) {
      std::vector<std::string_view> names;
      for (const TextRule& one : kRules) names.push_back(one.name);
      const std::string near = nearest(name, names);
      throw Error(Kind::Misused, "no rule " + printable(name, 80),
                  near.empty() ? "" : "did you mean " + near + "?");
    }
    const auto index = static_cast<size_t>(rule - kRules);
    state_->thresholds[index] = state_->chinese[index] = value;
  }
}

RuleJudge::~RuleJudge() = default;

RuleOutcome RuleJudge::judge(std::string_view set, std::string_view text, bool chinese, bool all,
                             const See& see) {
  state_->words.clear();
  if (set != "c4") {
    split_words(text, state_->words);
    if (chinese) {  // each Han character is a word
      std::vector<std::string_view> split;
      for (std::string_view word : state_->words) {
        while (!word.empty()) {
          size_t end = 0;
          const bool han = is_han(utf8::decode(word).value);
          do {
            end += utf8::decode(word.substr(end)).length;
          } while (!han && end < word.size() && !is_han(utf8::decode(word.substr(end)).value));
          split.push_back(word.substr(0, end));
          word.remove_prefix(end);
        }
      }
      state_->words = std::move(split);
    }
  }
  return judge(set, text, state_->words, chinese, all, see);
}

RuleOutcome RuleJudge::judge(std::string_view set, std::string_view text,
                             std::span<const std::string_view> words, bool chinese, bool all,
                             const See& see) {
  Course course(set, state_->thresholds, state_->chinese, chinese, all, see);
  RuleOutcome out;
  if (set == "gopher") {
    state_->gopher(course, text, words, chinese);
  } else if (set == "gopher_repetition") {
    state_->repetition(course, text, words);
  } else if (set == "c4") {
    out.text = state_->c4(course, text, chinese);
  } else {
    state_->fineweb(course, text, words);
  }
  out.verdict = course.verdict();
  return out;
}

}  // namespace quern
