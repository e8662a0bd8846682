// Parts that GSM8K and SVAMP share.
#pragma once

#include <string>

#include "evaluate/task.h"

namespace quern {

inline constexpr const char* kGsm8kPublished = "github.com/openai/grade-school-math";

// The worked examples of a file as the release writes them, each followed by a blank line. Its
// prompt file for GSM8K ends with one line break, so that a blank line stands before the question.
std::string worked_examples(const fs::path& path);
std::string gsm8k_prompt(const std::string& examples, const std::string& question);

}  // namespace quern
