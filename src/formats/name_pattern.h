// Regular expressions over names of modules and files, as Python's `re` has them for such: through
// PCRE2, with limits on how far it may search.
#pragma once

#include <memory>
#include <string>
#include <string_view>

namespace quern {

class NamePattern {
 public:
  // Throws BadInput that begins with `where` and names the pattern where it is none.
  NamePattern(std::string_view pattern, const std::string& where);

  // Whether the whole name matches. Throws BadInput where the search passes its limits.
  bool matches(std::string_view name) const;

  const std::string& text() const noexcept { return text_; }

 private:
  std::string text_, where_;
  std::shared_ptr<void> code_;
};

}  // namespace quern
