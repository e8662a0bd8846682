// Threads that share the work of one kernel at a time. Between kernels of one step they spin for a
// few microseconds, then sleep: nothing burns a core while Quern waits for a user.
#pragma once

#include <atomic>
#include <cstdint>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include "core/function_ref.h"

namespace quern {

class ThreadPool {
 public:
  // `threads` includes the caller's; 0 means one for each core this process may use.
  explicit ThreadPool(int threads = 0);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int size() const noexcept { return static_cast<int>(workers_.size()) + 1; }

  // Calls body(thread) once for each thread in [0, size()), the caller being thread 0, and returns
  // when all are done. The first exception thrown is thrown here. Not re-entrant: a body must not
  // use its own pool, and only one thread may call at a time.
  void run(FunctionRef<void(int thread)> body);

  // Splits [0, count) into chunks of `grain`. Each thread has an even share of them, side by side,
  // which it takes from the front, so that it reads memory in one stretch; when it is done it takes
  // chunks from the end of another's. Which thread takes a chunk is not fixed, so a result must not
  // depend on it.
  void parallel_for(int64_t count, int64_t grain,
                    FunctionRef<void(int64_t begin, int64_t end, int thread)> body);

  // Number of cores this process may use (its affinity mask, not the machine's total).
  static int available_cores() noexcept;

 private:
  // The chunks [begin, end) of a thread's share that nobody has taken yet, in one word.
  struct alignas(64) Share {
    std::atomic<uint64_t> begin_end{0};
  };

  void work(int thread);
  void call(int thread) noexcept;
  int64_t take_chunk(int thread, bool from_end) noexcept;

  std::vector<std::thread> workers_;
  std::vector<Share> shares_;  // by thread
  const FunctionRef<void(int)>* body_ = nullptr;
  alignas(64) std::atomic<uint32_t> generation_{0};
  alignas(64) std::atomic<int> pending_{0};
  std::atomic<bool> stopping_{false};
  int spins_ = 0;
  std::mutex failure_mutex_;
  std::exception_ptr failure_;
};

}  // namespace quern
