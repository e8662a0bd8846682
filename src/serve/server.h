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
  std::vector<std::string> allowed_origins;
  fs::path api_key_file;
  bool health_key = false;
  bool insecure = false;         // listens beyond this machine without a key
  std::string access_log = "-";  // a file, "-" for standard error, empty for none
};

class Server {
 public:
  // Loads or checks every model, then listens. Throws Misused for an address that others can reach without a key.
  explicit Server(ServeOptions options);
  ~Server();

  std::string url() const;
  // The memory of the loaded models, in words.
  std::string memory_line() const;
  void run();   // until SIGTERM, SIGINT or stop()
  void stop();  // from any thread

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace quern::serve
