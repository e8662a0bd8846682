// The tokenizer in a GGUF file's metadata: byte-level BPE ("gpt2"), SentencePiece's BPE ("llama"),
// Unigram ("t5"), WordPiece ("bert"), and BPE over text ("gemma4", "whitespace").
#pragma once

#include <memory>
#include <optional>
#include <string_view>

#include "formats/gguf.h"
#include "formats/tokenizer_spec.h"
#include "text/tokenizer.h"

namespace quern {

// False for a file that names none, too.
bool has_gguf_tokenizer(const GgufFile& file);

// Special tokens by id, as token_type says. Throws BadInput naming key and token for lists of
// different lengths and ids out of range; Unsupported for another model or splitting rule, by name,
// and where the file names none.
std::shared_ptr<const Tokenizer> load_gguf_tokenizer(const GgufFile& file);
TokenizerSpec gguf_tokenizer_spec(const GgufFile& file);

// Whether a token is one of control (true) or of text (false) by its name alone, whatever the file
// calls it, as llama.cpp has it.
std::optional<bool> gguf_control_by_name(std::string_view content);

// The same as tokenizer.json can say it (to_tokenizer_json): merges by score as a list, with a
// decoder. Throws Unsupported for Unigram and WordPiece, too.
TokenizerSpec tokenizer_json_of_gguf(const GgufFile& file);

}  // namespace quern
