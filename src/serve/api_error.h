// Errors as the OpenAI API words them: a status and {"error": {message, type, param, code}}.
#pragma once

#include <exception>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "serve/http.h"

namespace quern::serve {

struct ApiError {
  int status = 400;
  std::string message;
  std::string type = "invalid_request_error";
  std::string code;   // empty: null
  std::string param;  // empty: null
  std::optional<int> retry_after_s;
  std::vector<std::pair<std::string, int64_t>> counts;  // further members of the error
};

// The API that an error is written for: Anthropic's has {"type": "error", "error": {type, message}}.
enum class ErrorForm { OpenAI, Anthropic };
ErrorForm error_form(std::string_view path) noexcept;

// The whole body; in a stream it stands behind "data: ".
std::string error_body(const ApiError& error, ErrorForm form = ErrorForm::OpenAI);
HttpResponse error_response(const ApiError& error, ErrorForm form = ErrorForm::OpenAI);

// For a status that the HTTP layer chose.
ApiError error_of_status(int status, std::string message);

// The API error for an exception that a request threw.
ApiError error_of(std::exception_ptr failure);

// Thrown where a handler knows the status itself.
class ApiException : public std::exception {
 public:
  explicit ApiException(ApiError error) : error_(std::move(error)) {}
  const char* what() const noexcept override { return error_.message.c_str(); }
  const ApiError& error() const noexcept { return error_; }

 private:
  ApiError error_;
};

}  // namespace quern::serve
