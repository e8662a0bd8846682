#include "grammar/regex.h"

#include <fmt/format.h>
#include <utf8proc.h>

#include <algorithm>

#include "core/error.h"
#include "grammar/notation.h"

namespace quern {
namespace {

using NodeKind = RegexNode::Kind;
using Symbol = Grammar::Symbol;
using Sequence = Grammar::Sequence;

Regex make(RegexNode node) { return std::make_shared<const RegexNode>(std::move(node)); }
Regex characters(CodePoints set) {
  return make({.kind = NodeKind::Characters, .set = std::move(set), .parts = {}});
}
Regex sequence(std::vector<Regex> parts) {
  return parts.size() == 1
             ? parts[0]
             : make({.kind = NodeKind::Sequence, .set = {}, .parts = std::move(parts)});
}
Regex choice(std::vector<Regex> parts) {
  return parts.size() == 1 ? parts[0]
                           : make({.kind = NodeKind::Choice, .set = {}, .parts = std::move(parts)});
}
Regex repeat(Regex part, int64_t least, int64_t most) {
  return make({.kind = NodeKind::Repeat,
               .set = {},
               .parts = {std::move(part)},
               .least = least,
               .most = most});
}
Regex anything() { return repeat(characters({{0, kLastPoint}}), 0, -1); }

// What \d, \w and \s are in the dialect that takes them the widest: whole categories of Unicode.
CodePoints of_categories(std::initializer_list<utf8proc_category_t> categories) {
  CodePoints out;
  for (uint32_t point = 0; point <= kLastPoint; ++point) {
    const auto category = utf8proc_category(static_cast<utf8proc_int32_t>(point));
    if (std::ranges::find(categories, category) == categories.end()) continue;
    if (!out.empty() && out.back().second + 1 == point) {
      out.back().second = point;
    } else {
      out.emplace_back(point, point);
    }
  }
  return out;
}
const CodePoints& all_digits() {
  static const CodePoints kAll = of_categories({UTF8PROC_CATEGORY_ND});
  return kAll;
}
const CodePoints& all_word() {
  static const CodePoints kAll = of_categories(
      {UTF8PROC_CATEGORY_LU, UTF8PROC_CATEGORY_LL, UTF8PROC_CATEGORY_LT, UTF8PROC_CATEGORY_LM,
       UTF8PROC_CATEGORY_LO, UTF8PROC_CATEGORY_MN, UTF8PROC_CATEGORY_MC, UTF8PROC_CATEGORY_ME,
       UTF8PROC_CATEGORY_ND, UTF8PROC_CATEGORY_NL, UTF8PROC_CATEGORY_NO, UTF8PROC_CATEGORY_PC});
  return kAll;
}
CodePoints all_blank() {
  return {{'\t', '\r'},     {0x1C, ' '},      {0x85, 0x85},     {0xA0, 0xA0},
          {0x1680, 0x1680}, {0x180E, 0x180E}, {0x2000, 0x200A}, {0x2028, 0x2029},
          {0x202F, 0x202F}, {0x205F, 0x205F}, {0x3000, 0x3000}, {0xFEFF, 0xFEFF}};
}

class RegexReader : NotationReader {
 public:
  RegexReader(std::string_view text, RegexUse use)
      : NotationReader(text, "the regular expression"), use_(use) {}

  Regex parse() {
    Regex root = body();
    if (!done()) fail("a ) too many");
    return root;
  }

 private:
  Regex body() {
    if (++depth_ > kMaxNesting) fail("the groups are nested too deeply");
    const bool outermost = depth_ == 1;
    std::vector<Regex> list;
    do {
      std::vector<Regex> parts;
      const bool from_start = outermost && take("^");
      bool to_end = false;
      while (!done() && peek() != ')' && peek() != '|') {
        if (outermost && take("$")) {
          if (!done() && peek() != '|') fail("$ can only stand at the end; \\$ is the character");
          to_end = true;
          break;
        }
        parts.push_back(repeated(item()));
      }
      if (use_ == RegexUse::Search && outermost) {
        if (!from_start) parts.insert(parts.begin(), anything());
        if (!to_end) parts.push_back(anything());
      }
      list.push_back(sequence(std::move(parts)));
    } while (take("|"));
    --depth_;
    return choice(std::move(list));
  }

  Regex repeated(Regex part) {
    int64_t least = 1, most = 1;
    if (!repetition(least, most)) return part;
    // Lazy or not, the whole text is the same.
    take("?");
    if (peek() == '?' || peek() == '+' || peek() == '*' || peek() == '{') {
      fail("a repetition of a repetition");
    }
    return repeat(std::move(part), least, most);
  }

  Regex item() {
    if (take("(")) {
      if (take("?") && !take(":")) {
        const bool python = take("P");
        const bool named = take("<") && peek() != '=' && peek() != '!';
        if (!named) {
          fail(python ? "of groups with (?P only names are known"
                      : "of groups with (? only (?: and names are known");
        }
        while (!take(">")) {
          const char c = peek();
          const bool good = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' ||
                            (c >= '0' && c <= '9');
          if (!good) fail("the group's name has no end");
          ++at_;
        }
      }
      Regex group = body();
      if (!take(")")) fail("expected )");
      return group;
    }
    if (take("[")) return characters(character_class());
    // What ends a line differs; none of it is written.
    if (take(".")) {
      return characters(Grammar::complement({{'\n', '\n'}, {'\r', '\r'}, {0x2028, 0x2029}}));
    }
    if (take("\\")) return characters(escape());
    constexpr std::string_view kSpecial = "^$*+?{}]";
    if (kSpecial.find(peek()) != kSpecial.npos) {
      fail(fmt::format("{} cannot stand here; \\{} is the character", peek(), peek()));
    }
    return characters(single(point()));
  }

  CodePoints own_escape(uint32_t c, bool widest) override {
    const CodePoints digits = {{'0', '9'}};
    const CodePoints word = {{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}};
    const CodePoints blank = {{'\t', '\r'}, {' ', ' '}};
    switch (c) {
      case 'd':
        return widest ? all_digits() : digits;
      case 'w':
        return widest ? all_word() : word;
      case 's':
        return widest ? all_blank() : blank;
      case 'D':
        return Grammar::complement(widest ? digits : all_digits());
      case 'W':
        return Grammar::complement(widest ? word : all_word());
      case 'S':
        return Grammar::complement(widest ? blank : all_blank());
      case 'f':
        return single('\f');
      case 'v':
        return single('\v');
      case '0':
        if (peek() >= '0' && peek() <= '9') fail("octal escapes are not known");
        return single(0);
      default:
        // Whatever re.escape and its like put a backslash before.
        return plain_escape(c, " \t\n\r\v\f!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~");
    }
  }

  RegexUse use_;
};

// What fits without the empty text; null when nothing is left.
Regex without_empty(const Regex& regex) {
  if (!may_be_empty(regex)) return regex;
  switch (regex->kind) {
    case NodeKind::Characters:
      return regex;
    case NodeKind::Sequence: {
      // The first part that is not empty, with all that follows.
      std::vector<Regex> list;
      for (size_t i = 0; i < regex->parts.size(); ++i) {
        const Regex begin = without_empty(regex->parts[i]);
        if (!begin) continue;
        std::vector<Regex> parts = {begin};
        parts.insert(parts.end(), regex->parts.begin() + static_cast<int64_t>(i) + 1,
                     regex->parts.end());
        list.push_back(sequence(std::move(parts)));
      }
      return list.empty() ? nullptr : choice(std::move(list));
    }
    case NodeKind::Choice: {
      std::vector<Regex> list;
      for (const Regex& part : regex->parts) {
        if (Regex some = without_empty(part)) list.push_back(std::move(some));
      }
      return list.empty() ? nullptr : choice(std::move(list));
    }
    case NodeKind::Repeat: {
      const Regex part = without_empty(regex->parts[0]);
      if (!part || regex->most == 0) return nullptr;
      return repeat(part, 1, regex->most);
    }
  }
  return nullptr;
}

}  // namespace

Regex parse_regex(std::string_view pattern, RegexUse use) {
  return RegexReader(pattern, use).parse();
}

bool may_be_empty(const Regex& regex) { return shortest(regex) == 0; }

int64_t shortest(const Regex& regex) {
  constexpr int64_t kMost = int64_t{1} << 40;
  switch (regex->kind) {
    case NodeKind::Characters:
      return 1;
    case NodeKind::Sequence: {
      int64_t sum = 0;
      for (const Regex& part : regex->parts) sum = std::min(kMost, sum + shortest(part));
      return sum;
    }
    case NodeKind::Choice: {
      int64_t least = kMost;
      for (const Regex& part : regex->parts) least = std::min(least, shortest(part));
      return least;
    }
    case NodeKind::Repeat: {
      const int64_t one = shortest(regex->parts[0]);
      return one == 0 || regex->least == 0 ? 0
             : one > kMost / regex->least  ? kMost
                                           : one * regex->least;
    }
  }
  return 0;
}

int64_t longest(const Regex& regex) {
  constexpr int64_t kMost = int64_t{1} << 40;
  switch (regex->kind) {
    case NodeKind::Characters:
      return 1;
    case NodeKind::Sequence: {
      int64_t sum = 0;
      for (const Regex& part : regex->parts) {
        const int64_t one = longest(part);
        if (one < 0) return -1;
        sum = std::min(kMost, sum + one);
      }
      return sum;
    }
    case NodeKind::Choice: {
      int64_t most = 0;
      for (const Regex& part : regex->parts) {
        const int64_t one = longest(part);
        if (one < 0) return -1;
        most = std::max(most, one);
      }
      return most;
    }
    case NodeKind::Repeat: {
      const int64_t one = longest(regex->parts[0]);
      if (one == 0 || regex->most == 0) return 0;
      if (one < 0 || regex->most < 0) return -1;
      return one > kMost / regex->most ? kMost : one * regex->most;
    }
  }
  return -1;
}

Symbol add_regex(Grammar& grammar, const Regex& regex, const Writer& write) {
  switch (regex->kind) {
    case NodeKind::Characters:
      return write(grammar, regex->set);
    case NodeKind::Sequence: {
      Sequence parts;
      for (const Regex& part : regex->parts) parts.push_back(add_regex(grammar, part, write));
      const uint32_t rule = grammar.new_rule();
      grammar.add(rule, parts);
      return Grammar::of_rule(rule);
    }
    case NodeKind::Choice: {
      std::vector<Symbol> list;
      for (const Regex& part : regex->parts) list.push_back(add_regex(grammar, part, write));
      const uint32_t rule = grammar.new_rule();
      for (const Symbol& symbol : list) grammar.add(rule, {symbol});
      return Grammar::of_rule(rule);
    }
    case NodeKind::Repeat: {
      // Repeating what may be empty would begin with itself.
      const Regex some = without_empty(regex->parts[0]);
      if (!some) {
        const uint32_t rule = grammar.new_rule();
        grammar.add(rule, {});
        return Grammar::of_rule(rule);
      }
      const int64_t least = may_be_empty(regex->parts[0]) ? 0 : regex->least;
      return grammar.repeat({add_regex(grammar, some, write)}, least, regex->most);
    }
  }
  return {};
}

Grammar grammar_from_regex(std::string_view pattern) {
  Grammar grammar;
  const Writer raw = [](Grammar& g, const CodePoints& set) { return g.characters(set); };
  const Symbol root = add_regex(grammar, parse_regex(pattern, RegexUse::Whole), raw);
  const uint32_t rule = grammar.new_rule();
  grammar.add(rule, {root});
  grammar.finish(rule);
  return grammar;
}

}  // namespace quern
