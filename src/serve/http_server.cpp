#include "serve/http_server.h"

#include <fmt/format.h>
#include <sys/resource.h>

#include <algorithm>
#include <atomic>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>
#include <map>
#include <mutex>
#include <random>
#include <set>

#include "core/error.h"
#include "core/log.h"
#include "serve/transport.h"

namespace quern::serve {
namespace {

namespace http = boost::beast::http;
using asio::ip::tcp;
using Local = asio::local::stream_protocol;
using Clock = std::chrono::steady_clock;
constexpr auto kNever = Clock::time_point::max();
constexpr size_t kInputLimit = 64 << 10;  // bytes read ahead of what is being worked on
constexpr auto kSweep = std::chrono::milliseconds(100);
constexpr auto kLinger = std::chrono::seconds(2);

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
  return out;
}

std::string random_id() {
  static thread_local std::mt19937_64 generator{std::random_device{}()};
  return fmt::format("{:016x}", generator());
}

bool is_plain_id(std::string_view id) {
  return !id.empty() && id.size() <= 64 && std::all_of(id.begin(), id.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_' || c == '.';
  });
}

// A connection. Only the network's thread touches it.
struct Session {
  Session(asio::io_context& io, std::unique_ptr<Transport> through, std::string address,
          bool is_local)
      : transport(std::move(through)),
        remote(std::move(address)),
        local(is_local),
        woken(io, kNever),
        room(io, kNever) {}

  void wake() { woken.cancel(); }
  void close() {
    closed = true;
    transport->close();
    wake();
    room.cancel();
  }
  asio::awaitable<void> wait(Clock::time_point until = kNever) {
    woken.expires_at(until);
    co_await woken.async_wait(kAwait);
  }
  void consume(size_t bytes) {
    input.erase(0, bytes);
    if (input.size() < kInputLimit) room.cancel();
  }

  std::unique_ptr<Transport> transport;
  std::string remote;
  bool local;
  std::string input;   // read and not yet used
  bool ended = false;  // nothing more will come
  bool closed = false;
  bool idle = true;                     // between two requests
  Clock::time_point deadline = kNever;  // the connection is closed then
  asio::steady_timer woken, room;
};

class ServerExchange : public Exchange {
 public:
  ServerExchange(asio::io_context& io, std::weak_ptr<Session> session, HttpRequest request,
                 size_t unsent_limit)
      : io_(io),
        session_(std::move(session)),
        request_(std::move(request)),
        unsent_limit_(unsent_limit) {}

  const HttpRequest& request() const noexcept override { return request_; }

  void respond(HttpResponse response) override {
    {
      const std::lock_guard lock(mutex_);
      if (finished_ || begun_ || closed_) return;
      head_ = std::move(response);
      whole_ = finished_ = true;
    }
    wake();
  }
  void prepare_stream(HttpResponse head) override {
    const std::lock_guard lock(mutex_);
    if (finished_ || begun_) return;
    head_ = std::move(head);
    prepared_ = true;
  }
  bool begun() const override {
    const std::lock_guard lock(mutex_);
    return begun_;
  }
  void write(std::string_view text) override {
    {
      const std::lock_guard lock(mutex_);
      if (finished_ || closed_ || !prepared_) return;
      begun_ = true;
      pending_ += text;
      if (pending_.size() > unsent_limit_) overrun_ = true;
    }
    wake();
  }
  void finish() override {
    {
      const std::lock_guard lock(mutex_);
      if (finished_) return;
      begun_ = finished_ = true;
    }
    wake();
  }
  void on_close(std::function<void()> left) override {
    {
      const std::lock_guard lock(mutex_);
      if (!closed_) {
        left_ = std::move(left);
        return;
      }
    }
    left();
  }
  void note(std::string name, std::string json) override {
    const std::lock_guard lock(mutex_);
    notes_.emplace_back(std::move(name), std::move(json));
  }

  // ---- The session's side ----

  struct Output {
    bool begun = false, finished = false, whole = false, overrun = false, prepared = false;
    std::string text;
  };
  // What is to be sent now.
  Output take() {
    const std::lock_guard lock(mutex_);
    waking_ = false;
    Output out = {begun_, finished_, whole_, overrun_, prepared_, {}};
    out.text.swap(pending_);
    return out;
  }
  const HttpResponse& head() const { return head_; }  // fixed once it is begun or finished
  // The client hears something, so that nobody between takes the connection for dead.
  void ping() {
    const std::lock_guard lock(mutex_);
    if (finished_ || !prepared_) return;
    begun_ = true;
    pending_ += ": ping\n\n";
  }
  // The client has left.
  void closed() {
    std::function<void()> left;
    {
      const std::lock_guard lock(mutex_);
      closed_ = true;
      left.swap(left_);
      if (finished_) left = nullptr;
    }
    if (left) left();
  }
  std::vector<std::pair<std::string, std::string>> notes() const {
    const std::lock_guard lock(mutex_);
    return notes_;
  }

 private:
  // Once for any number of writes until the session looks again.
  void wake() {
    {
      const std::lock_guard lock(mutex_);
      if (std::exchange(waking_, true)) return;
    }
    asio::post(io_, [session = session_] {
      if (const auto alive = session.lock()) alive->wake();
    });
  }

  asio::io_context& io_;
  std::weak_ptr<Session> session_;
  HttpRequest request_;
  size_t unsent_limit_;
  mutable std::mutex mutex_;
  HttpResponse head_;
  std::string pending_;
  bool prepared_ = false, begun_ = false, whole_ = false, finished_ = false;
  bool closed_ = false, overrun_ = false, waking_ = false;
  std::function<void()> left_;
  std::vector<std::pair<std::string, std::string>> notes_;
};

using Parser = http::request_parser<http::string_body>;

}  // namespace

struct HttpServer::Impl {
  explicit Impl(HttpOptions wanted)
      : options(std::move(wanted)), io(1), signals(io), sweeper(io), drainer(io) {}

  HttpOptions options;
  asio::io_context io;
  std::optional<tcp::acceptor> tcp_acceptor;
  std::optional<Local::acceptor> local_acceptor;
  std::optional<asio::ssl::context> tls;
  asio::signal_set signals;
  asio::steady_timer sweeper, drainer;
  std::set<std::shared_ptr<Session>> sessions;
  std::map<std::string, int> per_address;
  std::atomic<int> open{0};
  bool draining = false;

  void listen();
  void load_certificate();
  void watch_signals();
  void drain();
  asio::awaitable<void> sweep();
  template <class Acceptor>
  asio::awaitable<void> accept(Acceptor& acceptor);
  void begin(std::shared_ptr<Session> session);
  asio::awaitable<void> pump(std::shared_ptr<Session> session);
  asio::awaitable<void> converse(std::shared_ptr<Session> session);
  asio::awaitable<bool> serve_one(std::shared_ptr<Session> session);
  asio::awaitable<int> read_head(Session& session, Parser& parser);
  asio::awaitable<int> read_body(Session& session, Parser& parser);
  asio::awaitable<bool> answer(Session& session, ServerExchange& exchange, bool keep_alive,
                               bool http_1_1, AccessRecord& record);
  asio::awaitable<bool> refuse(Session& session, const HttpRequest& request, HttpResponse response,
                               AccessRecord& record);
  std::string head_text(const HttpResponse& response, const HttpRequest& request, bool keep_alive,
                        std::optional<size_t> length, bool chunked) const;
};

void HttpServer::Impl::load_certificate() {
  tls.emplace(asio::ssl::context::tls_server);
  tls->set_options(asio::ssl::context::default_workarounds | asio::ssl::context::no_sslv2 |
                   asio::ssl::context::no_sslv3 | asio::ssl::context::no_tlsv1 |
                   asio::ssl::context::no_tlsv1_1);
  error_code failed;
  tls->use_certificate_chain_file(options.tls_certificate.string(), failed);
  if (failed) {
    throw_bad_input(options.tls_certificate.string() + ": " + failed.message(),
                    "expected a certificate chain in PEM form");
  }
  tls->use_private_key_file(options.tls_key.string(), asio::ssl::context::pem, failed);
  if (failed) {
    throw_bad_input(options.tls_key.string() + ": " + failed.message(),
                    "expected the certificate's private key in PEM form");
  }
}

void HttpServer::Impl::listen() {
  error_code failed;
  if (!options.unix_socket.empty()) {
    // A socket that nobody listens on any more is left over from a server that was killed.
    if (fs::is_socket(options.unix_socket)) {
      Local::socket probe(io);
      probe.connect(Local::endpoint(options.unix_socket.string()), failed);
      if (failed) fs::remove(options.unix_socket);
      failed = {};
    }
    try {
      local_acceptor.emplace(io, Local::endpoint(options.unix_socket.string()));
    } catch (const boost::system::system_error& problem) {
      throw Error(Kind::Failed, fmt::format("cannot listen on {}: {}", options.unix_socket.string(),
                                            problem.code().message()));
    }
    fs::permissions(options.unix_socket, fs::perms::owner_read | fs::perms::owner_write |
                                             fs::perms::group_read | fs::perms::group_write);
    return;
  }
  const auto address = asio::ip::make_address(options.host, failed);
  if (failed) {
    throw Error(Kind::Misused,
                fmt::format("--host is '{}', expected an IP address", printable(options.host, 80)));
  }
  try {
    tcp_acceptor.emplace(io, tcp::endpoint(address, options.port));
  } catch (const boost::system::system_error& problem) {
    throw Error(Kind::Failed,
                fmt::format("cannot listen on {} port {}: {}", options.host, options.port,
                            problem.code().message()),
                "choose another --port; 0 takes a free one");
  }
}

void HttpServer::Impl::watch_signals() {
  signals.async_wait([this](error_code failed, int) {
    if (failed) return;
    if (draining) {
      io.stop();
      return;
    }
    drain();
    watch_signals();
  });
}

// No new connections; idle ones are closed, the others when their request is answered.
void HttpServer::Impl::drain() {
  if (std::exchange(draining, true)) return;
  error_code ignored;
  if (tcp_acceptor) tcp_acceptor->close(ignored);
  if (local_acceptor) local_acceptor->close(ignored);
  if (options.on_drain) options.on_drain();
  for (const auto& session : sessions) {
    if (session->idle) session->close();
  }
  drainer.expires_after(options.limits.drain);
  drainer.async_wait([this](error_code failed) {
    if (failed) return;
    for (const auto& session : sessions) session->close();
  });
}

// One clock for all deadlines: thousands of timers would cost more than a look at each connection
// ten times a second.
asio::awaitable<void> HttpServer::Impl::sweep() {
  for (int round = 0; !draining || !sessions.empty(); ++round) {
    sweeper.expires_after(kSweep);
    co_await sweeper.async_wait(kAwait);
    if (options.tick && round % 10 == 0) options.tick();
    const auto now = Clock::now();
    for (const auto& session : sessions) {
      if (session->deadline < now && !session->closed) session->close();
    }
  }
  drainer.cancel();
  signals.cancel();
}

template <class Acceptor>
asio::awaitable<void> HttpServer::Impl::accept(Acceptor& acceptor) {
  using Protocol = typename Acceptor::protocol_type;
  while (acceptor.is_open()) {
    auto [failed, socket] = co_await acceptor.async_accept(kAwait);
    if (failed == asio::error::operation_aborted || draining) break;
    if (failed) {  // out of descriptors, most likely: they come back
      asio::steady_timer pause(io, std::chrono::milliseconds(50));
      co_await pause.async_wait(kAwait);
      continue;
    }
    std::string remote = "unix";
    bool local = true;
    error_code ignored;
    if constexpr (std::is_same_v<Protocol, tcp>) {
      const auto address = socket.remote_endpoint(ignored).address();
      if (ignored) continue;
      remote = address.to_string();
      local = address.is_loopback();
      socket.set_option(tcp::no_delay(true), ignored);
    }
    const bool crowded = open >= options.limits.connections ||
                         (!local && per_address[remote] >= options.limits.connections_per_address);
    if (crowded) {
      const HttpResponse busy = options.error(503, "the server has too many connections");
      const std::string text = head_text(busy, {}, false, busy.body.size(), false) + busy.body;
      socket.non_blocking(true, ignored);
      socket.write_some(asio::buffer(text), ignored);
      continue;  // the socket closes as it goes
    }
    std::unique_ptr<Transport> transport;
    if constexpr (std::is_same_v<Protocol, tcp>) {
      transport = tls ? make_transport(std::move(socket), *tls) : make_transport(std::move(socket));
    } else {
      transport = make_transport(std::move(socket));
    }
    begin(std::make_shared<Session>(io, std::move(transport), std::move(remote), local));
  }
}

void HttpServer::Impl::begin(std::shared_ptr<Session> session) {
  sessions.insert(session);
  ++open;
  if (!session->local) ++per_address[session->remote];
  asio::co_spawn(io, converse(session), [this, session](std::exception_ptr failure) {
    if (failure) {
      try {
        std::rethrow_exception(failure);
      } catch (const std::exception& problem) {
        log::error(fmt::format("a connection failed: {}", printable(problem.what())));
      }
    }
    session->close();
    --open;
    if (!session->local) {
      const auto count = per_address.find(session->remote);
      if (--count->second == 0) per_address.erase(count);
    }
    sessions.erase(session);
  });
}

// Reads all the time, also while a request is at work: that is how a client's leaving is seen.
asio::awaitable<void> HttpServer::Impl::pump(std::shared_ptr<Session> session) {
  while (!session->closed) {
    if (session->input.size() >= kInputLimit) {
      session->room.expires_at(kNever);
      co_await session->room.async_wait(kAwait);
      continue;
    }
    const error_code failed = co_await session->transport->read(session->input);
    if (failed) break;
    session->wake();
  }
  session->ended = true;
  session->wake();
}

asio::awaitable<void> HttpServer::Impl::converse(std::shared_ptr<Session> session) {
  session->deadline = Clock::now() + options.limits.header;
  if (co_await session->transport->handshake()) co_return;
  asio::co_spawn(io, pump(session), asio::detached);
  bool more = true;
  while (more && !session->closed) {
    session->idle = true;
    session->deadline = Clock::now() + options.limits.idle;
    while (session->input.empty() && !session->ended && !session->closed) co_await session->wait();
    if (session->input.empty() || session->closed || draining) break;
    session->idle = false;
    more = co_await serve_one(session);
  }
  session->deadline = kNever;
}

// 0 when the head is there, -1 when the client left, else the status to refuse with.
asio::awaitable<int> HttpServer::Impl::read_head(Session& session, Parser& parser) {
  session.deadline = Clock::now() + options.limits.header;
  // A line break or two before a request are forgiven (RFC 9112, 2.2).
  while (session.input.starts_with("\r\n")) session.consume(2);
  while (true) {
    if (!session.input.empty()) {
      error_code failed;
      const size_t used =
          parser.put(asio::buffer(session.input.data(), session.input.size()), failed);
      session.consume(used);
      if (parser.is_header_done()) break;
      if (failed == http::error::header_limit) co_return 431;
      if (failed == http::error::body_limit) co_return 413;
      if (failed == http::error::bad_version) co_return 505;
      if (failed && failed != http::error::need_more) co_return 400;
      if (session.input.size() > options.limits.header_bytes) co_return 431;
    }
    if (session.ended || session.closed) co_return -1;
    co_await session.wait();
  }
  const auto& head = parser.get();
  size_t lines = 0;
  for (const auto& field : head) {
    static_cast<void>(field);
    ++lines;
  }
  if (lines > options.limits.header_lines) co_return 431;
  const bool has_length = head.count(http::field::content_length) > 0;
  const size_t codings = head.count(http::field::transfer_encoding);
  if (has_length && codings > 0) co_return 400;
  if (codings > 1 || (codings == 1 && lower(head[http::field::transfer_encoding]) != "chunked")) {
    co_return 501;
  }
  co_return 0;
}

asio::awaitable<int> HttpServer::Impl::read_body(Session& session, Parser& parser) {
  parser.eager(true);
  const auto begin = Clock::now();
  while (!parser.is_done()) {
    const uint64_t expected =
        std::max<uint64_t>(parser.content_length().value_or(0), parser.get().body().size());
    session.deadline = begin + options.limits.body + std::chrono::seconds(expected >> 20);
    if (!session.input.empty()) {
      error_code failed;
      const size_t used =
          parser.put(asio::buffer(session.input.data(), session.input.size()), failed);
      session.consume(used);
      if (failed == http::error::body_limit) co_return 413;
      if (failed && failed != http::error::need_more) co_return 400;
      if (parser.is_done()) break;
      // A chunk's first line that does not end.
      if (used == 0 && session.input.size() >= options.limits.header_bytes) co_return 400;
      if (used > 0) continue;
    }
    if (session.ended || session.closed) co_return -1;
    co_await session.wait();
  }
  co_return 0;
}

std::string HttpServer::Impl::head_text(const HttpResponse& response, const HttpRequest& request,
                                        bool keep_alive, std::optional<size_t> length,
                                        bool chunked) const {
  std::string text = fmt::format("HTTP/1.1 {} {}\r\nContent-Type: {}\r\n", response.status,
                                 reason_phrase(response.status), response.content_type);
  if (length && response.status != 304) text += fmt::format("Content-Length: {}\r\n", *length);
  if (chunked) text += "Transfer-Encoding: chunked\r\n";
  if (!request.id.empty()) text += fmt::format("X-Request-Id: {}\r\n", request.id);
  for (const auto& [name, value] : response.headers) {
    text += fmt::format("{}: {}\r\n", name, value);
  }
  text += "X-Content-Type-Options: nosniff\r\n";
  text += keep_alive ? "Connection: keep-alive\r\n\r\n" : "Connection: close\r\n\r\n";
  return text;
}

// An answer before the request was read to its end. What still comes of it is thrown away for a
// while: a connection closed with bytes unread would take the answer along.
asio::awaitable<bool> HttpServer::Impl::refuse(Session& session, const HttpRequest& request,
                                               HttpResponse response, AccessRecord& record) {
  record.status = response.status;
  record.bytes = response.body.size();
  std::string text = head_text(response, request, false, response.body.size(), false);
  if (request.method != "HEAD") text += response.body;
  session.deadline = Clock::now() + kLinger;
  const error_code failed = co_await session.transport->write(text);
  if (!failed) {
    session.transport->shutdown_send();
    // As much as a body that was announced in good faith may have, and no more.
    uint64_t left = 2 * options.limits.body_bytes;
    while (!session.ended && !session.closed && session.input.size() <= left) {
      left -= session.input.size();
      session.consume(session.input.size());
      co_await session.wait();
    }
  }
  co_return false;
}

asio::awaitable<bool> HttpServer::Impl::serve_one(std::shared_ptr<Session> session) {
  const auto begin = Clock::now();
  Parser parser;
  parser.header_limit(options.limits.header_bytes);
  parser.body_limit(options.limits.body_bytes);
  HttpRequest request;
  request.remote = session->remote;
  request.id = random_id();
  AccessRecord record;
  record.remote = session->remote;
  const auto write_log = [&] {
    if (!options.log) return;
    record.seconds = std::chrono::duration<double>(Clock::now() - begin).count();
    options.log(record);
  };

  int status = co_await read_head(*session, parser);
  if (status == -1) co_return false;
  bool http_1_1 = true, keep_alive = false;
  if (parser.is_header_done()) {
    const auto& head = parser.get();
    request.method = std::string(head.method_string());
    std::string_view target(head.target().data(), head.target().size());
    for (const auto& field : head) {
      request.headers.emplace_back(lower(field.name_string()), std::string(field.value()));
    }
    // The absolute form names the host in the first line, and that one counts (RFC 9112, 3.2.2).
    for (const std::string_view scheme : {"http://", "https://"}) {
      if (!lower(target.substr(0, scheme.size())).starts_with(scheme)) continue;
      target.remove_prefix(scheme.size());
      const size_t slash = std::min(target.find('/'), target.size());
      std::erase_if(request.headers, [](const auto& h) { return h.first == "host"; });
      request.headers.emplace_back("host", std::string(target.substr(0, slash)));
      target.remove_prefix(slash);
      if (target.empty()) target = "/";
    }
    const size_t question = std::min(target.find('?'), target.size());
    request.path = std::string(target.substr(0, question));
    if (question < target.size()) request.query = std::string(target.substr(question + 1));
    if (is_plain_id(request.header("x-request-id"))) request.id = request.header("x-request-id");
    record.method = request.method;
    record.path = request.path;
    http_1_1 = head.version() >= 11;
    request.http_1_0 = !http_1_1;
    keep_alive = parser.keep_alive();
  }
  record.id = request.id;
  std::optional<HttpResponse> refusal;
  if (status != 0) {
    refusal = options.error(status, std::string(reason_phrase(status)));
  } else if (draining) {
    refusal = options.error(503, "the server is about to end");
  } else {
    refusal = options.gate(request);
    const std::string_view expect = request.header("expect");
    if (!refusal && !expect.empty()) {
      if (lower(expect) != "100-continue") {
        refusal = options.error(417, "Expect knows 100-continue only");
      } else if (!parser.is_done() && session->input.empty()) {
        session->deadline = Clock::now() + options.limits.write;
        if (co_await session->transport->write("HTTP/1.1 100 Continue\r\n\r\n")) co_return false;
      }
    }
  }
  if (!refusal) {
    status = co_await read_body(*session, parser);
    if (status == -1) {
      write_log();
      co_return false;
    }
    if (status != 0) refusal = options.error(status, std::string(reason_phrase(status)));
  }
  if (refusal) {
    co_await refuse(*session, request, std::move(*refusal), record);
    write_log();
    co_return false;
  }
  session->deadline = kNever;
  request.body = std::move(parser.get().body());
  const auto exchange = std::make_shared<ServerExchange>(io, session, std::move(request),
                                                         options.limits.unsent_bytes);
  options.handle(exchange);
  const bool go_on =
      co_await answer(*session, *exchange, keep_alive && !draining, http_1_1, record);
  exchange->closed();
  record.notes = exchange->notes();
  write_log();
  co_return go_on;
}

// Sends what the exchange has until it is finished. True when the connection may go on.
asio::awaitable<bool> HttpServer::Impl::answer(Session& session, ServerExchange& exchange,
                                               bool keep_alive, bool http_1_1,
                                               AccessRecord& record) {
  const HttpRequest& request = exchange.request();
  const bool with_body = request.method != "HEAD";
  bool head_sent = false;
  while (true) {
    const ServerExchange::Output output = exchange.take();
    // A client that has said its last word waits for no answer that is still to be made.
    if (session.closed || (session.ended && !output.finished)) co_return false;
    if (output.overrun) {
      session.close();
      co_return false;
    }
    std::string text;
    if (output.whole) {
      const HttpResponse& whole = exchange.head();
      record.status = whole.status;
      record.bytes = whole.body.size();
      text = head_text(whole, request, keep_alive, whole.body.size(), false);
      if (with_body) text += whole.body;
    } else if (output.begun) {
      if (!std::exchange(head_sent, true)) {
        // HTTP/1.0 knows no chunks: the connection's end is the answer's.
        keep_alive = keep_alive && http_1_1;
        record.status = exchange.head().status;
        text = head_text(exchange.head(), request, keep_alive, {}, http_1_1);
      }
      record.bytes += output.text.size();
      if (!http_1_1) {
        text += output.text;
      } else if (with_body && !output.text.empty()) {
        text += fmt::format("{:x}\r\n", output.text.size()) + output.text + "\r\n";
      }
      if (output.finished && http_1_1 && with_body) text += "0\r\n\r\n";
    }
    if (!text.empty()) {
      session.deadline = Clock::now() + options.limits.write;
      const error_code failed = co_await session.transport->write(text);
      session.deadline = kNever;
      if (failed) co_return false;
    }
    if (output.finished) co_return keep_alive;
    if (!text.empty()) continue;
    const auto until = Clock::now() + options.limits.ping;
    co_await session.wait(until);
    if (output.prepared && Clock::now() >= until) exchange.ping();
  }
}

HttpServer::HttpServer(HttpOptions options) : impl_(std::make_unique<Impl>(std::move(options))) {
  // Each connection needs a descriptor; shells give 1,024.
  rlimit files{};
  if (::getrlimit(RLIMIT_NOFILE, &files) == 0) {
    files.rlim_cur = files.rlim_max;
    ::setrlimit(RLIMIT_NOFILE, &files);
  }
  if (!impl_->options.tls_certificate.empty()) impl_->load_certificate();
  impl_->listen();
}

HttpServer::~HttpServer() {
  impl_->sessions.clear();
  if (!impl_->options.unix_socket.empty()) {
    std::error_code ignored;
    fs::remove(impl_->options.unix_socket, ignored);
  }
}

std::string HttpServer::url() const {
  if (impl_->local_acceptor) return "unix:" + impl_->options.unix_socket.string();
  const bool v6 = impl_->options.host.find(':') != std::string::npos;
  return fmt::format("{}://{}:{}", impl_->tls ? "https" : "http",
                     v6 ? "[" + impl_->options.host + "]" : impl_->options.host, port());
}

uint16_t HttpServer::port() const {
  return impl_->tcp_acceptor ? impl_->tcp_acceptor->local_endpoint().port() : uint16_t{0};
}

void HttpServer::run() {
  Impl& impl = *impl_;
  impl.signals.add(SIGTERM);
  impl.signals.add(SIGINT);
  impl.watch_signals();
  asio::co_spawn(impl.io, impl.sweep(), asio::detached);
  if (impl.tcp_acceptor) {
    asio::co_spawn(impl.io, impl.accept(*impl.tcp_acceptor), asio::detached);
  }
  if (impl.local_acceptor) {
    asio::co_spawn(impl.io, impl.accept(*impl.local_acceptor), asio::detached);
  }
  impl.io.run();
}

void HttpServer::stop() {
  asio::post(impl_->io, [this] { impl_->drain(); });
}

int HttpServer::connections() const noexcept { return impl_->open; }

}  // namespace quern::serve
