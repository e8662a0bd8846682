// What a tokenizer does, as its files say it: the parts of a tokenizer.json, into which the readers
// of SentencePiece models, vocab.txt, vocab.json with merges.txt, and GGUF metadata put theirs, too.
// text/pipeline/ runs it.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
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

// A text to be found as it stands, or a regular expression in Oniguruma's (Ruby's) syntax.
struct TextPattern {
  bool is_regex = false;
  std::string text;
};

enum class SplitBehavior { Removed, Isolated, MergedWithPrevious, MergedWithNext, Contiguous };

// When Metaspace puts its mark before a text.
enum class PrependScheme { First, Never, Always };

struct NormalizerStep {
  enum class Kind {
    Nfc,
    Nfd,
    Nfkc,
    Nfkd,
    Lowercase,
    Strip,
    StripAccents,
    Bert,
    Nmt,
    Replace,
    Prepend,
    ByteLevel,
    Charsmap,       // Hugging Face's way to run a precompiled charsmap: by graphemes
    SentencePiece,  // SentencePiece's own: the longest prefix; then white space, see below
  };
  Kind kind;
  TextPattern pattern = {};        // Replace
  std::string content = {};        // Replace, Prepend
  std::string charsmap = {};       // bytes
  bool left = true, right = true;  // Strip
  // Bert.
  bool clean_text = true, chinese = true, accents = true, lowercase = true;
  // SentencePiece: spaces at the ends and all but one of several go; a mark comes in front.
  bool remove_extra_spaces = false, add_prefix = false;
};

struct PreTokenizerStep {
  enum class Kind {
    Bert,
    ByteLevel,
    Delimiter,
    Metaspace,
    Whitespace,
    WhitespaceSplit,
    Split,
    Punctuation,
    Digits,
    Scripts,
    FixedLength,
  };
  Kind kind;
  TextPattern pattern = {};  // Split, Delimiter
  SplitBehavior behavior = SplitBehavior::Isolated;
  bool invert = false;            // Split
  bool add_prefix_space = false;  // ByteLevel
  bool use_regex = true;          // ByteLevel
  bool individual_digits = false;
  std::string mark = {};  // Metaspace
  PrependScheme prepend = PrependScheme::Always;
  bool split = true;   // Metaspace
  int64_t length = 1;  // FixedLength, in characters
};

struct DecoderStep {
  enum class Kind { Bpe, ByteLevel, WordPiece, Metaspace, Ctc, Replace, Fuse, Strip, ByteFallback };
  Kind kind;
  TextPattern pattern = {};     // Replace
  std::string content = {};     // Replace, Strip (one character), Metaspace's mark
  std::string suffix = {};      // Bpe; WordPiece: the prefix; Ctc: the pad token
  std::string delimiter = {};   // Ctc: between words
  bool cleanup = true;          // WordPiece, Ctc
  int64_t start = 0, stop = 0;  // Strip
  PrependScheme prepend = PrependScheme::Always;  // Metaspace
};

struct TokenModel {
  enum class Kind { Bpe, Unigram, WordPiece, WordLevel };
  Kind kind = Kind::Bpe;
  std::vector<std::string> tokens;  // by id
  std::vector<bool> known;          // by id; false for a gap
  std::vector<bool> hidden;         // by id, or empty; true: never made out of text
  // Bpe: left, right, both, earliest first.
  std::vector<std::array<int32_t, 3>> merges;
  // SentencePiece's own BPE: any two neighbours whose joined text is a token may merge, the highest
  // score first; `merges` is empty then.
  bool merge_by_score = false;
  std::vector<double> scores;  // Unigram, or by score
  int64_t unknown = -1;        // id, or -1
  std::string prefix, suffix;  // Bpe, WordPiece (prefix): of all characters but the first, the last
  bool byte_fallback = false, fuse_unknown = false, ignore_merges = false;
  int64_t max_word = 100;  // WordPiece: characters

  void set(int64_t id, std::string token);  // grows the lists
  void hide(int64_t id);
  bool is_made(size_t id) const { return known[id] && (hidden.empty() || !hidden[id]); }
};

struct TokenizerSpec {
  std::string source;  // for messages
  std::vector<AddedToken> added;
  // Found the longest first, over the whole text, as llama.cpp does; else the leftmost first, of
  // these the longest.
  bool longest_added_first = false;
  std::vector<NormalizerStep> normalizers;
  std::vector<PreTokenizerStep> pre_tokenizers;
  std::vector<int32_t> before, after;  // ids around a text, where special tokens are asked for
  std::vector<DecoderStep> decoders;   // none: tokens are parted by spaces
  TokenModel model;
  // Where the decoder is not a chain of steps but a text for each id (GGUF).
  bool shown_is_given = false;
  std::vector<std::string> shown;
  bool leads_with_space = false;  // of shown texts
  int64_t bos = -1, eos = -1;     // ids, or -1
  int64_t max_length = 0;         // model_max_length, 0 where it says none
};

// Throws BadInput naming the field for what is wrong, Unsupported for what is not known, by name.
TokenizerSpec read_tokenizer_spec(const fs::path& tokenizer_json);

// A list of added tokens, as tokenizer.json has it.
class Json;
std::vector<AddedToken> read_added_tokens(const Json& list);

// `json` is the text of a tokenizer.json.
TokenizerSpec parse_tokenizer_spec(std::string_view json, const std::string& source);

// The text of a tokenizer.json, as Hugging Face's tokenizers read it. Throws Unsupported naming what
// it cannot say: merges by score, SentencePiece's own normalizer, two ids of one text.
std::string to_tokenizer_json(const TokenizerSpec& spec);

}  // namespace quern
