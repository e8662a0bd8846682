// The routes: what a path answers, and where that is worked out.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/json.h"
#include "serve/gate.h"
#include "serve/http.h"
#include "serve/metrics.h"
#include "serve/models.h"
#include "serve/parameters.h"
#include "serve/runs.h"
#include "serve/task_pool.h"

namespace quern::serve {

struct ApiOptions {
  double request_seconds = 600;  // a request ends with what it has
  fs::path runs;                 // folder of training runs to show; empty: none
};

class Api {
 public:
  Api(Models& models, Gate& gate, Metrics& metrics, TaskPool& pool, const ApiOptions& options);

  // Called on the network's thread; answers at once or hands the work on.
  void handle(std::shared_ptr<Exchange> exchange);
  void drain() noexcept { draining_ = true; }

 private:
  using Handler = void (Api::*)(const std::shared_ptr<Exchange>& exchange);
  struct Route {
    std::string_view method, path;
    Handler handler;
    bool quick;  // answered on the network's thread
  };
  static const std::vector<Route>& routes();

  void health(const std::shared_ptr<Exchange>& exchange);
  void ready(const std::shared_ptr<Exchange>& exchange);
  void version(const std::shared_ptr<Exchange>& exchange);
  void metrics(const std::shared_ptr<Exchange>& exchange);
  void list_models(const std::shared_ptr<Exchange>& exchange);
  void one_model(const std::shared_ptr<Exchange>& exchange, std::string_view name);
  void chat(const std::shared_ptr<Exchange>& exchange);
  void text(const std::shared_ptr<Exchange>& exchange);
  void responses(const std::shared_ptr<Exchange>& exchange);
  void embeddings(const std::shared_ptr<Exchange>& exchange);
  void count_tokens(const std::shared_ptr<Exchange>& exchange);
  void tokenize(const std::shared_ptr<Exchange>& exchange);
  void detokenize(const std::shared_ptr<Exchange>& exchange);
  void runs(const std::shared_ptr<Exchange>& exchange);
  void apply_template(const std::shared_ptr<Exchange>& exchange);

  Json body_of(const Exchange& exchange) const;
  std::shared_ptr<LoadedModel> model_of(const Json& body);
  void run(const Route& route, const std::shared_ptr<Exchange>& exchange);
  void generate(const std::shared_ptr<Exchange>& exchange, Where where);

  Models& models_;
  Gate& gate_;
  Metrics& metrics_;
  TaskPool& pool_;
  ApiOptions options_;
  std::unique_ptr<Runs> runs_;
  std::atomic<bool> draining_{false};
};

}  // namespace quern::serve
