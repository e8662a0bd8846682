#include "serve/api_error.h"

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/json.h"
#include "core/log.h"
#include "serve/parameters.h"
#include "serve/worker.h"

namespace quern::serve {
namespace {

constexpr std::string_view kSource = "request: ";

// "request: top_p is 2, ..." is about top_p, "request: messages[0].role is ..." about that.
std::string parameter_of(std::string_view message) {
  constexpr std::string_view kLacks = "request lacks the member '";
  if (message.starts_with(kLacks)) {
    message.remove_prefix(kLacks.size());
    return std::string(message.substr(0, message.find('\'')));
  }
  if (!message.starts_with(kSource)) return {};
  message.remove_prefix(kSource.size());
  std::string_view path = message.substr(0, message.find(' '));
  if (path.ends_with(':')) path.remove_suffix(1);
  const bool about_a_name = message.find(" is not a parameter of ") != message.npos ||
                            message.find(" is not known here") != message.npos;
  const bool known = is_parameter(path.substr(0, path.find_first_of(".[")));
  return known || about_a_name ? std::string(path) : "";
}

}  // namespace

std::string error_body(const ApiError& error) {
  const auto or_null = [](const std::string& text) {
    return text.empty() ? nlohmann::ordered_json() : nlohmann::ordered_json(text);
  };
  return dump(nlohmann::ordered_json{{"error",
                                      {{"message", error.message},
                                       {"type", error.type},
                                       {"param", or_null(error.param)},
                                       {"code", or_null(error.code)}}}});
}

HttpResponse error_response(const ApiError& error) {
  HttpResponse response;
  response.status = error.status;
  response.body = error_body(error);
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
        out.param = parameter_of(error.what());
        if (out.message.starts_with(kSource)) out.message.erase(0, kSource.size());
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
