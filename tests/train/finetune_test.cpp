// Low-rank tuning on conversations: an adapter that learns, and the same bytes however the run is
// stopped, threaded and cut.
#include "compute/cpu/cpu_training_backend.h"
#include "core/json.h"
#include "data/pack_chats.h"
#include "data/preferences.h"
#include "formats/adapter_config.h"
#include "formats/safetensors.h"
#include "support/byte_tokenizer.h"
#include "support/support.h"
#include "train/adapter_files.h"
#include "train/preference.h"
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

// Pairs of answers: one is always preferred.
class PreferenceRuns : public LoraRuns {
 protected:
  void SetUp() override {
    LoraRuns::SetUp();
    std::string records;
    for (int i = 0; i < 24; ++i) {
      records += "{\"prompt\": \"What is " + std::to_string(i % 7) +
                 "?\", \"chosen\": \"A number.\", \"rejected\": \"A colour!\"}\n";
    }
    const auto tokenizer = test::byte_tokenizer();
    const ChatMl format(*tokenizer);
    const fs::path set = temp_.path() / "pairs";
    fs::create_directory(set);
    const ChatPackReport packed = pack_preferences(
        {temp_.write("pairs.jsonl", records)}, *tokenizer,
        ChatLabeller(*tokenizer, format, ChatMask::Assistant), set, {.max_length = 128}, [] {});
    EXPECT_EQ(packed.conversations, 24);
    data_ = std::make_unique<Dataset>(set, pool_);
  }
  RunConfig pairs(std::vector<std::string> more = {}) {
    std::vector<std::string> overrides = {"tune.method=dpo", "lora.dropout=0",
                                          "data.train=[{files=[\"pairs.jsonl\"]}]",
                                          "data.valid=[{files=[\"pairs.jsonl\"]}]"};
    overrides.insert(overrides.end(), more.begin(), more.end());
    for (std::string& one : overrides) {
      const size_t at = one.find("pairs.jsonl");
      if (at != one.npos) one.insert(at, temp_.path().string() + "/");
    }
    return config(overrides);
  }
  struct Steps : Validations {
    std::vector<StepReport> steps;
    void stepped(const StepReport& report) override { steps.push_back(report); }
  };
};

TEST_F(PreferenceRuns, BeginAtLnTwoAndLearnThePreference) {
  Steps steps;
  train(temp_.path() / "run", pairs({"train.steps=12"}), pool_, false, &steps);
  ASSERT_EQ(steps.steps.size(), 12u);
  // The adapter's B is zero: the model is its reference.
  EXPECT_NEAR(steps.steps[0].loss, std::numbers::ln2, 1e-6);
  EXPECT_NEAR(steps.steps[0].margin, 0, 1e-5);
  EXPECT_LT(steps.steps.back().loss, 0.6);
  EXPECT_GT(steps.steps.back().margin, 0.2);
  EXPECT_EQ(steps.steps.back().accuracy, 1);
  EXPECT_LT(steps.losses.back(), steps.losses.front());
  Steps squared;
  train(temp_.path() / "ipo", pairs({"dpo.loss=ipo", "train.steps=1"}), pool_, false, &squared);
  EXPECT_NEAR(squared.steps[0].loss, 25, 1e-4);  // (1 / (2 * 0.1))^2
}

TEST_F(PreferenceRuns, TheSameBytesResumedAndThreaded) {
  const std::vector<std::string> whole = tune("whole", pairs());
  tune("parts", pairs({"train.steps=3"}));
  EXPECT_EQ(tune("parts", pairs(), 2, true), whole);
  EXPECT_EQ(tune("one", pairs(), 1), whole);
  EXPECT_NE(tune("stronger", pairs({"dpo.beta=0.5"})), whole);
}

TEST_F(PreferenceRuns, BadSettingsAreNamed) {
  for (const char* setting : {"lora.dropout=0.1", "train.dropout=0.1", "tune.neftune_alpha=5",
                              "data.packing=documents", "dpo.loss=hinge", "dpo.trains=some",
                              "dpo.beta=0", "data.train=[{path=\"set\"}]", "tune.method=full"}) {
    EXPECT_THROW(pairs({"dpo.beta=0.2", setting}), Error) << setting;
  }
}

// By the definitions, and by differences.
TEST(PreferenceLoss, HasTheDerivativesOfItsDefinition) {
  for (const bool squared : {false, true}) {
    const TuneOptions::Preference options{.beta = 0.3, .squared = squared};
    PairScores scores{.chosen = -20,
                      .rejected = -35,
                      .reference_chosen = -22,
                      .reference_rejected = -33,
                      .chosen_tokens = 5,
                      .rejected_tokens = 8};
    const PairGradient at = preference_loss(scores, options);
    const double gain = 2 - -2;
    EXPECT_DOUBLE_EQ(at.margin, 0.3 * gain);
    const double by_token = 2.0 / 5 - -2.0 / 8 - 1 / 0.6;
    EXPECT_DOUBLE_EQ(at.loss, squared ? by_token * by_token : std::log(1 + std::exp(-0.3 * gain)));
    constexpr double h = 1e-5;
    const auto loss = [&](double PairScores::*field, double step) {
      PairScores other = scores;
      other.*field += step;
      return preference_loss(other, options).loss;
    };
    for (const auto& [field, slope] :
         {std::pair{&PairScores::chosen, at.by_chosen}, {&PairScores::rejected, at.by_rejected}}) {
      EXPECT_NEAR((loss(field, h) - loss(field, -h)) / (2 * h), slope, 1e-6);
    }
  }
}

// The gradient that training takes is that of the mean loss of the pairs.
TEST_F(PreferenceRuns, TheGradientIsThatOfTheMeanLoss) {
  CpuTrainingBackend backend(pool_);
  const RunConfig run = pairs();
  const Config& model = run.model;
  Parameters weights(backend, model), reference(backend, model),
      sum(backend, model, weights.specs());
  weights.initialize(model, 1);
  reference.initialize(model, 2);
  TrainingPass pass(backend, model, {.batch = 1, .seq = 128, .trained = weights.specs()});
  std::vector<int32_t> ids(4 * 128), labels(ids.size()), starts(ids.size());
  Loader loader({{data_.get(), 1}}, {128, 0, Packing::Pairs, true});
  for (size_t at = 0; at < ids.size(); at += 128) {
    loader.next(std::span(ids).subspan(at, 128), std::span(labels).subspan(at, 128),
                std::span(starts).subspan(at, 128));
  }
  const TrainingBatch rows = {4, 128, ids, labels, {}};
  const TuneOptions::Preference options{.beta = 0.5};
  sum.clear(backend);
  const GradientSink sink{sum};
  preference_pass(pass, weights.weights(), reference.weights(), rows, options, &sink);
  const auto mean_loss = [&] {
    const PreferenceLoss loss =
        preference_pass(pass, weights.weights(), reference.weights(), rows, options, nullptr);
    return loss.loss / static_cast<double>(loss.pairs);
  };
  int checked = 0;
  for (size_t t = 0; t < weights.specs().size(); ++t) {
    const std::span<float> values = weights.tensor(t);
    const std::span<float> gradients = sum.tensor(t);
    const auto largest =
        std::ranges::max_element(gradients, {}, [](float value) { return std::abs(value); });
    const auto i = static_cast<size_t>(largest - gradients.begin());
    if (std::abs(*largest) < 1e-2f) continue;
    const float before = values[i];
    constexpr float h = 1e-2f;
    values[i] = before + h;
    const double above = mean_loss();
    values[i] = before - h;
    const double below = mean_loss();
    values[i] = before;
    EXPECT_NEAR((above - below) / (2 * static_cast<double>(h)), static_cast<double>(*largest),
                0.05 * std::abs(static_cast<double>(*largest)) + 1e-3)
        << weights.specs()[t].name;
    ++checked;
  }
  EXPECT_GT(checked, 3);
}

TEST_F(LoraRuns, AnotherBaseIsNotResumedOver) {
  tune("run", config({"train.steps=3"}));
  EXPECT_THROW(check_base(temp_.path() / "run" / "latest", std::string(64, '0')), Error);
  // At use it is a warning, or with --strict an error; the base itself passes.
  const fs::path adapter = temp_.path() / "run" / "latest";
  const fs::path base = Json::parse_file((adapter / "base.json").string()).at("path").string();
  warn_of_other_base(adapter, base, /*strict=*/true);
  fs::copy(base, temp_.path() / "other", fs::copy_options::recursive);
  const fs::path weights = weight_files(temp_.path() / "other").at(0);
  std::string bytes = read_file(weights);
  bytes.back() = static_cast<char>(bytes.back() ^ 1);
  write_file(weights, bytes);
  warn_of_other_base(adapter, temp_.path() / "other", /*strict=*/false);
  test::expect_error([&] { warn_of_other_base(adapter, temp_.path() / "other", true); },
                     Kind::BadInput, {"other weights", "of hash"});
  write_file(weights, bytes + "x");
  test::expect_error([&] { warn_of_other_base(adapter, temp_.path() / "other", true); },
                     Kind::BadInput, {"other weights", "the model's have"});
}

TEST_F(LoraRuns, BadSettingsAreNamed) {
  for (const char* bad : {"lora.rank=0", "lora.targets=[\"c_atn\"]", "lora.targets=[\"lm_head\"]",
                          "lora.use_dora=true", "tune.method=full", "tune.method=dora"}) {
    EXPECT_THROW(config({bad}), Error) << bad;
  }
}

}  // namespace
}  // namespace quern
