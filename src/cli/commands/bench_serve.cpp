// quern bench serve: how fast a server answers when many ask at once.
#include "cli/commands/bench_serve.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <memory>
#include <nlohmann/json.hpp>
#include <thread>

#include "cli/commands/chat_partner.h"
#include "cli/commands/model_store.h"
#include "cli/framework/output.h"
#include "core/error.h"
#include "core/json.h"
#include "core/rng.h"
#include "net/http_client.h"
#include "plot/chart.h"
#include "serve/server.h"

namespace quern::cli {
namespace {

using Clock = std::chrono::steady_clock;

struct Arguments {
  ServerArguments server;  // its address, or a model's folder
  std::string plot;
  std::vector<int64_t> concurrency;
  int64_t prompt_tokens = 128, answer_tokens = 64, shared_tokens = 0, requests = 0;
  bool json = false, force = false;
};

double seconds_between(Clock::time_point from, Clock::time_point to) {
  return std::chrono::duration<double>(to - from).count();
}

// The value that `share` of the values do not exceed; 0 of none.
double percentile(std::vector<double> values, double share) {
  if (values.empty()) return 0;
  const auto rank = static_cast<size_t>(std::ceil(share * static_cast<double>(values.size())));
  const auto at = values.begin() + static_cast<int64_t>(std::max<size_t>(rank, 1) - 1);
  std::nth_element(values.begin(), at, values.end());
  return *at;
}

// One request and what was seen of it.
struct Asked {
  Clock::time_point begin, last;
  double first_s = 0;          // to the first token
  std::vector<double> gaps_s;  // between events after it
  int64_t tokens = 0;
  std::string failure;
};

struct Result {
  int64_t concurrency = 0, requests = 0, failed = 0, refused = 0, tokens = 0;
  double seconds = 0;
  std::vector<double> first_s, gaps_s;
  std::string first_failure;
};

// A server of our own for a model's folder, in this process, on a free port.
class OwnServer {
 public:
  OwnServer(const std::string& folder, int64_t streams) {
    serve::ServeOptions options;
    serve::ModelSource source;
    source.name = "model";
    source.folder = folder;
    source.options.threads = globals().threads;
    options.models = {source};
    options.engine.sequences = std::max<int64_t>(streams, 64);
    options.engine.queue = 4096;
    options.http.port = 0;
    options.access_log = "";
    server_ = std::make_unique<serve::Server>(std::move(options));
    thread_ = std::thread([this] { server_->run(); });
  }
  ~OwnServer() {
    server_->stop();
    thread_.join();
  }
  OwnServer(const OwnServer&) = delete;
  OwnServer& operator=(const OwnServer&) = delete;
  std::string url() const { return server_->url(); }

 private:
  std::unique_ptr<serve::Server> server_;
  std::thread thread_;
};

class ServerBench {
 public:
  ServerBench(const Arguments& args, const std::string& url)
      : args_(args), client_(client_options(args.server, url)), model_(args.server.model) {
    const net::HttpReply reply = client_.send({.method = "GET", .path = path("/models")});
    if (!reply.ok()) throw Error(Kind::Failed, reply.problem());
    if (!model_.empty()) return;
    const Json list = Json::parse(reply.body, "the list of models").at("data");
    if (list.size() == 0) throw Error(Kind::Failed, client_.url() + " serves no model");
    model_ = list[0].at("id").string();
  }

  const std::string& model() const { return model_; }

  Result measure(int64_t concurrency) {
    return measure(concurrency, args_.requests > 0 ? args_.requests : 4 * concurrency);
  }
  Result measure(int64_t concurrency, int64_t requests) {
    Result result;
    result.concurrency = concurrency;
    result.requests = requests;
    std::vector<std::unique_ptr<Asked>> all;
    const auto begin = Clock::now();
    client_.run(
        static_cast<int>(concurrency),
        [&]() -> std::optional<net::HttpCall> {
          check_interrupted();
          if (static_cast<int64_t>(all.size()) == result.requests) return std::nullopt;
          all.push_back(std::make_unique<Asked>());
          return call(*all.back());
        },
        &interrupted);
    check_interrupted();
    result.seconds = seconds_between(begin, Clock::now());
    for (const auto& asked : all) {
      if (!asked->failure.empty()) {
        ++result.failed;
        if (asked->failure == kRefused) ++result.refused;
        if (result.first_failure.empty()) result.first_failure = asked->failure;
        continue;
      }
      result.tokens += asked->tokens;
      result.first_s.push_back(asked->first_s);
      result.gaps_s.insert(result.gaps_s.end(), asked->gaps_s.begin(), asked->gaps_s.end());
    }
    return result;
  }

 private:
  static constexpr const char* kRefused = "refused for overload (429)";

  static net::ClientOptions client_options(const ServerArguments& server, const std::string& url) {
    net::ClientOptions options = server.client();
    options.url = url;
    return options;
  }

  std::string path(const char* route) const {
    return (client_.url().ends_with("/v1") ? "" : "/v1") + std::string(route);
  }

  // Ids that every vocabulary has. Each request gets others, so that a server's cache holds the shared
  // prefix at most.
  std::vector<int64_t> prompt() {
    std::vector<int64_t> ids;
    Rng shared(1), own(++asked_, 2);
    for (int64_t i = 0; i < args_.prompt_tokens; ++i) {
      Rng& rng = i < args_.shared_tokens ? shared : own;
      ids.push_back(32 + static_cast<int64_t>(rng.below(200)));
    }
    return ids;
  }

  net::HttpCall call(Asked& asked) {
    net::HttpCall call;
    call.path = path("/completions");
    call.body = dump(nlohmann::ordered_json{{"model", model_},
                                            {"prompt", prompt()},
                                            {"max_tokens", args_.answer_tokens},
                                            {"ignore_eos", true},
                                            {"temperature", 0},
                                            {"stream", true},
                                            {"stream_options", {{"include_usage", true}}}});
    call.on_event = [&asked](std::string_view data) {
      if (data == "[DONE]") return true;  // the connection is of use still
      const Json event = Json::parse(data, "event");
      if (const auto failed = event.find("error")) {
        asked.failure = printable(failed->at("message").string(), 200);
        return true;
      }
      if (const auto usage = event.find("usage")) {
        asked.tokens = usage->at("completion_tokens").integer(0, INT64_MAX);
      }
      const Json choices = event.at("choices");
      if (choices.size() == 0 || choices[0].string_or("text", "").empty()) return true;
      const auto now = Clock::now();
      if (asked.first_s == 0) {
        asked.first_s = seconds_between(asked.begin, now);
      } else {
        asked.gaps_s.push_back(seconds_between(asked.last, now));
      }
      asked.last = now;
      return true;
    };
    call.done = [&asked](const net::HttpReply& reply) {
      if (reply.status == 429) {
        asked.failure = kRefused;
      } else if (!reply.ok()) {
        asked.failure = reply.problem();
      } else if (asked.failure.empty() && asked.tokens == 0) {
        asked.failure = "the answer has no tokens";
      }
      // An answer whose text came in no event at all: its end is all there is.
      if (asked.first_s == 0) asked.first_s = seconds_between(asked.begin, Clock::now());
    };
    asked.begin = Clock::now();
    return call;
  }

  const Arguments& args_;
  net::HttpClient client_;
  std::string model_;
  uint64_t asked_ = 0;
};

nlohmann::ordered_json to_json(const Result& r) {
  return {{"concurrency", r.concurrency},
          {"requests", r.requests},
          {"failed", r.failed},
          {"refused", r.refused},
          {"seconds", r.seconds},
          {"ttft_p50_ms", 1000 * percentile(r.first_s, 0.5)},
          {"ttft_p99_ms", 1000 * percentile(r.first_s, 0.99)},
          {"between_tokens_p50_ms", 1000 * percentile(r.gaps_s, 0.5)},
          {"between_tokens_p99_ms", 1000 * percentile(r.gaps_s, 0.99)},
          {"tokens_per_s", static_cast<double>(r.tokens) / r.seconds}};
}

std::string plot_of(const nlohmann::ordered_json& runs) {
  const auto series = [&](const char* name, const char* field, int color) {
    Series out;
    out.name = name;
    out.color = color;
    out.markers = true;
    for (const auto& r : runs) {
      out.x.push_back(r["concurrency"].get<double>());
      out.y.push_back(r[field].get<double>());
    }
    return out;
  };
  const std::string x = "requests at once";
  const Chart charts[] = {
      {"Throughput", x, "tokens/s", {series("", "tokens_per_s", 0)}, false},
      {"To the first token",
       x,
       "ms",
       {series("p50", "ttft_p50_ms", 0), series("p99", "ttft_p99_ms", 1)},
       true},
      {"Between tokens",
       x,
       "ms",
       {series("p50", "between_tokens_p50_ms", 0), series("p99", "between_tokens_p99_ms", 1)},
       true}};
  return draw_svg(charts, 3);
}

bool is_address(const std::string& target) {
  return target.find("://") != target.npos || target.starts_with("unix:");
}

void bench_serve(const Arguments& args) {
  if (args.shared_tokens > args.prompt_tokens) {
    throw Error(Kind::Misused, fmt::format("--shared-tokens is {}, the prompts have {} tokens",
                                           args.shared_tokens, args.prompt_tokens));
  }
  if (!args.plot.empty()) claim_output(args.plot, args.force);
  const InterruptScope scope;
  std::vector<int64_t> levels = args.concurrency;
  if (levels.empty()) levels = {1, 8};
  const std::string& target = args.server.url;
  const bool is_url = is_address(target);
  std::unique_ptr<OwnServer> own;
  if (!is_url) {
    own = std::make_unique<OwnServer>(target.empty() ? default_model().string() : target,
                                      *std::max_element(levels.begin(), levels.end()));
  }
  ServerBench bench(args, own ? own->url() : target);
  bench.measure(1, 1);  // warms up
  nlohmann::ordered_json out = {
      {"server", is_url ? target : "in this process"}, {"model", bench.model()},
      {"prompt_tokens", args.prompt_tokens},           {"shared_tokens", args.shared_tokens},
      {"answer_tokens", args.answer_tokens},           {"runs", nlohmann::ordered_json::array()}};
  if (!args.json) {
    print(fmt::format("{} at {}: prompts of {} tokens, answers of {}\n", bench.model(),
                      is_url ? target : own->url(), args.prompt_tokens, args.answer_tokens));
    print(
        "at once  requests  failed  first token p50      p99  between tokens p50      p99  "
        "tokens/s\n");
  }
  std::string failure;
  for (const int64_t concurrency : levels) {
    const Result result = bench.measure(concurrency);
    const nlohmann::ordered_json row = to_json(result);
    out["runs"].push_back(row);
    if (failure.empty()) failure = result.first_failure;
    if (args.json) continue;
    const auto ms = [&](const char* field) {
      return fmt::format("{:.1f} ms", row[field].get<double>());
    };
    print(fmt::format("{:>7}  {:>8}  {:>6}  {:>15}  {:>7}  {:>18}  {:>7}  {:>8.1f}\n",
                      result.concurrency, result.requests, result.failed, ms("ttft_p50_ms"),
                      ms("ttft_p99_ms"), ms("between_tokens_p50_ms"), ms("between_tokens_p99_ms"),
                      row["tokens_per_s"].get<double>()));
    flush_output();
  }
  if (args.json) print(dump(out) + "\n");
  if (!failure.empty() && !args.json) print("first failure: " + failure + "\n");
  if (!args.plot.empty()) write_picture(args.plot, plot_of(out["runs"]));
}

}  // namespace

void add_bench_serve(CLI::App& bench) {
  Command command(
      bench, "serve", "Latency and throughput of a server under concurrent requests",
      {{"bench serve Qwen-7B-Chat --concurrency 1 --concurrency 4 --answer-tokens 8 --requests 4",
        "a model, served by this process for as long as it takes"}});
  auto args = std::make_shared<Arguments>();
  command
      .positional("target", args->server.url,
                  "URL of an OpenAI-compatible server, or a model's folder")
      .value("TARGET");
  command.group("Server");
  args->server.declare(command);
  command.group("Load");
  command.option("--concurrency", args->concurrency, "Concurrent requests; repeatable", "1, 8")
      .range(1, 10'000);
  command
      .option("--requests", args->requests,
              "Requests per level of concurrency; 0 = four times the level")
      .range(int64_t{0}, int64_t{1} << 24);
  command.option("--prompt-tokens", args->prompt_tokens, "Tokens per prompt")
      .range(int64_t{1}, int64_t{1} << 24);
  command
      .option("--shared-tokens", args->shared_tokens, "Tokens of a prefix that all prompts share")
      .range(int64_t{0}, int64_t{1} << 24);
  command.option("--answer-tokens", args->answer_tokens, "Tokens per answer")
      .range(int64_t{1}, int64_t{1} << 24);
  command.group("Output");
  command.flag("--json", args->json, "Print one JSON object");
  command.option("--plot", args->plot, "Picture of latencies and throughput, .svg or .png").file();
  command.flag("--force", args->force, "Replace the picture if it exists");
  command.refuse({"--model", "--api-key-file", "--trusted-certificates"},
                 "goes with a server's URL", [args] { return !is_address(args->server.url); });
  command.on_run([args] { bench_serve(*args); });
}

}  // namespace quern::cli
