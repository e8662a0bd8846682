#include "serve/api.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "core/field_error.h"
#include "serve/api_error.h"
#include "serve/embedding.h"
#include "serve/web_page.h"

namespace quern::serve {
namespace {

using nlohmann::ordered_json;

// "a%2Fb" as "a/b"; nothing where it is malformed.
std::optional<std::string> decode_percent(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      out += text[i];
      continue;
    }
    const auto digit = [&](size_t at) {
      constexpr std::string_view kDigits = "0123456789abcdef";
      const char c = at < text.size() ? text[at] : '?';
      const size_t value = kDigits.find(c >= 'A' && c <= 'F' ? static_cast<char>(c + 32) : c);
      return value == kDigits.npos ? -1 : static_cast<int>(value);
    };
    const int high = digit(i + 1), low = digit(i + 2);
    if (high < 0 || low < 0) return std::nullopt;
    out += static_cast<char>(16 * high + low);
    i += 2;
  }
  return out;
}

}  // namespace

void Call::respond(const ordered_json& body, int status) const {
  HttpResponse response;
  response.status = status;
  response.body = dump(body);
  exchange->respond(std::move(response));
}

Api::Api(Models& models, Gate& gate, Metrics& metrics, TaskPool& pool, const ApiOptions& options)
    : models_(models), gate_(gate), metrics_(metrics), pool_(pool), options_(options) {
  if (!options_.runs.empty()) runs_ = std::make_unique<Runs>(options_.runs);
  endpoints_ = endpoints();
}

std::vector<Api::Endpoint> Api::endpoints() {
  std::vector<Endpoint> out = {
      generating("/v1/chat/completions", plan_chat, make_chat),
      generating("/v1/completions", plan_text, make_text),
      generating("/v1/responses", plan_response, make_response),
      generating("/v1/messages", plan_messages, make_message),
      {"POST", "/v1/embeddings",
       [this](const Call& call) {
         const Body body = Body::parse(call.request().body);
         start_embedding(call.exchange, model_of(body), body.fields, options_.request_seconds);
       }},
      {"POST", "/v1/rerank",
       [this](const Call& call) {
         const auto model = model_of(Body::parse(call.request().body));
         throw FieldError("request", "model",
                          fmt::format("is {}, which has no head that scores documents",
                                      printable(model->name, 100)));
       }},
  };
  add_info_endpoints(out);
  add_token_endpoints(out);
  add_admin_endpoints(out);
  return out;
}

Api::Endpoint Api::generating(std::string_view pattern, MakePlan* plan, MakeGeneration* make) {
  return {"POST", pattern, [this, plan, make](const Call& call) {
            const Body body = Body::parse(call.request().body);
            const auto model = model_of(body);
            Plan wanted = plan(body, *model,
                               {.context = model->worker.context(), .lenient = options_.lenient});
            wanted.model = model->name;
            wanted.base.max_seconds = options_.request_seconds;
            wanted.base.reuse_prefix = true;
            wanted.base.cache_salt = gate_.salt(call.request());
            Generation::start(make(call.exchange, model, std::move(wanted), metrics_));
          }};
}

bool Api::matches(const Endpoint& endpoint, std::string_view path, std::string& rest) {
  std::string_view pattern = endpoint.pattern;
  if (!pattern.ends_with('*')) return path == pattern;
  pattern.remove_suffix(1);
  if (!path.starts_with(pattern)) return false;
  rest = decode_percent(path.substr(pattern.size())).value_or("");
  return true;
}

void Api::handle(std::shared_ptr<Exchange> exchange) {
  const HttpRequest& request = exchange->request();
  // A bare literal would make the choice a temporary string, and the view would outlive it.
  const std::string_view method =
      request.method == "HEAD" ? std::string_view("GET") : std::string_view(request.method);
  std::string allowed;
  if (const WebFile* file = find_web_file(request.path)) {
    if (method == "GET") {
      exchange->respond(web_response(*file, request));
      return;
    }
    allowed = "GET";
  }
  for (const Endpoint& endpoint : endpoints_) {
    Call call = {exchange, {}};
    if (!matches(endpoint, request.path, call.rest)) continue;
    if (endpoint.method != method) {
      allowed += (allowed.empty() ? "" : ", ") + std::string(endpoint.method);
    } else if (endpoint.quick) {
      return run(endpoint, call);
    } else {
      return pool_.post([this, &endpoint, call] { run(endpoint, call); });
    }
  }
  ApiError error = error_of_status(
      allowed.empty() ? 404 : 405,
      allowed.empty()
          ? fmt::format("there is nothing at {}", printable(request.path, 100))
          : fmt::format("{} is not for {}", request.path, printable(request.method, 20)));
  HttpResponse response = error_response(error, error_form(request.path));
  if (!allowed.empty()) response.headers.emplace_back("Allow", allowed);
  exchange->respond(std::move(response));
}

void Api::run(const Endpoint& endpoint, const Call& call) {
  try {
    endpoint.answer(call);
  } catch (...) {
    const ApiError error = error_of(std::current_exception());
    if (error.status == 429) metrics_.count_refusal("overload");
    call.exchange->respond(error_response(error, error_form(call.request().path)));
  }
}

std::shared_ptr<LoadedModel> Api::model_of(const Body& body) {
  return models_.get(body.fields.string_or("model", ""));
}

}  // namespace quern::serve
