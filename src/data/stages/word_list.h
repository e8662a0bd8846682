// A list of words or phrases, and how often a text holds them.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace quern {

class WordList {
 public:
  // One a line, blank lines and those that begin with # left out. Throws BadInput for bad UTF-8 or a
  // list without words.
  WordList(std::string_view lines, const std::string& source);

  // Places where an entry stands, letters in any case. Beside an entry's first and last letter no
  // letter or digit may stand, but in scripts that write no spaces (Han, kana, Thai).
  int64_t count(std::string_view text) const;

 private:
  std::unordered_map<char32_t, std::vector<std::u32string>> by_first_;
};

}  // namespace quern
