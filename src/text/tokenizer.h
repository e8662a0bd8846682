// Text to token ids and back: one interface for Qwen's .tiktoken vocabularies (byte_bpe_tokenizer.h)
// and all that tokenizer.json, SentencePiece models and GGUF files hold (pipeline_tokenizer.h). A
// tokenizer is immutable: any number of threads may use it.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "text/bpe.h"

namespace quern {

// What happens to special tokens' names that stand in a text. By default they are plain text: text
// from outside can never become a control token. Added tokens that are not special (<think>,
// <tool_call>) are found in every text.
struct SpecialPolicy {
  enum class Set { None, All, Listed };
  Set allowed = Set::None;  // names that become their ids
  std::vector<std::string> allowed_names;
  Set refused = Set::None;  // names whose presence is an error, unless allowed
  std::vector<std::string> refused_names;

  static SpecialPolicy all() {
    return {.allowed = Set::All, .allowed_names = {}, .refused_names = {}};
  }
};

struct SpecialToken {
  std::string name;
  TokenId id;
  bool special = true;  // false: found in every text, and always shown
};

// What to do with bytes that are no UTF-8 when tokens become text.
enum class BadBytes { Replace, Ignore };

// What to do with bytes that are no UTF-8 when text becomes tokens.
enum class BadText {
  Replace,  // U+FFFD for each maximal ill-formed part
  Refuse,   // BadInput, naming the offset of the first
  Keep,     // a token for each such byte, and no normalization: decode_bytes gives the bytes back
};

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  // Appends the ids of `text`, in which no special token is recognized, without any around it. Bytes
  // that are not UTF-8 are read as U+FFFD, one for each maximal ill-formed part.
  virtual void encode(std::string_view text, std::vector<TokenId>& out) const = 0;

  // The same with a choice of what becomes of bytes that are not UTF-8. Throws Unsupported for Keep
  // where the vocabulary has no token for each byte.
  std::vector<TokenId> encode_bytes(std::string_view bytes, BadText bad) const;

  // With special tokens by policy. Throws BadInput naming a refused token that the text holds.
  std::vector<TokenId> encode(std::string_view text, const SpecialPolicy& policy = {}) const;

  // What the tokenizer's files put around a text that the model reads from its begin: BOS, EOS,
  // [CLS], [SEP]. Prompts, documents, and windows of perplexity all have them.
  const std::vector<TokenId>& before_text() const noexcept { return before_; }
  const std::vector<TokenId>& after_text() const noexcept { return after_; }
  std::vector<TokenId> encode_whole(std::string_view text, const SpecialPolicy& policy = {}) const;

  // The bytes that a token stands for. Throws BadInput for an id that has no token.
  std::string_view token_bytes(TokenId id) const;

  std::string decode_bytes(std::span<const TokenId> ids) const;
  // The text that the ids are: what the tokenizer's files say about the begin of a text (a space
  // that is not shown) counts for the first of them.
  virtual std::string decode(std::span<const TokenId> ids, BadBytes bad = BadBytes::Replace,
                             bool skip_special = false) const;
  // Whether the text of ids is that of each put together, the first one's space aside.
  virtual bool concatenates() const noexcept { return true; }
  // Whether a large text may be cut after line breaks and its parts be encoded one by one.
  virtual bool cuts_at_lines() const noexcept { return false; }

  int64_t size() const noexcept { return size_; }  // ids are [0, size)
  const std::vector<SpecialToken>& specials() const noexcept { return specials_; }  // and others
  std::optional<TokenId> special(std::string_view name) const;
  // Hidden where special tokens are skipped. Qwen's release counts every id from the first special
  // one up.
  bool is_special(TokenId id) const noexcept;

  std::optional<TokenId> bos() const noexcept { return bos_; }  // as named, put before texts or not
  std::optional<TokenId> eos() const noexcept { return eos_; }
  int64_t max_length() const noexcept { return max_length_; }  // model_max_length; 0: not said
  // Text begins with a space that belongs to the first word and is not shown (SentencePiece).
  bool leads_with_space() const noexcept { return leads_with_space_; }

  // SHA-256 over all tokens' bytes and special names: tells vocabularies apart.
  std::string hash() const;

 protected:
  Tokenizer() = default;
  // Appends the ids with special tokens by policy.
  virtual void encode_allowing(std::string_view text, const SpecialPolicy& policy,
                               std::vector<TokenId>& out) const;
  // Text between special tokens, already normalized as a whole where that comes first.
  virtual void encode_stretch(std::string_view text, std::vector<TokenId>& out) const = 0;
  virtual void encode_raw(std::string_view bytes, std::vector<TokenId>& out) const;
  virtual std::string_view normalize(std::string_view text, std::string& storage) const = 0;
  // Bytes of a token that does not stand for a special name; data() is null where there is none.
  virtual std::string_view plain_bytes(TokenId id) const noexcept = 0;
  // `plain`: one more than the highest id that plain_bytes knows. `named`: the special tokens stand
  // for their names, whatever plain_bytes says.
  void set_specials(std::vector<SpecialToken> specials, TokenId special_from, size_t plain,
                    bool named = true);

  static bool lists(SpecialPolicy::Set set, const std::vector<std::string>& names,
                    std::string_view name);
  [[noreturn]] static void refuse_special(std::string_view name);

  std::optional<TokenId> bos_, eos_;
  std::vector<TokenId> before_, after_;
  int64_t max_length_ = 0;
  bool leads_with_space_ = false;

 private:
  // The bytes of any token; data() is null where there is none.
  std::string_view bytes_or_none(TokenId id) const noexcept;

  int64_t size_ = 0;
  std::vector<SpecialToken> specials_;
  std::unordered_set<TokenId> hidden_;
  std::unordered_map<TokenId, std::string_view> named_;
  TokenId lowest_named_ = 0, highest_named_ = -1;  // other ids need no look into named_
  std::unordered_map<std::string_view, TokenId> by_name_;
  std::vector<size_t> name_lengths_;  // longest first
  std::string first_bytes_;           // of the names
  TokenId special_from_ = 0;

  // All tokens' bytes in one string, made when something is decoded for the first time.
  struct DecodeTable {
    struct Entry {
      uint32_t begin, size;
    };
    std::vector<Entry> entries;  // by id; a size of kNoToken where there is none
    std::string text;
  };
  static constexpr uint32_t kNoToken = ~uint32_t{0};
  const DecodeTable& decode_table() const;
  mutable std::once_flag decode_once_;
  mutable DecodeTable decode_table_;
};

// Ids in, text out, one at a time: never half a character. What cannot become a character becomes
// U+FFFD.
class StreamDecoder {
 public:
  // `at_start`: the ids begin a text, so the space that SentencePiece puts there is dropped.
  explicit StreamDecoder(const Tokenizer& tokenizer, bool skip_special = false,
                         bool at_start = false)
      : tokenizer_(&tokenizer), skip_special_(skip_special), drop_space_(at_start) {}

  std::string put(TokenId id);
  std::string flush();  // what is left at the end

 private:
  const Tokenizer* tokenizer_;
  bool skip_special_;
  bool drop_space_;
  std::string pending_;
  // Where the text of several tokens is not that of each put together.
  std::vector<TokenId> ids_;
  std::string shown_;
};

}  // namespace quern
