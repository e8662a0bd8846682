// Low-rank tuning on conversations: an adapter that learns, and the same bytes however the run is
// stopped, threaded and cut.
#include "compute/cpu/cpu_training_backend.h"
#include "core/json.h"
#include "data/pack_chats.h"
#include "formats/adapter_config.h"
#include "formats/safetensors.h"
#include "support/byte_tokenizer.h"
#include "support/support.h"
#include "train/adapter_files.h"
#include "train/pretrain.h"

namespace quern {
namespace {

class Validations : public RunObserver {
 public:
  std::vector<double> losses;
  void validated(const ValidationReport& report) override { losses.push_back(report.loss); }
};

class LoraRuns : public testing::Test {
 protected:
  test::TempFolder temp_;
  ThreadPool pool_{2};
  std::unique_ptr<Dataset> data_;

  void SetUp() override {
    std::string records;
    for (int i = 0; i < 40; ++i) {
      records += "{\"messages\": [{\"role\": \"user\", \"content\": \"What is " +
                 std::to_string(i % 7) +
                 "?\"}, {\"role\": \"assistant\", \"content\": \"A number.\"}]}\n";
    }
    const auto tokenizer = test::byte_tokenizer();
    const ChatMl format(*tokenizer);
    const fs::path set = temp_.path() / "set";
    fs::create_directory(set);
    const ChatPackReport packed = pack_chats({temp_.write("chats.jsonl", records)}, *tokenizer,
                                             ChatLabeller(*tokenizer, format, ChatMask::Assistant),
                                             set, {.max_length = 128}, pool_, [] {});
    EXPECT_EQ(packed.conversations, 40);
    data_ = std::make_unique<Dataset>(set, pool_);

    // The base: a step of pretraining over nothing but its random weights.
    temp_.write("config.json", R"({"architectures": ["QWenLMHeadModel"], "model_type": "qwen",
      "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "kv_channels": 16,
      "intermediate_size": 96, "vocab_size": 512, "seq_length": 128,
      "max_position_embeddings": 128, "layer_norm_epsilon": 1e-6, "rotary_emb_base": 10000,
      "rotary_pct": 1.0, "no_bias": true, "use_dynamic_ntk": false, "use_logn_attn": false,
      "tie_word_embeddings": false})");
    const fs::path file = temp_.write(
        "base.toml",
        "[model]\nconfig = \"config.json\"\ntokenizer = \"none\"\n[data]\nseq = 64\n"
        "train = [{path = \"set\"}]\n[train]\nsteps = 1\nbatch = 1\nprecision = \"fp32\"\n");
    const RunConfig base = load_run_config(file, {});
    train(temp_.path() / "base", base, pool_, false, nullptr);
  }

  RunConfig config(std::vector<std::string> overrides = {}) {
    const fs::path file = temp_.write("run.toml", R"(
[model]
init_from = "base/latest"
tokenizer = "none"
[data]
seq = 128
train = [ { path = "set" } ]
valid = [ { path = "set", name = "same" } ]
[lora]
rank = 4
dropout = 0.1
[train]
steps = 6
batch = 4
precision = "fp32"
[optimizer]
learning_rate = 1e-2
warmup = 1
schedule = "constant"
[checkpoint]
every = 3
[validation]
every = 3
)");
    return load_run_config(file, overrides, RunKind::Finetune);
  }

  void train(const fs::path& run, const RunConfig& config, ThreadPool& pool, bool resumed,
             Validations* observer) {
    Validations own;
    fs::create_directories(run);
    CpuTrainingBackend backend(pool);
    std::vector<const Dataset*> valid;
    if (!config.valid.empty()) valid.push_back(data_.get());
    Pretraining training(backend, config, {data_.get()}, valid,
                         observer != nullptr ? *observer : own);
    training.run(run, resumed, [](const fs::path&) {});
  }
  std::vector<std::string> tune(const char* name, const RunConfig& config, int threads = 2,
                                bool resumed = false) {
    const fs::path run = temp_.path() / name;
    ThreadPool pool(threads);
    train(run, config, pool, resumed, nullptr);
    return {sha256_file(run / "latest" / kAdapterWeights),
            sha256_file(run / "latest" / "optimizer.safetensors")};
  }
};

TEST_F(LoraRuns, TheLossFallsAndTheAdapterIsPefts) {
  Validations observer;
  const RunConfig longer = config({"train.steps=12"});
  train(temp_.path() / "run", longer, pool_, false, &observer);
  ASSERT_GE(observer.losses.size(), 2U);
  EXPECT_LT(observer.losses.back(), observer.losses.front());

  const fs::path folder = temp_.path() / "run" / "latest";
  const AdapterConfig adapter = read_adapter_config(folder);
  EXPECT_EQ(adapter.rank, 4);
  EXPECT_EQ(adapter.target_modules, (std::vector<std::string>{"c_attn", "c_proj", "w1", "w2"}));
  EXPECT_EQ(Json::parse_file((folder / "base.json").string()).at("weights_sha256").string(),
            sha256_file(temp_.path() / "base" / "latest" / "model.safetensors"));
  // The loader of inference takes it.
  EXPECT_NO_THROW(LoadedWeights::load(longer.init_from, longer.model, {.adapters = {folder}}));
}

TEST_F(LoraRuns, TheSameBytesResumedThreadedAndCut) {
  const std::vector<std::string> whole = tune("whole", config());
  tune("parts", config({"train.steps=3"}));
  EXPECT_EQ(tune("parts", config(), 2, true), whole);
  EXPECT_EQ(tune("one", config(), 1), whole);
  EXPECT_EQ(tune("cut", config({"train.micro_batch=2"})), whole);
  EXPECT_NE(tune("noisy", config({"tune.neftune_alpha=5"})), whole);
  EXPECT_NE(tune("dry", config({"lora.dropout=0"})), whole);
}

TEST_F(LoraRuns, AnotherBaseIsNotResumedOver) {
  tune("run", config({"train.steps=3"}));
  EXPECT_THROW(check_base(temp_.path() / "run" / "latest", std::string(64, '0')), Error);
}

TEST_F(LoraRuns, BadSettingsAreNamed) {
  for (const char* bad : {"lora.rank=0", "lora.targets=[\"c_atn\"]", "lora.targets=[\"lm_head\"]",
                          "lora.use_dora=true", "tune.method=full", "tune.method=dora"}) {
    EXPECT_THROW(config({bad}), Error) << bad;
  }
}

}  // namespace
}  // namespace quern
