// Low-rank updates whose effect on logits follows from their definition, over floats and over packed
// weights, on every instruction set that the machine has.
#include <cmath>
#include <functional>
#include <nlohmann/json.hpp>

#include "compute/cpu/cpu_backend.h"
#include "formats/convert_floats.h"
#include "formats/safetensors.h"
#include "model/forward.h"
#include "support/isa.h"
#include "support/support.h"

namespace quern {
namespace {

class AdapterBits : public testing::TestWithParam<std::tuple<const char*, cpu::Isa>> {
 protected:
  void SetUp() override {
    const cpu::Isa isa = std::get<1>(GetParam());
    if (!cpu::supported(isa)) GTEST_SKIP() << "skipped: this CPU lacks " << cpu::name(isa);
  }

  const fs::path folder_ = test::source("tests/fixtures/models") / std::get<0>(GetParam());

  std::vector<float> logits(const std::vector<fs::path>& adapters) const {
    ThreadPool pool(2);
    CpuBackend backend(pool, std::get<1>(GetParam()));
    const Config config = load_config(folder_);
    const LoadedWeights weights =
        LoadedWeights::load(folder_, config, {.adapters = adapters, .pool = &pool});
    const std::vector<int32_t> ids = {5, 9, 17, 33, 65, 129, 200, 3, 77};
    const auto length = static_cast<int64_t>(ids.size());
    Runner runner({backend, config, weights.weights()}, length, length);
    KvCache cache(backend, config, DType::F32, 256);
    Sequence sequence(cache, config, {}, length);
    sequence.reserve(length);
    const BatchItem item = {&sequence, ids};
    const MutRows rows = runner.logits(runner.forward({&item, 1}, cache, Runner::Want::All));
    return {rows.data, rows.data + rows.rows * rows.cols};
  }

  // The fixture's adapter with its tensors and its configuration changed.
  fs::path changed(
      const test::TempFolder& to, const std::string& name,
      const std::function<void(const std::string&, std::vector<float>&)>& tensor,
      const std::function<void(nlohmann::json&)>& config = [](auto&) {}) const {
    const fs::path from = folder_ / "adapter", out = to.path() / name;
    auto read = nlohmann::json::parse(read_file(from / "adapter_config.json"));
    config(read);
    to.write(name + "/adapter_config.json", read.dump());
    const TensorStore tensors = TensorStore::open(from / "adapter_model.safetensors");
    std::vector<PlannedTensor> plan;
    for (const std::string& each : tensors.names()) {
      plan.push_back({each, DType::F32, tensors.at(each).shape});
    }
    SafetensorsWriter writer(out / "adapter_model.safetensors", plan);
    for (const PlannedTensor& each : plan) {
      std::vector<float> values = to_floats(tensors.at(each.name), each.name);
      tensor(each.name, values);
      writer.write(std::as_bytes(std::span(values)));
    }
    writer.finish();
    return out;
  }
};

TEST_P(AdapterBits, ZeroBIsTheBase) {
  const test::TempFolder folder;
  const fs::path zero = changed(folder, "zero", [](const std::string& name, auto& values) {
    if (name.ends_with("lora_B.weight")) std::ranges::fill(values, 0.0f);
  });
  const std::vector<float> base = logits({});
  EXPECT_EQ(logits({zero}), base);
  EXPECT_NE(logits({folder_ / "adapter"}), base);
}

// alpha / √rank: what plain LoRA's alpha / rank is with an alpha of √rank times as much.
TEST_P(AdapterBits, RankStabilizedScaleIsAlphaOverTheRootOfTheRank) {
  const test::TempFolder folder;
  const auto as_they_are = [](const std::string&, std::vector<float>&) {};
  const auto with = [&](const std::string& name, bool stabilized, double alpha) {
    return changed(folder, name, as_they_are, [&](nlohmann::json& config) {
      config["use_rslora"] = stabilized;
      config["lora_alpha"] = alpha;
    });
  };
  const auto rank =
      nlohmann::json::parse(read_file(folder_ / "adapter/adapter_config.json"))["r"].get<double>();
  ASSERT_GT(rank, 1);
  const std::vector<float> stabilized = logits({with("stabilized", true, 16)});
  const std::vector<float> plain = logits({with("plain", false, 16 * std::sqrt(rank))});
  ASSERT_EQ(stabilized.size(), plain.size());
  for (size_t i = 0; i < plain.size(); ++i) ASSERT_NEAR(stabilized[i], plain[i], 1e-4) << i;
  EXPECT_NE(stabilized, logits({with("other", false, 16)}));
}

INSTANTIATE_TEST_SUITE_P(Cases, AdapterBits,
                         testing::Combine(testing::Values("qwen1-lora", "qwen1-qlora"),
                                          test::every_isa()));

}  // namespace
}  // namespace quern
