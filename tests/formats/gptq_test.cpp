#include "formats/gptq.h"

#include "core/json.h"
#include "support/support.h"

namespace quern {
namespace {

using test::TempFolder;

// A GPTQ matrix of 16 inputs and 8 outputs in groups of 8, with something to change.
struct Members {
  std::vector<int32_t> qweight = std::vector<int32_t>(2 * 8, 0x76543210);
  std::vector<int32_t> qzeros = std::vector<int32_t>(2 * 1, 0x77777777);
  std::vector<uint16_t> scales = std::vector<uint16_t>(2 * 8, 0x3C00);
  std::vector<int32_t> g_idx = {0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1};
  Shape zero_shape = {2, 1};
  bool with_scales = true, with_g_idx = true;
  DType scale_type = DType::F16;

  TensorStore store(const TempFolder& folder) const {
    std::vector<PlannedTensor> plan = {{"m.qweight", DType::I32, {2, 8}},
                                       {"m.qzeros", DType::I32, zero_shape}};
    if (with_g_idx) plan.push_back({"m.g_idx", DType::I32, {16}});
    if (with_scales) plan.push_back({"m.scales", scale_type, {2, 8}});
    SafetensorsWriter writer(folder.path() / "model.safetensors", plan);
    writer.write(bytes_of(std::span(qweight)));
    writer.write(bytes_of(std::span(qzeros)).first(plan[1].bytes()));
    if (with_g_idx) writer.write(bytes_of(std::span(g_idx)));
    if (with_scales) writer.write(bytes_of(std::span(scales)));
    writer.finish();
    return TensorStore::open(folder.path());
  }
  void expect_bad(const std::vector<std::string>& parts) const {
    const TempFolder folder;
    const TensorStore files = store(folder);
    test::expect_error([&] { read_gptq(files, "m", {.bits = 4, .group_size = 8}, 16, 8); },
                       Kind::BadInput, parts);
  }
};

TEST(Gptq, ReadsAGoodMatrix) {
  const TempFolder folder;
  const TensorStore files = Members{}.store(folder);
  const GptqTensors tensors = read_gptq(files, "m", {.bits = 4, .group_size = 8}, 16, 8);
  EXPECT_EQ(tensors.g_idx.as<int32_t>()[15], 1);
}
TEST(Gptq, GroupOutOfRange) {
  Members m;
  m.g_idx[3] = 2;
  m.expect_bad({"m.g_idx has the group 2"});
  m.g_idx[3] = -1;
  m.expect_bad({"m.g_idx has the group -1"});
}
TEST(Gptq, ScaleNotANumberOrZero) {
  Members m;
  m.scales[5] = 0x7E00;
  m.expect_bad({"m.scales has the scale nan"});
  m.scales[5] = 0;
  m.expect_bad({"m.scales has the scale 0"});
}
TEST(Gptq, ZerosOfAnotherWidth) {
  Members m;
  m.zero_shape = {1, 2};
  m.expect_bad({"m.qzeros is I32 [1, 2], expected I32 [2, 1]"});
}
TEST(Gptq, MissingMember) {
  Members m;
  m.with_scales = false;
  m.expect_bad({"lacks the tensor m.scales"});
}
TEST(Gptq, GroupsThatDoNotDivide) {
  const TempFolder folder;
  const TensorStore files = Members{}.store(folder);
  test::expect_error([&] { read_gptq(files, "m", {.bits = 4, .group_size = 12}, 16, 8); },
                     Kind::BadInput, {"groups of 12", "16 inputs"});
}

TEST(GptqConfig, RefusesWhatItCannotRead) {
  const auto expect_bad = [](const std::string& fields, const std::vector<std::string>& parts) {
    const TempFolder folder;
    folder.write("quantize_config.json", "{" + fields + "}");
    test::expect_error([&] { read_gptq_config(folder.path()); }, Kind::BadInput, parts);
  };
  expect_bad("\"bits\": 3", {"bits is 3"});
  expect_bad("\"bits\": 64", {"bits is 64"});
  expect_bad("\"bits\": \"4\"", {"bits is a string"});
  expect_bad("\"group_size\": 128", {"lacks the member 'bits'"});
  expect_bad("\"bits\": 4, \"group_size\": 0", {"group_size is 0"});
  expect_bad("\"bits\": 4, \"quant_method\": \"bitsandbytes\"", {"'bitsandbytes'"});
  expect_bad("\"bits\": 4, \"checkpoint_format\": \"marlin\"", {"'marlin'"});
  expect_bad("\"bits\": 4, \"group_size\": 128, \"quant_method\": \"awq\", \"version\": \"gemv\"",
             {"version is 'gemv'"});
  expect_bad("\"bits\": 4, \"pack_dtype\": \"int16\"", {"pack_dtype is 'int16'"});
  for (const std::string field : {"\"is_marlin_format\": true", "\"rotation\": \"hadamard\"",
                                  "\"adapter\": {\"rank\": 64}"}) {
    const TempFolder folder;
    folder.write("quantize_config.json", "{\"bits\": 4, " + field + "}");
    test::expect_error([&] { read_gptq_config(folder.path()); }, Kind::Unsupported,
                       {field.substr(1, field.find('"', 1) - 1), "is set"});
  }
}

TEST(Gptq, WithoutGroupIndexGroupsFollowTheInputs) {
  Members m;
  m.with_g_idx = false;
  const TempFolder folder;
  const TensorStore files = m.store(folder);
  const GptqTensors tensors = read_gptq(files, "m", {.bits = 4, .group_size = 8}, 16, 8);
  const auto g_idx = tensors.g_idx.as<int32_t>();
  EXPECT_EQ(std::vector<int32_t>(g_idx.begin(), g_idx.end()), m.g_idx);
  test::expect_error(
      [&] { read_gptq(files, "m", {.bits = 4, .group_size = 8, .desc_act = true}, 16, 8); },
      Kind::BadInput, {"lacks the tensor m.g_idx"});
}

TEST(Gptq, ZeroPointsOfTheSecondFormAreAsTheyAre) {
  const TempFolder folder;
  const TensorStore files = Members{}.store(folder);
  GptqConfig config = {.bits = 4, .group_size = 8};
  EXPECT_EQ(read_gptq(files, "m", config, 16, 8).zero_shift, 1);
  config.layout = GptqLayout::GptqV2;
  EXPECT_EQ(read_gptq(files, "m", config, 16, 8).zero_shift, 0);
}

TEST(Gptq, ScalesMayBeBfloat16) {
  Members m;
  m.scale_type = DType::BF16;
  std::fill(m.scales.begin(), m.scales.end(), to_bf16(0.0078125f));
  const TempFolder folder;
  const TensorStore files = m.store(folder);
  const GptqTensors tensors = read_gptq(files, "m", {.bits = 4, .group_size = 8}, 16, 8);
  for (const uint16_t half : tensors.scales.as<uint16_t>()) EXPECT_EQ(from_f16(half), 0.0078125f);
}

// AutoAWQ's packing: nibble i of a word is output (0 2 4 6 1 3 5 7)[i] of its eight.
TEST(Gptq, ReadsAwqsGemmForm) {
  constexpr int kOrder[8] = {0, 2, 4, 6, 1, 3, 5, 7};
  const int64_t in = 16, out = 16, group = 8;
  const auto level = [&](int64_t k, int64_t j) {
    return static_cast<uint32_t>((3 * k + 5 * j) % 16);
  };
  const auto zero = [&](int64_t g, int64_t j) { return static_cast<uint32_t>((g + j) % 16); };
  const auto pack = [&](int64_t rows, const auto& value) {
    std::vector<int32_t> words;
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t j = 0; j < out; j += 8) {
        uint32_t word = 0;
        for (int i = 0; i < 8; ++i) word |= value(r, j + kOrder[i]) << (4 * i);
        words.push_back(static_cast<int32_t>(word));
      }
    }
    return words;
  };
  const TempFolder folder;
  SafetensorsWriter writer(folder.path() / "model.safetensors",
                           {{"m.qweight", DType::I32, {in, out / 8}},
                            {"m.qzeros", DType::I32, {in / group, out / 8}},
                            {"m.scales", DType::F16, {in / group, out}}});
  writer.write(bytes_of(std::span<const int32_t>(pack(in, level))));
  writer.write(bytes_of(std::span<const int32_t>(pack(in / group, zero))));
  writer.write(bytes_of(std::span<const uint16_t>(std::vector<uint16_t>(32, 0x3C00))));
  writer.finish();
  const TensorStore files = TensorStore::open(folder.path());
  const GptqTensors t = read_gptq(
      files, "m", {.bits = 4, .group_size = group, .layout = GptqLayout::AwqGemm}, in, out);
  EXPECT_EQ(t.zero_shift, 0);
  for (int64_t j = 0; j < out; ++j) {
    for (int64_t k = 0; k < in; ++k) {
      const auto word = static_cast<uint32_t>(t.qweight.as<int32_t>()[size_t(k / 8 * out + j)]);
      EXPECT_EQ(word >> (4 * (k % 8)) & 15, level(k, j)) << k << " " << j;
    }
    for (int64_t g = 0; g < in / group; ++g) {
      const auto word = static_cast<uint32_t>(t.qzeros.as<int32_t>()[size_t(g * out / 8 + j / 8)]);
      EXPECT_EQ(word >> (4 * (j % 8)) & 15, zero(g, j));
    }
  }
}

TEST(GptqConfig, SaysWhichFormTheFilesHave) {
  const auto layout = [](const std::string& file, const std::string& text) {
    const TempFolder folder;
    folder.write(file, text);
    return read_gptq_config(folder.path())->layout;
  };
  EXPECT_EQ(layout("quantize_config.json", R"({"bits": 4, "checkpoint_format": "gptq_v2"})"),
            GptqLayout::GptqV2);
  EXPECT_EQ(layout("config.json", R"({"quantization_config": {"quant_method": "awq", "bits": 4,
                    "group_size": 128, "version": "gemm", "zero_point": true}})"),
            GptqLayout::AwqGemm);
  EXPECT_EQ(layout("quant_config.json", R"({"w_bit": 4, "q_group_size": 64, "version": "GEMM"})"),
            GptqLayout::AwqGemm);
}

TEST(GptqConfig, IsFoundInEitherFile) {
  const TempFolder folder;
  EXPECT_FALSE(read_gptq_config(folder.path()));
  folder.write("quantize_config.json", R"({"bits": 8, "group_size": -1, "desc_act": true})");
  EXPECT_EQ(read_gptq_config(folder.path())->bits, 8);
  folder.write("config.json", R"({"quantization_config": {"bits": 4, "group_size": 32}})");
  EXPECT_EQ(read_gptq_config(folder.path())->group_size, 32);
}

}  // namespace
}  // namespace quern
