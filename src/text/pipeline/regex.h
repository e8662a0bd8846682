// Regular expressions of tokenizer files, which are written for Oniguruma (Ruby's syntax): put into
// PCRE2's syntax, compiled with its JIT, and run within limits, so that no pattern and no text take
// unbounded time or memory.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>

namespace quern {

// The same expression as PCRE2 reads it. What differs: classes within classes and `&&`; `\s`, `\w`,
// `\d`, `\h`, `\v`, `\b`; properties' names; `$` and `^` at every line; `{n,m}+`, which repeats.
// Throws BadInput naming the expression and what in it is not known.
std::string pcre_syntax(std::string_view pattern);

class Regex {
 public:
  // `source` names the file in messages. Throws BadInput for what is no expression.
  Regex(std::string_view pattern, std::string source);
  ~Regex();
  Regex(Regex&&) noexcept;
  Regex& operator=(Regex&&) noexcept;

  // Calls take(begin, end) for every match in `text`, which is valid UTF-8, from left to right. An
  // empty match right behind another match does not count. Throws BadInput where the expression
  // takes too many steps.
  void each_match(std::string_view text, const std::function<void(size_t, size_t)>& take) const;

  const std::string& pattern() const noexcept { return pattern_; }

 private:
  struct Code;
  std::unique_ptr<Code> code_;
  std::string pattern_, source_;
};

}  // namespace quern
