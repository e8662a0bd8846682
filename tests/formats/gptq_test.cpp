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
  bool with_scales = true;

  TensorStore store(const TempFolder& folder) const {
    std::vector<PlannedTensor> plan = {{"m.qweight", DType::I32, {2, 8}},
                                       {"m.qzeros", DType::I32, zero_shape},
                                       {"m.g_idx", DType::I32, {16}}};
    if (with_scales) plan.push_back({"m.scales", DType::F16, {2, 8}});
    SafetensorsWriter writer(folder.path() / "model.safetensors", plan);
    writer.write(bytes_of(std::span(qweight)));
    writer.write(bytes_of(std::span(qzeros)).first(plan[1].bytes()));
    writer.write(bytes_of(std::span(g_idx)));
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
  expect_bad("\"bits\": 4, \"quant_method\": \"awq\"", {"'awq'"});
  expect_bad("\"bits\": 4, \"checkpoint_format\": \"gptq_v2\"", {"'gptq_v2'"});  // zeros off by one
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
