// quern serve put together: models, gate, API and network.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "serve/api.h"
#include "serve/http_server.h"
#include "serve/models.h"

namespace quern::serve {

struct ServeOptions {
  std::vector<ModelSource> models;  // at least one; the first is loaded before serving begins
  ModelsOptions engine;
  ApiOptions api;
  HttpOptions http;  // its callbacks are the server's own
  std::vector<std::string> allowed_hosts;
  fs::path api_key_file;
  bool insecure = false;         // listens beyond this machine without a key
  std::string access_log = "-";  // a file, "-" for standard error, empty for none
};

class Server {
 public:
  // Listens and loads. Throws Misused for an address that others can reach without a key.
  explicit Server(ServeOptions options);
  ~Server();

  std::string url() const;
  void run();   // until SIGTERM, SIGINT or stop()
  void stop();  // from any thread

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace quern::serve
