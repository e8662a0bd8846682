#include "serve/http_exchange.h"

#include <boost/asio/post.hpp>

#include "serve/http_server_impl.h"

namespace quern::serve {

ServerExchange::ServerExchange(asio::io_context& io, std::weak_ptr<Session> session,
                               HttpRequest request, size_t unsent_limit)
    : io_(io),
      session_(std::move(session)),
      request_(std::move(request)),
      unsent_limit_(unsent_limit) {}

void ServerExchange::respond(HttpResponse response) {
  {
    const std::lock_guard lock(mutex_);
    if (finished_ || begun_ || closed_) return;
    head_ = std::move(response);
    whole_ = finished_ = true;
  }
  wake();
}

void ServerExchange::prepare_stream(HttpResponse head) {
  const std::lock_guard lock(mutex_);
  if (finished_ || begun_) return;
  head_ = std::move(head);
  prepared_ = true;
}

bool ServerExchange::begun() const {
  const std::lock_guard lock(mutex_);
  return begun_;
}

void ServerExchange::write(std::string_view text) {
  {
    const std::lock_guard lock(mutex_);
    if (finished_ || closed_ || !prepared_) return;
    begun_ = true;
    pending_ += text;
    if (pending_.size() > unsent_limit_) overrun_ = true;
  }
  wake();
}

void ServerExchange::finish() {
  {
    const std::lock_guard lock(mutex_);
    if (finished_) return;
    begun_ = finished_ = true;
  }
  wake();
}

void ServerExchange::on_close(std::function<void()> left) {
  {
    const std::lock_guard lock(mutex_);
    if (!closed_) {
      left_ = std::move(left);
      return;
    }
  }
  left();
}

void ServerExchange::note(std::string name, std::string json) {
  const std::lock_guard lock(mutex_);
  notes_.emplace_back(std::move(name), std::move(json));
}

ServerExchange::Output ServerExchange::take() {
  const std::lock_guard lock(mutex_);
  waking_ = false;
  Output out = {begun_, finished_, whole_, overrun_, prepared_, {}};
  out.text.swap(pending_);
  return out;
}

void ServerExchange::ping() {
  const std::lock_guard lock(mutex_);
  if (finished_ || !prepared_) return;
  begun_ = true;
  pending_ += ": ping\n\n";
}

void ServerExchange::closed() {
  std::function<void()> left;
  {
    const std::lock_guard lock(mutex_);
    closed_ = true;
    left.swap(left_);
    if (finished_) left = nullptr;
  }
  if (left) left();
}

std::vector<std::pair<std::string, std::string>> ServerExchange::notes() const {
  const std::lock_guard lock(mutex_);
  return notes_;
}

// Once for any number of writes until the session looks again.
void ServerExchange::wake() {
  {
    const std::lock_guard lock(mutex_);
    if (std::exchange(waking_, true)) return;
  }
  asio::post(io_, [session = session_] {
    if (const auto alive = session.lock()) alive->wake();
  });
}

}  // namespace quern::serve
