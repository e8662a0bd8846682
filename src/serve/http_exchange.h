// The exchange that connections have: handlers write into it from any thread, the network's thread
// takes out what is to be sent.
#pragma once

#include <boost/asio/io_context.hpp>
#include <mutex>

#include "serve/http.h"

namespace quern::serve {

struct Session;

class ServerExchange : public Exchange {
 public:
  // `session` is woken on `io` when there is something to send. More than `unsent_limit` bytes that
  // wait for it are an overrun.
  ServerExchange(boost::asio::io_context& io, std::weak_ptr<Session> session, HttpRequest request,
                 size_t unsent_limit);

  const HttpRequest& request() const noexcept override { return request_; }
  void respond(HttpResponse response) override;
  void prepare_stream(HttpResponse head) override;
  bool begun() const override;
  void write(std::string_view text) override;
  void finish() override;
  void on_close(std::function<void()> left) override;
  void note(std::string name, std::string json) override;

  // ---- The session's side ----

  struct Output {
    bool begun = false, finished = false, whole = false, overrun = false, prepared = false;
    std::string text;
  };
  // What is to be sent now.
  Output take();
  const HttpResponse& head() const { return head_; }  // fixed once it is begun or finished
  // The client hears something, so that nobody between takes the connection for dead.
  void ping();
  // The client has left.
  void closed();
  std::vector<std::pair<std::string, std::string>> notes() const;

 private:
  void wake();

  boost::asio::io_context& io_;
  std::weak_ptr<Session> session_;
  HttpRequest request_;
  size_t unsent_limit_;
  mutable std::mutex mutex_;
  HttpResponse head_;
  std::string pending_;
  bool prepared_ = false, begun_ = false, whole_ = false, finished_ = false;
  bool closed_ = false, overrun_ = false, waking_ = false;
  std::function<void()> left_;
  std::vector<std::pair<std::string, std::string>> notes_;
};

}  // namespace quern::serve
