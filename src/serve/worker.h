// The thread that runs one model: requests from any thread go into a Scheduler, which only this
// thread touches.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <unordered_map>
#include <vector>

#include "core/error.h"
#include "generate/model.h"
#include "generate/scheduler.h"

namespace quern::serve {

struct WorkerOptions {
  int64_t capacity = 0;    // positions of the KV cache
  int64_t sequences = 64;  // that run at once
  int64_t queue = 256;     // that wait, at most
  EngineOptions engine;
};

// The queue is full: try again later.
class Overloaded : public Error {
 public:
  Overloaded(const std::string& message, int retry_after_s)
      : Error(Kind::NoResources, message), retry_after_s_(retry_after_s) {}
  int retry_after_s() const noexcept { return retry_after_s_; }

 private:
  int retry_after_s_;
};

class Worker {
 public:
  using Id = uint64_t;
  struct Job {
    Request request;
    Scheduler::Listener listener;  // called on the worker's thread
  };

  // `model` must outlive the worker.
  Worker(Model& model, const WorkerOptions& options);
  ~Worker();  // ends all requests
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  // All of them or none: throws Overloaded when the queue has no room. What is wrong with a request
  // itself comes as Completion::failure.
  std::vector<Id> submit(std::vector<Job> jobs);
  void cancel(const std::vector<Id>& ids);
  void cancel_all();

  int64_t context() const noexcept { return context_; }
  int64_t sequences() const noexcept { return options_.sequences; }
  // As of the last step; what was submitted since counts as waiting.
  Scheduler::Load load() const;

 private:
  void work();
  bool prepare();
  void add(Id id, Job job);

  WorkerOptions options_;
  Scheduler scheduler_;
  int64_t context_;
  mutable std::mutex mutex_;
  std::condition_variable arrived_;
  std::vector<std::pair<Id, Job>> new_jobs_;
  std::vector<Id> cancelled_;
  Scheduler::Load load_;
  Id last_id_ = 0;
  bool stopping_ = false, cancel_all_ = false;
  std::unordered_map<Id, Scheduler::Id> running_;  // only the worker's thread
  std::thread thread_;
};

}  // namespace quern::serve
