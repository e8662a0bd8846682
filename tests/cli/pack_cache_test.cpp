// --pack-cache: the second start maps what the first one packed, and computes the same.
#include <algorithm>
#include <chrono>

#include "cli/program.h"
#include "core/file.h"

namespace quern::test {
namespace {

class PackCache : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    model_ = folder_.path() / "model";
    if (GetParam() == std::string("gguf")) {
      model_ = folder_.path() / "m.gguf";
      const fs::path shipped = source("models/quern-mini");
      ASSERT_EQ(quern({"convert", shipped.string(), model_.string(), "--to", "gguf", "--lossy",
                       "--type", "Q4_K"})
                    .code,
                0);
      packed_ = folder_.path() / "m.gguf.packed";
    } else {
      fs::copy(source("tests/fixtures/models") / GetParam(), model_);
      packed_ = model_ / "packed.quern";
    }
    exact_ = logits(false, "");
  }
  // The bytes that the command writes; `message`: a part of what it says, or that it says nothing.
  std::string logits(bool keep, const std::string& message) {
    const fs::path ids = folder_.write("ids.json", "[[5, 9, 200, 31]]");
    const fs::path out = folder_.path() / "logits.safetensors";
    std::vector<std::string> command = {"logits", model_.string(), "--ids-file", ids.string(),
                                        "--out",  out.string(),    "--force"};
    if (keep) command.push_back("--pack-cache");
    const Outcome got = quern(command);
    EXPECT_EQ(got.code, 0) << got.err;
    if (message.empty()) {
      EXPECT_EQ(got.err.find("packed"), std::string::npos) << got.err;
    } else {
      EXPECT_NE(got.err.find(message), std::string::npos) << got.err;
    }
    return read_file(out);
  }
  void expect_made_again(const std::string& why) {
    EXPECT_EQ(logits(true, why), exact_) << why;
    EXPECT_EQ(logits(true, ""), exact_) << why;
  }

  TempFolder folder_;
  fs::path model_, packed_;
  std::string exact_;
};

TEST_P(PackCache, IsUsedWhereItFitsAndMadeAgainWhereNot) {
  EXPECT_FALSE(fs::exists(packed_));
  EXPECT_EQ(logits(true, ""), exact_);
  ASSERT_TRUE(fs::exists(packed_));
  const auto made = fs::last_write_time(packed_);
  EXPECT_EQ(logits(true, ""), exact_);
  EXPECT_EQ(fs::last_write_time(packed_), made);

  const std::string bytes = read_file(packed_);
  const auto with = [&](size_t at) {
    std::string damaged = bytes;
    damaged[at] = static_cast<char>(damaged[at] ^ 0x40);
    return damaged;
  };
  write_file(packed_, with(0));
  expect_made_again("no file of packed weights");
  write_file(packed_, with(8));
  expect_made_again("another version");
  write_file(packed_, with(80));
  expect_made_again("damaged");
  write_file(packed_, with(bytes.size() - 100));
  expect_made_again("damaged");
  for (const size_t size : {size_t{0}, size_t{20}, size_t{200}, bytes.size() - 1}) {
    write_file(packed_, bytes.substr(0, size));
    expect_made_again("cut off");
  }
}

TEST_P(PackCache, OfOtherWeightsIsNotUsed) {
  logits(true, "");
  const fs::path weights = fs::is_directory(model_) ? model_ / "model.safetensors" : model_;
  fs::last_write_time(weights, fs::last_write_time(weights) + std::chrono::seconds(5));
  expect_made_again("was made from other weights");
}

TEST_P(PackCache, ThatCannotBeWrittenIsDoneWithout) {
  fs::create_directory(packed_);
  EXPECT_EQ(logits(true, packed_.filename().string()), exact_);
  EXPECT_TRUE(fs::is_directory(packed_));
}

INSTANTIATE_TEST_SUITE_P(Models, PackCache,
                         testing::Values("qwen1-gptq-int4", "qwen1-gptq-int4-asym",
                                         "qwen1-gptq-int8", "gguf"),
                         [](const auto& model) {
                           std::string name = model.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

}  // namespace
}  // namespace quern::test
