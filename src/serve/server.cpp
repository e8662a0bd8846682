#include "serve/server.h"

#include <arpa/inet.h>
#include <fmt/format.h>

#include <cerrno>
#include <chrono>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/json.h"
#include "serve/api_error.h"

namespace quern::serve {
namespace {

// One JSON object a line. No prompt or answer ever goes here.
class AccessLog {
 public:
  explicit AccessLog(const std::string& path) {
    if (path.empty()) return;
    if (path == "-") {
      file_ = stderr;
      return;
    }
    file_ = std::fopen(path.c_str(), "ae");
    if (file_ == nullptr) throw_errno(path, "cannot write the access log");
    owned_ = true;
  }
  ~AccessLog() {
    if (owned_) std::fclose(file_);
  }
  AccessLog(const AccessLog&) = delete;
  AccessLog& operator=(const AccessLog&) = delete;

  void write(const AccessRecord& record) {
    if (file_ == nullptr) return;
    const auto now = std::chrono::system_clock::now();
    const std::time_t whole = std::chrono::system_clock::to_time_t(now);
    const auto millis =
        std::chrono::duration_cast<std::chrono::milliseconds>(now.time_since_epoch()).count() %
        1000;
    std::tm utc{};
    ::gmtime_r(&whole, &utc);
    nlohmann::ordered_json line = {
        {"time",
         fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z", utc.tm_year + 1900,
                     utc.tm_mon + 1, utc.tm_mday, utc.tm_hour, utc.tm_min, utc.tm_sec, millis)},
        {"id", record.id},
        {"remote", record.remote},
        {"method", printable(record.method, 20)},
        {"path", printable(record.path, 200)},
        {"status", record.status},
        {"bytes", record.bytes},
        {"ms", static_cast<double>(static_cast<int64_t>(record.seconds * 1e5)) / 100}};
    std::string text = dump(line);
    text.pop_back();
    for (const auto& [name, json] : record.notes) text += fmt::format(",\"{}\":{}", name, json);
    text += "}\n";
    std::fwrite(text.data(), 1, text.size(), file_);
    std::fflush(file_);
  }

 private:
  std::FILE* file_ = nullptr;
  bool owned_ = false;
};

bool reachable_by_others(const std::string& host) {
  in_addr v4{};
  if (::inet_pton(AF_INET, host.c_str(), &v4) == 1) return (ntohl(v4.s_addr) >> 24) != 127;
  return host != "::1";
}

}  // namespace

// In the order in which they need one another; they go the other way round.
struct Server::Impl {
  explicit Impl(ServeOptions wanted)
      : log(wanted.access_log),
        gate({.keys =
                  wanted.api_key_file.empty() ? std::vector<Key>() : read_keys(wanted.api_key_file),
              .hosts = wanted.allowed_hosts,
              .origins = wanted.allowed_origins,
              .health_key = wanted.health_key},
             metrics),
        http(with_callbacks(std::move(wanted.http))),
        models(std::move(wanted.models), wanted.engine),
        tasks(2),
        api(models, gate, metrics, tasks, wanted.api) {}

  HttpOptions with_callbacks(HttpOptions options) {
    options.gate = [this](const HttpRequest& head) { return gate.check(head); };
    options.handle = [this](std::shared_ptr<Exchange> exchange) {
      api.handle(std::move(exchange));
    };
    options.error = [](int status, const std::string& message) {
      return error_response(error_of_status(status, message));
    };
    options.log = [this](const AccessRecord& record) {
      metrics.count_request(record.status);
      log.write(record);
    };
    options.tick = [this] { tasks.post([this] { models.unload_idle(); }); };
    options.on_drain = [this] { api.drain(); };
    return options;
  }

  AccessLog log;
  Metrics metrics;
  Gate gate;
  HttpServer http;
  Models models;
  TaskPool tasks;
  Api api;
};

Server::Server(ServeOptions options) {
  const bool open = options.http.unix_socket.empty() && reachable_by_others(options.http.host);
  if (open && options.api_key_file.empty() && !options.insecure) {
    throw Error(Kind::Misused,
                fmt::format("{} can be reached by others, and no key is needed", options.http.host),
                "name a file of keys with --api-key-file, or say --insecure");
  }
  impl_ = std::make_unique<Impl>(std::move(options));
  impl_->models.check();
}

Server::~Server() {
  // What runs still has clients to tell, who need the network to be there.
  impl_->models.cancel_all();
}

std::string Server::url() const { return impl_->http.url(); }

std::string Server::memory_line() const { return impl_->models.memory_line(); }

void Server::run() { impl_->http.run(); }

void Server::stop() { impl_->http.stop(); }

}  // namespace quern::serve
