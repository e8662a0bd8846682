// The HTTP client, against our own server and against servers that misbehave.
#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <thread>

#include "serve/http_client.h"
#include "serve/test_server.h"

namespace quern::test {
namespace {

serve::ClientOptions to(const std::string& url) {
  serve::ClientOptions options;
  options.url = url;
  options.silence_seconds = 20;
  return options;
}
std::string url_of(uint16_t port) { return "http://127.0.0.1:" + std::to_string(port); }

serve::HttpCall get(const std::string& path) {
  serve::HttpCall call;
  call.method = "GET";
  call.path = path;
  return call;
}

// Answers one connection with fixed bytes, after it has read a head, and closes.
class FixedServer {
 public:
  explicit FixedServer(std::string answer, int connections = 1) {
    listener_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(::bind(listener_, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    EXPECT_EQ(::listen(listener_, 8), 0);
    socklen_t size = sizeof address;
    ::getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size);
    port_ = ntohs(address.sin_port);
    thread_ = std::thread([this, answer = std::move(answer), connections] {
      for (int i = 0; i < connections; ++i) {
        const int socket = ::accept(listener_, nullptr, nullptr);
        if (socket < 0) return;
        std::string head;
        char block[4096];
        while (head.find("\r\n\r\n") == head.npos) {
          const ssize_t got = ::recv(socket, block, sizeof block, 0);
          if (got <= 0) break;
          head.append(block, static_cast<size_t>(got));
        }
        // Byte by byte, as the worst network would.
        for (const char& byte : answer) ::send(socket, &byte, 1, MSG_NOSIGNAL);
        ::close(socket);
      }
    });
  }
  ~FixedServer() {
    ::shutdown(listener_, SHUT_RDWR);
    thread_.join();
    ::close(listener_);
  }
  std::string url() const { return url_of(port_); }

 private:
  int listener_;
  uint16_t port_ = 0;
  std::thread thread_;
};

TEST(HttpClient, AsksOverOneConnectionManyTimes) {
  TestServer server;
  serve::HttpClient client(to(url_of(server.port())));
  for (int i = 0; i < 3; ++i) {
    const serve::HttpReply reply = client.send(get("/health"));
    EXPECT_TRUE(reply.ok()) << reply.problem();
    EXPECT_EQ(reply.body, R"({"status":"ok"})");
  }
  const serve::HttpReply missing = client.send(get("/nothing"));
  EXPECT_EQ(missing.status, 404);
  EXPECT_EQ(missing.problem(), "there is nothing at /nothing");
}

TEST(HttpClient, AStreamComesEventByEventAndMayBeLeft) {
  TestServer server;
  serve::HttpClient client(to(url_of(server.port()) + "/v1/"));
  const json body = {{"prompt", "abc"}, {"max_tokens", 40}, {"seed", 3}};
  const std::string whole = server.post("/v1/completions", body).parsed()["choices"][0]["text"];
  json streaming = body;
  streaming["stream"] = true;
  std::string text;
  bool ended = false;
  serve::HttpCall call;
  call.path = "/completions";
  call.body = streaming.dump();
  call.on_event = [&](std::string_view data) {
    ended = data == "[DONE]";
    if (!ended) text += json::parse(data)["choices"][0]["text"];
    return true;
  };
  const serve::HttpReply reply = client.send(call);
  EXPECT_TRUE(reply.ok()) << reply.problem();
  EXPECT_TRUE(ended);
  EXPECT_EQ(text, whole);
  EXPECT_EQ(reply.body, "");
  int events = 0;
  call.on_event = [&](std::string_view) { return ++events < 2; };
  client.send(call);
  EXPECT_EQ(events, 2);
  EXPECT_TRUE(server.wait_for("quern_running", 0));  // and it costs nobody anything
}

TEST(HttpClient, IsInterrupted) {
  TestServer server;
  serve::HttpClient client(to(url_of(server.port())));
  std::atomic<bool> cancel = false;
  serve::HttpCall call;
  call.path = "/v1/completions";
  call.body =
      json{{"prompt", "abc"}, {"max_tokens", 4000}, {"ignore_eos", true}, {"stream", true}}.dump();
  call.on_event = [&](std::string_view) { return cancel = true; };
  EXPECT_EQ(client.send(call, &cancel).failure, "interrupted");
}

TEST(HttpClient, SpeaksTlsAndTrustsNobodyElse) {
  const TempFolder folder;
  const std::string key = (folder.path() / "key.pem").string();
  const std::string certificate = (folder.path() / "cert.pem").string();
  const std::string command =
      "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj "
      "/CN=localhost -addext subjectAltName=DNS:localhost -keyout " +
      key + " -out " + certificate + " >/dev/null 2>&1";
  if (std::system(command.c_str()) != 0) GTEST_SKIP() << "skipped: needs the openssl program";
  serve::ServeOptions options = tiny_options();
  options.http.tls_certificate = certificate;
  options.http.tls_key = key;
  TestServer server(std::move(options));
  const std::string port = std::to_string(server.port());
  serve::ClientOptions trusting = to("https://localhost:" + port);
  trusting.trusted = certificate;
  const serve::HttpReply reply = serve::HttpClient(trusting).send(get("/health"));
  EXPECT_TRUE(reply.ok()) << reply.problem();
  EXPECT_FALSE(serve::HttpClient(to("https://localhost:" + port)).send(get("/health")).ok());
  trusting.url = "https://127.0.0.1:" + port;  // not the certificate's name
  EXPECT_FALSE(serve::HttpClient(trusting).send(get("/health")).ok());
}

TEST(HttpClient, AnswersWithoutALengthEndWithTheirConnection) {
  FixedServer server("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\nhello");
  const serve::HttpReply reply = serve::HttpClient(to(server.url())).send(get("/"));
  EXPECT_TRUE(reply.ok()) << reply.problem();
  EXPECT_EQ(reply.body, "hello");
}

TEST(HttpClient, WhatIsCutOrNoHttpIsAFailure) {
  for (const char* answer :
       {"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello", "HTTP/1.1 200 OK\r\nConte",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", "what?\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\nhello\r\n"}) {
    FixedServer server(answer);
    const serve::HttpReply reply = serve::HttpClient(to(server.url())).send(get("/"));
    EXPECT_FALSE(reply.ok()) << answer;
    EXPECT_FALSE(reply.failure.empty()) << answer;
  }
  EXPECT_FALSE(serve::HttpClient(to("http://127.0.0.1:1")).send(get("/")).ok());
  EXPECT_FALSE(serve::HttpClient(to("unix:/nowhere/socket")).send(get("/")).ok());
}

TEST(HttpClient, AddressesThatAreNoneAreRefused) {
  for (const char* url : {"", "localhost:8080", "ftp://x", "http://", "http://:80",
                          "unix:", "http://a b/", "http://a:x/", "https://a:/"}) {
    expect_error([&] { serve::HttpClient client(to(url)); }, Kind::Misused, {"address"});
  }
}

TEST(Events, ComeHoweverTheirBytesAreCut) {
  const std::string text =
      ": ping\n\nevent: x\ndata: one\n\ndata:two\r\n\r\ndata: a\ndata: b\nid: 3\n\ndata:\n\ndata: "
      "cut";
  for (size_t cut = 0; cut <= text.size(); ++cut) {
    serve::EventReader reader;
    std::vector<std::string> events;
    const auto keep = [&](std::string_view data) {
      events.emplace_back(data);
      return true;
    };
    EXPECT_TRUE(reader.put(std::string_view(text).substr(0, cut), keep));
    EXPECT_TRUE(reader.put(std::string_view(text).substr(cut), keep));
    EXPECT_EQ(events, (std::vector<std::string>{"one", "two", "a\nb", ""})) << cut;
  }
}

}  // namespace
}  // namespace quern::test
