// The questions of evaluation sets, as decontamination looks for them in text.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/file.h"

namespace quern {

struct Question {
  std::string task;  // folder and name of its file: "gsm8k/test", "ceval/val/law_val"
  std::string id;    // its `id` or `task_id`, else "line 7" or "row 7", from 1
  std::string text;
};

// Questions of `files`: JSONL (also .gz, .zst) and CSV; of a folder, all of these in it
// and below. The text is in `field`; empty: in the first of question, prompt, query and text that a
// record has. A CSV file whose first row names no such column has no header, and questions in its
// first column. Throws BadInput for a file or a record that has no question.
std::vector<Question> read_questions(const std::vector<std::string>& files,
                                     const std::string& field);

}  // namespace quern
