// Work done by several threads whose results come out in the order of the input.
#pragma once

#include <condition_variable>
#include <deque>
#include <exception>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

namespace quern {

// Reads tasks with `read` until it gives none, lets `workers` threads turn each into a result, and
// hands the results to `write` in the order of their tasks. `make_worker` is called once in each
// thread. `read` runs in a thread of its own, `write` in the caller's. At most a few tasks per
// worker are held at once. The first exception of any of them ends all and is thrown here.
template <class Task, class Result>
void ordered_pipeline(int workers, const std::function<std::optional<Task>()>& read,
                      const std::function<std::function<Result(Task)>()>& make_worker,
                      const std::function<void(Result)>& write) {
  std::mutex mutex;
  std::condition_variable changed;
  std::deque<std::pair<size_t, Task>> tasks;
  std::map<size_t, Result> results;
  const size_t most = static_cast<size_t>(workers) * 2 + 2;
  size_t read_count = 0, written = 0;
  bool all_read = false, stopping = false;
  std::exception_ptr failure;
  const auto fail = [&] {
    const std::scoped_lock lock(mutex);
    if (!failure) failure = std::current_exception();
    stopping = true;
    changed.notify_all();
  };
  std::vector<std::thread> threads;
  threads.emplace_back([&] {
    try {
      while (true) {
        {
          std::unique_lock lock(mutex);
          changed.wait(lock, [&] { return stopping || read_count - written < most; });
          if (stopping) return;
        }
        std::optional<Task> task = read();
        const std::scoped_lock lock(mutex);
        if (task) {
          tasks.emplace_back(read_count++, std::move(*task));
        } else {
          all_read = true;
        }
        changed.notify_all();
        if (all_read) return;
      }
    } catch (...) {
      fail();
    }
  });
  for (int i = 0; i < workers; ++i) {
    threads.emplace_back([&] {
      try {
        const std::function<Result(Task)> work = make_worker();
        while (true) {
          std::unique_lock lock(mutex);
          changed.wait(lock, [&] { return stopping || all_read || !tasks.empty(); });
          if (stopping || tasks.empty()) return;
          auto [number, task] = std::move(tasks.front());
          tasks.pop_front();
          lock.unlock();
          Result result = work(std::move(task));
          lock.lock();
          results.emplace(number, std::move(result));
          changed.notify_all();
        }
      } catch (...) {
        fail();
      }
    });
  }
  try {
    while (true) {
      std::unique_lock lock(mutex);
      changed.wait(lock, [&] {
        return stopping || results.contains(written) || (all_read && written == read_count);
      });
      if (stopping || !results.contains(written)) break;
      auto node = results.extract(written);
      lock.unlock();
      write(std::move(node.mapped()));
      lock.lock();
      ++written;
      changed.notify_all();
    }
  } catch (...) {
    fail();
  }
  for (std::thread& thread : threads) thread.join();
  if (failure) std::rethrow_exception(failure);
}

}  // namespace quern
