// Text that comes in pieces, broken between words where a terminal would break within them.
#pragma once

#include <string>
#include <string_view>

namespace quern::cli {

class WordWrap {
 public:
  // Wraps where standard output is a terminal, to its width; elsewhere text goes through as it is.
  WordWrap();
  explicit WordWrap(int columns) : columns_(columns) {}  // 0: none

  // What to print for the next piece. A word that turns out too long for its line is taken back
  // and put on the next one.
  std::string put(std::string_view piece);

 private:
  int columns_;
  int column_ = 0;
  std::string word_;  // the word in progress, as printed
};

}  // namespace quern::cli
