// What quern serve holds against clients that are many, slow, rude or gone: serving [PROGRAM MODEL]
// Starts servers of its own; prints a row for each promise, as docs/serving.md shows them.
#include <arpa/inet.h>
#include <fmt/format.h>
#include <spawn.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <csignal>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <thread>

#include "core/error.h"
#include "core/rng.h"
#include "serve/http_client.h"

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

// The program as a process of its own, whose memory can be measured.
class Program {
 public:
  Program(const std::string& program, const std::string& model,
          const std::vector<std::string>& options) {
    std::vector<std::string> words = {program, "serve",        model, "--port",
                                      "0",     "--access-log", "none"};
    words.insert(words.end(), options.begin(), options.end());
    std::vector<char*> arguments;
    for (std::string& word : words) arguments.push_back(word.data());
    arguments.push_back(nullptr);
    int ends[2];
    if (::pipe(ends) != 0) throw Error(Kind::Failed, "there is no pipe");
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, ends[1], 1);
    posix_spawn_file_actions_addclose(&actions, ends[0]);
    if (::posix_spawn(&process_, program.c_str(), &actions, nullptr, arguments.data(), environ) !=
        0) {
      throw Error(Kind::Failed, program + " cannot be started");
    }
    posix_spawn_file_actions_destroy(&actions);
    ::close(ends[1]);
    std::string said;
    char byte = 0;
    while (::read(ends[0], &byte, 1) == 1 && byte != '\n') said += byte;
    ::close(ends[0]);
    constexpr std::string_view kReady = "listening on ";
    if (!said.starts_with(kReady)) throw Error(Kind::Failed, "the server did not start");
    url_ = said.substr(kReady.size());
  }
  ~Program() {
    ::kill(process_, SIGTERM);
    ::waitpid(process_, nullptr, 0);
  }
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;

  const std::string& url() const { return url_; }
  uint16_t port() const {
    return static_cast<uint16_t>(std::stoi(url_.substr(url_.rfind(':') + 1)));
  }
  // The most memory that it ever had, in MB.
  double peak_mb() const {
    std::ifstream file(fmt::format("/proc/{}/status", process_));
    for (std::string line; std::getline(file, line);) {
      if (line.starts_with("VmHWM:")) return std::strtod(line.c_str() + 6, nullptr) / 1024;
    }
    return 0;
  }

 private:
  pid_t process_ = 0;
  std::string url_;
};

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

serve::HttpClient client_of(const Program& program) {
  serve::ClientOptions options;
  options.url = program.url();
  return serve::HttpClient(std::move(options));
}

serve::HttpCall completion(const std::string& prompt, int tokens, int seed, bool stream) {
  serve::HttpCall call;
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

void run(serve::HttpClient& client, int at_once, int count,
         const std::function<serve::HttpCall(int)>& call_of) {
  int next = 0;
  client.run(at_once, [&]() -> std::optional<serve::HttpCall> {
    if (next == count) return std::nullopt;
    return call_of(next++);
  });
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
  serve::HttpClient client = client_of(server);
  std::vector<double> times;
  for (int i = 0; i < 600; ++i) {
    serve::HttpCall call;
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

// Ten times as many requests at once as run: those that are let in, beside as many as run.
void overload(const std::string& program, const std::string& model) {
  const Program server(program, model, {"--max-streams", "8", "--queue", "4"});
  serve::HttpClient client = client_of(server);
  const auto measure = [&](int at_once, int count) {
    std::vector<double> times;
    std::map<int, int> statuses;
    int without_retry = 0;
    run(client, at_once, count, [&](int i) {
      serve::HttpCall call = completion("Once upon a time", 64, i, false);
      const auto begin = Clock::now();
      call.done = [&, begin](const serve::HttpReply& reply) {
        ++statuses[reply.status];
        if (reply.status == 200) times.push_back(seconds_since(begin));
        if (reply.status == 429) {
          without_retry += reply.header("retry-after").empty();
          // No client is as rude as to ask again at once; this one waits a little for all.
          std::this_thread::sleep_for(std::chrono::microseconds(500));
        }
      };
      return call;
    });
    return std::tuple(times, statuses, without_retry);
  };
  measure(8, 16);
  const auto [alone, alone_statuses, none] = measure(8, 160);
  auto [crowded, statuses, without_retry] = measure(80, 4000);
  const double before = percentile(alone, 0.99), after = percentile(crowded, 0.99);
  row("80 requests at once where 8 run: p99 of those let in, beside 8 at once", "<= 2 x",
      fmt::format("{:.0f} ms beside {:.0f} ms: {:.2f} x", 1000 * after, 1000 * before,
                  after / before));
  const int others = 4000 - statuses[200] - statuses[429];
  row("the others", "429 with Retry-After",
      fmt::format("{} answered, {} refused with 429 ({} without Retry-After), {} else",
                  statuses[200], statuses[429], without_retry, others));
}

// A thousand clients that leave, and others whose bytes stay the same.
void disconnects(const std::string& program, const std::string& model) {
  const Program server(program, model, {});
  serve::HttpClient client = client_of(server);
  std::vector<std::string> expected(8);
  int wrong = 0, compared = 0;
  const auto ask = [&](bool first) {
    run(client, 4, 8, [&](int i) {
      serve::HttpCall call = completion(fmt::format("Story {}", i), 48, i, false);
      call.done = [&, i, first](const serve::HttpReply& reply) {
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
      const serve::HttpCall call = completion("I am about to leave", 400, i, i % 2 == 0);
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
  const auto metric = [&](const std::string& name) {
    serve::HttpCall call;
    call.method = "GET";
    call.path = "/metrics";
    const std::string text = client.send(std::move(call)).body;
    const size_t at = text.find("\n" + name + "{");
    return at == text.npos ? -1.0 : std::strtod(text.c_str() + text.find("} ", at) + 2, nullptr);
  };
  std::this_thread::sleep_for(std::chrono::seconds(1));
  row("1,000 random disconnects: others' answers that changed", "0",
      fmt::format("{} of {}; then {} run, {} pages are lost", wrong, compared,
                  metric("quern_running"),
                  metric("quern_kv_pages") - metric("quern_kv_pages_free") -
                      metric("quern_kv_pages_kept")));
}

void many_streams(const std::string& program, const std::string& model) {
  const Program server(program, model, {"--max-streams", "200"});
  serve::HttpClient client = client_of(server);
  std::vector<double> times;
  const auto begin = Clock::now();
  run(client, 200, 200, [&](int i) {
    serve::HttpCall call = completion(fmt::format("Stream {}", i), 64, i, true);
    call.on_event = [](std::string_view) { return true; };
    call.done = [&](const serve::HttpReply& reply) {
      if (reply.ok()) times.push_back(seconds_since(begin));
    };
    return call;
  });
  row("200 streams at once: complete, the slowest beside the fastest", "200, <= 2 x",
      fmt::format("{}, {:.2f} x ({:.1f} s)", times.size(),
                  percentile(times, 1) / percentile(times, 0), percentile(times, 1)));
}

void memory(const std::string& program, const std::string& model) {
  constexpr int kBound = 192;
  const Program server(program, model, {"--memory", fmt::format("{}MB", kBound)});
  serve::HttpClient client = client_of(server);
  std::map<int, int> statuses;
  run(client, 100, 200, [&](int i) {
    serve::HttpCall call = completion(
        std::string(1000, static_cast<char>('a' + i % 26)) + std::to_string(i), 100, i, i % 2 == 0);
    call.done = [&](const serve::HttpReply& reply) { ++statuses[reply.status]; };
    return call;
  });
  row(fmt::format("`--memory {}MB`, 100 long requests at once: the most it took", kBound),
      fmt::format("<= {} MB", kBound),
      fmt::format("{:.0f} MB; {} answered, {} refused with 429", server.peak_mb(), statuses[200],
                  statuses[429]));
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
      {"slow", slow_clients},
      {"overload", overload},
      {"disconnects", disconnects},
      {"streams", many_streams},
      {"memory", memory}};
  for (const auto& [name, part] : kParts) {
    if (only.empty() || only == name) part(program, model);
  }
}
