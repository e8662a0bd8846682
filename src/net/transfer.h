// One call of an HttpClient on its way: a libcurl handle, what it was set to, and what has come.
// Only the client includes this.
#pragma once

#include <curl/curl.h>

#include <exception>

#include "net/event_reader.h"
#include "net/http_client.h"
#include "net/url.h"

namespace quern::net {

using Clock = std::chrono::steady_clock;

// The options that all calls of a client share, parsed once.
struct ClientSetup {
  explicit ClientSetup(ClientOptions options);

  ClientOptions options;
  std::optional<Url> base;
  std::string base_text;    // of `base`, without a final slash
  std::string unix_socket;  // empty: none
};

class Transfer {
 public:
  Transfer(const ClientSetup& setup, CURLM* multi);
  ~Transfer();
  Transfer(const Transfer&) = delete;
  Transfer& operator=(const Transfer&) = delete;

  // Begins a call. Throws Misused for an address that is none.
  void start(HttpCall call);
  // Ends it now, with this failure.
  void stop(std::string failure);
  // The time it may go on without anything new; past it, expired() says what to stop() with.
  std::string expired(Clock::time_point now) const;
  // Takes libcurl's result. False: the call goes on, to where a redirect leads.
  bool finish(CURLcode code);
  // The reply, handed to the call's own `done`. Rethrows what a callback threw.
  void deliver();

  bool active() const noexcept { return active_; }
  static Transfer* of(CURL* easy);

 private:
  void begin();
  void set_addresses();
  void set_headers();
  bool follow();
  bool same_origin() const;
  bool header_line(std::string_view line);
  bool end_of_head();
  bool body_bytes(std::string_view bytes);
  std::string failure_of(CURLcode code) const;
  template <class Body>
  bool guarded(Body body) noexcept;

  static size_t on_header(char* bytes, size_t one, size_t count, void* self);
  static size_t on_body(char* bytes, size_t one, size_t count, void* self);
  static int on_progress(void* self, curl_off_t, curl_off_t, curl_off_t, curl_off_t sent);
  static int on_connected(void* self, char*, char*, int, int);
  static curl_socket_t on_socket(void* self, curlsocktype purpose, curl_sockaddr* address);
  static CURLcode on_tls(CURL* easy, void* context, void* self);

  const ClientSetup& setup_;
  CURLM* multi_;
  CURL* easy_;
  curl_slist* header_list_ = nullptr;
  char error_[CURL_ERROR_SIZE] = "";

  HttpCall call_;
  HttpReply reply_;
  Url url_;
  std::string method_, first_origin_;
  bool with_body_ = false, active_ = false, connected_ = false;
  int redirects_ = 0;
  Clock::time_point begun_, heard_;  // of the whole call; the last byte either way
  curl_off_t sent_ = 0;

  // The answer that is being read:
  bool head_done_ = false, redirected_ = false, streams_ = false, enough_ = false;
  uint64_t head_bytes_ = 0, dropped_bytes_ = 0;
  EventReader events_;
  std::string own_failure_;  // why we ended it ourselves
  std::exception_ptr thrown_;
};

}  // namespace quern::net
