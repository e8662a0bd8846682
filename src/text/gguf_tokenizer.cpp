#include "text/gguf_tokenizer.h"

#include <fmt/format.h>

#include <bit>

#include "core/error.h"
#include "core/utf8.h"
#include "text/byte_bpe_tokenizer.h"
#include "text/sentencepiece_tokenizer.h"
#include "text/splitter.h"

namespace quern {
namespace {

constexpr const char* kModel = "tokenizer.ggml.model";
constexpr const char* kTokens = "tokenizer.ggml.tokens";
constexpr const char* kTypes = "tokenizer.ggml.token_type";
constexpr const char* kScores = "tokenizer.ggml.scores";
constexpr const char* kTemplate = "tokenizer.chat_template";
constexpr size_t kMaxTokenBytes = 1 << 16;
constexpr size_t kMaxTemplateBytes = 1 << 20;

enum class TokenType {
  Normal = 1,
  Unknown = 2,
  Control = 3,
  UserDefined = 4,
  Unused = 5,
  Byte = 6
};

const std::vector<std::string_view>& checked_tokens(const GgufFile& file) {
  const auto& tokens = file.strings(kTokens);
  if (tokens.empty()) file.fail(fmt::format("the key '{}' is empty", kTokens));
  for (size_t id = 0; id < tokens.size(); ++id) {
    if (tokens[id].size() > kMaxTokenBytes) {
      file.fail(fmt::format("the token {} has {} bytes", id, tokens[id].size()));
    }
    if (!utf8::is_valid(tokens[id])) {
      file.fail(
          fmt::format("the token {} ('{}') is not valid UTF-8", id, printable(tokens[id], 40)));
    }
  }
  return tokens;
}

std::vector<TokenType> checked_types(const GgufFile& file, size_t count) {
  std::vector<TokenType> types(count, TokenType::Normal);
  if (!file.has(kTypes)) return types;
  const auto& numbers = file.numbers(kTypes);
  if (numbers.size() != count) {
    file.fail(
        fmt::format("the key '{}' has {} items for {} tokens", kTypes, numbers.size(), count));
  }
  for (size_t id = 0; id < count; ++id) {
    if (!(numbers[id] >= 1 && numbers[id] <= 6)) {
      file.fail(fmt::format("the token {} has the type {:g}, expected 1 to 6", id, numbers[id]));
    }
    types[id] = static_cast<TokenType>(static_cast<int>(numbers[id]));
  }
  return types;
}

// Tokens' ids that the metadata name are those of tokens.
void check_ids(const GgufFile& file, size_t count) {
  for (const char* key : {"tokenizer.ggml.bos_token_id", "tokenizer.ggml.eos_token_id",
                          "tokenizer.ggml.padding_token_id", "tokenizer.ggml.unknown_token_id"}) {
    file.integer_or(key, 0, 0, static_cast<int64_t>(count) - 1);
  }
}

TokenizerJson byte_bpe(const GgufFile& file) {
  const auto& tokens = checked_tokens(file);
  const auto types = checked_types(file, tokens.size());
  if (file.has("tokenizer.ggml.pre")) {
    const std::string_view rule = file.string("tokenizer.ggml.pre");
    if (rule != "qwen2") {
      throw Error(Kind::Unsupported,
                  fmt::format("{}: splits text by the rule '{}', which is not known",
                              file.path().string(), printable(rule, 40)),
                  "Quern knows the rule of Qwen's releases, qwen2");
    }
  }
  TokenizerJson json;
  json.nfc = true;
  json.pattern = kQwenPattern;
  json.tokens.resize(tokens.size());
  const auto decoded = [&](std::string_view text, size_t id, const char* what) {
    auto bytes = byte_level_to_bytes(text);
    if (!bytes || bytes->empty()) {
      file.fail(fmt::format("the {} {} ('{}') is not in the byte-level alphabet", what, id,
                            printable(text, 40)));
    }
    return *bytes;
  };
  for (size_t id = 0; id < tokens.size(); ++id) {
    switch (types[id]) {
      case TokenType::Control:
      case TokenType::UserDefined:
      case TokenType::Unknown:
        if (tokens[id].empty()) file.fail(fmt::format("the special token {} is empty", id));
        json.added.push_back({static_cast<int64_t>(id), std::string(tokens[id])});
        break;
      case TokenType::Unused:
        break;
      case TokenType::Normal:
      case TokenType::Byte:
        json.tokens[id] = decoded(tokens[id], id, "token");
        break;
    }
  }
  const auto& merges = file.strings("tokenizer.ggml.merges");
  for (size_t i = 0; i < merges.size(); ++i) {
    // Spaces within tokens are written otherwise: the one that is here parts the two.
    const size_t space = merges[i].find(' ');
    if (space == std::string_view::npos) {
      file.fail(fmt::format("the merge {} ('{}') has no space", i, printable(merges[i], 40)));
    }
    json.merges.emplace_back(decoded(merges[i].substr(0, space), i, "merge"),
                             decoded(merges[i].substr(space + 1), i, "merge"));
  }
  return json;
}

// A SentencePiece model, in the encoding of protocol buffers: fields by number.
class ProtoMessage {
 public:
  void varint(int field, uint64_t value) {
    number(static_cast<uint64_t>(field) << 3);
    number(value);
  }
  void bytes(int field, std::string_view value) {
    number(static_cast<uint64_t>(field) << 3 | 2);
    number(value.size());
    out_ += value;
  }
  void real(int field, float value) {
    number(static_cast<uint64_t>(field) << 3 | 5);
    const auto bits = std::bit_cast<uint32_t>(value);
    for (int i = 0; i < 4; ++i) out_ += static_cast<char>(bits >> (8 * i) & 0xFF);
  }
  const std::string& text() const { return out_; }

 private:
  void number(uint64_t value) {
    for (; value >= 128; value >>= 7) out_ += static_cast<char>(value | 128);
    out_ += static_cast<char>(value);
  }
  std::string out_;
};

std::shared_ptr<const Tokenizer> sentencepiece(const GgufFile& file) {
  const auto& tokens = checked_tokens(file);
  const auto types = checked_types(file, tokens.size());
  const auto& scores = file.numbers(kScores);
  if (scores.size() != tokens.size()) {
    file.fail(fmt::format("the key '{}' has {} items for {} tokens", kScores, scores.size(),
                          tokens.size()));
  }
  const auto last = static_cast<int64_t>(tokens.size()) - 1;
  const auto id = [&](const char* key, int64_t fallback) {
    return static_cast<uint64_t>(file.integer_or(key, std::min(fallback, last), 0, last));
  };
  ProtoMessage model;
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (types[i] == TokenType::Byte) {
      constexpr std::string_view kDigits = "0123456789ABCDEF";
      const std::string_view t = tokens[i];
      const bool good = t.size() == 6 && t.starts_with("<0x") && t[5] == '>' &&
                        kDigits.find(t[3]) != kDigits.npos && kDigits.find(t[4]) != kDigits.npos;
      if (!good) {
        file.fail(
            fmt::format("the token {} is '{}', expected a byte as <0x0A>", i, printable(t, 40)));
      }
    }
    ProtoMessage piece;
    piece.bytes(1, tokens[i]);
    piece.real(2, static_cast<float>(scores[i]));
    piece.varint(3, static_cast<uint64_t>(types[i]));
    model.bytes(1, piece.text());
  }
  const uint64_t bos = id("tokenizer.ggml.bos_token_id", 1);
  const uint64_t eos = id("tokenizer.ggml.eos_token_id", 2);
  const uint64_t unknown = id("tokenizer.ggml.unknown_token_id", 0);
  if (types[unknown] != TokenType::Unknown) {
    file.fail(fmt::format("the token {} is not of the type of unknown tokens, 2", unknown));
  }
  ProtoMessage trainer;
  trainer.varint(3, 2);   // model_type: BPE
  trainer.varint(35, 1);  // byte_fallback
  trainer.varint(40, unknown);
  trainer.varint(41, bos);
  trainer.varint(42, eos);
  trainer.bytes(45, tokens[unknown]);  // what the pieces of these ids are called
  trainer.bytes(46, tokens[bos]);
  trainer.bytes(47, tokens[eos]);
  model.bytes(2, trainer.text());
  ProtoMessage normalizer;
  normalizer.bytes(1, "identity");
  normalizer.varint(3, file.boolean_or("tokenizer.ggml.add_space_prefix", true) ? 1 : 0);
  normalizer.varint(4, 0);  // spaces are kept as they are
  normalizer.varint(5, 1);
  model.bytes(3, normalizer.text());
  return std::make_shared<SentencePieceTokenizer>(
      model.text(), file.path().string(), file.boolean_or("tokenizer.ggml.add_bos_token", true));
}

}  // namespace

bool has_gguf_tokenizer(const GgufFile& file) { return file.has(kModel); }

std::shared_ptr<const Tokenizer> load_gguf_tokenizer(const GgufFile& file) {
  if (!has_gguf_tokenizer(file)) {
    throw_bad_input(file.path().string() + ": has no tokenizer");
  }
  const std::string_view model = file.string(kModel);
  check_ids(file, file.strings(kTokens).size());
  if (model == "gpt2") {
    return ByteBpeTokenizer::from_json(byte_bpe(file), file.path().string());
  }
  if (model == "llama") return sentencepiece(file);
  throw Error(Kind::Unsupported,
              fmt::format("{}: the tokenizer model '{}' is not known", file.path().string(),
                          printable(model, 40)),
              "known are gpt2 (byte-level BPE) and llama (SentencePiece)");
}

std::optional<TokenizerJson> gguf_tokenizer_json(const GgufFile& file) {
  if (file.string(kModel) != "gpt2") return std::nullopt;
  return byte_bpe(file);
}

GgufChat gguf_chat(const GgufFile& file) {
  if (!file.has(kTemplate)) return GgufChat::None;
  const std::string_view text = file.string(kTemplate);
  if (text.size() > kMaxTemplateBytes) {
    file.fail(fmt::format("the key '{}' has {} bytes, at most {} are allowed", kTemplate,
                          text.size(), kMaxTemplateBytes));
  }
  const bool chatml =
      text.find("<|im_start|>") != text.npos && text.find("<|im_end|>") != text.npos;
  return chatml ? GgufChat::ChatMl : GgufChat::Other;
}

}  // namespace quern
