// tokenizer.json of Hugging Face tokenizers, as far as byte-level BPE needs it; and the older pair
// vocab.json + merges.txt.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/file.h"

namespace quern {

// A token that is found in text before the rest is cut and merged.
struct AddedToken {
  int64_t id;
  std::string content;
  bool special = true;       // hidden where decoding skips special tokens; found only where allowed
  bool single_word = false;  // only where no word character stands beside it
  bool lstrip = false, rstrip = false;  // swallows the white space before or behind it
  bool normalized = false;              // found in the normalized text, its content normalized, too
};

struct TokenizerJson {
  std::vector<std::string> tokens;  // bytes by id; empty where there is none
  std::vector<std::pair<std::string, std::string>> merges;  // bytes, in order
  std::vector<AddedToken> added;
  bool nfc = false;
  std::string pattern;  // of the splitting pre-tokenizer; empty for GPT-2's default
  bool ignore_merges = false;
};

// Byte-level BPE's way to write bytes as printable characters, and back; nothing for a text with
// other characters.
std::optional<std::string> byte_level_to_bytes(std::string_view text);
std::string bytes_to_byte_level(std::string_view bytes);

// Throws BadInput naming the field; components other than byte-level BPE's are refused by name.
TokenizerJson read_tokenizer_json(const fs::path& path);

// vocab.json and merges.txt beside it, with Qwen2's pattern and added tokens of
// tokenizer_config.json where there is one.
TokenizerJson read_vocab_and_merges(const fs::path& vocab, const fs::path& merges);

// A tokenizer.json that Hugging Face tokenizers loads: NFC, a splitting pattern, byte-level BPE.
void write_tokenizer_json(const fs::path& path, const TokenizerJson& tokenizer);

}  // namespace quern
