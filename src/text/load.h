// Finding a model's tokenizer.
#pragma once

#include <memory>

#include "core/file.h"
#include "formats/tokenizer_spec.h"
#include "text/tokenizer.h"

namespace quern {

struct TokenizerOptions {
  bool first_release = false;  // the special tokens of Qwen-7B-Chat of August 2023
  fs::path extra_vocab;        // .tiktoken file of vocabulary expansion; empty for none
};

// From a file (a GGUF file, too), or from a model's folder, where it is looked for as
// tokenizer.json, *.tiktoken, vocab.json with merges.txt, tokenizer.model, spiece.model, and
// vocab.txt, in this order: the first there is wins. tokenizer_config.json, special_tokens_map.json
// and added_tokens.json beside it count. Throws BadInput naming the folder and what was looked for,
// Misused for an option that does not fit the tokenizer.
std::shared_ptr<const Tokenizer> load_tokenizer(const fs::path& file_or_folder,
                                                const TokenizerOptions& options = {});

// What the same files say, a .tiktoken vocabulary with its special tokens and its merges included
// (merges_of_ranks).
TokenizerSpec load_tokenizer_spec(const fs::path& file_or_folder);

// Copies the files of a model's tokenizer into another folder, its settings and its chat template
// included.
void copy_tokenizer(const fs::path& file_or_folder, const fs::path& to);

// Whether a folder holds any of these, or a GGUF file a tokenizer.
bool has_tokenizer(const fs::path& file_or_folder);

}  // namespace quern
