// generation_config.json: how a checkpoint's authors mean it to be sampled. What is absent is
// empty.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "core/file.h"

namespace quern {

struct GenerationConfig {
  std::string chat_format;  // Qwen's first generation: "raw" or "chatml"
  std::vector<int64_t> eos_ids;
  std::optional<int64_t> bos_id, pad_id;
  std::vector<std::vector<int64_t>> stop_words_ids;
  std::optional<bool> do_sample;
  std::optional<double> temperature, top_p, min_p, typical_p, repetition_penalty;
  std::optional<int64_t> top_k, no_repeat_ngram_size, max_new_tokens, max_window_size;
};

// What a new checkpoint says: sampled as Qwen's releases are; a chat model where the vocabulary has
// an <|im_end|>, whose id ends an answer then.
nlohmann::ordered_json new_generation_config(std::optional<int64_t> end_of_text,
                                             std::optional<int64_t> im_end);

// An empty one where the folder has no such file. For a GGUF file what its metadata say
// (gguf_sampling.h), then, going before it, such a file beside it. Throws BadInput naming the field.
// Warns of keys that ask for what is not done here.
GenerationConfig read_generation_config(const fs::path& folder_or_gguf);

// How it is to be sampled, as the file says it; without ids. Empty where nothing is said.
nlohmann::ordered_json to_json(const GenerationConfig& config);

}  // namespace quern
