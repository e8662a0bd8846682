// Texts with slots: "A {size} {animal.name|upper} costs {=price * 2} dollars."
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace quern {

struct TemplatePart {
  enum class Kind : uint8_t {
    Literal,
    Slot,        // {name.field|filter}
    Expression,  // {=a * b}
    Structure,   // {@name.field}, the whole text: the value itself instead of its text
  };
  Kind kind = Kind::Literal;
  std::string text;                  // the literal, or the expression
  std::vector<std::string> path;     // of a slot: a name and the fields below it
  std::vector<std::string> filters;  // in the order they are applied
};

// "{{" and "}}" are braces. Throws BadInput that begins with `where`.
std::vector<TemplatePart> parse_template(std::string_view text, const std::string& where);

// A part as it is written in a template.
std::string template_text(const TemplatePart& part);

// What {slot|filter} may name; `filter` is among text_filters().
const std::vector<std::string>& text_filters();
std::string apply_filter(std::string_view filter, std::string text);

// The names that an expression reads, "price" of "price * 2 > 10".
std::vector<std::vector<std::string>> names_in_expression(std::string_view expression);

// A number as a text: whole ones without a point, others with up to ten digits.
std::string number_text(double value);
// 0 to 999,999,999 in English: "twenty-one".
std::string number_words(int64_t value);

}  // namespace quern
