// Five steps of AdamW with clipping against PyTorch's: fixtures, qwen1-train.
#include "train/optimizer.h"

#include "compute/cpu/cpu_training_backend.h"
#include "core/json.h"
#include "model/backward.h"
#include "support/support.h"

namespace quern {
namespace {

class TrainingSteps : public testing::TestWithParam<const char*> {};

TEST_P(TrainingSteps, ParametersOfTheReferenceAfterOneTwoAndFive) {
  const fs::path folder = test::source("tests/fixtures/models/qwen1-train");
  const std::string variant = GetParam();
  const Config config = load_config(folder);
  const SafetensorsFile golden(folder / "golden.safetensors");
  const Json tensors = Json::parse_file((folder / "case.json").string()).at("tensors");
  const auto check = [&](const std::string& name, std::span<const float> got) {
    const Json tensor = tensors.at(name);
    test::check_close(got, to_floats(golden.at(name), name),
                      {tensor.number_or("atol", 0), tensor.number_or("rtol", 0)}, name);
  };
  ThreadPool pool(2);
  CpuTrainingBackend backend(pool);
  Parameters parameters(backend, config), gradients(backend, config);
  parameters.load(TensorStore::open(folder));
  const Shape shape = golden.at("batch0.input_ids").shape;
  TrainingPass pass(backend, config, {.batch = shape[0], .seq = shape[1]});
  Optimizer optimizer(backend, config, {.decay = parse_decay(variant)});
  const auto rates = to_floats(golden.at("lr"), "lr");
  std::vector<float> losses, norms;
  for (size_t step = 0; step < rates.size(); ++step) {
    const auto integers = [&](const std::string& name) {
      const std::string full = "batch" + std::to_string(step) + "." + name;
      const auto wide = to_integers(golden.at(full), full);
      return std::vector<int32_t>(wide.begin(), wide.end());
    };
    const auto ids = integers("input_ids"), labels = integers("labels");
    const TrainingBatch batch = {shape[0], shape[1], ids, labels, {}};
    gradients.clear(backend);
    const auto count = static_cast<double>(batch.count_labels());
    const LossSum sum = pass.forward_backward(parameters.weights(), {gradients}, batch,
                                              static_cast<float>(1 / count));
    const GradientNorm norm = optimizer.measure(gradients);
    optimizer.step(parameters, gradients, rates[step], norm.scale);
    losses.push_back(static_cast<float>(sum.loss / count));
    norms.push_back(static_cast<float>(norm.norm));
    for (size_t i = 0; i < parameters.specs().size(); ++i) {
      const std::string name =
          variant + ".after" + std::to_string(step + 1) + "." + parameters.specs()[i].name;
      if (golden.find(name)) check(name, parameters.tensor(i));
    }
  }
  check(variant + ".loss", losses);
  check(variant + ".grad_norm", norms);
}
INSTANTIATE_TEST_SUITE_P(Decay, TrainingSteps, testing::Values("matrices", "hf", "all"));

TEST(Decay, UnknownWordsAreRefused) {
  test::expect_error([] { parse_decay("some"); }, Kind::Misused, {"'some'", "matrices, hf or all"});
}

}  // namespace
}  // namespace quern
