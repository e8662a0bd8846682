// .tiktoken files: a line a token, its bytes in base64, a space, its rank.
#pragma once

#include <string>
#include <vector>

#include "core/file.h"

namespace quern {

struct RankedTokens {
  int64_t first_rank = 0;           // 0, or where an extra vocabulary begins
  std::vector<std::string> tokens;  // by rank, without gaps
};

// Throws BadInput naming the line: bad base64, a rank that is missing, negative, too large or given
// twice, bytes given twice, a gap.
RankedTokens read_tiktoken(const fs::path& path);

// In two steps, for those who would find tokens of equal bytes themselves: of a file's text, which
// `source` names in errors, all but that; and that, which throws for such tokens.
RankedTokens parse_tiktoken(std::string_view text, const std::string& source);
void refuse_equal_tokens(const RankedTokens& tokens, const std::string& source);

// Writes tokens as ranks first_rank, first_rank + 1, ...
void write_tiktoken(const fs::path& path, const RankedTokens& tokens);

}  // namespace quern
