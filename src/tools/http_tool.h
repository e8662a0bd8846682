// Tools that are requests to an HTTP server: the operations of an OpenAPI 3 description, and a search
// engine on the web.
//
// Only public addresses are reached unless others are named, whatever a name resolves to; redirects
// are not followed, since what they point to was not named.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "net/address_policy.h"
#include "tools/tool.h"

namespace quern {

struct HttpToolOptions {
  std::string server;                                        // overrides that of the description
  std::vector<std::string> operations;                       // operationIds to offer; empty: all
  std::vector<std::pair<std::string, std::string>> headers;  // of every request; secrets filled in
  std::vector<std::string> addresses;  // loopback, private, link-local: allowed beside public ones
  double timeout_s = 30;
  size_t max_output = size_t{16} << 10;
};

// A tool for each operation. What reads (GET, HEAD) has no side effects. `source` names the
// description in messages. Throws BadInput, naming the place, for what is no OpenAPI 3.0 or 3.1, for
// references that lead nowhere or around in a circle, and for two operations of one name.
std::vector<std::unique_ptr<Tool>> openapi_tools(const OrderedJson& description,
                                                 const HttpToolOptions& options,
                                                 const std::string& source);

// Throws BadInput at `where` for a word that is no kind of address.
net::AddressPolicy http_policy(const std::vector<std::string>& addresses, const std::string& where);

}  // namespace quern
