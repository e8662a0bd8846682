// What belongs to a checkpoint beside config.json and the weights.
#pragma once

#include "core/file.h"

namespace quern::cli {

// Tokenizer, generation settings, chat template and license, where there are such files.
void copy_side_files(const fs::path& from, const fs::path& to);

}  // namespace quern::cli
