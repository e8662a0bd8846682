// The loss fused with the output projection; see Backend::cross_entropy.
#include <algorithm>
#include <cassert>
#include <vector>

#include "compute/cpu/cpu_training_backend.h"

namespace quern {
namespace {

// Logits that exist at a time. More rows make better use of each pass over d_lm_head.
constexpr int64_t kChunkFloats = int64_t{1} << 23;
constexpr int64_t kChunkRows = 256;

}  // namespace

LossSum CpuTrainingBackend::cross_entropy(MutRows d_hidden, MutRows d_weight,
                                          std::span<float> d_bias, ConstRows hidden,
                                          const LossHead& head, std::span<const int32_t> targets,
                                          float scale) {
  const Weight& lm_head = *head.weight;
  const bool gradients = d_hidden.data != nullptr;
  const int64_t vocab = lm_head.rows, dim = hidden.cols;
  // Only the rows that count take part in the products.
  std::vector<int32_t> rows;
  rows.reserve(targets.size());
  for (size_t r = 0; r < targets.size(); ++r) {
    if (targets[r] >= 0) {
      rows.push_back(static_cast<int32_t>(r));
    } else if (gradients) {
      std::fill_n(d_hidden.row(static_cast<int64_t>(r)), dim, 0.0f);
    }
  }
  const auto count = static_cast<int64_t>(rows.size());
  const int64_t chunk = std::min(count, std::max(kChunkRows, kChunkFloats / vocab));
  std::vector<double> losses(static_cast<size_t>(chunk));
  LossSum sum;
  sum.count = count;
  for (int64_t first = 0; first < count; first += chunk) {
    const int64_t n = std::min(chunk, count - first);
    const std::span<const int32_t> taken = std::span(rows).subspan(size_t(first), size_t(n));
    const MutRows x = grown(hidden_chunk_, n, dim), logits = grown(logits_, n, vocab);
    gather_rows(x, hidden, taken);
    const MatmulPart part = {logits, &lm_head, head.bias, false};
    matmul(x, {&part, 1});
    if (head.scale != 1) this->scale(logits, head.scale);
    MutRows capped;
    if (head.cap > 0) {
      soft_cap(logits, head.cap);
      capped = grown(capped_, n, vocab);
      copy(capped, logits);
    }
    for_items(n, 16 * vocab, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int32_t target = targets[static_cast<size_t>(taken[static_cast<size_t>(i)])];
        losses[static_cast<size_t>(i)] =
            training_.cross_entropy_row(logits.row(i), vocab, target, scale);
      }
    });
    for (int64_t i = 0; i < n; ++i) sum.loss += losses[static_cast<size_t>(i)];
    if (!gradients) continue;
    if (head.cap > 0) soft_cap_backward(logits, capped, head.cap);
    if (head.scale != 1) this->scale(logits, head.scale);
    matmul_backward_weight(d_weight, d_bias, logits, x);
    const MutRows d_x = grown(d_hidden_chunk_, n, dim);
    matmul_backward(d_x, logits, lm_head, false);
    for (int64_t i = 0; i < n; ++i) {
      std::copy_n(d_x.row(i), dim, d_hidden.row(taken[static_cast<size_t>(i)]));
    }
  }
  return sum;
}

}  // namespace quern
