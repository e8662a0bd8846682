#include "compute/backend.h"

#include "core/error.h"

namespace quern {
namespace {

[[noreturn]] void cannot_train() {
  throw Error(Kind::Unsupported, "this backend computes no gradients",
              "train on the CPU, or with a build whose device can");
}

}  // namespace

void Backend::matmul_backward(MutRows, ConstRows, const Weight&, bool) { cannot_train(); }
void Backend::matmul_backward_weight(MutRows, std::span<float>, ConstRows, ConstRows) {
  cannot_train();
}
void Backend::rms_norm_backward(MutRows, std::span<float>, ConstRows, ConstRows,
                                std::span<const float>, float) {
  cannot_train();
}
void Backend::rms_norm_heads_backward(MutHeads, std::span<float>, ConstHeads,
                                      std::span<const float>, float) {
  cannot_train();
}
void Backend::rope_backward(MutHeads, ConstRows, ConstRows) { cannot_train(); }
void Backend::silu_mul_backward(MutRows, MutRows, ConstRows, ConstRows, ConstRows) {
  cannot_train();
}
void Backend::embed_backward(MutRows, ConstRows, std::span<const int32_t>) { cannot_train(); }
void Backend::attention_training(MutHeads, MutRows, ConstHeads, ConstHeads, ConstHeads,
                                 const TrainingAttention&) {
  cannot_train();
}
void Backend::attention_training_backward(MutHeads, MutHeads, MutHeads, ConstHeads, ConstHeads,
                                          ConstRows, ConstHeads, ConstHeads, ConstHeads,
                                          const TrainingAttention&) {
  cannot_train();
}
LossSum Backend::cross_entropy(MutRows, MutRows, ConstRows, const Weight&, std::span<const int32_t>,
                               float) {
  cannot_train();
}
double Backend::squared_norm(std::span<const float>) { cannot_train(); }
void Backend::adamw(std::span<float>, std::span<const float>, std::span<float>, std::span<float>,
                    const AdamWStep&) {
  cannot_train();
}
void Backend::clear(std::span<float>) { cannot_train(); }
void Backend::add(MutRows, ConstRows) { cannot_train(); }
void Backend::narrow(std::span<uint16_t>, std::span<const float>) { cannot_train(); }
void Backend::widen(std::span<float>, std::span<const uint16_t>) { cannot_train(); }
void Backend::dropout(MutRows, const Dropout&) { cannot_train(); }

}  // namespace quern
