// Every family in few bits: the quantized checkpoint computes what the float one does, but for what
// eight bits lose.
#include <algorithm>
#include <cmath>

#include "compute/cpu/cpu_backend.h"
#include "formats/safetensors.h"
#include "model/forward.h"
#include "quantize/checkpoint.h"
#include "support/support.h"

namespace quern {
namespace {

std::vector<float> logits_of(const fs::path& model, std::span<const int32_t> ids) {
  ThreadPool pool(2);
  CpuBackend backend(pool, cpu::chosen_isa());
  const Config config = load_config(model);
  const LoadedWeights loaded = LoadedWeights::load(model, config);
  Runner runner(Network{backend, config, loaded.weights()}, 64, 64);
  KvCache cache(backend, config, DType::F32, 64);
  Sequence sequence(cache, config, {}, std::ssize(ids));
  sequence.reserve(std::ssize(ids));
  const BatchItem item = {&sequence, ids};
  const MutRows out = runner.logits(runner.forward({&item, 1}, cache, Runner::Want::All));
  return {out.data, out.data + out.rows * out.cols};
}

class FamilyQuantize : public testing::TestWithParam<std::tuple<bool, const char*>> {};

TEST_P(FamilyQuantize, EightBitsLoseLittle) {
  const auto [gptq, name] = GetParam();
  const fs::path model = test::case_folder(name);
  QUERN_NEED(model);
  const test::TempFolder folder;
  const Config config = load_config(model);
  QuantizeJob job;
  job.model = model;
  job.out = folder.path() / "out";
  job.gptq = gptq;
  job.settings = {.bits = 8, .group = -1};
  const auto noise = test::random_floats(512, 3);
  for (const float x : noise) {
    const float place = (x + 1) / 2 * static_cast<float>(config.output_vocab - 1);
    job.calibration.push_back(static_cast<int32_t>(place));
  }
  job.length = 32;
  ThreadPool pool(2);
  const std::vector<MatrixReport> reports = quantize_checkpoint(job, pool);
  EXPECT_GE(reports.size(), 4u);
  const std::span<const int32_t> ids = std::span(job.calibration).first(10);
  const std::vector<float> want = logits_of(model, ids), got = logits_of(job.out, ids);
  ASSERT_EQ(got.size(), want.size());
  double error = 0, size = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    error += (got[i] - want[i]) * (got[i] - want[i]);
    size += want[i] * want[i];
  }
  EXPECT_GT(error, 0);
  // A token near the border of two experts may meet another one.
  EXPECT_LT(std::sqrt(error / size), config.experts.count > 0 ? 0.15 : 0.05);
}

INSTANTIATE_TEST_SUITE_P(
    All, FamilyQuantize,
    testing::Combine(testing::Bool(),
                     testing::Values("baichuan2-13b-tiny", "baichuan7b-tiny", "bloom-tiny",
                                     "chatglm2-tiny", "falcon-rw-tiny", "falcon40b-tiny",
                                     "falcon7b-tiny", "gemma-tiny", "gemma2-tiny", "gemma3-tiny",
                                     "gpt2-tiny", "granite-tiny", "internlm-tiny", "internlm2-tiny",
                                     "mistral-tiny", "mixtral-tiny", "mpt-tiny", "olmo2-tiny",
                                     "phi3-tiny", "phi4-mini-tiny", "pythia-tiny",
                                     "qwen15-moe-tiny", "qwen3-moe-tiny", "smollm3-tiny",
                                     "starcoder-tiny", "starcoder2-tiny")),
    [](const auto& instance) {
      std::string name =
          std::string(std::get<0>(instance.param) ? "gptq_" : "rtn_") + std::get<1>(instance.param);
      std::replace(name.begin(), name.end(), '-', '_');
      return name;
    });

}  // namespace
}  // namespace quern
