#include "serve/embedding.h"

#include <fmt/format.h>

#include <cmath>
#include <cstring>
#include <mutex>
#include <nlohmann/json.hpp>

#include "core/base64.h"
#include "core/error.h"
#include "serve/api_error.h"
#include "serve/plan.h"

namespace quern::serve {
namespace {

using nlohmann::ordered_json;

std::string base64_of(const std::vector<float>& values) {
  return base64_encode(
      {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float)});
}

struct Batch {
  std::shared_ptr<Exchange> exchange;
  std::shared_ptr<LoadedModel> model;
  bool as_base64 = false;
  std::optional<int64_t> dimensions;
  int64_t tokens = 0;
  size_t open = 0;
  bool failed = false;
  std::vector<std::vector<float>> vectors;

  // On the worker's thread.
  void done(size_t index, Completion completion) {
    --open;
    if (failed) return;
    if (completion.reason == FinishReason::Failed || completion.embedding.empty()) {
      failed = true;
      exchange->respond(error_response(completion.failure
                                           ? error_of(completion.failure)
                                           : error_of_status(503, "the request was ended")));
      return;
    }
    if (dimensions) completion.embedding.resize(static_cast<size_t>(*dimensions));
    double squares = 0;
    for (const float x : completion.embedding) squares += static_cast<double>(x) * x;
    const auto scale = static_cast<float>(squares > 0 ? 1 / std::sqrt(squares) : 0);
    for (float& x : completion.embedding) x *= scale;
    vectors[index] = std::move(completion.embedding);
    if (open == 0) respond();
  }

  void respond() const {
    ordered_json data = ordered_json::array();
    for (size_t i = 0; i < vectors.size(); ++i) {
      ordered_json entry = {{"object", "embedding"}, {"index", i}};
      entry["embedding"] =
          as_base64 ? ordered_json(base64_of(vectors[i])) : ordered_json(vectors[i]);
      data.push_back(std::move(entry));
    }
    HttpResponse response;
    response.body =
        dump(ordered_json{{"object", "list"},
                          {"data", std::move(data)},
                          {"model", model->name},
                          {"usage", {{"prompt_tokens", tokens}, {"total_tokens", tokens}}}});
    exchange->note("prompt_tokens", std::to_string(tokens));
    exchange->respond(std::move(response));
  }
};

}  // namespace

void start_embedding(std::shared_ptr<Exchange> exchange, std::shared_ptr<LoadedModel> model,
                     const Json& body, double max_seconds) {
  const Parameters given(body, Embeddings);
  const auto batch = std::make_shared<Batch>();
  batch->exchange = std::move(exchange);
  batch->model = std::move(model);
  if (const auto format = given.other("encoding_format")) {
    const std::string& name = format->string();
    if (name != "float" && name != "base64") {
      format->fail(fmt::format("is '{}', expected float or base64", printable(name, 40)));
    }
    batch->as_base64 = name == "base64";
  }
  batch->dimensions = given.integer("dimensions");
  const int64_t width = batch->model->model.config().hidden;
  if (batch->dimensions && *batch->dimensions > width) {
    body.at("dimensions").fail(fmt::format("is {}, but there are {}", *batch->dimensions, width));
  }
  const auto prompts = prompts_of(given.required("input"), batch->model->model, false);
  std::vector<Worker::Job> jobs;
  for (size_t i = 0; i < prompts.size(); ++i) {
    const int64_t context = batch->model->worker.context();
    check_fits(prompts[i], context, context, "input");
    batch->tokens += static_cast<int64_t>(prompts[i].size());
    Request request;
    request.ids = prompts[i];
    request.max_new_tokens = 0;
    request.pooling = Pooling::Mean;
    request.adapter = batch->model->adapter;
    request.max_seconds = max_seconds;
    jobs.push_back({std::move(request),
                    {{}, [batch, i](Completion done) { batch->done(i, std::move(done)); }}});
  }
  batch->open = jobs.size();
  batch->vectors.resize(jobs.size());
  const auto ids = batch->model->worker.submit(std::move(jobs));
  batch->exchange->on_close([weak = std::weak_ptr(batch), ids] {
    if (const auto alive = weak.lock()) alive->model->worker.cancel(ids);
  });
}

}  // namespace quern::serve
