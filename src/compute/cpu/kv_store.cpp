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
  const int64_t dim = layout.head_dim;
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
    const int64_t slot = position % layout.page_tokens;
    std::byte* page = span.kv.pages[position / layout.page_tokens] + span.kv.layer_offset;
    const float* key = k.at(span.first_row + i, kv_head);
    const float* value = v.at(span.first_row + i, kv_head);
    std::byte* keys = page + layout.elements_at(kv_head);
    std::byte* values = keys + layout.block_bytes();
    const auto put = [&](auto tag, auto encode_key, auto encode_value) {
      using T = decltype(tag);
      for (int64_t d = 0; d < dim; ++d) {
        reinterpret_cast<T*>(keys)[layout.key_at(slot, d)] = encode_key(key[d]);
        reinterpret_cast<T*>(values)[layout.value_at(slot, d)] = encode_value(value[d]);
      }
    };
    // Of bytes from 0 to 255.
    const auto put_bytes = [&](auto encode_key, auto encode_value) {
      put(uint8_t{}, encode_key,
          [&](float x) { return static_cast<uint8_t>(encode_value(x) ^ 0x80); });
    };
    float* key_floats = reinterpret_cast<float*>(page + layout.floats_at(kv_head)) + slot;
    float* value_floats = key_floats + layout.block_bytes() / int64_t{sizeof(float)};
    switch (layout.dtype) {
      case DType::F16:
        put(uint16_t{}, to_f16, to_f16);
        break;
      case DType::BF16:
        put(uint16_t{}, to_bf16, to_bf16);
        break;
      case DType::U8: {
        put_bytes([&](float x) { return key_code.encode(x); },
                  [&](float x) { return value_code.encode(x); });
        key_floats[0] = key_code.scale;
        key_floats[layout.page_tokens] = key_code.zero;
        value_floats[0] = value_code.scale;
        value_floats[layout.page_tokens] = value_code.zero;
        break;
      }
      case DType::I8: {
        const auto scale_of = [&](const float* x) {
          float largest = 0;
          for (int64_t d = 0; d < dim; ++d) largest = std::max(largest, std::abs(x[d]));
          return largest > 0 ? largest / 127 : 1.0f;
        };
        const float key_scale = scale_of(key), value_scale = scale_of(value);
        const auto level = [](float x) { return static_cast<uint8_t>(std::lrint(x) + 128); };
        put_bytes([&](float x) { return level(x / key_scale); },
                  [&](float x) { return level(x / value_scale); });
        key_floats[0] = key_scale;
        value_floats[0] = value_scale;
        break;
      }
      default: {
        const auto same = [](float x) { return x; };
        put(float{}, same, same);
      }
    }
  }
}

}  // namespace quern::cpu
