#include "net/transfer.h"

#include <fmt/format.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "core/ascii.h"
#include "core/error.h"
#include "core/progress.h"

namespace quern::net {
namespace {

constexpr uint64_t kMaxHeadBytes = uint64_t{1} << 20;
constexpr uint64_t kMaxDroppedBytes = uint64_t{1} << 20;  // a redirect's own body

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && static_cast<unsigned char>(text.back()) <= ' ') text.remove_suffix(1);
  return text;
}

// Headers that may be sent on to another origin: a short list, since keys have many names.
bool goes_anywhere(std::string_view name) {
  return name == "accept" || name == "accept-language" || name == "user-agent" ||
         name == "content-type" || name == "range" || name.starts_with("if-");
}

bool is_redirect(int status) {
  return status == 301 || status == 302 || status == 303 || status == 307 || status == 308;
}

std::chrono::milliseconds milliseconds(double seconds) {
  return std::chrono::milliseconds(static_cast<int64_t>(1000 * seconds));
}

bool is_absolute(std::string_view path) {
  return path.starts_with("http://") || path.starts_with("https://");
}

}  // namespace

ClientSetup::ClientSetup(ClientOptions given) : options(std::move(given)) {
  if (options.url.starts_with("unix:")) {
    unix_socket = options.url.substr(5);
    if (unix_socket.empty() || unix_socket.find('\0') != unix_socket.npos) {
      throw Error(Kind::Misused, "the server's address is 'unix:'", "expected unix:SOCKET");
    }
    base = Url::parse("http://localhost");
    base_text = "http://localhost";
  } else if (!options.url.empty()) {
    try {
      base = Url::parse(options.url, "the server's address");
    } catch (const Error& failure) {
      throw Error(Kind::Misused, failure.what(),
                  "expected http://HOST:PORT, https://HOST or unix:SOCKET");
    }
    base_text = base->text;
    while (base_text.ends_with('/')) base_text.pop_back();
  }
  if (options.policy.restricts() && options.proxy && !options.proxy->empty()) {
    throw Error(Kind::Misused, "a proxy reaches hosts that the address policy can't see",
                "leave one of the two out");
  }
  if (options.trusted.empty()) return;
  const std::unique_ptr<SSL_CTX, decltype(&SSL_CTX_free)> context(SSL_CTX_new(TLS_client_method()),
                                                                  SSL_CTX_free);
  read_file(options.trusted);  // says what is wrong with the file itself
  if (SSL_CTX_load_verify_locations(context.get(), options.trusted.c_str(), nullptr) != 1) {
    ERR_clear_error();
    throw_bad_input(options.trusted.string() + ": holds no certificates",
                    "expected certificates in PEM form");
  }
}

Transfer::Transfer(const ClientSetup& setup, CURLM* multi)
    : setup_(setup), multi_(multi), easy_(curl_easy_init()) {
  if (easy_ == nullptr) throw Error(Kind::NoResources, "no memory for a connection");
}

Transfer::~Transfer() {
  if (active_) curl_multi_remove_handle(multi_, easy_);
  curl_easy_cleanup(easy_);
  curl_slist_free_all(header_list_);
}

Transfer* Transfer::of(CURL* easy) {
  char* self = nullptr;
  curl_easy_getinfo(easy, CURLINFO_PRIVATE, &self);
  return reinterpret_cast<Transfer*>(self);
}

void Transfer::start(HttpCall call) {
  call_ = std::move(call);
  const bool absolute = is_absolute(call_.path);
  if (!absolute && !setup_.base) {
    throw Error(Kind::Misused,
                fmt::format("'{}' is not an absolute address", printable(call_.path, 200)),
                "expected http://HOST[:PORT][/PATH] or https://HOST[:PORT][/PATH]");
  }
  url_ = Url::parse(absolute ? call_.path : setup_.base_text + call_.path);
  with_body_ = !call_.body.empty() || call_.method == "POST" || call_.method == "PUT";
  method_ = !call_.method.empty() ? call_.method : with_body_ ? "POST" : "GET";
  first_origin_ = url_.origin();
  redirects_ = 0;
  thrown_ = nullptr;
  own_failure_.clear();
  enough_ = false;
  begun_ = Clock::now();
  begin();
}

// One request: the call's own or that of a redirect.
void Transfer::begin() {
  reply_ = {};
  reply_.url = url_.text;
  head_done_ = redirected_ = streams_ = connected_ = false;
  head_bytes_ = dropped_bytes_ = 0;
  sent_ = 0;
  events_ = {};
  heard_ = Clock::now();
  error_[0] = '\0';
  curl_easy_reset(easy_);
  const auto set = [&](CURLoption option, auto value) {
    if (curl_easy_setopt(easy_, option, value) != CURLE_OK) {
      throw Error(Kind::Failed, fmt::format("libcurl does not know option {}", int{option}));
    }
  };
  set(CURLOPT_PRIVATE, static_cast<void*>(this));
  set(CURLOPT_ERRORBUFFER, static_cast<char*>(error_));
  set(CURLOPT_NOSIGNAL, 1L);
  set(CURLOPT_QUICK_EXIT, 1L);
  set(CURLOPT_URL, url_.text.c_str());
  set(CURLOPT_PROTOCOLS_STR, "http,https");
  set(CURLOPT_HTTP_VERSION, long{CURL_HTTP_VERSION_1_1});
  set(CURLOPT_PATH_AS_IS, 1L);
  set(CURLOPT_USERAGENT, "quern/" QUERN_VERSION);
  set(CURLOPT_CONNECTTIMEOUT_MS, long{milliseconds(setup_.options.connect_seconds).count()});
  set(CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
  if (method_ == "HEAD") {
    set(CURLOPT_NOBODY, 1L);
  } else if (with_body_) {
    set(CURLOPT_POST, 1L);
    set(CURLOPT_POSTFIELDS, call_.body.data());
    set(CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(call_.body.size()));
  }
  if (method_ != "HEAD") set(CURLOPT_CUSTOMREQUEST, method_.c_str());
  set(CURLOPT_HEADERFUNCTION, &Transfer::on_header);
  set(CURLOPT_HEADERDATA, static_cast<void*>(this));
  set(CURLOPT_WRITEFUNCTION, &Transfer::on_body);
  set(CURLOPT_WRITEDATA, static_cast<void*>(this));
  set(CURLOPT_NOPROGRESS, 0L);
  set(CURLOPT_XFERINFOFUNCTION, &Transfer::on_progress);
  set(CURLOPT_XFERINFODATA, static_cast<void*>(this));
  set(CURLOPT_PREREQFUNCTION, &Transfer::on_connected);
  set(CURLOPT_PREREQDATA, static_cast<void*>(this));
  set_addresses();
  set_headers();
  if (!setup_.options.trusted.empty()) {
    set(CURLOPT_SSL_CTX_FUNCTION, &Transfer::on_tls);
    set(CURLOPT_SSL_CTX_DATA, static_cast<void*>(this));
  }
  // A host or port that the policy refuses is not even looked up.
  const AddressPolicy& policy = setup_.options.policy;
  if (!policy.allows_host(url_.host) || !policy.allows_port(url_.port)) {
    reply_.failure = fmt::format("{} may not be reached from here", printable(url_.origin(), 200));
    return;
  }
  curl_multi_add_handle(multi_, easy_);
  active_ = true;
}

// Where it connects to: a Unix socket, a proxy, or addresses that the policy judges.
void Transfer::set_addresses() {
  const ClientOptions& options = setup_.options;
  if (!setup_.unix_socket.empty() && same_origin()) {
    curl_easy_setopt(easy_, CURLOPT_UNIX_SOCKET_PATH, setup_.unix_socket.c_str());
  }
  if (options.proxy) {
    curl_easy_setopt(easy_, CURLOPT_PROXY, options.proxy->c_str());
    curl_easy_setopt(easy_, CURLOPT_NOPROXY, "");
  } else if (options.policy.restricts() || url_.loopback()) {
    curl_easy_setopt(easy_, CURLOPT_PROXY, "");
  }
  curl_easy_setopt(easy_, CURLOPT_OPENSOCKETFUNCTION, &Transfer::on_socket);
  curl_easy_setopt(easy_, CURLOPT_OPENSOCKETDATA, static_cast<void*>(this));
}

void Transfer::set_headers() {
  curl_slist_free_all(std::exchange(header_list_, nullptr));
  const bool at_home = url_.origin() == first_origin_;
  const bool at_base = setup_.base && same_origin();
  bool has_type = false;
  const auto add = [&](const std::string& name, const std::string& value) {
    const auto breaks = [](const std::string& text) {
      return text.find_first_of(std::string_view("\r\n\0", 3)) != text.npos;
    };
    if (breaks(name) || breaks(value) || name.empty()) {
      throw Error(Kind::Misused, fmt::format("the header '{}' holds a line break or NUL, or has "
                                             "no name",
                                             printable(name, 60)));
    }
    // libcurl sends a header without a value where a semicolon replaces the colon.
    const std::string line = value.empty() ? name + ";" : name + ": " + value;
    header_list_ = curl_slist_append(header_list_, line.c_str());
  };
  const auto add_all = [&](const HttpHeaders& headers, bool whole) {
    for (const auto& [name, value] : headers) {
      const std::string plain = ascii_lower(name);
      if (!whole && !goes_anywhere(plain)) continue;
      if (plain == "content-type") {
        if (!with_body_) continue;
        has_type = true;
      }
      add(name, value);
    }
  };
  add_all(setup_.options.headers, setup_.base ? at_base : at_home);
  add_all(call_.headers, at_home);
  if (at_base && !setup_.options.api_key.empty()) {
    add("Authorization", "Bearer " + setup_.options.api_key);
  }
  if (call_.resume_from > 0) add("Range", fmt::format("bytes={}-", call_.resume_from));
  if (with_body_) {
    if (!has_type) add("Content-Type", "application/json");
    header_list_ = curl_slist_append(header_list_, "Expect:");  // do not wait for 100 Continue
  }
  curl_easy_setopt(easy_, CURLOPT_HTTPHEADER, header_list_);
}

bool Transfer::same_origin() const { return url_.origin() == setup_.base->origin(); }

// Sets out for where a redirect points; false where that may not be.
bool Transfer::follow() {
  if (++redirects_ > setup_.options.max_redirects) {
    own_failure_ = fmt::format("more than {} redirects", setup_.options.max_redirects);
    return false;
  }
  const int status = reply_.status;
  try {
    const Url next = url_.resolve(reply_.header("location"));
    if (!setup_.unix_socket.empty() && next.origin() != setup_.base->origin()) {
      own_failure_ = "the redirect leads away from the local socket";
      return false;
    }
    url_ = next;
  } catch (const Error& failure) {
    own_failure_ = failure.what();
    return false;
  }
  if (status == 303 ? method_ != "HEAD" : (status < 303 && method_ == "POST")) {
    method_ = "GET";
    with_body_ = false;
  }
  begin();
  return true;
}

std::string Transfer::expired(Clock::time_point now) const {
  const ClientOptions& options = setup_.options;
  if (options.total_seconds > 0 && now - begun_ > milliseconds(options.total_seconds)) {
    const std::string late =
        fmt::format("the answer took longer than {:g} s", options.total_seconds);
    return connected_ ? late : fmt::format("cannot connect to {}: {}", url_.origin(), late);
  }
  if (connected_ && now - heard_ > milliseconds(options.silence_seconds)) {
    return fmt::format("the server was silent for {:g} s", options.silence_seconds);
  }
  return {};
}

void Transfer::stop(std::string failure) {
  if (active_) curl_multi_remove_handle(multi_, easy_);
  active_ = false;
  reply_.failure = std::move(failure);
}

bool Transfer::finish(CURLcode code) {
  curl_multi_remove_handle(multi_, easy_);
  active_ = false;
  if (thrown_ != nullptr || enough_) return true;
  if (redirected_ && own_failure_.empty() && (code == CURLE_OK || code == CURLE_WRITE_ERROR)) {
    if (follow()) return !active_;  // over where the policy refused the next
    reply_.failure = own_failure_;
    return true;
  }
  if (code == CURLE_OK && head_done_) return true;
  reply_.failure = failure_of(code);
  return true;
}

std::string Transfer::failure_of(CURLcode code) const {
  if (!own_failure_.empty()) return own_failure_;
  const std::string detail = printable(error_[0] != '\0' ? error_ : curl_easy_strerror(code), 300);
  switch (code) {
    case CURLE_OK:
    case CURLE_PARTIAL_FILE:
      return "the connection ended in the middle of the answer";
    case CURLE_GOT_NOTHING:
      return "the server closed the connection without an answer";
    case CURLE_UNSUPPORTED_PROTOCOL:
    case CURLE_WEIRD_SERVER_REPLY:
      return "the answer is not HTTP: " + detail;
    default:
      break;
  }
  if (connected_) return "the connection broke: " + detail;
  return fmt::format("cannot connect to {}: {}",
                     setup_.unix_socket.empty() ? url_.origin() : setup_.options.url, detail);
}

void Transfer::deliver() {
  if (thrown_ != nullptr) std::rethrow_exception(std::exchange(thrown_, nullptr));
  const auto done = std::move(call_.done);
  call_ = {};
  if (done) done(std::move(reply_));
}

// libcurl's callbacks must not throw: keeps the exception and ends the transfer.
template <class Body>
bool Transfer::guarded(Body body) noexcept {
  try {
    heard_ = Clock::now();
    return body();
  } catch (...) {
    thrown_ = std::current_exception();
    return false;
  }
}

bool Transfer::header_line(std::string_view line) {
  head_bytes_ += line.size();
  if (head_bytes_ > kMaxHeadBytes) {
    own_failure_ = "the head of the answer is larger than " + human_bytes(kMaxHeadBytes);
    return false;
  }
  if (line.starts_with("HTTP/")) {  // one more head: after 100 Continue
    const size_t space = std::min(line.find(' '), line.size());
    reply_.status =
        static_cast<int>(std::strtol(std::string(line.substr(space)).c_str(), nullptr, 10));
    reply_.headers.clear();
    head_done_ = false;
    return true;
  }
  if (head_done_) return true;  // a trailer
  if (trimmed(line).empty()) return end_of_head();
  const size_t colon = line.find(':');
  if (colon == line.npos) return true;
  reply_.headers.emplace_back(ascii_lower(trimmed(line.substr(0, colon))),
                              std::string(trimmed(line.substr(colon + 1))));
  return true;
}

bool Transfer::end_of_head() {
  if (reply_.status >= 100 && reply_.status < 200) return true;
  head_done_ = true;
  if (setup_.options.max_redirects > 0 && is_redirect(reply_.status) &&
      !reply_.header("location").empty()) {
    redirected_ = true;
    return true;
  }
  if (reply_.status == 206 && call_.resume_from > 0 &&
      !reply_.header("content-range").starts_with(fmt::format("bytes {}-", call_.resume_from))) {
    own_failure_ = "the server sent another part than the one asked for";
    return false;
  }
  streams_ = call_.on_event && reply_.ok() &&
             ascii_lower(reply_.header("content-type")).starts_with("text/event-stream");
  if (call_.on_head && !call_.on_head(reply_)) enough_ = true;
  return !enough_;
}

bool Transfer::body_bytes(std::string_view bytes) {
  if (redirected_) return (dropped_bytes_ += bytes.size()) <= kMaxDroppedBytes;
  const uint64_t most = setup_.options.max_body_bytes;
  if (streams_) {
    if (!events_.put(bytes, call_.on_event)) enough_ = true;
    if (events_.pending() > most) {
      own_failure_ = "an event is larger than " + human_bytes(most);
      return false;
    }
    return !enough_;
  }
  if (call_.on_data && reply_.ok()) {
    if (!call_.on_data(bytes)) enough_ = true;
    return !enough_;
  }
  if (reply_.body.size() + bytes.size() > most) {
    own_failure_ = "the answer is larger than " + human_bytes(most);
    return false;
  }
  reply_.body += bytes;
  return true;
}

size_t Transfer::on_header(char* bytes, size_t one, size_t count, void* self) {
  auto* transfer = static_cast<Transfer*>(self);
  const std::string_view line(bytes, one * count);
  return transfer->guarded([&] { return transfer->header_line(line); }) ? line.size() : 0;
}

size_t Transfer::on_body(char* bytes, size_t one, size_t count, void* self) {
  auto* transfer = static_cast<Transfer*>(self);
  const std::string_view part(bytes, one * count);
  return transfer->guarded([&] { return transfer->body_bytes(part); }) ? part.size() : 0;
}

int Transfer::on_progress(void* self, curl_off_t, curl_off_t, curl_off_t, curl_off_t sent) {
  auto* transfer = static_cast<Transfer*>(self);
  if (std::exchange(transfer->sent_, sent) != sent) transfer->heard_ = Clock::now();
  return 0;
}

int Transfer::on_connected(void* self, char*, char*, int, int) {
  auto* transfer = static_cast<Transfer*>(self);
  transfer->connected_ = true;
  transfer->own_failure_.clear();  // of an address before this one
  transfer->heard_ = Clock::now();
  return CURL_PREREQFUNC_OK;
}

curl_socket_t Transfer::on_socket(void* self, curlsocktype, curl_sockaddr* address) {
  auto* transfer = static_cast<Transfer*>(self);
  const AddressPolicy& policy = transfer->setup_.options.policy;
  if (const AddressKind kind = kind_of(address->addr); !policy.allows(kind)) {
    transfer->guarded([&] {
      transfer->own_failure_ =
          fmt::format("{} is {} ({}), which may not be reached from here",
                      printable(transfer->url_.host, 200), text_of(address->addr), name(kind));
      return true;
    });
    return CURL_SOCKET_BAD;
  }
  return ::socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
}

CURLcode Transfer::on_tls(CURL*, void* context, void* self) {
  const auto* transfer = static_cast<Transfer*>(self);
  return SSL_CTX_load_verify_locations(static_cast<SSL_CTX*>(context),
                                       transfer->setup_.options.trusted.c_str(), nullptr) == 1
             ? CURLE_OK
             : CURLE_SSL_CACERT_BADFILE;
}

}  // namespace quern::net
