#include "cli/commands/checkpoint_files.h"

namespace quern::cli {

void copy_side_files(const fs::path& from, const fs::path& to) {
  constexpr const char* kNames[] = {"generation_config.json",
                                    "quantize_config.json",
                                    "tokenizer_config.json",
                                    "special_tokens_map.json",
                                    "tokenizer.json",
                                    "tokenizer.model",
                                    "vocab.json",
                                    "merges.txt",
                                    "chat_template.jinja",
                                    "LICENSE",
                                    "NOTICE"};
  for (const char* name : kNames) {
    if (fs::is_regular_file(from / name)) write_file(to / name, read_file(from / name));
  }
  for (const auto& entry : fs::directory_iterator(from)) {
    if (entry.path().extension() == ".tiktoken") {
      write_file(to / entry.path().filename(), read_file(entry.path()));
    }
  }
}

}  // namespace quern::cli
