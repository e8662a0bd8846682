#include "text/template/template_error.h"

namespace quern::chat_template {
namespace {

using Cause = TemplateError::Cause;

constexpr size_t kMaxMessageBytes = 2000;

std::string headline(Cause cause, const std::string& problem, const std::string& type) {
  const std::string text = printable(problem, kMaxMessageBytes);
  switch (cause) {
    case Cause::Raise:
      return "the chat template refuses the conversation: " + text;
    case Cause::Undefined:
      return "the chat template misses something: " + text;
    case Cause::Syntax:
      return "the chat template has a mistake: " + text;
    case Cause::Security:
      return "the chat template reaches beyond its sandbox: " + text;
    case Cause::Limit:
      return "the chat template goes past its limits: " + text;
    case Cause::Other:
      break;
  }
  return "the chat template fails: " + (type.empty() ? "" : type + ": ") + text;
}

}  // namespace

TemplateError::TemplateError(Cause cause, const std::string& problem, std::string type)
    : Error(Kind::BadInput, headline(cause, problem, type)),
      cause_(cause),
      problem_(problem),
      type_(std::move(type)) {}

std::string TemplateError::cause_name() const {
  switch (cause_) {
    case Cause::Raise:
      return "raise";
    case Cause::Undefined:
      return "undefined";
    case Cause::Syntax:
      return "syntax";
    case Cause::Security:
      return "security";
    case Cause::Limit:
      return "limit";
    case Cause::Other:
      break;
  }
  return type_.empty() ? "other" : "other: " + type_;
}

void fail(Cause cause, const std::string& problem) { throw TemplateError(cause, problem); }
void fail_type(const std::string& problem) {
  throw TemplateError(Cause::Other, problem, "TypeError");
}
void fail_value(const std::string& problem) {
  throw TemplateError(Cause::Other, problem, "ValueError");
}
void fail_overflow() {
  throw TemplateError(Cause::Other, "integers past 64 bits are not calculated with",
                      "OverflowError");
}

}  // namespace quern::chat_template
