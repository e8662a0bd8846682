// quern quantize and quern compare, as a user meets them.
#include <signal.h>
#include <spawn.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <set>
#include <thread>

#include "cli/checkpoint.h"
#include "cli/program.h"
#include "compute/cpu/cpu_backend.h"
#include "core/json.h"
#include "formats/gptq.h"
#include "formats/safetensors.h"
#include "model/config.h"
#include "model/tensors.h"

extern char** environ;

namespace quern::test {
namespace {

std::string prose() {
  std::string text;
  for (int i = 0; text.size() < 20'000; ++i) {
    text += "All happy families are alike; number " + std::to_string(i * i) + " is not. ";
  }
  return text;
}

class Quantize : public ::testing::Test {
 protected:
  Quantize() : model(tiny_checkpoint(folder)), text(folder.write("prose.txt", prose())) {}

  std::vector<std::string> gptq(const fs::path& out, std::vector<std::string> more = {}) const {
    std::vector<std::string> all = {
        "quantize",      model.string(), out.string(), "--to", "int4",     "--group", "8",
        "--calibration", text.string(),  "--samples",  "4",    "--length", "64"};
    all.insert(all.end(), more.begin(), more.end());
    return all;
  }
  fs::path path(const char* name) const { return folder.path() / name; }
  void kill_and_go_on(std::vector<std::string> slow) const;

  TempFolder folder;
  fs::path model, text;
};

// The checkpoint that a quantized one stands for, by the packing's definition (fixtures: README).
void write_dequantized(const fs::path& from, const fs::path& to) {
  fs::create_directories(to);
  for (const auto& entry : fs::directory_iterator(from)) {
    if (entry.path().extension() == ".tiktoken") {
      fs::copy_file(entry.path(), to / entry.path().filename());
    }
  }
  const Config config = load_config(from);
  const auto gptq = read_gptq_config(from);
  const TensorStore store = TensorStore::open(from);
  Config plain = config;
  plain.dtype = DType::F32;
  write_file(to / "config.json", dump(to_json(plain)));
  std::vector<PlannedTensor> plan;
  for (const TensorSpec& spec : tensor_specs(config)) {
    plan.push_back({spec.name, DType::F32, spec.shape});
  }
  SafetensorsWriter writer(to / "model.safetensors", plan);
  for (const TensorSpec& spec : tensor_specs(config)) {
    std::vector<float> values(static_cast<size_t>(spec.shape.count()));
    if (const auto packed = store.find(spec.module + ".qweight");
        packed && spec.role != Role::Bias) {
      const int bits = gptq->bits, per = 32 / bits;
      const uint32_t mask = (1u << bits) - 1;
      const auto qweight = packed->as<int32_t>();
      const auto qzeros = store.at(spec.module + ".qzeros").as<int32_t>();
      const auto scales = store.at(spec.module + ".scales").as<uint16_t>();
      const auto g_idx = store.at(spec.module + ".g_idx").as<int32_t>();
      const auto out = static_cast<size_t>(spec.shape[0]), in = static_cast<size_t>(spec.shape[1]);
      for (size_t j = 0; j < out; ++j) {
        for (size_t i = 0; i < in; ++i) {
          const size_t g = static_cast<size_t>(g_idx[i]), p = static_cast<size_t>(per);
          const uint32_t q =
              static_cast<uint32_t>(qweight[i / p * out + j]) >> (size_t(bits) * (i % p)) & mask;
          const uint32_t z =
              (static_cast<uint32_t>(qzeros[g * (out / p) + j / p]) >> (size_t(bits) * (j % p)) &
               mask) +
              1;
          values[j * in + i] =
              from_f16(scales[g * out + j]) * (static_cast<float>(q) - static_cast<float>(z));
        }
      }
    } else {
      values = to_floats(store.at(spec.name), spec.name);
    }
    writer.write(bytes_of(std::span<const float>(values)));
  }
  writer.finish();
}

Json compare_models(const fs::path& a, const fs::path& b, const fs::path& text) {
  const Outcome out = quern({"compare", a.string(), b.string(), "--data", text.string(), "--length",
                             "128", "--limit", "1000", "--json"});
  EXPECT_EQ(out.code, 0) << out.err;
  return Json::parse(out.out, "compare");
}

TEST_F(Quantize, ComputesWhatTheDequantizedMatricesCompute) {
  for (const auto& more : std::vector<std::vector<std::string>>{{},
                                                                {"--act-order"},
                                                                {"--asymmetric"},
                                                                {"--act-order", "--static-groups"},
                                                                {"--keep", "none"},
                                                                {"--to", "int8"},
                                                                {"--group", "-1"}}) {
    const std::string name = more.empty() ? "plain" : more[0] + (more.size() > 1 ? more[1] : "");
    std::vector<std::string> arguments = gptq(path(name.c_str()));
    for (size_t i = 0; i < more.size(); ++i) {
      const auto same = std::find(arguments.begin(), arguments.end(), more[i]);
      if (same != arguments.end()) {
        *(same + 1) = more[++i];
      } else {
        arguments.push_back(more[i]);
      }
    }
    const Outcome made = quern(arguments);
    ASSERT_EQ(made.code, 0) << name << made.err;
    EXPECT_FALSE(fs::exists(path((name + ".quantizing").c_str())));
    write_dequantized(path(name.c_str()), path((name + "-float").c_str()));
    const Json same = compare_models(path((name + "-float").c_str()), path(name.c_str()), text);
    EXPECT_LT(same.at("kl_max").number(), 1e-6) << name;
    // And it is still the model that it was: random logits differ by far more.
    const Json lost = compare_models(model, path(name.c_str()), text);
    EXPECT_LT(lost.at("kl_mean").number(), 0.01) << name;
  }
}

TEST_F(Quantize, GptqLosesLessThanRounding) {
  ASSERT_EQ(quern(gptq(path("solved"), {"--act-order"})).code, 0);
  ASSERT_EQ(
      quern({"quantize", model.string(), path("rounded").string(), "--to", "int4", "--group", "8"})
          .code,
      0);
  EXPECT_LT(compare_models(model, path("solved"), text).at("kl_mean").number(),
            compare_models(model, path("rounded"), text).at("kl_mean").number());
}

TEST_F(Quantize, ReportNamesEveryMatrix) {
  const Outcome made = quern(gptq(path("out"), {"--report", "--json"}));
  ASSERT_EQ(made.code, 0) << made.err;
  const Json matrices = Json::parse(made.out, "report").at("matrices");
  std::set<std::string> named, expected;
  for (const Json& row : matrices.items()) named.insert(row.at("module").string());
  for (int layer = 0; layer < 4; ++layer) {
    for (const char* matrix : {"attn.c_attn", "attn.c_proj", "mlp.w1", "mlp.w2", "mlp.c_proj"}) {
      expected.insert("transformer.h." + std::to_string(layer) + "." + matrix);
    }
  }
  EXPECT_EQ(named, expected);
  EXPECT_EQ(matrices.size(), expected.size());  // none twice
  for (const Json& row : matrices.items()) {
    EXPECT_GT(row.at("weight_error").number(), 0);
    EXPECT_LT(row.at("weight_error").number(), 0.03);
    EXPECT_GT(row.at("output_error").number(), 0);
    EXPECT_LT(row.at("output_error").number(), 0.03);
  }
}

double average_bits(const Json& matrices) {
  double bits = 0, weights = 0;
  for (const Json& row : matrices.items()) {
    const double count = row.at("rows").number() * row.at("cols").number();
    const double b = row.at("bits").number();
    bits += count * (b + (16 + b) / row.at("group").number());
    weights += count;
  }
  return bits / weights;
}

std::vector<std::string> without(std::vector<std::string> arguments, const char* option) {
  const auto at = std::find(arguments.begin(), arguments.end(), option);
  arguments.erase(at, at + 2);
  return arguments;
}

TEST_F(Quantize, TargetBitsChoosesByMatrix) {
  // Groups of 8: four bits take 6.5 with their scales, eight take 11.
  const auto made = [&](const char* name, const char* target) {
    const Outcome out =
        quern(without(gptq(path(name), {"--target-bits", target, "--report", "--json"}), "--to"));
    EXPECT_EQ(out.code, 0) << out.err;
    return Json::parse(out.out, "report").at("matrices");
  };
  const Json matrices = made("mixed", "8");
  EXPECT_LE(average_bits(matrices), 8);
  EXPECT_GT(average_bits(matrices), 7);
  std::set<int64_t> seen;
  for (const Json& row : matrices.items()) seen.insert(row.at("bits").integer());
  EXPECT_EQ(seen, (std::set<int64_t>{4, 8}));
  // Every matrix computes with the bits that it has, in whatever order they come.
  const TensorStore store = TensorStore::open(path("mixed"));
  for (const Json& row : matrices.items()) {
    const int64_t words = store.at(row.at("module").string() + ".qweight").shape[0];
    EXPECT_EQ(words, row.at("cols").integer() * row.at("bits").integer() / 32);
  }
  // What is lost lies between what all matrices at the fewest and at the most bits lose.
  made("least", "6.5");
  made("most", "11");
  const auto lost = [&](const char* name) {
    return compare_models(model, path(name), text).at("kl_mean").number();
  };
  EXPECT_LT(lost("mixed"), lost("least"));
  EXPECT_GT(lost("mixed"), lost("most"));

  const Outcome few = quern(without(gptq(path("few"), {"--target-bits", "6"}), "--to"));
  EXPECT_EQ(few.code, 2);
  EXPECT_NE(few.err.find("takes 6.5 bits a weight at least"), std::string::npos) << few.err;
}

TEST_F(Quantize, EmbeddingAndHeadInEightBits) {
  const Outcome made = quern(gptq(path("out"), {"--embedding", "int8", "--head", "int8", "--report",
                                                "--json", "--to", "int8"}));
  ASSERT_EQ(made.code, 2);  // --to twice
  const Outcome out =
      quern(gptq(path("out"), {"--embedding", "int8", "--head", "int8", "--report", "--json"}));
  ASSERT_EQ(out.code, 0) << out.err;
  const Json matrices = Json::parse(out.out, "report").at("matrices");
  EXPECT_EQ(matrices.size(), 4u * 5u + 2u);
  for (const char* name : {"transformer.wte", "lm_head"}) {
    const TensorStore store = TensorStore::open(path("out"));
    EXPECT_FALSE(store.find(std::string(name) + ".weight"));
    EXPECT_TRUE(store.find(std::string(name) + ".qweight"));
  }
  // Next to nothing is lost against the same model with both in 16 bits.
  ASSERT_EQ(quern(gptq(path("half"))).code, 0);
  EXPECT_LT(compare_models(path("half"), path("out"), text).at("kl_mean").number(), 1e-4);
  EXPECT_EQ(quern(gptq(path("bad"), {"--embedding", "int4"})).code, 2);
}

TEST_F(Quantize, DrawsWhatEachMatrixLost) {
  ASSERT_EQ(quern(gptq(path("out"), {"--plot", path("lost.svg").string()})).code, 0);
  const std::string svg = read_file(path("lost.svg"));
  for (const char* kind : {"attn.c_attn", "attn.c_proj", "mlp.w1", "mlp.w2", "mlp.c_proj"}) {
    EXPECT_NE(svg.find(kind), std::string::npos) << kind;
  }
}

// Kills the command when its first block is done, and runs it again.
void Quantize::kill_and_go_on(std::vector<std::string> slow) const {
  ASSERT_EQ(quern(slow).code, 0);
  slow[2] = path("killed").string();
  std::vector<std::string> command = slow;
  command.insert(command.begin(), test::program_path());
  std::vector<char*> raw;
  for (std::string& word : command) raw.push_back(word.data());
  raw.push_back(nullptr);
  pid_t child = 0;
  ASSERT_EQ(posix_spawn(&child, test::program_path(), nullptr, nullptr, raw.data(), environ), 0);
  const fs::path first = path("killed.quantizing") / "block-00000.safetensors";
  for (int i = 0; i < 60'000 && !fs::exists(first); ++i) ::usleep(500);
  ::kill(child, SIGKILL);
  int status = 0;
  ::waitpid(child, &status, 0);
  ASSERT_TRUE(WIFSIGNALED(status)) << "it was done before it could be killed";
  ASSERT_TRUE(fs::exists(first));
  EXPECT_FALSE(fs::exists(path("killed")));
  // Another job must not go on from there.
  std::vector<std::string> other = slow;
  other.emplace_back("--asymmetric");
  EXPECT_EQ(quern(other).code, 3);
  const Outcome resumed = quern(slow);
  ASSERT_EQ(resumed.code, 0) << resumed.err;
  EXPECT_FALSE(fs::exists(path("killed.quantizing")));
  for (const char* file : {"model.safetensors", "config.json"}) {
    EXPECT_TRUE(read_file(path("whole") / file) == read_file(path("killed") / file)) << file;
  }
}

TEST_F(Quantize, GoesOnAfterKillToTheSameBytes) {
  std::vector<std::string> slow = gptq(path("whole"));
  slow[10] = "64";
  kill_and_go_on(slow);
}

TEST_F(Quantize, GoesOnAfterKillWithTheBitsThatItChose) {
  std::vector<std::string> slow = gptq(path("whole"), {"--target-bits", "8"});
  slow[10] = "64";
  kill_and_go_on(without(slow, "--to"));
}

TEST_F(Quantize, CalibrationTextThatSaysNothing) {
  const auto with = [&](std::string_view content) {
    std::vector<std::string> arguments = gptq(path("out"));
    arguments[8] = folder.write("other.txt", content).string();
    const Outcome out = quern(arguments);
    EXPECT_EQ(out.code, 3);
    EXPECT_FALSE(fs::exists(path("out")));
    return out.err;
  };
  EXPECT_NE(with("").find("other.txt: the calibration text is empty"), std::string::npos);
  EXPECT_NE(with("short").find("has 5 tokens, a sequence takes 64"), std::string::npos);
  EXPECT_NE(with(std::string(500, 'a')).find("one token, 97, over and over"), std::string::npos);
}

TEST_F(Quantize, NanWeightsAreNamed) {
  fill_tensor(model / "model.safetensors", "transformer.h.1.mlp.w2.weight", std::nanf(""));
  const Outcome out = quern(gptq(path("out")));
  EXPECT_EQ(out.code, 3);
  EXPECT_NE(out.err.find("transformer.h.1.mlp.w2.weight"), std::string::npos) << out.err;
  EXPECT_FALSE(fs::exists(path("out")));
}

TEST_F(Quantize, WhatIsQuantizedAlready) {
  ASSERT_EQ(quern(gptq(path("once"))).code, 0);
  const Outcome out = quern(
      {"quantize", path("once").string(), path("twice").string(), "--to", "int8", "--group", "8"});
  EXPECT_EQ(out.code, 3);
  EXPECT_NE(out.err.find("is quantized already (GPTQ int4)"), std::string::npos) << out.err;
}

TEST_F(Quantize, AGgufFileIsRefused) {
  ASSERT_EQ(
      quern({"convert", model.string(), path("model.gguf").string(), "--to", "gguf", "--lossy"})
          .code,
      0);
  const Outcome out =
      quern({"quantize", path("model.gguf").string(), path("out").string(), "--to", "int4"});
  EXPECT_EQ(out.code, 3);
  EXPECT_NE(out.err.find("model.gguf: is a GGUF file"), std::string::npos) << out.err;
}

TEST_F(Quantize, GroupsThatDoNotDivide) {
  const Outcome out =
      quern({"quantize", model.string(), path("out").string(), "--to", "int4", "--group", "128"});
  EXPECT_EQ(out.code, 3);
  EXPECT_NE(out.err.find("groups of 128 do not divide its 344 inputs"), std::string::npos);
  EXPECT_FALSE(fs::exists(path("out.quantizing")));  // from which nothing could go on
}

TEST_F(Quantize, WithoutAGroupTheWidestThatDividesIsTaken) {
  const Outcome out = quern({"quantize", model.string(), path("out").string(), "--to", "int4"});
  ASSERT_EQ(out.code, 0) << out.err;
  EXPECT_TRUE(out.out.starts_with("groups of 8: 128 does not divide the matrices' inputs\n"))
      << out.out;
  EXPECT_EQ(Json::parse_file((path("out") / "config.json").string())
                .at("quantization_config")
                .at("group_size")
                .integer(),
            8);
}

TEST_F(Quantize, ADryRunSaysWhatWouldBeMadeAndMakesNothing) {
  const Json plan = parsed(quern(
      {"quantize", model.string(), path("out").string(), "--to", "int8", "--dry-run", "--json"}));
  EXPECT_EQ(plan.at("matrices").integer(), 4 * 5);
  EXPECT_EQ(plan.at("group").integer(), 8);
  EXPECT_FALSE(fs::exists(path("out")));
  ASSERT_EQ(quern({"quantize", model.string(), path("out").string(), "--to", "int8"}).code, 0);
  uint64_t bytes = 0;
  for (const auto& entry : fs::directory_iterator(path("out"))) {
    if (entry.path().extension() == ".safetensors") bytes += entry.file_size();
  }
  // Names, biases and order of groups come on top of levels, scales and zeros.
  EXPECT_NEAR(static_cast<double>(plan.at("output_bytes").integer()), static_cast<double>(bytes),
              0.1 * static_cast<double>(bytes));
}

TEST_F(Quantize, AStoppedOneSaysWhetherTheSameCommandGoesOn) {
  const std::vector<std::string> words = {
      "quantize", model.string(), path("out").string(), "--to", "int8", "--group", "8"};
  std::string line = "trap '' XFSZ; ulimit -f 100; exec \"$0\" \"$@\"";
  std::vector<std::string> limited = {"/bin/sh", "-c", line, test::program_path()};
  limited.insert(limited.end(), words.begin(), words.end());
  const Outcome stopped = run(limited);
  EXPECT_EQ(stopped.code, 4) << stopped.err;
  const bool begun = fs::exists(path("out.quantizing"));
  EXPECT_EQ(stopped.err.find("the same command goes on from") != std::string::npos, begun)
      << stopped.err;
  EXPECT_EQ(quern(words).code, 0);
}

TEST_F(Quantize, MisuseIsNamed) {
  EXPECT_EQ(quern({"quantize", model.string(), path("out").string(), "--to", "int3"}).code, 2);
  EXPECT_EQ(
      quern({"quantize", model.string(), path("out").string(), "--to", "int4", "--method", "gptq"})
          .code,
      2);
  EXPECT_EQ(
      quern({"quantize", model.string(), path("out").string(), "--to", "int4", "--group", "0"})
          .code,
      2);
}

// No disk of its own is at hand: a limit on the size of files stands in for a full one.
TEST_F(Quantize, AFullDiskLeavesNothingUnderTheFinalName) {
  const Outcome out =
      run({"/bin/sh", "-c", "trap '' XFSZ; ulimit -f 100; exec \"$0\" \"$@\"", test::program_path(),
           "quantize", model.string(), path("out").string(), "--to", "int8", "--group", "8"});
  EXPECT_NE(out.code, 0);
  EXPECT_LT(out.code, 128) << out.err;
  EXPECT_FALSE(fs::exists(path("out")));
}

TEST_F(Quantize, ComparingTellsWhereInTheModelItBegins) {
  ASSERT_EQ(quern(gptq(path("out"), {"--keep", "lm_head,h.0,h.1"})).code, 0);
  const Outcome out =
      quern({"compare", model.string(), path("out").string(), "--data", text.string(), "--length",
             "128", "--limit", "1000", "--json", "--plot", path("lost.svg").string()});
  ASSERT_EQ(out.code, 0) << out.err;
  const Json errors = Json::parse(out.out, "compare").at("block_error");
  ASSERT_EQ(errors.size(), 4u);
  // Two blocks are only rounded to float16.
  EXPECT_LT(errors[1].number(), 1e-5);
  EXPECT_GT(errors[2].number(), 100 * errors[1].number());
  EXPECT_GT(errors[3].number(), errors[2].number());
  const std::string svg = read_file(path("lost.svg"));
  EXPECT_NE(svg.find("KL divergence"), std::string::npos);
  EXPECT_NE(svg.find("behind block"), std::string::npos);
}

TEST_F(Quantize, ComparingAModelWithItselfLosesNothing) {
  const Json same = compare_models(model, model, text);
  EXPECT_EQ(same.at("kl_mean").number(), 0);
  EXPECT_EQ(same.at("top1_agreement").number(), 1);
  EXPECT_EQ(same.at("perplexity_ratio").number(), 1);
  // The perplexity is the one that `quern perplexity` gives.
  const Outcome out = quern({"perplexity", model.string(), text.string(), "--length", "128",
                             "--limit", "1000", "--json"});
  ASSERT_EQ(out.code, 0) << out.err;
  const double expected = Json::parse(out.out, "out").at("results")[0].at("perplexity").number();
  EXPECT_NEAR(same.at("a").at("perplexity").number(), expected, 1e-4 * expected);
}

}  // namespace
}  // namespace quern::test
