// What stands beside a tokenizer's own file: tokenizer_config.json, special_tokens_map.json,
// added_tokens.json.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "core/file.h"
#include "formats/tokenizer_spec.h"

namespace quern {

struct TokenizerConfig {
  std::string family;  // tokenizer_class without "Tokenizer" and "Fast"; empty where it is not said
  std::optional<bool> add_bos, add_eos, legacy, add_prefix_space;
  std::string bos, eos, unknown, cls, sep;  // contents; empty where they are not said
  std::vector<AddedToken> named;            // by name, as bos_token and the like; their ids are -1
  std::vector<AddedToken> added;            // with ids
  std::optional<int64_t> extra_ids;         // T5
  bool lowercase = true, chinese = true;    // BERT
  std::optional<bool> strip_accents;
  int64_t max_length = 0;
};

// Of a folder; all of the files may be absent. Throws BadInput naming file and field, Unsupported
// for what would change the ids and is not done.
TokenizerConfig read_tokenizer_config(const fs::path& folder);

// Adds to `spec` what the files beside a tokenizer.json say: tokens, flags of tokens, BOS and EOS.
void apply_tokenizer_config(const TokenizerConfig& config, TokenizerSpec& spec);

// The id of a token, added or in the vocabulary; -1 where there is none.
int64_t id_of(const TokenizerSpec& spec, std::string_view content);

}  // namespace quern
