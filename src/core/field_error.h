// An error about one field of a document, which it carries: whoever answers a request tells its
// client which parameter is meant without reading our sentences.
#pragma once

#include <string>
#include <string_view>

#include "core/error.h"

namespace quern {

// The object at `where`, "source: field", has no member `key`, which is the field that the error is
// about.
[[noreturn]] void throw_missing_field(const std::string& where, std::string_view key);

class FieldError : public Error {
 public:
  // what() is "source: field problem", or "source problem" for the document as a whole.
  FieldError(const std::string& source, std::string field, const std::string& problem,
             std::string hint = {});

  // "messages[2].role"; empty for the document as a whole. May be longer than the path that the
  // message shows: of a missing member it ends with that member.
  const std::string& field() const noexcept { return field_; }
  // The message without the source.
  const std::string& problem() const noexcept { return problem_; }

 private:
  friend void throw_missing_field(const std::string& where, std::string_view key);
  std::string field_, problem_;
};

// For a path made as "source: field".
[[noreturn]] void throw_bad_field(const std::string& where, const std::string& problem,
                                  std::string hint = {});

}  // namespace quern
