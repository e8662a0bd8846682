#include "serve/test_server.h"

#include <arpa/inet.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstring>

#include "core/utf8.h"

namespace quern::test {
namespace {

using Clock = std::chrono::steady_clock;

std::string byte_vocabulary() {
  constexpr char kDigits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string text;
  for (int byte = 0; byte < 256; ++byte) {
    text += {kDigits[byte >> 2], kDigits[(byte & 3) << 4], '=', '=', ' '};
    text += std::to_string(byte) + "\n";
  }
  return text;
}

int connected(int family, const sockaddr* address, socklen_t size, int receive_buffer) {
  const int socket = ::socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (receive_buffer > 0) {
    ::setsockopt(socket, SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof receive_buffer);
  }
  EXPECT_EQ(::connect(socket, address, size), 0) << std::strerror(errno);
  return socket;
}

}  // namespace

fs::path tiny_model() {
  static const TempFolder folder;
  static const fs::path model = [] {
    const fs::path vocabulary = folder.write("bytes.tiktoken", byte_vocabulary());
    const fs::path path = folder.path() / "tiny";
    const std::string command = std::string("'") + test::program_path() + "' init '" +
                                path.string() + "' --preset tiny --seed 3 --tokenizer '" +
                                vocabulary.string() + "' >/dev/null 2>&1";
    EXPECT_EQ(std::system(command.c_str()), 0) << command;
    return path;
  }();
  return model;
}

std::string byte_tokenizer_json(const std::vector<std::string>& specials) {
  json vocabulary, added = json::array();
  uint32_t next = 256;
  for (uint32_t byte = 0; byte < 256; ++byte) {
    const bool shown = (byte >= 33 && byte <= 126) || (byte >= 161 && byte != 173);
    std::string name;
    utf8::append(name, shown ? byte : next++);
    vocabulary[name] = byte;
  }
  for (size_t i = 0; i < specials.size(); ++i) {
    added.push_back({{"id", 256 + i}, {"content", specials[i]}, {"special", true}});
  }
  return json{{"model", {{"type", "BPE"}, {"vocab", vocabulary}, {"merges", json::array()}}},
              {"added_tokens", added},
              {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}}},
              {"decoder", {{"type", "ByteLevel"}}}}
      .dump();
}

std::vector<std::string> Answer::events() const {
  std::vector<std::string> all;
  for (size_t at = 0; (at = body.find("data: ", at)) != body.npos;) {
    const size_t end = body.find("\n\n", at);
    all.push_back(body.substr(at + 6, end - at - 6));
    at = std::min(end, body.size());
  }
  return all;
}

Client::Client(uint16_t port, int receive_buffer) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socket_ = connected(AF_INET, reinterpret_cast<const sockaddr*>(&address), sizeof address,
                      receive_buffer);
}

Client::Client(const fs::path& unix_socket) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, unix_socket.c_str(), sizeof address.sun_path - 1);
  socket_ = connected(AF_UNIX, reinterpret_cast<const sockaddr*>(&address), sizeof address, 0);
}

Client::Client(Client&& other) noexcept
    : socket_(std::exchange(other.socket_, -1)), input_(std::move(other.input_)) {}

Client::~Client() { close(); }

void Client::close(bool reset) {
  if (socket_ < 0) return;
  if (reset) {
    const linger now = {.l_onoff = 1, .l_linger = 0};
    ::setsockopt(socket_, SOL_SOCKET, SO_LINGER, &now, sizeof now);
  }
  ::close(std::exchange(socket_, -1));
}

void Client::shutdown_send() { ::shutdown(socket_, SHUT_WR); }

bool Client::send(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t sent = ::send(socket_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent <= 0) return false;
    bytes.remove_prefix(static_cast<size_t>(sent));
  }
  return true;
}

// False at the end, or when nothing came in time.
bool Client::more(int timeout_ms) {
  pollfd waiting = {socket_, POLLIN, 0};
  if (::poll(&waiting, 1, timeout_ms) <= 0) return false;
  char block[16384];
  const ssize_t got = ::recv(socket_, block, sizeof block, 0);
  if (got <= 0) return false;
  input_.append(block, static_cast<size_t>(got));
  return true;
}

std::string Client::read_until(std::string_view text, int timeout_ms) {
  const auto end = Clock::now() + std::chrono::milliseconds(timeout_ms);
  while (input_.find(text) == input_.npos) {
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(end - Clock::now()).count();
    if (left <= 0 || !more(static_cast<int>(left))) break;
  }
  return std::exchange(input_, {});
}

bool Client::closed_within(int timeout_ms) {
  const auto end = Clock::now() + std::chrono::milliseconds(timeout_ms);
  while (Clock::now() < end) {
    pollfd waiting = {socket_, POLLIN, 0};
    if (::poll(&waiting, 1, 50) <= 0) continue;
    char block[16384];
    const ssize_t got = ::recv(socket_, block, sizeof block, 0);
    if (got <= 0) return true;
    input_.append(block, static_cast<size_t>(got));
  }
  return false;
}

Answer Client::answer(int timeout_ms) {
  Answer out;
  const auto end = Clock::now() + std::chrono::milliseconds(timeout_ms);
  const auto wait = [&] {
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(end - Clock::now()).count();
    return left > 0 && more(static_cast<int>(left));
  };
  size_t head = 0;
  while ((head = input_.find("\r\n\r\n")) == input_.npos) {
    if (!wait()) return out;
  }
  out.status = std::atoi(input_.c_str() + 9);
  for (size_t at = input_.find("\r\n") + 2; at < head + 2;) {
    const size_t line_end = input_.find("\r\n", at);
    const size_t colon = input_.find(": ", at);
    std::string name = input_.substr(at, colon - at);
    std::transform(name.begin(), name.end(), name.begin(), ::tolower);
    out.headers[name] = input_.substr(colon + 2, line_end - colon - 2);
    at = line_end + 2;
  }
  input_.erase(0, head + 4);
  if (out.headers.contains("content-length")) {
    const size_t length = std::stoul(out.headers["content-length"]);
    while (input_.size() < length && wait()) {
    }
    out.body = input_.substr(0, length);
    input_.erase(0, length);
  } else if (out.headers["transfer-encoding"] == "chunked") {
    while (true) {
      size_t line = 0;
      while ((line = input_.find("\r\n")) == input_.npos) {
        if (!wait()) return out;
      }
      const size_t length = std::stoul(input_.substr(0, line), nullptr, 16);
      while (input_.size() < line + 2 + length + 2) {
        if (!wait()) return out;
      }
      out.body += input_.substr(line + 2, length);
      input_.erase(0, line + 2 + length + 2);
      if (length == 0) break;
    }
  } else {
    while (wait()) {
    }
    out.body = std::exchange(input_, {});
  }
  return out;
}

std::string request_text(std::string_view method, std::string_view path, std::string_view body,
                         const Headers& headers) {
  std::string text = std::string(method) + " " + std::string(path) + " HTTP/1.1\r\n";
  const auto has = [&](std::string_view name) {
    return std::any_of(headers.begin(), headers.end(),
                       [&](const auto& header) { return header.first == name; });
  };
  if (!has("Host")) text += "Host: localhost\r\n";
  if (method == "POST" && !has("Content-Type")) text += "Content-Type: application/json\r\n";
  if (!body.empty() || method == "POST") {
    text += "Content-Length: " + std::to_string(body.size()) + "\r\n";
  }
  for (const auto& [name, value] : headers) text += name + ": " + value + "\r\n";
  return text + "\r\n" + std::string(body);
}

serve::ServeOptions tiny_options() {
  serve::ServeOptions options;
  serve::ModelSource source{"tiny", tiny_model(), {}};
  source.options.threads = 1;
  options.models = {source};
  options.engine.memory_bytes = uint64_t{256} << 20;
  options.http.port = 0;
  options.access_log = "";
  return options;
}

TestServer::TestServer(serve::ServeOptions options) {
  if (options.models.empty()) options = tiny_options();
  server_ = std::make_unique<serve::Server>(std::move(options));
  const std::string url = server_->url();
  if (url.starts_with("http")) {
    port_ = static_cast<uint16_t>(std::stoi(url.substr(url.rfind(':') + 1)));
  }
  thread_ = std::thread([this] { server_->run(); });
}

TestServer::~TestServer() { stop(); }

void TestServer::stop() {
  if (!thread_.joinable()) return;
  server_->stop();
  thread_.join();
}

Answer TestServer::get(std::string_view path, const Headers& headers) const {
  Client client = connect();
  client.send(request_text("GET", path, "", headers));
  return client.answer();
}

Answer TestServer::post_text(std::string_view path, std::string_view body,
                             const Headers& headers) const {
  Client client = connect();
  client.send(request_text("POST", path, body, headers));
  return client.answer();
}

Answer TestServer::post(std::string_view path, const json& body, const Headers& headers) const {
  return post_text(path, body.dump(), headers);
}

double TestServer::metric(const std::string& name) const {
  const std::string text = get("/metrics").body;
  double sum = 0;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    const std::string line = text.substr(at, end - at);
    at = end + 1;
    if (line.starts_with(name + " ") || line.starts_with(name + "{")) {
      sum += std::stod(line.substr(line.rfind(' ') + 1));
    }
  }
  return sum;
}

bool TestServer::wait_for(const std::string& name, double value) const {
  const auto end = Clock::now() + std::chrono::seconds(10);
  while (Clock::now() < end) {
    if (metric(name) == value) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  return false;
}

json user(const std::string& text) { return json::array({{{"role", "user"}, {"content", text}}}); }

}  // namespace quern::test
