// CpuBackend's attention of spans of one token: the past in parts of a fixed number of positions,
// which are attended one by one (flash decoding, Dao et al. 2023) and put together.
#include <algorithm>

#include "compute/cpu/cpu_backend.h"

namespace quern {
namespace {

// Heads whose keys, then whose values, a thread reads in one stretch.
constexpr int64_t kMostHeads = 8;
static_assert(kMostHeads <= cpu::kAttentionQueries);

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
                                  std::span<const float> scale, const AttentionRules& rules) {
  const int64_t group = q.heads / layout.kv_heads, dim = q.head_dim;
  const int64_t floats = kernels_.attention_scratch_floats(layout, group);
  for (int t = 0; t < pool_.size(); ++t) scratch(t, floats);
  int64_t parts = 0, work = 0;
  for (const AttentionSpan& span : spans) {
    const Past past = past_of(span, rules.window);
    parts += past.parts;
    work += (past.end - past.begin) * q.heads * dim;
  }
  // An item is a part of some heads, so many that there are items for all threads.
  const int64_t heads_together =
      std::clamp<int64_t>(layout.kv_heads * parts / (8 * pool_.size()), 1, kMostHeads);
  const int64_t blocks = (layout.kv_heads + heads_together - 1) / heads_together;
  // Parts of a kv head follow each other in memory.
  const int64_t part_floats = cpu::AttentionPart::floats(group, dim);
  const int64_t all_floats = parts * layout.kv_heads * part_floats;
  if (attention_parts_.count() < all_floats) {
    attention_parts_ = allocate_host(DType::F32, {2 * all_floats});
  }
  float* memory = attention_parts_.floats().data();
  const auto part_at = [&](int64_t index) {
    return cpu::AttentionPart::at(memory + index * part_floats, group, dim);
  };
  const auto attend = [&](int64_t begin, int64_t end, int thread) {
    float* own = scratch_[static_cast<size_t>(thread)].floats().data();
    for (int64_t item = begin; item < end; ++item) {
      int64_t index = item, before = 0;
      for (const AttentionSpan& span : spans) {
        const Past past = past_of(span, rules.window);
        if (index >= past.parts * blocks) {
          index -= past.parts * blocks;
          before += past.parts * layout.kv_heads;
          continue;
        }
        const int64_t part = index / blocks, head = index % blocks * heads_together;
        const int64_t first = (past.first_part + part) * cpu::kAttentionPart;
        kernels_.attention_parts(
            part_at(before + head * past.parts + part), past.parts * part_floats, q, layout, span,
            scale[static_cast<size_t>(span.first_row)], rules, head,
            std::min(head + heads_together, layout.kv_heads), std::max(first, past.begin),
            std::min(first + cpu::kAttentionPart, past.end), own);
        break;
      }
    }
  };
  const auto merge = [&](int64_t begin, int64_t end, int) {
    int64_t item = 0, head = 0;
    for (const AttentionSpan& span : spans) {
      const Past past = past_of(span, rules.window);
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
    attend(0, parts * blocks, 0);
    merge(0, heads, 0);
    return;
  }
  pool_.parallel_for(parts * blocks, 1, attend);
  if (all_floats < kWorthWaking) {
    merge(0, heads, 0);
  } else {
    pool_.parallel_for(heads, (heads + 2 * pool_.size() - 1) / (2 * pool_.size()), merge);
  }
}

}  // namespace quern
