#include "serve/api_error.h"

#include <nlohmann/json.hpp>

#include "core/field_error.h"
#include "core/json.h"
#include "core/log.h"
#include "serve/worker.h"

namespace quern::serve {
namespace {

// Anthropic's types go by the status.
const char* anthropic_type(int status) {
  switch (status) {
    case 401:
      return "authentication_error";
    case 403:
      return "permission_error";
    case 404:
      return "not_found_error";
    case 413:
      return "request_too_large";
    case 429:
      return "rate_limit_error";
    case 503:
      return "overloaded_error";
    default:
      return status >= 500 ? "api_error" : "invalid_request_error";
  }
}

}  // namespace

ErrorForm error_form(std::string_view path) noexcept {
  return path == "/v1/messages" || path.starts_with("/v1/messages/") ? ErrorForm::Anthropic
                                                                     : ErrorForm::OpenAI;
}

std::string error_body(const ApiError& error, ErrorForm form) {
  if (form == ErrorForm::Anthropic) {
    return dump(nlohmann::ordered_json{
        {"type", "error"},
        {"error", {{"type", anthropic_type(error.status)}, {"message", error.message}}}});
  }
  const auto or_null = [](const std::string& text) {
    return text.empty() ? nlohmann::ordered_json() : nlohmann::ordered_json(text);
  };
  nlohmann::ordered_json body = {{"message", error.message},
                                 {"type", error.type},
                                 {"param", or_null(error.param)},
                                 {"code", or_null(error.code)}};
  for (const auto& [name, count] : error.counts) body[name] = count;
  return dump(nlohmann::ordered_json{{"error", std::move(body)}});
}

HttpResponse error_response(const ApiError& error, ErrorForm form) {
  HttpResponse response;
  response.status = error.status;
  response.body = error_body(error, form);
  if (error.retry_after_s) {
    response.headers.emplace_back("Retry-After", std::to_string(*error.retry_after_s));
  }
  if (error.status == 401) response.headers.emplace_back("WWW-Authenticate", "Bearer");
  return response;
}

ApiError error_of_status(int status, std::string message) {
  ApiError error;
  error.status = status;
  error.message = std::move(message);
  if (status >= 500) error.type = "server_error";
  if (status == 503) error.retry_after_s = 1;
  return error;
}

ApiError error_of(std::exception_ptr failure) {
  ApiError out;
  try {
    std::rethrow_exception(failure);
  } catch (const ApiException& known) {
    return known.error();
  } catch (const Overloaded& busy) {
    out = {429, busy.line(), "rate_limit_error", "overloaded", "", busy.retry_after_s()};
  } catch (const Error& error) {
    out.message = error.line();
    switch (error.kind()) {
      case Kind::Misused:
      case Kind::BadInput:
      case Kind::Unsupported:
        if (const auto* field = dynamic_cast<const FieldError*>(&error)) {
          out.param = field->field();
          out.message = Error(error.kind(), field->problem(), error.hint()).line();
        } else if (constexpr std::string_view kSource = "request: ";
                   out.message.starts_with(kSource)) {
          out.message.erase(0, kSource.size());
        }
        break;
      case Kind::NoResources:
        out.status = 429;
        out.type = "rate_limit_error";
        out.code = "overloaded";
        out.retry_after_s = 5;
        break;
      default:
        out.status = 500;
        out.type = "server_error";
    }
  } catch (const std::exception& unknown) {
    log::error("a request failed: " + printable(unknown.what()));
    out = {500, "an internal error", "server_error", "", "", {}};
  }
  return out;
}

}  // namespace quern::serve
