// Ranges of code points by class; the data alone. unicode.h is what to use.
#pragma once

#include <cstddef>

namespace quern::unicode {

struct Range {
  char32_t first, last;
};
extern const Range kLetters[];
extern const size_t kLettersCount;
extern const Range kNumbers[];
extern const size_t kNumbersCount;
extern const Range kWhiteSpace[];
extern const size_t kWhiteSpaceCount;

}  // namespace quern::unicode
