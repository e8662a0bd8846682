// The web pages that are embedded in the program: the chat at /, training runs at /runs.
#pragma once

#include <cstddef>
#include <string_view>

#include "serve/http.h"

namespace quern::serve {

struct WebFile {
  std::string_view path, content_type;
  std::string_view bytes;  // as embedded
  size_t size;             // uncompressed
  std::string_view tag;    // changes with the content
  bool compressed;         // gzip
  bool lasting;            // a path that never has another content
};

// Null where there is no file at this path. Never for "/": a program built without the pages says
// so there.
const WebFile* find_web_file(std::string_view path) noexcept;

// The answer to GET or HEAD: as the client can read it, 304 for one that has it already.
HttpResponse web_response(const WebFile& file, const HttpRequest& request);

// Whether a coding is acceptable to a request's Accept-Encoding (RFC 9110, 12.5.3).
bool accepts_coding(std::string_view accept_encoding, std::string_view coding) noexcept;

}  // namespace quern::serve
