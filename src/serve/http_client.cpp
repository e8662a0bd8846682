#include "serve/http_client.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/connect.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>
#include <set>

#include "core/error.h"
#include "core/json.h"
#include "serve/transport.h"

namespace quern::serve {
namespace {

namespace http = boost::beast::http;
using asio::ip::tcp;
using Local = asio::local::stream_protocol;
using Clock = std::chrono::steady_clock;
using Parser = http::response_parser<http::string_body>;
constexpr auto kNever = Clock::time_point::max();
constexpr auto kSweep = std::chrono::milliseconds(50);

struct Address {
  bool tls = false;
  std::string host, port, prefix;
  fs::path unix_socket;
};

Address parse_address(const std::string& url) {
  Address out;
  std::string_view rest = url;
  const auto take = [&](std::string_view scheme) {
    if (!rest.starts_with(scheme)) return false;
    rest.remove_prefix(scheme.size());
    return true;
  };
  if (take("unix:")) {
    out.unix_socket = std::string(rest);
    out.host = "localhost";
    if (!rest.empty()) return out;
  } else if ((out.tls = take("https://")) || take("http://")) {
    const size_t slash = std::min(rest.find('/'), rest.size());
    std::string_view authority = rest.substr(0, slash);
    out.prefix = std::string(rest.substr(slash));
    while (out.prefix.ends_with('/')) out.prefix.pop_back();
    const size_t bracket = authority.find(']');  // of an IPv6 address
    const size_t colon = authority.find(':', bracket == authority.npos ? 0 : bracket);
    out.port = colon == authority.npos ? (out.tls ? "443" : "80")
                                       : std::string(authority.substr(colon + 1));
    authority = authority.substr(0, colon);
    if (authority.starts_with('[')) authority = authority.substr(1, authority.size() - 2);
    out.host = std::string(authority);
    const bool digits =
        std::all_of(out.port.begin(), out.port.end(), [](char c) { return c >= '0' && c <= '9'; });
    const bool plain =
        std::all_of(url.begin(), url.end(), [](char c) { return c > ' ' && c < 0x7f; });
    if (!out.host.empty() && !out.port.empty() && digits && plain) return out;
  }
  throw Error(Kind::Misused, fmt::format("the server's address is '{}'", printable(url, 100)),
              "expected http://HOST:PORT, https://HOST or unix:SOCKET");
}

// One connection, kept between calls. What it waits for ends at `deadline`.
struct Connection {
  explicit Connection(std::set<Connection*>& list) : all(list) { all.insert(this); }
  ~Connection() { all.erase(this); }
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  std::set<Connection*>& all;
  std::unique_ptr<Transport> transport;
  std::string input;
  Clock::time_point deadline = kNever;
  bool timed_out = false;
};

}  // namespace

std::string_view HttpReply::header(std::string_view name) const noexcept {
  for (const auto& [field, value] : headers) {
    if (field == name) return value;
  }
  return {};
}

std::string HttpReply::problem() const {
  if (!failure.empty()) return failure;
  try {
    return printable(Json::parse(body, "answer").at("error").at("message").string(), 1000);
  } catch (const Error&) {
    return fmt::format("the server answered with status {}", status);
  }
}

bool EventReader::put(std::string_view bytes,
                      const std::function<bool(std::string_view data)>& on_event) {
  for (const char c : bytes) {
    if (c != '\n') {
      line_ += c;
      continue;
    }
    if (line_.ends_with('\r')) line_.pop_back();
    std::string_view line = line_;
    if (line.starts_with("data:")) {
      line.remove_prefix(5);
      if (line.starts_with(' ')) line.remove_prefix(1);
      if (has_data_) data_ += '\n';
      data_ += line;
      has_data_ = true;
    } else if (line.empty() && has_data_) {
      has_data_ = false;
      const std::string data = std::exchange(data_, {});
      line_.clear();
      if (!on_event(data)) return false;
      continue;
    }  // names, ids and comments are nothing to us
    line_.clear();
  }
  return true;
}

struct HttpClient::Impl {
  explicit Impl(ClientOptions wanted)
      : options(std::move(wanted)), address(parse_address(options.url)) {
    if (!address.tls) return;
    tls.emplace(asio::ssl::context::tls_client);
    error_code failed;
    tls->set_default_verify_paths(failed);
    tls->set_verify_mode(asio::ssl::verify_peer);
    if (options.trusted.empty()) return;
    tls->load_verify_file(options.trusted.string(), failed);
    if (failed) {
      throw_bad_input(options.trusted.string() + ": " + failed.message(),
                      "expected certificates in PEM form");
    }
  }

  std::string request_text(const HttpCall& call) const {
    const bool v6 = address.host.find(':') != address.host.npos;
    std::string text = fmt::format("{} {}{} HTTP/1.1\r\nHost: {}", call.method, address.prefix,
                                   call.path, v6 ? "[" + address.host + "]" : address.host);
    const bool usual = address.port.empty() || address.port == (address.tls ? "443" : "80");
    if (!usual) text += ":" + address.port;
    text += "\r\nUser-Agent: quern/" QUERN_VERSION "\r\nAccept: */*\r\n";
    if (!options.api_key.empty()) {
      text += fmt::format("Authorization: Bearer {}\r\n", options.api_key);
    }
    if (call.method == "POST") {
      text +=
          fmt::format("Content-Type: application/json\r\nContent-Length: {}\r\n", call.body.size());
    }
    return text + "\r\n" + call.body;
  }

  asio::awaitable<std::string> connect(Connection& connection);
  asio::awaitable<HttpReply> exchange(Connection& connection, const HttpCall& call);
  asio::awaitable<bool> read_reply(Connection& connection, const HttpCall& call, HttpReply& reply);
  asio::awaitable<void> sweep(const std::atomic<bool>* cancel);
  asio::awaitable<void> work(const std::function<std::optional<HttpCall>()>& next);
  void set_deadline(Connection& connection, double seconds) const {
    connection.deadline =
        Clock::now() + std::chrono::milliseconds(static_cast<int64_t>(1000 * seconds));
  }

  ClientOptions options;
  Address address;
  std::optional<asio::ssl::context> tls;
  bool cancelled = false;
  int at_work = 0;                    // connections with calls to make still
  std::set<Connection*> connections;  // outlives those that io still has
  asio::io_context io{1};
  asio::steady_timer sweeper{io};
};

// What went wrong; empty when it is there.
asio::awaitable<std::string> HttpClient::Impl::connect(Connection& connection) {
  set_deadline(connection, options.connect_seconds);
  connection.input.clear();
  connection.timed_out = false;
  if (!address.unix_socket.empty()) {
    Local::socket socket(io);
    const auto [failed] =
        co_await socket.async_connect(Local::endpoint(address.unix_socket.string()), kAwait);
    if (failed) co_return failed.message();
    connection.transport = make_transport(std::move(socket));
    co_return "";
  }
  tcp::resolver resolver(io);
  const auto [unknown, places] =
      co_await resolver.async_resolve(address.host, address.port, kAwait);
  if (unknown) co_return unknown.message();
  tcp::socket socket(io);
  // Closed from outside when it takes too long.
  asio::steady_timer limit(io, connection.deadline);
  limit.async_wait([&socket](error_code ended) {
    error_code ignored;
    if (!ended) socket.close(ignored);
  });
  const auto [failed, where] = co_await asio::async_connect(socket, places, kAwait);
  limit.cancel();
  if (failed) {
    co_return failed == asio::error::operation_aborted ? "it takes too long" : failed.message();
  }
  error_code ignored;
  socket.set_option(tcp::no_delay(true), ignored);
  if (!tls) {
    connection.transport = make_transport(std::move(socket));
    co_return "";
  }
  connection.transport = make_client_transport(std::move(socket), *tls, address.host);
  if (const error_code refused = co_await connection.transport->handshake()) {
    connection.transport.reset();
    co_return "TLS: " + refused.message();
  }
  co_return "";
}

// False where the connection ended before a byte of the answer.
asio::awaitable<bool> HttpClient::Impl::read_reply(Connection& connection, const HttpCall& call,
                                                   HttpReply& reply) {
  Parser parser;
  parser.body_limit(boost::none);
  parser.eager(true);
  if (call.method == "HEAD") parser.skip(true);
  EventReader events;
  bool begun = false, streams = false, starved = false;
  set_deadline(connection, options.silence_seconds);
  while (!parser.is_done()) {
    if (starved || connection.input.empty()) {
      if (const error_code failed = co_await connection.transport->read(connection.input)) {
        if (connection.timed_out) {
          reply.failure = cancelled ? "interrupted" : "the server fell silent";
          co_return true;
        }
        // An answer without a length ends with its connection.
        error_code ending;
        if (begun) parser.put_eof(ending);
        if (begun && !ending && parser.is_done()) break;
        reply.failure = "the connection ended in the middle of the answer";
        co_return begun;
      }
      set_deadline(connection, options.silence_seconds);
    }
    error_code failed;
    const size_t used =
        parser.put(asio::buffer(connection.input.data(), connection.input.size()), failed);
    connection.input.erase(0, used);
    if (failed && failed != http::error::need_more) {
      reply.failure = "the answer is no HTTP: " + failed.message();
      co_return true;
    }
    if (parser.is_header_done() && !std::exchange(begun, true)) {
      const auto& head = parser.get();
      reply.status = static_cast<int>(head.result_int());
      for (const auto& field : head) {
        std::string name(field.name_string());
        std::transform(name.begin(), name.end(), name.begin(),
                       [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
        reply.headers.emplace_back(std::move(name), std::string(field.value()));
      }
      streams = call.on_event && reply.status == 200 &&
                reply.header("content-type").starts_with("text/event-stream");
    }
    if (streams) {
      const std::string part = std::exchange(parser.get().body(), {});
      if (!events.put(part, call.on_event)) {
        connection.transport.reset();
        co_return true;
      }
    }
    starved = used == 0;  // nothing more can be made of what is there
  }
  reply.body = std::move(parser.get().body());
  if (!parser.keep_alive()) connection.transport.reset();
  co_return true;
}

asio::awaitable<HttpReply> HttpClient::Impl::exchange(Connection& connection,
                                                      const HttpCall& call) {
  const std::string text = request_text(call);
  HttpReply reply;
  // A kept connection may be gone by now: then the call is made once more, over a new one.
  for (bool fresh = false; !fresh;) {
    fresh = connection.transport == nullptr;
    if (fresh) {
      const std::string problem = co_await connect(connection);
      if (!problem.empty()) {
        reply.failure = fmt::format("cannot connect to {}: {}", options.url,
                                    cancelled ? "interrupted" : problem);
        co_return reply;
      }
    }
    reply = {};
    set_deadline(connection, options.silence_seconds);
    const error_code failed = co_await connection.transport->write(text);
    // A server may answer and close before it has read everything.
    const bool heard = co_await read_reply(connection, call, reply);
    if (failed && !heard) reply.failure = "the connection ended: " + failed.message();
    if (!reply.failure.empty()) connection.transport.reset();
    if (heard) break;
  }
  connection.deadline = kNever;
  co_return reply;
}

asio::awaitable<void> HttpClient::Impl::work(const std::function<std::optional<HttpCall>()>& next) {
  Connection connection(connections);
  while (!cancelled) {
    const std::optional<HttpCall> call = next();
    if (!call) break;
    if (call->pause.count() > 0) {
      asio::steady_timer pause(io, call->pause);
      co_await pause.async_wait(kAwait);
    }
    HttpReply reply = co_await exchange(connection, *call);
    if (call->done) call->done(std::move(reply));
  }
}

// One clock for all deadlines, and for whoever does not want to wait.
asio::awaitable<void> HttpClient::Impl::sweep(const std::atomic<bool>* cancel) {
  while (at_work > 0) {
    sweeper.expires_after(kSweep);
    co_await sweeper.async_wait(kAwait);
    if (cancel != nullptr && cancel->load(std::memory_order_relaxed)) cancelled = true;
    const auto now = Clock::now();
    for (Connection* connection : connections) {
      if ((!cancelled && connection->deadline > now) || connection->transport == nullptr) continue;
      connection->timed_out = true;
      connection->transport->close();
    }
  }
}

HttpClient::HttpClient(ClientOptions options) : impl_(std::make_unique<Impl>(std::move(options))) {}

HttpClient::~HttpClient() = default;

const std::string& HttpClient::url() const noexcept { return impl_->options.url; }

HttpReply HttpClient::send(HttpCall call, const std::atomic<bool>* cancel) {
  HttpReply out;
  out.failure = "interrupted";
  bool taken = false;
  call.done = [&](HttpReply reply) { out = std::move(reply); };
  run(
      1,
      [&]() -> std::optional<HttpCall> {
        if (std::exchange(taken, true)) return std::nullopt;
        return std::move(call);
      },
      cancel);
  return out;
}

void HttpClient::run(int connections, const std::function<std::optional<HttpCall>()>& next,
                     const std::atomic<bool>* cancel) {
  Impl& impl = *impl_;
  impl.cancelled = false;
  impl.io.restart();
  std::exception_ptr failure;
  impl.at_work = connections;
  for (int i = 0; i < connections; ++i) {
    asio::co_spawn(impl.io, impl.work(next), [&](std::exception_ptr thrown) {
      if (--impl.at_work == 0) impl.sweeper.cancel();  // nobody waits for the clock
      if (!thrown) return;
      if (!failure) failure = thrown;
      impl.cancelled = true;  // the clock ends the others, who refer to this call's arguments
    });
  }
  asio::co_spawn(impl.io, impl.sweep(cancel), asio::detached);
  impl.io.run();
  if (failure) std::rethrow_exception(failure);
}

}  // namespace quern::serve
