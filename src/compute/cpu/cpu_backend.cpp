#include "compute/cpu/cpu_backend.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "compute/cpu/kv_store.h"
#include "core/checked.h"
#include "core/error.h"
#include "core/progress.h"

namespace quern {
namespace {

// Below so many multiply-adds a call is done by the caller alone: waking a thread takes longer.
constexpr int64_t kWorthWaking = 1 << 16;

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
    : pool_(pool), kernels_(cpu::kernels(isa)), scratch_(static_cast<size_t>(pool.size())) {
  for (int t = 0; t < pool.size(); ++t) scratch(t, kernels_.matmul_scratch_floats());
}

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
      kernels_.decode_row(out.row(t), table, ids[static_cast<size_t>(t)]);
    }
  });
}

void CpuBackend::rms_norm(MutRows out, ConstRows x, std::span<const float> weight, float eps) {
  for_items(x.rows, 4 * x.cols, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      kernels_.rms_norm(out.row(r), x.row(r), weight.data(), x.cols, eps);
    }
  });
}

void CpuBackend::rms_norm_heads(MutHeads x, std::span<const float> weight, float eps) {
  for_items(x.tokens, 4 * x.heads * x.head_dim, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      for (int64_t h = 0; h < x.heads; ++h) {
        float* head = x.at(t, h);
        kernels_.rms_norm(head, head, weight.data(), x.head_dim, eps);
      }
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

void CpuBackend::silu_mul(MutRows out, ConstRows gate, ConstRows up) {
  // Rows are cut into stretches, so that one long row is shared too.
  constexpr int64_t kStretch = 1024;
  const int64_t stretches = (out.cols + kStretch - 1) / kStretch;
  for_items(out.rows * stretches, 16 * std::min(kStretch, out.cols),
            [&](int64_t begin, int64_t end) {
              for (int64_t i = begin; i < end; ++i) {
                const int64_t r = i / stretches, first = i % stretches * kStretch;
                kernels_.silu_mul(out.row(r) + first, gate.row(r) + first, up.row(r) + first,
                                  std::min(kStretch, out.cols - first));
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

// Few rows: each thread takes long stretches of weight rows. Many: blocks of the output, those that
// share a block of the weight one after the other, so that it is still in the cache.
void CpuBackend::matmul(ConstRows x, std::span<const MatmulPart> parts) {
  if (x.rows == 0) return;
  const bool few = x.rows <= kernels_.matmul_few_rows;
  int64_t total_rows = 0;
  for (const MatmulPart& part : parts) total_rows += part.weight->rows;
  const int64_t work = x.rows * x.cols * total_rows;
  const int64_t threads = work < kWorthWaking ? 1 : pool_.size();

  int64_t col_step = kernels_.matmul_block_cols;
  if (few) {
    // About 512 KB of weights a piece, but enough pieces for every thread.
    const int64_t by_size = std::max<int64_t>(4, (int64_t{1} << 18) / std::max<int64_t>(x.cols, 1));
    const int64_t by_thread = (total_rows + 4 * threads - 1) / (4 * threads);
    col_step = threads == 1 ? total_rows : std::min(by_size, by_thread) / 4 * 4 + 4;
  }
  // Blocks of rows of about one size: a short last one would decode the weights for little.
  const int64_t most_rows = few ? x.rows : kernels_.matmul_block_rows;
  const int64_t even = (x.rows + most_rows - 1) / most_rows;
  const int64_t tile = kernels_.matmul_few_rows;
  const int64_t row_step =
      std::min(most_rows, ((x.rows + even - 1) / even + tile - 1) / tile * tile);
  const int64_t row_blocks = (x.rows + row_step - 1) / row_step;

  int64_t pieces = 0;
  for (const MatmulPart& part : parts) pieces += (part.weight->rows + col_step - 1) / col_step;
  pieces *= row_blocks;
  const auto run_pieces = [&](int64_t begin, int64_t end, int thread) {
    float* scratch = scratch_[static_cast<size_t>(thread)].floats().data();
    for (int64_t piece = begin; piece < end; ++piece) {
      int64_t col_block = piece / row_blocks;
      const int64_t row = piece % row_blocks * row_step;
      const MatmulPart* part = parts.data();
      for (;; ++part) {
        const int64_t blocks = (part->weight->rows + col_step - 1) / col_step;
        if (col_block < blocks) break;
        col_block -= blocks;
      }
      const int64_t last_row = std::min(row + row_step, x.rows);
      MatmulPart slice = *part;
      slice.out = part->out.slice(row, last_row);
      const int64_t col = col_block * col_step;
      kernels_.matmul(slice, x.slice(row, last_row), col,
                      std::min(col + col_step, part->weight->rows), scratch);
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
                           int64_t window) {
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
        kernels_.attention(out, q, layout, span, scale.data(), window, index / blocks, first,
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
