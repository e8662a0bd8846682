#include "model/config_keys.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/error.h"
#include "formats/unread_keys.h"
#include "model/families.h"

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
                                      "vocab_size"};

// The usual fields, under the names of any family.
constexpr std::string_view kUsual[] = {"d_model",
                                       "ffn_hidden_size",
                                       "head_dim",
                                       "hidden_size",
                                       "intermediate_size",
                                       "layer_norm_eps",
                                       "layer_norm_epsilon",
                                       "layernorm_epsilon",
                                       "max_position_embeddings",
                                       "max_seq_len",
                                       "n_embd",
                                       "n_embed",
                                       "n_head",
                                       "n_heads",
                                       "n_inner",
                                       "n_layer",
                                       "n_layers",
                                       "n_positions",
                                       "norm_epsilon",
                                       "num_attention_heads",
                                       "num_hidden_layers",
                                       "num_key_value_heads",
                                       "num_layers",
                                       "rms_norm_eps",
                                       "seq_length"};

constexpr std::string_view kRope[] = {"original_max_position_embeddings", "partial_rotary_factor",
                                      "rope_parameters", "rope_scaling", "rope_theta"};

// What published models keep for their books: how they were trained, what wrote the file, how the
// reference implementation is to run, defaults of generation that transformers once kept here.
constexpr std::string_view kBooks[] = {"_attn_implementation",
                                       "_attn_implementation_autoset",
                                       "_commit_hash",
                                       "_flash_attn_2_enabled",
                                       "_from_model_config",
                                       "_name_or_path",
                                       "add_cross_attention",
                                       "apply_query_key_layer_scaling",
                                       "assistant_token_id",
                                       "attention_dropout",
                                       "attention_probs_dropout_prob",
                                       "attention_softmax_in_fp32",
                                       "attn_dropout_prob",
                                       "attn_implementation",
                                       "attn_pdrop",
                                       "bad_words_ids",
                                       "begin_suppress_tokens",
                                       "bias_dropout_fusion",
                                       "cache_implementation",
                                       "chunk_size_feed_forward",
                                       "classifier_dropout",
                                       "cross_attention_hidden_size",
                                       "decoder_start_token_id",
                                       "diversity_penalty",
                                       "do_sample",
                                       "early_stopping",
                                       "emb_dropout_prob",
                                       "emb_pdrop",
                                       "embd_pdrop",
                                       "embedding_dropout",
                                       "embedding_fraction",
                                       "encoder_no_repeat_ngram_size",
                                       "exponential_decay_length_penalty",
                                       "finetuning_task",
                                       "forced_bos_token_id",
                                       "forced_eos_token_id",
                                       "fp32",
                                       "fp32_residual_connection",
                                       "full_attn_mod",
                                       "gradient_checkpointing",
                                       "hidden_dropout",
                                       "hidden_dropout_prob",
                                       "id2label",
                                       "inference_runner",
                                       "init_config",
                                       "init_device",
                                       "interpolate_factor",
                                       "is_decoder",
                                       "is_encoder_decoder",
                                       "is_llama_config",
                                       "label2id",
                                       "length_penalty",
                                       "masked_softmax_fusion",
                                       "max_batch_size",
                                       "max_length",
                                       "max_sequence_length",
                                       "min_length",
                                       "n_ctx",
                                       "name_or_path",
                                       "no_repeat_ngram_size",
                                       "num_beam_groups",
                                       "num_beams",
                                       "num_return_sequences",
                                       "offset_alibi",
                                       "onnx_safe",
                                       "output_attentions",
                                       "output_hidden_states",
                                       "output_past",
                                       "output_router_logits",
                                       "output_scores",
                                       "pad_key_length",
                                       "pad_token_id",
                                       "pre_allocate_kv_cache",
                                       "prefix",
                                       "pretraining_tp",
                                       "problem_type",
                                       "pruned_heads",
                                       "remove_invalid_values",
                                       "reorder_and_upcast_attn",
                                       "repetition_penalty",
                                       "resid_pdrop",
                                       "residual_dropout",
                                       "return_dict",
                                       "return_dict_in_generate",
                                       "router_aux_loss_coef",
                                       "router_jitter_noise",
                                       "scale_attention_softmax_in_fp32",
                                       "sep_token_id",
                                       "skip_bias_add",
                                       "skip_bias_add_qkv",
                                       "slow_but_exact",
                                       "softmax_in_fp32",
                                       "summary_activation",
                                       "summary_first_dropout",
                                       "summary_proj_to_labels",
                                       "summary_type",
                                       "summary_use_proj",
                                       "suppress_tokens",
                                       "task_specific_params",
                                       "temperature",
                                       "tf_legacy_loss",
                                       "tie_encoder_decoder",
                                       "tokenizer_class",
                                       "tokenizer_name",
                                       "tokenizer_type",
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
                                       "use_flash_attn",
                                       "user_token_id",
                                       "validate_runner_input",
                                       "verbose"};

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

// What has no effect unless it is on. ChatGLM's quantization_bit is 0 in a model of floats.
bool is_off(std::string_view key, const Json& value) {
  if (value.is_null() || (value.is_bool() && !value.boolean())) return true;
  return key == "quantization_bit" && value.is_integer() && value.integer() == 0;
}

}  // namespace

void warn_of_unread(const Json& json, const Config& c) {
  std::vector<std::string> unread;
  for (const auto& [key, value] : json.members()) {
    if (is_off(key, value) && key != "scale_attn_weights") continue;
    const auto rule = std::find_if(std::begin(kSwitches), std::end(kSwitches),
                                   [&](const Switch& s) { return s.key == key; });
    if (rule != std::end(kSwitches)) {
      if (value.boolean() == rule->computed) continue;
      throw Error(Kind::Unsupported,
                  fmt::format("{} is {}, which is not supported", value.where(), value.boolean()));
    }
    if (has(kRead, key) || has(kUsual, key) || has(kBooks, key) ||
        (has_usual_rope(c) && has(kRope, key)) ||
        std::ranges::find(row_of(c.family).reads, key) != row_of(c.family).reads.end()) {
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
