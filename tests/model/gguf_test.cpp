// A model out of a GGUF file is the model of the checkpoint.
#include <cmath>

#include "model/gguf_names.h"
#include "model/weights.h"
#include "support/gguf_bytes.h"
#include "support/support.h"

namespace quern {
namespace {

using namespace test;  // NOLINT

const fs::path kLlamaFile = source("tests/fixtures/gguf/llama.gguf");

// The file is the package's, q and k permuted as llama.cpp's converter does it.
TEST(Gguf, LlamaTensorsAreThoseOfTheCheckpoint) {
  const Config config = load_config(kLlamaFile);
  EXPECT_EQ(config.family, Family::Llama);
  EXPECT_EQ(config.layers, 2);
  EXPECT_EQ(config.heads, 4);
  EXPECT_EQ(config.kv_heads, 2);
  EXPECT_EQ(config.head_dim, 8);
  EXPECT_EQ(config.ffn, 64);
  EXPECT_EQ(config.vocab, 262);
  EXPECT_FALSE(config.tied);
  EXPECT_FLOAT_EQ(config.norm_eps, 1e-5f);
  EXPECT_EQ(config.eos_ids, std::vector<int64_t>{2});
  const TensorStore got = gguf_tensors(kLlamaFile, config);
  const TensorStore want = TensorStore::open(source("tests/fixtures/gguf/llama.safetensors"));
  ASSERT_EQ(got.names(), want.names());
  for (const std::string& name : want.names()) {
    check_close(to_floats(got.at(name), name), to_floats(want.at(name), name), {}, name);
  }
  EXPECT_EQ(LoadedWeights::load(kLlamaFile, config).weights().layers.size(), 2u);
}

std::vector<std::string> llama_keys() {
  return {kv_string("general.architecture", "llama"),
          kv_u32("llama.block_count", 1),
          kv_u32("llama.embedding_length", 8),
          kv_u32("llama.attention.head_count", 2),
          kv_u32("llama.attention.head_count_kv", 1),
          kv_u32("llama.feed_forward_length", 16),
          kv_f32("llama.attention.layer_norm_rms_epsilon", 1e-5f),
          kv_u32("llama.context_length", 64)};
}

struct BadMetadata {
  const char* name;
  size_t place;     // of the key that is changed
  std::string key;  // empty: the key is missing
  const char* expected;
  Kind kind = Kind::BadInput;
};

const BadMetadata kBadMetadata[] = {
    {"architecture_missing", 0, "", "lacks the key 'general.architecture'"},
    {"architecture_unknown", 0, kv_string("general.architecture", "mamba"), "'mamba' is not known",
     Kind::Unsupported},
    {"architecture_number", 0, kv_u32("general.architecture", 1), "is no string"},
    {"block_count_missing", 1, "", "lacks the key 'llama.block_count'"},
    {"block_count_0", 1, kv_u32("llama.block_count", 0), "'llama.block_count' is 0"},
    {"block_count_2_32", 1, kv_u32("llama.block_count", ~0u), "'llama.block_count' is 4294967295"},
    {"block_count_text", 1, kv_string("llama.block_count", "1"), "is no integer"},
    {"embedding_length_text", 2, kv_string("llama.embedding_length", "8"), "is no integer"},
    {"head_count_0", 3, kv_u32("llama.attention.head_count", 0), "head_count' is 0"},
    {"head_count_float", 3, kv_f32("llama.attention.head_count", 2), "is no integer"},
    {"heads_do_not_divide", 3, kv_u32("llama.attention.head_count", 3), "3 heads do not divide"},
    {"kv_does_not_divide", 4, kv_u32("llama.attention.head_count_kv", 3),
     "3 key/value heads do not divide"},
    {"ffn_missing", 5, "", "lacks the key 'llama.feed_forward_length'"},
    {"eps_0", 6, kv_f32("llama.attention.layer_norm_rms_epsilon", 0), "epsilon' is 0"},
    {"eps_nan", 6, kv_f32("llama.attention.layer_norm_rms_epsilon", NAN), "epsilon' is nan"},
    {"eps_integer", 6, kv_u32("llama.attention.layer_norm_rms_epsilon", 1),
     "is no floating-point number"},
    {"context_missing", 7, "", "lacks the key 'llama.context_length'"},
    {"rope_dim_odd", 8, kv_u32("llama.rope.dimension_count", 3), "expected an even number"},
    {"bos_out_of_range", 8, kv_u32("tokenizer.ggml.bos_token_id", 500), "bos_token_id' is 500"},
    {"eos_out_of_range", 8, kv_u32("tokenizer.ggml.eos_token_id", 10), "eos_token_id' is 10"},
    {"not_causal", 8, kv_bool("llama.attention.causal", 0), "sets 'llama.attention.causal'",
     Kind::Unsupported},
    {"old_linear_scaling", 8, kv_f32("llama.rope.scale_linear", 4),
     "sets 'llama.rope.scale_linear'", Kind::Unsupported},
    {"rope_scaling_unknown", 8, kv_string("llama.rope.scaling.type", "spiral"), "'spiral'"},
};

TEST(Gguf, BadMetadataIsNamed) {
  const TempFolder folder;
  for (const BadMetadata& bad : kBadMetadata) {
    SCOPED_TRACE(bad.name);
    GgufBytes bytes;
    bytes.keys = llama_keys();
    if (bad.place == bytes.keys.size()) {
      bytes.keys.push_back(bad.key);
    } else if (bad.key.empty()) {
      bytes.keys.erase(bytes.keys.begin() + static_cast<std::ptrdiff_t>(bad.place));
    } else {
      bytes.keys[bad.place] = bad.key;
    }
    bytes.tensors = {tensor("token_embd.weight", {8, 10}, 0, 0)};
    bytes.data_bytes = 320;
    const fs::path path = folder.write("bad.gguf", bytes.file());
    expect_error([&] { load_config(path); }, bad.kind, {"bad.gguf", bad.expected});
  }
}

TEST(Gguf, KeysThatAreNotKnownAreWarnedOf) {
  const TempFolder folder;
  GgufBytes bytes;
  bytes.keys = llama_keys();
  for (const std::string& key :
       {kv_f32("llama.attention.clamp_kqv", 8), kv_u32("llama.attention.sliding_window", 0),
        kv_u32("llama.expert_count", 0), kv_u32("llama.vocab_size", 10)}) {
    bytes.keys.push_back(key);
  }
  bytes.tensors = {tensor("token_embd.weight", {8, 10}, 0, 0)};
  bytes.data_bytes = 320;
  testing::internal::CaptureStderr();
  load_config(folder.write("m.gguf", bytes.file()));
  const std::string said = testing::internal::GetCapturedStderr();
  EXPECT_NE(said.find("without effect: llama.attention.clamp_kqv\n"), std::string::npos) << said;
}

// Keys that only some architectures have.
TEST(Gguf, BadMetadataOfOtherArchitecturesIsNamed) {
  const TempFolder folder;
  struct Bad {
    const char* arch;
    std::vector<std::string> more;
    const char* expected;
    Kind kind = Kind::BadInput;
  };
  const Bad kBad[] = {
      {"bloom", {}, "lacks the key 'bloom.attention.layer_norm_epsilon'"},
      {"qwen3moe", {}, "lacks the key 'qwen3moe.expert_count'"},
      {"qwen3moe", {kv_u32("qwen3moe.expert_count", 4)}, "qwen3moe.expert_used_count"},
      {"qwen3moe",
       {kv_u32("qwen3moe.expert_count", 4), kv_u32("qwen3moe.expert_used_count", 5)},
       "chooses 5 experts"},
      {"llama", {kv_u32("llama.expert_count", 99999)}, "'llama.expert_count' is 99999"},
      {"granite", {}, "lacks the key 'granite.logit_scale'"},
      {"gemma3",
       {kv_u32("gemma3.attention.sliding_window", 4),
        kv_string("gemma3.attention.sliding_window_pattern", "x")},
       "sliding_window_pattern' is no integer"},
      {"gemma3", {kv_string("gemma3.hidden_activation", "relu")}, "'relu', expected silu"},
      {"gemma2", {kv_f32("gemma2.attn_logit_softcapping", -1)}, "softcapping' is -1"},
  };
  for (const Bad& bad : kBad) {
    SCOPED_TRACE(std::string(bad.arch) + " " + bad.expected);
    GgufBytes bytes;
    bytes.keys.clear();
    for (std::string key : llama_keys()) {
      if (key.find("general.") != std::string::npos) continue;
      const size_t at = key.find("llama.");
      key.replace(at, 5, bad.arch);  // the length before it changes, too
      key[0] = static_cast<char>(key[0] + static_cast<char>(std::string(bad.arch).size() - 5));
      bytes.keys.push_back(key);
    }
    bytes.keys.push_back(kv_string("general.architecture", bad.arch));
    bytes.keys.insert(bytes.keys.end(), bad.more.begin(), bad.more.end());
    bytes.tensors = {tensor("token_embd.weight", {8, 10}, 0, 0)};
    bytes.data_bytes = 320;
    const fs::path path = folder.write("bad.gguf", bytes.file());
    expect_error([&] { load_config(path); }, bad.kind, {"bad.gguf", bad.expected});
  }
  GgufBytes bytes;  // MPT without ALiBi
  bytes.keys = {
      kv_string("general.architecture", "mpt"), kv_u32("mpt.block_count", 1),
      kv_u32("mpt.embedding_length", 8),        kv_u32("mpt.attention.head_count", 2),
      kv_u32("mpt.feed_forward_length", 32),    kv_f32("mpt.attention.layer_norm_epsilon", 1e-5f),
      kv_u32("mpt.context_length", 64)};
  bytes.tensors = {tensor("token_embd.weight", {8, 10}, 0, 0)};
  bytes.data_bytes = 320;
  const fs::path path = folder.write("bad.gguf", bytes.file());
  expect_error([&] { load_config(path); }, Kind::Unsupported, {"bad.gguf", "alibi"});
}

TEST(Gguf, TensorsAgainstTheMetadata) {
  const TempFolder folder;
  GgufBytes bytes;
  bytes.keys = llama_keys();
  bytes.tensors = {tensor("token_embd.weight", {8, 10}, 0, 0)};
  bytes.data_bytes = 320;
  fs::path path = folder.write("m.gguf", bytes.file());
  expect_error([&] { LoadedWeights::load(path, load_config(path)); }, Kind::BadInput,
               {"lacks the tensor blk.0.attn_norm.weight"});
  bytes.tensors.push_back(tensor("blk.0.attn_norm.weight", {9}, 0, 320));
  bytes.data_bytes = 320 + 36;
  path = folder.write("m.gguf", bytes.file());
  expect_error([&] { LoadedWeights::load(path, load_config(path)); }, Kind::BadInput,
               {"blk.0.attn_norm.weight is [9], the metadata imply [8]"});
  bytes.tensors = {tensor("token_embd.weight", {8, 10, 1}, 0, 0)};
  bytes.data_bytes = 320;
  path = folder.write("m.gguf", bytes.file());
  expect_error([&] { load_config(path); }, Kind::BadInput, {"token_embd.weight"});
}

}  // namespace
}  // namespace quern
