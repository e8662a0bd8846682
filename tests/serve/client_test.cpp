// The HTTP client of net/ against our own server; tests/net has it meet servers that misbehave.
#include <atomic>

#include "net/http_client.h"
#include "serve/test_server.h"

namespace quern::test {
namespace {

net::ClientOptions to(const std::string& url) {
  net::ClientOptions options;
  options.url = url;
  options.silence_seconds = 20;
  return options;
}
std::string url_of(uint16_t port) { return "http://127.0.0.1:" + std::to_string(port); }

net::HttpCall get(const std::string& path) {
  net::HttpCall call;
  call.method = "GET";
  call.path = path;
  return call;
}

TEST(HttpClient, AsksOverOneConnectionManyTimes) {
  TestServer server;
  net::HttpClient client(to(url_of(server.port())));
  for (int i = 0; i < 3; ++i) {
    const net::HttpReply reply = client.send(get("/health"));
    EXPECT_TRUE(reply.ok()) << reply.problem();
    EXPECT_EQ(reply.body, R"({"status":"ok"})");
  }
  const net::HttpReply missing = client.send(get("/nothing"));
  EXPECT_EQ(missing.status, 404);
  EXPECT_EQ(missing.problem(), "there is nothing at /nothing");
}

TEST(HttpClient, AStreamComesEventByEventAndMayBeLeft) {
  TestServer server;
  net::HttpClient client(to(url_of(server.port()) + "/v1/"));
  const json body = {{"prompt", "abc"}, {"max_tokens", 40}, {"seed", 3}};
  const std::string whole = server.post("/v1/completions", body).parsed()["choices"][0]["text"];
  json streaming = body;
  streaming["stream"] = true;
  std::string text;
  bool ended = false;
  net::HttpCall call;
  call.path = "/completions";
  call.body = streaming.dump();
  call.on_event = [&](std::string_view data) {
    ended = data == "[DONE]";
    if (!ended) text += json::parse(data)["choices"][0]["text"];
    return true;
  };
  const net::HttpReply reply = client.send(call);
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
  net::HttpClient client(to(url_of(server.port())));
  std::atomic<bool> cancel = false;
  net::HttpCall call;
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
  net::ClientOptions trusting = to("https://localhost:" + port);
  trusting.trusted = certificate;
  const net::HttpReply reply = net::HttpClient(trusting).send(get("/health"));
  EXPECT_TRUE(reply.ok()) << reply.problem();
  EXPECT_FALSE(net::HttpClient(to("https://localhost:" + port)).send(get("/health")).ok());
  trusting.url = "https://127.0.0.1:" + port;  // not the certificate's name
  EXPECT_FALSE(net::HttpClient(trusting).send(get("/health")).ok());
}

}  // namespace
}  // namespace quern::test
