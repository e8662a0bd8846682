#include "support/scripted_server.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>

namespace quern::test {

bool ServedConnection::send(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t sent = ::send(socket_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent <= 0) return false;
    bytes.remove_prefix(static_cast<size_t>(sent));
  }
  return true;
}

bool ServedConnection::drip(std::string_view bytes, int pause_ms) {
  for (const char& byte : bytes) {
    if (!send({&byte, 1})) return false;
    if (pause_ms > 0) std::this_thread::sleep_for(std::chrono::milliseconds(pause_ms));
  }
  return true;
}

void ServedConnection::answer(int status, std::string_view body, std::string_view type,
                              std::string_view more_headers) {
  std::string text = "HTTP/1.1 " + std::to_string(status) + " Scripted\r\nContent-Type: ";
  text += type;
  text += "\r\nContent-Length: " + std::to_string(body.size()) + "\r\n";
  text += more_headers;
  text += "\r\n";
  text += body;
  send(text);
}

void ServedConnection::answer_file(const ServedRequest& request, std::string_view content,
                                   std::string_view more_headers) {
  const auto range = request.headers.find("range");
  if (range == request.headers.end()) {
    answer(200, content, "application/octet-stream", more_headers);
    return;
  }
  const size_t from = std::strtoull(range->second.c_str() + 6, nullptr, 10);  // "bytes=N-"
  const std::string size = std::to_string(content.size());
  if (from >= content.size()) {
    answer(416, "", "text/plain", "Content-Range: bytes */" + size + "\r\n");
    return;
  }
  answer(206, content.substr(from), "application/octet-stream",
         "Content-Range: bytes " + std::to_string(from) + "-" + std::to_string(content.size() - 1) +
             "/" + size + "\r\n" + std::string(more_headers));
}

ScriptedServer::ScriptedServer(Handler handler) : handler_(std::move(handler)) {
  listener_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  EXPECT_EQ(::bind(listener_, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  EXPECT_EQ(::listen(listener_, 64), 0);
  socklen_t size = sizeof address;
  ::getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size);
  port_ = ntohs(address.sin_port);
  acceptor_ = std::thread([this] {
    while (true) {
      const int socket = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
      if (socket < 0) return;
      const std::lock_guard lock(mutex_);
      sockets_.push_back(socket);
      workers_.emplace_back([this, socket] { serve(socket); });
    }
  });
}

ScriptedServer::~ScriptedServer() {
  ::shutdown(listener_, SHUT_RDWR);
  acceptor_.join();
  for (const int socket : sockets_) ::shutdown(socket, SHUT_RDWR);
  for (std::thread& worker : workers_) worker.join();
  for (const int socket : sockets_) ::close(socket);
  ::close(listener_);
}

std::string ScriptedServer::url(std::string_view path) const {
  return "http://127.0.0.1:" + std::to_string(port_) + std::string(path);
}

std::vector<ServedRequest> ScriptedServer::requests() const {
  const std::lock_guard lock(mutex_);
  return requests_;
}

void ScriptedServer::serve(int socket) {
  ServedConnection connection(socket);
  std::string input;
  char block[16 << 10];
  const auto more = [&] {
    const ssize_t got = ::recv(socket, block, sizeof block, 0);
    if (got > 0) input.append(block, static_cast<size_t>(got));
    return got > 0;
  };
  while (connection.open()) {
    size_t end;
    while ((end = input.find("\r\n\r\n")) == input.npos) {
      if (!more()) return;
    }
    ServedRequest request;
    const size_t line = input.find("\r\n");
    const std::string first = input.substr(0, line);
    request.method = first.substr(0, first.find(' '));
    request.target = first.substr(request.method.size() + 1);
    request.target.resize(request.target.rfind(' '));
    for (size_t at = line + 2; at < end + 2;) {
      const size_t next = input.find("\r\n", at);
      const size_t colon = input.find(':', at);
      std::string name = input.substr(at, colon - at);
      std::transform(name.begin(), name.end(), name.begin(), ::tolower);
      const size_t value = std::min(input.find_first_not_of(' ', colon + 1), next);
      request.headers[name] = input.substr(value, next - value);
      at = next + 2;
    }
    input.erase(0, end + 4);
    const auto length = request.headers.find("content-length");
    const size_t size = length == request.headers.end() ? 0 : std::stoull(length->second);
    while (input.size() < size) {
      if (!more()) return;
    }
    request.body = input.substr(0, size);
    input.erase(0, size);
    {
      const std::lock_guard lock(mutex_);
      requests_.push_back(request);
    }
    handler_(request, connection);
  }
  ::shutdown(socket, SHUT_RDWR);
}

}  // namespace quern::test
