// A connection's bytes, whatever carries them: TCP, TLS over TCP, or a local socket. Only the
// server includes this.
#pragma once

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <memory>
#include <string>
#include <string_view>

namespace quern::serve {

namespace asio = boost::asio;
using boost::system::error_code;

// What an awaited operation gives: an error code instead of an exception.
constexpr auto kAwait = asio::as_tuple(asio::use_awaitable);

class Transport {
 public:
  virtual ~Transport() = default;
  virtual asio::awaitable<error_code> handshake() = 0;  // of TLS; nothing without it
  // Appends what has come, at least one byte.
  virtual asio::awaitable<error_code> read(std::string& into) = 0;
  virtual asio::awaitable<error_code> write(std::string_view bytes) = 0;
  // Says that no more will be written; the other side may still write.
  virtual void shutdown_send() noexcept = 0;
  // Ends pending operations with an error.
  virtual void close() noexcept = 0;
};

std::unique_ptr<Transport> make_transport(asio::ip::tcp::socket socket);
std::unique_ptr<Transport> make_transport(asio::local::stream_protocol::socket socket);
std::unique_ptr<Transport> make_transport(asio::ip::tcp::socket socket,
                                          asio::ssl::context& context);

}  // namespace quern::serve
