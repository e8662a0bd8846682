// Chains of stages through the program.
#include <chrono>
#include <map>
#include <thread>

#include "cli/program.h"

namespace quern::test {
namespace {

constexpr const char* kGrammar =
    "[list]\nword = ['mill', 'river', 'flour', 'stone', 'wheel', 'the', 'of', 'and', 'grain']\n"
    "[rule]\nmore = ['{word} {word} {word} {more}', '{word}.']\n"
    "[record]\ntext = '{more} {more} {more}'\n";

constexpr const char* kChain = R"toml(
[[stage]]
name = "made"
use = "generate"
in = "grammar.toml"
settings = {count = 4000, seed = 2}

[[stage]]
name = "unique"
use = "dedup"
in = "made"
settings = {method = "exact"}

[[stage]]
name = "told"
use = "language"
in = "unique"
settings = {cld2 = false}

[[stage]]
name = "mixed"
use = "mix"
settings = {seed = 1, total = 100000}
[[stage.source]]
name = "all"
files = ["told"]
)toml";

// The SHA-256 of all that stages wrote.
std::map<std::string, std::string> contents(const fs::path& folder) {
  std::map<std::string, std::string> out;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    const std::string name = fs::relative(entry.path(), folder).string();
    if (!entry.is_regular_file() || name.find("/.") != name.npos || name.starts_with(".")) continue;
    out[name] = sha256_file(entry.path());
  }
  return out;
}

class DataRun : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_.write("grammar.toml", kGrammar);
    folder_.write("chain.toml", kChain);
  }
  Outcome run(std::vector<std::string> more) {
    std::vector<std::string> words = {"data", "run", "chain.toml"};
    words.insert(words.end(), more.begin(), more.end());
    return quern(words, {.input = {}, .variables = {}, .folder = folder_.path()});
  }
  TempFolder folder_;
};

TEST_F(DataRun, GoesOnAfterKillsWithTheSameBytes) {
  const Outcome whole = run({"--out", "whole"});
  ASSERT_EQ(whole.code, 0) << whole.err;
  const auto want = contents(folder_.path() / "whole");
  EXPECT_TRUE(want.contains("report.html"));
  EXPECT_TRUE(want.contains("mixed/shard-00000.jsonl.zst"));
  for (int round = 0; round < 5; ++round) {
    // Killed sooner and later, the stage with it; then to the end. The folder is moved where the
    // whole one was, since manifests name their inputs.
    fs::remove_all(folder_.path() / "whole");
    for (int kill = 0; kill < 3; ++kill) {
      const std::string seconds = "0.0" + std::to_string(2 + (round * 3 + kill) * 7 % 40);
      test::run({"sh", "-c",
                 "cd '" + folder_.path().string() + "' && timeout -s KILL " + seconds + " '" +
                     program_path() + "' data run chain.toml --out whole >/dev/null 2>&1"});
    }
    Outcome rest = run({"--out", "whole", "--workers", "3"});
    // A killed stage may hold the folder's lock a moment longer than its chain lived.
    for (int tries = 0; tries < 100 && rest.err.find("another process") != rest.err.npos; ++tries) {
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
      rest = run({"--out", "whole", "--workers", "3"});
    }
    ASSERT_EQ(rest.code, 0) << rest.err;
    EXPECT_EQ(contents(folder_.path() / "whole"), want);
  }
  // Done already: nothing is made again.
  const auto before = fs::last_write_time(folder_.path() / "whole/mixed/manifest.json");
  EXPECT_EQ(run({"--out", "whole"}).code, 0);
  EXPECT_EQ(fs::last_write_time(folder_.path() / "whole/mixed/manifest.json"), before);
}

TEST_F(DataRun, WhatIsWrongInTheFileIsSaidBeforeAnythingRuns) {
  const auto problem = [&](const std::string& toml) {
    folder_.write("chain.toml", toml);
    const Outcome outcome = run({"--out", "out"});
    EXPECT_EQ(outcome.code, 3) << toml;
    EXPECT_FALSE(fs::exists(folder_.path() / "out"));
    return outcome.err;
  };
  EXPECT_EQ(problem("[[stage]]\nname = 'a'\nuse = 'filtre'\nin = 'grammar.toml'\n"),
            "quern: chain.toml: stage a: there is no stage 'filtre' (did you mean 'filter'?)\n");
  EXPECT_NE(problem("[[stage]]\nname = 'a'\nuse = 'filter'\nin = '{made}/x'\n")
                .find("names {made}, which is no stage"),
            std::string::npos);
  EXPECT_NE(problem("[[stage]]\nname = 'a/b'\nuse = 'filter'\nin = 'x'\n").find("no name"),
            std::string::npos);
  EXPECT_NE(problem("[[stage]]\nname = 'a'\nuse = 'pack'\nin = 'x'\nsettings = {colour = 1}\n")
                .find("pack has no setting 'colour'"),
            std::string::npos);
  EXPECT_NE(problem("[[stage]]\nname = 'a'\nuse = 'filter'\nin = '{data}/x'\n").find("--data"),
            std::string::npos);
}

TEST_F(DataRun, AStageThatFailsEndsTheChainWithItsCode) {
  folder_.write("chain.toml", "[[stage]]\nname = 'a'\nuse = 'filter'\nin = 'missing.jsonl'\n");
  const Outcome outcome = run({"--out", "out"});
  EXPECT_EQ(outcome.code, 3);
  EXPECT_NE(outcome.err.find("missing.jsonl"), std::string::npos) << outcome.err;
  EXPECT_NE(outcome.err.find("the stage a ended early"), std::string::npos);
  EXPECT_FALSE(fs::exists(folder_.path() / "out/report.html"));
}

}  // namespace
}  // namespace quern::test
