// quern serve: models behind an OpenAI-compatible HTTP API.
#include <fmt/format.h>

#include "cli/commands/arguments.h"
#include "cli/commands/model_store.h"
#include "core/error.h"
#include "core/log.h"
#include "serve/server.h"

namespace quern::cli {
namespace {

struct Arguments {
  ModelArguments model;
  std::vector<std::string> more_models, loras, allowed_hosts, allowed_origins;
  std::string draft, host = "127.0.0.1", unix_socket, tls_certificate, tls_key, api_key_file;
  std::string access_log = "-", runs;
  int64_t port = 8080;
  bool insecure = false, health_key = false, lenient = false;
  int64_t max_streams = 64, queue = 256, chunk = 512, speculate = -1;
  uint64_t memory = 0;
  int64_t max_body_mb = 8, max_connections = 4096, connections_per_address = 256;
  double queue_timeout = 60, request_timeout = 600, drain_timeout = 30, idle_unload = 0;
};

// "NAME=FOLDER", where the name may hold slashes; without a name the folder's last part is it.
std::pair<std::string, fs::path> split_name(const std::string& text) {
  const size_t equals = text.find('=');
  std::error_code ignored;
  if (equals != text.npos && equals > 0 && !fs::exists(text, ignored)) {
    return {text.substr(0, equals), text.substr(equals + 1)};
  }
  const fs::path folder = fs::absolute(text).lexically_normal();
  return {(folder.has_filename() ? folder : folder.parent_path()).filename().string(), text};
}

serve::ServeOptions options_of(const Arguments& args) {
  serve::ServeOptions options;
  std::vector<std::string> folders = args.more_models;
  folders.insert(folders.begin(),
                 args.model.model.empty() ? default_model().string() : args.model.model);
  for (const std::string& text : folders) {
    const auto [name, folder] = split_name(text);
    options.models.push_back({name, folder, args.model.options()});
  }
  for (const std::string& text : args.loras) {
    const auto [name, folder] = split_name(text);
    serve::ModelSource adapted = options.models.front();
    adapted.name = name;
    adapted.options.adapters.push_back(folder);
    options.models.push_back(std::move(adapted));
  }
  options.engine = {.sequences = args.max_streams,
                    .queue = args.queue,
                    .queue_seconds = args.queue_timeout,
                    .chunk = args.chunk,
                    .speculate = args.speculate >= 0  ? args.speculate
                                 : args.draft.empty() ? 0
                                                      : 4,
                    .draft = args.draft,
                    .memory_bytes = args.memory,
                    .idle_unload = std::chrono::seconds(static_cast<int64_t>(args.idle_unload))};
  options.api.request_seconds = args.request_timeout;
  options.api.runs = args.runs;
  options.http.host = args.host;
  options.http.port = static_cast<uint16_t>(args.port);
  options.http.unix_socket = args.unix_socket;
  options.http.tls_certificate = args.tls_certificate;
  options.http.tls_key = args.tls_key;
  options.http.limits.body_bytes = static_cast<uint64_t>(args.max_body_mb) << 20;
  options.http.limits.connections = static_cast<int>(args.max_connections);
  options.http.limits.connections_per_address = static_cast<int>(args.connections_per_address);
  options.http.limits.drain =
      std::chrono::milliseconds(static_cast<int64_t>(1000 * args.drain_timeout));
  options.allowed_hosts = args.allowed_hosts;
  options.allowed_origins = args.allowed_origins;
  options.health_key = args.health_key;
  options.api.lenient = args.lenient;
  options.api_key_file = args.api_key_file;
  options.insecure = args.insecure;
  options.access_log = args.access_log == "none" ? "" : args.access_log;
  if (args.tls_certificate.empty() != args.tls_key.empty()) {
    throw Error(Kind::Misused, "--tls-certificate and --tls-key come together");
  }
  return options;
}

void serve_models(const Arguments& args) {
  serve::Server server(options_of(args));
  log::info("memory: " + server.memory_line());
  print(fmt::format("listening on {}\n", server.url()));
  flush_output();
  server.run();
}

}  // namespace

void add_serve(CLI::App& root) {
  Command command(
      root, "serve", "Serve models over HTTP with OpenAI's API",
      {{"serve Qwen-7B-Chat --port 8000", "one model at http://127.0.0.1:8000/v1"},
       {"serve chat=Qwen-7B-Chat base=Qwen-7B --port 0 --idle-unload 600",
        "two models by names of their own, each unloaded after ten minutes without use"},
       {"serve Qwen-7B-Chat --unix-socket quern.sock --memory 12GB",
        "behind a local socket, with a bound on memory"}});
  auto args = std::make_shared<Arguments>();
  args->model.declare(command, /*required=*/false, ModelArguments::Naming::ServedAs);
  command.positional("models", args->more_models, "More models; each MODEL or NAME=MODEL")
      .replaced(resolve_named_model);
  command.option(
      "--lora", args->loras,
      "NAME=FOLDER: the first model with a LoRA adapter, under a name of its own; may be "
      "repeated");
  command.option("--runs", args->runs, "Folder of training runs whose curves the page /runs shows");
  command.group("Network");
  command.option("--host", args->host, "Address to listen on");
  command.option("--port", args->port, "Port to listen on; 0 takes a free one").range(0, 65535);
  command.option("--unix-socket", args->unix_socket, "Local socket to listen on instead");
  command.option("--tls-certificate", args->tls_certificate, "Certificate chain, PEM");
  command.option("--tls-key", args->tls_key, "The certificate's private key, PEM");
  command.option("--api-key-file", args->api_key_file,
                 "File of keys, one a line, plain or as sha256:HEX; requests need one of them");
  command.flag("--insecure", args->insecure, "Listen where others can reach it without a key");
  command.option("--allowed-host", args->allowed_hosts,
                 "Name that requests may call this server by; may be repeated",
                 "localhost and IP addresses");
  command.option("--allow-origin", args->allowed_origins,
                 "Origin of pages that may use this server, as https://example.org; * is any; may "
                 "be repeated",
                 "its own pages alone");
  command.flag("--health-key", args->health_key, "/health needs a key, too");
  command.flag(
      "--lenient", args->lenient,
      "Parameters that are not known are named in the answer's X-Quern-Ignored, not refused");
  command.option("--access-log", args->access_log,
                 "File for a JSON line a request; - is standard error, none is no log");
  command.group("Engine");
  command.option("--max-streams", args->max_streams, "Sequences that run at once").range(1, 4096);
  command.option("--queue", args->queue, "Sequences that wait at most; more get 429")
      .range(0, 1 << 20);
  command.option("--prompt-chunk", args->chunk, "Tokens of prompts in one step at most")
      .range(16, 1 << 16);
  command
      .option("--speculate", args->speculate,
              "Tokens guessed and checked in one step, from earlier text or by --draft; 0 is off; "
              "-1: 4 with --draft, else off")
      .range(-1, 32);
  command.option("--draft", args->draft,
                 "Folder of a smaller model of the same vocabulary that guesses for all models");
  command
      .option("--memory", args->memory,
              "Bytes for weights, caches and buffers, as 12GB; 0: half of what is free")
      .size();
  command
      .option("--idle-unload", args->idle_unload,
              "Seconds without a request after which a model is unloaded; 0: never")
      .range(0.0, 1e9);
  command.group("Limits");
  command.option("--queue-timeout", args->queue_timeout, "Seconds a request may wait for its turn")
      .range(0.0, 1e6);
  command
      .option("--request-timeout", args->request_timeout,
              "Seconds after which an answer ends with what it has")
      .range(0.0, 1e6);
  command
      .option("--drain-timeout", args->drain_timeout,
              "Seconds that requests at work have after SIGTERM")
      .range(0.0, 1e6);
  command.option("--max-body", args->max_body_mb, "MB of a request's body at most").range(1, 1024);
  command.option("--max-connections", args->max_connections, "Connections at most")
      .range(1, 100'000);
  command
      .option("--max-connections-per-address", args->connections_per_address,
              "Of one address, at most; local ones are not counted")
      .range(1, 100'000);
  command.on_run([args] { serve_models(*args); });
}

}  // namespace quern::cli
