// ROUGE-L of two sequences of tokens (Lin 2004): their longest common subsequence.
#pragma once

#include <span>
#include <string_view>

namespace quern {

struct RougeScore {
  double precision = 0, recall = 0, f1 = 0;  // all 0 where a side is empty
};

// Time grows with the product of the lengths over 64.
RougeScore rouge_l(std::span<const std::string_view> hypothesis,
                   std::span<const std::string_view> reference);

// Texts are split at white space.
RougeScore rouge_l(std::string_view hypothesis, std::string_view reference);

}  // namespace quern
