#include "compute/cpu/cpu_training_backend.h"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <cmath>
#include <cstring>
#include <vector>

#include "compute/cpu/machine.h"
#include "core/error.h"
#include "core/rng.h"

namespace quern {
namespace {

// Elements that the optimizer's loops take at a time.
constexpr int64_t kStretch = 1 << 14;

constexpr int64_t divided_up(int64_t x, int64_t by) noexcept { return (x + by - 1) / by; }

}  // namespace

CpuTrainingBackend::CpuTrainingBackend(ThreadPool& pool, cpu::Isa isa, Precision precision)
    : CpuBackend(pool, isa),
      training_(cpu::training_kernels(isa)),
      bf16_(precision == Precision::BF16 ? cpu::bf16_kernels(isa) : nullptr) {
  if (!supports(precision, isa)) {
    throw Error(Kind::Unsupported,
                fmt::format("no bf16 products with {} on this CPU", cpu::name(isa)),
                "train in fp32");
  }
}

bool CpuTrainingBackend::supports(Precision precision, cpu::Isa isa) noexcept {
  return precision == Precision::F32 || cpu::bf16_kernels(isa) != nullptr;
}

MutRows CpuTrainingBackend::grown(Tensor& block, int64_t rows, int64_t cols) {
  if (block.count() < rows * cols) block = allocate(DType::F32, {rows * cols});
  return {block.floats().data(), rows, cols, cols};
}

double CpuTrainingBackend::measured_peak() {
  if (bf16_ == nullptr) return cpu::measured_fma_peak(pool(), isa());
  return cpu::measured_loop_peak(pool(), bf16_->dot_loop, bf16_->dot_flops_per_round);
}

const cpu::GemmKernels& CpuTrainingBackend::products() const noexcept {
  return bf16_ != nullptr ? bf16_->products : training_.products;
}

const cpu::AttentionKernels& CpuTrainingBackend::attention_kernels() const noexcept {
  return bf16_ != nullptr ? bf16_->attention : training_.attention;
}

// Both factors are packed once by all threads. Then the output is cut into blocks of as many panels
// as stay in a cache, and of many rows, because a block reads its panels anew; but not of so many
// that a thread waits long for the other's last block.
void CpuTrainingBackend::multiply(const cpu::Strided& a, int64_t m, int64_t depth,
                                  std::span<const RightFactor> factors) {
  constexpr int64_t kRows = 256;
  const cpu::GemmKernels& kernels = products();
  const int64_t threads = pool().size(), rows = kernels.tile_rows, cols = kernels.panel_cols;
  std::vector<cpu::GemmPart> parts;
  int64_t panels = 0;
  for (const RightFactor& factor : factors) {
    parts.push_back(factor.part);
    parts.back().first_panel = panels;
    panels += divided_up(factor.part.n, cols);
  }
  if (m == 0 || panels == 0) return;
  const int64_t tiles = divided_up(m, rows);
  const int64_t left_bytes = divided_up(kernels.packed_bytes(tiles * rows, depth), 64) * 64;
  const int64_t right_bytes = kernels.packed_bytes(panels * cols, depth);
  std::byte* packed = reinterpret_cast<std::byte*>(
      grown(packed_, 1, divided_up(left_bytes + right_bytes, int64_t{sizeof(float)})).data);
  const cpu::Gemm gemm = {.m = m,
                          .depth = depth,
                          .parts = parts,
                          .left = packed,
                          .right = packed + left_bytes,
                          .tiles = tiles,
                          .panels = panels};
  const auto pack_right = [&](int64_t panel) {
    size_t i = parts.size() - 1;
    while (panel < parts[i].first_panel) --i;
    const cpu::Strided& b = factors[i].b;
    const int64_t col = (panel - parts[i].first_panel) * cols;
    kernels.pack_right(gemm, panel, {b.data + col * b.col_step, b.row_step, b.col_step},
                       std::min(cols, parts[i].n - col));
  };
  // Some tiles at a time: of a transposed factor they read the same lines.
  constexpr int64_t kTiles = 8;
  const int64_t tile_groups = divided_up(tiles, kTiles);
  const auto pack_left = [&](int64_t group) {
    const int64_t tile = group * kTiles, row = tile * rows;
    kernels.pack_left(gemm, tile, {a.data + row * a.row_step, a.row_step, a.col_step},
                      std::min(kTiles * rows, m - row));
  };
  const int64_t pieces = panels + tile_groups;
  pool().parallel_for(pieces, divided_up(pieces, 8 * threads),
                      [&](int64_t begin, int64_t end, int) {
                        for (int64_t i = begin; i < end; ++i) {
                          i < panels ? pack_right(i) : pack_left(i - panels);
                        }
                      });

  const int64_t col_blocks = divided_up(panels, kernels.block_panels(depth));
  const int64_t width = divided_up(panels, col_blocks);
  int64_t row_blocks = divided_up(m, kRows);
  while (row_blocks * col_blocks % threads != 0) ++row_blocks;  // a whole number for each thread
  const int64_t height = divided_up(tiles, row_blocks);
  row_blocks = divided_up(tiles, height);
  pool().parallel_for(row_blocks * col_blocks, 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t block = begin; block < end; ++block) {
      const int64_t tile = block % row_blocks * height, panel = block / row_blocks * width;
      kernels.gemm(gemm, tile, std::min(tile + height, tiles), panel,
                   std::min(panel + width, panels));
    }
  });
}

void CpuTrainingBackend::for_float_rows(const Weight& weight,
                                        FunctionRef<void(ConstRows, int64_t)> use) {
  if (weight.format == WeightFormat::F32) {
    use({reinterpret_cast<const float*>(weight.data), weight.rows, weight.cols, weight.cols}, 0);
    return;
  }
  // Enough rows for products to be fast, few enough to stay in the last cache.
  constexpr int64_t kFloats = int64_t{1} << 21, kLeastRows = 256;
  const int64_t most = std::max(kLeastRows, kFloats / std::max<int64_t>(1, weight.cols));
  for (int64_t first = 0; first < weight.rows; first += most) {
    const int64_t rows = std::min(most, weight.rows - first);
    const MutRows decoded = grown(decoded_, rows, weight.cols);
    decode_rows(decoded, weight, first);
    use(decoded, first);
  }
}

void CpuTrainingBackend::matmul(ConstRows x, std::span<const MatmulPart> parts) {
  const auto factor_of = [](const MatmulPart& part, ConstRows weight, int64_t first) {
    return RightFactor{{weight.data, 1, weight.stride},
                       {.out = part.out.data + first,
                        .out_step = part.out.stride,
                        .n = weight.rows,
                        .first_panel = 0,
                        .bias = part.bias.empty() ? nullptr : part.bias.data() + first,
                        .accumulate = part.accumulate}};
  };
  std::vector<RightFactor> factors;
  for (const MatmulPart& part : parts) {
    const Weight& weight = *part.weight;
    if (weight.format == WeightFormat::F32) {
      for_float_rows(weight, [&](ConstRows rows, int64_t first) {
        factors.push_back(factor_of(part, rows, first));
      });
    } else {
      for_float_rows(weight, [&](ConstRows rows, int64_t first) {
        const RightFactor factor = factor_of(part, rows, first);
        multiply({x.data, x.stride, 1}, x.rows, x.cols, {&factor, 1});
      });
    }
  }
  multiply({x.data, x.stride, 1}, x.rows, x.cols, factors);
}

void CpuTrainingBackend::matmul_backward(MutRows d_x, ConstRows d_out, const Weight& weight,
                                         bool accumulate) {
  for_float_rows(weight, [&](ConstRows rows, int64_t first) {
    const RightFactor factor = {{rows.data, rows.stride, 1},
                                {.out = d_x.data,
                                 .out_step = d_x.stride,
                                 .n = weight.cols,
                                 .first_panel = 0,
                                 .bias = nullptr,
                                 .accumulate = accumulate || first > 0}};
    multiply({d_out.data + first, d_out.stride, 1}, d_out.rows, rows.rows, {&factor, 1});
  });
}

void CpuTrainingBackend::matmul_backward_weight(MutRows d_weight, std::span<float> d_bias,
                                                ConstRows d_out, ConstRows x) {
  const RightFactor factor = {{x.data, x.stride, 1},
                              {.out = d_weight.data,
                               .out_step = d_weight.stride,
                               .n = x.cols,
                               .first_panel = 0,
                               .bias = nullptr,
                               .accumulate = true}};
  if (d_weight.data != nullptr) {
    multiply({d_out.data, 1, d_out.stride}, d_out.cols, d_out.rows, {&factor, 1});
  }
  if (d_bias.empty()) return;
  sum_items(d_bias, d_out.rows, [&](int64_t begin, int64_t end, float* out) {
    for (int64_t r = begin; r < end; ++r) training_.add(out, d_out.row(r), d_out.cols);
  });
}

void CpuTrainingBackend::sum_items(std::span<float> sum, int64_t items,
                                   FunctionRef<void(int64_t, int64_t, float*)> add_items) {
  constexpr int64_t kGroups = 32;
  const auto width = static_cast<int64_t>(sum.size());
  const int64_t per_group = divided_up(items, kGroups);
  const MutRows partial = grown(partial_sums_, kGroups, width);
  for_items(kGroups, per_group * width, [&](int64_t begin, int64_t end) {
    for (int64_t g = begin; g < end; ++g) {
      std::fill_n(partial.row(g), width, 0.0f);
      const int64_t first = std::min(g * per_group, items);
      add_items(first, std::min(first + per_group, items), partial.row(g));
    }
  });
  for (int64_t g = 0; g < kGroups; ++g) training_.add(sum.data(), partial.row(g), width);
}

void CpuTrainingBackend::rms_norm_backward(MutRows d_x, std::span<float> d_weight, ConstRows d_out,
                                           ConstRows x, std::span<const float> weight, float eps) {
  const MutRows unwanted = grown(unwanted_, 1, d_weight.empty() ? x.cols : 1);
  if (d_weight.empty()) d_weight = {unwanted.data, static_cast<size_t>(x.cols)};
  sum_items(d_weight, x.rows, [&](int64_t begin, int64_t end, float* out) {
    for (int64_t r = begin; r < end; ++r) {
      training_.rms_norm_backward(d_x.row(r), out, d_out.row(r), x.row(r), weight.data(), x.cols,
                                  eps);
    }
  });
}

void CpuTrainingBackend::rms_norm_heads_backward(MutHeads d, std::span<float> d_weight,
                                                 ConstHeads x, std::span<const float> weight,
                                                 float eps) {
  const MutRows unwanted = grown(unwanted_, 1, d_weight.empty() ? x.head_dim : 1);
  if (d_weight.empty()) d_weight = {unwanted.data, static_cast<size_t>(x.head_dim)};
  sum_items(d_weight, x.tokens, [&](int64_t begin, int64_t end, float* out) {
    std::vector<float> d_head(static_cast<size_t>(x.head_dim));
    for (int64_t t = begin; t < end; ++t) {
      for (int64_t h = 0; h < x.heads; ++h) {
        std::fill(d_head.begin(), d_head.end(), 0.0f);
        training_.rms_norm_backward(d_head.data(), out, d.at(t, h), x.at(t, h), weight.data(),
                                    x.head_dim, eps);
        std::copy(d_head.begin(), d_head.end(), d.at(t, h));
      }
    }
  });
}

void CpuTrainingBackend::rope_backward(MutHeads d, ConstRows cos, ConstRows sin) {
  for_items(d.tokens, 4 * d.heads * d.head_dim, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      for (int64_t h = 0; h < d.heads; ++h) {
        training_.rope_backward(d.at(t, h), cos.row(t), sin.row(t), cos.cols);
      }
    }
  });
}

void CpuTrainingBackend::silu_mul_backward(MutRows d_gate, MutRows d_up, ConstRows d_out,
                                           ConstRows gate, ConstRows up) {
  for_items(d_out.rows, 16 * d_out.cols, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      training_.silu_mul_backward(d_gate.row(r), d_up.row(r), d_out.row(r), gate.row(r), up.row(r),
                                  d_out.cols);
    }
  });
}

void CpuTrainingBackend::add(MutRows out, ConstRows x) {
  for_items(x.rows, x.cols, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) training_.add(out.row(r), x.row(r), x.cols);
  });
}

// A thread takes a stretch of columns of all tokens, so that equal ids never meet.
void CpuTrainingBackend::embed_backward(MutRows d_table, ConstRows d_out,
                                        std::span<const int32_t> ids) {
  constexpr int64_t kCols = 64;
  for_items(divided_up(d_out.cols, kCols), kCols * d_out.rows, [&](int64_t begin, int64_t end) {
    const int64_t first = begin * kCols, count = std::min(end * kCols, d_out.cols) - first;
    for (int64_t t = 0; t < d_out.rows; ++t) {
      training_.add(d_table.row(ids[static_cast<size_t>(t)]) + first, d_out.row(t) + first, count);
    }
  });
}

namespace {

template <class T>
Heads<T> sequence_of(Heads<T> x, int64_t index, int64_t seq) noexcept {
  return {x.data + index * seq * x.stride, seq, x.heads, x.head_dim, x.stride};
}

cpu::AttentionTask task_of(ConstHeads q, ConstHeads k, ConstHeads v, const TrainingAttention& shape,
                           int64_t sequence, int64_t kv_head) noexcept {
  const int64_t seq = shape.seq;
  return {.q = sequence_of(q, sequence, seq),
          .k = sequence_of(k, sequence, seq),
          .v = sequence_of(v, sequence, seq),
          .seq = seq,
          .kv_head = kv_head,
          .scale = shape.scale,
          .window = shape.window,
          .starts = shape.starts.empty() ? nullptr : shape.starts.data() + sequence * seq,
          .out_scale = shape.out_scale};
}

}  // namespace

void CpuTrainingBackend::attention_training(MutHeads out, MutRows log_sum, ConstHeads q,
                                            ConstHeads k, ConstHeads v,
                                            const TrainingAttention& shape) {
  const int64_t seq = shape.seq;
  const cpu::AttentionKernels& attention = attention_kernels();
  const int64_t floats = attention.forward_scratch_floats(seq, q.head_dim);
  for (int t = 0; t < pool().size(); ++t) scratch(t, floats);
  pool().parallel_for(shape.batch * k.heads, 1, [&](int64_t begin, int64_t end, int thread) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t s = i / k.heads;
      attention.forward(task_of(q, k, v, shape, s, i % k.heads), sequence_of(out, s, seq),
                        log_sum.slice(s * seq, (s + 1) * seq), scratch(thread, floats));
    }
  });
}

void CpuTrainingBackend::attention_training_backward(MutHeads d_q, MutHeads d_k, MutHeads d_v,
                                                     ConstHeads d_out, ConstHeads out,
                                                     ConstRows log_sum, ConstHeads q, ConstHeads k,
                                                     ConstHeads v, const TrainingAttention& shape) {
  const int64_t seq = shape.seq;
  const cpu::AttentionKernels& attention = attention_kernels();
  const int64_t floats = attention.backward_scratch_floats(seq, q.head_dim, q.heads / k.heads);
  for (int t = 0; t < pool().size(); ++t) scratch(t, floats);
  pool().parallel_for(shape.batch * k.heads, 1, [&](int64_t begin, int64_t end, int thread) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t s = i / k.heads;
      attention.backward(task_of(q, k, v, shape, s, i % k.heads),
                         {.d_out = sequence_of(d_out, s, seq),
                          .out = sequence_of(out, s, seq),
                          .log_sum = log_sum.slice(s * seq, (s + 1) * seq),
                          .d_q = sequence_of(d_q, s, seq),
                          .d_k = sequence_of(d_k, s, seq),
                          .d_v = sequence_of(d_v, s, seq)},
                         scratch(thread, floats));
    }
  });
}

void CpuTrainingBackend::for_stretches(int64_t count, int64_t cost,
                                       FunctionRef<void(int64_t first, int64_t size)> work) {
  for_items(divided_up(count, kStretch), cost * kStretch, [&](int64_t begin, int64_t end) {
    for (int64_t first = begin * kStretch; first < std::min(end * kStretch, count);
         first += kStretch) {
      work(first, std::min(kStretch, count - first));
    }
  });
}

double CpuTrainingBackend::squared_norm(std::span<const float> x) {
  const auto count = static_cast<int64_t>(x.size());
  std::vector<double> sums(static_cast<size_t>(divided_up(count, kStretch)));
  for_stretches(count, 1, [&](int64_t first, int64_t size) {
    sums[static_cast<size_t>(first / kStretch)] = training_.squared_norm(x.data() + first, size);
  });
  double total = 0;
  for (const double sum : sums) total += sum;
  return total;
}

void CpuTrainingBackend::adamw(std::span<float> p, std::span<const float> g, std::span<float> m,
                               std::span<float> v, const AdamWStep& s) {
  const auto t = static_cast<double>(s.step);
  const cpu::AdamWFactors factors = {
      .keep = static_cast<float>(1 - s.learning_rate * s.weight_decay),
      .step_size = static_cast<float>(s.learning_rate / (1 - std::pow(s.beta_1, t))),
      .beta_1 = static_cast<float>(s.beta_1),
      .rest_1 = static_cast<float>(1 - s.beta_1),
      .beta_2 = static_cast<float>(s.beta_2),
      .rest_2 = static_cast<float>(1 - s.beta_2),
      .root_scale = static_cast<float>(1 / std::sqrt(1 - std::pow(s.beta_2, t))),
      .epsilon = static_cast<float>(s.epsilon),
      .gradient_scale = static_cast<float>(s.gradient_scale)};
  for_stretches(std::ssize(p), 8, [&](int64_t first, int64_t size) {
    training_.adamw(p.data() + first, g.data() + first, m.data() + first, v.data() + first, size,
                    factors);
  });
}

void CpuTrainingBackend::clear(std::span<float> x) {
  for_stretches(std::ssize(x), 1,
                [&](int64_t first, int64_t size) { std::fill_n(x.data() + first, size, 0.0f); });
}

void CpuTrainingBackend::narrow(std::span<uint16_t> out, std::span<const float> x) {
  for_stretches(std::ssize(x), 1, [&](int64_t first, int64_t size) {
    training_.narrow(out.data() + first, x.data() + first, size);
  });
}

void CpuTrainingBackend::widen(std::span<float> out, std::span<const uint16_t> x) {
  for_stretches(std::ssize(x), 1, [&](int64_t first, int64_t size) {
    training_.widen(out.data() + first, x.data() + first, size);
  });
}

void CpuTrainingBackend::dropout(MutRows x, const Dropout& d) {
  if (d.probability <= 0) return;
  const float scale = 1 / (1 - d.probability);
  const auto threshold = static_cast<uint32_t>(std::min(0x1p32 - 1, d.probability * 0x1p32));
  const std::array<uint32_t, 2> key = {static_cast<uint32_t>(d.seed),
                                       static_cast<uint32_t>(d.seed >> 32)};
  // A counter for each four elements of a row: (row, four, stream).
  for_items(x.rows, 32 * x.cols, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      for (int64_t i = 0; i < x.cols; i += 4) {
        const auto words =
            philox({static_cast<uint32_t>(r), static_cast<uint32_t>(i / 4),
                    static_cast<uint32_t>(d.stream), static_cast<uint32_t>(d.stream >> 32)},
                   key);
        for (int64_t j = 0; j < std::min<int64_t>(4, x.cols - i); ++j) {
          float& element = x.row(r)[i + j];
          element = words[static_cast<size_t>(j)] < threshold ? 0 : element * scale;
        }
      }
    }
  });
}

}  // namespace quern
