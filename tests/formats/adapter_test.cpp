#include <fmt/format.h>

#include <cstring>

#include "formats/adapter_config.h"
#include "support/support.h"

namespace quern {
namespace {

void expect_bad_config(const std::string& config, const std::vector<std::string>& parts) {
  const test::TempFolder folder;
  folder.write("adapter_config.json", config);
  test::expect_error([&] { read_adapter_config(folder.path()); }, Kind::BadInput, parts);
}

TEST(AdapterConfig, RankZero) { expect_bad_config(R"({"r": 0, "lora_alpha": 16})", {"r is 0"}); }
TEST(AdapterConfig, MissingAlpha) { expect_bad_config(R"({"r": 8})", {"'lora_alpha'"}); }
TEST(AdapterConfig, OtherMethod) {
  expect_bad_config(R"({"peft_type": "IA3", "r": 8, "lora_alpha": 16})", {"'IA3'"});
}
TEST(AdapterConfig, WhatChangesTheMathematicsIsRefusedByName) {
  for (const char* member :
       {R"("use_dora": true)", R"("lora_bias": true)", R"("layer_replication": [[0, 2]])",
        R"("fan_in_fan_out": true)", R"("init_lora_weights": "pissa_niter_16")",
        R"("arrow_config": {"k": 2})"}) {
    const test::TempFolder folder;
    folder.write("adapter_config.json", fmt::format(R"({{"r": 8, "lora_alpha": 16, {}}})", member));
    const std::string name(member + 1, std::strchr(member + 1, '"'));
    test::expect_error([&] { read_adapter_config(folder.path()); }, Kind::Unsupported, {name});
  }
}
TEST(AdapterConfig, TrainedBias) {
  expect_bad_config(R"({"r": 8, "lora_alpha": 16, "bias": "all"})", {"bias is 'all'"});
}
TEST(AdapterConfig, MissingFile) {
  const test::TempFolder folder;
  test::expect_error([&] { read_adapter_config(folder.path()); }, Kind::BadInput,
                     {"has no adapter_config.json"});
}

AdapterConfig config_of(const std::string& members) {
  const test::TempFolder folder;
  folder.write("adapter_config.json", R"({"r": 8, "lora_alpha": 16)" + members + "}");
  return read_adapter_config(folder.path());
}

TEST(AdapterConfig, ScalesByRankAndPatterns) {
  AdapterConfig config = config_of(R"(, "alpha_pattern": {"mlp.w1": 4})");
  EXPECT_EQ(config.scale("transformer.h.0.attn.c_attn"), 2);
  EXPECT_EQ(config.scale("transformer.h.0.mlp.w1"), 0.5);
  EXPECT_EQ(config.scale("transformer.h.0.xmlp.w1"), 2);
  config.rank_stabilized = true;
  config.rank = 16;
  EXPECT_EQ(config.scale("transformer.h.0.attn.c_attn"), 4);
}

TEST(AdapterConfig, KeysThatAreNotKnownAreWarnedOf) {
  testing::internal::CaptureStderr();
  config_of(R"(, "lora_gamma": 2, "lora_delta": null, "lora_dropout": 0.1)");
  const std::string said = testing::internal::GetCapturedStderr();
  EXPECT_NE(said.find("without effect: lora_gamma"), std::string::npos) << said;
  EXPECT_EQ(said.find("lora_dropout"), std::string::npos) << said;
}

// PEFT: the first key in the file's order for which re.match(rf"(.*\\.)?({key})$", module) holds.
TEST(AdapterConfig, PatternsAreRegularExpressionsOfWhichTheFirstCounts) {
  const AdapterConfig config = config_of(
      R"(, "rank_pattern": {"layers\\.[0-3]\\..*q_proj": 4, "q_proj": 2, ".*_proj": 32},
          "alpha_pattern": {"z|k_proj": 12, "layers\\.1\\..*": 20})");
  EXPECT_EQ(config.rank_of("model.layers.2.self_attn.q_proj"), 4);
  EXPECT_EQ(config.rank_of("model.layers.12.self_attn.q_proj"), 2);
  EXPECT_EQ(config.rank_of("model.layers.12.self_attn.xq_proj"), 32);
  EXPECT_EQ(config.rank_of("model.layers.12.mlp.up"), 8);
  EXPECT_EQ(config.scale("model.layers.1.self_attn.k_proj"), 12.0 / 32);
  EXPECT_EQ(config.scale("model.layers.1.self_attn.q_proj"), 20.0 / 4);
}

TEST(AdapterConfig, TargetsAreNamesAPatternOrAllMatrices) {
  const AdapterConfig names = config_of(R"(, "target_modules": ["q_proj", "mlp.up_proj"])");
  EXPECT_TRUE(names.targets("model.layers.0.self_attn.q_proj"));
  EXPECT_TRUE(names.targets("model.layers.0.mlp.up_proj"));
  EXPECT_FALSE(names.targets("model.layers.0.xmlp.up_proj"));
  const AdapterConfig pattern = config_of(R"(, "target_modules": ".*\\.[01]\\..*(q|v)_proj")");
  EXPECT_TRUE(pattern.targets("model.layers.1.self_attn.v_proj"));
  EXPECT_FALSE(pattern.targets("model.layers.2.self_attn.v_proj"));
  EXPECT_FALSE(pattern.targets("model.layers.1.self_attn.v_proj.x"));
  const AdapterConfig all = config_of(R"(, "target_modules": "all-linear")");
  EXPECT_TRUE(all.targets("model.layers.1.mlp.down_proj"));
  EXPECT_FALSE(all.targets("lm_head"));
  expect_bad_config(R"({"r": 8, "lora_alpha": 16, "alpha_pattern": {"(": 4}})",
                    {"alpha_pattern", "no regular expression"});
}

TEST(AdapterConfig, APatternThatSearchesWithoutEndIsStopped) {
  const AdapterConfig config = config_of(R"(, "alpha_pattern": {"(a|aa)+$": 4})");
  test::expect_error([&] { config.scale(std::string(60, 'a') + "c"); }, Kind::BadInput,
                     {"without an end"});
}

}  // namespace
}  // namespace quern
