// Routes about the server itself: health, models, metrics.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/json.h"
#include "serve/api.h"
#include "serve/api_error.h"

namespace quern::serve {
namespace {

using nlohmann::ordered_json;

// The facts of a model that the web page shows and sets its controls by; for a loaded model with its
// defaults.
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

ordered_json model_entry(const Models& models, const Models::Entry& entry) {
  const ModelSource& source = entry.source;
  const LoadedModel* known = nullptr;
  const auto loaded = models.loaded();
  for (const auto& model : loaded) {
    if (model->name == source.name) known = model.get();
  }
  std::error_code ignored;
  const auto changed = fs::last_write_time(source.folder / "config.json", ignored);
  const auto when = std::chrono::duration_cast<std::chrono::seconds>(
      std::chrono::file_clock::to_sys(changed).time_since_epoch());
  ordered_json out = {{"id", source.name},
                      {"object", "model"},
                      {"created", ignored ? 0 : when.count()},
                      {"owned_by", "quern"}};
  if (!source.base.empty()) out["parent"] = source.base;
  out["quern"] = card_of(source, entry.card, known);
  return out;
}

}  // namespace

void Api::add_info_endpoints(std::vector<Endpoint>& out) {
  const auto add = [&](std::string_view pattern, std::function<void(const Call&)> answer,
                       bool quick = true) {
    out.push_back({"GET", pattern, std::move(answer), quick});
  };
  add("/health", [](const Call& call) { call.respond({{"status", "ok"}}); });
  add("/ready", [this](const Call& call) { ready(call); });
  add("/version", [](const Call& call) {
    call.respond({{"name", "quern"}, {"version", QUERN_VERSION}});
  });
  add("/metrics", [this](const Call& call) { metrics(call); });
  add("/v1/models", [this](const Call& call) {
    ordered_json list = ordered_json::array();
    for (const auto& entry : models_.entries()) list.push_back(model_entry(models_, *entry));
    call.respond({{"object", "list"}, {"data", std::move(list)}});
  });
  add("/v1/models/*", [this](const Call& call) { one_model(call); });
  add(
      "/props", [this](const Call& call) { properties(call); }, false);
  add("/slots", [this](const Call& call) { slots(call); });
  add(
      "/runs/data", [this](const Call& call) { runs(call); }, false);
  add(
      "/runs/data/*", [this](const Call& call) { runs(call); }, false);
}

void Api::ready(const Call& call) {
  const bool ready = !draining_ && !models_.loaded().empty();
  call.respond({{"status", ready       ? "ready"
                           : draining_ ? "draining"
                                       : "no model is loaded"}},
               ready ? 200 : 503);
}

void Api::metrics(const Call& call) {
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
    if (model->shares_its_base()) continue;
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
  call.exchange->respond(std::move(response));
}

void Api::one_model(const Call& call) {
  for (const auto& entry : models_.entries()) {
    if (call.rest == entry->source.name) return call.respond(model_entry(models_, *entry));
  }
  ApiError error = error_of_status(404, "there is no such model here");
  error.code = "model_not_found";
  call.exchange->respond(error_response(error));
}

// In llama-server's words, about the first model.
void Api::properties(const Call& call) {
  const auto model = models_.get("");
  const SamplingOptions sampling = model->model.default_sampling();
  call.respond(
      {{"default_generation_settings",
        {{"n_ctx", model->worker.context()},
         {"params",
          {{"temperature", sampling.is_greedy() ? 0 : sampling.temperature},
           {"top_k", sampling.top_k},
           {"top_p", sampling.top_p},
           {"min_p", sampling.min_p},
           {"typical_p", sampling.typical_p},
           {"repeat_penalty", sampling.repetition_penalty},
           {"presence_penalty", sampling.presence_penalty},
           {"frequency_penalty", sampling.frequency_penalty}}}}},
       {"total_slots", model->worker.sequences()},
       {"model_alias", model->name},
       {"model_path", model->name},  // where it lies is nobody's business
       {"modalities", {{"vision", false}, {"audio", false}}},
       {"chat_format", model->model.is_chat() ? std::string(model->model.chat().title()) : ""},
       {"build_info", "quern-" QUERN_VERSION}});
}

// One entry for each sequence that may run at once, of all loaded models.
void Api::slots(const Call& call) {
  ordered_json list = ordered_json::array();
  for (const auto& model : models_.loaded()) {
    if (model->shares_its_base()) continue;
    const Scheduler::Load load = model->worker.load();
    for (int64_t i = 0; i < model->worker.sequences(); ++i) {
      list.push_back({{"id", list.size()},
                      {"model", model->name},
                      {"n_ctx", model->worker.context()},
                      {"is_processing", i < load.running}});
    }
  }
  call.respond(list);
}

void Api::runs(const Call& call) {
  if (!runs_) {
    ApiError error = error_of_status(404, "no runs are shown here; --runs FOLDER shows them");
    error.code = "no_runs";
    call.exchange->respond(error_response(error));
  } else if (call.request().path.starts_with("/runs/data/")) {
    call.exchange->respond(runs_->one(call.rest, call.request()));
  } else {
    call.exchange->respond(runs_->list());
  }
}

}  // namespace quern::serve
