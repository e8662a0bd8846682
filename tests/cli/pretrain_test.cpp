// Training as users run it: packed, begun, killed, resumed, refused.
#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <random>
#include <thread>

#include "cli/checkpoint.h"
#include "cli/program.h"
#include "core/file.h"
#include "core/json.h"

namespace quern::test {
namespace {

class Pretrain : public testing::Test {
 protected:
  TempFolder temp_;

  void SetUp() override {
    std::string records;
    for (int i = 0; i < 300; ++i) {
      records += "{\"text\": \"It was day " + std::to_string(i * 31 % 97) + " of the year.\"}\n";
    }
    temp_.write("days.jsonl", records);
    temp_.write("bytes.tiktoken", byte_vocabulary());
    temp_.write("config.json", R"({"architectures": ["QWenLMHeadModel"], "model_type": "qwen",
      "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "kv_channels": 16,
      "intermediate_size": 96, "vocab_size": 512, "seq_length": 64,
      "max_position_embeddings": 64, "layer_norm_epsilon": 1e-6, "rotary_emb_base": 10000,
      "rotary_pct": 1.0, "no_bias": true, "use_dynamic_ntk": false, "use_logn_attn": false,
      "tie_word_embeddings": false})");
    temp_.write("run.toml", R"(
[model]
config = "config.json"
tokenizer = "bytes.tiktoken"
[data]
seq = 32
train = [ { path = "days" } ]
valid = [ { path = "days", name = "same" } ]
[train]
steps = 60
batch = 4
[optimizer]
learning_rate = 1e-2
warmup = 5
[checkpoint]
every = 7
keep_last = 2
[validation]
every = 20
tokens = 512
[samples]
every = 30
tokens = 8
prompts = ["It was"]
)");
    const Outcome packed =
        run({"data", "pack", "days.jsonl", "--tokenizer", "bytes.tiktoken", "--out", "days"});
    ASSERT_EQ(packed.code, 0) << packed.err;
    EXPECT_NE(packed.out.find("300 documents"), std::string::npos) << packed.out;
  }

  Outcome run(std::vector<std::string> arguments) {
    return quern(std::move(arguments), {.folder = temp_.path()});
  }
  Outcome pretrain(const std::vector<std::string>& more) {
    std::vector<std::string> arguments = {"pretrain", "run.toml"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return run(arguments);
  }
  void expect_refused(const Outcome& outcome, int code, const std::vector<std::string>& parts) {
    EXPECT_EQ(outcome.code, code) << outcome.err;
    for (const std::string& part : parts) {
      EXPECT_NE(outcome.err.find(part), std::string::npos) << part << " is not in: " << outcome.err;
    }
  }
  // Hashes of everything in a run's last checkpoint, and its curves without the clock's columns.
  std::vector<std::string> trace(const std::string& name) {
    std::vector<std::string> out;
    for (const char* file : {"config.json", "generation_config.json", "model.safetensors",
                             "optimizer.safetensors", "training.json", "manifest.json"}) {
      out.push_back(sha256_file(temp_.path() / name / "step-00000060" / file));
    }
    out.push_back(read_file(temp_.path() / name / "validation.csv"));
    return out;
  }
};

TEST_F(Pretrain, KilledTwentyTimesAtAnyMomentAndResumedItEndsInTheSameBytes) {
  ASSERT_EQ(pretrain({"--out", "whole"}).code, 0);
  const std::vector<std::string> expected = trace("whole");
  std::mt19937 random(4);
  for (int round = 0; round < 20; ++round) {
    const std::string name = "killed" + std::to_string(round);
    const pid_t child = ::fork();
    if (child == 0) {
      const int nowhere = ::open("/dev/null", O_WRONLY);
      const bool ready =
          ::chdir(temp_.path().c_str()) == 0 && ::dup2(nowhere, 1) == 1 && ::dup2(nowhere, 2) == 2;
      if (ready) {
        ::execl(test::program_path(), "quern", "pretrain", "run.toml", "--out", name.c_str(),
                nullptr);
      }
      ::_exit(1);
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(random() % 700));
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
    Outcome resumed = pretrain({"--out", name, "--resume"});
    // Killed before the run's folder was there, as on a machine that is busy.
    if (resumed.err.find("holds no run to resume") != std::string::npos) {
      resumed = pretrain({"--out", name});
    }
    ASSERT_EQ(resumed.code, 0) << resumed.err;
    EXPECT_EQ(trace(name), expected) << "round " << round;
    fs::remove_all(temp_.path() / name);
  }
}

TEST_F(Pretrain, WhatIsSavedIsAModel) {
  ASSERT_EQ(pretrain({"--out", "run"}).code, 0);
  const Outcome text = run({"generate", "run/latest", "It was", "-n", "5", "--greedy"});
  EXPECT_EQ(text.code, 0) << text.err;
  EXPECT_EQ(run({"verify", "run/latest"}).code, 0);
  const std::string metrics = read_file(temp_.path() / "run" / "metrics.csv");
  EXPECT_EQ(std::count(metrics.begin(), metrics.end(), '\n'), 61);
}

TEST_F(Pretrain, ValidationAndSamplesAreResults) {
  const Outcome outcome = pretrain({"--out", "run"});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_NE(outcome.out.find("step 20: same loss "), std::string::npos) << outcome.out;
  EXPECT_NE(outcome.out.find("step 60: same loss "), std::string::npos) << outcome.out;
  EXPECT_NE(outcome.out.find("step 30: It was"), std::string::npos) << outcome.out;
}

TEST_F(Pretrain, ASecondBeginningAndResumingNothing) {
  ASSERT_EQ(pretrain({"--out", "run", "--set", "train.steps=3"}).code, 0);
  expect_refused(pretrain({"--out", "run"}), 2, {"run", "holds a run already", "--resume"});
  expect_refused(pretrain({"--out", "new", "--resume"}), 3, {"new", "no run to resume"});
  EXPECT_FALSE(fs::exists(temp_.path() / "new"));
  // A run that was stopped before its first checkpoint has a folder, and begins again with a word.
  fs::create_directory(temp_.path() / "early");
  const Outcome early = pretrain({"--out", "early", "--resume", "--set", "train.steps=3"});
  EXPECT_EQ(early.code, 0);
  EXPECT_NE(early.err.find("early: has no checkpoint yet, the run starts at step 0"),
            std::string::npos)
      << early.err;
  const Outcome finished = pretrain({"--out", "run", "--resume", "--set", "train.steps=3"});
  EXPECT_EQ(finished.code, 0);
  EXPECT_NE(finished.out.find("run: has finished, all 3 steps are done"), std::string::npos)
      << finished.out;
}

TEST_F(Pretrain, EndsWithWhatItMadeAndInspectFindsIt) {
  const Outcome outcome = pretrain({"--out", "run", "--set", "train.steps=3"});
  EXPECT_NE(outcome.out.find("saved run/latest; try: quern generate run/latest \"...\"\n"),
            std::string::npos)
      << outcome.out;
  const Outcome run_of = run({"inspect", "run"});
  EXPECT_EQ(run_of.code, 0) << run_of.err;
  EXPECT_EQ(run_of.out, run({"inspect", "run/latest"}).out);
  EXPECT_EQ(run({"verify", "run"}).code, 0);
  expect_refused(run({"generate", "run", "a"}), 3, {"run/latest"});
}

TEST_F(Pretrain, DryRunLooksAtTokenizerAndData) {
  expect_refused(pretrain({"--dry-run", "--set", "model.tokenizer=nowhere.tiktoken"}), 3,
                 {"nowhere.tiktoken"});
  expect_refused(pretrain({"--dry-run", "--set", "data.train=[{path=\"nothing\"}]"}), 3,
                 {"nothing", "manifest.json"});
}

TEST_F(Pretrain, DryRunSaysWhatItTakes) {
  const Outcome outcome = pretrain({"--dry-run"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  for (const char* part : {"parameters", "gradients", "moments", "activations", "tokens", "time"}) {
    EXPECT_NE(outcome.out.find(part), std::string::npos) << outcome.out;
  }
  EXPECT_FALSE(fs::exists(temp_.path() / "runs"));
}

TEST_F(Pretrain, UnknownKeysNameTheNearest) {
  expect_refused(pretrain({"--set", "train.step=5"}), 3, {"train", "'step'", "'steps'"});
  expect_refused(pretrain({"--set", "optimizer.learning_rat=5"}), 3, {"'learning_rate'"});
}

TEST_F(Pretrain, DataOfAnotherTokenizerIsRefused) {
  std::string other = byte_vocabulary();
  std::swap(other[other.find("QQ==")], other[other.find("Qg==")]);
  temp_.write("other.tiktoken", other + "QUI= 256\n");
  expect_refused(pretrain({"--set", "model.tokenizer=other.tiktoken"}), 3,
                 {"days/manifest.json", "another tokenizer"});
}

TEST_F(Pretrain, ADiskThatFillsUpLeavesTheLastCheckpointWhole) {
  ASSERT_EQ(pretrain({"--out", "run", "--set", "train.steps=7"}).code, 0);
  // No file may grow past 100 kB: less than the weights.
  const Outcome full =
      test::run({"bash", "-c",
                 std::string("trap '' XFSZ; ulimit -f 100; exec '") + test::program_path() +
                     "' pretrain run.toml --out run --resume"},
                {.folder = temp_.path()});
  EXPECT_EQ(full.code, 4) << full.err;
  EXPECT_NE(full.err.find("free some disk space"), std::string::npos) << full.err;
  for (const auto& entry : fs::directory_iterator(temp_.path() / "run")) {
    EXPECT_EQ(entry.path().filename().string().find(".tmp"), std::string::npos) << entry.path();
  }
  EXPECT_EQ(run({"verify", "run/step-00000007"}).code, 0);
  EXPECT_EQ(pretrain({"--out", "run", "--resume"}).code, 0);
}

TEST_F(Pretrain, TwoProcessesOnOneFolder) {
  fs::create_directory(temp_.path() / "run");
  const Outcome outcome = test::run({"bash", "-c",
                                     std::string("exec 9>run/lock; flock 9; '") +
                                         test::program_path() + "' pretrain run.toml --out run"},
                                    {.folder = temp_.path()});
  EXPECT_EQ(outcome.code, 1) << outcome.err;
  EXPECT_NE(outcome.err.find("is training into this folder"), std::string::npos) << outcome.err;
}

TEST_F(Pretrain, CtrlCSavesAndEnds) {
  const Outcome outcome =
      test::run({"bash", "-c",
                 std::string("'") + test::program_path() +
                     "' pretrain run.toml --out run --set train.steps=100000 & child=$!; "
                     "until [ -e run/latest ]; do sleep 0.05; kill -0 $child || exit 9; done; "
                     "kill -INT $child; wait $child"},
                {.folder = temp_.path()});
  EXPECT_EQ(outcome.code, 130) << outcome.err;
  EXPECT_NE(outcome.err.find("go on with --resume"), std::string::npos) << outcome.err;
  EXPECT_EQ(run({"verify", "run/latest"}).code, 0);
}

TEST_F(Pretrain, DataPackTakesConversationsAndReplacesNames) {
  temp_.write("chat.jsonl",
              "{\"messages\": [{\"role\": \"user\", \"content\": \"who?\"}, "
              "{\"role\": \"assistant\", \"content\": \"{{name}}\"}]}\n");
  const Outcome packed = run({"data", "pack", "chat.jsonl", "--messages", "messages", "--replace",
                              "name=Quern", "--tokenizer", "bytes.tiktoken", "--out", "chat"});
  EXPECT_EQ(packed.code, 0) << packed.err;
  // "Quern" and <|im_end|>.
  EXPECT_NE(packed.out.find("6 tokens are learnt"), std::string::npos) << packed.out;
  expect_refused(run({"data", "pack", "days.jsonl", "--where", "lang", "--tokenizer",
                      "bytes.tiktoken", "--out", "x"}),
                 2, {"--where is 'lang'", "FIELD=VALUE"});
  expect_refused(run({"data", "pack", "days.jsonl", "--field", "body", "--tokenizer",
                      "bytes.tiktoken", "--out", "x"}),
                 3, {"days.jsonl: line 1", "body"});
  EXPECT_FALSE(fs::exists(temp_.path() / "x"));
}

TEST_F(Pretrain, TokenizerTrainMakesAFolderThatEncodes) {
  const Outcome trained =
      run({"tokenizer", "train", "days.jsonl", "--vocab-size", "300", "--out", "tok"});
  ASSERT_EQ(trained.code, 0) << trained.err;
  for (const char* file : {"tokenizer.json", "vocab.tiktoken", "tokenizer_config.json"}) {
    EXPECT_TRUE(fs::exists(temp_.path() / "tok" / file)) << file;
  }
  const Outcome ids = run({"tokenize", "tok", "It was day <|im_end|>"});
  EXPECT_EQ(ids.code, 0) << ids.err;
  expect_refused(run({"tokenizer", "train", "days.jsonl", "--vocab-size", "257", "--out", "t2"}), 2,
                 {"--vocab-size is 257", "254 tokens"});
}

}  // namespace
}  // namespace quern::test
