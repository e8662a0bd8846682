// Fine-tuning as users run it: a PEFT folder out of conversations, resumed, cut and threaded to the
// same bytes, refused where a setting means nothing.
#include "cli/checkpoint.h"
#include "cli/program.h"
#include "core/file.h"
#include "core/json.h"
#include "formats/safetensors.h"

namespace quern::test {
namespace {

class Finetune : public testing::Test {
 protected:
  TempFolder temp_;

  void SetUp() override {
    tiny_checkpoint(temp_);
    std::string records;
    for (int i = 0; i < 60; ++i) {
      records += "{\"messages\": [{\"role\": \"user\", \"content\": \"What is " +
                 std::to_string(i % 7) +
                 "?\"}, {\"role\": \"assistant\", \"content\": \"It is a number.\"}]}\n";
    }
    temp_.write("chats.jsonl", records);
    temp_.write("run.toml", R"(
[model]
init_from = "model"
[data]
seq = 128
train = [ { files = ["chats.jsonl"], mask = "assistant" } ]
valid = [ { files = ["chats.jsonl"], name = "same", mask = "assistant" } ]
[lora]
rank = 4
dropout = 0.1
[train]
steps = 10
batch = 4
precision = "fp32"
[optimizer]
learning_rate = 1e-2
warmup = 1
schedule = "constant"
[checkpoint]
every = 5
[validation]
every = 5
)");
  }

  Outcome run(std::vector<std::string> arguments) {
    return quern(std::move(arguments), {.folder = temp_.path()});
  }
  Outcome tune(const std::string& out, const std::vector<std::string>& more = {}) {
    std::vector<std::string> arguments = {"finetune", "run.toml", "--out", out};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return run(arguments);
  }
  std::vector<std::string> hashes(const std::string& out) {
    std::vector<std::string> sums;
    for (const char* file : {"adapter_model.safetensors", "optimizer.safetensors"}) {
      sums.push_back(sha256_file(temp_.path() / out / "latest" / file));
    }
    return sums;
  }
  // The losses of the validation, in order.
  std::vector<double> validation(const std::string& out) {
    std::vector<double> losses;
    std::istringstream file(read_file(temp_.path() / out / "validation.csv"));
    std::string line;
    std::getline(file, line);
    while (std::getline(file, line)) {
      size_t at = 0;
      for (int comma = 0; comma < 3; ++comma) at = line.find(',', at) + 1;
      losses.push_back(std::stod(line.substr(at)));
    }
    return losses;
  }
  void expect_refused(const std::vector<std::string>& set, const std::vector<std::string>& parts,
                      int code = 3) {
    std::vector<std::string> more;
    for (const std::string& one : set) more.insert(more.end(), {"--set", one});
    const Outcome outcome = tune("bad", more);
    EXPECT_EQ(outcome.code, code) << outcome.err;
    for (const std::string& part : parts) {
      EXPECT_NE(outcome.err.find(part), std::string::npos) << part << " is not in: " << outcome.err;
    }
  }
};

TEST_F(Finetune, LearnsAndLeavesAnAdapterInPeftsLayout) {
  const Outcome outcome = tune("run", {"--set", "train.steps=20"});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  const std::vector<double> losses = validation("run");
  ASSERT_EQ(losses.size(), 4U);
  EXPECT_LT(losses.back(), losses.front() - 0.1);

  const fs::path folder = temp_.path() / "run" / "latest";
  const Json config = Json::parse_file((folder / "adapter_config.json").string());
  EXPECT_EQ(config.at("peft_type").string(), "LORA");
  EXPECT_EQ(config.at("r").integer(), 4);
  const Json base = Json::parse_file((folder / "base.json").string());
  EXPECT_EQ(base.at("weights_sha256").string(),
            sha256_file(temp_.path() / "model" / "model.safetensors"));
  for (const std::string& name : TensorStore::open(folder / "adapter_model.safetensors").names()) {
    EXPECT_TRUE(name.starts_with("base_model.model.")) << name;
    EXPECT_TRUE(name.ends_with(".lora_A.weight") || name.ends_with(".lora_B.weight")) << name;
  }
  const Outcome text =
      run({"generate", "model", "--adapter", "run/latest", "It", "-n", "4", "--greedy"});
  EXPECT_EQ(text.code, 0) << text.err;
}

TEST_F(Finetune, TheSameBytesResumedThreadedAndCut) {
  ASSERT_EQ(tune("whole").code, 0);
  ASSERT_EQ(tune("parts", {"--set", "train.steps=5"}).code, 0);
  const Outcome resumed = tune("parts", {"--resume"});
  ASSERT_EQ(resumed.code, 0) << resumed.err;
  EXPECT_EQ(hashes("parts"), hashes("whole"));
  ASSERT_EQ(tune("one", {"--threads", "1"}).code, 0);
  EXPECT_EQ(hashes("one"), hashes("whole"));
  ASSERT_EQ(tune("cut", {"--set", "train.micro_batch=2"}).code, 0);
  EXPECT_EQ(hashes("cut"), hashes("whole"));
  ASSERT_EQ(tune("noisy", {"--set", "tune.neftune_alpha=5"}).code, 0);
  EXPECT_NE(hashes("noisy"), hashes("whole"));
}

TEST_F(Finetune, ABaseThatChangedIsNotResumedOver) {
  ASSERT_EQ(tune("run", {"--set", "train.steps=5"}).code, 0);
  const std::string name = TensorStore::open(temp_.path() / "model").names().front();
  fill_tensor(temp_.path() / "model" / "model.safetensors", name, 0.5f);
  const Outcome resumed = tune("run", {"--resume"});
  EXPECT_EQ(resumed.code, 3) << resumed.err;
  EXPECT_NE(resumed.err.find("base.json"), std::string::npos) << resumed.err;
}

TEST_F(Finetune, AllParametersMakeAModel) {
  temp_.write("full.toml",
              "[model]\ninit_from = \"model\"\n[tune]\nmethod = \"full\"\n[data]\nseq = 128\n"
              "train = [ { files = [\"chats.jsonl\"] } ]\n[train]\nsteps = 2\nbatch = 2\n");
  const Outcome outcome = run({"finetune", "full.toml", "--out", "full"});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_TRUE(fs::exists(temp_.path() / "full" / "latest" / "model.safetensors"));
  EXPECT_EQ(run({"generate", "full/latest", "It", "-n", "2", "--greedy"}).code, 0);
}

TEST_F(Finetune, BadSettingsAreNamed) {
  expect_refused({"lora.rank=0"}, {"rank"});
  expect_refused({"lora.targets=[\"c_atn\"]"}, {"c_atn", "names no matrix", "c_attn"});
  expect_refused({"lora.targets=[\"lm_head\"]"}, {"lm_head", "saved_modules"});
  expect_refused({"lora.use_dora=true"}, {"use_dora", "DoRA"}, 5);
  expect_refused({"tune.method=full"}, {"lora", "full"});
  expect_refused({"tune.method=dora"}, {"'dora'", "expected lora, full or dpo"});
  expect_refused({"data.train=[{files=[\"chats.jsonl\"], mask=\"all\"}]"}, {"'all'", "memo"});
  const Outcome other = run({"pretrain", "run.toml"});
  EXPECT_EQ(other.code, 3);
  EXPECT_NE(other.err.find("quern finetune"), std::string::npos) << other.err;
}

TEST_F(Finetune, BadConversationsAreCountedOrStopTheRun) {
  temp_.write("chats.jsonl", read_file(temp_.path() / "chats.jsonl") +
                                 "{\"messages\": [{\"role\": \"robot\", \"content\": \"a\"}]}\n");
  const Outcome counted = tune("run", {"--set", "train.steps=1"});
  EXPECT_EQ(counted.code, 0) << counted.err;
  EXPECT_NE(counted.err.find("1 as bad"), std::string::npos) << counted.err;
  EXPECT_NE(counted.err.find("robot"), std::string::npos) << counted.err;
  expect_refused({"data.train=[{files=[\"chats.jsonl\"], strict=true}]"}, {"line 61", "robot"});
}

}  // namespace
}  // namespace quern::test
