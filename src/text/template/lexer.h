// A template's source as tokens. The environment is that of transformers: trim_blocks and
// lstrip_blocks on, one line feed at the end dropped, no line statements.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace quern::chat_template {

struct Token {
  enum class Kind : uint8_t {
    Data,  // text between tags, as it is printed
    BlockBegin,
    BlockEnd,
    VariableBegin,
    VariableEnd,
    Name,
    String,
    Integer,
    Float,
    Operator,
    End,
  };
  Kind kind = Kind::End;
  std::string text;  // of a String what it stands for, of numbers the digits without _
  int line = 1;
};

// Throws TemplateError of the cause Syntax.
std::vector<Token> tokenize_template(std::string_view source);

}  // namespace quern::chat_template
