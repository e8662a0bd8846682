// CpuBackend's attention of spans of one token: the past in parts of a fixed number of positions,
// which are attended one by one (flash decoding, Dao et al. 2023) and put together.
#include <algorithm>

#include "compute/cpu/cpu_backend.h"

namespace quern {
namespace {

// The positions [begin, end) that a span's query sees, and the parts of the past they lie in.
struct Past {
  int64_t begin, end, first_part, parts;
};
Past past_of(const AttentionSpan& span, int64_t window) noexcept {
  const int64_t end = span.first_position + 1;
  const int64_t begin = window > 0 ? std::max<int64_t>(0, end - window) : 0;
  const int64_t first = begin / cpu::kAttentionPart;
  return {begin, end, first, (end - 1) / cpu::kAttentionPart + 1 - first};
}

}  // namespace

void CpuBackend::attention_decode(MutHeads out, ConstHeads q, const KvLayout& layout,
                                  std::span<const AttentionSpan> spans,
                                  std::span<const float> scale, int64_t window) {
  const int64_t group = q.heads / layout.kv_heads, dim = q.head_dim;
  const int64_t floats = kernels_.attention_scratch_floats(layout, group);
  for (int t = 0; t < pool_.size(); ++t) scratch(t, floats);
  int64_t items = 0, work = 0;
  for (const AttentionSpan& span : spans) {
    const Past past = past_of(span, window);
    items += past.parts * layout.kv_heads;
    work += (past.end - past.begin) * q.heads * dim;
  }
  // Parts of a kv head follow each other.
  const int64_t part_floats = cpu::AttentionPart::floats(group, dim);
  if (attention_parts_.count() < items * part_floats) {
    attention_parts_ = allocate_host(DType::F32, {2 * items * part_floats});
  }
  float* memory = attention_parts_.floats().data();
  const auto part_at = [&](int64_t item) {
    return cpu::AttentionPart::at(memory + item * part_floats, group, dim);
  };
  const auto attend = [&](int64_t begin, int64_t end, int thread) {
    float* own = scratch_[static_cast<size_t>(thread)].floats().data();
    for (int64_t item = begin; item < end; ++item) {
      int64_t index = item;
      for (const AttentionSpan& span : spans) {
        const Past past = past_of(span, window);
        if (index >= past.parts * layout.kv_heads) {
          index -= past.parts * layout.kv_heads;
          continue;
        }
        const int64_t first = (past.first_part + index % past.parts) * cpu::kAttentionPart;
        kernels_.attention_part(part_at(item), q, layout, span,
                                scale[static_cast<size_t>(span.first_row)], index / past.parts,
                                std::max(first, past.begin),
                                std::min(first + cpu::kAttentionPart, past.end), own);
        break;
      }
    }
  };
  const auto merge = [&](int64_t begin, int64_t end, int) {
    int64_t item = 0, head = 0;
    for (const AttentionSpan& span : spans) {
      const Past past = past_of(span, window);
      for (int64_t h = 0; h < layout.kv_heads; ++h, ++head, item += past.parts) {
        if (head < begin || head >= end) continue;
        kernels_.attention_merge(out.at(span.first_row, h * group), part_at(item), past.parts,
                                 group, dim);
      }
    }
  };
  const int64_t heads = static_cast<int64_t>(spans.size()) * layout.kv_heads;
  constexpr int64_t kWorthWaking = 1 << 16;
  if (work < kWorthWaking) {
    attend(0, items, 0);
    merge(0, heads, 0);
    return;
  }
  pool_.parallel_for(items, 1, attend);
  if (items * part_floats < kWorthWaking) {
    merge(0, heads, 0);
  } else {
    pool_.parallel_for(heads, (heads + 2 * pool_.size() - 1) / (2 * pool_.size()), merge);
  }
}

}  // namespace quern
