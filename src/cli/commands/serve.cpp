// quern serve: models behind an OpenAI-compatible HTTP API.
#include <arpa/inet.h>
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
  int64_t idle_unload = 0;
  double queue_timeout = 60, request_timeout = 600, drain_timeout = 30;
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
    adapted.base = options.models.front().name;
    adapted.adapter = folder;
    adapted.may_copy = true;
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
                    .idle_unload = std::chrono::seconds(args.idle_unload)};
  options.api.request_seconds = args.request_timeout;
  options.api.runs = args.runs;
  options.http.host = args.host == "localhost" ? "127.0.0.1" : args.host;
  unsigned char address[sizeof(in6_addr)];
  if (::inet_pton(AF_INET, options.http.host.c_str(), address) != 1 &&
      ::inet_pton(AF_INET6, options.http.host.c_str(), address) != 1) {
    throw Error(Kind::Misused, fmt::format("--host {} is not an address", printable(args.host, 80)),
                "expected an IP address as 127.0.0.1, 0.0.0.0 or ::1, or localhost");
  }
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
      root, "serve", "Serve models over HTTP with an OpenAI-compatible API",
      {{"serve Qwen-7B-Chat --port 8000", "one model at http://127.0.0.1:8000/v1"},
       {"serve chat=Qwen-7B-Chat base=Qwen-7B --port 0 --idle-unload 600",
        "two models by names of their own, each unloaded after ten minutes without use"},
       {"serve Qwen-7B-Chat --unix-socket quern.sock --memory 12GB",
        "behind a local socket, with a bound on memory"}});
  auto args = std::make_shared<Arguments>();
  args->model.declare(command, /*required=*/false, ModelArguments::Naming::ServedAs);
  args->model.declare_chat(command);
  command.positional("models", args->more_models, "More models, each PATH or NAME=PATH")
      .replaced(resolve_named_model);
  command
      .option(
          "--lora", args->loras,
          "Serve the first model with a LoRA adapter under a name of its own, its weights shared; "
          "repeatable")
      .value("NAME=DIR");
  command.option("--runs", args->runs, "Folder of training runs whose curves the page /runs shows")
      .folder();
  command.group("Network");
  command.option("--host", args->host, "Address to listen on").value("ADDRESS").usual();
  command.option("--port", args->port, "Port to listen on; 0 = a free one").range(0, 65535).usual();
  command.option("--unix-socket", args->unix_socket, "Unix socket to listen on instead").file();
  command.option("--tls-certificate", args->tls_certificate, "TLS certificate chain, PEM").file();
  command.option("--tls-key", args->tls_key, "Private key of the certificate, PEM").file();
  command
      .option("--api-key-file", args->api_key_file,
              "File of API keys, one per line, plain or as sha256:HEX; requests need one of them")
      .file()
      .usual();
  command.flag("--insecure", args->insecure, "Allow other hosts to connect without an API key");
  command
      .option("--allowed-host", args->allowed_hosts, "Host name that requests may use; repeatable",
              "localhost and IP addresses")
      .value("NAME");
  command
      .option(
          "--allow-origin", args->allowed_origins,
          "Origin of pages that may use this server, as https://example.org; * = any; repeatable",
          "its own pages")
      .value("ORIGIN");
  command.flag("--health-key", args->health_key, "Require an API key for /health too");
  command.flag("--lenient", args->lenient,
               "Name unknown parameters in the header X-Quern-Ignored instead of refusing them");
  command
      .option("--access-log", args->access_log,
              "File for one JSON line per request; - = standard error, none = no log")
      .file();
  command.group("Engine");
  command.option("--max-streams", args->max_streams, "Maximum number of sequences decoded together")
      .range(1, 4096)
      .usual();
  command.option("--queue", args->queue, "Maximum number of waiting requests; more get status 429")
      .range(0, 1 << 20);
  command.option("--prompt-chunk", args->chunk, "Maximum prefill tokens per step")
      .range(16, 1 << 16);
  command
      .option("--speculate", args->speculate,
              "Speculative decoding: tokens drafted per step, by --draft or from earlier text; 0 = "
              "off; -1 = 4 with --draft, else off")
      .range(-1, 32);
  command
      .option("--draft", args->draft, "Draft model of the same vocabulary for speculative decoding")
      .path();
  command
      .option("--memory", args->memory,
              "Memory for weights, KV caches and buffers; 0 = half of what is free")
      .size()
      .usual();
  command
      .option("--idle-unload", args->idle_unload,
              "Unload a model after this many seconds without a request; 0 = never")
      .range(0, 1'000'000'000);
  command.group("Limits");
  command.option("--queue-timeout", args->queue_timeout, "Maximum time in the queue, in seconds")
      .range(0.0, 1e6);
  command
      .option("--request-timeout", args->request_timeout,
              "Maximum time per request, in seconds; an answer ends with what it has")
      .range(0.0, 1e6);
  command
      .option("--drain-timeout", args->drain_timeout,
              "Time for running requests after SIGTERM, in seconds")
      .range(0.0, 1e6);
  command.option("--max-body", args->max_body_mb, "Maximum request body in MB").range(1, 1024);
  command.option("--max-connections", args->max_connections, "Maximum connections")
      .range(1, 100'000);
  command
      .option("--max-connections-per-address", args->connections_per_address,
              "Maximum connections per client address (loopback exempt)")
      .range(1, 100'000);
  command.explain_unknown(explain_api_key);
  command.refuse({"--host", "--port"}, "and --unix-socket exclude each other",
                 [args] { return !args->unix_socket.empty(); });
  command.refuse({"--health-key"}, "goes with --api-key-file",
                 [args] { return args->api_key_file.empty(); });
  command.on_run([args] { serve_models(*args); });
}

}  // namespace quern::cli
