// Training against the reference: loss, every gradient, and the parameters after steps of AdamW
// (fixtures: README, "Training"), on every instruction set that the machine has.
#include "model/backward.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "compute/cpu/cpu_training_backend.h"
#include "formats/adapter_config.h"
#include "support/golden.h"
#include "support/isa.h"
#include "support/support.h"

namespace quern {
namespace {

using Floats = std::vector<float>;

struct Batch {
  std::vector<int32_t> ids, labels, starts;
  int64_t batch = 0, seq = 0;

  TrainingBatch view() const { return {batch, seq, ids, labels, starts}; }
};

class Golden : public test::Golden {
 public:
  Golden() : test::Golden(test::shared("fixtures/models/qwen1-train")) {}

  Batch batch(int step) const {
    const std::string name = "batch" + std::to_string(step);
    const Shape shape = this->shape(name + ".input_ids");
    Batch out;
    out.batch = shape[0];
    out.seq = shape[1];
    out.ids = ids(name + ".input_ids");
    out.labels = ids(name + ".labels");
    out.starts = starts_of_mask(out.batch, out.seq, ids(name + ".attention_mask"), name);
    return out;
  }
};

// A model in training.
struct Training {
  Training(const fs::path& folder, cpu::Isa isa, TrainingOptions options = {3, 24}, int threads = 2,
           Precision precision = Precision::F32)
      : pool(threads),
        backend(pool, isa, precision),
        config(load_config(folder)),
        parameters(backend, config),
        gradients(backend, config),
        first_moments(backend, config),
        second_moments(backend, config),
        pass(backend, config, options) {
    parameters.load(TensorStore::open(folder));
  }

  double mean_loss_and_gradients(const TrainingBatch& batch, float share = 1) {
    const auto count = static_cast<double>(batch.count_labels());
    const LossSum sum = pass.forward_backward(parameters.weights(), {gradients}, batch,
                                              static_cast<float>(share / count));
    EXPECT_EQ(static_cast<double>(sum.count), count);
    return sum.loss / count;
  }
  // Whether a parameter is decayed under a rule of the fixture's.
  static bool decays(const TensorSpec& spec, std::string_view rule) {
    return rule == "all" || (rule == "matrices" ? spec.decays() : spec.role != Role::Bias);
  }
  double step(double learning_rate, int number, std::string_view decay, double max_norm = 1) {
    const double norm = std::sqrt(backend.squared_norm(gradients.all()));
    for (size_t i = 0; i < parameters.specs().size(); ++i) {
      const bool decayed = decays(parameters.specs()[i], decay);
      backend.adamw(parameters.tensor(i), gradients.tensor(i), first_moments.tensor(i),
                    second_moments.tensor(i),
                    {.learning_rate = learning_rate,
                     .weight_decay = decayed ? 0.1 : 0,
                     .gradient_scale = std::min(1.0, max_norm / (norm + 1e-6)),
                     .step = number});
    }
    clear_gradients();
    return norm;
  }
  void clear_gradients() { gradients.clear(backend); }

  ThreadPool pool;
  CpuTrainingBackend backend;
  Config config;
  Parameters parameters, gradients, first_moments, second_moments;
  TrainingPass pass;
};

class TrainingParity : public testing::TestWithParam<cpu::Isa> {
 protected:
  void SetUp() override {
    QUERN_NEED(test::shared("fixtures/models/qwen1-train"));
    if (!cpu::supported(GetParam())) {
      GTEST_SKIP() << "skipped: this CPU lacks " << cpu::name(GetParam());
    }
  }
};

TEST_P(TrainingParity, LossAndEveryGradient) {
  const Golden golden;
  Training training(golden.folder(), GetParam());
  const Batch batch = golden.batch(0);
  const auto loss = static_cast<float>(training.mean_loss_and_gradients(batch.view()));
  golden.check("loss0", {&loss, 1});
  const auto without_gradients =
      training.pass.loss(training.parameters.weights(), batch.view()).loss /
      double(batch.view().count_labels());
  EXPECT_FLOAT_EQ(static_cast<float>(without_gradients), loss);
  for (size_t i = 0; i < training.parameters.specs().size(); ++i) {
    golden.check("grad0." + training.parameters.specs()[i].name, training.gradients.tensor(i));
  }
}

TEST_P(TrainingParity, ParametersAfterOneTwoAndFiveStepsUnderEachDecayRule) {
  const Golden golden;
  const std::vector<float> rates = golden.floats("lr");
  for (const std::string rule : {"matrices", "hf", "all"}) {
    Training training(golden.folder(), GetParam());
    std::vector<float> losses, norms;
    for (int step = 0; step < 5; ++step) {
      const Batch batch = golden.batch(step);
      losses.push_back(static_cast<float>(training.mean_loss_and_gradients(batch.view())));
      norms.push_back(
          static_cast<float>(training.step(rates[static_cast<size_t>(step)], step + 1, rule)));
      if (step != 0 && step != 1 && step != 4) continue;
      for (size_t i = 0; i < training.parameters.specs().size(); ++i) {
        golden.check(
            rule + ".after" + std::to_string(step + 1) + "." + training.parameters.specs()[i].name,
            training.parameters.tensor(i));
      }
    }
    golden.check(rule + ".loss", losses);
    golden.check(rule + ".grad_norm", norms);
    if (rule != "matrices") continue;
    for (size_t i = 0; i < training.parameters.specs().size(); ++i) {
      const std::string& name = training.parameters.specs()[i].name;
      golden.check("matrices.exp_avg5." + name, training.first_moments.tensor(i));
      golden.check("matrices.exp_avg_sq5." + name, training.second_moments.tensor(i));
    }
  }
}

TEST_P(TrainingParity, AStepWithoutClipping) {
  const Golden golden;
  Training training(golden.folder(), GetParam());
  training.mean_loss_and_gradients(golden.batch(0).view());
  training.step(golden.floats("lr")[0], 1, "matrices", /*max_norm=*/1e9);
  int checked = 0;
  for (size_t i = 0; i < training.parameters.specs().size(); ++i) {
    const std::string& name = training.parameters.specs()[i].name;
    if (name != "lm_head.weight" && name != "transformer.ln_f.weight" &&
        name != "transformer.h.0.attn.c_attn.weight") {
      continue;
    }
    golden.check("noclip.after1." + name, training.parameters.tensor(i));
    ++checked;
  }
  EXPECT_EQ(checked, 3);
}

TEST_P(TrainingParity, AccumulationByMicroBatchesAndByTokens) {
  const Golden golden;
  const Batch first = golden.batch(0), second = golden.batch(1);
  const auto tokens =
      static_cast<float>(first.view().count_labels() + second.view().count_labels());
  const auto check = [&](const std::string& prefix, const Training& training) {
    int checked = 0;
    for (size_t i = 0; i < training.parameters.specs().size(); ++i) {
      const std::string& name = training.parameters.specs()[i].name;
      if (name == "transformer.h.0.attn.c_attn.weight" || name == "transformer.ln_f.weight" ||
          name == "transformer.h.0.mlp.w2.weight") {
        golden.check(prefix + name, training.gradients.tensor(i));
        ++checked;
      }
    }
    EXPECT_EQ(checked, 3);
  };
  Training training(golden.folder(), GetParam());
  training.mean_loss_and_gradients(first.view(), 0.5f);
  training.mean_loss_and_gradients(second.view(), 0.5f);
  check("accum_mean.grad.", training);
  training.clear_gradients();
  for (const Batch* batch : {&first, &second}) {
    training.pass.forward_backward(training.parameters.weights(), {training.gradients},
                                   batch->view(), 1 / tokens);
  }
  check("accum_token.grad.", training);
}

// Of the difference's norm to that of what is wanted.
double relative_error(std::span<const float> got, std::span<const float> want) {
  double error = 0, size = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    error += (double{got[i]} - want[i]) * (double{got[i]} - want[i]);
    size += double{want[i]} * want[i];
  }
  return std::sqrt(error / size);
}

// bfloat16 keeps eight bits: up to 2^-9 of a factor is lost in each of the dozens of products that
// a gradient passes through. A wrong layout would be off by the whole value.
TEST_P(TrainingParity, Bf16ProductsStayNearTheReference) {
  const Golden golden;
  if (!CpuTrainingBackend::supports(Precision::BF16, GetParam())) {
    GTEST_SKIP() << "skipped: no bf16 products with " << cpu::name(GetParam()) << " on this CPU";
  }
  Training training(golden.folder(), GetParam(), {3, 24}, 2, Precision::BF16);
  const Batch batch = golden.batch(0);
  EXPECT_NEAR(training.mean_loss_and_gradients(batch.view()), golden.floats("loss0")[0], 0.02);
  for (size_t i = 0; i < training.parameters.specs().size(); ++i) {
    const Floats want = golden.floats("grad0." + training.parameters.specs()[i].name);
    EXPECT_LT(relative_error(training.gradients.tensor(i), want), 0.05)
        << training.parameters.specs()[i].name;
  }
}

TEST_P(TrainingParity, RoundedActivationsKeepGradientsNearTheReference) {
  const Golden golden;
  const Batch batch = golden.batch(0);
  for (const int64_t recomputed : {0, 1}) {
    Training training(golden.folder(), GetParam(),
                      {.batch = 3,
                       .seq = 24,
                       .recomputed_layers = recomputed,
                       .own_gradients = true,
                       .rounded_activations = true});
    const GradientSink sink = training.pass.gradients();
    Parameters& gradients = sink.into;
    const auto count = static_cast<float>(batch.view().count_labels());
    const LossSum sum = training.pass.forward_backward(training.parameters.weights(), sink,
                                                       batch.view(), 1 / count);
    EXPECT_NEAR(sum.loss / double{count}, golden.floats("loss0")[0], 1e-4);
    for (size_t i = 0; i < gradients.specs().size(); ++i) {
      const Floats want = golden.floats("grad0." + gradients.specs()[i].name);
      EXPECT_LT(relative_error(gradients.tensor(i), want), 0.01) << gradients.specs()[i].name;
    }
  }
}

TEST_P(TrainingParity, RecomputingBlocksChangesNoBit) {
  const Golden golden;
  const Batch batch = golden.batch(0);
  Training plain(golden.folder(), GetParam());
  plain.mean_loss_and_gradients(batch.view());
  for (const int64_t layers : {1, 2}) {
    Training recomputed(golden.folder(), GetParam(),
                        {.batch = 3, .seq = 24, .recomputed_layers = layers});
    recomputed.mean_loss_and_gradients(batch.view());
    EXPECT_TRUE(std::ranges::equal(plain.gradients.all(), recomputed.gradients.all())) << layers;
  }
}

// Gradients that lie where activations lay, of batches smaller than what the pass has room for too.
TEST_P(TrainingParity, GradientsAmongTheActivationsHaveTheSameBits) {
  const Golden golden;
  for (const int64_t recomputed : {0, 1, 2}) {
    Training plain(golden.folder(), GetParam());
    Training own(golden.folder(), GetParam(),
                 {.batch = 4, .seq = 30, .recomputed_layers = recomputed, .own_gradients = true});
    for (int step = 0; step < 2; ++step) {
      const Batch batch = golden.batch(step);
      plain.clear_gradients();
      plain.mean_loss_and_gradients(batch.view());
      const auto scale = static_cast<float>(1.0 / double(batch.view().count_labels()));
      own.pass.forward_backward(own.parameters.weights(), own.pass.gradients(), batch.view(),
                                scale);
      EXPECT_TRUE(std::ranges::equal(plain.gradients.all(), own.pass.gradients().into.all()))
          << recomputed << " " << step;
    }
  }
}

TEST_P(TrainingParity, TheNumberOfThreadsChangesNoBit) {
  const Golden golden;
  const Batch batch = golden.batch(0);
  const TrainingOptions options = {.batch = 3, .seq = 24, .dropout = 0.1f, .dropout_seed = 7};
  Training one(golden.folder(), GetParam(), options, 1);
  one.mean_loss_and_gradients(batch.view());
  one.step(0.005, 1, "matrices");
  for (const int threads : {2, 3}) {
    Training many(golden.folder(), GetParam(), options, threads);
    many.mean_loss_and_gradients(batch.view());
    many.step(0.005, 1, "matrices");
    EXPECT_TRUE(std::ranges::equal(one.parameters.all(), many.parameters.all())) << threads;
  }
}

INSTANTIATE_TEST_SUITE_P(All, TrainingParity, test::every_isa(), test::isa_name);

// The loss along each tensor's gradient, by finite differences, of a model with random weights.
void check_slopes(const Config& c, float dropout) {
  ThreadPool pool(2);
  CpuTrainingBackend backend(pool);
  Parameters parameters(backend, c), gradients(backend, c), unused(backend, c);
  for (size_t i = 0; i < parameters.specs().size(); ++i) {
    const Floats values = test::random_floats(parameters.tensor(i).size(), i);
    const float base = parameters.specs()[i].role == Role::Norm ? 1 - c.norm_offset : 0;
    std::ranges::transform(values, parameters.tensor(i).begin(),
                           [&](float x) { return base + 0.3f * x; });
  }
  Batch batch;
  batch.batch = 2;
  batch.seq = 9;
  for (int32_t i = 0; i < 18; ++i) {
    batch.ids.push_back(i * 7 % 40);
    batch.labels.push_back(i % 5 == 3 ? kIgnoredLabel : i * 7 % 40);
    batch.starts.push_back(i % 9 >= 4 ? 4 : 0);
  }
  TrainingPass pass(
      backend, c,
      {.batch = 2, .seq = 9, .recomputed_layers = 1, .dropout = dropout, .dropout_seed = 5});
  pass.forward_backward(parameters.weights(), {gradients}, batch.view(), 1);
  // A longer step meets other choices of experts, where the loss has no slope.
  const double step_size = c.experts.count > 0 ? 2e-3 : 1e-2;
  const double noise = c.experts.count > 0 ? 2e-2 : 2e-3;
  for (size_t i = 0; i < parameters.specs().size(); ++i) {
    const std::span<const float> gradient = gradients.tensor(i);
    const double norm = std::sqrt(backend.squared_norm(gradient));
    if (c.experts.count == 0) {
      ASSERT_GT(norm, 1e-3) << parameters.specs()[i].name;
    }
    if (norm < 1e-3) continue;  // an expert that nobody chose
    const Floats saved(parameters.tensor(i).begin(), parameters.tensor(i).end());
    const auto loss_at = [&](double step) {
      for (size_t j = 0; j < saved.size(); ++j) {
        parameters.tensor(i)[j] = saved[j] + static_cast<float>(step * gradient[j] / norm);
      }
      if (dropout == 0) return pass.loss(parameters.weights(), batch.view()).loss;
      return pass.forward_backward(parameters.weights(), {unused}, batch.view(), 1).loss;
    };
    const double slope = (loss_at(step_size) - loss_at(-step_size)) / (2 * step_size);
    std::ranges::copy(saved, parameters.tensor(i).begin());
    EXPECT_NEAR(slope, norm, 0.01 * norm + noise) << parameters.specs()[i].name;
  }
}

// What the reference's model lacks: QK-norm, grouped queries, tied embeddings, biases everywhere,
// windows, documents, dropout (whose pattern is the same for the same seed and stream).
class Slopes : public testing::TestWithParam<float> {};

TEST_P(Slopes, EveryTensorOfAModelWithAllOptionsHasTheSlopeThatTheLossHas) {
  Config c;
  c.family = Family::Qwen3;
  c.layers = 2;
  c.hidden = 24;
  c.heads = 4;
  c.kv_heads = 2;
  c.head_dim = 10;
  c.rotary_dim = 6;
  c.ffn = 20;
  c.vocab = c.output_vocab = 40;
  c.qkv_bias = c.out_bias = c.mlp_bias = c.tied = true;
  c.qk_norm = QkNorm::Heads;
  c.windows = {3, 0};
  check_slopes(c, GetParam());
}

INSTANTIATE_TEST_SUITE_P(Dropout, Slopes, testing::Values(0.0f, 0.2f));

// Every switch that a family has: of each a tiny model's shape.
class FamilySlopes : public testing::TestWithParam<const char*> {};

TEST_P(FamilySlopes, EveryTensorHasTheSlopeThatTheLossHas) {
  const fs::path folder = test::case_folder(GetParam());
  QUERN_NEED(folder);
  Config c = load_config(folder);
  c.vocab = c.output_vocab = 40;
  check_slopes(c, 0);
}

INSTANTIATE_TEST_SUITE_P(All, FamilySlopes,
                         testing::Values("baichuan2-13b-tiny", "bloom-tiny", "chatglm2-tiny",
                                         "falcon-rw-tiny", "falcon40b-tiny", "falcon7b-tiny",
                                         "gemma-tiny", "gemma2-tiny", "gemma3-tiny", "gpt2-tiny",
                                         "granite-tiny", "internlm2-tiny", "mistral-tiny",
                                         "mixtral-tiny", "mpt-storywriter-tiny", "olmo2-tiny",
                                         "phi2-tiny", "phi4-mini-tiny", "pythia-tiny",
                                         "qwen15-moe-tiny", "qwen3-moe-tiny", "smollm3-tiny",
                                         "starcoder-tiny", "starcoder2-tiny"),
                         [](const auto& instance) {
                           std::string name = instance.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

// Adapters alone are trained, on a frozen model in the format of its file.
class AdapterTraining : public testing::TestWithParam<std::tuple<cpu::Isa, const char*>> {};

TEST_P(AdapterTraining, LossAndEveryGradientOfTheReference) {
  const auto [isa, name] = GetParam();
  if (!cpu::supported(isa)) GTEST_SKIP() << "skipped: this CPU lacks " << cpu::name(isa);
  const test::Golden golden(test::case_folder(name));
  const fs::path folder = golden.folder();
  ThreadPool pool(2);
  CpuTrainingBackend backend(pool, isa);
  const Config config = load_config(folder);
  const LoadedWeights loaded = LoadedWeights::load(folder, config);
  const TensorStore adapter = TensorStore::open(folder / "adapter" / "adapter_model.safetensors");
  const AdapterConfig adapter_config = read_adapter_config(folder / "adapter");
  const auto choose = [&](const TensorSpec& spec) {
    const auto a = adapter.find("base_model.model." + spec.module + ".lora_A.weight");
    if (!a) return AdapterShape{};
    const int64_t rank = a->shape[0];
    return AdapterShape{rank, static_cast<float>(adapter_config.scale(spec.module))};
  };
  const std::vector<TensorSpec> specs = adapter_specs(config, choose);
  ASSERT_EQ(specs.size(), adapter.names().size());
  Parameters parameters(backend, config, specs);
  parameters.load(adapter);
  const Weights weights = parameters.over(loaded.weights());

  const Shape shape = golden.shape("input_ids");
  const std::vector<int32_t> ids = golden.ids("input_ids"), labels = golden.ids("labels");
  const TrainingBatch batch = {shape[0], shape[1], ids, labels, {}};
  for (const int64_t recomputed : {0, 1}) {
    TrainingPass pass(backend, config,
                      {.batch = shape[0],
                       .seq = shape[1],
                       .recomputed_layers = recomputed,
                       .own_gradients = true,
                       .trained = specs});
    const GradientSink sink = pass.gradients();
    const auto count = static_cast<float>(batch.count_labels());
    const LossSum sum = pass.forward_backward(weights, sink, batch, 1 / count);
    const auto loss = static_cast<float>(sum.loss / double{count});
    golden.check("train.loss", {&loss, 1});
    ASSERT_EQ(sink.into.specs().size(), specs.size());
    for (size_t i = 0; i < specs.size(); ++i) {
      golden.check("train.grad." + sink.into.specs()[i].name, sink.into.tensor(i));
    }
    Parameters sums(backend, config, specs);
    for (int micro = 0; micro < 2; ++micro)
      pass.forward_backward(weights, {sums}, batch, 0.5f / count);
    for (size_t i = 0; i < specs.size(); ++i) {
      golden.check("train.grad." + sums.specs()[i].name, sums.tensor(i));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, AdapterTraining,
                         testing::Combine(test::every_isa(),
                                          testing::Values("qwen1-lora", "qwen1-qlora")),
                         [](const auto& instance) {
                           std::string name = std::string(cpu::name(std::get<0>(instance.param))) +
                                              "_" + std::get<1>(instance.param);
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

// The head alone, with everything below it frozen: what is asked for has the bits of the whole
// gradient, and no work is done for the rest.
TEST(TrainedTensors, AChoiceHasTheBitsOfTheWholeGradient) {
  const Golden golden;
  QUERN_NEED(golden.folder());
  const Batch batch = golden.batch(0);
  Training whole(golden.folder(), cpu::chosen_isa());
  whole.mean_loss_and_gradients(batch.view());
  std::vector<TensorSpec> chosen;
  for (const TensorSpec& spec : tensor_specs(whole.config)) {
    if (spec.part == Part::LmHead || spec.role == Role::Bias || spec.part == Part::Norm2) {
      chosen.push_back(spec);
    }
  }
  Parameters some(whole.backend, whole.config, chosen);
  const auto scale = static_cast<float>(1.0 / double(batch.view().count_labels()));
  whole.pass.forward_backward(whole.parameters.weights(), {some}, batch.view(), scale);
  size_t compared = 0;
  for (size_t i = 0; i < some.specs().size(); ++i) {
    for (size_t j = 0; j < whole.gradients.specs().size(); ++j) {
      if (whole.gradients.specs()[j].name != some.specs()[i].name) continue;
      EXPECT_TRUE(std::ranges::equal(some.tensor(i), whole.gradients.tensor(j)))
          << some.specs()[i].name;
      ++compared;
    }
  }
  EXPECT_EQ(compared, chosen.size());
}

TEST(TrainingPass, LabelsAreShiftedWithinEachSequence) {
  const std::vector<int32_t> labels = {1, kIgnoredLabel, 2, 3, 4, kIgnoredLabel};
  EXPECT_EQ((TrainingBatch{2, 3, labels, labels, {}}.count_labels()), 2);  // 2, and 4
}

TEST(TrainingPass, AMaskBecomesFirstVisiblePositions) {
  const std::vector<int32_t> mask = {0, 0, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0};
  EXPECT_EQ(starts_of_mask(3, 4, mask, "batch"),
            (std::vector<int32_t>{0, 1, 2, 2, 0, 0, 0, 0, 0, 1, 2, 3}));
  const std::vector<int32_t> holes = {1, 0, 1, 1};
  test::expect_error([&] { starts_of_mask(1, 4, holes, "b.safetensors"); }, Kind::BadInput,
                     {"b.safetensors", "row 0", "one run of ones"});
}

}  // namespace
}  // namespace quern
