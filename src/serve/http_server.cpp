#include "serve/http_server.h"

#include <fmt/format.h>
#include <sys/resource.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/post.hpp>

#include "core/error.h"
#include "core/log.h"
#include "serve/http_server_impl.h"

namespace quern::serve {
namespace {

using asio::ip::tcp;
constexpr auto kSweep = std::chrono::milliseconds(100);

}  // namespace

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
