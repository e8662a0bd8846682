// Regular expressions read as Python's re reads them over str: \b, \s and \d know Unicode, $ stands
// also before a last line break. Matching is bounded, whatever the text.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace quern::python {

struct Match {
  size_t begin = 0, end = 0;            // bytes of the text
  std::vector<std::string_view> group;  // 0 is the whole; one that took no part has data() null
};

class Regex {
 public:
  enum class Case { Kept, Ignored };
  // `pattern` in PCRE2's syntax; it is ours, so a fault in it is a bug and throws Failed.
  explicit Regex(const std::string& pattern, Case letters = Case::Kept);
  // Matches `text` itself, nothing in it having a meaning.
  static Regex literal(std::string_view text, Case letters);
  ~Regex();
  Regex(Regex&&) noexcept;
  Regex& operator=(Regex&&) noexcept;

  // The first match. Text that is not UTF-8 has none. Throws Failed where the match takes more
  // steps than kMaxSteps.
  std::optional<Match> search(std::string_view text) const;
  // The last of the matches that follow one another from left to right.
  std::optional<Match> last(std::string_view text) const;
  // re.sub() with a plain text.
  std::string replace_all(std::string_view text, std::string_view with) const;

  static constexpr uint32_t kMaxSteps = 20'000'000;

 private:
  struct Code;
  explicit Regex(std::unique_ptr<Code> code);
  // The first match from `from` on, in valid UTF-8.
  std::optional<Match> search_from(std::string_view text, size_t from) const;

  std::unique_ptr<Code> code_;
};

}  // namespace quern::python
