// A model's tensors in another layout and back.
#include "model/relayout.h"

#include <cstring>
#include <nlohmann/json.hpp>

#include "model/gguf_archs.h"
#include "model/gguf_config.h"
#include "model/stored_tensors.h"
#include "support/support.h"

namespace quern {
namespace {

HeldTensor held(const TensorSpec& spec, const Shape& shape, const std::vector<float>& values) {
  HeldTensor out = {.name = spec.name, .bytes = {}, .view = {}};
  const auto bytes = std::as_bytes(std::span(values));
  out.bytes.assign(bytes.begin(), bytes.end());
  out.view = {DType::F32, shape, nullptr};
  return out;
}

// Every tensor of `to`, made of a store of `from`.
TensorStore made(const TensorStore& store, const Config& from, const Config& to) {
  const Relayout relayout(store, from, to);
  std::vector<HeldTensor> tensors;
  for (const TensorSpec& spec : tensor_specs(to)) {
    tensors.push_back(held(spec, file_shape(spec, to), relayout.floats(spec)));
  }
  return TensorStore::of_memory("memory", std::move(tensors), nullptr);
}

TEST(Relayout, EveryFamilysTensorsComeBack) {
  for (const auto& entry : fs::directory_iterator(test::source("tests/fixtures/models"))) {
    if (!entry.path().filename().string().ends_with("-tiny")) continue;
    SCOPED_TRACE(entry.path().filename().string());
    const Config own = load_config(entry.path());
    const Config files = family_layout(own);
    EXPECT_EQ(dump(to_json(files)), dump(to_json(own)));
    const Config other = gguf_layout(own);
    const TensorStore store = TensorStore::open(entry.path());
    const TensorStore there = made(store, own, other), back = made(there, other, own);
    for (const TensorSpec& spec : tensor_specs(own)) {
      const std::vector<float> got = to_floats(back.at(spec.name), spec.name);
      std::vector<float> want = to_floats(store.at(stored_name(store, spec.name)), spec.name);
      // A normalized head is that of the same model; offsets of norms are added and taken away.
      if (spec.role == Role::Head && own.head_normalized) {
        want = got;
      }
      const bool exact = spec.role != Role::Norm || own.norm_offset == 0;
      test::check_close(got, want, {exact ? 0 : 1e-6, 0}, spec.name);
    }
  }
}

Config biased_llama() {
  return parse_config(Json::parse(R"({"architectures": ["LlamaForCausalLM"], "hidden_size": 8,
      "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 4, "vocab_size": 5,
      "rms_norm_eps": 1e-5, "attention_bias": true, "tie_word_embeddings": true})",
                                  "config.json"));
}

// LLaMA's config.json says of all four biases of attention that they are there: one that a GGUF file
// lacks is zeros.
TEST(Relayout, ABiasThatIsNotThereIsZeros) {
  Config part = biased_llama();
  part.out_bias = false;
  std::vector<HeldTensor> tensors;
  for (const TensorSpec& spec : tensor_specs(part)) {
    tensors.push_back(
        held(spec, spec.shape, test::random_floats(static_cast<size_t>(spec.shape.count()), 1)));
  }
  const TensorStore store = TensorStore::of_memory("memory", std::move(tensors), nullptr);
  const Config whole = family_layout(part);
  EXPECT_TRUE(whole.out_bias);
  const Relayout relayout(store, part, whole);
  int zeros = 0;
  for (const TensorSpec& spec : tensor_specs(whole)) {
    const std::vector<float> values = relayout.floats(spec);
    if (spec.name != "model.layers.0.self_attn.o_proj.bias") {
      test::check_close(values, to_floats(store.at(spec.name), spec.name), {}, spec.name);
      continue;
    }
    EXPECT_EQ(values, std::vector<float>(8));
    EXPECT_EQ(relayout.dtype(spec), DType::F32);
    ++zeros;
  }
  EXPECT_EQ(zeros, 1);
}

TEST(Relayout, WhatHasNoPlaceIsNamed) {
  const Config biased = biased_llama();
  Config plain = biased;
  plain.qkv_bias = plain.out_bias = false;
  const TensorStore store = TensorStore::of_memory("memory", {}, nullptr);
  test::expect_error([&] { Relayout(store, biased, plain); }, Kind::Unsupported,
                     {"memory", "self_attn", "bias", "llama"});
  // Three dims of each head can't be said by ChatGLM's config.json, which rotates half of them.
  Config other = load_config(test::source("tests/fixtures/models/chatglm2-tiny"));
  other.rotary_dim = 2;
  test::expect_error([&] { family_layout(other); }, Kind::Unsupported, {"config.json", "chatglm"});
}

// What llama.cpp computes otherwise has a word; what its files have no place for is refused.
TEST(Relayout, LossesOfGgufAreNamed) {
  const auto lost = [](const char* name) {
    const fs::path folder = test::source("tests/fixtures/models") / name;
    std::string all;
    for (const std::string& one : lost_in_gguf(load_config(folder))) all += one + "; ";
    return all;
  };
  EXPECT_EQ(lost("bloom-tiny"), "");
  EXPECT_EQ(lost("qwen15-moe-tiny"), "");
  EXPECT_NE(lost("mistral-tiny").find("windows"), std::string::npos);
  EXPECT_NE(lost("baichuan13b-tiny").find("number of layers"), std::string::npos);
  EXPECT_NE(lost("internlm-tiny").find("dynamic"), std::string::npos);
  EXPECT_NE(lost("gemma2-tiny").find("scale of attention"), std::string::npos);
  test::expect_error([&] { lost("falcon-rw-tiny"); }, Kind::Unsupported, {"ALiBi", "falcon"});
}

}  // namespace
}  // namespace quern
