// Files from servers onto the disk: resumed where they were cut, checked, whole or absent.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "core/file.h"
#include "net/http_client.h"

namespace quern::net {

struct Download {
  std::string url;               // absolute, or behind the client's address
  fs::path file;                 // what is there of an earlier try is gone on with (see below)
  std::optional<uint64_t> size;  // what it must have
  std::string sha256;            // 64 hexadecimal digits that its bytes must have; empty: unknown
  int tries = 6;                 // in a row without a new byte
  HttpHeaders headers;
  std::function<void(uint64_t bytes, uint64_t total)> on_progress;  // total 0: unknown
};

struct Downloaded {
  uint64_t size = 0;
  std::string sha256;
  std::string etag;       // as the server sent it
  uint64_t received = 0;  // bytes that came now; the rest was there
};

// Writes to FILE.part beside `file`, with FILE.part.etag that tells whose bytes they are, and renames
// when all is there and right. A second try asks for the rest only if the server still has the same
// content (its ETag, by If-Range); else it begins anew. Waits where the server says 429 or 503.
// Throws Failed with the server's words; BadInput for content that changes between tries, for a
// length or sum that is not what was said; Interrupted with `cancel`, the parts being kept.
Downloaded download(HttpClient& client, const Download& wanted,
                    const std::atomic<bool>* cancel = nullptr);

}  // namespace quern::net
