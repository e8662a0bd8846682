// What quern serve holds against clients that are many, slow, rude or gone, and what it adds to a
// model's own time:
//   serving [PROGRAM MODEL [PART]]
// Starts servers of its own; prints a row for each promise, as docs/serving.md shows them.
#include <arpa/inet.h>
#include <fmt/format.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <thread>

#include "core/error.h"
#include "core/rng.h"
#include "generate/model.h"
#include "generate/scheduler.h"
#include "net/http_client.h"
#include "served_program.h"

namespace quern {
namespace {

using nlohmann::json;
using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

double percentile(std::vector<double> values, double share) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  const auto rank = static_cast<size_t>(std::ceil(share * static_cast<double>(values.size())));
  return values[std::max<size_t>(rank, 1) - 1];
}

int connect_to(uint16_t port) {
  const int socket = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (::connect(socket, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0) return socket;
  ::close(socket);
  return -1;
}

net::HttpClient client_of(const Program& program) {
  net::ClientOptions options;
  options.url = program.url();
  return net::HttpClient(std::move(options));
}

net::HttpCall completion(const std::string& prompt, int tokens, int seed, bool stream) {
  net::HttpCall call;
  call.path = "/v1/completions";
  call.body = json{
      {"prompt", prompt},
      {"max_tokens", tokens},
      {"seed", seed},
      {"ignore_eos", true},
      {"stream",
       stream}}.dump();
  return call;
}

void run(net::HttpClient& client, int at_once, int count,
         const std::function<net::HttpCall(int)>& call_of) {
  int next = 0;
  client.run(at_once, [&]() -> std::optional<net::HttpCall> {
    if (next == count) return std::nullopt;
    return call_of(next++);
  });
}

// A metric of the first model.
double metric_of(net::HttpClient& client, const std::string& name) {
  net::HttpCall call;
  call.method = "GET";
  call.path = "/metrics";
  const std::string text = client.send(std::move(call)).body;
  const size_t at = text.find("\n" + name + "{");
  return at == text.npos ? -1.0 : std::strtod(text.c_str() + text.find("} ", at) + 2, nullptr);
}

void row(const std::string& what, const std::string& wanted, const std::string& got) {
  fmt::print("| {} | {} | {} |\n", what, wanted, got);
  std::fflush(stdout);
}

// Times of /health beside 1,000 clients that say nothing and 500 that send a byte at a time.
void slow_clients(const std::string& program, const std::string& model) {
  const Program server(program, model, {});
  std::vector<int> idle(1000), dripping(500, -1);
  for (int& socket : idle) socket = connect_to(server.port());
  std::atomic<bool> over = false;
  std::atomic<int> drops = 0;
  std::thread drip([&] {
    const std::string text = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nX-Slow: ";
    std::vector<size_t> sent(dripping.size());
    for (size_t round = 0; !over; ++round) {
      for (size_t i = round % 10; i < dripping.size(); i += 10) {
        if (dripping[i] < 0) {
          dripping[i] = connect_to(server.port());
          sent[i] = 0;
        }
        const char byte = text[std::min(sent[i]++, text.size() - 1)];
        if (::send(dripping[i], &byte, 1, MSG_NOSIGNAL) == 1) continue;
        ::close(dripping[i]);  // the server has had enough of it
        dripping[i] = -1;
        ++drops;
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
  });
  std::this_thread::sleep_for(std::chrono::seconds(1));
  net::HttpClient client = client_of(server);
  std::vector<double> times;
  for (int i = 0; i < 600; ++i) {
    net::HttpCall call;
    call.method = "GET";
    call.path = "/health";
    const auto begin = Clock::now();
    if (!client.send(std::move(call)).ok()) throw Error(Kind::Failed, "/health does not answer");
    times.push_back(seconds_since(begin));
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  over = true;
  drip.join();
  // The idle ones are there still: they are answered as soon as they ask.
  int alive = 0;
  for (const int socket : idle) {
    const std::string text = "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n";
    char answer[16];
    alive += ::send(socket, text.data(), text.size(), MSG_NOSIGNAL) > 0 &&
             ::recv(socket, answer, sizeof answer, 0) > 12 &&
             std::string_view(answer, 12) == "HTTP/1.1 200";
    ::close(socket);
  }
  for (const int socket : dripping) ::close(socket);
  row("1,000 idle and 500 dripping clients: `/health` p99", "< 50 ms",
      fmt::format("{:.1f} ms (p50 {:.1f} ms); {} of 1,000 idle ones answered, {} drippers closed",
                  1000 * percentile(times, 0.99), 1000 * percentile(times, 0.5), alive,
                  drops.load()));
}

// Ten times as much asked for as can be answered: those that are let in, beside a full server.
void overload(const std::string& program, const std::string& model) {
  constexpr int kRunning = 8;
  const Program server(program, model, {"--max-streams", "8", "--queue", "4"});
  net::HttpClient client = client_of(server);
  struct Times {
    std::vector<double> answered;
    std::map<int, int> statuses;
    int without_retry = 0;
    double seconds = 0;
  };
  // So many clients for a while; who is refused asks again after `pause`.
  const auto measure = [&](int clients, double seconds, std::chrono::milliseconds pause) {
    Times out;
    int next = 0;
    bool refused = false;
    const auto begin = Clock::now();
    client.run(clients, [&]() -> std::optional<net::HttpCall> {
      if (seconds_since(begin) > seconds) return std::nullopt;
      net::HttpCall call = completion("Once upon a time", 64, next++, false);
      if (std::exchange(refused, false)) call.pause = pause;
      const auto asked = std::make_shared<Clock::time_point>(Clock::now() + call.pause);
      call.done = [&, asked](const net::HttpReply& reply) {
        ++out.statuses[reply.status];
        if (reply.status == 200) out.answered.push_back(seconds_since(*asked));
        refused = reply.status == 429;
        if (refused) out.without_retry += reply.header("retry-after").empty();
      };
      return call;
    });
    out.seconds = seconds_since(begin);
    return out;
  };
  measure(kRunning, 1, {});
  const Times alone = measure(kRunning, 5, {});
  const double rate = static_cast<double>(alone.answered.size()) / alone.seconds;
  // Of the clients about as many as run and wait are let in; the others make up the ten times.
  const int clients = 10 * kRunning;
  const double retries = 10 * rate - rate;
  const std::chrono::milliseconds pause(static_cast<int>(1000 * (clients - 12) / retries));
  Times crowded = measure(clients, 10, pause);
  const double before = percentile(alone.answered, 0.99);
  const double after = percentile(crowded.answered, 0.99);
  int asked = 0;
  for (const auto& [status, count] : crowded.statuses) asked += count;
  row("overload, 8 run and 4 may wait: p99 of those let in, beside 8 clients", "<= 2 x",
      fmt::format("{:.0f} ms beside {:.0f} ms: {:.2f} x", 1000 * after, 1000 * before,
                  after / before));
  row("of the overload", "10 x what can be answered; 429 with Retry-After",
      fmt::format("{:.1f} x; {} answered, {} refused with 429 ({} without Retry-After), {} else",
                  asked / crowded.seconds / rate, crowded.statuses[200], crowded.statuses[429],
                  crowded.without_retry, asked - crowded.statuses[200] - crowded.statuses[429]));
}

// A thousand clients that leave, and others whose bytes stay the same.
void disconnects(const std::string& program, const std::string& model) {
  const Program server(program, model, {});
  net::HttpClient client = client_of(server);
  std::vector<std::string> expected(8);
  int wrong = 0, compared = 0;
  const auto ask = [&](bool first) {
    run(client, 4, 8, [&](int i) {
      net::HttpCall call = completion(fmt::format("Story {}", i), 48, i, false);
      call.done = [&, i, first](const net::HttpReply& reply) {
        const std::string text =
            reply.ok() ? json::parse(reply.body)["choices"][0]["text"].get<std::string>() : "";
        if (first) expected[static_cast<size_t>(i)] = text;
        ++compared;
        wrong += text.empty() || text != expected[static_cast<size_t>(i)];
      };
      return call;
    });
  };
  ask(true);
  std::atomic<bool> over = false;
  std::thread leavers([&] {
    Rng rng(3);
    for (int i = 0; i < 1000; ++i) {
      const int socket = connect_to(server.port());
      const net::HttpCall call = completion("I am about to leave", 400, i, i % 2 == 0);
      const std::string text = fmt::format(
          "POST {} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
          "Content-Length: {}\r\n\r\n{}",
          call.path, call.body.size(), call.body);
      const size_t part = i % 4 == 0 ? rng.below(text.size()) : text.size();
      static_cast<void>(!::send(socket, text.data(), part, MSG_NOSIGNAL));
      std::this_thread::sleep_for(std::chrono::milliseconds(rng.below(20)));
      if (i % 2 == 0) {
        const linger now = {.l_onoff = 1, .l_linger = 0};
        ::setsockopt(socket, SOL_SOCKET, SO_LINGER, &now, sizeof now);
      }
      ::close(socket);
    }
    over = true;
  });
  while (!over) ask(false);
  leavers.join();
  const auto metric = [&](const char* name) { return metric_of(client, name); };
  std::this_thread::sleep_for(std::chrono::seconds(1));
  row("1,000 random disconnects: others' answers that changed", "0",
      fmt::format("{} of {}; then {} run, {} pages are lost", wrong, compared,
                  metric("quern_running"),
                  metric("quern_kv_pages") - metric("quern_kv_pages_free") -
                      metric("quern_kv_pages_kept")));
}

void many_streams(const std::string& program, const std::string& model) {
  const Program server(program, model, {"--max-streams", "200"});
  net::HttpClient client = client_of(server);
  std::vector<double> times;
  const auto begin = Clock::now();
  run(client, 200, 200, [&](int i) {
    net::HttpCall call = completion(fmt::format("Stream {}", i), 64, i, true);
    call.on_event = [](std::string_view) { return true; };
    call.done = [&](const net::HttpReply& reply) {
      if (reply.ok()) times.push_back(seconds_since(begin));
    };
    return call;
  });
  row("200 streams at once: complete, the slowest beside the fastest", "200, <= 2 x",
      fmt::format("{}, {:.2f} x ({:.1f} s)", times.size(),
                  percentile(times, 1) / percentile(times, 0), percentile(times, 1)));
}

void memory(const std::string& program, const std::string& model) {
  constexpr int kBound = 128;
  const Program server(program, model, {"--memory", fmt::format("{}MB", kBound)});
  net::HttpClient client = client_of(server);
  std::map<int, int> statuses;
  run(client, 100, 100, [&](int i) {
    net::HttpCall call = completion(
        std::string(500, static_cast<char>('a' + i % 26)) + std::to_string(i), 100, i, i % 2 == 0);
    call.done = [&](const net::HttpReply& reply) { ++statuses[reply.status]; };
    return call;
  });
  row(fmt::format("`--memory {}MB`, 100 long requests at once: the most it took", kBound),
      fmt::format("<= {} MB", kBound),
      fmt::format("{:.0f} MB; {} answered, {} refused with 429, {:.0f} pre-emptions",
                  server.peak_mb(), statuses[200], statuses[429],
                  metric_of(client, "quern_preemptions_total")));
}

// Seconds of a step in which each of `streams` sequences takes a token, without text or network.
double bare_step(const std::string& folder, int64_t streams, int64_t tokens) {
  Model model(folder);
  EngineOptions options = model.engine_options();
  Scheduler scheduler(model.network(), nullptr, options, streams * 256, streams);
  for (int64_t i = 0; i < streams; ++i) {
    Request request;
    request.ids = model.raw_prompt(fmt::format("Stream {}", i));
    request.sampling = model.default_sampling();
    request.sampling.seed = static_cast<uint64_t>(i);
    request.max_new_tokens = tokens;
    request.stop.ignore_ids = true;
    scheduler.add(std::move(request), {});
  }
  std::vector<double> steps;
  for (auto begin = Clock::now(); scheduler.step(); begin = Clock::now()) {
    steps.push_back(seconds_since(begin));
  }
  return percentile(steps, 0.5);
}

// What serving adds to a model so small that it is nearly nothing itself.
void token_cost(const std::string& program, const std::string& model) {
  const json shape = {{"model_type", "qwen"},     {"hidden_size", 64},
                      {"num_attention_heads", 2}, {"num_hidden_layers", 1},
                      {"intermediate_size", 256}, {"vocab_size", 8192},
                      {"seq_length", 512},        {"torch_dtype", "float32"}};
  const MadeModel tiny(program, model, shape);
  constexpr int kStreams = 64, kTokens = 200;
  const double bare = bare_step(tiny.path(), kStreams, kTokens);
  const Program server(program, tiny.path(), {"--max-streams", "64"});
  net::HttpClient client = client_of(server);
  std::vector<double> gaps;
  int64_t events = 0;
  const auto begin = Clock::now();
  run(client, kStreams, kStreams, [&](int i) {
    net::HttpCall call = completion(fmt::format("Stream {}", i), kTokens, i, true);
    const auto last = std::make_shared<Clock::time_point>();
    call.on_event = [&, last](std::string_view) {
      const auto now = Clock::now();
      if (events++ > 0 && *last != Clock::time_point()) {
        gaps.push_back(std::chrono::duration<double>(now - *last).count());
      }
      *last = now;
      return true;
    };
    return call;
  });
  const double seconds = seconds_since(begin);
  const double per_token = seconds / (kStreams * kTokens);
  row("64 streams of a tiny model: time a token that HTTP and scheduling add", "<= 1 ms",
      fmt::format("{:.3f} ms ({:.3f} ms with the model's own {:.3f} ms; between two tokens of a "
                  "stream {:.1f} ms)",
                  1000 * (per_token - bare / kStreams), 1000 * per_token, 1000 * bare / kStreams,
                  1000 * percentile(gaps, 0.5)));
}

// Time to the first token of prompts that begin alike and of others as long.
void shared_prefix(const std::string& program, const std::string& model) {
  const json shape = {{"model_type", "qwen"},      {"hidden_size", 512},
                      {"num_attention_heads", 8},  {"num_hidden_layers", 8},
                      {"intermediate_size", 2752}, {"vocab_size", 8192},
                      {"seq_length", 2048},        {"torch_dtype", "bfloat16"}};
  const MadeModel made(program, model, shape);
  const Program server(program, made.path(), {});
  net::HttpClient client = client_of(server);
  constexpr int kShared = 1024, kOwn = 32, kRounds = 6;
  const auto first_token = [&](bool shared, int round) {
    Rng begin(shared ? 1 : 100 + static_cast<uint64_t>(round)),
        end(1000 + static_cast<uint64_t>(round) + (shared ? 500 : 0));
    std::vector<uint64_t> ids;
    for (int i = 0; i < kShared; ++i) ids.push_back(300 + begin.below(7000));
    for (int i = 0; i < kOwn; ++i) ids.push_back(300 + end.below(7000));
    net::HttpCall call;
    call.path = "/v1/completions";
    call.body = json{{"prompt", ids}, {"max_tokens", 1}, {"ignore_eos", true}}.dump();
    const auto asked = Clock::now();
    if (!client.send(std::move(call)).ok()) throw Error(Kind::Failed, "no answer");
    return seconds_since(asked);
  };
  first_token(true, 1000);  // the beginning is known from here on
  std::vector<double> with, without;
  for (int round = 0; round < kRounds; ++round) {
    without.push_back(first_token(false, round));
    with.push_back(first_token(true, round));
  }
  const double slow = percentile(without, 0.5), fast = percentile(with, 0.5);
  row("first token of 1,056 tokens, 1,024 of them shared, beside none shared", ">= 5 x sooner",
      fmt::format("{:.1f} ms beside {:.0f} ms: {:.0f} x", 1000 * fast, 1000 * slow, slow / fast));
}

}  // namespace
}  // namespace quern

int main(int count, char** arguments) {
  using namespace quern;
  const std::filesystem::path here = std::filesystem::read_symlink("/proc/self/exe").parent_path();
  const std::string program = count > 1 ? arguments[1] : (here / "../quern").string();
  const std::string model =
      count > 2 ? arguments[2] : (here / "../../../models/quern-mini").string();
  const std::string only = count > 3 ? arguments[3] : "";
  rlimit files{};
  ::getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &files);
  fmt::print("| what | wanted | measured |\n| --- | --- | --- |\n");
  const std::pair<const char*, void (*)(const std::string&, const std::string&)> kParts[] = {
      {"slow", slow_clients},    {"overload", overload}, {"disconnects", disconnects},
      {"streams", many_streams}, {"memory", memory},     {"tokens", token_cost},
      {"prefix", shared_prefix}};
  for (const auto& [name, part] : kParts) {
    if (only.empty() || only == name) part(program, model);
  }
}
