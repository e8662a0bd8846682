// The routes: an endpoint is a row that says which path it has and who answers. Rows that generate
// are a path, a plan and an encoder.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "serve/body.h"
#include "serve/gate.h"
#include "serve/generation.h"
#include "serve/http.h"
#include "serve/metrics.h"
#include "serve/models.h"
#include "serve/runs.h"
#include "serve/task_pool.h"

namespace quern::serve {

struct ApiOptions {
  double request_seconds = 600;  // a request ends with what it has
  fs::path runs;                 // folder of training runs to show; empty: none
  bool lenient = false;          // unknown parameters are named in a header instead of refused
};

// A request on its way to the endpoint that its path names.
struct Call {
  std::shared_ptr<Exchange> exchange;
  std::string rest;  // of the path, where the pattern ends with *; decoded

  const HttpRequest& request() const { return exchange->request(); }
  void respond(const nlohmann::ordered_json& body, int status = 200) const;
};

class Api {
 public:
  Api(Models& models, Gate& gate, Metrics& metrics, TaskPool& pool, const ApiOptions& options);

  // Called on the network's thread; answers at once or hands the work on.
  void handle(std::shared_ptr<Exchange> exchange);
  void drain() noexcept { draining_ = true; }

 private:
  struct Endpoint {
    std::string_view method;
    std::string_view pattern;  // a path; with * at its end whatever follows
    std::function<void(const Call&)> answer;
    bool quick = false;  // answered on the network's thread
  };
  using MakePlan = Plan(const Body& body, LoadedModel& model, const PlanRules& rules);
  static bool matches(const Endpoint& endpoint, std::string_view path, std::string& rest);
  Endpoint generating(std::string_view pattern, MakePlan* plan, MakeGeneration* make);

  void run(const Endpoint& endpoint, const Call& call);
  std::shared_ptr<LoadedModel> model_of(const Body& body);
  std::vector<Endpoint> endpoints();
  void add_info_endpoints(std::vector<Endpoint>& out);
  void add_token_endpoints(std::vector<Endpoint>& out);
  void add_admin_endpoints(std::vector<Endpoint>& out);

  void ready(const Call& call);
  void metrics(const Call& call);
  void one_model(const Call& call);
  void properties(const Call& call);
  void slots(const Call& call);
  void runs(const Call& call);
  void list_adapters(const Call& call);

  Models& models_;
  Gate& gate_;
  Metrics& metrics_;
  TaskPool& pool_;
  ApiOptions options_;
  std::unique_ptr<Runs> runs_;
  std::vector<Endpoint> endpoints_;
  std::atomic<bool> draining_{false};
};

}  // namespace quern::serve
