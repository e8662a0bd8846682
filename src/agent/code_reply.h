// Actions written as code: the model says which functions it will use and writes a program that calls
// them, as transformers' agents of 2023 do. Here the prompt, and the reading of replies.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "core/ordered_json.h"
#include "text/messages.h"

namespace quern {

// What an answer begins with.
inline constexpr std::string_view kCodeBegin = "I will use the following";

// A tool's or parameter's name in Python: what is no letter or digit becomes "_", a keyword gets one
// behind it.
std::string code_name(std::string_view name);

// "calculator(expression)": the parameters by their names, those that may be left out as name=None.
std::string code_signature(std::string_view tool, const OrderedJson& parameters);

// A call as Python writes it: calculator(expression="2+3").
std::string code_call(std::string_view tool, const OrderedJson& arguments);

// Python that defines the functions of these tools (OpenAI's form) by `_call(name, arguments)`.
std::string code_functions(const OrderedJson& tools);

// The message that explains the form and names the tools, OpenAI's list.
std::string code_instructions(const OrderedJson& tools);

struct CodeReply {
  std::string thought;  // what stands before the program, without the mark "Answer:"
  std::string code;     // of the first fenced block; empty: there is none
};
CodeReply parse_code_reply(std::string_view reply);

}  // namespace quern
