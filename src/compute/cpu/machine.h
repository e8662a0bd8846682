// What the machine can do at best, measured: the yardstick beside every speed that Quern prints.
#pragma once

#include "core/isa.h"
#include "core/thread_pool.h"

namespace quern::cpu {

// Bytes read per second from memory, all threads together: the best of a few passes over a buffer
// much larger than the caches. Takes about half a second.
double measured_read_bandwidth(ThreadPool& pool, Isa isa);

// float32 multiply-adds, counted as two operations each, per second. About a tenth of a second.
double measured_fma_peak(ThreadPool& pool, Isa isa);

// The same for another loop of `flops_per_round` operations a round.
double measured_loop_peak(ThreadPool& pool, float (*loop)(int64_t rounds) noexcept,
                          int64_t flops_per_round);

}  // namespace quern::cpu
