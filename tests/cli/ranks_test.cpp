// Training by several processes under mpirun: the bytes of one process, whatever their number.
#include <algorithm>
#include <csignal>
#include <sstream>

#include "cli/checkpoint.h"
#include "cli/program.h"
#include "core/file.h"
#include "core/json.h"

namespace quern::test {
namespace {

bool there(const std::string& program) {
  return run({"bash", "-c", "command -v " + program + " >/dev/null"}, {}).code == 0;
}

std::string launch(const std::string& mpi, int ranks) {
  return mpi == "mpich" ? "mpirun.mpich -n " + std::to_string(ranks)
                        : "mpirun.openmpi --allow-run-as-root --oversubscribe --bind-to none -n " +
                              std::to_string(ranks);
}

class Ranks : public testing::Test {
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
train = [ { files = ["days.jsonl"] } ]
valid = [ { files = ["days.jsonl"], name = "same" } ]
[train]
steps = 30
batch = 8
micro_batch = 1
dropout = 0.1
[optimizer]
learning_rate = 1e-2
warmup = 5
schedule = "constant"
[checkpoint]
every = 10
[validation]
every = 15
tokens = 512
[samples]
every = 1000
)");
  }

  // `words` before the program's own: mpirun and its options, or nothing.
  Outcome train(const std::string& words, const std::string& options) {
    return run({"bash", "-c", words + " '" + program_path() + "' pretrain run.toml " + options},
               {.folder = temp_.path()});
  }
  // Weights and moments of the last checkpoint, and what metrics.csv says of steps but not of time.
  std::string result(const std::string& name) const {
    std::string out;
    for (const auto& entry : fs::directory_iterator(temp_.path() / name / "latest")) {
      if (entry.path().extension() == ".safetensors") {
        out += entry.path().filename().string() + " " + sha256_file(entry.path()) + "\n";
      }
    }
    std::istringstream lines(read_file(temp_.path() / name / "metrics.csv"));
    for (std::string line; std::getline(lines, line);) {
      std::istringstream fields(line);
      std::string field;
      for (int i = 0; std::getline(fields, field, ','); ++i) {
        if (i != 2 && i < 6) out += field + ",";
      }
      out += "\n";
    }
    return out;
  }
};

TEST_F(Ranks, OneTwoAndFourEndInTheSameBytes) {
  if (!there("mpirun.openmpi") && !there("mpirun.mpich")) GTEST_SKIP() << "no mpirun here";
  const Outcome one = train("", "--out one");
  ASSERT_EQ(one.code, 0) << one.err;
  const std::string wanted = result("one");
  EXPECT_NE(wanted.find("model.safetensors"), wanted.npos);
  for (const std::string mpi : {"openmpi", "mpich"}) {
    if (!there("mpirun." + mpi)) continue;
    for (const int ranks : {2, 4}) {
      const std::string name = mpi + std::to_string(ranks);
      const Outcome outcome = train(launch(mpi, ranks), "--out " + name);
      ASSERT_EQ(outcome.code, 0) << outcome.err;
      EXPECT_EQ(result(name), wanted) << name;
      if (ranks == 4) {  // moments whole on every rank: the same bytes again
        const std::string whole = name + "zero0";
        const Outcome again =
            train(launch(mpi, ranks), "--out " + whole + " --set parallel.zero=0");
        ASSERT_EQ(again.code, 0) << again.err;
        EXPECT_EQ(result(whole), wanted) << whole;
      }
      // The first rank alone speaks.
      EXPECT_EQ(outcome.out.find("saved"), outcome.out.rfind("saved")) << outcome.out;
    }
  }
}

TEST_F(Ranks, ARunGoesOnWithAnotherNumber) {
  if (!there("mpirun.openmpi")) GTEST_SKIP() << "no mpirun here";
  ASSERT_EQ(train("", "--out one").code, 0);
  ASSERT_EQ(train(launch("openmpi", 2), "--out many --set train.steps=10").code, 0);
  ASSERT_EQ(train("", "--out many --resume --set train.steps=20").code, 0);
  const Outcome last = train(launch("openmpi", 4), "--out many --resume");
  ASSERT_EQ(last.code, 0) << last.err;
  const auto weights = [&](const std::string& name) {
    return read_file(temp_.path() / name / "latest" / "model.safetensors");
  };
  EXPECT_EQ(weights("many"), weights("one"));
}

TEST_F(Ranks, OtherNumbersComeClose) {
  if (!there("mpirun.openmpi")) GTEST_SKIP() << "no mpirun here";
  const std::string six = " --set train.batch=6";
  ASSERT_EQ(train("", "--out one" + six).code, 0);
  const Outcome three = train(launch("openmpi", 3), "--out three" + six);
  ASSERT_EQ(three.code, 0) << three.err;
  const auto last_loss = [&](const std::string& name) {
    const std::string text = read_file(temp_.path() / name / "metrics.csv");
    const size_t line = text.rfind('\n', text.size() - 2) + 1;
    size_t at = line;
    for (int i = 0; i < 3; ++i) at = text.find(',', at) + 1;
    return std::stod(text.substr(at));
  };
  EXPECT_NEAR(last_loss("three"), last_loss("one"), 1e-4);
  const Outcome uneven = train(launch("openmpi", 3), "--out uneven");
  EXPECT_EQ(uneven.code, 2) << uneven.err;
  EXPECT_NE(uneven.err.find("3 ranks share 8 micro-batches"), std::string::npos) << uneven.err;
}

TEST_F(Ranks, WhatDoesNotFitTogetherIsNamed) {
  if (!there("mpirun.openmpi")) GTEST_SKIP() << "no mpirun here";
  const std::string program = std::string("'") + program_path() + "' pretrain run.toml --out other";
  const Outcome outcome =
      run({"bash", "-c",
           launch("openmpi", 1) + " " + program + " : -n 1 " + program + " --set train.seed=5"},
          {.folder = temp_.path()});
  EXPECT_NE(outcome.code, 0);
  EXPECT_NE(outcome.err.find("rank 1 has another run file than rank 0"), std::string::npos)
      << outcome.err;
  // A launcher whose library this process does not find.
  const Outcome strange = run({"bash", "-c",
                               std::string("PMI_RANK=0 PMI_SIZE=2 OMPI_COMM_WORLD_SIZE= '") +
                                   program_path() + "' pretrain run.toml --out strange"},
                              {.folder = temp_.path()});
  EXPECT_EQ(strange.code, 5) << strange.err;
}

TEST_F(Ranks, ASilentRankEndsTheRun) {
  if (!there("mpirun.openmpi")) GTEST_SKIP() << "no mpirun here";
  const std::string options = "--out quiet --set train.steps=100000 --set parallel.timeout=4";
  for (const std::string signal : {"STOP", "KILL"}) {
    const Outcome outcome = run(
        {"bash", "-c",
         launch("openmpi", 2) + " '" + program_path() + "' pretrain run.toml " + options +
             (signal == "KILL" ? " --resume" : "") +
             " & job=$!; until [ -e quiet/latest ]; do sleep 0.05; kill -0 $job || exit 9; done; "
             "sleep 0.3; pid=$(pgrep -n -f 'pretrain run.toml --out quiet'); kill -" +
             signal + " $pid; wait $job; code=$?; kill -CONT $pid 2>/dev/null; exit $code"},
        {.folder = temp_.path()});
    EXPECT_NE(outcome.code, 0) << outcome.err;
    EXPECT_NE(outcome.code, 9) << outcome.err;
    if (signal == "STOP") {
      EXPECT_NE(outcome.err.find("says nothing at step"), std::string::npos) << outcome.err;
    }
    EXPECT_EQ(run({program_path(), "verify", "quiet/latest"}, {.folder = temp_.path()}).code, 0);
  }
}

TEST_F(Ranks, DoctorMeasuresMachinesAndLinks) {
  if (!there("mpirun.openmpi")) GTEST_SKIP() << "no mpirun here";
  const Outcome outcome =
      run({"bash", "-c",
           launch("openmpi", 3) + " '" + program_path() + "' doctor --cluster --json --threads 1"},
          {.folder = temp_.path()});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  const Json report = Json::parse(outcome.out, "report");
  ASSERT_EQ(report.at("ranks").items().size(), 3u);
  ASSERT_EQ(report.at("links").items().size(), 3u);
  EXPECT_EQ(report.at("all_reduce").items().size(), 4u);
  for (const Json& rank : report.at("ranks").items()) {
    EXPECT_GT(rank.at("gflops").number(), 0.1);
    EXPECT_GT(rank.at("read_gb_per_s").number(), 0.01);
  }
  for (const Json& link : report.at("links").items()) {
    EXPECT_GT(link.at("gb_per_s").number(), 0);
    EXPECT_TRUE(link.at("same_host").boolean());
  }
}

TEST_F(Ranks, AnEvaluationIsSharedOutByItem) {
  if (!there("mpirun.openmpi")) GTEST_SKIP() << "no mpirun here";
  std::string items;
  for (int i = 0; i < 9; ++i) {
    const std::string n = std::to_string(i);
    items += "{\"id\": \"q" + n + "\", \"question\": \"What is " + n +
             " + 2?\", \"options\": [\"A)" + n + "\", \"B)2\", \"C)7\", \"D)" +
             std::to_string(i + 2) + "\", \"E)90\"], \"rationale\": \"\", \"correct\": \"D\"}\n";
  }
  temp_.write("data/aqua/test.jsonl", items);
  const auto evaluate = [&](const std::string& words, const std::string& name) {
    const Outcome outcome = run(
        {"bash", "-c",
         words + " '" + program_path() + "' eval aqua --data data --base --model '" +
             source("models/quern-mini").string() + "' --cache " + name + ".cache --out " + name},
        {.folder = temp_.path()});
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    // Each item's verdict, without the seconds that it took.
    std::istringstream lines(read_file(temp_.path() / name / "aqua.samples.jsonl"));
    std::string out;
    for (std::string line; std::getline(lines, line);) {
      out += line.substr(0, line.find("\"seconds\"")) + "\n";
    }
    return out;
  };
  const std::string one = evaluate("", "one"), three = evaluate(launch("openmpi", 3), "three");
  EXPECT_EQ(std::ranges::count(one, '\n'), 9);
  EXPECT_EQ(three, one);
  const Outcome refused = run({"bash", "-c",
                               launch("openmpi", 2) + " '" + program_path() +
                                   "' eval aqua --data data --no-cache --model '" +
                                   source("models/quern-mini").string() + "'"},
                              {.folder = temp_.path()});
  EXPECT_EQ(refused.code, 2) << refused.err;
}

}  // namespace
}  // namespace quern::test
