// Writing keys and values into cache pages.
#pragma once

#include "compute/backend.h"

namespace quern::cpu {

// One kv head's new keys and values of a span, in the cache's type. See Backend::kv_store.
void kv_store(const KvLayout& layout, const AttentionSpan& span, int64_t kv_head, ConstHeads k,
              ConstHeads v) noexcept;

// The release's 8-bit code: scale = (max - min) / 255, zero = -min / scale (a float, not rounded),
// q = clamp(x / scale + zero, 0, 255) cut to an integer. A constant block, whose scale would be 0,
// gets scale 1 and so comes back as itself.
struct ByteCode {
  float scale;
  float zero;

  static ByteCode of_range(float min, float max) noexcept;
  uint8_t encode(float x) const noexcept;
};

}  // namespace quern::cpu
