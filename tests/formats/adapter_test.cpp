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
TEST(AdapterConfig, Dora) {
  expect_bad_config(R"({"r": 8, "lora_alpha": 16, "use_dora": true})", {"use_dora"});
}
TEST(AdapterConfig, TrainedBias) {
  expect_bad_config(R"({"r": 8, "lora_alpha": 16, "bias": "all"})", {"bias is 'all'"});
}
TEST(AdapterConfig, MissingFile) {
  const test::TempFolder folder;
  test::expect_error([&] { read_adapter_config(folder.path()); }, Kind::BadInput,
                     {"has no adapter_config.json"});
}

TEST(AdapterConfig, ScalesByRankAndPatterns) {
  const test::TempFolder folder;
  folder.write("adapter_config.json",
               R"({"r": 8, "lora_alpha": 16, "alpha_pattern": {"mlp.w1": 4}})");
  AdapterConfig config = read_adapter_config(folder.path());
  EXPECT_EQ(config.scale("transformer.h.0.attn.c_attn", 8), 2);
  EXPECT_EQ(config.scale("transformer.h.0.mlp.w1", 8), 0.5);
  EXPECT_EQ(config.scale("transformer.h.0.xmlp.w1", 8), 2);
  config.rank_stabilized = true;
  EXPECT_EQ(config.scale("transformer.h.0.attn.c_attn", 16), 4);
}

}  // namespace
}  // namespace quern
