// What the families' config files may say wrong: every field is named, nothing is guessed. And what
// is written is read back as the same model.
#include <nlohmann/json.hpp>

#include "core/file.h"
#include "formats/safetensors.h"
#include "model/families.h"
#include "model/tensors.h"
#include "model/weights.h"
#include "support/support.h"

namespace quern {
namespace {

using nlohmann::json;

json config_of(std::string_view name) {
  const auto path = test::case_folder(name) / "config.json";
  return Json::parse_file(path.string()).raw();
}

Config parsed(const json& text) { return parse_config(Json::wrap(text, "config.json")); }

struct Wrong {
  const char* name;    // of a fixture
  const char* change;  // a merge patch (RFC 7396)
  std::vector<std::string> words;
  Kind kind = Kind::BadInput;
};

const Wrong kWrong[] = {
    {"mistral-tiny",
     R"({"architectures": ["OtherForCausalLM"]})",
     {"OtherForCausalLM", "not known"}},
    {"mistral-tiny", R"({"sliding_window": "12"})", {"sliding_window", "expected an integer"}},
    {"mistral-tiny", R"({"sliding_window": 0})", {"sliding_window"}},
    {"mistral-tiny", R"({"num_key_value_heads": 4})", {"6 heads", "4 key/value heads"}},
    {"mistral-tiny", R"({"num_key_value_heads": -1})", {"num_key_value_heads"}},
    {"mistral-tiny", R"({"hidden_act": "relu"})", {"hidden_act", "relu", "silu"}},
    {"mistral-tiny", R"({"hidden_size": null})", {"lacks the member 'hidden_size'"}},
    {"mistral-tiny", R"({"hidden_size": 49})", {"hidden_size is 49", "6 heads do not divide"}},
    {"mistral-tiny", R"({"intermediate_size": null})", {"intermediate_size"}},
    {"mixtral-tiny", R"({"num_local_experts": null})", {"num_local_experts"}},
    {"mixtral-tiny", R"({"num_local_experts": 0})", {"num_local_experts"}},
    {"mixtral-tiny", R"({"num_experts_per_tok": 6})", {"chooses 6 experts", "has 5"}},
    {"qwen3-moe-tiny", R"({"moe_intermediate_size": null})", {"moe_intermediate_size"}},
    {"qwen3-moe-tiny", R"({"mlp_only_layers": [2]})", {"mlp_only_layers"}},
    {"qwen3-moe-tiny", R"({"decoder_sparse_step": 0})", {"decoder_sparse_step"}},
    {"qwen15-moe-tiny",
     R"({"shared_expert_intermediate_size": "x"})",
     {"shared_expert_intermediate_size"}},
    {"falcon7b-tiny", R"({"multi_query": 1})", {"multi_query"}},
    {"falcon40b-tiny", R"({"num_kv_heads": 4})", {"6 heads", "4 key/value heads"}},
    {"falcon40b-tiny", R"({"num_ln_in_parallel_attn": 3})", {"num_ln_in_parallel_attn"}},
    {"falcon7b-tiny",
     R"({"apply_residual_connection_post_layernorm": true})",
     {"apply_residual_connection_post_layernorm", "not supported"},
     Kind::Unsupported},
    {"bloom-tiny",
     R"({"apply_residual_connection_post_layernorm": true})",
     {"apply_residual_connection_post_layernorm"},
     Kind::Unsupported},
    {"mpt-tiny", R"({"attn_config": null})", {"attn_config"}},
    {"mpt-tiny", R"({"attn_config": {"alibi": null}})", {"alibi"}},
    {"mpt-tiny",
     R"({"attn_config": {"alibi": false}})",
     {"alibi", "not supported"},
     Kind::Unsupported},
    {"mpt-tiny", R"({"attn_config": {"qk_ln": true}})", {"qk_ln"}, Kind::Unsupported},
    {"mpt-tiny", R"({"attn_config": {"prefix_lm": true}})", {"prefix_lm"}, Kind::Unsupported},
    {"mpt-tiny", R"({"attn_config": {"clip_qkv": -1}})", {"clip_qkv"}},
    {"mpt-tiny", R"({"norm_type": "rmsnorm"})", {"norm_type", "rmsnorm"}},
    {"mpt-tiny", R"({"expansion_ratio": 0})", {"expansion_ratio"}},
    {"chatglm2-tiny", R"({"rmsnorm": false})", {"rmsnorm"}, Kind::Unsupported},
    {"chatglm2-tiny", R"({"post_layer_norm": false})", {"post_layer_norm"}, Kind::Unsupported},
    {"chatglm2-tiny", R"({"multi_query_group_num": null})", {"multi_query_group_num"}},
    {"chatglm2-tiny", R"({"multi_query_group_num": 4})", {"6 heads", "4 key/value heads"}},
    {"gpt2-tiny", R"({"scale_attn_weights": false})", {"scale_attn_weights"}, Kind::Unsupported},
    {"gpt2-tiny",
     R"({"scale_attn_by_inverse_layer_idx": true})",
     {"scale_attn_by_inverse_layer_idx"},
     Kind::Unsupported},
    {"gpt2-tiny", R"({"activation_function": "tanh"})", {"activation_function", "tanh"}},
    {"gpt2-tiny", R"({"n_positions": 0})", {"n_positions"}},
    {"starcoder2-tiny", R"({"norm_type": "rms"})", {"norm_type", "rms"}},
    {"starcoder2-tiny", R"({"mlp_type": "gated"})", {"mlp_type", "gated"}},
    {"pythia-tiny", R"({"rotary_pct": 1.5})", {"rotary_pct"}},
    {"pythia-tiny", R"({"rotary_pct": 0.2})", {"rotates 3 dims", "even"}},
    {"phi2-tiny", R"({"qk_layernorm": true})", {"qk_layernorm"}, Kind::Unsupported},
    {"phi2-tiny", R"({"partial_rotary_factor": "half"})", {"partial_rotary_factor"}},
    {"phi3-longrope-tiny",
     R"({"rope_scaling": {"long_factor": [1, 2]}})",
     {"rope_scaling", "2 factors", "expected 4"}},
    {"phi3-longrope-tiny", R"({"rope_scaling": {"long_factor": null}})", {"long_factor"}},
    {"phi3-longrope-tiny", R"({"rope_scaling": {"long_factor": [1, 2, 3, -1]}})", {"long_factor"}},
    {"phi3-longrope-tiny", R"({"rope_scaling": {"type": "cubic"}})", {"rope_scaling", "cubic"}},
    {"gemma2-tiny", R"({"attn_logit_softcapping": -1})", {"attn_logit_softcapping"}},
    {"gemma2-tiny", R"({"query_pre_attn_scalar": 0})", {"query_pre_attn_scalar"}},
    {"gemma2-tiny", R"({"layer_types": ["full_attention"]})", {"layer_types", "4 layers"}},
    {"gemma2-tiny",
     R"({"layer_types": ["full_attention", "sliding_attention", "chunked", "full_attention"]})",
     {"layer_types[2]", "chunked"}},
    {"gemma3-tiny", R"({"sliding_window_pattern": 0})", {"sliding_window_pattern"}},
    {"gemma3-tiny", R"({"rope_local_base_freq": 0})", {"rope_local_base_freq"}},
    {"smollm3-tiny", R"({"no_rope_layers": [1, 1]})", {"no_rope_layers", "4 layers"}},
    {"smollm3-tiny", R"({"no_rope_layers": [1, 1, 2, 0]})", {"no_rope_layers[2]"}},
    {"granite-tiny", R"({"logits_scaling": 0})", {"logits_scaling"}},
    {"granite-tiny", R"({"attention_multiplier": "x"})", {"attention_multiplier"}},
    {"internlm-tiny", R"({"rotary": {"type": "cubic"}})", {"rotary.type", "cubic"}},
};

TEST(FamilyConfigs, WhatIsWrongIsNamed) {
  for (const Wrong& wrong : kWrong) {
    SCOPED_TRACE(std::string(wrong.name) + " " + wrong.change);
    json changed = config_of(wrong.name);
    changed.merge_patch(json::parse(wrong.change));
    test::expect_error([&] { parsed(changed); }, wrong.kind, wrong.words);
  }
}

// Configs that look like the published ones are read whole.
TEST(FamilyConfigs, NoKeyOfAPublishedModelIsWarnedOf) {
  for (const auto& entry : fs::directory_iterator(test::source("tests/fixtures/models"))) {
    if (!fs::exists(entry.path() / "config.json")) continue;
    testing::internal::CaptureStderr();
    load_config(entry.path());
    EXPECT_EQ(testing::internal::GetCapturedStderr(), "") << entry.path().filename();
  }
}

// As transformers 5 writes Gemma 3: a set for each type of layer.
TEST(FamilyConfigs, LayersOfSlidingAttentionHaveTheirOwnBase) {
  json config = config_of("gemma3-tiny");
  config.erase("rope_theta");
  config.erase("rope_local_base_freq");
  config["rope_parameters"] = json::parse(R"({
      "full_attention": {"rope_type": "linear", "factor": 8, "rope_theta": 500000},
      "sliding_attention": {"rope_type": "default", "rope_theta": 20000}})");
  const Config c = parsed(config);
  EXPECT_EQ(c.rope_theta, 500000);
  EXPECT_EQ(c.rope_scaling.type, RopeScaling::Type::Linear);
  EXPECT_EQ(c.rope_local_theta, 20000);
  const Config again = parsed(json::parse(dump(to_json(c))));
  EXPECT_EQ(again.rope_scaling, c.rope_scaling);
  EXPECT_EQ(again.rope_local_theta, 20000);
  config["rope_parameters"]["sliding_attention"] = config["rope_parameters"]["full_attention"];
  test::expect_error([&] { parsed(config); }, Kind::Unsupported,
                     {"rope_parameters", "sliding_attention"});
}

// Gemma 3's releases that also see: the language model's config is inside, and says only what differs
// from its library's defaults; the vision tower's tensors are no mistake.
TEST(FamilyConfigs, AModelThatAlsoSees) {
  const json whole = json::parse(R"({"architectures": ["Gemma3ForConditionalGeneration"],
      "eos_token_id": [1, 106], "model_type": "gemma3", "mm_tokens_per_image": 256,
      "vision_config": {"hidden_size": 1152}, "torch_dtype": "bfloat16",
      "text_config": {"hidden_size": 2560, "intermediate_size": 10240, "model_type": "gemma3_text",
      "num_hidden_layers": 34, "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
      "sliding_window": 1024}})");
  testing::internal::CaptureStderr();
  const Config c = parsed(whole);
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
  EXPECT_EQ(c.heads, 8);
  EXPECT_EQ(c.kv_heads, 4);
  EXPECT_EQ(c.head_dim, 256);
  EXPECT_EQ(c.vocab, 262208);
  EXPECT_EQ(c.layers, 34);
  EXPECT_EQ(c.max_context, 131072);
  EXPECT_EQ(c.window(0), 1024);
  EXPECT_EQ(c.window(5), 0);
  EXPECT_EQ(c.eos_ids, (std::vector<int64_t>{1, 106}));
  EXPECT_TRUE(c.tied);
  // As published: 3.88 billion parameters of text (the release's card counts the tower's, too).
  EXPECT_EQ(count_parameters(c).total, 3880263168);

  const test::TempFolder folder;
  const fs::path tiny = test::case_folder("gemma3-tiny");
  json inside = {{"architectures", {"Gemma3ForConditionalGeneration"}},
                 {"text_config", config_of("gemma3-tiny")},
                 {"vision_config", {{"hidden_size", 8}}}};
  inside["text_config"].erase("architectures");
  folder.write("config.json", inside.dump());
  const SafetensorsFile file(tiny / "model.safetensors");
  std::vector<PlannedTensor> plan;
  for (const NamedTensor& tensor : file.tensors()) {
    plan.push_back({"language_model." + tensor.name, tensor.view.dtype, tensor.view.shape});
  }
  plan.push_back({"multi_modal_projector.mm_input_projection_weight", DType::F32, {2}});
  plan.push_back({"vision_tower.vision_model.head.weight", DType::F32, {2}});
  SafetensorsWriter writer(folder.path() / "model.safetensors", plan);
  for (const NamedTensor& tensor : file.tensors()) {
    writer.write(std::span(tensor.view.data, tensor.view.size_bytes()));
  }
  const std::vector<float> two(2);
  writer.write(std::as_bytes(std::span(two)));
  writer.write(std::as_bytes(std::span(two)));
  writer.finish();
  testing::internal::CaptureStderr();
  const LoadedWeights loaded =
      LoadedWeights::load(folder.path(), load_config(folder.path()), {.strict = true});
  EXPECT_TRUE(loaded.unused().empty());
  EXPECT_NE(testing::internal::GetCapturedStderr().find("text only: 2 tensors"), std::string::npos);
}

// A config that does not say it: a file without a head has the embedding for one.
TEST(FamilyConfigs, WithoutAHeadTheEmbeddingIsIt) {
  const test::TempFolder folder;
  const fs::path tiny = test::case_folder("smollm3-tiny");  // tied
  json config = config_of("smollm3-tiny");
  config.erase("tie_word_embeddings");
  for (const char* key : {"no_rope_layers", "no_rope_layer_interval", "max_window_layers"}) {
    config.erase(key);
  }
  config["architectures"] = {"LlamaForCausalLM"};
  config["model_type"] = "llama";
  EXPECT_FALSE(parsed(config).tied);
  folder.write("config.json", config.dump());
  EXPECT_FALSE(load_config(folder.path()).tied);  // nothing is there to tell
  fs::copy_file(tiny / "model.safetensors", folder.path() / "model.safetensors");
  EXPECT_TRUE(load_config(folder.path()).tied);
  config["tie_word_embeddings"] = false;
  folder.write("config.json", config.dump());
  EXPECT_FALSE(load_config(folder.path()).tied);
}

TEST(FamilyConfigs, AnUnknownArchitectureListsThoseThatAreKnown) {
  json config = config_of("mistral-tiny");
  config["architectures"] = {"OtherForCausalLM"};
  try {
    parsed(config);
    FAIL();
  } catch (const Error& error) {
    for (const FamilyRow& row : families()) {
      EXPECT_NE(error.hint().find(*row.architectures.begin()), std::string::npos);
    }
  }
}

// What is read of the written config is what was written, tensors and all.
TEST(FamilyConfigs, WhatIsWrittenReadsBackAsTheSameModel) {
  for (const auto& entry : fs::directory_iterator(test::source("tests/fixtures/models"))) {
    if (!fs::exists(entry.path() / "config.json")) continue;
    SCOPED_TRACE(entry.path().filename().string());
    const Config first = load_config(entry.path());
    const Config second = parsed(json::parse(dump(to_json(first))));
    EXPECT_EQ(dump(to_json(second)), dump(to_json(first)));
    const auto a = tensor_specs(first), b = tensor_specs(second);
    ASSERT_EQ(a.size(), b.size());
    for (size_t i = 0; i < a.size(); ++i) {
      EXPECT_EQ(a[i].name, b[i].name);
      EXPECT_EQ(file_shape(a[i], first), file_shape(b[i], second)) << a[i].name;
    }
    EXPECT_EQ(first.parallel, second.parallel);
    EXPECT_EQ(first.mlp_norm, second.mlp_norm);
    EXPECT_EQ(first.tied, second.tied);
    EXPECT_EQ(first.kv_heads, second.kv_heads);
    EXPECT_EQ(first.qkv_order, second.qkv_order);
    EXPECT_EQ(first.activation, second.activation);
    EXPECT_EQ(first.windows, second.windows);
    EXPECT_EQ(first.rope_layers, second.rope_layers);
    EXPECT_EQ(first.rope_theta, second.rope_theta);
    EXPECT_EQ(first.rotary_dim, second.rotary_dim);
    EXPECT_EQ(first.rope_scaling.type, second.rope_scaling.type);
    EXPECT_EQ(first.rope_scaling.original_context, second.rope_scaling.original_context);
    EXPECT_EQ(first.alibi_max, second.alibi_max);
    EXPECT_EQ(first.learned_positions, second.learned_positions);
    EXPECT_EQ(first.max_context, second.max_context);
    EXPECT_EQ(first.norm_eps, second.norm_eps);
    EXPECT_NEAR(first.score_scale(), second.score_scale(), 1e-6);
    EXPECT_EQ(first.head_normalized, second.head_normalized);
    EXPECT_EQ(first.experts.dense, second.experts.dense);
    EXPECT_EQ(first.experts.normalized, second.experts.normalized);
    EXPECT_EQ(first.clip_qkv, second.clip_qkv);
    EXPECT_EQ(first.score_cap, second.score_cap);
    EXPECT_EQ(first.logit_cap, second.logit_cap);
  }
}

// Numbers of parameters as their makers give them.
TEST(Presets, HaveThePublishedNumbersOfParameters) {
  const std::pair<const char*, int64_t> kPublished[] = {
      {"llama2-7b", 6738415616},     {"llama3-8b", 8030261248},     {"mistral-7b", 7241732096},
      {"mixtral-8x7b", 46702792704}, {"qwen1.5-moe", 14315784192},  {"qwen3-30b-a3b", 30532122624},
      {"internlm2-7b", 7737708544},  {"baichuan-7b", 7000559616},   {"baichuan2-7b", 7505973248},
      {"chatglm2-6b", 6243584000},   {"falcon-7b", 6921720704},     {"mpt-7b", 6649286656},
      {"bloom-7b", 7069016064},      {"starcoder2-3b", 3030371328}, {"gpt2", 124439808},
      {"pythia-6.9b", 6857302016},   {"phi-2", 2779683840},         {"phi-3-mini", 3821079552},
      {"gemma-2b", 2506172416},      {"gemma2-2b", 2614341888},     {"gemma3-1b", 999885952},
      {"smollm3-3b", 3075098624},    {"olmo2-7b", 7298617344},
  };
  for (const auto& [name, parameters] : kPublished) {
    EXPECT_EQ(count_parameters(preset(name)).total, parameters) << name;
  }
  // Of Qwen3's experts a token meets 3.3 billion parameters.
  EXPECT_NEAR(static_cast<double>(count_parameters(preset("qwen3-30b-a3b")).active), 3.34e9,
              0.03e9);
}

TEST(Presets, AreReadAsTheyAreWritten) {
  for (const std::string_view name : preset_names()) {
    const Config config = preset(name);
    EXPECT_EQ(dump(to_json(parsed(json::parse(dump(to_json(config)))))), dump(to_json(config)))
        << name;
  }
}

// Orders of a file and of the model are each other's inverse.
TEST(FamilyTensors, AnOrderAndItsInverse) {
  for (const char* name : {"bloom-tiny", "falcon40b-tiny", "chatglm2-tiny", "gpt2-tiny",
                           "internlm2-tiny", "pythia-tiny"}) {
    const Config config = parsed(config_of(name));
    bool any = false;
    for (const TensorSpec& spec : tensor_specs(config)) {
      if (in_file_order(spec, config)) continue;
      any = true;
      const auto values = test::random_floats(static_cast<size_t>(spec.shape.count()), 1);
      std::vector<float> files(values.size()), back(values.size());
      reorder_tensor(std::as_writable_bytes(std::span(files)), std::as_bytes(std::span(values)),
                     spec, config, sizeof(float), TensorOrder::Files);
      reorder_tensor(std::as_writable_bytes(std::span(back)),
                     std::as_bytes(std::span<const float>(files)), spec, config, sizeof(float),
                     TensorOrder::Ours);
      EXPECT_NE(files, values) << spec.name;
      EXPECT_EQ(back, values) << spec.name;
    }
    EXPECT_TRUE(any) << name;
  }
}

}  // namespace
}  // namespace quern
