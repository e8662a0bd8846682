#include "net/http_client.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "core/json.h"
#include "net/transfer.h"

namespace quern::net {
namespace {

constexpr auto kSweep = std::chrono::milliseconds(50);

// The message in an error's body, whichever of its usual forms it has; empty where it has none.
std::string message_in(const std::string& body) {
  try {
    const Json json = Json::parse(body, "answer");
    if (!json.is_object()) return {};
    for (const char* key : {"error", "message", "detail"}) {
      const std::optional<Json> value = json.find(key);
      if (!value) continue;
      if (value->is_string()) return value->string();
      if (value->is_object() && value->has("message") && value->at("message").is_string()) {
        return value->at("message").string();
      }
      return dump(value->raw());
    }
    return {};
  } catch (const Error&) {
    return {};
  }
}

}  // namespace

std::string_view HttpReply::header(std::string_view name) const noexcept {
  for (const auto& [field, value] : headers) {
    if (field == name) return value;
  }
  return {};
}

std::string HttpReply::problem() const {
  if (!failure.empty()) return failure;
  const std::string message = message_in(body);
  if (!message.empty()) return printable(message, 1000);
  const std::string said = fmt::format("the server answered with status {}", status);
  const bool plain = !body.empty() && header("content-type").starts_with("text/plain");
  return plain ? said + ": " + printable(body.substr(0, body.find_last_not_of(" \r\n") + 1), 300)
               : said;
}

double HttpReply::retry_after(double fallback, double most) const {
  const std::string text(header("retry-after"));
  char* end = nullptr;
  const double seconds = std::strtod(text.c_str(), &end);
  const bool good = !text.empty() && *end == '\0' && std::isfinite(seconds) && seconds >= 0;
  return std::min(good ? seconds : fallback, most);
}

struct HttpClient::Impl {
  explicit Impl(ClientOptions options) : setup(std::move(options)) {
    static const CURLcode ready = curl_global_init(CURL_GLOBAL_DEFAULT);
    multi = curl_multi_init();
    if (ready != CURLE_OK || multi == nullptr) {
      throw Error(Kind::NoResources, "no memory for connections");
    }
  }
  ~Impl() {
    spare.reset();
    curl_multi_cleanup(multi);
  }
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;

  ClientSetup setup;
  CURLM* multi;
  std::unique_ptr<Transfer> spare;  // of send()
};

HttpClient::HttpClient(ClientOptions options) : impl_(std::make_unique<Impl>(std::move(options))) {}
HttpClient::~HttpClient() = default;
HttpClient::HttpClient(HttpClient&&) noexcept = default;

const std::string& HttpClient::url() const noexcept { return impl_->setup.options.url; }

HttpReply HttpClient::send(HttpCall call, const std::atomic<bool>* cancel) {
  HttpReply out;
  const auto done = std::move(call.done);
  call.done = [&](HttpReply reply) { out = std::move(reply); };
  std::optional<HttpCall> waiting = std::move(call);
  run(
      1, [&] { return std::exchange(waiting, std::nullopt); }, cancel);
  if (out.status == 0 && out.failure.empty()) out.failure = "interrupted";
  if (done) done(out);
  return out;
}

void HttpClient::run(int connections, const std::function<std::optional<HttpCall>()>& next,
                     const std::atomic<bool>* cancel) {
  // A connection: at rest until `wake` with the call it is then to make, or with a call under way.
  struct Line {
    std::unique_ptr<Transfer> transfer;
    std::optional<HttpCall> paused;
    Clock::time_point wake;
    bool retired = false;
  };
  CURLM* multi = impl_->multi;
  curl_multi_setopt(multi, CURLMOPT_MAXCONNECTS, long{std::max(connections, 8)});
  std::vector<Line> lines(static_cast<size_t>(std::max(connections, 1)));
  lines[0].transfer = std::move(impl_->spare);
  for (Line& line : lines) {
    if (line.transfer == nullptr) line.transfer = std::make_unique<Transfer>(impl_->setup, multi);
  }
  const auto begin = [](Line& line) {
    line.transfer->start(std::move(*std::exchange(line.paused, std::nullopt)));
    if (!line.transfer->active()) line.transfer->deliver();  // refused before it began
  };
  size_t at_work = lines.size();
  bool cancelled = false;
  while (at_work > 0) {
    const auto now = Clock::now();
    if (cancel != nullptr && cancel->load(std::memory_order_relaxed)) cancelled = true;
    bool changed = false;
    auto nap = kSweep;
    for (Line& line : lines) {
      if (line.retired) continue;
      if (line.transfer->active()) {
        const std::string why = cancelled ? "interrupted" : line.transfer->expired(now);
        if (why.empty()) continue;
        line.transfer->stop(why);
        line.transfer->deliver();
        changed = true;
        continue;
      }
      if (!line.paused && !cancelled) {
        line.paused = next();
        if (line.paused) line.wake = now + line.paused->pause;
      }
      if (!line.paused || cancelled) {
        line.retired = true;
        --at_work;
      } else if (line.wake <= now) {
        begin(line);
        changed = true;
      } else {
        nap = std::min(nap, std::chrono::ceil<std::chrono::milliseconds>(line.wake - now));
      }
    }
    int running = 0;
    curl_multi_perform(multi, &running);
    int left = 0;
    while (const CURLMsg* message = curl_multi_info_read(multi, &left)) {
      if (message->msg != CURLMSG_DONE) continue;
      changed = true;
      Transfer* transfer = Transfer::of(message->easy_handle);
      if (transfer->finish(message->data.result)) transfer->deliver();
    }
    if (!changed && at_work > 0) {
      curl_multi_poll(multi, nullptr, 0, static_cast<int>(nap.count()), nullptr);
    }
  }
  impl_->spare = std::move(lines[0].transfer);
}

}  // namespace quern::net
