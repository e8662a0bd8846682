#include "compute/cpu/cpu_backend.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <iterator>

#include "compute/cpu/kv_store.h"
#include "compute/cpu/machine.h"
#include "compute/cpu/training_kernels.h"
#include "compute/packed.h"
#include "core/checked.h"
#include "core/error.h"
#include "core/progress.h"

namespace quern {
namespace {

// Below so many multiply-adds a call is done by the caller alone: waking a thread takes longer.
constexpr int64_t kWorthWaking = 1 << 16;

// Sums of so many terms average out what rounding the input to bfloat16 loses, and are long enough
// for its speed to count: see activation_bits(), which packed weights go by.
constexpr int64_t kRoundedInputs = 2048;

void free_mapped(std::byte* data) noexcept {
  // The block's size stands in the page before it.
  std::byte* base = data - 4096;
  size_t bytes = 0;
  std::memcpy(&bytes, base, sizeof(bytes));
  ::munmap(base, bytes);
}

}  // namespace

Tensor allocate_host(DType dtype, const Shape& shape) {
  uint64_t bytes = size_bytes(dtype);
  for (const int64_t dim : shape) {
    bytes = checked_mul(bytes, static_cast<uint64_t>(dim), "a tensor of " + to_string(shape));
  }
  const size_t mapped = bytes + 2 * 4096;
  void* base = mapped < bytes ? MAP_FAILED
                              : ::mmap(nullptr, mapped, PROT_READ | PROT_WRITE,
                                       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (base == MAP_FAILED) {
    throw Error(Kind::NoResources, fmt::format("cannot get {} of memory for a tensor of {}",
                                               human_bytes(bytes), to_string(shape)));
  }
  if (bytes >= (size_t{4} << 20)) ::madvise(base, mapped, MADV_HUGEPAGE);
  std::memcpy(base, &mapped, sizeof(mapped));
  return Tensor(dtype, shape,
                Buffer(static_cast<std::byte*>(base) + 4096, BufferDeleter{free_mapped}));
}

CpuBackend::CpuBackend(ThreadPool& pool, cpu::Isa isa)
    : CpuBackend(pool, isa, cpu::quant_kernels(isa)) {}

CpuBackend::CpuBackend(ThreadPool& pool, cpu::Isa isa, const cpu::QuantKernels& quant)
    : pool_(pool),
      kernels_(cpu::kernels(isa)),
      quant_(quant),
      pairs_(cpu::bf16_pair_kernels(isa)),
      scratch_(static_cast<size_t>(pool.size())) {}

float* CpuBackend::scratch(int thread, int64_t floats) {
  Tensor& block = scratch_[static_cast<size_t>(thread)];
  if (block.count() < floats) block = allocate_host(DType::F32, {floats});
  return block.floats().data();
}

Tensor CpuBackend::allocate(DType dtype, const Shape& shape) { return allocate_host(dtype, shape); }

void CpuBackend::for_items(int64_t count, int64_t cost, FunctionRef<void(int64_t, int64_t)> body) {
  if (count * cost < kWorthWaking) {
    body(0, count);
    return;
  }
  const int64_t grain = std::max<int64_t>(1, count / (4 * pool_.size()));
  pool_.parallel_for(count, grain, [&](int64_t begin, int64_t end, int) { body(begin, end); });
}

void CpuBackend::embed(MutRows out, const Weight& table, std::span<const int32_t> ids) {
  for_items(out.rows, out.cols, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      if (table.packed != nullptr) {
        decode_packed({out.row(t), static_cast<size_t>(out.cols)}, *table.packed,
                      table.first_row + ids[static_cast<size_t>(t)]);
        continue;
      }
      kernels_.decode_row(out.row(t), table, ids[static_cast<size_t>(t)]);
    }
  });
}

void CpuBackend::rms_norm(MutRows out, ConstRows x, std::span<const float> weight, float eps,
                          float offset) {
  for_items(x.rows, 4 * x.cols, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      kernels_.rms_norm(out.row(r), x.row(r), weight.data(), x.cols, eps, offset);
    }
  });
}

void CpuBackend::rms_norm_heads(MutHeads x, std::span<const float> weight, float eps,
                                float offset) {
  for_items(x.tokens, 4 * x.heads * x.head_dim, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      for (int64_t h = 0; h < x.heads; ++h) {
        float* head = x.at(t, h);
        kernels_.rms_norm(head, head, weight.data(), x.head_dim, eps, offset);
      }
    }
  });
}

void CpuBackend::layer_norm(MutRows out, ConstRows x, std::span<const float> weight,
                            std::span<const float> bias, float eps) {
  for_items(x.rows, 6 * x.cols, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      kernels_.layer_norm(out.row(r), x.row(r), weight.data(), bias.empty() ? nullptr : bias.data(),
                          x.cols, eps);
    }
  });
}

void CpuBackend::rope(MutHeads x, ConstRows cos, ConstRows sin) {
  for_items(x.tokens, 4 * x.heads * x.head_dim, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      for (int64_t h = 0; h < x.heads; ++h) {
        kernels_.rope(x.at(t, h), cos.row(t), sin.row(t), cos.cols);
      }
    }
  });
}

void CpuBackend::activate(MutRows out, ConstRows x, ConstRows factor, Activation activation) {
  // Rows are cut into stretches, so that one long row is shared too.
  constexpr int64_t kStretch = 1024;
  const int64_t stretches = (out.cols + kStretch - 1) / kStretch;
  for_items(out.rows * stretches, 16 * std::min(kStretch, out.cols),
            [&](int64_t begin, int64_t end) {
              for (int64_t i = begin; i < end; ++i) {
                const int64_t r = i / stretches, first = i % stretches * kStretch;
                kernels_.activate(out.row(r) + first, x.row(r) + first,
                                  factor.data == nullptr ? nullptr : factor.row(r) + first,
                                  std::min(kStretch, out.cols - first), activation);
              }
            });
}

void CpuBackend::fill(MutRows x, float value) {
  for_items(x.rows, x.cols, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) std::fill_n(x.row(r), x.cols, value);
  });
}

void CpuBackend::scale(MutRows x, float factor) {
  for_items(x.rows, x.cols, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      float* row = x.row(r);
      for (int64_t i = 0; i < x.cols; ++i) row[i] *= factor;
    }
  });
}

void CpuBackend::clamp(MutRows x, float limit) {
  for_items(x.rows, x.cols, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      float* row = x.row(r);
      for (int64_t i = 0; i < x.cols; ++i) row[i] = std::clamp(row[i], -limit, limit);
    }
  });
}

void CpuBackend::soft_cap(MutRows x, float cap) {
  for_items(x.rows, 32 * x.cols, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      float* row = x.row(r);
      for (int64_t i = 0; i < x.cols; ++i) row[i] = cap * std::tanh(row[i] / cap);
    }
  });
}

void CpuBackend::add(MutRows out, ConstRows x, float factor) {
  for_items(x.rows, x.cols, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      float* to = out.row(r);
      const float* from = x.row(r);
      for (int64_t i = 0; i < x.cols; ++i) to[i] += factor * from[i];
    }
  });
}

void CpuBackend::add_rows(MutRows out, ConstRows x, std::span<const int32_t> rows,
                          std::span<const float> weights) {
  for (int64_t r = 0; r < x.rows; ++r) {
    float* to = out.row(rows[static_cast<size_t>(r)]);
    const float* from = x.row(r);
    const float weight = weights[static_cast<size_t>(r)];
    for (int64_t i = 0; i < x.cols; ++i) to[i] += weight * from[i];
  }
}

void CpuBackend::gate_rows(MutRows x, ConstRows gate) {
  for (int64_t r = 0; r < x.rows; ++r) {
    const float factor = 1 / (1 + std::exp(-gate.row(r)[0]));
    for (int64_t i = 0; i < x.cols; ++i) x.row(r)[i] *= factor;
  }
}

void CpuBackend::decode_rows(MutRows out, const Weight& weight, int64_t first) {
  for_items(out.rows, 4 * out.cols, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      if (weight.packed != nullptr) {
        decode_packed({out.row(r), static_cast<size_t>(out.cols)}, *weight.packed,
                      weight.first_row + first + r);
      } else {
        kernels_.decode_row(out.row(r), weight, first + r);
      }
    }
  });
}

void CpuBackend::copy(MutRows out, ConstRows x) {
  for_items(x.rows, x.cols, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) std::copy_n(x.row(r), x.cols, out.row(r));
  });
}

void CpuBackend::gather_rows(MutRows out, ConstRows x, std::span<const int32_t> rows) {
  for (int64_t r = 0; r < out.rows; ++r) {
    std::copy_n(x.row(rows[static_cast<size_t>(r)]), x.cols, out.row(r));
  }
}

bool CpuBackend::takes_pairs(const Weight& weight) const noexcept {
  return pairs_ != nullptr && weight.format == WeightFormat::BF16 &&
         weight.cols >= kRoundedInputs && weight.cols % 2 == 0;
}

CpuBackend::Arithmetic CpuBackend::measured_arithmetic(const Weight& weight) {
  const cpu::Bf16Kernels* bf16 = cpu::bf16_kernels(isa());
  if (takes_pairs(weight) && bf16 != nullptr) {
    return {"bf16", cpu::measured_loop_peak(pool_, bf16->dot_loop, bf16->dot_flops_per_round)};
  }
  if (weight.packed != nullptr && weight.packed->activation_bits == 8 &&
      quant_.dot_loop != nullptr) {
    const bool pairs = cpu::rounded_form(*weight.packed) == cpu::RoundedForm::Pairs;
    return {"int8", cpu::measured_loop_peak(pool_, pairs ? quant_.pair_loop : quant_.dot_loop,
                                            quant_.dot_ops_per_round)};
  }
  return {"float32", cpu::measured_fma_peak(pool_, isa())};
}

void CpuBackend::matmul(ConstRows x, std::span<const MatmulPart> parts) {
  if (x.rows == 0) return;
  if (std::ranges::any_of(parts, [](const MatmulPart& p) { return p.weight->packed != nullptr; })) {
    return matmul_packed(x, parts);
  }
  if (!std::ranges::all_of(parts, [&](const MatmulPart& p) { return takes_pairs(*p.weight); })) {
    return multiply_dense(kernels_.products, x, parts);
  }
  const int64_t pairs = x.cols / 2;
  if (pair_rows_.count() < x.rows * pairs) {
    pair_rows_ = allocate_host(DType::F32, {x.rows * pairs});
  }
  const MutRows rounded = {pair_rows_.floats().data(), x.rows, pairs, pairs};
  for_items(x.rows, x.cols, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) pairs_->round_row(rounded.row(r), x.row(r), x.cols);
  });
  multiply_dense(pairs_->products, rounded, parts);
}

void CpuBackend::multiply_dense(const cpu::ProductKernels& products, ConstRows x,
                                std::span<const MatmulPart> parts) {
  const auto is_gptq = [](const MatmulPart& p) { return p.weight->format == WeightFormat::Gptq; };
  const int64_t tile = products.most_rows;
  if (x.rows <= tile && std::ranges::none_of(parts, is_gptq)) {
    // Long stretches of weight rows, about 512 KB a piece, but enough pieces for every thread.
    const int64_t row_floats = std::max<int64_t>(x.cols, 1);
    const int64_t most = std::max<int64_t>(4, (int64_t{1} << 18) / row_floats / 4 * 4);
    for_weight_rows(x, parts, most, 4,
                    [&](const MatmulPart& part, int64_t begin, int64_t end, int) {
                      products.few_rows(part, x, begin, end);
                    });
    return;
  }
  // So many rows that they stay in the third cache, repacked, while the weights pass by.
  constexpr int64_t kRows = 512;
  const int64_t even = (x.rows + kRows - 1) / kRows;
  const int64_t step = ((x.rows + even - 1) / even + tile - 1) / tile * tile;
  const int64_t floats = products.scratch_floats(std::min(step, x.rows));
  for (int t = 0; t < pool_.size(); ++t) scratch(t, floats);
  const int64_t packed_floats = products.packed_floats(std::min(step, x.rows), x.cols);
  if (packed_rows_.count() < packed_floats)
    packed_rows_ = allocate_host(DType::F32, {packed_floats});
  float* packed = packed_rows_.floats().data();
  for (int64_t first = 0; first < x.rows; first += step) {
    const ConstRows rows = x.slice(first, std::min(first + step, x.rows));
    for_items((rows.rows + tile - 1) / tile, tile * rows.cols, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) products.pack(packed, rows, i * tile);
    });
    for_weight_rows(rows, parts, products.block_cols, 8,
                    [&](const MatmulPart& part, int64_t begin, int64_t end, int thread) {
                      MatmulPart slice = part;
                      slice.out = part.out.slice(first, first + rows.rows);
                      products.many_rows(slice, packed, rows.rows, rows.cols, begin, end,
                                         scratch(thread, floats));
                    });
  }
}

void CpuBackend::for_weight_rows(
    ConstRows x, std::span<const MatmulPart> parts, int64_t most, int64_t multiple,
    FunctionRef<void(const MatmulPart& part, int64_t begin, int64_t end, int thread)> body) {
  int64_t total = 0;
  for (const MatmulPart& part : parts) total += part.weight->rows;
  const int64_t threads = x.rows * x.cols * total < kWorthWaking ? 1 : pool_.size();
  // At least four pieces a thread, and a whole number of them for each.
  const int64_t wanted =
      threads == 1
          ? 1
          : std::max<int64_t>(4, (total + threads * most - 1) / (threads * most)) * threads;
  const int64_t even = (total + wanted - 1) / wanted;
  const int64_t step = std::min(most, (even + multiple - 1) / multiple * multiple);
  int64_t pieces = 0;
  for (const MatmulPart& part : parts) pieces += (part.weight->rows + step - 1) / step;
  const auto run_pieces = [&](int64_t begin, int64_t end, int thread) {
    for (int64_t piece = begin; piece < end; ++piece) {
      int64_t block = piece;
      const MatmulPart* part = parts.data();
      for (;; ++part) {
        const int64_t blocks = (part->weight->rows + step - 1) / step;
        if (block < blocks) break;
        block -= blocks;
      }
      body(*part, block * step, std::min((block + 1) * step, part->weight->rows), thread);
    }
  };
  if (threads == 1) {
    run_pieces(0, pieces, 0);
  } else {
    pool_.parallel_for(pieces, 1, run_pieces);
  }
}

void CpuBackend::kv_store(const KvLayout& layout, std::span<const AttentionSpan> spans,
                          ConstHeads k, ConstHeads v) {
  for_items(
      static_cast<int64_t>(spans.size()) * layout.kv_heads,
      8 * layout.head_dim * k.tokens / std::max<int64_t>(1, static_cast<int64_t>(spans.size())),
      [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
          const AttentionSpan& span = spans[static_cast<size_t>(i / layout.kv_heads)];
          cpu::kv_store(layout, span, i % layout.kv_heads, k, v);
        }
      });
}

void CpuBackend::attention(MutHeads out, ConstHeads q, const KvLayout& layout,
                           std::span<const AttentionSpan> spans, std::span<const float> scale,
                           const AttentionRules& rules) {
  // Spans of one token always take the decode kernels, so that batching cannot change their bits.
  const auto one_token = [](const AttentionSpan& span) { return span.count == 1; };
  if (std::ranges::all_of(spans, one_token)) {
    return attention_decode(out, q, layout, spans, scale, rules);
  }
  if (std::ranges::any_of(spans, one_token)) {
    one_token_.clear();
    several_tokens_.clear();
    std::ranges::partition_copy(spans, std::back_inserter(one_token_),
                                std::back_inserter(several_tokens_), one_token);
    attention_decode(out, q, layout, one_token_, scale, rules);
    spans = several_tokens_;
  }
  const int64_t group = q.heads / layout.kv_heads;
  const int64_t floats = kernels_.attention_scratch_floats(layout, group);
  for (int t = 0; t < pool_.size(); ++t) scratch(t, floats);
  int64_t pieces = 0, work = 0;
  for (const AttentionSpan& span : spans) {
    const int64_t blocks = (span.count + cpu::kAttentionQueries - 1) / cpu::kAttentionQueries;
    pieces += blocks * layout.kv_heads;
    work += span.count * (span.first_position + span.count) * q.heads * q.head_dim;
  }
  const auto run_pieces = [&](int64_t begin, int64_t end, int thread) {
    float* memory = scratch_[static_cast<size_t>(thread)].floats().data();
    for (int64_t piece = begin; piece < end; ++piece) {
      int64_t index = piece;
      for (const AttentionSpan& span : spans) {
        const int64_t blocks = (span.count + cpu::kAttentionQueries - 1) / cpu::kAttentionQueries;
        if (index >= blocks * layout.kv_heads) {
          index -= blocks * layout.kv_heads;
          continue;
        }
        const int64_t first = index % blocks * cpu::kAttentionQueries;
        kernels_.attention(out, q, layout, span, scale.data(), rules, index / blocks, first,
                           std::min(cpu::kAttentionQueries, span.count - first), memory);
        break;
      }
    }
  };
  if (work < kWorthWaking) {
    run_pieces(0, pieces, 0);
  } else {
    pool_.parallel_for(pieces, 1, run_pieces);
  }
}

}  // namespace quern
