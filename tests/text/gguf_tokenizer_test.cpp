// Tokenizers out of GGUF metadata.
#include "text/gguf_tokenizer.h"

#include "formats/byte_level.h"
#include "support/gguf_bytes.h"
#include "support/support.h"

namespace quern {
namespace {

using namespace test;  // NOLINT

const fs::path kLlama = source("tests/fixtures/gguf/llama.gguf");

std::string bpe(std::vector<std::string> tokens, std::vector<int32_t> types,
                std::vector<std::string> merges, std::vector<std::string> more = {}) {
  GgufBytes bytes;
  bytes.keys = {kv_string("tokenizer.ggml.model", "gpt2"), kv_string("tokenizer.ggml.pre", "qwen2"),
                kv_strings("tokenizer.ggml.tokens", tokens),
                kv_i32s("tokenizer.ggml.token_type", types),
                kv_strings("tokenizer.ggml.merges", merges)};
  bytes.keys.insert(bytes.keys.end(), more.begin(), more.end());
  bytes.tensors.clear();
  bytes.data_bytes = 0;
  return bytes.file();
}

struct BadTokenizer {
  const char* name;
  std::string file;
  const char* expected;
  Kind kind = Kind::BadInput;
};

TEST(GgufTokenizer, ByteBpeWithSpecialTokensById) {
  std::vector<std::string> tokens;
  for (int byte = 0; byte < 256; ++byte) {
    tokens.push_back(bytes_to_byte_level(std::string(1, static_cast<char>(byte))));
  }
  std::vector<int32_t> types(256, 1);
  for (const auto& [token, type] : {std::pair{"ab", 1}, {"<|im_start|>", 3}, {"[PAD258]", 5}}) {
    tokens.emplace_back(token);
    types.push_back(type);
  }
  const TempFolder folder;
  const auto tokenizer =
      load_gguf_tokenizer(GgufFile(folder.write("m.gguf", bpe(tokens, types, {"a b"}))));
  EXPECT_EQ(tokenizer->encode("ab a"), (std::vector<TokenId>{256, ' ', 'a'}));
  EXPECT_EQ(tokenizer->special("<|im_start|>"), 257);
  // A special token's name is one only where that is asked for.
  EXPECT_EQ(tokenizer->encode("a<|im_start|>", SpecialPolicy::all()),
            (std::vector<TokenId>{'a', 257}));
  EXPECT_EQ(tokenizer->encode("<|im_start|>").size(), 12u);
  EXPECT_EQ(tokenizer->decode(std::vector<TokenId>{256, ' ', 'b'}), "ab b");
}

// The pieces' scores say that a space and "a" are merged before anything else.
TEST(GgufTokenizer, SentencePiece) {
  const auto tokenizer = load_gguf_tokenizer(GgufFile(kLlama));
  EXPECT_EQ(tokenizer->encode("a a"), (std::vector<TokenId>{261, 261}));
  EXPECT_EQ(tokenizer->encode("aa"), (std::vector<TokenId>{261, 260}));
  EXPECT_EQ(tokenizer->encode("b"), (std::vector<TokenId>{259, 3 + 'b'}));
  EXPECT_EQ(tokenizer->bos(), 1);
  EXPECT_EQ(tokenizer->eos(), 2);
  EXPECT_EQ(tokenizer->encode("<s>"), (std::vector<TokenId>{259, 3 + '<', 3 + 's', 3 + '>'}));
}

TEST(GgufTokenizer, WhatIsWrongIsNamed) {
  const std::vector<std::string> tokens = {"a", "b", "ab"};
  const std::vector<int32_t> types = {1, 1, 1};
  GgufBytes none;
  none.tensors.clear();
  none.data_bytes = 0;
  GgufBytes word = none;
  word.keys = {kv_string("tokenizer.ggml.model", "rwkv"),
               kv_strings("tokenizer.ggml.tokens", tokens)};
  const auto spm = [&](std::string token, std::vector<float> scores) {
    GgufBytes bytes = none;
    bytes.keys = {kv_string("tokenizer.ggml.model", "llama"),
                  kv_strings("tokenizer.ggml.tokens", {"<unk>", "<s>", "</s>", token}),
                  kv_i32s("tokenizer.ggml.token_type", {2, 3, 3, 6}),
                  kv_f32s("tokenizer.ggml.scores", scores)};
    return bytes.file();
  };
  const BadTokenizer bad[] = {
      {"none", none.file(), "has no tokenizer", Kind::Unsupported},
      {"model", word.file(), "'rwkv' is not known", Kind::Unsupported},
      {"types_of_another_length", bpe(tokens, {1, 1}, {}), "has 2 items for 3 tokens"},
      {"type_9", bpe(tokens, {1, 1, 9}, {}), "the type 9"},
      {"bos_out_of_range", bpe(tokens, types, {}, {kv_u32("tokenizer.ggml.bos_token_id", 3)}),
       "bos_token_id' is 3"},
      {"eos_out_of_range", bpe(tokens, types, {}, {kv_u32("tokenizer.ggml.eos_token_id", ~0u)}),
       "eos_token_id' is 4294967295"},
      {"merge_of_unknown", bpe(tokens, types, {"a c"}), "of which one"},
      {"merge_without_space", bpe(tokens, types, {"ab"}), "has no space"},
      {"token_utf8", bpe({"a", "\xFF"}, {1, 1}, {}), "not valid UTF-8"},
      {"token_too_long", bpe({"a", std::string(70'000, 'x')}, {1, 1}, {}), "has 70000 bytes"},
      {"byte_minus_1", spm("<0x-1>", {0, 0, 0, 0}), "expected a byte as <0x0A>"},
      {"byte_G0", spm("<0xG0>", {0, 0, 0, 0}), "expected a byte as <0x0A>"},
      {"scores_of_another_length", spm("<0x41>", {0, 0}), "has 2 items for 4 tokens"},
  };
  const TempFolder folder;
  for (const BadTokenizer& row : bad) {
    SCOPED_TRACE(row.name);
    const fs::path path = folder.write("bad.gguf", row.file);
    expect_error([&] { load_gguf_tokenizer(GgufFile(path)); }, row.kind,
                 {"bad.gguf", row.expected});
  }
}

}  // namespace
}  // namespace quern
