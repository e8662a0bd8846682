#include "serve/transport.h"

#include <array>
#include <boost/asio/ssl/stream.hpp>
#include <boost/asio/write.hpp>

namespace quern::serve {
namespace {

// What all kinds do alike: bytes go through `Stream`, whose lowest layer is a socket.
template <class Stream>
class StreamTransport : public Transport {
 public:
  template <class... Arguments>
  explicit StreamTransport(Arguments&&... arguments)
      : stream_(std::forward<Arguments>(arguments)...) {}

  asio::awaitable<error_code> write(std::string_view bytes) override {
    const auto [failed, written] =
        co_await asio::async_write(stream_, asio::buffer(bytes.data(), bytes.size()), kAwait);
    co_return failed;
  }
  void shutdown_send() noexcept override {
    error_code ignored;
    stream_.lowest_layer().shutdown(asio::socket_base::shutdown_send, ignored);
  }
  void close() noexcept override {
    error_code ignored;
    stream_.lowest_layer().close(ignored);
  }

 protected:
  Stream stream_;
};

template <class Socket>
class PlainTransport : public StreamTransport<Socket> {
 public:
  explicit PlainTransport(Socket socket) : StreamTransport<Socket>(std::move(socket)) {
    error_code ignored;
    this->stream_.non_blocking(true, ignored);
  }

  asio::awaitable<error_code> handshake() override { co_return error_code(); }

  // Waits first and reads then, so that an idle connection needs no buffer.
  asio::awaitable<error_code> read(std::string& into) override {
    static thread_local std::array<char, 16 << 10> block;
    while (true) {
      const auto [failed] = co_await this->stream_.async_wait(Socket::wait_read, kAwait);
      if (failed) co_return failed;
      error_code problem;
      const size_t got = this->stream_.read_some(asio::buffer(block), problem);
      if (problem == asio::error::would_block || problem == asio::error::try_again) continue;
      into.append(block.data(), got);
      co_return problem;
    }
  }
};

using TlsStream = asio::ssl::stream<asio::ip::tcp::socket>;

class TlsTransport : public StreamTransport<TlsStream> {
 public:
  TlsTransport(asio::ip::tcp::socket socket, asio::ssl::context& context)
      : StreamTransport(std::move(socket), context) {}

  asio::awaitable<error_code> handshake() override {
    const auto [failed] = co_await stream_.async_handshake(asio::ssl::stream_base::server, kAwait);
    co_return failed;
  }

  asio::awaitable<error_code> read(std::string& into) override {
    if (block_.empty()) block_.resize(16 << 10);
    const auto [failed, got] = co_await stream_.async_read_some(asio::buffer(block_), kAwait);
    into.append(block_.data(), got);
    co_return failed;
  }

 private:
  std::string block_;
};

}  // namespace

std::unique_ptr<Transport> make_transport(asio::ip::tcp::socket socket) {
  return std::make_unique<PlainTransport<asio::ip::tcp::socket>>(std::move(socket));
}

std::unique_ptr<Transport> make_transport(asio::local::stream_protocol::socket socket) {
  return std::make_unique<PlainTransport<asio::local::stream_protocol::socket>>(std::move(socket));
}

std::unique_ptr<Transport> make_transport(asio::ip::tcp::socket socket,
                                          asio::ssl::context& context) {
  return std::make_unique<TlsTransport>(std::move(socket), context);
}

}  // namespace quern::serve
