#include "data/synthetic/text_template.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "core/ascii.h"
#include "core/error.h"
#include "core/json_string.h"
#include "core/python_text.h"

namespace quern {
namespace {

bool starts_name(char c) { return is_ascii_letter(c) || c == '_'; }
bool in_name(char c) { return starts_name(c) || (c >= '0' && c <= '9'); }

std::vector<std::string> split(std::string_view text, std::string_view at) {
  const auto parts = python::split_at(text, at);
  return {parts.begin(), parts.end()};
}

TemplatePart parse_slot(std::string_view inside, const std::string& where) {
  TemplatePart part;
  if (inside.starts_with('=')) {
    part.kind = TemplatePart::Kind::Expression;
    part.text = inside.substr(1);
    return part;
  }
  part.kind = TemplatePart::Kind::Slot;
  if (inside.starts_with('@')) {
    part.kind = TemplatePart::Kind::Structure;
    inside.remove_prefix(1);
  }
  std::vector<std::string> words = split(inside, "|");
  part.path = split(words[0], ".");
  for (const std::string& name : part.path) {
    bool good = !name.empty() && starts_name(name[0]);
    for (const char c : name) good = good && in_name(c);
    if (!good) {
      throw_bad_input(fmt::format("{}: {{{}}} is no slot", where, printable(inside, 60)),
                      "a slot is {name}, {name.field} or {name|filter}; write {{ for a brace");
    }
  }
  part.filters.assign(words.begin() + 1, words.end());
  for (const std::string& filter : part.filters) {
    const auto& known = text_filters();
    if (std::ranges::find(known, filter) != known.end()) continue;
    throw_bad_input(fmt::format("{}: {{{}}} has an unknown filter", where, printable(inside, 60)),
                    fmt::format("did you mean '{}'?", nearest(filter, known)));
  }
  if (part.kind == TemplatePart::Kind::Structure && !part.filters.empty()) {
    throw_bad_input(fmt::format("{}: {{{}}}: a value has no filters, its text has", where,
                                printable(inside, 60)));
  }
  return part;
}

std::string with_commas(std::string text) {
  size_t begin = text.starts_with('-') ? 1 : 0;
  size_t end = std::min(text.find('.'), text.size());
  for (size_t i = begin; i < end; ++i) {
    if (text[i] < '0' || text[i] > '9') return text;
  }
  for (size_t i = end; i > begin + 3;) text.insert(i -= 3, ",");
  return text;
}

std::string words_of(std::string text) {
  int64_t value = 0;
  if (text.empty() || text.size() > 9) return text;
  for (const char c : text) {
    if (c < '0' || c > '9') return text;
    value = value * 10 + (c - '0');
  }
  return number_words(value);
}

std::string with_article(const std::string& text) {
  const bool vowel = !text.empty() && std::string_view("aeiouAEIOU").find(text[0]) != text.npos;
  return fmt::format("{} {}", vowel ? "an" : "a", text);
}

}  // namespace

std::vector<TemplatePart> parse_template(std::string_view text, const std::string& where) {
  std::vector<TemplatePart> parts;
  std::string literal;
  const auto end_literal = [&] {
    if (literal.empty()) return;
    parts.push_back({TemplatePart::Kind::Literal, std::move(literal), {}, {}});
    literal.clear();
  };
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c != '{' && c != '}') {
      literal += c;
      continue;
    }
    if (i + 1 < text.size() && text[i + 1] == c) {
      literal += c;
      ++i;
      continue;
    }
    const size_t end = c == '{' ? text.find('}', i) : text.npos;
    if (end == text.npos) {
      throw_bad_input(fmt::format("{}: a lone {} at byte {}", where, c, i),
                      "write it twice to have a brace in the text");
    }
    end_literal();
    parts.push_back(parse_slot(text.substr(i + 1, end - i - 1), where));
    i = end;
  }
  end_literal();
  for (const TemplatePart& part : parts) {
    if (part.kind == TemplatePart::Kind::Structure && parts.size() > 1) {
      throw_bad_input(where + ": {@...} stands alone in its text", "{...} inserts a value's text");
    }
  }
  return parts;
}

std::string template_text(const TemplatePart& part) {
  std::string out;
  if (part.kind == TemplatePart::Kind::Literal) {
    for (const char c : part.text) out.append(c == '{' || c == '}' ? 2 : 1, c);
    return out;
  }
  if (part.kind == TemplatePart::Kind::Expression) return "{=" + part.text + "}";
  out = part.kind == TemplatePart::Kind::Structure ? "{@" : "{";
  for (size_t i = 0; i < part.path.size(); ++i) {
    if (i > 0) out += '.';
    out += part.path[i];
  }
  for (const std::string& filter : part.filters) out.append("|").append(filter);
  out += '}';
  return out;
}

const std::vector<std::string>& text_filters() {
  static const std::vector<std::string> kFilters = {"upper", "lower",  "capital", "json",
                                                    "a",     "commas", "words",   "join"};
  return kFilters;
}

std::string apply_filter(std::string_view filter, std::string text) {
  if (filter == "upper") {
    for (char& c : text) c = ascii_upper(c);
  } else if (filter == "lower") {
    text = ascii_lower(text);
  } else if (filter == "capital") {
    if (!text.empty()) text[0] = ascii_upper(text[0]);
  } else if (filter == "json") {
    std::string quoted;
    append_json_string(quoted, text);
    quoted.pop_back();
    text.assign(quoted.begin() + 1, quoted.end());
  } else if (filter == "a") {
    text = with_article(text);
  } else if (filter == "commas") {
    text = with_commas(std::move(text));
  } else if (filter == "words") {
    text = words_of(std::move(text));
  }
  return text;  // join has been seen to where the value was a list
}

std::vector<std::vector<std::string>> names_in_expression(std::string_view expression) {
  std::vector<std::vector<std::string>> names;
  for (size_t i = 0; i < expression.size();) {
    const char c = expression[i];
    if (c == '"' || c == '\'') {
      i = std::min(expression.find(c, i + 1), expression.size() - 1) + 1;
      continue;
    }
    if (!starts_name(c)) {
      // A number's exponent is no name.
      const bool digit = c >= '0' && c <= '9';
      ++i;
      while (digit && i < expression.size() && (in_name(expression[i]) || expression[i] == '.'))
        ++i;
      continue;
    }
    size_t end = i;
    while (end < expression.size() && (in_name(expression[end]) || expression[end] == '.')) ++end;
    names.push_back(split(expression.substr(i, end - i), "."));
    i = end;
  }
  return names;
}

std::string number_text(double value) {
  if (value == std::floor(value) && std::abs(value) < 1e15) {
    return fmt::format("{}", static_cast<int64_t>(value));
  }
  return fmt::format("{:.10g}", value);
}

std::string number_words(int64_t value) {
  static constexpr const char* kSmall[] = {
      "zero",     "one",     "two",     "three",     "four",     "five",    "six",
      "seven",    "eight",   "nine",    "ten",       "eleven",   "twelve",  "thirteen",
      "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"};
  static constexpr const char* kTens[] = {"",      "",      "twenty",  "thirty", "forty",
                                          "fifty", "sixty", "seventy", "eighty", "ninety"};
  if (value < 20) return kSmall[value];
  const auto with_rest = [&](int64_t unit, const std::string& head, const char* between) {
    return value % unit == 0 ? head : head + between + number_words(value % unit);
  };
  if (value < 100) return with_rest(10, kTens[value / 10], "-");
  if (value < 1000) return with_rest(100, number_words(value / 100) + " hundred", " and ");
  if (value < 1'000'000) {
    return with_rest(1000, number_words(value / 1000) + " thousand",
                     value % 1000 < 100 ? " and " : " ");
  }
  return with_rest(1'000'000, number_words(value / 1'000'000) + " million",
                   value % 1'000'000 < 100 ? " and " : " ");
}

}  // namespace quern
