#include "serve/worker.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>

#include "core/log.h"

namespace quern::serve {
namespace {

// A guess at when there is room again: by how long the requests took so far.
int retry_seconds(const Scheduler::Load& load, int64_t sequences) {
  if (load.steps == 0) return 1;
  const double step = load.step_seconds / static_cast<double>(load.steps);
  const double rounds = static_cast<double>(load.waiting) / static_cast<double>(sequences);
  return static_cast<int>(std::clamp(step * 100 * rounds, 1.0, 60.0));
}

// How long an idle worker waits behind a request for those that come with it, so that their prompts
// go through the weights together: until none has come for a small share of a step, and not
// forever.
struct GatherTime {
  std::chrono::duration<double> behind_each, in_all;
};
GatherTime gather_time(const Scheduler::Load& load) {
  if (load.steps == 0) return {};
  const double step = load.step_seconds / static_cast<double>(load.steps);
  const auto at_most = [&](double share, double seconds) {
    return std::chrono::duration<double>(std::min(share * step, seconds));
  };
  return {at_most(0.05, 0.004), at_most(0.5, 0.03)};
}

}  // namespace

Worker::Worker(Model& model, const WorkerOptions& options)
    : options_(options),
      scheduler_(model.network(), model.tokenizer_or_null(), options.engine, options.capacity,
                 options.sequences),
      context_(scheduler_.context()),
      load_(scheduler_.load()),
      thread_([this] { work(); }) {}

Worker::~Worker() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  arrived_.notify_one();
  thread_.join();
}

std::vector<Worker::Id> Worker::submit(std::vector<Job> jobs) {
  std::vector<Id> ids;
  {
    const std::lock_guard lock(mutex_);
    const auto more = static_cast<int64_t>(jobs.size());
    const int64_t room = options_.queue + options_.sequences - load_.running;
    if (load_.waiting + more > room) {
      throw Overloaded(
          fmt::format("the server is busy: {} requests run, {} wait", load_.running, load_.waiting),
          retry_seconds(load_, options_.sequences));
    }
    load_.waiting += more;
    for (Job& job : jobs) {
      ids.push_back(++last_id_);
      new_jobs_.emplace_back(last_id_, std::move(job));
    }
  }
  arrived_.notify_one();
  return ids;
}

void Worker::cancel(const std::vector<Id>& ids) {
  {
    const std::lock_guard lock(mutex_);
    cancelled_.insert(cancelled_.end(), ids.begin(), ids.end());
  }
  arrived_.notify_one();
}

void Worker::cancel_all() {
  {
    const std::lock_guard lock(mutex_);
    cancel_all_ = true;
  }
  arrived_.notify_one();
}

Scheduler::Load Worker::load() const {
  const std::lock_guard lock(mutex_);
  return load_;
}

void Worker::add(Id id, Job job) {
  Scheduler::Listener listener = std::move(job.listener);
  auto done = std::move(listener.done);
  listener.done = [this, id, done](Completion completion) {
    running_.erase(id);
    done(std::move(completion));
  };
  try {
    running_[id] = scheduler_.add(std::move(job.request), std::move(listener));
  } catch (const Error&) {
    running_.erase(id);
    Completion failed;
    failed.reason = FinishReason::Failed;
    failed.failure = std::current_exception();
    done(std::move(failed));
  }
}

// What fails here fails again in a step, which says so.
bool Worker::prepare() {
  try {
    return scheduler_.prepare();
  } catch (const std::exception&) {
    return false;
  }
}

void Worker::work() {
  bool busy = false, unprepared = true;
  while (true) {
    std::vector<std::pair<Id, Job>> jobs;
    std::vector<Id> cancelled;
    bool everything = false;
    {
      std::unique_lock lock(mutex_);
      load_ = scheduler_.load();
      load_.waiting += static_cast<int64_t>(new_jobs_.size());
      if (!busy) {
        const auto called = [&] {
          return stopping_ || cancel_all_ || !new_jobs_.empty() || !cancelled_.empty();
        };
        while (!called() && unprepared) {
          lock.unlock();
          unprepared = prepare();
          lock.lock();
        }
        arrived_.wait(lock, called);
        const GatherTime gather = gather_time(load_);
        const auto end = std::chrono::steady_clock::now() + gather.in_all;
        for (size_t seen = 0; seen < new_jobs_.size() && !stopping_;) {
          seen = new_jobs_.size();
          const auto until = std::chrono::steady_clock::now() + gather.behind_each;
          arrived_.wait_until(lock, std::min(until, end),
                              [&] { return stopping_ || new_jobs_.size() > seen; });
        }
      }
      if (stopping_) break;
      jobs.swap(new_jobs_);
      cancelled.swap(cancelled_);
      everything = std::exchange(cancel_all_, false);
    }
    for (auto& [id, job] : jobs) add(id, std::move(job));
    for (const Id id : cancelled) {
      if (const auto found = running_.find(id); found != running_.end()) {
        scheduler_.cancel(found->second);
      }
    }
    if (everything) scheduler_.cancel_all();
    try {
      busy = scheduler_.step();
    } catch (const std::exception& failure) {
      // Out of memory, most likely: what runs is given up, the server is not.
      log::error(fmt::format("a step failed: {}", printable(failure.what())));
      scheduler_.cancel_all();
    }
  }
  scheduler_.cancel_all();
  std::vector<std::pair<Id, Job>> jobs;
  {
    const std::lock_guard lock(mutex_);
    jobs.swap(new_jobs_);
  }
  for (auto& [id, job] : jobs) {
    Completion ended;
    ended.reason = FinishReason::Interrupted;
    job.listener.done(std::move(ended));
  }
}

}  // namespace quern::serve
