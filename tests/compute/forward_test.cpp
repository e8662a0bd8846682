// Forward kernels of every instruction set against their definitions in double, at shapes with
// tails on both sides of a full vector.
#include <cmath>
#include <cstring>

#include "compute/cpu/cpu_backend.h"
#include "compute/cpu/kv_store.h"
#include "support/isa.h"
#include "support/support.h"

namespace quern {
namespace {

using test::check_close;
using test::random_floats;

// A dense weight with memory of its own, in any format.
struct OwnedWeight {
  OwnedWeight(int64_t rows, int64_t cols, WeightFormat format, uint64_t seed) {
    values = random_floats(static_cast<size_t>(rows * cols), seed);
    for (float& v : values) {
      if (format == WeightFormat::BF16) v = from_bf16(to_bf16(v));
      if (format == WeightFormat::F16) v = from_f16(to_f16(v));
    }
    bytes.resize(values.size() * (format == WeightFormat::F32 ? 4 : 2));
    for (size_t i = 0; i < values.size(); ++i) {
      if (format == WeightFormat::F32) {
        std::memcpy(bytes.data() + 4 * i, &values[i], 4);
      } else {
        const uint16_t word = format == WeightFormat::BF16 ? to_bf16(values[i]) : to_f16(values[i]);
        std::memcpy(bytes.data() + 2 * i, &word, 2);
      }
    }
    weight = {.format = format, .rows = rows, .cols = cols, .data = bytes.data()};
  }
  std::vector<float> values;
  std::vector<std::byte> bytes;
  Weight weight;
};

std::vector<float> matmul_reference(std::span<const float> x, std::span<const float> w, int64_t m,
                                    int64_t n, int64_t k) {
  std::vector<float> out(static_cast<size_t>(m * n));
  for (int64_t r = 0; r < m; ++r) {
    for (int64_t c = 0; c < n; ++c) {
      double sum = 0;
      for (int64_t i = 0; i < k; ++i) {
        sum += static_cast<double>(x[size_t(r * k + i)]) * w[size_t(c * k + i)];
      }
      out[static_cast<size_t>(r * n + c)] = static_cast<float>(sum);
    }
  }
  return out;
}

std::vector<float> multiply(CpuBackend& run, std::span<const float> x, const Weight& weight,
                            int64_t m, std::span<const float> bias = {},
                            const std::vector<float>* start = nullptr) {
  std::vector<float> out(static_cast<size_t>(m * weight.rows));
  if (start != nullptr) out = *start;
  const MatmulPart part = {
      {out.data(), m, weight.rows, weight.rows}, &weight, bias, start != nullptr};
  run.matmul({x.data(), m, weight.cols, weight.cols}, {&part, 1});
  return out;
}

class EveryIsa : public testing::TestWithParam<cpu::Isa> {
 protected:
  void SetUp() override {
    if (!cpu::supported(GetParam())) GTEST_SKIP() << "skipped: this CPU lacks it";
  }
};
INSTANTIATE_TEST_SUITE_P(Isas, EveryIsa, test::every_isa(), test::isa_name);

TEST_P(EveryIsa, MatmulAgreesWithTheDefinition) {
  ThreadPool pool(2);
  CpuBackend run(pool, GetParam());
  for (const auto format : {WeightFormat::F32, WeightFormat::F16, WeightFormat::BF16}) {
    for (const int64_t k : {1, 7, 16, 31, 33, 250, 1100, 2047, 2049, 2100}) {
      for (const auto& [m, n] : {std::pair<int64_t, int64_t>{1, 1},
                                 {1, 41},
                                 {2, 5},
                                 {3, 64},
                                 {6, 17},
                                 {7, 66},
                                 {17, 3},
                                 {75, 70},
                                 {200, 9}}) {
        const auto x = random_floats(static_cast<size_t>(m * k), 1);
        const OwnedWeight w(n, k, format, 2);
        auto taken = x;
        if (format == WeightFormat::BF16 && k == 2100 && cpu::bf16_pair_kernels(GetParam())) {
          for (float& v : taken) v = from_bf16(to_bf16(v));
        }
        const auto expected = matmul_reference(taken, w.values, m, n, k);
        const double tolerance = 1e-6 * std::sqrt(static_cast<double>(k)) + 1e-6;
        check_close(
            multiply(run, x, w.weight, m), expected, {tolerance, 1e-5},
            "m " + std::to_string(m) + " n " + std::to_string(n) + " k " + std::to_string(k));
      }
    }
  }
}

TEST_P(EveryIsa, MatmulAddsBiasAndResidual) {
  ThreadPool pool(1);
  CpuBackend run(pool, GetParam());
  for (const int64_t m : {1, 5, 20}) {
    const auto x = random_floats(static_cast<size_t>(m * 40), 3), bias = random_floats(13, 4);
    const auto start = random_floats(static_cast<size_t>(m * 13), 5);
    const OwnedWeight w(13, 40, WeightFormat::F32, 6);
    auto expected = matmul_reference(x, w.values, m, 13, 40);
    for (size_t i = 0; i < expected.size(); ++i) expected[i] += bias[i % 13] + start[i];
    check_close(multiply(run, x, w.weight, m, bias, &start), expected, {1e-5, 1e-5}, "bias");
  }
}

// The same bits for a row alone and among others, with one thread and with three.
TEST_P(EveryIsa, MatmulDoesNotDependOnCompanyOrThreads) {
  ThreadPool one(1), three(3);
  CpuBackend alone(one, GetParam()), many(three, GetParam());
  for (const int64_t rows : {2, 11, 30, 150}) {  // each way that products go
    for (const int64_t cols : {1500, 2310}) {
      const auto x = random_floats(static_cast<size_t>(rows * cols), 7);
      for (const auto format : {WeightFormat::F32, WeightFormat::F16, WeightFormat::BF16}) {
        const OwnedWeight w(77, cols, format, 8);
        const auto all = multiply(many, x, w.weight, rows);
        for (const int64_t row : {int64_t{0}, rows / 2, rows - 1}) {
          const auto single =
              multiply(alone, std::span(x).subspan(size_t(row * cols), size_t(cols)), w.weight, 1);
          EXPECT_EQ(std::memcmp(single.data(), all.data() + row * 77, 77 * 4), 0)
              << row << " of " << rows;
        }
        EXPECT_EQ(multiply(alone, x, w.weight, rows), all);
      }
    }
  }
}

TEST_P(EveryIsa, RmsNormAgreesWithTheDefinition) {
  ThreadPool pool(1);
  CpuBackend run(pool, GetParam());
  for (const size_t dim : {1, 7, 8, 31, 4096}) {
    const auto x = random_floats(3 * dim, dim), weight = random_floats(dim, 1);
    std::vector<float> expected(x.size()), actual(x.size());
    for (size_t row = 0; row < x.size(); row += dim) {
      double sum = 0;
      for (size_t i = 0; i < dim; ++i) sum += static_cast<double>(x[row + i]) * x[row + i];
      const double scale = 1 / std::sqrt(sum / static_cast<double>(dim) + 1e-6);
      for (size_t i = 0; i < dim; ++i) {
        expected[row + i] = static_cast<float>(x[row + i] * scale * weight[i]);
      }
    }
    const auto d = static_cast<int64_t>(dim);
    run.rms_norm({actual.data(), 3, d, d}, {x.data(), 3, d, d}, weight, 1e-6f);
    check_close(actual, expected, {1e-6, 1e-5}, "dim " + std::to_string(dim));
  }
}

TEST_P(EveryIsa, LayerNormAgreesWithTheDefinition) {
  ThreadPool pool(1);
  CpuBackend run(pool, GetParam());
  for (const size_t dim : {1, 7, 8, 31, 4096}) {
    auto x = random_floats(3 * dim, dim);
    for (float& value : x) value += 5;  // a mean far from zero
    const auto weight = random_floats(dim, 1), bias = random_floats(dim, 2);
    for (const bool with_bias : {true, false}) {
      std::vector<float> expected(x.size()), actual(x.size());
      for (size_t row = 0; row < x.size(); row += dim) {
        double mean = 0, variance = 0;
        for (size_t i = 0; i < dim; ++i) mean += x[row + i] / static_cast<double>(dim);
        for (size_t i = 0; i < dim; ++i) {
          variance += (x[row + i] - mean) * (x[row + i] - mean) / static_cast<double>(dim);
        }
        for (size_t i = 0; i < dim; ++i) {
          const double normed = (x[row + i] - mean) / std::sqrt(variance + 1e-3);
          expected[row + i] = static_cast<float>(normed * weight[i] + (with_bias ? bias[i] : 0.0f));
        }
      }
      const auto d = static_cast<int64_t>(dim);
      run.layer_norm({actual.data(), 3, d, d}, {x.data(), 3, d, d}, weight,
                     with_bias ? std::span<const float>(bias) : std::span<const float>(), 1e-3f);
      check_close(actual, expected, {5e-6, 1e-5}, "dim " + std::to_string(dim));
    }
  }
}

double activated(Activation activation, double x) {
  switch (activation) {
    case Activation::Silu:
      return x / (1 + std::exp(-x));
    case Activation::Gelu:
      return x * 0.5 * std::erfc(-x / std::sqrt(2.0));
    case Activation::GeluTanh:
      return 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
  }
  return 0;
}

TEST_P(EveryIsa, ActivationsAgreeWithTheirDefinitionsFarOutToo) {
  ThreadPool pool(1);
  CpuBackend run(pool, GetParam());
  std::vector<float> gate = random_floats(1031, 1), up = random_floats(1031, 2);
  for (size_t i = 0; i < gate.size(); ++i)
    gate[i] *= i % 2 == 0 ? 4 : static_cast<float>(i % 7) * 30;
  for (const Activation activation : {Activation::Silu, Activation::Gelu, Activation::GeluTanh}) {
    for (const bool product : {true, false}) {
      std::vector<float> expected(gate.size()), actual(gate.size());
      for (size_t i = 0; i < gate.size(); ++i) {
        expected[i] = static_cast<float>(activated(activation, gate[i]) * (product ? up[i] : 1));
      }
      const ConstRows factor = {up.data(), 1, 1031, 1031};
      run.activate({actual.data(), 1, 1031, 1031}, {gate.data(), 1, 1031, 1031},
                   product ? factor : ConstRows{}, activation);
      check_close(actual, expected, {1e-6, 2e-6}, "activation " + std::to_string(int(activation)));
    }
  }
}

TEST_P(EveryIsa, RopeRotatesTheFirstDimsOnly) {
  ThreadPool pool(1);
  CpuBackend run(pool, GetParam());
  for (const int64_t half : {0, 1, 5, 16, 64}) {
    const int64_t dim = 2 * half + 3;
    auto x = random_floats(static_cast<size_t>(2 * dim), 3);
    const auto before = x;
    std::vector<float> cos(static_cast<size_t>(half)), sin(cos.size());
    for (size_t j = 0; j < cos.size(); ++j) {
      cos[j] = std::cos(static_cast<float>(j) + 1);
      sin[j] = std::sin(static_cast<float>(j) + 1);
    }
    run.rope({x.data(), 1, 2, dim, 2 * dim}, {cos.data(), 1, half, half},
             {sin.data(), 1, half, half});
    auto expected = before;
    for (int64_t head = 0; head < 2; ++head) {
      for (int64_t j = 0; j < half; ++j) {
        const auto at = static_cast<size_t>(head * dim + j), other = at + static_cast<size_t>(half);
        const auto jj = static_cast<size_t>(j);
        expected[at] = before[at] * cos[jj] - before[other] * sin[jj];
        expected[other] = before[other] * cos[jj] + before[at] * sin[jj];
      }
    }
    check_close(x, expected, {1e-6, 1e-6}, "half " + std::to_string(half));
  }
}

// A cache of one layer with its pages scattered backwards in memory. What is not written yet is
// NaN.
struct Cache {
  Cache(DType dtype, int64_t heads, int64_t dim, int64_t tokens)
      : layout{.dtype = dtype, .kv_heads = heads, .head_dim = dim},
        memory(static_cast<size_t>(layout.layer_bytes() * (tokens / 64 + 1) + 64),
               std::byte{0xff}) {
    auto base = reinterpret_cast<uintptr_t>(memory.data());
    base = (base + 63) / 64 * 64;
    for (int64_t p = tokens / 64; p >= 0; --p) {
      pages.push_back(reinterpret_cast<std::byte*>(base) + p * layout.layer_bytes());
    }
  }
  KvLayout layout;
  std::vector<std::byte> memory;
  std::vector<std::byte*> pages;
};

std::vector<float> attention_reference(std::span<const float> q, std::span<const float> k,
                                       std::span<const float> v, int64_t tokens, int64_t heads,
                                       int64_t kv_heads, int64_t dim, double scale, int64_t window,
                                       int64_t first, const AttentionRules& rules = {}) {
  std::vector<float> out;
  for (int64_t t = first; t < tokens; ++t) {
    for (int64_t h = 0; h < heads; ++h) {
      const int64_t kv = h / (heads / kv_heads);
      std::vector<double> weights;
      double total = 0;
      const int64_t low = window > 0 ? std::max<int64_t>(0, t - window + 1) : 0;
      for (int64_t j = low; j <= t; ++j) {
        double score = 0;
        for (int64_t d = 0; d < dim; ++d) {
          score += static_cast<double>(q[size_t((t * heads + h) * dim + d)]) *
                   k[size_t((j * kv_heads + kv) * dim + d)];
        }
        score *= scale;
        if (rules.cap > 0) score = rules.cap * std::tanh(score / rules.cap);
        if (!rules.slopes.empty()) {
          score += static_cast<double>(rules.slopes[size_t(h)]) * static_cast<double>(j - t);
        }
        weights.push_back(std::exp(score));
        total += weights.back();
      }
      for (int64_t d = 0; d < dim; ++d) {
        double sum = 0;
        for (int64_t j = low; j <= t; ++j) {
          sum += weights[size_t(j - low)] * v[size_t((j * kv_heads + kv) * dim + d)];
        }
        out.push_back(static_cast<float>(sum / total));
      }
    }
  }
  return out;
}

TEST_P(EveryIsa, AttentionAgreesWithTheDefinition) {
  ThreadPool pool(2);
  CpuBackend run(pool, GetParam());
  struct Case {
    int64_t tokens, past, heads, kv_heads, dim, window;
  };
  for (const Case& c :
       {Case{1, 0, 1, 1, 8, 0}, Case{5, 0, 4, 2, 16, 0}, Case{64, 0, 2, 2, 32, 0},
        Case{65, 63, 2, 1, 20, 0}, Case{150, 100, 6, 3, 64, 0}, Case{150, 149, 4, 1, 128, 0},
        Case{200, 30, 2, 2, 16, 70}, Case{200, 199, 4, 4, 24, 1}, Case{130, 0, 2, 1, 7, 64},
        // One query over several parts of the past: whole, in groups, through a window.
        Case{1300, 1299, 2, 2, 64, 0}, Case{1024, 1023, 8, 2, 24, 0}, Case{513, 512, 6, 1, 7, 0},
        Case{1500, 1499, 4, 2, 128, 900}}) {
    for (const DType dtype : {DType::F32, DType::F16, DType::BF16}) {
      const auto q = random_floats(size_t(c.tokens * c.heads * c.dim), 1);
      auto k = random_floats(size_t(c.tokens * c.kv_heads * c.dim), 2);
      auto v = random_floats(size_t(c.tokens * c.kv_heads * c.dim), 3);
      for (auto* values : {&k, &v}) {
        for (float& x : *values) {
          if (dtype == DType::F16) x = from_f16(to_f16(x));
          if (dtype == DType::BF16) x = from_bf16(to_bf16(x));
        }
      }
      Cache cache(dtype, c.kv_heads, c.dim, c.tokens);
      const AttentionSpan all = {{cache.pages.data(), 0}, 0, c.tokens, 0};
      const ConstHeads keys = {k.data(), c.tokens, c.kv_heads, c.dim, c.kv_heads * c.dim};
      const ConstHeads values = {v.data(), c.tokens, c.kv_heads, c.dim, c.kv_heads * c.dim};
      run.kv_store(cache.layout, {&all, 1}, keys, values);
      const int64_t count = c.tokens - c.past;
      const AttentionSpan last = {{cache.pages.data(), 0}, 0, count, c.past};
      const auto scale = static_cast<float>(1 / std::sqrt(static_cast<double>(c.dim)));
      const std::vector<float> scales(static_cast<size_t>(count), scale);
      std::vector<float> out(static_cast<size_t>(count * c.heads * c.dim));
      const int64_t stride = c.heads * c.dim;
      std::vector<float> slopes;
      for (int64_t h = 0; h < c.heads; ++h) slopes.push_back(0.5f / static_cast<float>(h + 1));
      for (const AttentionRules& rules :
           {AttentionRules{.window = c.window}, AttentionRules{.window = c.window, .cap = 0.4f},
            AttentionRules{.window = c.window, .slopes = slopes},
            AttentionRules{.window = c.window, .cap = 0.4f, .slopes = slopes}}) {
        run.attention({out.data(), count, c.heads, c.dim, stride},
                      {q.data() + c.past * stride, count, c.heads, c.dim, stride}, cache.layout,
                      {&last, 1}, scales, rules);
        check_close(out,
                    attention_reference(q, k, v, c.tokens, c.heads, c.kv_heads, c.dim, scale,
                                        c.window, c.past, rules),
                    {2e-6, 1e-5},
                    std::string(name(dtype)) + " tokens " + std::to_string(c.tokens) + " cap " +
                        std::to_string(rules.cap) + " slopes " +
                        std::to_string(rules.slopes.size()));
      }
    }
  }
}

// What a cache of bytes keeps of keys or values [tokens, heads, dim].
std::vector<float> kept_as_bytes(DType dtype, std::vector<float> x, int64_t heads, int64_t dim) {
  const auto width = static_cast<size_t>(dim), step = static_cast<size_t>(heads) * width;
  for (size_t head = 0; head < step; head += width) {
    float min = x[head], max = x[head];
    for (size_t token = head; token < x.size(); token += step) {
      for (size_t i = token; i < token + width; ++i) {
        min = std::min(min, x[i]);
        max = std::max(max, x[i]);
      }
    }
    const auto code = cpu::ByteCode::of_range(min, max);
    for (size_t token = head; token < x.size(); token += step) {
      float largest = 0;
      for (size_t i = token; i < token + width; ++i) largest = std::max(largest, std::abs(x[i]));
      const float scale = largest / 127;
      for (size_t i = token; i < token + width; ++i) {
        x[i] = dtype == DType::I8
                   ? std::nearbyint(x[i] / scale) * scale
                   : code.scale * (static_cast<float>(code.encode(x[i])) - code.zero);
      }
    }
  }
  return x;
}

// Attention over bytes is the definition over what is stored, for one query, which is rounded to
// levels of 14 bits as the weights are, and for many, which are not.
TEST_P(EveryIsa, AttentionOverBytes) {
  ThreadPool pool(2);
  CpuBackend run(pool, GetParam());
  constexpr int64_t kKvHeads = 2;
  struct Case {
    int64_t tokens, heads, dim, window;
  };
  for (const Case& c : {Case{70, 4, 16, 0}, Case{700, 2, 64, 0}, Case{130, 6, 12, 50},
                        Case{90, 10, 7, 0}, Case{300, 4, 128, 290}, Case{70, 2, 1028, 0}}) {
    for (const DType dtype : {DType::I8, DType::U8}) {
      const auto q = random_floats(size_t(c.tokens * c.heads * c.dim), 1);
      auto k = random_floats(size_t(c.tokens * kKvHeads * c.dim), 2);
      auto v = random_floats(size_t(c.tokens * kKvHeads * c.dim), 3);
      for (float& x : k) x += 0.5f;  // keys and values far from the middle of their range
      for (float& x : v) x -= 2;
      Cache cache(dtype, kKvHeads, c.dim, c.tokens);
      const AttentionSpan all = {{cache.pages.data(), 0}, 0, c.tokens, 0};
      run.kv_store(cache.layout, {&all, 1}, {k.data(), c.tokens, kKvHeads, c.dim, kKvHeads * c.dim},
                   {v.data(), c.tokens, kKvHeads, c.dim, kKvHeads * c.dim});
      k = kept_as_bytes(dtype, k, kKvHeads, c.dim);
      v = kept_as_bytes(dtype, v, kKvHeads, c.dim);
      for (const int64_t past : {int64_t{0}, c.tokens - 1}) {
        const int64_t count = c.tokens - past, stride = c.heads * c.dim;
        const AttentionSpan last = {{cache.pages.data(), 0}, 0, count, past};
        const std::vector<float> scales(static_cast<size_t>(count), 0.25f);
        std::vector<float> out(static_cast<size_t>(count * stride));
        std::vector<float> slopes;
        for (int64_t h = 0; h < c.heads; ++h) slopes.push_back(0.5f / static_cast<float>(h + 1));
        // A rounded query moves a score of many dims by 1e-4; with slopes a few positions have all
        // the weight, so that these errors do not average out.
        for (const AttentionRules& rules :
             {AttentionRules{.window = c.window},
              AttentionRules{.window = c.window, .cap = 3, .slopes = slopes}}) {
          run.attention({out.data(), count, c.heads, c.dim, stride},
                        {q.data() + past * stride, count, c.heads, c.dim, stride}, cache.layout,
                        {&last, 1}, scales, rules);
          check_close(out,
                      attention_reference(q, k, v, c.tokens, c.heads, kKvHeads, c.dim, 0.25,
                                          c.window, past, rules),
                      {past == 0              ? 5e-6
                       : rules.slopes.empty() ? 5e-5
                                              : 2e-4,
                       1e-5},
                      std::string(name(dtype)) + " tokens " + std::to_string(c.tokens) + " past " +
                          std::to_string(past) + " cap " + std::to_string(rules.cap));
        }
      }
    }
  }
}

// Weights of a page, and a query, that are too small to be rounded to levels count nothing.
TEST_P(EveryIsa, AttentionOverBytesWithNothingToSee) {
  ThreadPool pool(1);
  CpuBackend run(pool, GetParam());
  constexpr int64_t kTokens = 100, kDim = 16;
  auto k = random_floats(size_t(kTokens * kDim), 2);
  const auto v = random_floats(size_t(kTokens * kDim), 3);
  std::fill_n(k.begin(), 64 * kDim, -50.0f);
  Cache cache(DType::I8, 1, kDim, kTokens);
  const AttentionSpan all = {{cache.pages.data(), 0}, 0, kTokens, 0};
  run.kv_store(cache.layout, {&all, 1}, {k.data(), kTokens, 1, kDim, kDim},
               {v.data(), kTokens, 1, kDim, kDim});
  const auto kept_k = kept_as_bytes(DType::I8, k, 1, kDim);
  const auto kept_v = kept_as_bytes(DType::I8, v, 1, kDim);
  for (const float size : {1.0f, 1e-38f}) {  // the first page is far away; or all look the same
    const std::vector<float> q(size_t(kTokens * kDim), size), scale = {0.25f};
    std::vector<float> out(kDim);
    const AttentionSpan last = {{cache.pages.data(), 0}, 0, 1, kTokens - 1};
    run.attention({out.data(), 1, 1, kDim, kDim}, {q.data(), 1, 1, kDim, kDim}, cache.layout,
                  {&last, 1}, scale, {});
    check_close(out,
                attention_reference(q, kept_k, kept_v, kTokens, 1, 1, kDim, 0.25, 0, kTokens - 1),
                {5e-5, 1e-5}, "a query of " + std::to_string(size));
  }
}

// One query alone and beside other sequences, which decode or have a prompt, with one thread and
// with three: the same bits.
TEST_P(EveryIsa, DecodingDoesNotDependOnCompanyOrThreads) {
  constexpr int64_t kHeads = 4, kKvHeads = 2, kDim = 64, kTokens = 1200, kRows = 5;
  const auto q = random_floats(size_t(kRows * kHeads * kDim), 1);
  const auto k = random_floats(size_t(kTokens * kKvHeads * kDim), 2);
  const auto v = random_floats(size_t(kTokens * kKvHeads * kDim), 3);
  for (const DType dtype : {DType::F16, DType::I8, DType::U8}) {
    Cache cache(dtype, kKvHeads, kDim, kTokens);
    ThreadPool one(1), three(3);
    const AttentionSpan all = {{cache.pages.data(), 0}, 0, kTokens, 0};
    CpuBackend(one, GetParam())
        .kv_store(cache.layout, {&all, 1}, {k.data(), kTokens, kKvHeads, kDim, kKvHeads * kDim},
                  {v.data(), kTokens, kKvHeads, kDim, kKvHeads * kDim});
    const std::vector<float> scales(kRows, 0.125f);
    const auto attend = [&](ThreadPool& pool, std::span<const AttentionSpan> spans) {
      CpuBackend run(pool, GetParam());
      std::vector<float> out(size_t(kRows * kHeads * kDim));
      run.attention({out.data(), kRows, kHeads, kDim, kHeads * kDim},
                    {q.data(), kRows, kHeads, kDim, kHeads * kDim}, cache.layout, spans, scales,
                    {});
      return out;
    };
    const AttentionSpan crowd[] = {{{cache.pages.data(), 0}, 0, 1, 70},
                                   {{cache.pages.data(), 0}, 1, 1, kTokens - 1},
                                   {{cache.pages.data(), 0}, 2, 3, 600}};
    const auto with_a_prompt = attend(three, crowd);
    const auto together = attend(three, std::span(crowd).first(2));
    const auto alone = attend(one, std::span(crowd).subspan(1, 1));
    const size_t row = kHeads * kDim;
    for (const auto& company : {together, with_a_prompt}) {
      EXPECT_EQ(std::memcmp(alone.data() + row, company.data() + row, row * 4), 0) << name(dtype);
      EXPECT_NE(company[row], 0.0f);
    }
    EXPECT_NE(with_a_prompt[2 * row], 0.0f);
  }
}

TEST(ByteCode, TruncatesAsTheReferenceAndSurvivesConstants) {
  const auto code = cpu::ByteCode::of_range(-1, 4.1f);
  EXPECT_EQ(code.encode(-1), 0);
  EXPECT_EQ(code.encode(-1 + 2.7f * code.scale), 2);  // truncated, not rounded to 3
  EXPECT_GE(code.encode(4.1f), 254);
  const auto constant = cpu::ByteCode::of_range(0.25f, 0.25f);
  const float back = constant.scale * (static_cast<float>(constant.encode(0.25f)) - constant.zero);
  EXPECT_FLOAT_EQ(back, 0.25f);
}

TEST(Isa, AnUnknownWordInTheEnvironmentIsAnError) {
  ::setenv("QUERN_ISA", "sse9", 1);
  test::expect_error([] { cpu::chosen_isa(); }, Kind::Misused, {"sse9", "scalar, avx2 or avx512"});
  ::setenv("QUERN_ISA", "scalar", 1);
  EXPECT_EQ(cpu::chosen_isa(), cpu::Isa::Scalar);
  ::unsetenv("QUERN_ISA");
}

TEST(Allocation, AnImpossibleSizeIsAnErrorThatNamesIt) {
  test::expect_error(
      [] {
        allocate_host(DType::F32, {int64_t{1} << 40, 64});
      },
      Kind::NoResources, {"281 TB"});
  test::expect_error(
      [] {
        allocate_host(DType::F32, {int64_t{1} << 40, int64_t{1} << 40});
      },
      Kind::BadInput, {"does not fit"});
}

}  // namespace
}  // namespace quern
