#include "tools/mcp_channel.h"

#include <fmt/format.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "core/error.h"
#include "net/http_client.h"
#include "tools/child_process.h"

namespace quern {
namespace {

using Clock = std::chrono::steady_clock;

constexpr size_t kMaxMessage = size_t{16} << 20;
constexpr size_t kMaxExchange = size_t{64} << 20;  // bytes until a request is answered
constexpr int kMaxMessages = 10'000;               // the same in messages
constexpr size_t kKeptWords = 2000;                // of standard error, for messages

void check(const McpWait& wait) {
  if (wait.cancel != nullptr && wait.cancel->load()) throw McpBroken{"stopped", true};
  if (Clock::now() >= wait.until) throw McpBroken{"the server does not answer in time", true};
}

class ProgramChannel : public McpChannel {
 public:
  explicit ProgramChannel(const std::vector<std::string>& command)
      : child_({.command = command, .input = true}) {}
  // A server ends when its input does; what does not is killed.
  ~ProgramChannel() override {
    child_.close_in();
    for (int round = 0; round < 20 && !child_.ended(); ++round) ::usleep(10'000);
  }

  void ask(const std::string& request, const McpWait& wait, const OnMessage& on_message) override {
    bytes_ = 0;
    messages_ = 0;
    outgoing_ += request + "\n";
    for (;;) {
      if (deliver(on_message)) return;
      check(wait);
      step();
    }
  }

  void tell(const std::string& message, const McpWait& wait) override {
    outgoing_ += message + "\n";
    while (!outgoing_.empty()) {
      check(wait);
      step();
    }
  }

  void set_headers(std::vector<std::pair<std::string, std::string>>) override {}
  bool is_http() const override { return false; }

 private:
  // Lines that are whole. Those that are no JSON are what programs print by mistake.
  bool deliver(const OnMessage& on_message) {
    for (size_t end = held_.find('\n', searched_); end != held_.npos; end = held_.find('\n')) {
      std::string line = held_.substr(0, end);
      held_.erase(0, end + 1);
      searched_ = 0;
      if (line.ends_with('\r')) line.pop_back();
      if (line.empty()) continue;
      if (++messages_ > kMaxMessages) {
        throw McpBroken{"the server sends messages without end and no answer among them"};
      }
      if (on_message(line)) return true;
    }
    searched_ = held_.size();
    if (held_.size() > kMaxMessage) throw McpBroken{"the server sends a message of over 16 MiB"};
    if (bytes_ > kMaxExchange) throw McpBroken{"the server sends over 64 MiB without an answer"};
    return false;
  }

  void step() {
    if (child_.out() < 0) {
      child_.kill();
      std::string problem =
          held_.empty() ? "the server has ended" : "the server ended in the middle of a message";
      if (!words_.empty()) problem += ": " + printable(words_, 400);
      throw McpBroken{problem};
    }
    pollfd files[3] = {{child_.out(), POLLIN, 0},
                       {child_.err(), POLLIN, 0},
                       {outgoing_.empty() ? -1 : child_.in(), POLLOUT, 0}};
    if (::poll(files, 3, 20) <= 0) return;
    char buffer[1 << 16];
    if (files[0].revents != 0) {
      const ssize_t count = ::read(child_.out(), buffer, sizeof buffer);
      if (count > 0) {
        held_.append(buffer, static_cast<size_t>(count));
        bytes_ += static_cast<size_t>(count);
      } else if (count == 0 || (errno != EAGAIN && errno != EINTR)) {
        child_.close_out();
      }
    }
    if (files[1].revents != 0) {
      const ssize_t count = ::read(child_.err(), buffer, sizeof buffer);
      if (count > 0) {
        words_.append(buffer, static_cast<size_t>(count));
        if (words_.size() > kKeptWords) words_.erase(0, words_.size() - kKeptWords);
      } else if (count == 0 || (errno != EAGAIN && errno != EINTR)) {
        child_.close_err();
      }
    }
    if (files[2].revents != 0) {
      const ssize_t count = ::write(child_.in(), outgoing_.data(), outgoing_.size());
      if (count > 0) {
        outgoing_.erase(0, static_cast<size_t>(count));
      } else if (count < 0 && errno != EAGAIN && errno != EINTR) {
        outgoing_.clear();  // it reads no more; what it still says is read to its end
        child_.close_in();
      }
    }
  }

  ChildProcess child_;
  std::string outgoing_, held_, words_;
  size_t searched_ = 0, bytes_ = 0;
  int messages_ = 0;
};

class HttpChannel : public McpChannel {
 public:
  explicit HttpChannel(std::string url) : url_(std::move(url)) {}
  ~HttpChannel() override {
    if (session_.empty()) return;
    try {
      const auto client = make(2);
      net::HttpCall call;
      call.method = "DELETE";
      call.path = url_;
      call.headers.emplace_back("Mcp-Session-Id", session_);
      client->send(std::move(call));
    } catch (...) {
      // The server forgets the session by itself.
    }
  }

  void ask(const std::string& request, const McpWait& wait, const OnMessage& on_message) override {
    bool answered = false;
    int messages = 0;
    size_t bytes = 0;
    const net::HttpReply reply = post(request, wait, [&](std::string_view data) {
      bytes += data.size();
      if (++messages > kMaxMessages || bytes > kMaxExchange) {
        throw McpBroken{"the server sends messages without end and no answer among them"};
      }
      answered = answered || on_message(data);
      return !answered;
    });
    if (answered) return;
    if (!reply.failure.empty()) {
      check(wait);
      throw McpBroken{reply.failure};
    }
    // An error of JSON-RPC may come with any status.
    if (!reply.body.empty() && reply.body[0] == '{' && on_message(reply.body)) return;
    if (!reply.ok()) throw McpBroken{reply.problem(), false, reply.status};
    throw McpBroken{"the server's answer holds no response to the request"};
  }

  void tell(const std::string& message, const McpWait& wait) override {
    const net::HttpReply reply = post(message, wait, {});
    if (!reply.ok()) throw McpBroken{reply.problem(), false, reply.status};
  }

  void set_headers(std::vector<std::pair<std::string, std::string>> headers) override {
    headers_ = std::move(headers);
  }
  bool is_http() const override { return true; }

 private:
  std::unique_ptr<net::HttpClient> make(double seconds) const {
    net::ClientOptions options;
    options.max_redirects = 0;
    options.max_body_bytes = kMaxMessage;
    options.total_seconds = std::max(0.05, seconds);
    return std::make_unique<net::HttpClient>(std::move(options));
  }

  net::HttpReply post(const std::string& message, const McpWait& wait,
                      const std::function<bool(std::string_view)>& on_event) {
    check(wait);
    const auto client = make(std::chrono::duration<double>(wait.until - Clock::now()).count());
    net::HttpCall call;
    call.method = "POST";
    call.path = url_;
    call.body = message;
    call.headers = headers_;
    call.headers.emplace_back("Content-Type", "application/json");
    call.headers.emplace_back("Accept", "application/json, text/event-stream");
    if (!session_.empty()) call.headers.emplace_back("Mcp-Session-Id", session_);
    call.on_event = on_event;
    const net::HttpReply reply = client->send(std::move(call), wait.cancel);
    if (const std::string_view session = reply.header("mcp-session-id");
        !session.empty() && session.size() <= 1024) {
      session_ = session;
    }
    return reply;
  }

  std::string url_, session_;
  std::vector<std::pair<std::string, std::string>> headers_;
};

}  // namespace

std::unique_ptr<McpChannel> start_mcp_program(const std::vector<std::string>& command) {
  return std::make_unique<ProgramChannel>(command);
}

std::unique_ptr<McpChannel> reach_mcp_server(const std::string& url) {
  return std::make_unique<HttpChannel>(url);
}

}  // namespace quern
