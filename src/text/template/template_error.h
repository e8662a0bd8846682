// What can go wrong with a chat template, told apart as Jinja does.
#pragma once

#include <string>

#include "core/error.h"

namespace quern::chat_template {

class TemplateError : public Error {
 public:
  enum class Cause : uint8_t {
    Raise,      // the template's own raise_exception: the conversation is not one it can write
    Undefined,  // something done with what is not there
    Syntax,
    Security,  // beyond what a template may reach
    Limit,     // too many steps, too much text, too deep
    Other,     // what Python would raise: a TypeError, a ValueError
  };

  // `problem` is the bare message, `type` Python's name of an Other.
  TemplateError(Cause cause, const std::string& problem, std::string type = {});

  Cause cause() const noexcept { return cause_; }
  const std::string& problem() const noexcept { return problem_; }
  // "raise", "undefined", "syntax", "security", "limit", "other: TypeError".
  std::string cause_name() const;

 private:
  Cause cause_;
  std::string problem_, type_;
};

[[noreturn]] void fail(TemplateError::Cause cause, const std::string& problem);
[[noreturn]] void fail_type(const std::string& problem);   // a TypeError
[[noreturn]] void fail_value(const std::string& problem);  // a ValueError
[[noreturn]] void fail_overflow();                         // an integer past 64 bits

}  // namespace quern::chat_template
