// What belongs to a checkpoint beside config.json and the weights.
#pragma once

#include "core/file.h"

namespace quern::cli {

// Tokenizer, generation settings, chat template and license, where there are such files.
void copy_side_files(const fs::path& from, const fs::path& to);

// The tokenizer and chat template of a GGUF file as files of a folder. One of SentencePiece's is
// left out, with a warning.
void write_gguf_tokenizer(const fs::path& from, const fs::path& to);

}  // namespace quern::cli
