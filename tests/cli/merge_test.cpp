// quern merge.
#include <nlohmann/json.hpp>

#include "cli/program.h"
#include "compute/cpu/cpu_backend.h"
#include "core/json.h"
#include "formats/convert_floats.h"
#include "formats/safetensors.h"
#include "model/config.h"
#include "model/forward.h"
#include "model/weights.h"

namespace quern::test {
namespace {

const std::string kModel = source("tests/fixtures/models/qwen1-lora").string();
const std::string kAdapter = source("tests/fixtures/models/qwen1-lora/adapter").string();

TEST(Merge, MakesACheckpointThatAnswersAsTheAdapterDoes) {
  const TempFolder folder;
  const std::string out = (folder.path() / "merged").string();
  const Outcome merged = quern({"merge", kModel, kAdapter, out});
  ASSERT_EQ(merged.code, 0) << merged.err;
  EXPECT_NE(merged.out.find("10 matrices changed"), std::string::npos) << merged.out;
  EXPECT_EQ(quern({"inspect", out}).code, 0);
  const fs::path ids = folder.write("ids.json", "[[5, 9, 17, 33, 65, 129, 200, 3]]");
  const auto greedy = [&](std::vector<std::string> args) {
    args.insert(args.begin(), "generate");
    for (const char* more : {"--ids-file", ids.c_str(), "-n", "12", "--greedy", "--json"}) {
      args.emplace_back(more);
    }
    const Outcome outcome = quern(args);
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    return Json::parse(outcome.out, "generate").at("ids").raw();
  };
  EXPECT_EQ(greedy({out}), greedy({kModel, "--adapter", kAdapter}));

  const Outcome again = quern({"merge", kModel, kAdapter, out});
  EXPECT_EQ(again.code, 2);
  EXPECT_NE(again.err.find("--force"), std::string::npos) << again.err;
}

// The dequantized weights plus B · A answer as the adapter beside the packed ones does.
TEST(Merge, OfAQuantizedBaseMakesFloatsThatHoldTheAdapter) {
  const fs::path folder = source("tests/fixtures/models/qwen1-qlora");
  const TempFolder temporary;
  const std::string out = (temporary.path() / "merged").string();
  const Outcome merged =
      quern({"merge", folder.string(), (folder / "adapter").string(), out, "--dtype", "fp32"});
  ASSERT_EQ(merged.code, 0) << merged.err;
  const std::string config = read_file(fs::path(out) / "config.json");
  EXPECT_EQ(config.find("quantization_config"), config.npos);
  EXPECT_FALSE(fs::exists(fs::path(out) / "quantize_config.json"));
  EXPECT_EQ(quern({"inspect", out}).code, 0);

  // The definition over the golden of the fixture: the reference computes on dequantized weights.
  const TensorStore golden = TensorStore::open(folder / "golden.safetensors");
  const std::vector<float> expected = to_floats(golden.at("adapter.logits"), "adapter.logits");
  const Config read = load_config(out);
  ThreadPool pool(1);
  CpuBackend backend(pool);
  const LoadedWeights weights = LoadedWeights::load(out, read, {.float32 = true});
  EXPECT_TRUE(weights.unused().empty());
  const auto ids = to_integers(golden.at("input_ids"), "input_ids");
  const auto rows = golden.at("input_ids").shape[0], length = golden.at("input_ids").shape[1];
  Runner runner({backend, read, weights.weights()}, length, length);
  size_t at = 0;
  for (int64_t r = 0; r < rows; ++r) {
    KvCache cache(backend, read, DType::F32, 256, 1);
    Sequence sequence(cache, read, {}, length);
    sequence.reserve(length);
    const std::vector<int32_t> prompt(ids.begin() + r * length, ids.begin() + (r + 1) * length);
    const BatchItem item = {&sequence, prompt, length};
    const MutRows logits = runner.logits(runner.forward({&item, 1}, cache, Runner::Want::All));
    for (int64_t t = 0; t < logits.rows; ++t) {
      for (int64_t i = 0; i < logits.cols; ++i) ASSERT_NEAR(logits.row(t)[i], expected[at++], 1e-3);
    }
    sequence.release();
  }
  EXPECT_EQ(at, expected.size());
}

// Eight bits, zero points of each group, one group in all, groups in the order of activation sizes.
TEST(Merge, OfEveryPackingAnswersAsTheAdapterBesideIt) {
  const fs::path models = source("tests/fixtures/models");
  const std::string adapter = (models / "qwen1-qlora/adapter").string();
  const TempFolder folder;
  const fs::path ids = folder.write("ids.json", "[[5, 9, 17, 33, 65, 129, 200, 3]]");
  const auto greedy = [&](std::vector<std::string> args) {
    args.insert(args.begin(), "generate");
    for (const char* more : {"--ids-file", ids.c_str(), "-n", "12", "--greedy", "--json"}) {
      args.emplace_back(more);
    }
    const Outcome outcome = quern(args);
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    return Json::parse(outcome.out, "generate").at("ids").raw();
  };
  for (const char* name : {"qwen1-gptq-int8", "qwen1-gptq-int4-asym", "qwen1-gptq-int4-nogroup",
                           "qwen1-gptq-int4-actorder"}) {
    const std::string base = (models / name).string(), out = (folder.path() / name).string();
    const Outcome merged = quern({"merge", base, adapter, out, "--dtype", "fp32"});
    ASSERT_EQ(merged.code, 0) << merged.err;
    EXPECT_EQ(greedy({out}), greedy({base, "--adapter", adapter})) << name;
  }
}

// An update that is known, over a GGUF file: the rest is what convert makes.
TEST(Merge, OfAGgufFileStandsOnWhatConvertMakes) {
  const std::string model = source("tests/fixtures/gguf/llama.gguf").string();
  const TempFolder folder;
  const std::string plain = (folder.path() / "plain").string();
  ASSERT_EQ(quern({"convert", model, plain, "--dtype", "fp32"}).code, 0);
  const TensorStore floats = TensorStore::open(plain);
  const std::string module = "model.layers.0.self_attn.q_proj";
  const Shape shape = floats.at(module + ".weight").shape;
  folder.write("adapter/adapter_config.json",
               R"({"peft_type": "LORA", "r": 1, "lora_alpha": 2, "target_modules": ["q_proj"]})");
  // A is ones, B counts its rows: every row r of W grows by 2 · r.
  const std::vector<float> a(static_cast<size_t>(shape[1]), 1.0f);
  std::vector<float> b(static_cast<size_t>(shape[0]));
  for (size_t i = 0; i < b.size(); ++i) b[i] = static_cast<float>(i);
  SafetensorsWriter writer(
      folder.path() / "adapter/adapter_model.safetensors",
      {{"base_model.model." + module + ".lora_A.weight", DType::F32, {1, shape[1]}},
       {"base_model.model." + module + ".lora_B.weight", DType::F32, {shape[0], 1}}});
  writer.write(std::as_bytes(std::span(a)));
  writer.write(std::as_bytes(std::span(b)));
  writer.finish();
  const std::string out = (folder.path() / "merged").string();
  const Outcome merged =
      quern({"merge", model, (folder.path() / "adapter").string(), out, "--dtype", "fp32"});
  ASSERT_EQ(merged.code, 0) << merged.err;
  const TensorStore got = TensorStore::open(out);
  ASSERT_EQ(got.names(), floats.names());
  for (const std::string& name : floats.names()) {
    std::vector<float> expected = to_floats(floats.at(name), name);
    if (name == module + ".weight") {
      const auto cols = static_cast<size_t>(shape[1]);
      for (size_t i = 0; i < expected.size(); ++i) expected[i] += 2 * static_cast<float>(i / cols);
    }
    EXPECT_EQ(to_floats(got.at(name), name), expected) << name;
  }
  const auto config = [](const std::string& made) {
    return nlohmann::json::parse(read_file(fs::path(made) / "config.json"));
  };
  EXPECT_EQ(config(out), config(plain));
}

TEST(Merge, OfAnAdapterOfAnotherShapeIsRefused) {
  const TempFolder folder;
  const std::string out = (folder.path() / "merged").string();
  const Outcome gguf =
      quern({"merge", source("tests/fixtures/gguf/llama.gguf").string(), kAdapter, out});
  EXPECT_EQ(gguf.code, 3);
  EXPECT_NE(gguf.err.find("another model"), std::string::npos) << gguf.err;
  EXPECT_FALSE(fs::exists(out));
}

}  // namespace
}  // namespace quern::test
