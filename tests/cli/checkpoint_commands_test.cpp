// init, inspect, verify, convert, doctor, bench.

#include <cmath>
#include <cstring>
#include <limits>

#include "cli/checkpoint.h"
#include "cli/program.h"
#include "core/json.h"
#include "formats/safetensors.h"

namespace quern::test {
namespace {

// The one line that a bad input ends in: exit code 3, and every part in the line.
void expect_refused(const Outcome& outcome, const std::vector<std::string>& parts) {
  EXPECT_EQ(outcome.code, 3) << outcome.out << outcome.err;
  EXPECT_EQ(std::count(outcome.err.begin(), outcome.err.end(), '\n'), 1) << outcome.err;
  for (const std::string& part : parts) {
    EXPECT_NE(outcome.err.find(part), std::string::npos) << part << " in: " << outcome.err;
  }
}

void expect_same_tensors(const fs::path& first, const fs::path& second) {
  const TensorStore one = TensorStore::open(first), other = TensorStore::open(second);
  ASSERT_EQ(one.names(), other.names());
  for (const std::string& name : one.names()) {
    const ConstTensorView a = one.at(name), b = other.at(name);
    EXPECT_EQ(a.dtype, b.dtype) << name;
    EXPECT_EQ(a.shape, b.shape) << name;
    ASSERT_EQ(a.size_bytes(), b.size_bytes()) << name;
    EXPECT_EQ(std::memcmp(a.data, b.data, a.size_bytes()), 0) << name;
  }
}

TEST(Init, TheSameSeedGivesTheSameFileWhateverTheThreads) {
  const TempFolder folder;
  const auto hash = [&](const std::string& name, const std::string& seed,
                        const std::string& threads) {
    const fs::path out = folder.path() / name;
    EXPECT_EQ(
        quern({"init", out.string(), "--preset", "tiny", "--seed", seed, "--threads", threads})
            .code,
        0);
    return sha256_file(out / "model.safetensors");
  };
  const std::string first = hash("a", "1", "1");
  EXPECT_EQ(hash("b", "1", "2"), first);
  EXPECT_NE(hash("c", "2", "1"), first);
}

TEST(Init, MakesACompleteFolderThatVerifies) {
  const TempFolder folder;
  const fs::path model = tiny_checkpoint(folder);
  for (const char* name :
       {"config.json", "generation_config.json", "model.safetensors", "bytes.tiktoken"}) {
    EXPECT_TRUE(fs::exists(model / name)) << name;
  }
  EXPECT_EQ(quern({"verify", model.string()}).code, 0);
}

TEST(Init, LeavesAFolderThatIsThereAlone) {
  const TempFolder folder;
  folder.write("model/precious.txt", "mine");
  const Outcome outcome = quern({"init", (folder.path() / "model").string(), "--preset", "tiny"});
  EXPECT_NE(outcome.code, 0);
  EXPECT_TRUE(fs::exists(folder.path() / "model/precious.txt"));
  EXPECT_NE(outcome.err.find("model"), std::string::npos);
}

TEST(Init, AnUnknownPresetNamesTheKnownOnes) {
  const TempFolder folder;
  const Outcome outcome =
      quern({"init", (folder.path() / "model").string(), "--preset", "qwen-7c"});
  EXPECT_EQ(outcome.code, 2);
  EXPECT_NE(outcome.err.find("qwen-7b"), std::string::npos) << outcome.err;
}

TEST(Init, ADiskThatIsFullIsExitCode4AndLeavesNothing) {
  const TempFolder folder;
  // A limit on the size of files stands in for the disk: 64 KiB of 2 MB.
  const Outcome outcome =
      run({"bash", "-c",
           "trap '' XFSZ; ulimit -f 64; exec '" + std::string(test::program_path()) + "' init '" +
               (folder.path() / "model").string() + "' --preset tiny"});
  EXPECT_EQ(outcome.code, 4) << outcome.err;
  EXPECT_TRUE(fs::is_empty(folder.path())) << outcome.err;
}

TEST(Inspect, CountsTheMemosParameters) {
  const Json facts = parsed(quern({"inspect", "qwen-7b", "--json"}));
  // Qwen-7B: 32 layers of 4 * 4096 * 4096 + 3 * 4096 * 11008, biases of q, k, v, two norms; a last
  // norm; embedding and output of 151,936 rows.
  constexpr int64_t kLayer = 4 * 4096 * 4096 + 3 * 4096 * 11008 + 3 * 4096 + 2 * 4096;
  constexpr int64_t kTotal = 32 * kLayer + 4096 + 2 * int64_t{151'936} * 4096;
  EXPECT_EQ(facts.at("parameters").at("total").integer(), kTotal);
  EXPECT_EQ(facts.at("weight_bytes").at("bf16").integer(), 2 * kTotal);
  // Keys and values of 32 layers, 4,096 wide.
  EXPECT_EQ(facts.at("kv_bytes_per_token").at("fp16").integer(), 2 * 32 * 4096 * 2);
}

TEST(Inspect, PartsAddUpToTheTotal) {
  const Json parameters = parsed(quern({"inspect", "mini", "--json"})).at("parameters");
  int64_t sum = 0;
  for (const auto& [part, count] : parameters.at("by_part").members()) sum += count.integer();
  EXPECT_EQ(sum, parameters.at("total").integer());
}

TEST(Verify, NamesATensorWithNumbersThatAreNotFinite) {
  const TempFolder folder;
  const fs::path model = tiny_checkpoint(folder);
  fill_tensor(model / "model.safetensors", "transformer.ln_f.weight",
              std::numeric_limits<float>::quiet_NaN());
  expect_refused(quern({"verify", model.string()}), {"transformer.ln_f.weight", "not finite"});
  expect_refused(quern({"verify", (model / "model.safetensors").string()}),
                 {"transformer.ln_f.weight", "NaN"});
}

TEST(Verify, KnowsAGitLfsPointer) {
  const TempFolder folder;
  const fs::path model = tiny_checkpoint(folder);
  folder.write("model/model.safetensors",
               "version https://git-lfs.github.com/spec/v1\n"
               "oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\n"
               "size 12345\n");
  expect_refused(quern({"verify", model.string()}), {"model.safetensors", "LFS"});
}

TEST(Verify, NamesWhatIsMissing) {
  const TempFolder folder;
  const fs::path model = tiny_checkpoint(folder);
  fs::remove(model / "bytes.tiktoken");
  expect_refused(quern({"verify", model.string()}), {"model", "tokenizer"});
  fs::remove(model / "config.json");
  expect_refused(quern({"verify", model.string()}), {"config.json"});
  expect_refused(quern({"verify", (folder.path() / "nowhere").string()}), {"nowhere"});
}

TEST(Verify, ComparesShapesWithTheConfiguration) {
  const TempFolder folder;
  const fs::path model = tiny_checkpoint(folder);
  std::string config = read_file(model / "config.json");
  const size_t at = config.find("\"vocab_size\": 1024");
  ASSERT_NE(at, std::string::npos);
  config.replace(at, 18, "\"vocab_size\": 1025");
  folder.write("model/config.json", config);
  expect_refused(quern({"verify", model.string()}), {"1024", "1025", "config.json"});
}

TEST(Verify, AnUnknownArchitectureNamesTheKnownOnes) {
  const TempFolder folder;
  const fs::path model = tiny_checkpoint(folder);
  folder.write("model/config.json",
               R"({"model_type": "mamba", "architectures": ["MambaForCausalLM"]})");
  expect_refused(quern({"verify", model.string()}),
                 {"mamba", "Qwen2ForCausalLM", "LlamaForCausalLM"});
}

TEST(Convert, ToFloat32AndBackIsTheSameFile) {
  const TempFolder folder;
  const fs::path model = tiny_checkpoint(folder);
  const fs::path wide = folder.path() / "wide", back = folder.path() / "back";
  EXPECT_EQ(quern({"convert", model.string(), wide.string(), "--dtype", "fp32"}).code, 0);
  EXPECT_EQ(quern({"convert", wide.string(), back.string(), "--dtype", "bf16"}).code, 0);
  expect_same_tensors(model, back);
  EXPECT_EQ(Json::parse_file((wide / "config.json").string()).at("torch_dtype").string(),
            "float32");
  for (const char* name : {"bytes.tiktoken", "generation_config.json"}) {
    EXPECT_EQ(sha256_file(back / name), sha256_file(model / name)) << name;
  }
}

TEST(Convert, ShardsHoldWhatOneFileHeld) {
  const TempFolder folder;
  const fs::path model = tiny_checkpoint(folder);
  const fs::path sharded = folder.path() / "sharded";
  EXPECT_EQ(quern({"convert", model.string(), sharded.string(), "--shard-size", "1"}).code, 0);
  EXPECT_TRUE(fs::exists(sharded / "model.safetensors.index.json"));
  EXPECT_FALSE(fs::exists(sharded / "model.safetensors"));
  for (const auto& entry : fs::directory_iterator(sharded)) {
    if (entry.path().extension() != ".safetensors") continue;
    EXPECT_LT(entry.file_size(), 1'010'000u);  // a million bytes of tensors and the header
  }
  expect_same_tensors(model, sharded);
}

TEST(Convert, ReadsPickleOnlyWhenToldTo) {
  const TempFolder folder;
  const fs::path pickle = source("tests/fixtures/torch/plain.bin");
  const fs::path out = folder.path() / "out";
  EXPECT_NE(quern({"convert", pickle.string(), out.string()}).code, 0);
  EXPECT_FALSE(fs::exists(out));
  EXPECT_EQ(quern({"convert", pickle.string(), out.string(), "--from-pickle"}).code, 0);
  EXPECT_TRUE(fs::exists(out / "model.safetensors"));
}

// "ab" and "abc" have the ids behind 256 bytes and 208 special tokens.
TEST(Convert, AddedTokensBeginAsTheMeanOfWhatTheyWereMadeOf) {
  const TempFolder folder;
  const fs::path model = tiny_checkpoint(folder);
  const fs::path extra = folder.write("extra.tiktoken", "YWI= 464\nYWJj 465\n");
  const fs::path before = folder.path() / "before", after = folder.path() / "after";
  EXPECT_EQ(quern({"convert", model.string(), before.string(), "--dtype", "fp32"}).code, 0);
  const Outcome grown = quern({"convert", model.string(), after.string(), "--dtype", "fp32",
                               "--extra-vocab", extra.string()});
  EXPECT_EQ(grown.code, 0) << grown.err;
  const TensorStore old = TensorStore::open(before), made = TensorStore::open(after);
  ASSERT_EQ(old.names(), made.names());
  int tables = 0;
  for (const std::string& name : old.names()) {
    const ConstTensorView a = old.at(name), b = made.at(name);
    if (name.find("wte") == name.npos && name.find("lm_head") == name.npos &&
        name.find("embed_tokens") == name.npos) {
      ASSERT_EQ(a.size_bytes(), b.size_bytes()) << name;
      EXPECT_EQ(std::memcmp(a.data, b.data, a.size_bytes()), 0) << name;
      continue;
    }
    ++tables;
    const int64_t rows = a.shape[0], columns = a.shape[1];
    EXPECT_GE(b.shape[0], 466) << name;
    EXPECT_EQ(b.shape[0], std::max<int64_t>(rows, 512)) << name;
    ASSERT_EQ(b.shape[1], columns) << name;
    const auto* from = reinterpret_cast<const float*>(a.data);
    const auto* to = reinterpret_cast<const float*>(b.data);
    for (int64_t row = 0; row < std::min<int64_t>(rows, 464); ++row) {
      for (int64_t k = 0; k < columns; ++k) {
        ASSERT_EQ(to[row * columns + k], from[row * columns + k]) << name << " row " << row;
      }
    }
    const auto mean = [&](std::initializer_list<int64_t> of, int64_t k) {
      double sum = 0;
      for (const int64_t row : of) sum += from[row * columns + k];
      return sum / static_cast<double>(of.size());
    };
    for (int64_t k = 0; k < columns; ++k) {
      ASSERT_NEAR(to[464 * columns + k], mean({'a', 'b'}, k), 1e-6) << name;
      ASSERT_NEAR(to[465 * columns + k], mean({'a', 'b', 'c'}, k), 1e-6) << name;
    }
  }
  EXPECT_EQ(tables, 2);
  EXPECT_EQ(Json::parse_file((after / "config.json").string()).at("vocab_size").integer(),
            made.at("transformer.wte.weight").shape[0]);
}

TEST(Doctor, SaysWhatABugReportNeeds) {
  const Json facts = parsed(quern({"doctor", "--json"}));
  EXPECT_EQ(facts.at("quern").string(), QUERN_VERSION);
  EXPECT_GT(facts.at("read_bandwidth_bytes_per_s").number(), 0);
  EXPECT_GT(facts.at("fma_peak_flop_per_s").number(), 0);
  EXPECT_TRUE(facts.at("libraries").has("OpenSSL"));
}

TEST(Doctor, ObeysAForcedInstructionSetAndRefusesAnUnknownOne) {
  const Json facts = parsed(quern(
      {"doctor", "--json"}, {.input = {}, .variables = {{"QUERN_ISA", "scalar"}}, .folder = {}}));
  EXPECT_EQ(facts.at("instruction_set").string(), "scalar");
  const Outcome outcome =
      quern({"doctor"}, {.input = {}, .variables = {{"QUERN_ISA", "sse9"}}, .folder = {}});
  EXPECT_NE(outcome.code, 0);
  EXPECT_NE(outcome.err.find("sse9"), std::string::npos) << outcome.err;
}

TEST(Bench, SharesAreOfTheMeasuredLimits) {
  const TempFolder folder;
  const Json facts = parsed(quern({"bench", "model", tiny_checkpoint(folder).string(), "--prompt",
                                   "16", "--generate", "4", "--repeat", "1", "--json"}));
  EXPECT_NEAR(facts.at("decode_share_of_bandwidth").number(),
              facts.at("decode_gb_per_s").number() / facts.at("read_bandwidth_gb_per_s").number(),
              1e-9);
  EXPECT_NEAR(facts.at("prefill_share_of_fma_peak").number(),
              facts.at("prefill_gflop_per_s").number() / facts.at("fma_peak_gflop_per_s").number(),
              1e-9);
}

}  // namespace
}  // namespace quern::test
