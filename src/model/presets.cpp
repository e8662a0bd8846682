// Shapes by name: the memo's, small ones for trying things out, and those of published models, as
// their config.json has them.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "model/config.h"

namespace quern {
namespace {

struct Preset {
  std::string_view name;
  std::string_view json;
};

constexpr Preset kPresets[] = {
    {"qwen-7b", R"({"architectures": ["QWenLMHeadModel"], "hidden_size": 4096,
      "intermediate_size": 22016, "num_hidden_layers": 32, "num_attention_heads": 32,
      "kv_channels": 128, "vocab_size": 151936, "seq_length": 8192,
      "max_position_embeddings": 32768, "use_dynamic_ntk": true, "use_logn_attn": true,
      "torch_dtype": "bfloat16"})"},
    {"qwen-1.8b", R"({"architectures": ["QWenLMHeadModel"], "hidden_size": 2048,
      "intermediate_size": 11008, "num_hidden_layers": 24, "num_attention_heads": 16,
      "kv_channels": 128, "vocab_size": 151936, "seq_length": 8192,
      "max_position_embeddings": 32768, "use_dynamic_ntk": true, "use_logn_attn": true,
      "torch_dtype": "bfloat16"})"},
    {"mini", R"({"architectures": ["QWenLMHeadModel"], "hidden_size": 256,
      "intermediate_size": 1408, "num_hidden_layers": 8, "num_attention_heads": 4,
      "kv_channels": 64, "vocab_size": 8192, "seq_length": 512, "max_position_embeddings": 2048,
      "use_dynamic_ntk": true, "use_logn_attn": true, "torch_dtype": "bfloat16"})"},
    {"tiny", R"({"architectures": ["QWenLMHeadModel"], "hidden_size": 128,
      "intermediate_size": 688, "num_hidden_layers": 4, "num_attention_heads": 4,
      "kv_channels": 32, "vocab_size": 1024, "seq_length": 256, "max_position_embeddings": 1024,
      "use_dynamic_ntk": true, "use_logn_attn": true, "torch_dtype": "bfloat16"})"},
    {"llama2-7b", R"({"architectures": ["LlamaForCausalLM"], "hidden_size": 4096,
      "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32,
      "num_key_value_heads": 32, "vocab_size": 32000, "rms_norm_eps": 1e-5,
      "max_position_embeddings": 4096, "torch_dtype": "float16"})"},
    {"llama3-8b", R"({"architectures": ["LlamaForCausalLM"], "hidden_size": 4096,
      "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
      "num_key_value_heads": 8, "vocab_size": 128256, "rms_norm_eps": 1e-5,
      "rope_theta": 500000, "max_position_embeddings": 131072, "rope_scaling":
      {"rope_type": "llama3", "factor": 8, "low_freq_factor": 1, "high_freq_factor": 4,
      "original_max_position_embeddings": 8192}, "torch_dtype": "bfloat16"})"},
    {"mistral-7b", R"({"architectures": ["MistralForCausalLM"], "hidden_size": 4096,
      "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
      "num_key_value_heads": 8, "vocab_size": 32000, "rms_norm_eps": 1e-5,
      "sliding_window": 4096, "max_position_embeddings": 32768, "torch_dtype": "bfloat16"})"},
    {"mixtral-8x7b", R"({"architectures": ["MixtralForCausalLM"], "hidden_size": 4096,
      "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
      "num_key_value_heads": 8, "vocab_size": 32000, "rms_norm_eps": 1e-5, "rope_theta": 1000000,
      "num_local_experts": 8, "num_experts_per_tok": 2, "max_position_embeddings": 32768,
      "torch_dtype": "bfloat16"})"},
    {"qwen1.5-moe", R"({"architectures": ["Qwen2MoeForCausalLM"], "hidden_size": 2048,
      "intermediate_size": 5632, "num_hidden_layers": 24, "num_attention_heads": 16,
      "num_key_value_heads": 16, "vocab_size": 151936, "rms_norm_eps": 1e-6,
      "rope_theta": 1000000, "num_experts": 60, "num_experts_per_tok": 4,
      "moe_intermediate_size": 1408, "shared_expert_intermediate_size": 5632,
      "norm_topk_prob": false, "max_position_embeddings": 8192, "torch_dtype": "bfloat16"})"},
    {"qwen3-30b-a3b", R"({"architectures": ["Qwen3MoeForCausalLM"], "hidden_size": 2048,
      "intermediate_size": 6144, "num_hidden_layers": 48, "num_attention_heads": 32,
      "num_key_value_heads": 4, "head_dim": 128, "vocab_size": 151936, "rms_norm_eps": 1e-6,
      "rope_theta": 1000000, "num_experts": 128, "num_experts_per_tok": 8,
      "moe_intermediate_size": 768, "norm_topk_prob": true, "max_position_embeddings": 40960,
      "torch_dtype": "bfloat16"})"},
    {"internlm2-7b", R"({"architectures": ["InternLM2ForCausalLM"], "hidden_size": 4096,
      "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
      "num_key_value_heads": 8, "vocab_size": 92544, "rms_norm_eps": 1e-5, "bias": false,
      "rope_theta": 1000000, "max_position_embeddings": 32768, "torch_dtype": "bfloat16"})"},
    {"baichuan-7b", R"({"architectures": ["BaichuanForCausalLM"], "hidden_size": 4096,
      "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32,
      "vocab_size": 64000, "rms_norm_eps": 1e-6, "max_position_embeddings": 4096,
      "torch_dtype": "bfloat16"})"},
    {"baichuan2-7b", R"({"architectures": ["BaichuanForCausalLM"], "hidden_size": 4096,
      "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32,
      "vocab_size": 125696, "rms_norm_eps": 1e-6, "max_position_embeddings": 4096,
      "torch_dtype": "bfloat16"})"},
    {"baichuan2-13b", R"({"architectures": ["BaichuanForCausalLM"], "hidden_size": 5120,
      "intermediate_size": 13696, "num_hidden_layers": 40, "num_attention_heads": 40,
      "vocab_size": 125696, "rms_norm_eps": 1e-6, "model_max_length": 4096,
      "torch_dtype": "bfloat16"})"},
    {"chatglm2-6b", R"({"architectures": ["ChatGLMModel"], "hidden_size": 4096,
      "ffn_hidden_size": 13696, "num_layers": 28, "num_attention_heads": 32, "kv_channels": 128,
      "multi_query_attention": true, "multi_query_group_num": 2, "padded_vocab_size": 65024,
      "layernorm_epsilon": 1e-5, "add_qkv_bias": true, "seq_length": 32768,
      "torch_dtype": "float16"})"},
    {"falcon-7b", R"({"architectures": ["FalconForCausalLM"], "hidden_size": 4544,
      "num_hidden_layers": 32, "num_attention_heads": 71, "vocab_size": 65024,
      "multi_query": true, "parallel_attn": true, "bias": false, "torch_dtype": "bfloat16"})"},
    {"falcon-40b", R"({"architectures": ["FalconForCausalLM"], "hidden_size": 8192,
      "num_hidden_layers": 60, "num_attention_heads": 128, "num_kv_heads": 8,
      "new_decoder_architecture": true, "vocab_size": 65024, "bias": false,
      "torch_dtype": "bfloat16"})"},
    {"mpt-7b", R"({"architectures": ["MPTForCausalLM"], "d_model": 4096, "n_layers": 32,
      "n_heads": 32, "expansion_ratio": 4, "vocab_size": 50432, "max_seq_len": 2048,
      "no_bias": true, "attn_config": {"alibi": true, "alibi_bias_max": 8},
      "torch_dtype": "bfloat16"})"},
    {"bloom-7b", R"({"architectures": ["BloomForCausalLM"], "hidden_size": 4096, "n_layer": 30,
      "n_head": 32, "vocab_size": 250880, "seq_length": 2048, "torch_dtype": "float16"})"},
    {"starcoder-15b", R"({"architectures": ["GPTBigCodeForCausalLM"], "n_embd": 6144,
      "n_layer": 40, "n_head": 48, "n_inner": 24576, "n_positions": 8192, "vocab_size": 49152,
      "activation_function": "gelu", "multi_query": true, "torch_dtype": "float32"})"},
    {"starcoder2-3b", R"({"architectures": ["Starcoder2ForCausalLM"], "hidden_size": 3072,
      "intermediate_size": 12288, "num_hidden_layers": 30, "num_attention_heads": 24,
      "num_key_value_heads": 2, "vocab_size": 49152, "norm_epsilon": 1e-5, "use_bias": true,
      "rope_theta": 999999.4420358813, "sliding_window": 4096,
      "max_position_embeddings": 16384, "torch_dtype": "bfloat16"})"},
    {"gpt2", R"({"architectures": ["GPT2LMHeadModel"], "n_embd": 768, "n_layer": 12,
      "n_head": 12, "n_positions": 1024, "vocab_size": 50257, "layer_norm_epsilon": 1e-5,
      "activation_function": "gelu_new"})"},
    {"pythia-6.9b", R"({"architectures": ["GPTNeoXForCausalLM"], "hidden_size": 4096,
      "intermediate_size": 16384, "num_hidden_layers": 32, "num_attention_heads": 32,
      "vocab_size": 50432, "layer_norm_eps": 1e-5, "rotary_pct": 0.25, "hidden_act": "gelu",
      "max_position_embeddings": 2048, "torch_dtype": "float16"})"},
    {"phi-2", R"({"architectures": ["PhiForCausalLM"], "hidden_size": 2560,
      "intermediate_size": 10240, "num_hidden_layers": 32, "num_attention_heads": 32,
      "num_key_value_heads": 32, "vocab_size": 51200, "layer_norm_eps": 1e-5,
      "partial_rotary_factor": 0.4, "hidden_act": "gelu_new", "max_position_embeddings": 2048,
      "torch_dtype": "float16"})"},
    {"phi-3-mini", R"({"architectures": ["Phi3ForCausalLM"], "hidden_size": 3072,
      "intermediate_size": 8192, "num_hidden_layers": 32, "num_attention_heads": 32,
      "num_key_value_heads": 32, "vocab_size": 32064, "rms_norm_eps": 1e-5,
      "sliding_window": 2047, "max_position_embeddings": 4096, "torch_dtype": "bfloat16"})"},
    {"gemma-2b", R"({"architectures": ["GemmaForCausalLM"], "hidden_size": 2048,
      "intermediate_size": 16384, "num_hidden_layers": 18, "num_attention_heads": 8,
      "num_key_value_heads": 1, "head_dim": 256, "vocab_size": 256000, "rms_norm_eps": 1e-6,
      "max_position_embeddings": 8192, "torch_dtype": "bfloat16"})"},
    {"gemma2-2b", R"({"architectures": ["Gemma2ForCausalLM"], "hidden_size": 2304,
      "intermediate_size": 9216, "num_hidden_layers": 26, "num_attention_heads": 8,
      "num_key_value_heads": 4, "head_dim": 256, "vocab_size": 256000, "rms_norm_eps": 1e-6,
      "query_pre_attn_scalar": 256, "sliding_window": 4096, "max_position_embeddings": 8192,
      "torch_dtype": "bfloat16"})"},
    {"gemma3-1b", R"({"architectures": ["Gemma3ForCausalLM"], "hidden_size": 1152,
      "intermediate_size": 6912, "num_hidden_layers": 26, "num_attention_heads": 4,
      "num_key_value_heads": 1, "head_dim": 256, "vocab_size": 262144, "rms_norm_eps": 1e-6,
      "query_pre_attn_scalar": 256, "sliding_window": 512, "sliding_window_pattern": 6,
      "rope_theta": 1000000, "rope_local_base_freq": 10000, "max_position_embeddings": 32768,
      "torch_dtype": "bfloat16"})"},
    {"smollm3-3b", R"({"architectures": ["SmolLM3ForCausalLM"], "hidden_size": 2048,
      "intermediate_size": 11008, "num_hidden_layers": 36, "num_attention_heads": 16,
      "num_key_value_heads": 4, "vocab_size": 128256, "rms_norm_eps": 1e-6,
      "rope_theta": 5000000, "no_rope_layer_interval": 4, "tie_word_embeddings": true,
      "max_position_embeddings": 65536, "torch_dtype": "bfloat16"})"},
    {"olmo2-7b", R"({"architectures": ["Olmo2ForCausalLM"], "hidden_size": 4096,
      "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32,
      "num_key_value_heads": 32, "vocab_size": 100352, "rms_norm_eps": 1e-6,
      "rope_theta": 500000, "max_position_embeddings": 4096, "torch_dtype": "bfloat16"})"},
};

}  // namespace

Config preset(std::string_view name) {
  for (const Preset& row : kPresets) {
    if (row.name == name) return parse_config(Json::parse(row.json, std::string(name)));
  }
  throw Error(Kind::Misused, fmt::format("there is no preset '{}'", printable(name, 40)),
              fmt::format("known are {}", fmt::join(preset_names(), ", ")));
}

std::vector<std::string_view> preset_names() {
  std::vector<std::string_view> names;
  for (const Preset& row : kPresets) names.push_back(row.name);
  return names;
}

}  // namespace quern
