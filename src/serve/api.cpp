#include "serve/api.h"

#include <fmt/format.h>

#include <algorithm>
#include <ctime>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "serve/api_error.h"
#include "serve/embedding.h"
#include "serve/format.h"
#include "serve/generation.h"
#include "serve/plan.h"
#include "serve/web_page.h"

namespace quern::serve {
namespace {

using nlohmann::ordered_json;

HttpResponse json_response(const ordered_json& body) {
  HttpResponse response;
  response.body = dump(body);
  return response;
}

constexpr std::string_view kModels = "/v1/models/", kRun = "/runs/data/";

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

// What a page says of a model and sets its controls by; of one that is loaded, its defaults too.
ordered_json card_of(const ModelSource& source, const ModelCard& card, const LoadedModel* loaded) {
  if (!card.problem.empty()) return nullptr;
  ordered_json out = {
      {"family", card.family},
      {"parameters", card.parameters},
      {"bytes", card.bytes},
      {"quantization", card.quantization},
      {"licence", card.licence.empty() ? ordered_json() : ordered_json(card.licence)},
      {"context", source.options.context > 0 ? source.options.context : card.context},
      {"chat", loaded != nullptr ? loaded->model.is_chat() : card.chat_template != "no"}};
  if (loaded == nullptr) return out;
  const SamplingOptions s = loaded->model.default_sampling();
  out["context"] = loaded->model.engine_options().context;
  out["defaults"] = {{"temperature", s.greedy ? 0 : s.temperature},
                     {"top_p", s.top_p},
                     {"top_k", s.top_k},
                     {"min_p", s.min_p},
                     {"repetition_penalty", s.repetition_penalty},
                     {"presence_penalty", s.presence_penalty},
                     {"frequency_penalty", s.frequency_penalty}};
  return out;
}

ordered_json model_entry(const Models& models, size_t index) {
  const ModelSource& source = models.sources()[index];
  const LoadedModel* known = nullptr;
  const auto loaded = models.loaded();
  for (const auto& model : loaded) {
    if (model->name == source.name) known = model.get();
  }
  std::error_code ignored;
  const auto changed = fs::last_write_time(source.folder / "config.json", ignored);
  const auto when = std::chrono::duration_cast<std::chrono::seconds>(
      std::chrono::file_clock::to_sys(changed).time_since_epoch());
  return {{"id", source.name},
          {"object", "model"},
          {"created", ignored ? 0 : when.count()},
          {"owned_by", "quern"},
          {"quern", card_of(source, models.cards()[index], known)}};
}

}  // namespace

Api::Api(Models& models, Gate& gate, Metrics& metrics, TaskPool& pool, const ApiOptions& options)
    : models_(models), gate_(gate), metrics_(metrics), pool_(pool), options_(options) {
  if (!options_.runs.empty()) runs_ = std::make_unique<Runs>(options_.runs);
}

const std::vector<Api::Route>& Api::routes() {
  static const std::vector<Route> kRoutes = {
      {"GET", "/health", &Api::health, true},
      {"GET", "/ready", &Api::ready, true},
      {"GET", "/version", &Api::version, true},
      {"GET", "/metrics", &Api::metrics, true},
      {"GET", "/v1/models", &Api::list_models, true},
      {"GET", "/runs/data", &Api::runs, false},
      {"POST", "/v1/chat/completions", &Api::chat, false},
      {"POST", "/v1/completions", &Api::text, false},
      {"POST", "/v1/responses", &Api::responses, false},
      {"POST", "/v1/embeddings", &Api::embeddings, false},
      {"POST", "/v1/chat/completions/input_tokens", &Api::count_tokens, false},
      {"POST", "/tokenize", &Api::tokenize, false},
      {"POST", "/detokenize", &Api::detokenize, false},
      {"POST", "/apply-template", &Api::apply_template, false},
  };
  return kRoutes;
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
  for (const Route& route : routes()) {
    if (route.path != request.path) continue;
    if (route.method == method) {
      if (route.quick) {
        run(route, exchange);
      } else {
        pool_.post([this, &route, exchange] { run(route, exchange); });
      }
      return;
    }
    allowed += (allowed.empty() ? "" : ", ") + std::string(route.method);
  }
  if (request.path.starts_with(kModels)) {
    if (method == "GET") {
      one_model(exchange, std::string_view(request.path).substr(kModels.size()));
      return;
    }
    allowed = "GET";
  }
  if (request.path.starts_with(kRun)) {
    if (method == "GET") {
      static constexpr Route kOne = {"GET", kRun, &Api::runs, false};
      pool_.post([this, exchange] { run(kOne, exchange); });
      return;
    }
    allowed = "GET";
  }
  ApiError error = error_of_status(
      allowed.empty() ? 404 : 405,
      allowed.empty()
          ? fmt::format("there is nothing at {}", printable(request.path, 100))
          : fmt::format("{} is not for {}", request.path, printable(request.method, 20)));
  HttpResponse response = error_response(error);
  if (!allowed.empty()) response.headers.emplace_back("Allow", allowed);
  exchange->respond(std::move(response));
}

void Api::run(const Route& route, const std::shared_ptr<Exchange>& exchange) {
  try {
    (this->*route.handler)(exchange);
  } catch (...) {
    const ApiError error = error_of(std::current_exception());
    if (error.status == 429) metrics_.count_refusal("overload");
    exchange->respond(error_response(error));
  }
}

Json Api::body_of(const Exchange& exchange) const {
  return Json::parse(exchange.request().body, "request",
                     {.max_bytes = size_t{64} << 20, .max_depth = 64, .max_values = 3'000'000});
}

std::shared_ptr<LoadedModel> Api::model_of(const Json& body) {
  if (!body.is_object()) body.fail("is not a JSON object");
  return models_.get(body.string_or("model", ""));
}

void Api::health(const std::shared_ptr<Exchange>& exchange) {
  exchange->respond(json_response({{"status", "ok"}}));
}

void Api::ready(const std::shared_ptr<Exchange>& exchange) {
  const bool ready = !draining_ && !models_.loaded().empty();
  HttpResponse response = json_response({{"status", ready       ? "ready"
                                                    : draining_ ? "draining"
                                                                : "no model is loaded"}});
  if (!ready) response.status = 503;
  exchange->respond(std::move(response));
}

void Api::version(const std::shared_ptr<Exchange>& exchange) {
  exchange->respond(json_response({{"name", "quern"}, {"version", QUERN_VERSION}}));
}

void Api::metrics(const std::shared_ptr<Exchange>& exchange) {
  std::string out = metrics_.text();
  struct Gauge {
    const char *name, *type, *help;
    double (*value)(const Scheduler::Load&);
  };
  using L = const Scheduler::Load&;
  constexpr Gauge kGauges[] = {
      {"quern_running", "gauge", "Sequences that run.", [](L l) { return double(l.running); }},
      {"quern_waiting", "gauge", "Sequences that wait.", [](L l) { return double(l.waiting); }},
      {"quern_kv_pages", "gauge", "Pages of the KV cache.", [](L l) { return double(l.pages); }},
      {"quern_kv_pages_free", "gauge", "Pages that nothing uses.",
       [](L l) { return double(l.free_pages); }},
      {"quern_kv_pages_kept", "gauge", "Pages that the prefix cache knows.",
       [](L l) { return double(l.kept_pages); }},
      {"quern_prompt_tokens_total", "counter", "Tokens of prompts.",
       [](L l) { return double(l.prompt_tokens); }},
      {"quern_cached_tokens_total", "counter", "Of these, taken from the prefix cache.",
       [](L l) { return double(l.cached_tokens); }},
      {"quern_new_tokens_total", "counter", "Tokens made.",
       [](L l) { return double(l.new_tokens); }},
      {"quern_guessed_tokens_total", "counter", "Tokens guessed.",
       [](L l) { return double(l.guessed_tokens); }},
      {"quern_accepted_tokens_total", "counter", "Guessed tokens that were right.",
       [](L l) { return double(l.accepted_tokens); }},
      {"quern_steps_total", "counter", "Forward passes.", [](L l) { return double(l.steps); }},
      {"quern_step_seconds_total", "counter", "Time in forward passes.",
       [](L l) { return l.step_seconds; }},
      {"quern_preemptions_total", "counter", "Sequences that gave their memory back for a while.",
       [](L l) { return double(l.preemptions); }},
      {"quern_cancellations_total", "counter", "Sequences whose client left.",
       [](L l) { return double(l.cancellations); }},
  };
  std::vector<std::pair<std::string, Scheduler::Load>> loads;
  for (const auto& model : models_.loaded()) {
    std::string label;
    for (const char c : model->name) {
      if (c == '"' || c == '\\') label += '\\';
      if (c >= 0x20 || c < 0) label += c;
    }
    loads.emplace_back("model=\"" + label + "\"", model->worker.load());
  }
  for (const Gauge& gauge : kGauges) {
    std::vector<std::pair<std::string, double>> values;
    for (const auto& [label, load] : loads) values.emplace_back(label, gauge.value(load));
    write_metric(out, gauge.name, gauge.type, gauge.help, values);
  }
  HttpResponse response;
  response.content_type = "text/plain; version=0.0.4; charset=utf-8";
  response.body = std::move(out);
  exchange->respond(std::move(response));
}

void Api::list_models(const std::shared_ptr<Exchange>& exchange) {
  ordered_json list = ordered_json::array();
  for (size_t i = 0; i < models_.sources().size(); ++i) list.push_back(model_entry(models_, i));
  exchange->respond(json_response({{"object", "list"}, {"data", list}}));
}

void Api::one_model(const std::shared_ptr<Exchange>& exchange, std::string_view name) {
  const auto wanted = decode_percent(name);
  for (size_t i = 0; i < models_.sources().size(); ++i) {
    if (wanted == models_.sources()[i].name) {
      exchange->respond(json_response(model_entry(models_, i)));
      return;
    }
  }
  ApiError error = error_of_status(404, "there is no such model here");
  error.code = "model_not_found";
  exchange->respond(error_response(error));
}

void Api::generate(const std::shared_ptr<Exchange>& exchange, Where where) {
  const Json body = body_of(*exchange);
  const auto model = model_of(body);
  const auto plan_of = where == Chat ? plan_chat : where == Responses ? plan_response : plan_text;
  Plan plan = plan_of(body, model->model, model->worker.context());
  if (!plan.format.empty()) apply_format(exchange->request().body, *model, plan);
  plan.model = model->name;
  plan.base.max_seconds = options_.request_seconds;
  // In an 8-bit cache a prompt that is fed in parts has other bytes than one that is fed whole.
  plan.base.reuse_prefix = true;
  plan.base.cache_salt = gate_.salt(exchange->request());
  const auto make = where == Responses ? make_response : make_completions;
  Generation::start(make(exchange, model, std::move(plan), metrics_));
}

void Api::chat(const std::shared_ptr<Exchange>& exchange) { generate(exchange, Chat); }

void Api::text(const std::shared_ptr<Exchange>& exchange) { generate(exchange, Text); }

void Api::responses(const std::shared_ptr<Exchange>& exchange) { generate(exchange, Responses); }

void Api::embeddings(const std::shared_ptr<Exchange>& exchange) {
  const Json body = body_of(*exchange);
  start_embedding(exchange, model_of(body), body, options_.request_seconds);
}

void Api::count_tokens(const std::shared_ptr<Exchange>& exchange) {
  const Json body = body_of(*exchange);
  const auto model = model_of(body);
  constexpr std::string_view kKnown[] = {"model", "messages"};
  only_members(body, kKnown);
  const auto ids = chat_prompt(messages_of(body.at("messages")), model->model);
  exchange->respond(
      json_response({{"object", "response.input_tokens"}, {"input_tokens", ids.size()}}));
}

void Api::tokenize(const std::shared_ptr<Exchange>& exchange) {
  const Json body = body_of(*exchange);
  const auto model = model_of(body);
  constexpr std::string_view kKnown[] = {"model",    "content",       "prompt",
                                         "messages", "parse_special", "with_pieces"};
  only_members(body, kKnown);
  const Tokenizer& tokenizer = model->model.tokenizer();
  std::vector<TokenId> ids;
  if (const auto messages = body.find("messages")) {
    ids = chat_prompt(messages_of(*messages), model->model);
  } else {
    const auto content = body.find("content");
    ids = tokenizer.encode(
        content ? content->string() : body.at("prompt").string(),
        body.boolean_or("parse_special", false) ? SpecialPolicy::all() : SpecialPolicy());
  }
  ordered_json out = {
      {"count", ids.size()}, {"max_model_len", model->worker.context()}, {"tokens", ids}};
  if (body.boolean_or("with_pieces", false)) {
    out["pieces"] = ordered_json::array();
    for (const TokenId id : ids) out["pieces"].push_back(token_text(tokenizer, id));
  }
  exchange->respond(json_response(out));
}

void Api::detokenize(const std::shared_ptr<Exchange>& exchange) {
  const Json body = body_of(*exchange);
  const auto model = model_of(body);
  constexpr std::string_view kKnown[] = {"model", "tokens"};
  only_members(body, kKnown);
  const Tokenizer& tokenizer = model->model.tokenizer();
  std::vector<TokenId> ids;
  for (const Json& id : body.at("tokens").items()) {
    ids.push_back(static_cast<TokenId>(id.integer(0, tokenizer.size() - 1)));
  }
  const std::string text = tokenizer.decode(ids);
  exchange->respond(json_response({{"content", text}, {"prompt", text}}));
}

void Api::runs(const std::shared_ptr<Exchange>& exchange) {
  const HttpRequest& request = exchange->request();
  if (!runs_) {
    ApiError error = error_of_status(404, "no runs are shown here; --runs FOLDER shows them");
    error.code = "no_runs";
    exchange->respond(error_response(error));
  } else if (request.path.starts_with(kRun)) {
    const auto name = decode_percent(std::string_view(request.path).substr(kRun.size()));
    exchange->respond(runs_->one(name.value_or(""), request));
  } else {
    exchange->respond(runs_->list());
  }
}

void Api::apply_template(const std::shared_ptr<Exchange>& exchange) {
  const Json body = body_of(*exchange);
  const auto model = model_of(body);
  constexpr std::string_view kKnown[] = {"model", "messages"};
  only_members(body, kKnown);
  const auto ids = chat_prompt(messages_of(body.at("messages")), model->model);
  exchange->respond(
      json_response({{"prompt", model->model.tokenizer().decode(ids)}, {"tokens", ids}}));
}

}  // namespace quern::serve
