// Commands that talk with a server: chat --server and bench serve.
#include <nlohmann/json.hpp>

#include "cli/checkpoint.h"
#include "cli/program.h"
#include "core/file.h"

namespace quern::test {
namespace {

class ServerCommands : public ::testing::Test {
 protected:
  // Runs shell commands beside a server on the local socket "s"; $Q is the program, $M the model.
  Outcome beside_server(const std::string& commands, const std::string& options = "") const {
    return run({"bash", "-c",
                "cd '" + folder_.path().string() + "'; export XDG_STATE_HOME=$PWD Q='" +
                    test::program_path() + "' M='" + model_.string() +
                    "'\n$Q serve $M --unix-socket s --access-log none " + options +
                    " >/dev/null &\nuntil test -S s; do sleep 0.05; kill -0 $! || exit 9; done\n" +
                    commands + "\ncode=$?; kill %1; wait %1; exit $code"});
  }

  TempFolder folder_;
  fs::path model_ = tiny_checkpoint(folder_);
};

TEST_F(ServerCommands, AServersAnswersAreThoseOfItsModel) {
  folder_.write("said", "hello\nand then?\n/set\n/stats\n");
  const Outcome outcome = beside_server(
      "$Q chat --server unix:s --greedy -n 12 < said > there && "
      "$Q chat $M --greedy -n 12 < said > here");
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  const std::string there = read_file(folder_.path() / "there");
  const std::string here = read_file(folder_.path() / "here");
  // Settings and times are worded differently.
  EXPECT_EQ(there.substr(0, there.find("temperature ")), here.substr(0, here.find("temperature ")));
  EXPECT_NE(there.find("top-k the server's"), std::string::npos) << there;
  EXPECT_NE(there.find("12 new tokens"), std::string::npos) << there;
}

TEST_F(ServerCommands, TheKeyIsSentAndItsAbsenceIsSaid) {
  folder_.write("keys", "# mine\na-secret-of-some-length\n");
  const Outcome good =
      beside_server("echo hello | $Q chat --server unix:s --model model --api-key-file keys -n 2",
                    "--api-key-file keys");
  EXPECT_EQ(good.code, 0) << good.err;
  const Outcome bad = beside_server("echo hello | $Q chat --server unix:s", "--api-key-file keys");
  EXPECT_EQ(bad.code, 1);
  EXPECT_NE(bad.err.find("key"), std::string::npos) << bad.err;
}

TEST_F(ServerCommands, MistakesAreNamed) {
  const Outcome none = quern({"chat", "--server", "unix:/nowhere/s"});
  EXPECT_EQ(none.code, 1);
  EXPECT_NE(none.err.find("cannot connect to unix:/nowhere/s"), std::string::npos) << none.err;
  EXPECT_EQ(quern({"chat", "--server", "nowhere"}).code, 2);
  const Outcome model = beside_server("echo hello | $Q chat --server unix:s --model other");
  EXPECT_EQ(model.code, 1);
  EXPECT_NE(model.err.find("'other'"), std::string::npos) << model.err;
  const Outcome range = beside_server("echo hello | $Q chat --server unix:s --temperature 9");
  EXPECT_NE(range.err.find("temperature"), std::string::npos) << range.err;
}

TEST_F(ServerCommands, TheBenchmarkCountsWhatItAskedFor) {
  const Outcome outcome = beside_server(
      "$Q bench serve unix:s --concurrency 1 --concurrency 3 --requests 6 --prompt-tokens 20 "
      "--answer-tokens 5 --json --plot times.svg");
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  const auto out = nlohmann::json::parse(outcome.out);
  EXPECT_EQ(out["model"], "model");
  ASSERT_EQ(out["runs"].size(), 2u);
  for (const auto& row : out["runs"]) {
    EXPECT_EQ(row["requests"], 6);
    EXPECT_EQ(row["failed"], 0);
    // 6 answers of 5 tokens, in the seconds that it says.
    EXPECT_NEAR(row["tokens_per_s"].get<double>() * row["seconds"].get<double>(), 30, 1e-6);
    EXPECT_LE(row["ttft_p50_ms"], row["ttft_p99_ms"]);
    EXPECT_LE(row["between_tokens_p50_ms"], row["between_tokens_p99_ms"]);
    EXPECT_GT(row["ttft_p50_ms"], 0);
  }
  EXPECT_NE(read_file(folder_.path() / "times.svg").find("<svg"), std::string::npos);
}

TEST_F(ServerCommands, TheBenchmarkCountsRefusals) {
  const Outcome outcome = beside_server(
      "$Q bench serve unix:s --concurrency 20 --requests 40 --answer-tokens 40 --json",
      "--max-streams 1 --queue 0");
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  const auto row = nlohmann::json::parse(outcome.out)["runs"][0];
  EXPECT_GT(row["refused"], 0);
  EXPECT_EQ(row["refused"], row["failed"]);
  EXPECT_LT(row["failed"], 40);
}

TEST_F(ServerCommands, TheBenchmarkServesAModelItself) {
  const Outcome outcome =
      quern({"bench", "serve", model_.string(), "--concurrency", "2", "--requests", "2",
             "--prompt-tokens", "8", "--answer-tokens", "3"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_NE(outcome.out.find("prompts of 8 tokens, answers of 3"), std::string::npos)
      << outcome.out;
}

}  // namespace
}  // namespace quern::test
