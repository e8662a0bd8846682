// The HTTP client against servers that misbehave. tests/serve/client_test.cpp has it ask ours.
#include "net/http_client.h"

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <thread>

#include "net/event_reader.h"
#include "net/url.h"
#include "support/scripted_server.h"
#include "support/support.h"

namespace quern::test {
namespace {

using net::HttpCall;
using net::HttpClient;
using net::HttpReply;

net::ClientOptions to(const std::string& url) {
  net::ClientOptions options;
  options.url = url;
  options.silence_seconds = 20;
  return options;
}

// Every connection gets these bytes, one at a time, and is closed.
ScriptedServer::Handler fixed(std::string answer) {
  return [answer = std::move(answer)](const ServedRequest&, ServedConnection& connection) {
    connection.drip(answer, 0);
    connection.close();
  };
}

double seconds_of(const std::function<void()>& action) {
  const auto begin = std::chrono::steady_clock::now();
  action();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

TEST(HttpClient, AnswersWithoutALengthEndWithTheirConnection) {
  ScriptedServer server(fixed("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\nhello"));
  const HttpReply reply = HttpClient(to(server.url())).send({.path = "/"});
  EXPECT_TRUE(reply.ok()) << reply.problem();
  EXPECT_EQ(reply.body, "hello");
}

TEST(HttpClient, WhatIsCutOrNoHttpIsAFailure) {
  for (const char* answer :
       {"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello", "HTTP/1.1 200 OK\r\nConte",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", "what?\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\nhello\r\n", ""}) {
    ScriptedServer server(fixed(answer));
    const HttpReply reply = HttpClient(to(server.url())).send({.path = "/"});
    EXPECT_FALSE(reply.ok()) << answer;
    EXPECT_FALSE(reply.failure.empty()) << answer;
  }
  EXPECT_FALSE(HttpClient(to("http://127.0.0.1:1")).send({.path = "/"}).ok());
  EXPECT_FALSE(HttpClient(to("unix:/nowhere/socket")).send({.path = "/"}).ok());
}

TEST(HttpClient, AddressesThatAreNoneAreRefused) {
  for (const char* url :
       {"localhost:8080", "ftp://x", "http://", "http://:80", "unix:", "http://a b/", "http://a:x/",
        "https://a:/", "http://me:secret@host/", "file:///etc/passwd", "http://a:70000/"}) {
    expect_error([&] { HttpClient client(to(url)); }, Kind::Misused, {"address"});
  }
  expect_error([] { HttpClient({}).send({.path = "/x"}); }, Kind::Misused, {"absolute"});
}

TEST(HttpClient, SendsMethodsHeadersAndBodies) {
  ScriptedServer server([](const ServedRequest& request, ServedConnection& connection) {
    connection.answer(200, request.method + " " + request.target + " " + request.body);
  });
  net::ClientOptions options = to(server.url("/base/"));
  options.api_key = "k1";
  options.headers = {{"X-All", "a"}};
  HttpClient client(options);
  EXPECT_EQ(client.send({.path = "/x?y=1"}).body, "GET /base/x?y=1 ");
  EXPECT_EQ(client.send({.path = "/x", .body = "{}"}).body, "POST /base/x {}");
  EXPECT_EQ(client.send({.method = "DELETE", .path = "/x"}).body, "DELETE /base/x ");
  EXPECT_EQ(client.send({.method = "HEAD", .path = "/x"}).body, "");
  client.send({.method = "PUT",
               .path = "/x",
               .body = "text",
               .headers = {{"Content-Type", "text/csv"}, {"X-Empty", ""}}});
  expect_error(
      [&] {
        client.send({.path = "/", .headers = {{"X", "a\r\nY: b"}}});
      },
      Kind::Misused, {"line break"});
  const std::vector<ServedRequest> asked = server.requests();
  ASSERT_EQ(asked.size(), 5u);
  for (const ServedRequest& request : asked) {
    EXPECT_EQ(request.headers.at("authorization"), "Bearer k1");
    EXPECT_EQ(request.headers.at("x-all"), "a");
  }
  EXPECT_EQ(asked[1].headers.at("content-type"), "application/json");
  EXPECT_EQ(asked[4].headers.at("content-type"), "text/csv");
  EXPECT_EQ(asked[4].headers.at("x-empty"), "");
}

TEST(HttpClient, ARedirectTakesNoCredentialsToAnotherHost) {
  ScriptedServer other(
      [](const ServedRequest&, ServedConnection& connection) { connection.answer(200, "there"); });
  ScriptedServer server([&](const ServedRequest& request, ServedConnection& connection) {
    const std::string where = request.target == "/away" ? other.url("/file") : "/here%20now";
    if (request.target == "/here%20now") return connection.answer(200, "here");
    connection.answer(302, "moved", "text/plain", "Location: " + where + "\r\n");
  });
  net::ClientOptions options = to(server.url());
  options.api_key = "secret";
  options.headers = {{"X-Api-Key", "secret"}};
  HttpClient client(options);
  HttpCall call{.path = "/away"};
  call.headers = {{"Cookie", "secret"}, {"Accept", "text/plain"}};
  call.resume_from = 3;
  HttpReply reply = client.send(call);
  EXPECT_EQ(reply.body, "there");
  EXPECT_EQ(reply.url, other.url("/file"));
  const std::vector<ServedRequest> asked = other.requests();
  ASSERT_EQ(asked.size(), 1u);
  for (const auto& [name, value] : asked[0].headers) {
    EXPECT_EQ(value.find("secret"), value.npos) << name;
  }
  EXPECT_EQ(asked[0].headers.at("accept"), "text/plain");
  EXPECT_EQ(asked[0].headers.at("range"), "bytes=3-");
  reply = client.send({.path = "/near"});
  EXPECT_EQ(reply.body, "here");
  const ServedRequest last = server.requests().back();
  EXPECT_EQ(last.headers.at("authorization"), "Bearer secret");
  EXPECT_EQ(last.headers.at("x-api-key"), "secret");
}

TEST(HttpClient, RedirectsEndAndKeepTheirMethod) {
  ScriptedServer server([](const ServedRequest& request, ServedConnection& connection) {
    if (request.target == "/end") return connection.answer(200, request.method + request.body);
    const int status = std::atoi(request.target.c_str() + 1);
    const char* where = status == 300 ? "ftp://x/" : status == 399 ? "/302" : "/end";
    connection.answer(status == 300 || status == 399 ? 302 : status, "", "text/plain",
                      std::string("Location: ") + where + "\r\n");
  });
  HttpClient client(to(server.url()));
  const auto post = [&](const char* path) { return client.send({.path = path, .body = "b"}); };
  EXPECT_EQ(post("/301").body, "GET");
  EXPECT_EQ(post("/302").body, "GET");
  EXPECT_EQ(post("/303").body, "GET");
  EXPECT_EQ(post("/307").body, "POSTb");
  EXPECT_EQ(post("/308").body, "POSTb");
  EXPECT_EQ(post("/399").body, "GET");
  EXPECT_NE(client.send({.path = "/300"}).failure.find("the redirect is 'ftp"), std::string::npos);
  net::ClientOptions options = to(server.url());
  options.max_redirects = 0;
  EXPECT_EQ(HttpClient(options).send({.path = "/302"}).status, 302);
  ScriptedServer loop([](const ServedRequest&, ServedConnection& connection) {
    connection.answer(302, "", "text/plain", "Location: /loop\r\n");
  });
  EXPECT_EQ(HttpClient(to(loop.url())).send({.path = "/"}).failure, "more than 5 redirects");
  EXPECT_EQ(loop.requests().size(), 6u);
}

TEST(HttpClient, ThePolicyHoldsAtEachConnection) {
  ScriptedServer server(
      [](const ServedRequest&, ServedConnection& connection) { connection.answer(200, "inside"); });
  net::ClientOptions options;
  options.policy = net::AddressPolicy::public_only();
  HttpClient client(options);
  const std::string port = std::to_string(server.port());
  for (const std::string host : {"127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "0x7f.1",
                                 "2130706433", "0.0.0.0", "[::1]"}) {
    const HttpReply reply = client.send({.path = "http://" + host + ":" + port + "/"});
    EXPECT_EQ(reply.status, 0) << host;
    EXPECT_NE(reply.failure.find("may not be reached"), std::string::npos) << reply.failure;
  }
  EXPECT_EQ(server.requests().size(), 0u);
  // By name: the first host may be asked, what it redirects to may not.
  ScriptedServer first([&](const ServedRequest&, ServedConnection& connection) {
    connection.answer(302, "", "text/plain", "Location: http://localhost:" + port + "/\r\n");
  });
  options.policy = {.hosts = {"127.0.0.1"}};
  HttpReply reply = HttpClient(options).send({.path = first.url("/")});
  EXPECT_NE(reply.failure.find("localhost"), std::string::npos) << reply.failure;
  EXPECT_EQ(server.requests().size(), 0u);
  options.policy = {.ports = {first.port()}};
  reply = HttpClient(options).send({.path = server.url("/")});
  EXPECT_NE(reply.failure.find("may not be reached"), std::string::npos) << reply.failure;
  options.proxy = "http://127.0.0.1:1";
  expect_error([&] { HttpClient{options}; }, Kind::Misused, {"proxy"});
}

TEST(HttpClient, AsksThroughAProxyThatIsNamed) {
  ScriptedServer proxy([](const ServedRequest& request, ServedConnection& connection) {
    connection.answer(200, request.target);
  });
  net::ClientOptions options;
  options.proxy = proxy.url();
  EXPECT_EQ(HttpClient(options).send({.path = "http://nowhere.invalid/x"}).body,
            "http://nowhere.invalid/x");
}

TEST(HttpClient, SpeaksOverAUnixSocket) {
  const TempFolder folder;
  const std::string path = (folder.path() / "s").string();
  const int listener = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, sizeof address.sun_path - 1);
  ASSERT_EQ(::bind(listener, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  ASSERT_EQ(::listen(listener, 1), 0);
  std::thread thread([listener] {
    const int socket = ::accept(listener, nullptr, nullptr);
    char block[4096];
    static_cast<void>(!::recv(socket, block, sizeof block, 0));
    const std::string_view text = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";
    static_cast<void>(!::send(socket, text.data(), text.size(), MSG_NOSIGNAL));
    ::close(socket);
  });
  EXPECT_EQ(HttpClient(to("unix:" + path)).send({.path = "/"}).body, "hi");
  thread.join();
  ::close(listener);
}

TEST(HttpClient, TimesOutWhereNothingComesOrTooMuchTimeIsTaken) {
  ScriptedServer server([](const ServedRequest& request, ServedConnection& connection) {
    if (request.target == "/drip") {
      connection.send("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n");
      connection.drip(std::string(1000, 'x'), 20);
      return;
    }
    connection.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe");
    std::this_thread::sleep_for(std::chrono::milliseconds(1500));
    connection.close();
  });
  net::ClientOptions options = to(server.url());
  options.silence_seconds = 0.2;
  const double seconds = seconds_of([&] {
    EXPECT_EQ(HttpClient(options).send({.path = "/"}).failure, "the server was silent for 0.2 s");
  });
  EXPECT_LT(seconds, 1.4);
  options.total_seconds = 0.5;
  options.silence_seconds = 5;
  EXPECT_EQ(HttpClient(options).send({.path = "/drip"}).failure,
            "the answer took longer than 0.5 s");
  std::atomic<bool> cancel = false;
  HttpCall call{.path = "/drip"};
  call.on_data = [&](std::string_view) { return cancel = true; };
  EXPECT_EQ(HttpClient(to(server.url())).send(call, &cancel).failure, "interrupted");
}

TEST(HttpClient, ACallEndsWhileItConnects) {
  // This server never answers the hello of TLS.
  ScriptedServer server([](const ServedRequest&, ServedConnection&) {});
  net::ClientOptions options = to("https://127.0.0.1:" + std::to_string(server.port()));
  std::atomic<bool> cancel = false;
  std::thread later([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
    cancel = true;
  });
  EXPECT_EQ(HttpClient(options).send({.path = "/"}, &cancel).failure, "interrupted");
  later.join();
  options.total_seconds = 0.2;
  EXPECT_EQ(HttpClient(options).send({.path = "/"}).failure,
            "cannot connect to " + options.url + ": the answer took longer than 0.2 s");
}

TEST(HttpClient, BodiesHaveALimitAndComeAsTheyAreSent) {
  ScriptedServer server([](const ServedRequest&, ServedConnection& connection) {
    connection.answer(200, std::string(100'000, 'x'));
  });
  net::ClientOptions options = to(server.url());
  options.max_body_bytes = 50'000;
  HttpClient client(options);
  EXPECT_NE(client.send({.path = "/"}).failure.find("is larger than"), std::string::npos);
  size_t got = 0;
  HttpCall call{.path = "/"};
  call.on_data = [&](std::string_view bytes) { return (got += bytes.size()) > 0; };
  HttpReply reply = client.send(call);
  EXPECT_TRUE(reply.ok()) << reply.problem();
  EXPECT_EQ(got, 100'000u);
  EXPECT_EQ(reply.body, "");
  call.on_head = [](const HttpReply& head) { return head.status != 200; };
  got = 0;
  reply = client.send(call);
  EXPECT_TRUE(reply.ok()) << reply.problem();  // enough was known from its head
  EXPECT_EQ(got, 0u);
  ScriptedServer endless([](const ServedRequest&, ServedConnection& connection) {
    connection.send("HTTP/1.1 200 OK\r\n");
    while (connection.send("X: " + std::string(1000, 'x') + "\r\n")) continue;
    connection.close();
  });
  EXPECT_NE(HttpClient(to(endless.url())).send({.path = "/"}).failure.find("head"),
            std::string::npos);
}

TEST(HttpClient, APartIsTheOneAskedFor) {
  ScriptedServer server([](const ServedRequest& request, ServedConnection& connection) {
    if (request.target == "/lies") {
      return connection.answer(206, "abc", "text/plain", "Content-Range: bytes 0-2/10\r\n");
    }
    connection.answer_file(request, "0123456789");
  });
  HttpClient client(to(server.url()));
  HttpReply reply = client.send({.path = "/", .resume_from = 4});
  EXPECT_EQ(reply.status, 206);
  EXPECT_EQ(reply.body, "456789");
  EXPECT_EQ(client.send({.path = "/", .resume_from = 10}).status, 416);
  EXPECT_NE(client.send({.path = "/lies", .resume_from = 4}).failure.find("another part"),
            std::string::npos);
}

TEST(HttpClient, AnErrorSaysTheServersOwnWords) {
  const std::pair<const char*, const char*> cases[] = {
      {R"({"error": {"message": "nested"}})", "nested"},
      {R"({"error": "plain"})", "plain"},
      {R"({"message": "flat"})", "flat"},
      {R"({"object": "error", "message": "old vllm", "code": 404})", "old vllm"},
      {R"({"detail": "fastapi"})", "fastapi"},
      {R"({"detail": [{"loc": ["body"], "msg": "list"}]})", R"([{"loc":["body"],"msg":"list"}])"},
      {"words\n", "the server answered with status 400: words"},
      {"{}", "the server answered with status 400: {}"}};
  for (const auto& [body, expected] : cases) {
    ScriptedServer server([text = body](const ServedRequest&, ServedConnection& connection) {
      connection.answer(400, text);
    });
    EXPECT_EQ(HttpClient(to(server.url())).send({.path = "/"}).problem(), expected);
  }
  HttpReply reply;
  reply.headers = {{"retry-after", "7"}};
  EXPECT_EQ(reply.retry_after(1, 60), 7);
  EXPECT_EQ(reply.retry_after(1, 3), 3);
  reply.headers = {{"retry-after", "Wed, 21 Oct 2015 07:28:00 GMT"}};
  EXPECT_EQ(reply.retry_after(1, 60), 1);
}

TEST(HttpClient, RunsManyCallsAndWhatACallbackThrowsComesOut) {
  ScriptedServer server([](const ServedRequest& request, ServedConnection& connection) {
    connection.answer(200, request.body);
  });
  HttpClient client(to(server.url()));
  int next = 0, right = 0;
  client.run(4, [&]() -> std::optional<HttpCall> {
    if (next == 40) return std::nullopt;
    HttpCall call{.path = "/", .body = std::to_string(next++)};
    call.pause = std::chrono::milliseconds(next % 3);
    call.done = [&, body = call.body](const HttpReply& reply) { right += reply.body == body; };
    return call;
  });
  EXPECT_EQ(right, 40);
  HttpCall bad{.path = "/", .body = "x"};
  bad.on_data = [](std::string_view) -> bool { throw Error(Kind::BadInput, "mine"); };
  expect_error([&] { client.send(bad); }, Kind::BadInput, {"mine"});
  EXPECT_EQ(client.send({.path = "/", .body = "after"}).body, "after");
}

TEST(Events, ComeHoweverTheirBytesAreCut) {
  const std::string text =
      "\xEF\xBB\xBF: ping\n\nevent: x\ndata: one\n\ndata:two\r\n\r\ndata: a\ndata: b\nid: 3\n\n"
      "data:\n\ndata\n\ndata: c\r\rretry: 3\n\ndatax: no\n\ndata: cut";
  for (size_t cut = 0; cut <= text.size(); ++cut) {
    net::EventReader reader;
    std::vector<std::string> events;
    const auto keep = [&](std::string_view data) {
      events.emplace_back(data);
      return true;
    };
    EXPECT_TRUE(reader.put(std::string_view(text).substr(0, cut), keep));
    EXPECT_TRUE(reader.put(std::string_view(text).substr(cut), keep));
    EXPECT_EQ(events, (std::vector<std::string>{"one", "two", "a\nb", "", "", "c"})) << cut;
  }
}

TEST(Url, ResolvesReferencesAsBrowsersDo) {
  const net::Url base = net::Url::parse("HTTP://Example.org:80/a/b?q#f");
  EXPECT_EQ(base.origin(), "http://example.org:80");
  EXPECT_EQ(base.text, "http://example.org/a/b?q");
  EXPECT_EQ(base.resolve("../c").text, "http://example.org/c");
  EXPECT_EQ(base.resolve("//other/x").text, "http://other/x");
  EXPECT_EQ(base.resolve("https://[::1]:8/x").host, "::1");
  EXPECT_EQ(base.resolve("/a b\xC3\xA9").text, "http://example.org/a%20b%C3%A9");
  EXPECT_EQ(net::percent_encode("a b/\xC3\xA9", true), "a%20b/%C3%A9");
  EXPECT_EQ(net::percent_encode("a/b"), "a%2Fb");
}

}  // namespace
}  // namespace quern::test
