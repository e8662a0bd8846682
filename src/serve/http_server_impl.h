// Inside the HTTP server: what its files share. Nobody else includes this.
#pragma once

#include <atomic>
#include <boost/asio/io_context.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>
#include <map>
#include <optional>
#include <set>

#include "serve/http_exchange.h"
#include "serve/http_server.h"
#include "serve/transport.h"

namespace quern::serve {

using Clock = std::chrono::steady_clock;
using Local = asio::local::stream_protocol;
using Parser = boost::beast::http::request_parser<boost::beast::http::string_body>;
constexpr auto kNever = Clock::time_point::max();
constexpr size_t kInputLimit = 64 << 10;  // bytes read ahead of what is being worked on

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

struct HttpServer::Impl {
  explicit Impl(HttpOptions wanted)
      : options(std::move(wanted)), io(1), signals(io), sweeper(io), drainer(io) {}

  HttpOptions options;
  asio::io_context io;
  std::optional<asio::ip::tcp::acceptor> tcp_acceptor;
  std::optional<Local::acceptor> local_acceptor;
  std::optional<asio::ssl::context> tls;
  asio::signal_set signals;
  asio::steady_timer sweeper, drainer;
  std::set<std::shared_ptr<Session>> sessions;
  std::map<std::string, int> per_address;
  std::atomic<int> open{0};
  bool draining = false;

  // http_server.cpp: who may connect, and when it ends.
  void listen();
  void load_certificate();
  void watch_signals();
  void drain();
  asio::awaitable<void> sweep();
  template <class Acceptor>
  asio::awaitable<void> accept(Acceptor& acceptor);
  void begin(std::shared_ptr<Session> session);
  // http_connection.cpp: one connection and its requests.
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

}  // namespace quern::serve
