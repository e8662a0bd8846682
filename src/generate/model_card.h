// What can be said of a model without loading it: for lists and pages.
#pragma once

#include <cstdint>
#include <string>

#include "core/file.h"

namespace quern {

struct ModelCard {
  std::string family;         // "llama", "qwen2", ...
  std::string quantization;   // type of most of its matrices: "BF16", "Q4_1", "GPTQ int4"
  std::string chat_template;  // "yes", "no", or "chat_format" for the first Qwen releases' setting
  std::string licence;        // as GGUF or the model card's front matter say; empty: not said
  std::string problem;        // one line, where it can't be read; then the rest is empty
  int64_t parameters = 0;
  int64_t context = 0;  // positions it is declared for
  uint64_t bytes = 0;   // on disk
};

// Of a checkpoint's folder or a GGUF file. Never throws for what is wrong with the files.
ModelCard describe_model(const fs::path& path);

}  // namespace quern
