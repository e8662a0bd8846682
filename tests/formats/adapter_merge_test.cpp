// Adapters merged into a checkpoint, against PEFT's merge (tests/fixtures/models/qwen1-lora*).
#include "formats/adapter_merge.h"

#include "formats/convert_floats.h"
#include "support/support.h"

namespace quern {
namespace {

using test::expect_error;

const fs::path kModels = test::source("tests/fixtures/models");

class MergedAdapter : public testing::TestWithParam<const char*> {};

TEST_P(MergedAdapter, HasTheTensorsThatPeftMakes) {
  const fs::path folder = kModels / GetParam();
  const TensorStore base = TensorStore::open(folder / "model.safetensors");
  const TensorStore golden = TensorStore::open(folder / "golden.safetensors");
  const AdapterMerge merged(base, {folder / "adapter"}, 1);
  ThreadPool pool(2);
  int compared = 0;
  for (const std::string& name : golden.names()) {
    if (!name.starts_with("merged.") || !name.ends_with(".weight")) continue;
    const std::vector<float> expected = to_floats(golden.at(name), name);
    const std::vector<float> got = merged.values(name.substr(7), pool);
    ASSERT_EQ(got.size(), expected.size());
    for (size_t i = 0; i < got.size(); ++i) ASSERT_NEAR(got[i], expected[i], 1e-6) << name;
    EXPECT_TRUE(merged.changes(name.substr(7)));
    ++compared;
  }
  EXPECT_GE(compared, 3);
}
INSTANTIATE_TEST_SUITE_P(Cases, MergedAdapter,
                         testing::Values("qwen1-lora", "qwen1-lora-saved-modules"));

TEST(AdapterMerge, ScaleZeroIsTheBaseAndTwoAreTheirSum) {
  const fs::path folder = kModels / "qwen1-lora";
  const TensorStore base = TensorStore::open(folder / "model.safetensors");
  const std::string name = "transformer.h.0.attn.c_attn.weight";
  ThreadPool pool(1);
  const std::vector<float> before = to_floats(base.at(name), name);
  EXPECT_EQ(AdapterMerge(base, {folder / "adapter"}, 0).values(name, pool), before);
  const std::vector<float> once = AdapterMerge(base, {folder / "adapter"}, 1).values(name, pool);
  const std::vector<float> twice =
      AdapterMerge(base, {folder / "adapter", folder / "adapter"}, 1).values(name, pool);
  for (size_t i = 0; i < before.size(); ++i) {
    ASSERT_NEAR(twice[i] - before[i], 2 * (once[i] - before[i]), 1e-6);
  }
}

TEST(AdapterMerge, AnAdapterOfAnotherModelIsRefused) {
  const TensorStore other = TensorStore::open(kModels / "llama2" / "model.safetensors");
  expect_error([&] { AdapterMerge merge(other, {kModels / "qwen1-lora" / "adapter"}, 1); },
               Kind::BadInput, {"updates transformer.h.0.attn.c_attn", "another model"});
  const test::TempFolder empty;
  expect_error([&] { AdapterMerge merge(other, {empty.path()}, 1); }, Kind::BadInput,
               {"adapter_model.safetensors"});
}

}  // namespace
}  // namespace quern
