// How a GGUF file says that it is to be sampled.
#include "formats/gguf_sampling.h"

#include <nlohmann/json.hpp>

#include "support/gguf_bytes.h"
#include "support/support.h"

namespace quern {
namespace {

using namespace test;  // NOLINT

TEST(GgufSampling, WhatIsWrittenIsReadAgain) {
  const TempFolder folder;
  const fs::path path = folder.path() / "m.gguf";
  GenerationConfig config;
  config.temperature = 0.7;
  config.top_p = 0.95;
  config.top_k = 20;
  config.repetition_penalty = 1.05;
  GgufWriter out(path);
  out.add_string("general.architecture", "llama");
  add_gguf_sampling(out, config);
  out.begin();
  out.finish();
  EXPECT_EQ(
      to_json(read_generation_config(path)),
      (nlohmann::ordered_json{
          {"temperature", 0.7}, {"top_k", 20}, {"top_p", 0.95}, {"repetition_penalty", 1.05}}));
  // A file beside it goes before it.
  folder.write("generation_config.json", R"({"temperature": 0.2, "eos_token_id": 3})");
  const GenerationConfig both = read_generation_config(path);
  EXPECT_EQ(both.temperature, 0.2);
  EXPECT_EQ(both.top_p, 0.95);
  EXPECT_EQ(both.eos_ids, std::vector<int64_t>{3});
}

TEST(GgufSampling, GreedyIsATemperatureOfZero) {
  const TempFolder folder;
  GenerationConfig config;
  config.do_sample = false;
  config.temperature = 0.7;
  GgufWriter out(folder.path() / "m.gguf");
  out.add_string("general.architecture", "llama");
  add_gguf_sampling(out, config);
  out.begin();
  out.finish();
  EXPECT_EQ(read_generation_config(folder.path() / "m.gguf").temperature, 0.0);
}

TEST(GgufSampling, SamplersThatAreNotThereAreNamed) {
  const auto read = [](const std::vector<std::string>& keys) {
    GgufBytes bytes;
    bytes.keys = keys;
    bytes.tensors.clear();
    bytes.data_bytes = 0;
    const TempFolder folder;
    ::testing::internal::CaptureStderr();
    read_gguf_sampling(GgufFile(folder.write("m.gguf", bytes.file())));
    return ::testing::internal::GetCapturedStderr();
  };
  EXPECT_NE(read({kv_f32("general.sampling.xtc_probability", 0.5f)})
                .find("general.sampling.xtc_probability"),
            std::string::npos);
  EXPECT_EQ(read({kv_f32("general.sampling.xtc_probability", 0)}), "");
  EXPECT_NE(read({kv_string("general.sampling.sequence", "k;p;t")}).find("sequence"),
            std::string::npos);
  GgufBytes bytes;
  bytes.keys = {kv_string("general.sampling.temp", "hot")};
  bytes.tensors.clear();
  bytes.data_bytes = 0;
  const TempFolder folder;
  const fs::path path = folder.write("m.gguf", bytes.file());
  expect_error([&] { read_gguf_sampling(GgufFile(path)); }, Kind::BadInput,
               {"general.sampling.temp"});
}

}  // namespace
}  // namespace quern
