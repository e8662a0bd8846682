// Training runs for the page at /runs, read-only: a folder whose folders hold metrics.csv and
// validation.csv, as `quern pretrain` writes them.
#pragma once

#include <string_view>

#include "core/file.h"
#include "serve/http.h"

namespace quern::serve {

class Runs {
 public:
  // Throws Misused when `folder` is no folder.
  explicit Runs(const fs::path& folder);
  ~Runs();
  Runs(const Runs&) = delete;
  Runs& operator=(const Runs&) = delete;

  // {"now": s, "runs": [{"name", "updated"}]}, newest first, at most 200; times in seconds since
  // 1970. A run is a folder, not a link to one, with a metrics.csv that is a plain file.
  HttpResponse list() const;

  // {"name", "now", "updated", "metrics": {column: [numbers]}, "validation": [{"source", column:
  // [numbers]}], "skipped"}. Of long runs each point is the mean of some neighbours, at most 800
  // of them; what is not finite is null; `skipped` counts lines that could not be read. 404 where
  // there is no such run, 304 for a client that has this state of it. Nothing outside the folder
  // is ever opened, whatever the name or the links in it. Throws BadInput beyond 64 MB.
  HttpResponse one(std::string_view name, const HttpRequest& request) const;

 private:
  int folder_ = -1;  // a descriptor: what is below it is opened from it, without following links
};

}  // namespace quern::serve
