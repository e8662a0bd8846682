// HTTP that is wrong, slow or hostile: list G of the project's reliability design. Each connection
// gets a proper 4xx or is closed, and the server goes on.
#include <fmt/format.h>

#include <chrono>
#include <thread>

#include "serve/test_server.h"

namespace quern::test {
namespace {

using namespace std::chrono_literals;

// Deadlines short enough for a test; what must not depend on them has seconds to spare.
serve::ServeOptions impatient() {
  serve::ServeOptions options = tiny_options();
  options.http.limits.header = 500ms;
  options.http.limits.body = 500ms;
  options.http.limits.idle = 500ms;
  return options;
}

class BadHttp : public testing::Test {
 protected:
  static void SetUpTestSuite() { server_ = new TestServer(); }
  static void TearDownTestSuite() {
    EXPECT_EQ(server_->get("/health").status, 200);
    delete server_;
    server_ = nullptr;
  }
  static TestServer& server() { return *server_; }
  static int status_of(std::string_view bytes) {
    Client client = server().connect();
    client.send(bytes);
    return client.answer(10'000).status;
  }
  static TestServer* server_;
};
TestServer* BadHttp::server_ = nullptr;

std::string get(const std::string& target, const std::string& lines = "Host: localhost\r\n") {
  return "GET " + target + " HTTP/1.1\r\n" + lines + "\r\n";
}
std::string post(const std::string& lines, const std::string& body) {
  return "POST /tokenize HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n" +
         lines + "\r\n" + body;
}

TEST_F(BadHttp, HeadsThatAreWrong) {
  struct Case {
    const char* name;
    std::string bytes;
    int status;
  };
  const std::string x = R"({"content":"x"})", length = "Content-Length: 15\r\n";
  const Case cases[] = {
      {"nothing but noise", "\x01\x02\x03\x04\r\n\r\n", 400},
      {"HTTP/0.9", "GET /health\r\n\r\n", 400},
      {"no version", "GET /health HTTP\r\nHost: localhost\r\n\r\n", 505},
      {"HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505},
      {"HTTP/3", "GET / HTTP/3.0\r\nHost: localhost\r\n\r\n", 505},
      {"TLS on a plain port",
       std::string("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 15), 400},
      {"a space in the target: what follows is no version", get("/a b"), 505},
      {"a colon missing", get("/health", "Host: localhost\r\nnonsense\r\n"), 400},
      {"a space before the colon", get("/health", "Host : localhost\r\n"), 400},
      {"a NUL in a value", get("/health", std::string("Host: local\0host\r\n", 18)), 400},
      {"a line of a MB",
       get("/health", "Host: localhost\r\nX: " + std::string(1 << 20, 'x') + "\r\n"), 431},
      {"a target of a MB", get("/" + std::string(1 << 20, 'x')), 431},
      {"no Host", get("/health", ""), 400},
      {"two Hosts", get("/health", "Host: localhost\r\nHost: localhost\r\n"), 400},
      {"a foreign Host", get("/health", "Host: evil.example\r\n"), 403},
      {"a foreign Host behind localhost", get("/health", "Host: localhost.evil.example\r\n"), 403},
      {"an absolute target elsewhere", get("http://evil.example/health"), 403},
      {"Origin null", get("/health", "Host: localhost\r\nOrigin: null\r\n"), 403},
      {"a foreign Origin", get("/health", "Host: localhost\r\nOrigin: http://evil.example\r\n"),
       403},
      {"a path that climbs", get("/../../etc/passwd"), 404},
      {"an encoded path", get("/..%2f..%2fetc%2fpasswd"), 404},
      {"an encoded NUL", get("/health%00"), 404},
      {"double encoding", get("/%252e%252e/health"), 404},
      {"a path that ends in a dot", get("/health/."), 404},
      {"an encoded letter", get("/%68ealth"), 404},
      {"a model that climbs", get("/v1/models/..%2f..%2fx"), 404},
      {"a model of bad escapes", get("/v1/models/%zz%"), 404},
      {"both lengths", post("Content-Length: 15\r\nTransfer-Encoding: chunked\r\n", x), 400},
      {"two lengths", post("Content-Length: 15\r\nContent-Length: 16\r\n", x), 400},
      {"a negative length", post("Content-Length: -1\r\n", x), 400},
      {"a length in words", post("Content-Length: ten\r\n", x), 400},
      {"a length past 64 bits", post("Content-Length: 99999999999999999999999\r\n", x), 400},
      {"a length past the limit", post("Content-Length: 9000000\r\n", ""), 413},
      {"no chunks but gzip", post("Transfer-Encoding: gzip, chunked\r\n", ""), 501},
      {"two codings", post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", ""),
       400},
      {"a compressed body", post("Content-Encoding: gzip\r\n" + length, x), 415},
      {"a form",
       "POST /tokenize HTTP/1.1\r\nHost: localhost\r\nContent-Type: "
       "application/x-www-form-urlencoded\r\n" +
           length + "\r\n" + x,
       415},
      {"no kind of body", "POST /tokenize HTTP/1.1\r\nHost: localhost\r\n" + length + "\r\n" + x,
       415},
      {"another Expect", post("Expect: miracles\r\n" + length, x), 417},
      {"a negative chunk", post("Transfer-Encoding: chunked\r\n", "-2\r\nxx\r\n0\r\n\r\n"), 400},
      {"a chunk past 64 bits",
       post("Transfer-Encoding: chunked\r\n", "fffffffffffffffff\r\nxx\r\n0\r\n\r\n"), 400},
      {"a chunk in no hexadecimal", post("Transfer-Encoding: chunked\r\n", "zz\r\nxx\r\n"), 400},
      {"a chunk past the limit", post("Transfer-Encoding: chunked\r\n", "fffffff\r\nxx"), 413},
      {"a chunk extension of a MB",
       post("Transfer-Encoding: chunked\r\n", "1;" + std::string(1 << 20, 'x') + "\r\n"), 400},
      {"an upgrade is no switch",
       get("/health", "Host: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"), 200},
      {"ranges are not known", get("/health", "Host: localhost\r\nRange: bytes=0-1,0-1,0-1\r\n"),
       200},
      {"an empty X-Forwarded-For", get("/health", "Host: localhost\r\nX-Forwarded-For: \r\n"), 200},
      {"chunks are read", post("Transfer-Encoding: chunked\r\n", "f\r\n" + x + "\r\n0\r\n\r\n"),
       200},
      {"trailers are read past",
       post("Transfer-Encoding: chunked\r\n", "f\r\n" + x + "\r\n0\r\nX: y\r\n\r\n"), 200},
      {"a DELETE", "DELETE /health HTTP/1.1\r\nHost: localhost\r\n\r\n", 405},
      {"a method of its own", "FROB /health HTTP/1.1\r\nHost: localhost\r\n\r\n", 405},
  };
  for (const Case& c : cases) EXPECT_EQ(status_of(c.bytes), c.status) << c.name;
}

TEST_F(BadHttp, AHundredHeadersAreTheMost) {
  const auto with = [](int lines) {
    std::string text = "Host: localhost\r\n";
    for (int i = 1; i < lines; ++i) text += "A" + std::to_string(i) + ": b\r\n";
    return get("/health", text);
  };
  EXPECT_EQ(status_of(with(100)), 200);
  EXPECT_EQ(status_of(with(101)), 431);
  EXPECT_EQ(status_of(with(100'000)), 431);
}

// 400 MB that never end a line are refused after the header's limit, thrown away for a while so
// that the client hears of it, and then cut off.
TEST_F(BadHttp, AnEndlessLineIsCutOff) {
  Client client = server().connect();
  const std::string block(1 << 20, 'a');
  int sent = 0;
  while (sent < 400 && client.send(block)) ++sent;
  EXPECT_LT(sent, 400);
}

TEST_F(BadHttp, ManyPipelinedRequestsAreAnsweredInOrder) {
  Client client = server().connect();
  constexpr int kCount = 2000;
  std::thread writer([&] {
    std::string all;
    for (int i = 0; i < kCount; ++i) {
      all += get("/health", "Host: localhost\r\nX-Request-Id: r" + std::to_string(i) + "\r\n");
    }
    client.send(all);
  });
  for (int i = 0; i < kCount; ++i) {
    const Answer answer = client.answer();
    ASSERT_EQ(answer.status, 200) << i;
    ASSERT_EQ(answer.headers.at("x-request-id"), "r" + std::to_string(i));
  }
  writer.join();
}

TEST_F(BadHttp, AClientThatOnlyStopsSendingGetsItsAnswer) {
  Client client = server().connect();
  client.send(get("/health", "Host: localhost\r\nConnection: close\r\n"));
  client.shutdown_send();
  EXPECT_EQ(client.answer().status, 200);
}

TEST_F(BadHttp, AResetInAStreamFreesItsPlace) {
  for (int i = 0; i < 20; ++i) {
    Client client = server().connect();
    client.send(request_text("POST", "/v1/completions",
                             R"({"prompt":"x","max_tokens":900,"stream":true,"ignore_eos":true})"));
    client.read_until("data: ");
    client.close(/*reset=*/true);
  }
  EXPECT_TRUE(server().wait_for("quern_running", 0));
  EXPECT_TRUE(server().wait_for("quern_waiting", 0));
}

TEST(SlowHttp, WhoDripsIsClosedAndTheOthersAreServed) {
  TestServer server(impatient());
  Client head = server.connect(), body = server.connect(), silent = server.connect(),
         expects = server.connect(), idle = server.connect();
  head.send("GET /health HTTP/1.1\r\nHo");
  body.send(post("Content-Length: 1000\r\n", "{"));
  expects.send(post("Content-Length: 1000\r\nExpect: 100-continue\r\n", ""));
  EXPECT_NE(expects.read_until("100 Continue").find("100 Continue"), std::string::npos);
  idle.send(get("/health"));
  EXPECT_EQ(idle.answer().status, 200);
  EXPECT_EQ(server.get("/health").status, 200);
  for (Client* client : {&head, &body, &silent, &expects, &idle}) {
    EXPECT_TRUE(client->closed_within(20'000));
  }
}

// A stream nobody reads is given up once its unsent bytes pass the limit, or after the deadline.
TEST(SlowHttp, AReaderThatNeverReadsIsCancelled) {
  serve::ServeOptions options = tiny_options();
  options.http.limits.unsent_bytes = 4096;
  options.http.limits.write = 500ms;
  TestServer server(options);
  std::vector<Client> clients;
  for (int i = 0; i < 4; ++i) {
    clients.emplace_back(server.port(), 1024);
    clients.back().send(request_text("POST", "/v1/chat/completions",
                                     json{{"messages", user("x")},
                                          {"n", 16},
                                          {"stream", true},
                                          {"logprobs", true},
                                          {"top_logprobs", 20},
                                          {"ignore_eos", true},
                                          {"max_tokens", 900}}
                                         .dump()));
  }
  for (int tries = 0; tries < 500 && server.metric("quern_cancellations_total") == 0; ++tries) {
    std::this_thread::sleep_for(20ms);
  }
  EXPECT_GT(server.metric("quern_cancellations_total"), 0);
  clients.clear();
  EXPECT_TRUE(server.wait_for("quern_running", 0));
}

TEST(Keys, WrongOnesAreRefusedAndSoonCounted) {
  const TempFolder folder;
  const std::string key = "0123456789abcdef-key";
  serve::ServeOptions options = tiny_options();
  options.api_key_file = folder.write("keys", "# a comment\n" + key + "\n");
  options.health_key = true;
  TestServer server(options);
  const auto status = [&](const std::string& value) {
    return server.get("/health", {{"Authorization", value}}).status;
  };
  EXPECT_EQ(status("Bearer " + key), 200);
  EXPECT_EQ(status("bearer " + key), 200);
  EXPECT_EQ(server.get("/health").status, 401);
  EXPECT_EQ(server.get("/health").headers.at("www-authenticate"), "Bearer");
  const std::string wrong[] = {"",
                               "Bearer",
                               "Bearer ",
                               "Basic " + key,
                               key,
                               "Bearer " + key.substr(0, 10),
                               "Bearer " + key + "x",
                               "Bearer \xC3\xA9"};
  for (const std::string& value : wrong) EXPECT_EQ(status(value), 401) << value;
  // Ten a minute were wrong; then the address must wait, and who has the key need not.
  EXPECT_EQ(status("Bearer wrong"), 429);
  EXPECT_EQ(server.get("/health").status, 429);
  EXPECT_EQ(status("Bearer " + key), 200);
  EXPECT_EQ(status("Bearer " + std::string(1 << 20, 'x')), 431);
}

TEST(Keys, HealthNeedsNoneAndAnthropicsHeaderCarriesOne) {
  const TempFolder folder;
  const std::string key = "0123456789abcdef-key";
  serve::ServeOptions options = tiny_options();
  options.api_key_file = folder.write("keys", key + "\n");
  TestServer server(options);
  EXPECT_EQ(server.get("/health").status, 200);
  EXPECT_EQ(server.get("/metrics").status, 401);
  EXPECT_EQ(server.get("/v1/models").status, 401);
  EXPECT_EQ(server.get("/v1/models", {{"X-Api-Key", key}}).status, 200);
  EXPECT_EQ(server.get("/v1/models", {{"X-Api-Key", key + "x"}}).status, 401);
  // Two that differ are no key.
  EXPECT_EQ(server.get("/v1/models", {{"X-Api-Key", key}, {"Authorization", "Bearer x"}}).status,
            401);
}

TEST(Origins, ThoseThatAreNamedMayComeAndNoOthers) {
  serve::ServeOptions options = tiny_options();
  options.allowed_origins = {"https://chat.example.org/"};
  TestServer server(options);
  const Headers good = {{"Origin", "https://chat.example.org"}};
  const Headers bad = {{"Origin", "https://evil.example"}};
  const Answer answer = server.get("/health", good);
  EXPECT_EQ(answer.status, 200);
  EXPECT_EQ(answer.headers.at("access-control-allow-origin"), "https://chat.example.org");
  EXPECT_EQ(answer.headers.at("vary"), "Origin");
  EXPECT_EQ(server.get("/health", bad).status, 403);
  EXPECT_EQ(server.get("/health", bad).headers.count("access-control-allow-origin"), 0u);
  EXPECT_EQ(server.get("/health").headers.count("access-control-allow-origin"), 0u);
  const auto preflight = [&](const Headers& headers) {
    Client client = server.connect();
    client.send(request_text("OPTIONS", "/v1/chat/completions", "", headers));
    return client.answer();
  };
  Headers asks = good;
  asks.emplace_back("Access-Control-Request-Method", "POST");
  asks.emplace_back("Access-Control-Request-Headers", "authorization,x-stainless-os");
  const Answer may = preflight(asks);
  EXPECT_EQ(may.status, 204);
  EXPECT_EQ(may.headers.at("access-control-allow-origin"), "https://chat.example.org");
  EXPECT_EQ(may.headers.at("access-control-allow-headers"), "authorization,x-stainless-os");
  EXPECT_EQ(preflight(bad).status, 403);
  // An error is as readable for the page as an answer.
  EXPECT_EQ(server.get("/nothing", good).headers.at("access-control-allow-origin"),
            "https://chat.example.org");
}

TEST(Keys, MayBeLimited) {
  const TempFolder folder;
  serve::ServeOptions options = tiny_options();
  options.api_key_file = folder.write("keys",
                                      "two-a-minute-key per-minute=2\n"
                                      "one-at-once-key1\tat-once=1  per-minute=1000\n"
                                      "unlimited-key-01\n");
  TestServer server(options);
  const auto asked = [&](const std::string& key) {
    return server.post("/tokenize", {{"content", "x"}}, {{"Authorization", "Bearer " + key}});
  };
  EXPECT_EQ(asked("two-a-minute-key").status, 200);
  EXPECT_EQ(asked("two-a-minute-key").status, 200);
  const Answer refused = asked("two-a-minute-key");
  EXPECT_EQ(refused.status, 429);
  EXPECT_EQ(refused.parsed()["error"]["message"], "the key may make 2 requests a minute");
  const int wait_s = std::stoi(refused.headers.at("retry-after"));
  EXPECT_GT(wait_s, 0);
  EXPECT_LE(wait_s, 60);
  // What only looks costs nothing, and other keys are not meant.
  EXPECT_EQ(server.get("/health", {{"Authorization", "Bearer two-a-minute-key"}}).status, 200);
  for (int i = 0; i < 5; ++i) EXPECT_EQ(asked("unlimited-key-01").status, 200);

  Client client = server.connect();
  client.send(request_text(
      "POST", "/v1/chat/completions",
      json{{"messages", user("x")}, {"stream", true}, {"ignore_eos", true}, {"max_tokens", 900}}
          .dump(),
      {{"Authorization", "Bearer one-at-once-key1"}}));
  client.read_until("data:");
  EXPECT_EQ(asked("one-at-once-key1").status, 429);
  client.close();
  int status = 0;
  for (int tries = 0; tries < 500 && status != 200; ++tries) {
    std::this_thread::sleep_for(20ms);
    status = asked("one-at-once-key1").status;
  }
  EXPECT_EQ(status, 200);
}

TEST(Keys, LinesThatAreWrongAreNamed) {
  const TempFolder folder;
  const std::string key = "0123456789abcdef-key";
  const std::string hashed = "sha256:" + sha256(key);
  std::vector<std::string> wrong = {"short", "sha256:12", key, key + " at-once=2", hashed};
  for (const char* limit : {"per-minute", "per-minute=", "per-minute=0", "per-minute=-1",
                            "at-once=x", "at-once=2x", "at-once=99999999999", "per-hour=3", "="}) {
    wrong.push_back(fmt::format("another-key-of-24-bytes {}", limit));
  }
  for (const std::string& line : wrong) {
    const fs::path file = folder.write("keys", key + "\n" + line + "\n");
    try {
      serve::read_keys(file);
      ADD_FAILURE() << line;
    } catch (const Error& error) {
      EXPECT_NE(error.line().find("line 2"), std::string::npos) << error.line();
    }
  }
}

}  // namespace
}  // namespace quern::test
