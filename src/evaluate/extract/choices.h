// The letter that a chat model's reply to a multiple-choice question names.
#pragma once

#include <optional>
#include <string>
#include <vector>

namespace quern {

struct ChoiceQuestion {
  std::string question;
  std::vector<std::string> options;  // A, B, ...: four
};

struct ExtractedChoice {
  std::optional<int> option;  // 0 is A
  // Which rule decided: 1 "the answer is X", 2 "X is correct", 3 it begins with X, 4 the first free
  // letter, 5 the option that it is most like; 0 where none did.
  int rule = 0;
};

// The release's rules, which always answer: of an empty reply they make A.
ExtractedChoice chinese_choice(const std::string& reply, const ChoiceQuestion& question);
ExtractedChoice english_choice(const std::string& reply, const ChoiceQuestion& question);

// The better ones: an article is no letter, the reply counts before options in it are rewritten,
// and a reply that is like no option has no answer.
ExtractedChoice chinese_choice_fixed(const std::string& reply, const ChoiceQuestion& question);
ExtractedChoice english_choice_fixed(const std::string& reply, const ChoiceQuestion& question);

}  // namespace quern
