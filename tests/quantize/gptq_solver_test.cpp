// The quantizer against the reference's (fixtures: gptq-algorithm) and against its definitions.
#include "quantize/gptq_solver.h"

#include <cmath>

#include "compute/cpu/cpu_training_backend.h"
#include "formats/safetensors.h"
#include "support/support.h"

namespace quern {
namespace {

struct Setting {
  const char* name;
  QuantizeSettings settings;
};
const Setting kSettings[] = {
    {"b4_g128_sym", {.bits = 4, .group = 128}},
    {"b4_g128_sym_actorder", {.bits = 4, .group = 128, .act_order = true}},
    {"b4_g64_asym", {.bits = 4, .group = 64, .symmetric = false}},
    {"b4_gall_sym", {.bits = 4, .group = -1}},
    {"b8_g128_sym", {.bits = 8, .group = 128}},
};

struct GoldenLayer {
  explicit GoldenLayer(const fs::path& golden) : file(golden) {
    weight = to_floats(file.at("weight"), "weight");
    rows = file.at("weight").shape[0];
    cols = file.at("weight").shape[1];
    for (const char* name : {"calibration0", "calibration1", "calibration2"}) {
      const auto call = to_floats(file.at(name), name);
      inputs.insert(inputs.end(), call.begin(), call.end());
      const int64_t tokens = static_cast<int64_t>(call.size()) / cols;
      hessian.add(backend, {call.data(), tokens, cols, cols}, file.at(name).shape[0]);
    }
  }
  Square moments() const {
    Hessian copy = hessian;
    return std::move(copy).take();
  }
  QuantizedMatrix solve(const QuantizeSettings& settings) {
    return gptq(backend, pool, weight, rows, factorize(pool, moments(), settings, "m"), settings,
                "m");
  }
  // sum((X (W - Q)ᵀ)²), in double.
  double error(std::span<const float> q) const {
    double sum = 0;
    for (size_t t = 0; t < inputs.size(); t += size_t(cols)) {
      for (int64_t r = 0; r < rows; ++r) {
        double dot = 0;
        for (int64_t i = 0; i < cols; ++i) {
          const size_t w = size_t(r * cols + i);
          dot += double(inputs[t + size_t(i)]) * (double(weight[w]) - double(q[w]));
        }
        sum += dot * dot;
      }
    }
    return sum;
  }

  SafetensorsFile file;
  ThreadPool pool{2};
  CpuTrainingBackend backend{pool};
  Hessian hessian{pool, 256};
  std::vector<float> weight, inputs;
  int64_t rows, cols;
};

const fs::path kGolden = test::shared("fixtures/models/gptq-algorithm/golden.safetensors");

TEST(Hessian, IsTheReferences) {
  QUERN_NEED(kGolden);
  const GoldenLayer layer(kGolden);
  const auto got = layer.moments();
  test::check_close(std::vector<float>(got.begin(), got.end()),
                    to_floats(layer.file.at("hessian"), "hessian"), {1e-3, 1e-4}, "hessian");
}

TEST(Gptq, AgreesWithTheReferenceInEverySetting) {
  QUERN_NEED(kGolden);
  GoldenLayer layer(kGolden);
  for (auto [name, settings] : kSettings) {
    SCOPED_TRACE(name);
    settings.half_scales = false;
    const auto golden = [&](const char* part) {
      return layer.file.at(std::string(name) + "." + part);
    };
    const QuantizedMatrix m = layer.solve(settings);
    const auto q = to_integers(golden("q"), "q");
    size_t equal = 0;
    for (size_t i = 0; i < q.size(); ++i) equal += q[i] == m.q[i];
    EXPECT_GE(double(equal), 0.98 * double(q.size()));
    const auto g_idx = to_integers(golden("g_idx"), "g_idx");
    EXPECT_TRUE(std::equal(g_idx.begin(), g_idx.end(), m.g_idx.begin(), m.g_idx.end()));
    const auto scale = to_floats(golden("scale"), "scale"), zero = to_floats(golden("zero"), "z");
    for (int64_t r = 0; r < layer.rows; ++r) {
      for (int64_t g = 0; g < m.groups; ++g) {
        EXPECT_NEAR(m.scales[size_t(g * m.rows + r)], scale[size_t(r * m.groups + g)], 1e-5);
        EXPECT_EQ(m.zeros[size_t(g * m.rows + r)], zero[size_t(r * m.groups + g)]);
      }
    }
    const auto reference = to_floats(golden("dequantized"), "dequantized");
    EXPECT_LE(layer.error(m.dequantized()), 1.02 * layer.error(reference));
    // The relative error by second moments is the definition's.
    double all = layer.error(std::vector<float>(layer.weight.size()));
    const auto h = layer.moments();
    const std::vector<float> moments(h.begin(), h.end());
    const Loss loss =
        output_loss(layer.backend, layer.weight, m.dequantized(), moments, layer.cols);
    EXPECT_NEAR(loss.share(), layer.error(m.dequantized()) / all,
                1e-4 * layer.error(m.dequantized()) / all + 1e-9);
  }
}

TEST(Gptq, LosesLessThanRoundingToNearest) {
  QUERN_NEED(kGolden);
  GoldenLayer layer(kGolden);
  for (const auto& [name, settings] : kSettings) {
    for (const bool fixed : {false, true}) {
      QuantizeSettings s = settings;
      s.static_groups = fixed;
      const auto solved = layer.solve(s);
      const auto rounded = round_to_nearest(layer.pool, layer.weight, layer.rows, s, name);
      EXPECT_LT(layer.error(solved.dequantized()), 0.6 * layer.error(rounded.dequantized()))
          << name;
      if (fixed) {
        EXPECT_EQ(solved.g_idx, rounded.g_idx) << name;
      }
    }
  }
}

TEST(Gptq, SingularSecondMomentsTakeMoreDamping) {
  ThreadPool pool(2);
  CpuTrainingBackend backend(pool);
  const int64_t n = 128;
  const Square ones(size_t(n * n), 1.0);  // rank one
  const auto weight = test::random_floats(size_t(8 * n), 1);
  QuantizeSettings s = {.damping = 0};
  const GptqFactor factor = factorize(pool, ones, s, "m");
  EXPECT_GT(factor.damping, 0);
  const auto m = gptq(backend, pool, weight, 8, factor, s, "m");
  const std::vector<float> moments(ones.begin(), ones.end());
  EXPECT_LT(output_loss(backend, weight, m.dequantized(), moments, n).share(), 0.2);
}

TEST(Gptq, UnusedInputsBecomeZero) {
  ThreadPool pool(1);
  CpuTrainingBackend backend(pool);
  Square h(32 * 32, 0.0);
  for (size_t i = 0; i < 31; ++i) h[i * 33] = 1;  // the last input is never used
  const auto weight = test::random_floats(8 * 32, 1);
  const QuantizeSettings s = {.group = 32};
  const auto m = gptq(backend, pool, weight, 8, factorize(pool, h, s, "m"), s, "m");
  for (size_t r = 0; r < 8; ++r) EXPECT_EQ(m.dequantized()[r * 32 + 31], 0.0f);
}

TEST(Quantize, GroupsThatDoNotDivideAreRefusedWithOnesThatDo) {
  ThreadPool pool(1);
  const std::vector<float> weight(8 * 344, 0.5f);
  test::expect_error([&] { round_to_nearest(pool, weight, 8, {.group = 128}, "mlp.w1"); },
                     Kind::BadInput, {"mlp.w1", "groups of 128", "344 inputs", "--group 86"});
}

TEST(RoundToNearest, IsWithinAStepAndExactForZero) {
  ThreadPool pool(2);
  for (const bool symmetric : {true, false}) {
    const int64_t cols = 64, rows = 5;
    auto weight = test::random_floats(size_t(rows * cols), 9);
    std::fill_n(weight.begin(), cols, 0.0f);
    const auto m =
        round_to_nearest(pool, weight, rows, {.bits = 8, .group = 32, .symmetric = symmetric}, "m");
    const auto back = m.dequantized();
    for (size_t i = 0; i < weight.size(); ++i) {
      const float scale =
          m.scales[size_t(m.g_idx[i % size_t(cols)]) * size_t(rows) + i / size_t(cols)];
      // Half a step; another half where the zero was rounded, 0.07 for the float16 scale.
      EXPECT_LE(std::abs(back[i] - weight[i]), (symmetric ? 0.57f : 1.07f) * scale);
    }
    for (size_t i = 0; i < size_t(cols); ++i) EXPECT_EQ(back[i], 0.0f);
  }
}

}  // namespace
}  // namespace quern
