// A run's TOML file: what it may say, and what is said of what it may not.
#include "train/run_config.h"

#include "support/support.h"

namespace quern {
namespace {

const std::string kLeast = R"(
preset = "tiny"
[model]
tokenizer = "tok"
[data]
train = [ { path = "books" } ]
)";

RunConfig load(const std::string& text, const std::vector<std::string>& overrides = {}) {
  const test::TempFolder folder;
  return load_run_config(folder.write("run.toml", text), overrides);
}

TEST(RunConfig, TheMemosFigures) {
  const RunConfig run = load(R"(
preset = "qwen-7b"
[model]
tokenizer = "qwen.tiktoken"
[data]
train = [ { path = "web" } ]
)");
  EXPECT_EQ(run.model.hidden, 4096);
  EXPECT_EQ(run.model.layers, 32);
  EXPECT_EQ(run.seq, 2048);
  EXPECT_EQ(run.batch, 2048);
  EXPECT_EQ(run.schedule.warmup, 2000);
  EXPECT_DOUBLE_EQ(run.schedule.peak, 3e-4);
  EXPECT_DOUBLE_EQ(run.schedule.floor, 0.1);
  EXPECT_EQ(run.schedule.decline, Decline::Cosine);
  EXPECT_DOUBLE_EQ(run.optimizer.beta_1, 0.9);
  EXPECT_DOUBLE_EQ(run.optimizer.beta_2, 0.95);
  EXPECT_DOUBLE_EQ(run.optimizer.epsilon, 1e-6);
  EXPECT_DOUBLE_EQ(run.optimizer.weight_decay, 0.1);
  EXPECT_DOUBLE_EQ(run.optimizer.clip, 1.0);
  EXPECT_EQ(run.optimizer.decay, Decay::Matrices);
  EXPECT_EQ(run.precision, "bf16");
}

TEST(RunConfig, OverridesGoBeforeTheFileAndTheFileBeforeThePreset) {
  const std::string text = kLeast + "[train]\nsteps = 77\nseed = 5\n";
  EXPECT_EQ(load(text).steps, 77);
  EXPECT_EQ(load(text).batch, 8);  // the preset's
  const RunConfig set = load(text, {"train.steps=5", "data.packing=documents", "optimizer.clip=0.5",
                                    "samples.prompts=[\"a\", \"b\"]"});
  EXPECT_EQ(set.steps, 5);
  EXPECT_EQ(set.schedule.total, 5);
  EXPECT_EQ(set.packing, Packing::Documents);
  EXPECT_DOUBLE_EQ(set.optimizer.clip, 0.5);
  EXPECT_EQ(set.sample_prompts, (std::vector<std::string>{"a", "b"}));
}

TEST(RunConfig, PathsAreSeenFromTheFile) {
  const test::TempFolder folder;
  const RunConfig run = load_run_config(folder.write("run.toml", kLeast), {});
  EXPECT_EQ(run.tokenizer, folder.path() / "tok");
  EXPECT_EQ(run.train[0].path, folder.path() / "books");
  EXPECT_EQ(run.train[0].name, "books");
  const RunConfig set = load_run_config(folder.path() / "run.toml", {"model.tokenizer=other/tok"});
  EXPECT_EQ(set.tokenizer, fs::current_path() / "other/tok");
}

TEST(RunConfig, FilesAreFoundByPattern) {
  const test::TempFolder folder;
  folder.write("a.txt", "x");
  folder.write("b.txt", "x");
  const fs::path file = folder.write("run.toml", R"(
preset = "tiny"
model.tokenizer = "tok"
[[data.train]]
name = "texts"
files = ["*.txt"]
where = { lang = ["en", "fr"], kind = "book" }
)");
  const RunConfig run = load_run_config(file, {});
  ASSERT_EQ(run.train[0].files.size(), 2U);
  EXPECT_EQ(run.train[0].documents.where.size(), 3U);
}

struct BadConfig {
  const char* name;
  std::string text;
  std::vector<std::string> parts;
};

class BadConfigs : public testing::TestWithParam<BadConfig> {};

TEST_P(BadConfigs, AreRefusedNamingTheKey) {
  test::expect_error([] { load(GetParam().text); }, Kind::BadInput, GetParam().parts);
}

INSTANTIATE_TEST_SUITE_P(
    ListF, BadConfigs,
    testing::Values(
        BadConfig{"UnknownTable", kLeast + "[optimiser]\n", {"'optimiser'", "'optimizer'"}},
        BadConfig{"UnknownKey",
                  kLeast + "[optimizer]\nlerning_rate = 1\n",
                  {"optimizer", "'lerning_rate'", "'learning_rate'"}},
        BadConfig{"WrongType", kLeast + "[train]\nsteps = \"many\"\n", {"train.steps", "string"}},
        BadConfig{"FractionOfAStep", kLeast + "[train]\nsteps = 1.5\n", {"train.steps"}},
        BadConfig{
            "Infinite", kLeast + "[optimizer]\nlearning_rate = inf\n", {"optimizer.learning_rate"}},
        BadConfig{"NegativeSteps", kLeast + "[train]\nsteps = -1\n", {"train.steps", "-1"}},
        BadConfig{"NoToml", "preset = \n", {"line 1"}},
        BadConfig{
            "UnknownPreset", "preset = \"huge\"\n", {"'huge'", "known are qwen-7b, mini, memo"}},
        BadConfig{"UnknownModel", "[model]\npreset = \"huge\"\n", {"model.preset", "'huge'"}},
        BadConfig{"NoModel", "[model]\ntokenizer = \"t\"\n", {"model", "names no model"}},
        BadConfig{"NoTokenizer", "preset = \"tiny\"\n", {"model", "names no tokenizer"}},
        BadConfig{"NoData", "preset = \"tiny\"\nmodel.tokenizer = \"t\"\n", {"data", "train"}},
        BadConfig{"NeitherPathNorFiles",
                  "preset = \"tiny\"\nmodel.tokenizer = \"t\"\ndata.train = [ {} ]\n",
                  {"data.train[0]", "neither or both"}},
        BadConfig{"NoSuchFiles",
                  "preset = \"tiny\"\nmodel.tokenizer = \"t\"\ndata.train = [ { files = "
                  "[\"absent-*\"] } ]\n",
                  {"names no file", "absent-*"}},
        BadConfig{"OneNameTwice",
                  "preset = \"tiny\"\nmodel.tokenizer = \"t\"\ndata.train = [ { path = \"a\" }, { "
                  "path = \"b/a\" } ]\n",
                  {"the name 'a'"}},
        BadConfig{"MicroBatchDoesNotDivide",
                  kLeast + "[train]\nmicro_batch = 3\n",
                  {"train.micro_batch", "does not divide batch, 8"}},
        BadConfig{"UnknownPrecision",
                  kLeast + "[train]\nprecision = \"fp8\"\n",
                  {"train.precision", "'fp8'"}},
        BadConfig{
            "LongerThanTheContext", kLeast + "[validation]\nevery = 0\n", {"validation.every"}}),
    [](const auto& instance) { return std::string(instance.param.name); });

TEST(RunConfig, OverridesThatAreNoneAreRefused) {
  test::expect_error([] { load(kLeast, {"train"}); }, Kind::Misused, {"'train'", "KEY=VALUE"});
  test::expect_error([] { load(kLeast, {"trian.steps=1"}); }, Kind::BadInput,
                     {"'trian'", "'train'"});
  test::expect_error([] { load(kLeast, {"train.steps=lots"}); }, Kind::BadInput, {"train.steps"});
}

}  // namespace
}  // namespace quern
