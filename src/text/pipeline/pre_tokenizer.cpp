#include "text/pipeline/pre_tokenizer.h"

#include <algorithm>

#include "formats/byte_level.h"
#include "text/pipeline/characters.h"
#include "text/pipeline/scripts.h"

namespace quern {
namespace {

using Kind = PreTokenizerStep::Kind;
using characters::each;

std::optional<SplitRule> rule_of(const PreTokenizerStep& step) {
  if (step.kind != Kind::Split || !step.pattern.is_regex || step.invert ||
      step.behavior != SplitBehavior::Isolated) {
    return std::nullopt;
  }
  if (step.pattern.text == kQwenPattern) return SplitRule::Qwen2;
  if (step.pattern.text == kLlama3Pattern) return SplitRule::Llama3;
  if (step.pattern.text == kGpt2Pattern) return SplitRule::Gpt2;
  return std::nullopt;
}

// Cuts by what each character is: neighbours of one class are one match, or each its own.
template <class Is>
void match_characters(std::string_view text, size_t offset, Is&& is,
                      std::vector<std::pair<Cut, bool>>& matches) {
  size_t kept = 0;
  each(text, [&](char32_t point, size_t begin, size_t end) {
    if (!is(point)) return;
    if (kept < begin) matches.push_back({{offset + kept, offset + begin}, false});
    matches.push_back({{offset + begin, offset + end}, true});
    kept = end;
  });
  if (kept < text.size()) matches.push_back({{offset + kept, offset + text.size()}, false});
}

// What becomes of matches, in order, and of what lies between them.
void behave(SplitBehavior behavior, const std::vector<std::pair<Cut, bool>>& matches,
            std::vector<Cut>& out) {
  const size_t from = out.size();
  bool last_matched = false;
  const auto put = [&](Cut cut) {
    if (cut.begin < cut.end) out.push_back(cut);
  };
  switch (behavior) {
    case SplitBehavior::Isolated:
      for (const auto& [cut, matched] : matches) put(cut);
      return;
    case SplitBehavior::Removed:
      for (const auto& [cut, matched] : matches) {
        if (!matched) put(cut);
      }
      return;
    case SplitBehavior::Contiguous:
    case SplitBehavior::MergedWithPrevious:
      for (const auto& [cut, matched] : matches) {
        const bool joins = behavior == SplitBehavior::Contiguous ? matched == last_matched
                                                                 : matched && !last_matched;
        if (joins && out.size() > from) {
          out.back().end = cut.end;
        } else {
          out.push_back(cut);
        }
        last_matched = matched;
      }
      break;
    case SplitBehavior::MergedWithNext:
      for (auto it = matches.rbegin(); it != matches.rend(); ++it) {
        if (it->second && !last_matched && out.size() > from) {
          out.back().begin = it->first.begin;
        } else {
          out.push_back(it->first);
        }
        last_matched = it->second;
      }
      std::reverse(out.begin() + static_cast<ptrdiff_t>(from), out.end());
      break;
  }
  out.erase(std::remove_if(out.begin() + static_cast<ptrdiff_t>(from), out.end(),
                           [](const Cut& cut) { return cut.begin == cut.end; }),
            out.end());
}

// Neighbours that are words' characters, and neighbours that are neither those nor white space.
void words(std::string_view text, size_t offset, std::vector<Cut>& out) {
  int last = 0;  // 0 white space, 1 word, 2 other
  each(text, [&](char32_t point, size_t begin, size_t end) {
    const int kind = characters::is_space(point) ? 0 : characters::is_word(point) ? 1 : 2;
    if (kind != 0 && kind == last) {
      out.back().end = offset + end;
    } else if (kind != 0) {
      out.push_back({offset + begin, offset + end});
    }
    last = kind;
  });
}

}  // namespace

PreTokenizer::PreTokenizer(std::vector<PreTokenizerStep> steps, const std::string& source) {
  for (PreTokenizerStep& what : steps) {
    Step step;
    step.rule = rule_of(what);
    if (what.kind == Kind::Split && what.pattern.is_regex && !step.rule) {
      step.regex.emplace(what.pattern.text, source);
    }
    step.what = std::move(what);
    steps_.push_back(std::move(step));
  }
  ends_in_bytes_ = !steps_.empty() && steps_.back().what.kind == Kind::ByteLevel &&
                   std::count_if(steps_.begin(), steps_.end(), [](const Step& step) {
                     return step.what.kind == Kind::ByteLevel;
                   }) == 1;
  find_rule();
}

void PreTokenizer::find_rule() {
  if (!ends_in_bytes_ || steps_.back().what.add_prefix_space) return;
  const PreTokenizerStep& bytes = steps_.back().what;
  if (steps_.size() == 1 && bytes.use_regex) rule_ = SplitRule::Gpt2;
  if (steps_.size() == 2 && !bytes.use_regex) rule_ = steps_[0].rule;
  const bool digits_first = steps_[0].what.kind == Kind::Digits && steps_[0].what.individual_digits;
  if (digits_first &&
      ((steps_.size() == 2 && bytes.use_regex) ||
       (steps_.size() == 3 && !bytes.use_regex && steps_[1].rule == SplitRule::Gpt2))) {
    rule_ = SplitRule::DigitsGpt2;
  }
}

void PreTokenizer::split(const Step& step, const std::string& buffer, Cut piece,
                         std::vector<Cut>& out, Matches& matches) {
  const std::string_view text(buffer.data() + piece.begin, piece.end - piece.begin);
  const auto by_rule = [&](SplitRule rule) {
    const Splitter splitter = splitter_of(rule);
    for (size_t begin = 0; begin < text.size();) {
      const size_t end = splitter.end(text, begin);
      out.push_back({piece.begin + begin, piece.begin + end});
      begin = end;
    }
  };
  matches.clear();
  switch (step.what.kind) {
    case Kind::Bert: {
      std::vector<Cut> black;
      match_characters(text, piece.begin, characters::is_space, matches);
      behave(SplitBehavior::Removed, matches, black);
      for (const Cut& cut : black) {
        matches.clear();
        match_characters(std::string_view(buffer.data() + cut.begin, cut.end - cut.begin),
                         cut.begin, characters::is_punctuation, matches);
        behave(SplitBehavior::Isolated, matches, out);
      }
      return;
    }
    case Kind::Whitespace:
      return words(text, piece.begin, out);
    case Kind::WhitespaceSplit:
      match_characters(text, piece.begin, characters::is_space, matches);
      return behave(SplitBehavior::Removed, matches, out);
    case Kind::Punctuation:
      match_characters(text, piece.begin, characters::is_punctuation, matches);
      return behave(step.what.behavior, matches, out);
    case Kind::Digits:
      match_characters(text, piece.begin, characters::is_number, matches);
      return behave(
          step.what.individual_digits ? SplitBehavior::Isolated : SplitBehavior::Contiguous,
          matches, out);
    case Kind::Scripts:
      return split_scripts(text, [&](size_t begin, size_t end) {
        out.push_back({piece.begin + begin, piece.begin + end});
      });
    case Kind::FixedLength: {
      size_t begin = 0;
      int64_t count = 0;
      each(text, [&](char32_t, size_t, size_t end) {
        if (++count < step.what.length && end < text.size()) return;
        out.push_back({piece.begin + begin, piece.begin + end});
        begin = end;
        count = 0;
      });
      return;
    }
    case Kind::ByteLevel:
      if (!step.what.use_regex) {
        out.push_back(piece);
        return;
      }
      return by_rule(SplitRule::Gpt2);
    case Kind::Metaspace:
      if (!step.what.split) {
        out.push_back(piece);
        return;
      }
      [[fallthrough]];
    case Kind::Delimiter:
    case Kind::Split:
      break;
  }
  if (step.rule) return by_rule(*step.rule);
  const bool metaspace = step.what.kind == Kind::Metaspace;
  const std::string& wanted = metaspace ? step.what.mark : step.what.pattern.text;
  size_t kept = 0;
  const auto take = [&](size_t begin, size_t end) {
    if (kept < begin) {
      matches.push_back({{piece.begin + kept, piece.begin + begin}, step.what.invert});
    }
    matches.push_back({{piece.begin + begin, piece.begin + end}, !step.what.invert});
    kept = end;
  };
  if (step.regex) {
    step.regex->each_match(text, take);
  } else {
    for (size_t at = 0; (at = text.find(wanted, at)) != text.npos; at = kept) {
      take(at, at + wanted.size());
    }
  }
  if (kept < text.size()) {
    matches.push_back({{piece.begin + kept, piece.end}, step.what.invert});
  }
  behave(metaspace ? SplitBehavior::MergedWithNext : step.what.behavior, matches, out);
}

// What a step changes in each piece before, or after, it cuts.
void PreTokenizer::rewrite(const Step& step, bool first, std::string& buffer,
                           std::vector<Cut>& cuts) {
  std::string out;
  out.reserve(buffer.size() + buffer.size() / 4 + 16);
  for (Cut& cut : cuts) {
    std::string_view piece(buffer.data() + cut.begin, cut.end - cut.begin);
    const bool begins = first && cut.begin == 0;
    cut.begin = out.size();
    if (step.what.kind == Kind::Metaspace) {
      const std::string& mark = step.what.mark;
      const bool marks = step.what.prepend == PrependScheme::Always ||
                         (step.what.prepend == PrependScheme::First && begins);
      if (marks && !piece.starts_with(' ') && !piece.starts_with(mark)) out += mark;
      for (const char c : piece) {
        if (c == ' ') {
          out += mark;
        } else {
          out += c;
        }
      }
    } else {
      if (!piece.starts_with(' ')) out += ' ';
      out += piece;
    }
    cut.end = out.size();
  }
  buffer = std::move(out);
}

void PreTokenizer::run(std::string_view text, bool first, std::string& buffer,
                       std::vector<Cut>& cuts) const {
  buffer.assign(text);
  cuts.clear();
  if (!text.empty()) cuts.push_back({0, text.size()});
  std::vector<Cut> next;
  Matches matches;
  for (const Step& step : steps_) {
    const bool prefixes = step.what.kind == Kind::ByteLevel && step.what.add_prefix_space;
    if (step.what.kind == Kind::Metaspace || prefixes) rewrite(step, first, buffer, cuts);
    next.clear();
    for (const Cut& cut : cuts) split(step, buffer, cut, next, matches);
    cuts.swap(next);
    if (step.what.kind != Kind::ByteLevel || ends_in_bytes_) continue;
    std::string letters;
    for (Cut& cut : cuts) {
      const std::string piece =
          bytes_to_byte_level({buffer.data() + cut.begin, cut.end - cut.begin});
      cut.begin = letters.size();
      letters += piece;
      cut.end = letters.size();
    }
    buffer = std::move(letters);
  }
  buffer.append(kReadAhead, '\xFF');
}

}  // namespace quern
