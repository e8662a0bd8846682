// quern merge.
#include "cli/program.h"
#include "core/json.h"

namespace quern::test {
namespace {

const std::string kModel = source("tests/fixtures/models/qwen1-lora").string();
const std::string kAdapter = source("tests/fixtures/models/qwen1-lora/adapter").string();

TEST(Merge, MakesACheckpointThatAnswersAsTheAdapterDoes) {
  const TempFolder folder;
  const std::string out = (folder.path() / "merged").string();
  const Outcome merged = quern({"merge", kModel, kAdapter, out});
  ASSERT_EQ(merged.code, 0) << merged.err;
  EXPECT_NE(merged.out.find("10 matrices changed"), std::string::npos) << merged.out;
  EXPECT_EQ(quern({"inspect", out}).code, 0);
  const fs::path ids = folder.write("ids.json", "[[5, 9, 17, 33, 65, 129, 200, 3]]");
  const auto greedy = [&](std::vector<std::string> args) {
    args.insert(args.begin(), "generate");
    for (const char* more : {"--ids-file", ids.c_str(), "-n", "12", "--greedy", "--json"}) {
      args.emplace_back(more);
    }
    const Outcome outcome = quern(args);
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    return Json::parse(outcome.out, "generate").at("ids").raw();
  };
  EXPECT_EQ(greedy({out}), greedy({kModel, "--adapter", kAdapter}));

  const Outcome again = quern({"merge", kModel, kAdapter, out});
  EXPECT_EQ(again.code, 2);
  EXPECT_NE(again.err.find("--force"), std::string::npos) << again.err;
}

TEST(Merge, WhatHoldsNoFloatsIsRefused) {
  const TempFolder folder;
  const std::string out = (folder.path() / "merged").string();
  const Outcome gguf =
      quern({"merge", source("tests/fixtures/gguf/llama.gguf").string(), kAdapter, out});
  EXPECT_EQ(gguf.code, 5);
  EXPECT_NE(gguf.err.find("quern convert"), std::string::npos) << gguf.err;
  const Outcome gptq =
      quern({"merge", source("tests/fixtures/models/qwen1-gptq-int4").string(), kAdapter, out});
  EXPECT_EQ(gptq.code, 5);
  EXPECT_NE(gptq.err.find("is quantized"), std::string::npos) << gptq.err;
  EXPECT_FALSE(fs::exists(out));
}

}  // namespace
}  // namespace quern::test
