// Whole runs: resumed to the same bytes, whatever became of the process and its checkpoints.
#include "train/pretrain.h"

#include <nlohmann/json.hpp>

#include "compute/cpu/cpu_training_backend.h"
#include "core/json.h"
#include "data/pack.h"
#include "formats/safetensors.h"
#include "support/byte_tokenizer.h"
#include "support/support.h"

namespace quern {
namespace {

class Observer : public RunObserver {
 public:
  int64_t stop_at = -1;
  std::vector<StepReport> steps;
  std::vector<ValidationReport> validations;
  std::vector<int64_t> saves;
  std::function<void(const StepReport&)> on_step;

  void stepped(const StepReport& report) override {
    steps.push_back(report);
    if (on_step) on_step(report);
  }
  void validated(const ValidationReport& report) override { validations.push_back(report); }
  void saved(int64_t step) override { saves.push_back(step); }
  bool wants_stop() override { return steps.back().step == stop_at; }
};

class Runs : public testing::Test {
 protected:
  test::TempFolder temp_;
  ThreadPool pool_{2};
  std::unique_ptr<Dataset> data_;

  void SetUp() override {
    std::string records;
    for (int i = 0; i < 400; ++i) {
      records += "{\"text\": \"the " + std::to_string(i * 37 % 101) + " and the " +
                 std::to_string(i) + "\"}\n";
    }
    const fs::path set = temp_.path() / "set";
    fs::create_directory(set);
    pack({temp_.write("in.jsonl", records)}, *test::byte_tokenizer(), set, {}, pool_,
         [](uint64_t) {});
    data_ = std::make_unique<Dataset>(set, pool_);
  }

  RunConfig config(const std::vector<std::string>& overrides = {}) {
    temp_.write("config.json", R"({"architectures": ["QWenLMHeadModel"], "model_type": "qwen",
      "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "kv_channels": 16,
      "intermediate_size": 96, "vocab_size": 512, "seq_length": 64,
      "max_position_embeddings": 64, "layer_norm_epsilon": 1e-6, "rotary_emb_base": 10000,
      "rotary_pct": 1.0, "no_bias": true, "use_dynamic_ntk": false, "use_logn_attn": false,
      "tie_word_embeddings": false})");
    const fs::path file = temp_.write("run.toml", R"(
[model]
config = "config.json"
tokenizer = "none"
[data]
seq = 32
train = [ { path = "set" } ]
valid = [ { path = "set", name = "all" } ]
[train]
steps = 12
batch = 4
dropout = 0.1
precision = "fp32"
[optimizer]
learning_rate = 1e-2
warmup = 2
[checkpoint]
every = 3
[validation]
every = 6
tokens = 256
)");
    return load_run_config(file, overrides);
  }

  bool train(const fs::path& run, const RunConfig& config, Observer& observer, bool resumed,
             ThreadPool& pool) {
    fs::create_directories(run);
    CpuTrainingBackend backend(pool);
    Pretraining training(backend, config, {data_.get()}, {data_.get()}, observer);
    return training.run(run, resumed, [](const fs::path&) {});
  }
  bool train(const fs::path& run, const RunConfig& config, Observer& observer,
             bool resumed = false) {
    return train(run, config, observer, resumed, pool_);
  }

  // Every file of both checkpoints has the same bytes.
  static void expect_same(const fs::path& a, const fs::path& b) {
    size_t files = 0;
    for (const auto& entry : fs::directory_iterator(a)) {
      EXPECT_EQ(sha256_file(entry.path()), sha256_file(b / entry.path().filename()))
          << entry.path();
      ++files;
    }
    EXPECT_EQ(files, 5U);  // config, model, optimizer, training, manifest
  }
  fs::path folder(const char* name) const { return temp_.path() / name; }
};

TEST_F(Runs, TheLossFalls) {
  Observer observer;
  EXPECT_TRUE(train(folder("run"), config({"train.steps=40"}), observer));
  ASSERT_EQ(observer.steps.size(), 40U);
  EXPECT_GT(observer.steps.front().loss, 5);
  EXPECT_LT(observer.steps.back().loss, 3.5);
  EXPECT_LT(observer.validations.back().loss, observer.validations.front().loss);
}

TEST_F(Runs, AStoppedRunGoesOnToTheSameBytes) {
  Observer whole, first, second;
  EXPECT_TRUE(train(folder("whole"), config(), whole));
  first.stop_at = 5;
  EXPECT_FALSE(train(folder("parts"), config(), first));
  EXPECT_TRUE(train(folder("parts"), config(), second, true));
  EXPECT_EQ(second.steps.front().step, 6);
  expect_same(checkpoint_folder(folder("whole"), 12), checkpoint_folder(folder("parts"), 12));
}

TEST_F(Runs, TheSameBytesForAnyNumberOfThreads) {
  Observer observer;
  train(folder("two"), config(), observer);
  ThreadPool one(1), three(3);
  train(folder("one"), config(), observer, false, one);
  train(folder("three"), config(), observer, false, three);
  expect_same(checkpoint_folder(folder("two"), 12), checkpoint_folder(folder("one"), 12));
  expect_same(checkpoint_folder(folder("two"), 12), checkpoint_folder(folder("three"), 12));
}

TEST_F(Runs, MicroBatchesAddUpToTheBatch) {
  Observer whole, parts;
  train(folder("whole"), config({"train.dropout=0"}), whole);
  train(folder("parts"), config({"train.dropout=0", "train.micro_batch=2"}), parts);
  for (size_t i = 0; i < whole.steps.size(); ++i) {
    EXPECT_NEAR(whole.steps[i].loss, parts.steps[i].loss, 2e-3) << "step " << i;
  }
}

TEST_F(Runs, TheLastCheckpointsAndEveryMthAreKept) {
  Observer observer;
  train(folder("run"),
        config({"checkpoint.every=2", "checkpoint.keep_last=2", "checkpoint.keep_every=4",
                "checkpoint.background=false"}),
        observer);
  EXPECT_EQ(checkpoint_steps(folder("run")), (std::vector<int64_t>{4, 8, 10, 12}));
  EXPECT_EQ(fs::read_symlink(folder("run") / "latest"), "step-00000012");
}

TEST_F(Runs, ABadGradientIsSkippedAndItsIdsAreKept) {
  // The first steps settle the guard; then it finds every norm far too large.
  Observer observer;
  EXPECT_TRUE(train(folder("run"),
                    config({"guard.settle_steps=4", "guard.z_score=1e-9", "guard.max_skips=100",
                            "optimizer.learning_rate=0"}),
                    observer));
  size_t skipped = 0;
  for (const StepReport& step : observer.steps) {
    if (step.verdict == GradientGuard::Verdict::Take) continue;
    ++skipped;
    EXPECT_EQ(step.verdict, GradientGuard::Verdict::Outlier);
    const fs::path file =
        folder("run") / "skipped" / ("step-0000000" + std::to_string(step.step) + ".json");
    if (step.step >= 10) continue;
    const Json dump = Json::parse_file(file.string());
    EXPECT_EQ(dump.at("ids").size(), 128U);
    EXPECT_EQ(dump.at("why").string(), "an outlier");
  }
  EXPECT_GT(skipped, 0U);
}

TEST_F(Runs, ALossThatIsNotFiniteEndsTheRunAndKeepsTheLastCheckpoint) {
  Observer first;
  train(folder("good"), config(), first);
  // A checkpoint whose numbers overflow in the forward pass is where this run begins.
  const fs::path bad = folder("bad");
  fs::copy(checkpoint_folder(folder("good"), 12), bad);
  const TensorStore store = TensorStore::open(checkpoint_folder(folder("good"), 12));
  std::vector<PlannedTensor> plan;
  for (const std::string& name : store.names()) {
    plan.push_back({name, DType::F32, store.at(name).shape});
  }
  {
    SafetensorsWriter writer(bad / "model.safetensors", plan);
    for (const PlannedTensor& tensor : plan) {
      std::vector<float> values = to_floats(store.at(tensor.name), tensor.name);
      for (float& value : values) value *= 1e30f;
      writer.write(bytes_of(std::span<const float>(values)));
    }
    writer.finish();
  }
  Observer observer;
  RunConfig settings = config({"guard.max_skips=3"});
  settings.init_from = bad;
  test::expect_error([&] { train(folder("run"), settings, observer); }, Kind::Failed,
                     {"3 steps in a row", "not finite", "skipped/"});
  EXPECT_EQ(observer.steps.size(), 3U);
  EXPECT_TRUE(fs::exists(folder("run") / "skipped" / "step-00000001.json"));
  EXPECT_EQ(checkpoint_steps(folder("run")), std::vector<int64_t>{});
}

TEST_F(Runs, AnotherProcessMayNotTrainIntoTheFolder) {
  const RunLock lock(temp_.path());
  test::expect_error([&] { RunLock second(temp_.path()); }, Kind::Failed,
                     {temp_.path().string(), "process", "is training into this folder"});
}

class Checkpoints : public Runs {
 protected:
  fs::path run_ = temp_.path() / "run";
  fs::path newest_ = checkpoint_folder(run_, 12), before_ = checkpoint_folder(run_, 9);

  void SetUp() override {
    Runs::SetUp();
    Observer observer;
    train(run_, config(), observer);
  }
  int64_t resumed_step(const std::vector<std::string>& overrides = {}) {
    CpuTrainingBackend backend(pool_);
    const RunConfig settings = config(overrides);
    Parameters parameters(backend, settings.model);
    Optimizer optimizer(backend, settings.model, settings.optimizer);
    return resume(run_, settings, parameters, optimizer).step;
  }
};

TEST_F(Checkpoints, WhatIsNotWholeIsPassedOver) {
  EXPECT_EQ(resumed_step(), 12);
  for (const char* file :
       {"model.safetensors", "optimizer.safetensors", "training.json", "config.json"}) {
    const std::string good = read_file(newest_ / file);
    std::string bad = good;
    bad[bad.size() / 2] = static_cast<char>(bad[bad.size() / 2] ^ 1);  // a checksum that is wrong
    write_file(newest_ / file, bad);
    EXPECT_EQ(resumed_step(), 9) << file;
    write_file(newest_ / file, good.substr(0, good.size() / 2));  // cut short
    EXPECT_EQ(resumed_step(), 9) << file;
    fs::remove(newest_ / file);
    EXPECT_EQ(resumed_step(), 9) << file;
    write_file(newest_ / file, good);
    EXPECT_EQ(resumed_step(), 12) << file;
  }
  // Files of two steps under one name.
  fs::copy_file(before_ / "model.safetensors", newest_ / "model.safetensors",
                fs::copy_options::overwrite_existing);
  EXPECT_EQ(resumed_step(), 9);
  fs::remove(newest_ / "manifest.json");
  EXPECT_EQ(resumed_step(), 9);
}

TEST_F(Checkpoints, WithoutAWholeOneThereIsAClearError) {
  for (const int64_t step : checkpoint_steps(run_)) {
    fs::remove(checkpoint_folder(run_, step) / "manifest.json");
  }
  test::expect_error([&] { resumed_step(); }, Kind::BadInput,
                     {run_.string(), "no whole checkpoint"});
}

TEST_F(Checkpoints, HalfWrittenOnesAndStrangersAreNotCheckpoints) {
  fs::create_directory(run_ / "step-00000099.tmp-1");
  fs::create_directory(run_ / "step-");
  fs::create_directory(run_ / "other");
  EXPECT_EQ(checkpoint_steps(run_).back(), 12);
  EXPECT_EQ(resumed_step(), 12);
  Observer observer;
  train(run_, config({"train.steps=15"}), observer, true);
  EXPECT_FALSE(fs::exists(run_ / "step-00000099.tmp-1"));
}

TEST_F(Checkpoints, OfAnotherModelOrDataAreRefused) {
  test::expect_error([&] { resumed_step({"data.seq=16"}); }, Kind::BadInput,
                     {"training.json", "data/seq"});
  test::expect_error([&] { resumed_step({"model.tokenizer=other"}); }, Kind::BadInput,
                     {"training.json", "model/tokenizer"});
  EXPECT_EQ(resumed_step({"optimizer.learning_rate=1e-4"}), 12);
}

TEST_F(Checkpoints, OfAnotherShapeAreRefusedNamingTheTensor) {
  const std::string before = read_file(temp_.path() / "config.json");
  CpuTrainingBackend backend(pool_);
  RunConfig settings = config();
  settings.model.ffn = 64;
  Parameters parameters(backend, settings.model);
  Optimizer optimizer(backend, settings.model, settings.optimizer);
  test::expect_error([&] { resume(run_, settings, parameters, optimizer); }, Kind::BadInput,
                     {"model.safetensors", "mlp.w1.weight"});
}

TEST_F(Checkpoints, LoadAsModels) {
  EXPECT_EQ(load_config(newest_).hidden, 32);
  EXPECT_EQ(TensorStore::open(newest_).size(), tensor_specs(load_config(newest_)).size());
}

}  // namespace
}  // namespace quern
