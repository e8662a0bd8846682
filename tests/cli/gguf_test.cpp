// GGUF files where checkpoints can stand.
#include "formats/gguf.h"

#include <cmath>

#include "cli/checkpoint.h"
#include "cli/program.h"
#include "core/json.h"
#include "formats/safetensors.h"

namespace quern::test {
namespace {

class Gguf : public ::testing::Test {
 protected:
  std::vector<float> logits(const fs::path& model, const std::string& ids = "[[5, 9, 200, 31]]") {
    const fs::path list = folder.write("ids.json", ids), out = folder.path() / "logits.safetensors";
    const Outcome got = quern(
        {"logits", model.string(), "--ids-file", list.string(), "--out", out.string(), "--force"});
    EXPECT_EQ(got.code, 0) << got.err;
    const SafetensorsFile file(out);
    return to_floats(file.tensors()[0].view, "logits");
  }
  fs::path convert(const fs::path& model, const std::string& type, const char* name = "m.gguf") {
    const fs::path out = folder.path() / name;
    const Outcome made =
        quern({"convert", model.string(), out.string(), "--type", type, "--lossy"});
    EXPECT_EQ(made.code, 0) << made.err;
    return out;
  }

  TempFolder folder;
};

TEST_F(Gguf, ThePackagesLlamaComputesWhatItsCheckpointDoes) {
  const fs::path model = folder.path() / "llama";
  fs::create_directory(model);
  fs::copy_file(source("tests/fixtures/gguf/llama.safetensors"), model / "model.safetensors");
  folder.write("llama/config.json",
               R"({"architectures": ["LlamaForCausalLM"], "hidden_size": 32,
  "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
  "intermediate_size": 64, "vocab_size": 262, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
  "max_position_embeddings": 128, "tie_word_embeddings": false})");
  check_close(logits(source("tests/fixtures/gguf/llama.gguf")), logits(model), {1e-5, 1e-5},
              "logits");
  // And back: our own file of it holds the same again.
  check_close(logits(convert(model, "F16")), logits(model), {1e-5, 1e-5}, "converted");
}

TEST_F(Gguf, EveryFamilyThereAndBack) {
  for (const char* name : {"qwen1-new", "qwen1-odd", "qwen2", "qwen2-tied", "qwen3", "qwen3-untied",
                           "llama2", "llama-gqa"}) {
    const fs::path own = source("tests/fixtures/models") / name;
    const fs::path model = fs::exists(own) ? own : shared("fixtures/models") / name;
    if (!fs::exists(model)) continue;
    // Four ids are below every trained length: NTK and LogN, which GGUF lacks, do not act.
    const fs::path file = convert(model, "F32", (std::string(name) + ".gguf").c_str());
    check_close(logits(file), logits(model), {1e-4, 1e-4}, name);
  }
}

// Those of which a tiny checkpoint is here: the file computes the same, and comes back as it was.
TEST_F(Gguf, EveryOtherFamilyThereAndBack) {
  int tried = 0;
  for (const auto& entry : fs::directory_iterator(source("tests/fixtures/models"))) {
    const std::string name = entry.path().filename();
    if (!name.ends_with("-tiny") || name == "falcon-rw-tiny") continue;
    SCOPED_TRACE(name);
    ++tried;
    const fs::path file = convert(entry.path(), "F32", (name + ".gguf").c_str());
    const std::vector<float> want = logits(entry.path(), "[[5, 9, 100, 31]]");
    check_close(logits(file, "[[5, 9, 100, 31]]"), want, {2e-4, 1e-4}, "the file");
    const fs::path back = folder.path() / (name + "-back");
    const Outcome made = quern({"convert", file.string(), back.string()});
    ASSERT_EQ(made.code, 0) << made.err;
    check_close(logits(back, "[[5, 9, 100, 31]]"), want, {2e-4, 1e-4}, "back");
  }
  EXPECT_GE(tried, 25);
  const Outcome refused = quern({"convert", source("tests/fixtures/models/falcon-rw-tiny").string(),
                                 (folder.path() / "x.gguf").string(), "--lossy"});
  EXPECT_EQ(refused.code, 5);
  EXPECT_NE(refused.err.find("ALiBi"), std::string::npos) << refused.err;
}

// Blocks of few bits keep their order where rows of q and k, or of fused matrices, have another one.
TEST_F(Gguf, FewBitsOfEveryOrderOfRows) {
  for (const char* name : {"bloom-tiny", "chatglm2-tiny", "falcon40b-tiny", "internlm2-tiny",
                           "baichuan7b-tiny", "mixtral-tiny", "qwen15-moe-tiny"}) {
    const fs::path model = source("tests/fixtures/models") / name;
    const std::vector<float> want = logits(model, "[[5, 9, 100, 31]]");
    const std::vector<float> got = logits(
        convert(model, "Q8_0", (std::string(name) + "-q8.gguf").c_str()), "[[5, 9, 100, 31]]");
    double error = 0, size = 0;
    for (size_t i = 0; i < want.size(); ++i) {
      error += (got[i] - want[i]) * (got[i] - want[i]);
      size += want[i] * want[i];
    }
    EXPECT_LT(std::sqrt(error / size), 0.05) << name;
  }
}

TEST_F(Gguf, TypesLoseWhatTheirBitsSay) {
  const fs::path model = tiny_checkpoint(folder);
  const auto exact = logits(model);
  double last = 0;
  for (const char* type : {"BF16", "F16", "Q8_0", "Q4_0"}) {
    const auto got = logits(convert(model, type, (std::string(type) + ".gguf").c_str()));
    double error = 0, size = 0;
    for (size_t i = 0; i < got.size(); ++i) {
      error += std::pow(double(got[i]) - double(exact[i]), 2);
      size += std::pow(double(exact[i]), 2);
    }
    EXPECT_GE(error, last) << type;
    EXPECT_LT(error, 0.05 * size) << type;
    last = error;
  }
  EXPECT_GT(last, 0);
}

TEST_F(Gguf, Q4KLosesLessThanQ40OnTheShippedModel) {
  const fs::path model = source("models/quern-mini");
  const auto exact = logits(model);
  const auto lost = [&](const char* type) {
    const auto got = logits(convert(model, type, (std::string(type) + ".gguf").c_str()));
    double error = 0;
    for (size_t i = 0; i < got.size(); ++i) {
      error += std::pow(double(got[i]) - double(exact[i]), 2);
    }
    return error;
  };
  const double eight_bits = lost("Q8_0"), with_minima = lost("Q4_K");
  EXPECT_LT(with_minima, lost("Q4_0"));
  EXPECT_GT(with_minima, 4 * eight_bits);  // it is of four bits
}

TEST_F(Gguf, TokenizerSpecialTokensAndTextComeAlong) {
  const fs::path model = tiny_checkpoint(folder);
  const fs::path file = convert(model, "F16");
  const std::string text = "Hello <|im_start|> w\xC3\xB6rld 12";
  const auto ids = [&](const fs::path& where) {
    return run({test::program_path(), "tokenize", where.string()}, {.input = text}).out;
  };
  EXPECT_EQ(ids(file), ids(model));
  const Outcome verified = quern({"verify", file.string()});
  EXPECT_EQ(verified.code, 0) << verified.err;
  EXPECT_NE(verified.out.find("shapes as its metadata implies"), std::string::npos);
  const Outcome inspected = quern({"inspect", file.string(), "--json"});
  EXPECT_EQ(inspected.code, 0) << inspected.err;
  EXPECT_EQ(Json::parse(inspected.out, "out").at("config").at("num_hidden_layers").integer(), 4);
  const Outcome back =
      quern({"convert", file.string(), (folder.path() / "back").string(), "--dtype", "fp16"});
  ASSERT_EQ(back.code, 0) << back.err;
  EXPECT_EQ(ids(folder.path() / "back"), ids(model));
  check_close(logits(folder.path() / "back"), logits(file), {1e-5, 1e-5}, "back");
}

// What GGUF cannot say is refused by name: a file without it would compute something else.
TEST_F(Gguf, NothingIsLostInSilence) {
  const fs::path model = tiny_checkpoint(folder);
  const std::string out = (folder.path() / "m.gguf").string();
  const Outcome refused = quern({"convert", model.string(), out});
  EXPECT_EQ(refused.code, 5);
  EXPECT_NE(refused.err.find("dynamic NTK, LogN"), std::string::npos) << refused.err;
  EXPECT_FALSE(fs::exists(out));
  const Outcome lossy = quern({"convert", model.string(), out, "--lossy"});
  EXPECT_EQ(lossy.code, 0) << lossy.err;
  EXPECT_NE(lossy.err.find("dynamic NTK"), std::string::npos) << lossy.err;
  EXPECT_EQ(read_file(out).substr(0, 4), "GGUF");
}

TEST_F(Gguf, NothingThatIsThereIsReplacedUnasked) {
  const fs::path model = tiny_checkpoint(folder);
  const fs::path file = folder.write("m.gguf", "mine");
  EXPECT_EQ(quern({"convert", model.string(), file.string(), "--lossy"}).code, 2);
  EXPECT_EQ(read_file(file), "mine");
  EXPECT_EQ(quern({"convert", model.string(), file.string(), "--lossy", "--force"}).code, 0);
  EXPECT_NE(read_file(file), "mine");
  const fs::path other = folder.path() / "other";
  EXPECT_EQ(quern({"convert", model.string(), other.string()}).code, 0);
  EXPECT_EQ(quern({"convert", model.string(), other.string()}).code, 2);
  EXPECT_EQ(quern({"convert", model.string(), other.string(), "--force"}).code, 0);
  EXPECT_EQ(quern({"convert", model.string(), model.string(), "--force"}).code, 2);
  fs::remove(other / "config.json");  // now it may be anything
  EXPECT_EQ(quern({"convert", model.string(), other.string(), "--force"}).code, 2);
}

// Qwen's first layout as Qwen2's computes the same where NTK and LogN do not act.
TEST_F(Gguf, TheFirstQwenAsASecond) {
  const fs::path model = tiny_checkpoint(folder);
  const fs::path other = folder.path() / "qwen2";
  const Outcome refused = quern({"convert", model.string(), other.string(), "--family", "qwen2"});
  EXPECT_EQ(refused.code, 5);
  EXPECT_NE(refused.err.find("dynamic NTK, LogN"), std::string::npos) << refused.err;
  const Outcome made =
      quern({"convert", model.string(), other.string(), "--family", "qwen2", "--lossy"});
  ASSERT_EQ(made.code, 0) << made.err;
  check_close(logits(other), logits(model), {1e-5, 1e-5}, "logits");
  const Json config = Json::parse_file((other / "config.json").string());
  EXPECT_EQ(config.at("architectures")[0].string(), "Qwen2ForCausalLM");
  const auto ids = [&](const fs::path& where) {
    return run({test::program_path(), "tokenize", where.string()}, {.input = "Hello w 12"}).out;
  };
  EXPECT_EQ(ids(other), ids(model));
  EXPECT_EQ(quern({"convert", other.string(), (folder.path() / "q.gguf").string()}).code, 0);
  EXPECT_EQ(
      quern({"convert", other.string(), (folder.path() / "x").string(), "--family", "qwen2"}).code,
      2);
}

TEST_F(Gguf, NotEverythingConverts) {
  const fs::path model = tiny_checkpoint(folder);
  EXPECT_EQ(quern({"convert", model.string(), (folder.path() / "m.gguf").string(), "--to", "gguf",
                   "--type", "Q9"})
                .code,
            2);
  EXPECT_EQ(quern({"convert", model.string(), (folder.path() / "m").string(), "--to", "gguf"}).code,
            2);
  EXPECT_EQ(
      quern({"convert", model.string(), (folder.path() / "m.gguf").string(), "--to", "safetensors"})
          .code,
      2);
  fill_tensor(model / "model.safetensors", "transformer.h.1.mlp.w2.weight", std::nanf(""));
  const Outcome out =
      quern({"convert", model.string(), (folder.path() / "m.gguf").string(), "--lossy"});
  EXPECT_EQ(out.code, 3);
  EXPECT_NE(out.err.find("transformer.h.1.mlp.w2.weight"), std::string::npos);
  EXPECT_FALSE(fs::exists(folder.path() / "m.gguf"));
}

}  // namespace
}  // namespace quern::test
