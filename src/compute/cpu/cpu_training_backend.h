// The CPU's backend for training: what CpuBackend does, and the gradients of it. Products of many
// rows are computed by outer products here, which is faster than the order that makes a sequence's
// bits independent of its batch. Frozen weights keep their file's format and become floats some rows
// at a time: unlike inference's, products of packed ones do not round their input.
#pragma once

#include "compute/cpu/cpu_backend.h"
#include "compute/cpu/training_kernels.h"

namespace quern {

// What products are computed in. BF16: both factors rounded to bfloat16, sums, activations and
// parameters in float.
enum class Precision : uint8_t { F32, BF16 };

class CpuTrainingBackend final : public CpuBackend {
 public:
  // `pool` must outlive the backend. Two backends must not use one pool at the same time.
  // Throws Unsupported for BF16 where the CPU lacks it: see supports().
  explicit CpuTrainingBackend(ThreadPool& pool, cpu::Isa isa = cpu::chosen_isa(),
                              Precision precision = Precision::F32);

  static bool supports(Precision precision, cpu::Isa isa = cpu::chosen_isa()) noexcept;

  // Operations per second of products at best, without memory traffic: measured, in about a tenth
  // of a second.
  double measured_peak();

  bool rounds_products() const noexcept override { return bf16_ != nullptr; }
  void matmul(ConstRows x, std::span<const MatmulPart> parts) override;
  void matmul_backward(MutRows d_x, ConstRows d_out, const Weight& weight,
                       bool accumulate) override;
  void matmul_backward_weight(MutRows d_weight, std::span<float> d_bias, ConstRows d_out,
                              ConstRows x) override;
  void rms_norm_backward(MutRows d_x, std::span<float> d_weight, ConstRows d_out, ConstRows x,
                         std::span<const float> weight, float eps) override;
  void rms_norm_heads_backward(MutHeads d, std::span<float> d_weight, ConstHeads x,
                               std::span<const float> weight, float eps) override;
  void rope_backward(MutHeads d, ConstRows cos, ConstRows sin) override;
  void silu_mul_backward(MutRows d_gate, MutRows d_up, ConstRows d_out, ConstRows gate,
                         ConstRows up) override;
  void embed_backward(MutRows d_table, ConstRows d_out, std::span<const int32_t> ids) override;
  void attention_training(MutHeads out, MutRows log_sum, ConstHeads q, ConstHeads k, ConstHeads v,
                          const TrainingAttention& shape) override;
  void attention_training_backward(MutHeads d_q, MutHeads d_k, MutHeads d_v, ConstHeads d_out,
                                   ConstHeads out, ConstRows log_sum, ConstHeads q, ConstHeads k,
                                   ConstHeads v, const TrainingAttention& shape) override;
  LossSum cross_entropy(MutRows d_hidden, MutRows d_lm_head, ConstRows hidden,
                        const Weight& lm_head, std::span<const int32_t> targets,
                        float scale) override;
  double squared_norm(std::span<const float> x) override;
  void adamw(std::span<float> p, std::span<const float> g, std::span<float> m, std::span<float> v,
             const AdamWStep& step) override;
  void clear(std::span<float> x) override;
  void add(MutRows out, ConstRows x) override;
  void narrow(std::span<uint16_t> out, std::span<const float> x) override;
  void widen(std::span<float> out, std::span<const uint16_t> x) override;
  void dropout(MutRows x, const Dropout& dropout) override;

 private:
  // A right factor and where its product goes.
  struct RightFactor {
    cpu::Strided b;
    cpu::GemmPart part;
  };
  // Products of one left factor [m, depth].
  void multiply(const cpu::Strided& a, int64_t m, int64_t depth,
                std::span<const RightFactor> factors);
  // use(rows, first): the weight's rows from `first` on as floats, all or some hundred at a time.
  void for_float_rows(const Weight& weight, FunctionRef<void(ConstRows rows, int64_t first)> use);
  const cpu::GemmKernels& products() const noexcept;
  const cpu::AttentionKernels& attention_kernels() const noexcept;
  // `rows(begin, end, out)` adds the items [begin, end) to out[width]; their sum is added to `sum`.
  // Items are grouped the same way for any number of threads.
  void sum_items(std::span<float> sum, int64_t items,
                 FunctionRef<void(int64_t begin, int64_t end, float* out)> add_items);
  // The elements [first, first + size), some at a time: the same stretches for any number of
  // threads. `cost`: of an element.
  void for_stretches(int64_t count, int64_t cost,
                     FunctionRef<void(int64_t first, int64_t size)> work);
  MutRows grown(Tensor& block, int64_t rows, int64_t cols);

  const cpu::TrainingKernels& training_;
  const cpu::Bf16Kernels* bf16_;                   // null where products are float
  Tensor packed_;                                  // factors of multiply
  Tensor decoded_;                                 // of for_float_rows
  Tensor unwanted_;                                // gradients that nobody asks for
  Tensor partial_sums_;                            // of sum_items
  Tensor logits_, hidden_chunk_, d_hidden_chunk_;  // of cross_entropy: one chunk of tokens
};

}  // namespace quern
