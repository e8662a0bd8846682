// A chat template: Jinja as transformers runs it, by an engine of our own. A template comes with a
// model, from whoever published it: it is bounded in steps, size and depth, sees nothing but what it
// is given, and what it prints says where each byte came from.
#pragma once

#include <string>
#include <string_view>

#include "text/template/interpreter.h"
#include "text/template/syntax_tree.h"

namespace quern::chat_template {

constexpr size_t kMaxTemplateBytes = size_t{1} << 20;

class Template {
 public:
  // Throws TemplateError of the cause Syntax, or Limit for what is too large.
  explicit Template(std::string_view source);

  // Throws TemplateError. Any number of threads may render at once.
  MarkedText render(const Variables& variables, const LocalTime& now,
                    const TemplateLimits& limits = {}) const;

  // Whether it says what the assistant's words are, by {% generation %}.
  bool has_generation() const noexcept { return tree_.has_generation; }
  // Whether it names this variable or member anywhere.
  bool mentions(std::string_view name) const;
  const std::string& source() const noexcept { return source_; }

 private:
  std::string source_;
  SyntaxTree tree_;
};

LocalTime local_time_now();
// "2026-11-30 14:05:09", or the date alone. Throws BadInput for anything else.
LocalTime parse_local_time(const std::string& text);

}  // namespace quern::chat_template
