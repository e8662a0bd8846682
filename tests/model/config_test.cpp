#include "model/config.h"

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "model/tensors.h"
#include "support/support.h"

namespace quern {
namespace {

constexpr std::string_view kQwen = R"({"architectures": ["QWenLMHeadModel"], "model_type": "qwen",
  "hidden_size": 64, "intermediate_size": 176, "num_hidden_layers": 3, "num_attention_heads": 4,
  "kv_channels": 16, "vocab_size": 512, "seq_length": 8192})";

// The text of kQwen with one member replaced or added.
std::string with(std::string_view key, std::string_view value, std::string_view base = kQwen) {
  auto json = nlohmann::json::parse(base);
  json[std::string(key)] = nlohmann::json::parse(value);
  return json.dump();
}

Config parse(std::string_view text) { return parse_config(Json::parse(text, "config.json")); }

TEST(Config, ReadsQwenUnderNewAndOldNames) {
  const Config later = parse(kQwen);
  EXPECT_EQ(later.family, Family::Qwen);
  EXPECT_EQ(later.ffn, 88);
  EXPECT_EQ(later.rotary_dim, 16);
  EXPECT_TRUE(later.qkv_bias);
  EXPECT_FALSE(later.out_bias || later.mlp_bias);
  const Config first = parse(R"({"architectures": ["QWenLMHeadModel"], "n_embd": 64, "n_layer": 2,
      "n_head": 4, "ffn_hidden_size": 176, "kv_channels": 16, "rotary_pct": 0.5, "no_bias": false,
      "padded_vocab_size": 512, "vocab_size": 499, "seq_length": 32, "n_positions": 512})");
  EXPECT_EQ(first.vocab, 512);
  EXPECT_EQ(first.output_vocab, 499);
  EXPECT_EQ(first.rotary_dim, 8);
  EXPECT_TRUE(first.out_bias && first.mlp_bias);
  EXPECT_EQ(first.trained_context, 32);
  EXPECT_EQ(first.max_context, 512);
}

TEST(Config, EveryPresetSurvivesTheWayThroughJson) {
  for (const std::string_view name : preset_names()) {
    const Config config = preset(name);
    const Config again = parse(dump(to_json(config)));
    EXPECT_EQ(dump(to_json(again)), dump(to_json(config))) << name;
  }
}

TEST(Config, Qwen7bHasTheMemosShape) {
  const Config c = preset("qwen-7b");
  EXPECT_EQ(c.layers, 32);
  EXPECT_EQ(c.hidden, 4096);
  EXPECT_EQ(c.heads, 32);
  EXPECT_FALSE(c.tied);
  EXPECT_EQ(count_parameters(c).total, 7'721'324'544);  // of the published checkpoint
}

TEST(Config, ListsEachTensorOnce) {
  for (const std::string_view name : preset_names()) {
    const auto specs = tensor_specs(preset(name));
    std::vector<std::string> names;
    for (const TensorSpec& spec : specs) names.push_back(spec.name);
    std::sort(names.begin(), names.end());
    EXPECT_EQ(std::adjacent_find(names.begin(), names.end()), names.end());
  }
}

struct BadConfig {
  const char* name;
  const char* key;
  const char* value;
  const char* expected;
};

class BadConfigs : public testing::TestWithParam<BadConfig> {};

TEST_P(BadConfigs, AreRefusedByName) {
  const BadConfig& bad = GetParam();
  test::expect_error([&] { parse(with(bad.key, bad.value)); }, Kind::BadInput,
                     {"config.json", bad.expected});
}

INSTANTIATE_TEST_SUITE_P(
    Values, BadConfigs,
    testing::Values(
        BadConfig{"HeadsNotDividing", "num_attention_heads", "3", "hidden_size is 64"},
        BadConfig{"BillionLayers", "num_hidden_layers", "1000000000", "num_hidden_layers"},
        BadConfig{"ZeroLayers", "num_hidden_layers", "0", "num_hidden_layers is 0"},
        BadConfig{"NegativeHidden", "hidden_size", "-64", "hidden_size is -64"},
        BadConfig{"FloatLayers", "num_hidden_layers", "3.5", "expected an integer"},
        BadConfig{"StringHidden", "hidden_size", "\"64\"", "is a string"},
        BadConfig{"ZeroSeqLength", "seq_length", "0", "seq_length is 0"},
        BadConfig{"UnknownDtype", "torch_dtype", "\"float8\"", "torch_dtype is 'float8'"},
        BadConfig{"OddFfn", "intermediate_size", "177", "even number"},
        BadConfig{"OddRotary", "rotary_pct", "0.3125", "rotates 5 dims"},
        BadConfig{"EpsZero", "layer_norm_epsilon", "0", "layer_norm_epsilon"},
        BadConfig{"HugeVocab", "vocab_size", "9223372036854775807", "vocab_size"},
        BadConfig{"PaddedBelowVocab", "padded_vocab_size", "100", "padded_vocab_size is 100"},
        BadConfig{"UnknownArchitecture", "architectures", "[\"MambaForCausalLM\"]",
                  "'MambaForCausalLM'"},
        BadConfig{"ArchitectureNoString", "architectures", "[3]", "expected a string"},
        BadConfig{"WindowsOfOtherLength", "quern_layer_windows", "[1, 2]", "3 layers"}),
    [](const auto& instance) { return instance.param.name; });

TEST(Config, UnknownArchitectureNamesTheKnownOnes) {
  test::expect_error([] { parse(with("architectures", "[\"MambaForCausalLM\"]")); }, Kind::BadInput,
                     {"QWenLMHeadModel", "LlamaForCausalLM"});
}

constexpr std::string_view kLlama = R"({"architectures": ["LlamaForCausalLM"],
  "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
  "vocab_size": 512, "max_position_embeddings": 4096})";

Config llama(std::string_view key, std::string_view value) {
  return parse(with(key, value, kLlama));
}

TEST(RopeConfig, ParametersOfTransformersFiveEqualThoseOfFour) {
  const std::string_view kSets[] = {
      R"("rope_type": "default")",
      R"("rope_type": "linear", "factor": 4)",
      R"("type": "dynamic", "factor": 2.5)",
      R"("rope_type": "yarn", "factor": 4.0, "beta_fast": 16, "beta_slow": 2, "truncate": false,
         "mscale": 1.5, "mscale_all_dim": 0.5, "original_max_position_embeddings": 1024)",
      R"("rope_type": "llama3", "factor": 8, "low_freq_factor": 1, "high_freq_factor": 4,
         "original_max_position_embeddings": 1024)",
      R"("rope_type": "longrope", "original_max_position_embeddings": 1024,
         "short_factor": [1,1,1,1,2,2,2,2], "long_factor": [1,2,3,4,5,6,7,8])"};
  for (const std::string_view set : kSets) {
    auto old_form = nlohmann::json::parse(kLlama);
    old_form["rope_theta"] = 500000.0;
    old_form["rope_scaling"] = nlohmann::json::parse("{" + std::string(set) + "}");
    const Config four = parse(old_form.dump());
    const std::string inner = "{\"rope_theta\": 500000.0, " + std::string(set) + "}";
    for (const std::string& value :
         {inner, "{\"full_attention\": " + inner + ", \"sliding_attention\": " + inner + "}"}) {
      const Config five = llama("rope_parameters", value);
      EXPECT_EQ(five.rope_theta, 500000.0) << set;
      EXPECT_EQ(five.rope_scaling, four.rope_scaling) << set;
      EXPECT_EQ(five.max_context, four.max_context) << set;
    }
    const Config again = parse(dump(to_json(four)));
    EXPECT_EQ(again.rope_theta, four.rope_theta) << set;
    EXPECT_EQ(again.rope_scaling, four.rope_scaling) << set;
    EXPECT_EQ(again.max_context, four.max_context) << set;
  }
}

TEST(RopeConfig, WhatIsMissingOrUnknownIsNamed) {
  const std::pair<const char*, const char*> kBad[] = {
      {R"({"rope_type": "linear"})", "'factor'"},
      {R"({"rope_type": "dynamic"})", "'factor'"},
      {R"({"rope_type": "yarn"})", "'factor'"},
      {R"({"rope_type": "llama3", "factor": 8, "low_freq_factor": 1, "high_freq_factor": 4})",
       "'original_max_position_embeddings'"},
      {R"({"rope_type": "llama3", "factor": 8, "low_freq_factor": 1,
          "original_max_position_embeddings": 8192})",
       "'high_freq_factor'"},
      {R"({"rope_type": "longrope", "short_factor": [1,1,1,1,1,1,1,1]})", "'long_factor'"},
      {R"({"rope_type": "longrope", "short_factor": [1], "long_factor": [1]})", "expected 8"},
      {R"({"rope_type": "mrope", "factor": 2})", "'mrope'"},
      {R"({"rope_type": "linear", "type": "yarn", "factor": 2})", "rope_type 'linear'"}};
  for (const auto& [value, expected] : kBad) {
    test::expect_error([&] { llama("rope_scaling", value); }, Kind::BadInput, {expected});
  }
  test::expect_error([] { llama("rope_parameters", R"({"rope_type": "default"})"); },
                     Kind::BadInput, {"rope_parameters", "'rope_theta'"});
  test::expect_error(
      [] {
        llama("rope_parameters", R"({"full_attention": {"rope_type": "default", "rope_theta": 1e6},
              "sliding_attention": {"rope_type": "default", "rope_theta": 1e4}})");
      },
      Kind::Unsupported, {"rope_parameters", "sliding_attention"});
}

TEST(Config, BiasesAreWhereTheFileSays) {
  const Config attention = llama("attention_bias", "true");
  EXPECT_TRUE(attention.qkv_bias && attention.out_bias && !attention.mlp_bias);
  const Config ffn = llama("mlp_bias", "true");
  EXPECT_TRUE(!ffn.qkv_bias && !ffn.out_bias && ffn.mlp_bias);
  const Config again = parse(dump(to_json(attention)));
  EXPECT_TRUE(again.qkv_bias && again.out_bias && !again.mlp_bias);
  size_t biases = 0;
  for (const TensorSpec& spec : tensor_specs(attention)) biases += spec.role == Role::Bias;
  EXPECT_EQ(biases, 8u);  // q, k, v, o of two layers
}

TEST(Config, SeveralIdsMayEndAText) {
  EXPECT_EQ(llama("eos_token_id", "[7, 9]").eos_ids, (std::vector<int64_t>{7, 9}));
  EXPECT_EQ(llama("eos_token_id", "3").eos_ids, std::vector<int64_t>{3});
  EXPECT_TRUE(llama("eos_token_id", "null").eos_ids.empty());
  EXPECT_EQ(parse(dump(to_json(llama("eos_token_id", "[7, 9]")))).eos_ids,
            (std::vector<int64_t>{7, 9}));
}

TEST(Config, WhatIsNotReadIsNamed) {
  const auto said = [](std::string_view key, std::string_view value) {
    testing::internal::CaptureStderr();
    llama(key, value);
    return testing::internal::GetCapturedStderr();
  };
  EXPECT_NE(said("residual_multiplier", "0.22").find("residual_multiplier"), std::string::npos);
  EXPECT_NE(said("sliding_window", "128").find("sliding_window"), std::string::npos);
  for (const auto& [key, value] : {std::pair{"transformers_version", "\"5.1.0\""},
                                   {"sliding_window", "null"},
                                   {"use_cache", "true"},
                                   {"pretraining_tp", "1"},
                                   {"rope_interleaved", "false"}}) {
    EXPECT_EQ(said(key, value), "") << key;
  }
  test::expect_error([] { llama("rope_interleaved", "true"); }, Kind::Unsupported,
                     {"rope_interleaved"});
}

TEST(Config, AutoMapIsIgnored) {
  EXPECT_NO_THROW(parse(with("auto_map", R"({"AutoModelForCausalLM": "evil.Model"})")));
}

TEST(Config, AGigabyteFileIsRefusedUnread) {
  const test::TempFolder folder;
  folder.write("config.json", "");
  std::filesystem::resize_file(folder.path() / "config.json", uint64_t{1} << 30);
  test::expect_error([&] { load_config(folder.path()); }, Kind::BadInput,
                     {"config.json", "1073741824 bytes"});
}

TEST(Config, MissingFileSaysWhatToName) {
  const test::TempFolder folder;
  test::expect_error([&] { load_config(folder.path()); }, Kind::BadInput, {"has no config.json"});
}

TEST(Windows, OneAListOrAGrowingRange) {
  EXPECT_EQ(parse_windows("512", 3), (std::vector<int64_t>{512, 512, 512}));
  EXPECT_EQ(parse_windows("1,2,0", 3), (std::vector<int64_t>{1, 2, 0}));
  EXPECT_EQ(parse_windows("100:300", 3), (std::vector<int64_t>{100, 200, 300}));
  EXPECT_EQ(parse_windows("100:300", 1), (std::vector<int64_t>{100}));
  test::expect_error([] { parse_windows("1,2", 3); }, Kind::Misused, {"2 windows", "3 layers"});
  test::expect_error([] { parse_windows("a", 3); }, Kind::Misused, {"'a'"});
  test::expect_error([] { parse_windows("-1", 3); }, Kind::Misused, {"'-1'"});
}

TEST(Windows, Qwen2HasThemInUpperLayersWhenSwitchedOn) {
  const std::string base = R"({"architectures": ["Qwen2ForCausalLM"], "hidden_size": 64,
      "intermediate_size": 112, "num_hidden_layers": 3, "num_attention_heads": 4, "vocab_size": 320,
      "sliding_window": 16, "max_window_layers": 1})";
  EXPECT_TRUE(parse(base).windows.empty());
  EXPECT_EQ(parse(with("use_sliding_window", "true", base)).windows,
            (std::vector<int64_t>{0, 16, 16}));
  const std::string on = with("use_sliding_window", "true", base);
  EXPECT_EQ(
      parse(with("layer_types", R"(["full_attention", "sliding_attention", "full_attention"])", on))
          .windows,
      (std::vector<int64_t>{0, 16, 0}));
  test::expect_error(
      [&] {
        parse(with("layer_types", R"(["full_attention", "sliding_attention", "chunked_attention"])",
                   on));
      },
      Kind::BadInput, {"layer_types", "'chunked_attention'"});
}

}  // namespace
}  // namespace quern
