#include "core/field_error.h"

namespace quern {

FieldError::FieldError(const std::string& source, std::string field, const std::string& problem,
                       std::string hint)
    : Error(Kind::BadInput, source + (field.empty() ? " " : ": " + field + " ") + problem,
            std::move(hint)),
      field_(std::move(field)),
      problem_(field_.empty() ? problem : field_ + " " + problem) {}

namespace {

FieldError error_at(const std::string& where, const std::string& problem, std::string hint) {
  const size_t end = where.find(": ");
  const std::string field = end == where.npos ? "" : where.substr(end + 2);
  return {where.substr(0, end), field, problem, std::move(hint)};
}

}  // namespace

void throw_bad_field(const std::string& where, const std::string& problem, std::string hint) {
  throw error_at(where, problem, std::move(hint));
}

void throw_missing_field(const std::string& where, std::string_view key) {
  FieldError error = error_at(where, "lacks the member '" + std::string(key) + "'", {});
  error.field_ += (error.field_.empty() ? "" : ".") + std::string(key);
  throw error;
}

}  // namespace quern
