// The tokenizer in a GGUF file's metadata: byte-level BPE ("gpt2") with Qwen's pattern, or
// SentencePiece's BPE ("llama").
#pragma once

#include <memory>
#include <optional>

#include "formats/gguf.h"
#include "formats/tokenizer_json.h"
#include "text/tokenizer.h"

namespace quern {

bool has_gguf_tokenizer(const GgufFile& file);

// Special tokens by id, as token_type says. Throws BadInput naming key and token for lists of
// different lengths, ids out of range, bytes outside of the alphabet; Unsupported for another model
// or splitting rule, by name.
std::shared_ptr<const Tokenizer> load_gguf_tokenizer(const GgufFile& file);

// The parts of a byte-level BPE, as tokenizer.json has them; nothing for SentencePiece.
std::optional<TokenizerJson> gguf_tokenizer_json(const GgufFile& file);

// What a file says about chats: nothing, ChatML, or a template of another kind, which is not run.
enum class GgufChat { None, ChatMl, Other };
GgufChat gguf_chat(const GgufFile& file);

}  // namespace quern
