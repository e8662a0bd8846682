// Completion scripts and manual pages, read by the programs that they are for.
#include "cli/program.h"

namespace quern::test {
namespace {

bool installed(const std::string& program) {
  return run({"sh", "-c", "command -v " + program}).code == 0;
}

// What bash offers for the last word of a command line.
std::string offered(const std::string& line) {
  const Outcome outcome = run({"bash", "--norc", "-c",
                               std::string("source <('") + test::program_path() +
                                   "' completion bash)\n"
                                   "COMP_WORDS=(" +
                                   line +
                                   ")\nCOMP_CWORD=$((${#COMP_WORDS[@]} - 1))\n_quern\n"
                                   "echo \"${COMPREPLY[@]}\""});
  EXPECT_EQ(outcome.err, "");
  return outcome.out;
}

TEST(Completion, OffersCommands) { EXPECT_EQ(offered("quern ge"), "generate\n"); }

TEST(Completion, OffersTheOptionsOfTheCommandAndOfEveryCommand) {
  EXPECT_EQ(offered("quern generate --gre"), "--greedy\n");
  EXPECT_EQ(offered("quern generate model --thr"), "--threads\n");
  EXPECT_EQ(offered("quern doctor --gre"), "\n");
}

TEST(Completion, OffersTheValuesOfAnOption) {
  EXPECT_EQ(offered("quern generate --kv-cache ''"), "auto fp32 fp16 bf16 int8 int8-token\n");
  EXPECT_EQ(offered("quern generate --progress p"), "plain\n");
}

TEST(Completion, KnowsCommandsOfTwoWords) {
  EXPECT_EQ(offered("quern bench m"), "model\n");
  EXPECT_EQ(offered("quern bench model --dep"), "--depth\n");
}

TEST(Completion, OffersFilesOnlyWhereFilesAreMeant) {
  const TempFolder folder;
  folder.write("data/text.txt", "");
  const std::string data = (folder.path() / "da").string();
  EXPECT_EQ(offered("quern perplexity --ids-file " + data), data + "ta\n");
  EXPECT_EQ(offered("quern quantize --calibration " + (folder.path() / "data/te").string()),
            (folder.path() / "data/text.txt").string() + "\n");
  EXPECT_EQ(offered("quern generate --adapter " + (folder.path() / "data/te").string()), "\n");
  EXPECT_EQ(offered("quern generate --seed " + data), "\n");
  EXPECT_EQ(offered("quern completion ''"), "bash zsh fish\n");
}

TEST(Completion, FishKeepsApostrophes) {
  const Outcome script = quern({"completion", "fish"});
  EXPECT_NE(script.out.find("the checkpoint\\'s"), std::string::npos);
}

TEST(Completion, OffersFilesForArguments) {
  const TempFolder folder;
  folder.write("checkpoint/config.json", "{}");
  EXPECT_EQ(offered("quern generate " + (folder.path() / "check").string()),
            (folder.path() / "checkpoint").string() + "\n");
}

class Shell : public ::testing::TestWithParam<const char*> {};

TEST_P(Shell, AcceptsItsCompletionScript) {
  if (!installed(GetParam())) GTEST_SKIP() << "skipped: " << GetParam() << " is not installed";
  const Outcome script = quern({"completion", GetParam()});
  ASSERT_EQ(script.code, 0) << script.err;
  const Outcome check =
      run({GetParam(), "-n"}, {.input = script.out, .variables = {}, .folder = {}});
  EXPECT_EQ(check.code, 0);
  EXPECT_EQ(check.err, "");
}

INSTANTIATE_TEST_SUITE_P(Completion, Shell, ::testing::Values("bash", "zsh", "fish"));

class Page : public ::testing::TestWithParam<std::vector<std::string>> {};

TEST_P(Page, IsRoffWithoutWarnings) {
  if (!installed("groff")) GTEST_SKIP() << "skipped: groff is not installed";
  std::vector<std::string> arguments = {"man"};
  arguments.insert(arguments.end(), GetParam().begin(), GetParam().end());
  const Outcome page = quern(arguments);
  ASSERT_EQ(page.code, 0) << page.err;
  const Outcome shown =
      run({"groff", "-man", "-ww", "-Tutf8"}, {.input = page.out, .variables = {}, .folder = {}});
  EXPECT_EQ(shown.code, 0);
  EXPECT_EQ(shown.err, "");
}

INSTANTIATE_TEST_SUITE_P(Man, Page,
                         ::testing::Values(std::vector<std::string>{},
                                           std::vector<std::string>{"generate"},
                                           std::vector<std::string>{"bench", "model"},
                                           std::vector<std::string>{"man"}));

}  // namespace
}  // namespace quern::test
