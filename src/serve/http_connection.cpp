// One connection: requests are read, checked, handed on and answered, one after another.
#include <fmt/format.h>

#include <algorithm>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <random>

#include "core/ascii.h"
#include "serve/http_server_impl.h"

namespace quern::serve {
namespace {

namespace http = boost::beast::http;
constexpr auto kLinger = std::chrono::seconds(2);

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

// Method, path, query and headers as handlers see them.
void take_head(const Parser::value_type& head, HttpRequest& request) {
  request.method = std::string(head.method_string());
  request.http_1_0 = head.version() < 11;
  std::string_view target(head.target().data(), head.target().size());
  for (const auto& field : head) {
    request.headers.emplace_back(ascii_lower(field.name_string()), std::string(field.value()));
  }
  // The absolute form names the host in the first line, and that one counts (RFC 9112, 3.2.2).
  for (const std::string_view scheme : {"http://", "https://"}) {
    if (!ascii_lower(target.substr(0, scheme.size())).starts_with(scheme)) continue;
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
}

}  // namespace

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
  if (codings > 1 ||
      (codings == 1 && ascii_lower(head[http::field::transfer_encoding]) != "chunked")) {
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
  for (const auto& [name, value] : request.answer_headers) {
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
    take_head(parser.get(), request);
    record.method = request.method;
    record.path = request.path;
    http_1_1 = !request.http_1_0;
    keep_alive = parser.keep_alive();
  }
  record.id = request.id;
  Admission admission;
  std::optional<HttpResponse>& refusal = admission.refusal;
  if (status != 0) {
    refusal = options.error(status, std::string(reason_phrase(status)));
  } else if (draining) {
    refusal = options.error(503, "the server is about to end");
  } else {
    admission = options.gate(request);
    request.answer_headers = admission.headers;
    const std::string_view expect = request.header("expect");
    if (!refusal && !expect.empty()) {
      if (ascii_lower(expect) != "100-continue") {
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

}  // namespace quern::serve
