#include "compute/cpu/kv_store.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/dtype.h"

namespace quern::cpu {

ByteCode ByteCode::of_range(float min, float max) noexcept {
  const float scale = max > min ? (max - min) / 255.0f : 1.0f;
  return {scale, -min / scale};
}

uint8_t ByteCode::encode(float x) const noexcept {
  return static_cast<uint8_t>(std::clamp(x / scale + zero, 0.0f, 255.0f));
}

void kv_store(const KvLayout& layout, const AttentionSpan& span, int64_t kv_head, ConstHeads k,
              ConstHeads v) noexcept {
  const int64_t dim = layout.head_dim, per_page = layout.page_tokens;
  ByteCode key_code = {1, 0}, value_code = {1, 0};
  if (layout.dtype == DType::U8) {
    const auto code_of = [&](ConstHeads x) {
      float min = std::numeric_limits<float>::infinity(), max = -min;
      for (int64_t i = 0; i < span.count; ++i) {
        const float* head = x.at(span.first_row + i, kv_head);
        min = std::min(min, *std::min_element(head, head + dim));
        max = std::max(max, *std::max_element(head, head + dim));
      }
      return ByteCode::of_range(min, max);
    };
    key_code = code_of(k);
    value_code = code_of(v);
  }
  for (int64_t i = 0; i < span.count; ++i) {
    const int64_t position = span.first_position + i;
    const int64_t slot = position % per_page;
    std::byte* page = span.kv.pages[position / per_page] + span.kv.layer_offset;
    const float* key = k.at(span.first_row + i, kv_head);
    const float* value = v.at(span.first_row + i, kv_head);
    const auto put = [&](auto* keys, auto* values, auto encode_key, auto encode_value) {
      keys += kv_head * per_page * dim + slot;
      values += (kv_head * per_page + slot) * dim;
      for (int64_t d = 0; d < dim; ++d) keys[d * per_page] = encode_key(key[d]);
      for (int64_t d = 0; d < dim; ++d) values[d] = encode_value(value[d]);
    };
    std::byte* values = page + layout.block_bytes();
    const auto words = [](std::byte* p) { return reinterpret_cast<uint16_t*>(p); };
    switch (layout.dtype) {
      case DType::F16:
        put(words(page), words(values), to_f16, to_f16);
        break;
      case DType::BF16:
        put(words(page), words(values), to_bf16, to_bf16);
        break;
      case DType::U8: {
        put(
            reinterpret_cast<uint8_t*>(page), reinterpret_cast<uint8_t*>(values),
            [&](float x) { return key_code.encode(x); },
            [&](float x) { return value_code.encode(x); });
        float* codes = reinterpret_cast<float*>(page + 2 * layout.block_bytes());
        const int64_t positions = layout.kv_heads * per_page;
        const int64_t at = kv_head * per_page + slot;
        codes[at] = key_code.scale;
        codes[positions + at] = key_code.zero;
        codes[2 * positions + at] = value_code.scale;
        codes[3 * positions + at] = value_code.zero;
        break;
      }
      case DType::I8: {
        const auto scale_of = [&](const float* x) {
          float largest = 0;
          for (int64_t d = 0; d < dim; ++d) largest = std::max(largest, std::abs(x[d]));
          return largest > 0 ? largest / 127 : 1.0f;
        };
        const float key_scale = scale_of(key), value_scale = scale_of(value);
        const auto level = [](float x) { return static_cast<int8_t>(std::lrint(x)); };
        put(
            reinterpret_cast<int8_t*>(page), reinterpret_cast<int8_t*>(values),
            [&](float x) { return level(x / key_scale); },
            [&](float x) { return level(x / value_scale); });
        float* scales = reinterpret_cast<float*>(page + 2 * layout.block_bytes());
        scales[kv_head * per_page + slot] = key_scale;
        scales[(layout.kv_heads + kv_head) * per_page + slot] = value_scale;
        break;
      }
      default: {
        const auto same = [](float x) { return x; };
        put(reinterpret_cast<float*>(page), reinterpret_cast<float*>(values), same, same);
      }
    }
  }
}

}  // namespace quern::cpu
