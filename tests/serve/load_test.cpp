// Many clients at once, well-behaved and not. Times are measured in bench/serving.cpp; here it is
// counted who was answered, with what, and what is left afterwards.
#include <algorithm>
#include <atomic>
#include <map>
#include <thread>

#include "core/rng.h"
#include "net/http_client.h"
#include "serve/test_server.h"

namespace quern::test {
namespace {

net::HttpClient client_of(const TestServer& server) {
  net::ClientOptions options;
  options.url = "http://127.0.0.1:" + std::to_string(server.port());
  return net::HttpClient(std::move(options));
}

std::string completion_body(const std::string& prompt, int64_t tokens, int seed, bool stream) {
  return json{{"prompt", prompt},
              {"max_tokens", tokens},
              {"seed", seed},
              {"ignore_eos", true},
              {"stream", stream}}
      .dump();
}

// Makes `count` calls, so many at once.
void run_calls(const TestServer& server, int at_once, int count,
               const std::function<net::HttpCall(int)>& call_of) {
  net::HttpClient client = client_of(server);
  int next = 0;
  client.run(at_once, [&]() -> std::optional<net::HttpCall> {
    if (next == count) return std::nullopt;
    return call_of(next++);
  });
}

TEST(Load, IdleAndDrippingClientsAreHeldWhileOthersAreAnswered) {
  serve::ServeOptions options = tiny_options();
  options.http.limits.header = std::chrono::seconds(60);
  TestServer server(std::move(options));
  std::vector<Client> idle, dripping;
  for (int i = 0; i < 200; ++i) idle.push_back(server.connect());
  for (int i = 0; i < 100; ++i) {
    dripping.push_back(server.connect());
    dripping.back().send("GET /health HT");
  }
  const std::string rest = "TP/1.1\r\nHost: localhost\r\n\r\n";
  for (const char byte : rest) {
    for (Client& client : dripping) ASSERT_TRUE(client.send({&byte, 1}));
    ASSERT_EQ(server.get("/health").status, 200);
  }
  for (Client& client : dripping) EXPECT_EQ(client.answer().status, 200);
  for (Client& client : idle) {
    client.send(request_text("GET", "/health", ""));
    EXPECT_EQ(client.answer().status, 200);
  }
}

TEST(Load, WhatIsTooMuchGetsA429AndNobodyElseAnything) {
  serve::ServeOptions options = tiny_options();
  options.engine.sequences = 2;
  options.engine.queue = 2;
  TestServer server(std::move(options));
  std::map<int, int> statuses;
  std::map<int, std::string> texts;  // by seed
  const int kCalls = 60;
  run_calls(server, 40, kCalls, [&](int i) {
    net::HttpCall call;
    call.path = "/v1/completions";
    call.body = completion_body("abc", 20, i % 5, false);
    call.done = [&, i](const net::HttpReply& reply) {
      ++statuses[reply.status];
      if (reply.status == 429) {
        const int wait = std::atoi(std::string(reply.header("retry-after")).c_str());
        EXPECT_TRUE(wait >= 1 && wait <= 60) << reply.header("retry-after");
        EXPECT_EQ(json::parse(reply.body)["error"]["type"], "rate_limit_error");
      } else {
        // Who is let in gets all that was asked for.
        const json body = json::parse(reply.body);
        EXPECT_EQ(body["usage"]["completion_tokens"], 20);
        const std::string text = body["choices"][0]["text"];
        const auto known = texts.emplace(i % 5, text).first;
        EXPECT_EQ(known->second, text);
      }
    };
    return call;
  });
  EXPECT_EQ(statuses[200] + statuses[429], kCalls);
  EXPECT_GE(statuses[200], 4);
  EXPECT_GT(statuses[429], 0);
  EXPECT_TRUE(server.wait_for("quern_running", 0));
}

TEST(Load, WhoLeavesDisturbsNobodyAndLeavesNothing) {
  TestServer server;
  const auto body = [](int i) {
    return completion_body("prompt " + std::to_string(i), 40, i, true);
  };
  const auto text_of = [](const Answer& answer) {
    std::string text;
    for (const std::string& event : answer.events()) {
      if (event != "[DONE]") text += json::parse(event)["choices"][0]["text"];
    }
    return text;
  };
  std::vector<std::string> expected;
  for (int i = 0; i < 4; ++i) {
    expected.push_back(text_of(server.post_text("/v1/completions", body(i))));
  }
  std::atomic<bool> over = false;
  std::thread leavers([&] {
    Rng rng(1);
    for (int i = 0; i < 120; ++i) {
      Client client = server.connect();
      const std::string request =
          request_text("POST", "/v1/completions", completion_body("leaving", 200, i, i % 2 == 0));
      const auto part = i % 4 == 0 ? rng.below(request.size()) : request.size();
      client.send(std::string_view(request).substr(0, part));
      if (i % 3 == 0) client.read_until("data: ", static_cast<int>(rng.below(30)));
      client.close(/*reset=*/i % 2 == 0);
    }
    over = true;
  });
  int rounds = 0;
  do {
    for (int i = 0; i < 4; ++i) {
      EXPECT_EQ(text_of(server.post_text("/v1/completions", body(i))), expected[size_t(i)]);
    }
    ++rounds;
  } while (!over);
  leavers.join();
  EXPECT_GT(rounds, 0);
  EXPECT_TRUE(server.wait_for("quern_running", 0));
  EXPECT_TRUE(server.wait_for("quern_waiting", 0));
  // Every page is free or known to the prefix cache.
  EXPECT_EQ(server.metric("quern_kv_pages"),
            server.metric("quern_kv_pages_free") + server.metric("quern_kv_pages_kept"));
}

TEST(Load, StreamsThatRunTogetherAdvanceTogether) {
  serve::ServeOptions options = tiny_options();
  options.engine.sequences = 48;
  TestServer server(std::move(options));
  constexpr int kStreams = 48;
  constexpr int64_t kTokens = 120;
  // A busy machine may let the client send some of its requests late, so a round may be repeated;
  // a server that answers one stream after the other takes kStreams * kTokens passes every time.
  double passes = 0;
  for (int round = 0; round < 10; ++round) {
    const double before = server.metric("quern_steps_total");
    std::vector<int64_t> tokens(kStreams);
    run_calls(server, kStreams, kStreams, [&](int i) {
      net::HttpCall call;
      call.path = "/v1/completions";
      // A token of a character each, so that each is an event.
      call.body = json{{"prompt", "s" + std::to_string(i)},
                       {"max_tokens", kTokens},
                       {"stream", true},
                       {"response_format", {{"type", "regex"}, {"regex", "[a-z]{500}"}}}}
                      .dump();
      call.on_event = [&, i](std::string_view data) {
        if (data != "[DONE]") tokens[size_t(i)] += json::parse(data)["choices"][0]["text"] != "";
        return true;
      };
      call.done = [](const net::HttpReply& reply) { EXPECT_TRUE(reply.ok()) << reply.problem(); };
      return call;
    });
    EXPECT_EQ(tokens, std::vector<int64_t>(kStreams, kTokens));
    passes = server.metric("quern_steps_total") - before;
    if (passes <= 2 * kTokens) break;
  }
  EXPECT_LE(passes, 2 * kTokens);
}

}  // namespace
}  // namespace quern::test
