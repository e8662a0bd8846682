// What belongs to a checkpoint beside config.json and the weights.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>

#include "core/dtype.h"
#include "core/file.h"

namespace quern::cli {

// The type that --dtype names: fp32, fp16 or bf16; nothing for an empty name. Throws Misused.
std::optional<DType> checkpoint_dtype(const std::string& name);

// A folder's config.json as it is to be written beside weights of `dtype` (of the type they have,
// without). `decoded`: they were FP8 and are bfloat16 now.
nlohmann::ordered_json config_with_dtype(const fs::path& folder, std::optional<DType> dtype,
                                         bool decoded);

// Tokenizer, generation settings, chat template and license, where there are such files.
void copy_side_files(const fs::path& from, const fs::path& to);

// The tokenizer and chat template of a GGUF file as files of a folder. One that
// tokenizer.json cannot say is left out, with a warning.
void write_gguf_tokenizer(const fs::path& from, const fs::path& to);

// What a folder has beside the weights, which are of `dtype` (F16, without), out of a GGUF file's
// metadata: config.json, generation settings, tokenizer and chat template.
void write_gguf_files(const fs::path& from, const fs::path& to, std::optional<DType> dtype);

}  // namespace quern::cli
