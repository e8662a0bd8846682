// The number that a worked answer ends in.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "evaluate/item.h"

namespace quern {

// The answer in a base model's text, which goes on with questions of its own.
std::string base_answer(std::string_view text);

// The reference's rule for base models: the last run of digits of any script, so that 1,000 gives
// 000 and 2.50 gives 50.
std::optional<std::string> base_number(std::string_view text);

// The reference's rule for chat models: sign, thousands, decimals.
std::optional<std::string> chat_number(std::string_view text);

// The better rule for both: full-width digits too, and a minus only where it can be one.
std::optional<std::string> fixed_number(std::string_view text);

// Whether both are numbers to Python and at most 1e-4 apart; 018 is none, nor are digits beyond
// ASCII.
bool same_number(const std::string& a, const std::string& b);

// Verdict of a prediction by the base model's rule, which wants equality, and by the better one.
ItemVerdict judge_numbers(std::optional<std::string> parity, std::optional<std::string> fixed,
                          const std::string& gold);

}  // namespace quern
