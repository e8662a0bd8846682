// A model's answers to prompts, through the program.
#include <nlohmann/json.hpp>

#include "cli/program.h"
#include "formats/byte_source.h"

namespace quern::test {
namespace {

std::vector<nlohmann::json> records(const fs::path& shard) {
  LineReader lines(ByteSource::open(shard), shard.string(), 1 << 20);
  std::vector<nlohmann::json> out;
  for (std::string line; lines.next(line);) out.push_back(nlohmann::json::parse(line));
  return out;
}

TEST(DataSample, AnswersEveryPromptAsOftenAsAsked) {
  const TempFolder folder;
  folder.write("prompts.jsonl",
               "{\"id\": 1, \"prompt\": \"Who are you?\"}\n"
               "not json\n"
               "{\"id\": 2, \"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}, "
               "{\"role\": \"assistant\", \"content\": \"left out\"}]}\n"
               "{\"id\": 3, \"question\": \"no prompt\"}\n");
  const std::string model = source("models/quern-mini").string();
  const auto sample = [&](const char* out, std::vector<std::string> more) {
    std::vector<std::string> words = {"data",  "sample", "prompts.jsonl",    "--model", model,
                                      "--out", out,      "--max-new-tokens", "6"};
    words.insert(words.end(), more.begin(), more.end());
    return quern(words, {.input = {}, .variables = {}, .folder = folder.path()});
  };
  const Outcome outcome = sample("a", {"--samples", "3", "--temperature", "1", "--seed", "5"});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_NE(outcome.out.find("bad records (in bad/)"), std::string::npos) << outcome.out;
  const auto answers = records(folder.path() / "a/shard-00000.jsonl.zst");
  ASSERT_EQ(answers.size(), 6u);
  for (size_t i = 0; i < answers.size(); ++i) {
    EXPECT_EQ(answers[i]["id"], i < 3 ? 1 : 2);
    EXPECT_EQ(answers[i]["sample"], i % 3);
    const auto& messages = answers[i]["messages"];
    ASSERT_EQ(messages.size(), 2u);
    EXPECT_EQ(messages[0]["content"], i < 3 ? "Who are you?" : "Hi");
    EXPECT_EQ(messages[1]["role"], "assistant");
    EXPECT_EQ(messages[1]["content"], answers[i]["response"]);
  }
  // The same for a seed; another seed is another output, which the folder's manifest refuses.
  EXPECT_EQ(sample("b", {"--samples", "3", "--temperature", "1", "--seed", "5"}).code, 0);
  EXPECT_EQ(sha256_file(folder.path() / "a/shard-00000.jsonl.zst"),
            sha256_file(folder.path() / "b/shard-00000.jsonl.zst"));
  EXPECT_EQ(sample("a", {"--samples", "3", "--temperature", "1", "--seed", "6"}).code, 2);
  // A text goes on as it is.
  EXPECT_EQ(sample("c", {"--raw", "--prompt", "{{{id}}}"}).code, 0);
  const auto raw = records(folder.path() / "c/shard-00000.jsonl.zst");
  ASSERT_EQ(raw.size(), 3u);
  EXPECT_EQ(raw[0]["text"], "{1}" + raw[0]["response"].get<std::string>());
}

}  // namespace
}  // namespace quern::test
