#include "model/config_keys.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/error.h"
#include "formats/unread_keys.h"

namespace quern {
namespace {

// Read for every family.
constexpr std::string_view kRead[] = {"architectures",
                                      "auto_map",
                                      "bf16",
                                      "bos_token_id",
                                      "dtype",
                                      "eos_token_id",
                                      "fp16",
                                      "initializer_range",
                                      "model_type",
                                      "params_dtype",
                                      "quantization_config",
                                      "quern_layer_windows",
                                      "tie_word_embeddings",
                                      "torch_dtype",
                                      "use_dynamic_ntk",
                                      "use_logn_attn",
                                      "vocab_size"};

constexpr std::string_view kReadOfQwen[] = {"ffn_hidden_size",
                                            "hidden_size",
                                            "intermediate_size",
                                            "kv_channels",
                                            "layer_norm_epsilon",
                                            "max_position_embeddings",
                                            "n_embd",
                                            "n_head",
                                            "n_layer",
                                            "n_positions",
                                            "no_bias",
                                            "num_attention_heads",
                                            "num_hidden_layers",
                                            "padded_vocab_size",
                                            "rotary_emb_base",
                                            "rotary_pct",
                                            "seq_length"};

constexpr std::string_view kReadOfLlamaLike[] = {"attention_bias",
                                                 "head_dim",
                                                 "hidden_act",
                                                 "hidden_size",
                                                 "intermediate_size",
                                                 "max_position_embeddings",
                                                 "num_attention_heads",
                                                 "num_hidden_layers",
                                                 "num_key_value_heads",
                                                 "original_max_position_embeddings",
                                                 "partial_rotary_factor",
                                                 "rms_norm_eps",
                                                 "rope_parameters",
                                                 "rope_scaling",
                                                 "rope_theta"};

// Of Qwen1.5 and later. Without use_sliding_window the others mean nothing.
constexpr std::string_view kReadOfWindows[] = {"layer_types", "max_window_layers", "sliding_window",
                                               "use_sliding_window"};

// What published models keep for their books: how they were trained, what wrote the file, how the
// reference implementation is to run, defaults of generation that transformers once kept here.
constexpr std::string_view kBooks[] = {"_attn_implementation",
                                       "_attn_implementation_autoset",
                                       "_commit_hash",
                                       "_flash_attn_2_enabled",
                                       "_name_or_path",
                                       "add_cross_attention",
                                       "attention_dropout",
                                       "attention_probs_dropout_prob",
                                       "attn_dropout_prob",
                                       "attn_implementation",
                                       "attn_pdrop",
                                       "bad_words_ids",
                                       "begin_suppress_tokens",
                                       "cache_implementation",
                                       "chunk_size_feed_forward",
                                       "cross_attention_hidden_size",
                                       "decoder_start_token_id",
                                       "diversity_penalty",
                                       "do_sample",
                                       "early_stopping",
                                       "emb_dropout_prob",
                                       "embd_pdrop",
                                       "encoder_no_repeat_ngram_size",
                                       "exponential_decay_length_penalty",
                                       "finetuning_task",
                                       "forced_bos_token_id",
                                       "forced_eos_token_id",
                                       "fp32",
                                       "gradient_checkpointing",
                                       "hidden_dropout",
                                       "id2label",
                                       "is_decoder",
                                       "is_encoder_decoder",
                                       "is_llama_config",
                                       "label2id",
                                       "length_penalty",
                                       "max_length",
                                       "max_sequence_length",
                                       "min_length",
                                       "name_or_path",
                                       "no_repeat_ngram_size",
                                       "num_beam_groups",
                                       "num_beams",
                                       "num_return_sequences",
                                       "onnx_safe",
                                       "output_attentions",
                                       "output_hidden_states",
                                       "output_past",
                                       "output_scores",
                                       "pad_token_id",
                                       "prefix",
                                       "pretraining_tp",
                                       "problem_type",
                                       "pruned_heads",
                                       "remove_invalid_values",
                                       "repetition_penalty",
                                       "resid_pdrop",
                                       "return_dict",
                                       "return_dict_in_generate",
                                       "sep_token_id",
                                       "softmax_in_fp32",
                                       "suppress_tokens",
                                       "task_specific_params",
                                       "temperature",
                                       "tf_legacy_loss",
                                       "tie_encoder_decoder",
                                       "tokenizer_class",
                                       "top_k",
                                       "top_p",
                                       "torchscript",
                                       "transformers.js_config",
                                       "transformers_version",
                                       "typical_p",
                                       "unk_token_id",
                                       "unsloth_fixed",
                                       "unsloth_version",
                                       "use_bfloat16",
                                       "use_cache",
                                       "use_cache_kernel",
                                       "use_cache_quantization",
                                       "use_flash_attn"};

// Switches that change the result in one of their positions, and the one that is computed here.
struct Switch {
  std::string_view key;
  bool computed;
};
constexpr Switch kSwitches[] = {{"rope_interleaved", false}, {"scale_attn_weights", true}};

template <size_t N>
bool has(const std::string_view (&list)[N], std::string_view key) {
  return std::find(std::begin(list), std::end(list), key) != std::end(list);
}

}  // namespace

void warn_of_unread(const Json& json, const Config& c) {
  std::vector<std::string> unread;
  for (const auto& [key, value] : json.members()) {
    if (is_off(value) && key != "scale_attn_weights") continue;
    const auto rule = std::find_if(std::begin(kSwitches), std::end(kSwitches),
                                   [&](const Switch& s) { return s.key == key; });
    if (rule != std::end(kSwitches)) {
      if (value.boolean() == rule->computed) continue;
      throw Error(Kind::Unsupported,
                  fmt::format("{} is {}, which is not supported", value.where(), value.boolean()));
    }
    const bool qwen = c.family == Family::Qwen;
    const bool windows = c.family == Family::Qwen2 || c.family == Family::Qwen3;
    if (has(kRead, key) || has(kBooks, key) ||
        (qwen ? has(kReadOfQwen, key) : has(kReadOfLlamaLike, key)) ||
        (windows && has(kReadOfWindows, key)) || (c.family == Family::Llama && key == "mlp_bias")) {
      continue;
    }
    // All layers of full attention are what there is without windows.
    if (key == "layer_types" && value.is_array() &&
        std::ranges::all_of(value.items(), [](const Json& type) {
          return type.is_string() && type.string() == "full_attention";
        })) {
      continue;
    }
    unread.push_back(printable(key, 60));
  }
  warn_of_unread_keys(json.where(), unread);
}

}  // namespace quern
