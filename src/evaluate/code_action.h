// Actions written as code, as transformers' agents of 2023 have them: a few lines of Python that
// call tools. The language is a small part of Python, and the tools are stubs that say what they
// were given, so that two programs can be told equal by their values.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "evaluate/judge_programs.h"

namespace quern {

// Assignments, calls of tools and of print, range, float, int, bool, str, texts with values in them,
// lists, dicts, if, for, subscripts and comparisons. A call of something else, or other syntax, ends
// the run: its value is that of the last statement before that gave one.
struct CodeAction {
  std::string code;
  nlohmann::ordered_json inputs;  // ["image"]: their values are <<image>>; or {"prompt": "A dog"}
  nlohmann::ordered_json tools;   // {name, stub_parameters, stub_result, stub_requires} each
  std::vector<std::string> answers;  // programs whose values are right
};

struct CodeActionOutcome {
  int equal = -1;      // the first answer with the code's value; -1: none
  bool holds = false;  // the value is a dict with an answer's value among its own
  std::string value;   // as Python writes it, its first 500 characters
  bool timed_out = false;
};

// Python reads and runs it, in the sandbox. Throws what a broken sandbox throws.
CodeActionOutcome run_code_action(const CodeAction& action, ProgramJudge& programs);

}  // namespace quern
