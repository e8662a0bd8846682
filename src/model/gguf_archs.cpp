#include "model/gguf_archs.h"

#include <algorithm>

namespace quern {
namespace {

using B = GgufBiases;

constexpr GgufArch kArchs[] = {
    // name, family, fused_qkv, adjacent, fused_gate, own_head, windowed, biases
    {"qwen", Family::Qwen, true, false, false, true, 0, B::Qkv},
    {"qwen2", Family::Qwen2, false, false, false, false, 0, B::Qkv},
    {"qwen3", Family::Qwen3, false, false, false, false, 0, B::Qkv},
    {"llama", Family::Llama, false, true, false, false, 0, B::All},
    {"llama", Family::Mistral, false, true, false, false, 0, B::All},
    {"llama", Family::Mixtral, false, true, false, false, 0, B::All},
    {"llama", Family::InternLm, false, true, false, false, 0, B::All},
    {"qwen2moe", Family::Qwen2Moe, false, false, false, false, 0, B::Qkv},
    {"qwen3moe", Family::Qwen3Moe, false, false, false, false, 0, B::Qkv},
    {"internlm2", Family::InternLm2, false, true, false, true, 0, B::Qkv},
    {"baichuan", Family::Baichuan, false, true, false, true, 0, B::None},
    {"chatglm", Family::ChatGlm, true, true, true, false, 0, B::Qkv},
    {"falcon", Family::Falcon, true, false, false, false, 0, B::None},
    {"mpt", Family::Mpt, true, false, false, false, 0, B::All},
    {"bloom", Family::Bloom, true, false, false, false, 0, B::Must},
    {"starcoder", Family::StarCoder, true, false, false, false, 0, B::Must},
    {"starcoder2", Family::StarCoder2, false, false, false, false, 0, B::Must},
    {"gpt2", Family::Gpt2, true, false, false, false, 0, B::Must},
    {"gptneox", Family::GptNeoX, true, false, false, true, 0, B::Must},
    {"phi2", Family::Phi, false, false, false, true, 0, B::Must},
    {"phi3", Family::Phi3, true, false, true, false, 0, B::Qkv},
    {"gemma", Family::Gemma, false, false, false, false, 0, B::Qkv},
    {"gemma2", Family::Gemma2, false, false, false, false, 2, B::Qkv},
    {"gemma3", Family::Gemma3, false, false, false, false, 6, B::Qkv},
    {"smollm3", Family::SmolLm3, false, true, false, false, 0, B::Qkv},
    {"granite", Family::Granite, false, true, false, false, 0, B::All},
    {"olmo2", Family::Olmo2, false, false, false, true, 0, B::Qkv},
};

}  // namespace

std::span<const GgufArch> gguf_archs() noexcept { return kArchs; }

const GgufArch* gguf_arch(Family family) noexcept {
  const auto* row = std::ranges::find(kArchs, family, &GgufArch::family);
  return row == std::end(kArchs) ? nullptr : row;
}

Config gguf_layout(const Config& config) {
  const GgufArch& arch = *gguf_arch(config.family);
  Config c = config;
  c.qkv_order = arch.fused_qkv ? QkvOrder::Concat : QkvOrder::Separate;
  c.fused_gate_up = arch.fused_gate && c.gated;
  c.rope_pairs = RopePairs::Halves;
  c.transposed = false;
  c.norm_offset = 0;
  c.head_normalized = false;
  if (arch.own_head) c.tied = false;
  if (arch.biases == GgufBiases::Must) {
    c.qkv_bias = c.out_bias = c.mlp_bias = c.norm_bias = true;
  }
  return c;
}

}  // namespace quern
