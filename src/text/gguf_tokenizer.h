// The tokenizer in a GGUF file's metadata: byte-level BPE ("gpt2"), SentencePiece's BPE ("llama"),
// Unigram ("t5"), WordPiece ("bert"), and BPE over text ("gemma4", "whitespace").
#pragma once

#include <memory>
#include <optional>

#include "formats/gguf.h"
#include "formats/tokenizer_json.h"
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

// The parts of a byte-level BPE with Qwen2's rule, as tokenizer.json has them; nothing for others.
std::optional<TokenizerJson> gguf_tokenizer_json(const GgufFile& file);

}  // namespace quern
