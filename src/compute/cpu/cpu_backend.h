// The CPU's backend: shares each operation's work among threads and hands the pieces to the kernels
// of the chosen instruction set.
#pragma once

#include <string_view>
#include <vector>

#include "compute/backend.h"
#include "compute/cpu/kernels.h"
#include "compute/cpu/quant_kernels.h"
#include "core/thread_pool.h"

namespace quern {

class CpuBackend : public Backend {
 public:
  // `pool` must outlive the backend. Two backends must not use one pool at the same time. Products
  // of packed weights take the best variant of the instruction set, unless one is named.
  explicit CpuBackend(ThreadPool& pool, cpu::Isa isa = cpu::chosen_isa());
  CpuBackend(ThreadPool& pool, cpu::Isa isa, const cpu::QuantKernels& quant);

  cpu::Isa isa() const noexcept { return kernels_.isa; }
  ThreadPool& pool() noexcept { return pool_; }

  // What products with a weight of this kind are computed in, and the machine's measured limit for
  // it: a multiplication and an addition are two operations. Takes about a tenth of a second.
  struct Arithmetic {
    std::string_view name;  // "float32", "bf16" or "int8"
    double peak;            // operations per second, all threads together
  };
  Arithmetic measured_arithmetic(const Weight& weight);

  Tensor allocate(DType dtype, const Shape& shape) override;
  void embed(MutRows out, const Weight& table, std::span<const int32_t> ids) override;
  void rms_norm(MutRows out, ConstRows x, std::span<const float> weight, float eps,
                float offset = 0) override;
  void rms_norm_heads(MutHeads x, std::span<const float> weight, float eps,
                      float offset = 0) override;
  void layer_norm(MutRows out, ConstRows x, std::span<const float> weight,
                  std::span<const float> bias, float eps) override;
  void matmul(ConstRows x, std::span<const MatmulPart> parts) override;
  void rope(MutHeads x, ConstRows cos, ConstRows sin) override;
  void kv_store(const KvLayout& layout, std::span<const AttentionSpan> spans, ConstHeads k,
                ConstHeads v) override;
  void attention(MutHeads out, ConstHeads q, const KvLayout& layout,
                 std::span<const AttentionSpan> spans, std::span<const float> scale,
                 const AttentionRules& rules) override;
  void activate(MutRows out, ConstRows x, ConstRows factor, Activation activation) override;
  void fill(MutRows x, float value) override;
  void scale(MutRows x, float factor) override;
  void clamp(MutRows x, float limit) override;
  void soft_cap(MutRows x, float cap) override;
  void add(MutRows out, ConstRows x, float factor) override;
  void add_rows(MutRows out, ConstRows x, std::span<const int32_t> rows,
                std::span<const float> weights) override;
  void gate_rows(MutRows x, ConstRows gate) override;
  void copy(MutRows out, ConstRows x) override;
  void gather_rows(MutRows out, ConstRows x, std::span<const int32_t> rows) override;

 protected:
  // Splits [0, count) items of `cost` floats each among the threads, or keeps them here when that
  // is less work than waking anybody.
  void for_items(int64_t count, int64_t cost, FunctionRef<void(int64_t begin, int64_t end)> body);
  // The rows [first, first + out.rows) of a weight of any format, as floats.
  void decode_rows(MutRows out, const Weight& weight, int64_t first);
  // Memory of one thread's own. Not to be called while the pool is at work.
  float* scratch(int thread, int64_t floats);

 private:
  // Cuts the weight rows of all parts into pieces of at most `most`, by preference a `multiple`.
  void for_weight_rows(
      ConstRows x, std::span<const MatmulPart> parts, int64_t most, int64_t multiple,
      FunctionRef<void(const MatmulPart& part, int64_t begin, int64_t end, int thread)> body);

  bool takes_pairs(const Weight& weight) const noexcept;
  // Products of weights as they are stored, or of pairs of BF16.
  void multiply_dense(const cpu::ProductKernels& products, ConstRows x,
                      std::span<const MatmulPart> parts);
  // Products of packed weights (cpu_packed.cpp).
  void matmul_packed(ConstRows x, std::span<const MatmulPart> parts);
  void multiply_packed(ConstRows x, std::span<const MatmulPart* const> parts);
  // Attention of spans of one token each (cpu_attention.cpp).
  void attention_decode(MutHeads out, ConstHeads q, const KvLayout& layout,
                        std::span<const AttentionSpan> spans, std::span<const float> scale,
                        const AttentionRules& rules);

  ThreadPool& pool_;
  const cpu::Kernels& kernels_;
  const cpu::QuantKernels& quant_;
  const cpu::Bf16PairKernels* pairs_;          // or null
  Tensor quant_rows_;                          // the rounded input of a product
  Tensor pair_rows_;                           // likewise, in bfloat16
  Tensor attention_parts_;                     // of one call
  std::vector<AttentionSpan> one_token_;       // of one call
  std::vector<AttentionSpan> several_tokens_;  // of one call
  Tensor packed_rows_;                         // the input of a product, grown as scratch_ is
  std::vector<Tensor> scratch_;  // one for each thread, grown when a larger shape comes
};

// Zeroed, 64-byte aligned memory that the system provides page by page as it is touched.
Tensor allocate_host(DType dtype, const Shape& shape);

}  // namespace quern
