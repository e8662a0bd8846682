#include "core/thread_pool.h"

#include <sched.h>

#include <algorithm>

namespace quern {
namespace {

inline void pause_cpu() noexcept {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#endif
}

// Waits while `value` is `old`: spins first, then sleeps in the kernel.
template <class T>
T wait_change(const std::atomic<T>& value, T old, int spins) noexcept {
  for (int i = 0; i < spins; ++i) {
    const T now = value.load(std::memory_order_acquire);
    if (now != old) return now;
    pause_cpu();
  }
  value.wait(old, std::memory_order_acquire);
  return value.load(std::memory_order_acquire);
}

}  // namespace

int ThreadPool::available_cores() noexcept {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof(set), &set) != 0) return 1;
  return std::max(1, CPU_COUNT(&set));
}

ThreadPool::ThreadPool(int threads) {
  const int cores = available_cores();
  if (threads <= 0) threads = cores;
  // Spinning helps only while every thread has a core of its own.
  spins_ = threads <= cores ? 4000 : 0;
  shares_ = std::vector<Share>(static_cast<size_t>(threads));
  workers_.reserve(static_cast<size_t>(threads) - 1);
  for (int t = 1; t < threads; ++t) workers_.emplace_back([this, t] { work(t); });
}

ThreadPool::~ThreadPool() {
  stopping_.store(true, std::memory_order_relaxed);
  generation_.fetch_add(1, std::memory_order_release);
  generation_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::call(int thread) noexcept {
  try {
    (*body_)(thread);
  } catch (...) {
    const std::lock_guard lock(failure_mutex_);
    if (!failure_) failure_ = std::current_exception();
  }
}

void ThreadPool::work(int thread) {
  uint32_t seen = 0;
  while (true) {
    seen = wait_change(generation_, seen, spins_);
    if (stopping_.load(std::memory_order_relaxed)) return;
    call(thread);
    if (pending_.fetch_sub(1, std::memory_order_acq_rel) == 1) pending_.notify_one();
  }
}

void ThreadPool::run(FunctionRef<void(int)> body) {
  if (workers_.empty()) {
    body(0);
    return;
  }
  body_ = &body;
  pending_.store(static_cast<int>(workers_.size()), std::memory_order_relaxed);
  generation_.fetch_add(1, std::memory_order_release);
  generation_.notify_all();
  call(0);
  int left = pending_.load(std::memory_order_acquire);
  while (left != 0) left = wait_change(pending_, left, spins_);
  if (failure_) std::rethrow_exception(std::exchange(failure_, nullptr));
}

// The next chunk of a thread's share, the first or the last of those left; -1 when there is none.
int64_t ThreadPool::take_chunk(int thread, bool from_end) noexcept {
  std::atomic<uint64_t>& share = shares_[static_cast<size_t>(thread)].begin_end;
  uint64_t left = share.load(std::memory_order_relaxed);
  while (true) {
    const uint64_t begin = left >> 32, end = left & 0xFFFFFFFFu;
    if (begin == end) return -1;
    const uint64_t rest = from_end ? left - 1 : left + (uint64_t{1} << 32);
    if (share.compare_exchange_weak(left, rest, std::memory_order_relaxed)) {
      return static_cast<int64_t>(from_end ? end - 1 : begin);
    }
  }
}

void ThreadPool::parallel_for(int64_t count, int64_t grain,
                              FunctionRef<void(int64_t, int64_t, int)> body) {
  if (count <= 0) return;
  constexpr int64_t kMostChunks = int64_t{1} << 31;
  grain = std::max<int64_t>({grain, 1, count / kMostChunks + 1});
  if (count <= grain || workers_.empty()) {
    body(0, count, 0);
    return;
  }
  const int64_t chunks = (count + grain - 1) / grain;
  for (int64_t t = 0, begin = 0; t < size(); ++t) {
    const int64_t end = chunks * (t + 1) / size();
    shares_[static_cast<size_t>(t)].begin_end.store(
        static_cast<uint64_t>(begin) << 32 | static_cast<uint64_t>(end), std::memory_order_relaxed);
    begin = end;
  }
  run([&](int thread) {
    for (int other = 0; other < size(); ++other) {
      const int owner = (thread + other) % size();
      for (int64_t chunk; (chunk = take_chunk(owner, other > 0)) >= 0;) {
        body(chunk * grain, std::min((chunk + 1) * grain, count), thread);
      }
    }
  });
}

}  // namespace quern
