#include "formats/generation_config.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/json.h"
#include "formats/gguf_sampling.h"
#include "formats/unread_keys.h"

namespace quern {
namespace {

constexpr int64_t kMaxId = int64_t{1} << 31;

std::vector<int64_t> ids(const Json& value) {
  if (!value.is_array()) return {value.integer(0, kMaxId)};
  std::vector<int64_t> out;
  for (const Json& id : value.items()) out.push_back(id.integer(0, kMaxId));
  return out;
}

// Read below, or without effect on what comes: how transformers runs, and what only beams heed.
constexpr std::string_view kKnown[] = {"_commit_hash",
                                       "_from_model_config",
                                       "assistant_confidence_threshold",
                                       "assistant_early_exit",
                                       "assistant_lookbehind",
                                       "bos_token_id",
                                       "cache_config",
                                       "cache_implementation",
                                       "chat_format",
                                       "compile_config",
                                       "decoder_start_token_id",
                                       "disable_compile",
                                       "diversity_penalty",
                                       "do_sample",
                                       "early_stopping",
                                       "eos_token_id",
                                       "is_assistant",
                                       "length_penalty",
                                       "low_memory",
                                       "max_length",
                                       "max_matching_ngram_size",
                                       "max_new_tokens",
                                       "max_window_size",
                                       "min_p",
                                       "no_repeat_ngram_size",
                                       "num_assistant_tokens",
                                       "num_assistant_tokens_schedule",
                                       "output_attentions",
                                       "output_hidden_states",
                                       "output_logits",
                                       "output_scores",
                                       "pad_token_id",
                                       "prompt_lookup_num_tokens",
                                       "remove_invalid_values",
                                       "renormalize_logits",
                                       "repetition_penalty",
                                       "return_dict_in_generate",
                                       "return_legacy_cache",
                                       "stop_words_ids",
                                       "target_lookbehind",
                                       "temperature",
                                       "top_k",
                                       "top_p",
                                       "transformers_version",
                                       "trust_remote_code",
                                       "typical_p",
                                       "use_cache"};

// What is not computed, and the number that asks for nothing.
struct Unread {
  std::string_view key;
  double neutral;
};
constexpr Unread kUnread[] = {{"encoder_no_repeat_ngram_size", 0},
                              {"encoder_repetition_penalty", 1},
                              {"epsilon_cutoff", 0},
                              {"eta_cutoff", 0},
                              {"frequency_penalty", 0},
                              {"guidance_scale", 1},
                              {"min_length", 0},
                              {"min_new_tokens", 0},
                              {"num_beam_groups", 1},
                              {"num_beams", 1},
                              {"num_return_sequences", 1},
                              {"penalty_alpha", 0},
                              {"presence_penalty", 0}};

void warn_of_unread(const Json& json) {
  std::vector<std::string> unread;
  for (const auto& [key, value] : json.members()) {
    if (is_off(value) || std::ranges::find(kKnown, key) != std::end(kKnown)) continue;
    const auto rule = std::ranges::find(kUnread, key, &Unread::key);
    if (rule != std::end(kUnread) && value.is_number() && value.number() == rule->neutral) continue;
    unread.push_back(printable(key, 60));
  }
  warn_of_unread_keys(json.where(), unread);
}

}  // namespace

GenerationConfig read_generation_config(const fs::path& folder) {
  const bool gguf = is_gguf(folder);
  GenerationConfig out = gguf ? read_gguf_sampling(GgufFile(folder)) : GenerationConfig();
  const fs::path path = (gguf ? folder.parent_path() : folder) / "generation_config.json";
  if (!fs::exists(path)) return out;
  const Json json = Json::parse_file(path.string(), {.max_bytes = size_t{16} << 20});
  const auto number = [&](const char* key, std::optional<double>& field) {
    if (const auto value = json.find(key)) field = value->number();
  };
  const auto integer = [&](const char* key, std::optional<int64_t>& field) {
    if (const auto value = json.find(key)) field = value->integer();
  };
  out.chat_format = json.string_or("chat_format", "");
  if (const auto value = json.find("eos_token_id")) out.eos_ids = ids(*value);
  integer("bos_token_id", out.bos_id);
  integer("pad_token_id", out.pad_id);
  if (const auto value = json.find("stop_words_ids")) {
    for (const Json& sequence : value->items()) out.stop_words_ids.push_back(ids(sequence));
  }
  if (const auto value = json.find("do_sample")) out.do_sample = value->boolean();
  number("temperature", out.temperature);
  number("top_p", out.top_p);
  number("min_p", out.min_p);
  number("typical_p", out.typical_p);
  number("repetition_penalty", out.repetition_penalty);
  integer("top_k", out.top_k);
  integer("no_repeat_ngram_size", out.no_repeat_ngram_size);
  integer("max_new_tokens", out.max_new_tokens);
  integer("max_window_size", out.max_window_size);
  warn_of_unread(json);
  return out;
}

nlohmann::ordered_json to_json(const GenerationConfig& config) {
  nlohmann::ordered_json out = nlohmann::ordered_json::object();
  const auto put = [&](const char* key, const auto& value) {
    if (value) out[key] = *value;
  };
  put("do_sample", config.do_sample);
  put("temperature", config.temperature);
  put("top_k", config.top_k);
  put("top_p", config.top_p);
  put("min_p", config.min_p);
  put("typical_p", config.typical_p);
  put("repetition_penalty", config.repetition_penalty);
  put("no_repeat_ngram_size", config.no_repeat_ngram_size);
  return out;
}

nlohmann::ordered_json new_generation_config(std::optional<int64_t> end_of_text,
                                             std::optional<int64_t> im_end) {
  nlohmann::ordered_json out = {
      {"do_sample", true}, {"top_k", 0}, {"top_p", 0.8}, {"max_new_tokens", 512}};
  if (end_of_text) out["eos_token_id"] = out["pad_token_id"] = *end_of_text;
  if (im_end) {
    out["chat_format"] = "chatml";
    out["max_window_size"] = 6144;
    out["eos_token_id"] = *im_end;
  }
  return out;
}

}  // namespace quern
