// The training operations, on every instruction set that the machine has: products and losses
// against their definitions in double, gradients against finite differences of the definitions.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>

#include "compute/cpu/training_kernels.h"
#include "compute/training_fixture.h"
#include "core/rng.h"

namespace quern {
namespace {

using test::check_close;
using test::random_floats;
using Floats = std::vector<float>;
using Doubles = std::vector<double>;

MutHeads heads_in(Floats& x, int64_t heads, int64_t head_dim) {
  return {x.data(), static_cast<int64_t>(x.size()) / (heads * head_dim), heads, head_dim,
          heads * head_dim};
}
Weight weight_of(const Floats& x, int64_t cols) {
  return {.format = WeightFormat::F32,
          .rows = static_cast<int64_t>(x.size()) / cols,
          .cols = cols,
          .data = reinterpret_cast<const std::byte*>(x.data())};
}
Doubles widened(const Floats& x) { return {x.begin(), x.end()}; }

// Whether `gradient` is that of sum(weights ∘ f(x)) at x, by central differences in double: each
// element where x is small, along random directions where it is not.
void check_gradient(const std::function<Doubles(const Doubles&)>& f, const Floats& x,
                    const Floats& weights, const Floats& gradient, std::string_view what) {
  constexpr double kStep = 1e-4;
  const auto loss = [&](const Doubles& at) {
    const Doubles out = f(at);
    double sum = 0;
    for (size_t i = 0; i < out.size(); ++i) sum += out[i] * weights[i];
    return sum;
  };
  const bool each = x.size() <= 300;
  Floats got, want;
  for (size_t n = 0; n < (each ? x.size() : 6); ++n) {
    Floats direction = random_floats(x.size(), 900 + n);
    if (each) {
      std::ranges::fill(direction, 0.0f);
      direction[n] = 1;
    }
    Doubles above = widened(x), below = above;
    double slope = 0;
    for (size_t i = 0; i < x.size(); ++i) {
      above[i] += kStep * direction[i];
      below[i] -= kStep * direction[i];
      slope += double{gradient[i]} * direction[i];
    }
    got.push_back(static_cast<float>(slope));
    want.push_back(static_cast<float>((loss(above) - loss(below)) / (2 * kStep)));
  }
  check_close(got, want, {.absolute = each ? 2e-5 : 2e-4, .relative = 2e-4}, what);
}

// out[m, n] = sum over p of a(m, p) · b(n, p), both read through functions.
Floats product(int64_t m, int64_t n, int64_t depth,
               const std::function<double(int64_t, int64_t)>& a,
               const std::function<double(int64_t, int64_t)>& b, const Floats& start) {
  Floats out(static_cast<size_t>(m * n));
  for (int64_t i = 0; i < m; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      double sum = start[static_cast<size_t>(i * n + j)];
      for (int64_t p = 0; p < depth; ++p) sum += a(i, p) * b(j, p);
      out[static_cast<size_t>(i * n + j)] = static_cast<float>(sum);
    }
  }
  return out;
}

struct ProductShape {
  int64_t rows, in, out;
};
constexpr ProductShape kProducts[] = {{1, 1, 1},     {3, 5, 7},      {12, 32, 256}, {13, 33, 65},
                                      {97, 300, 31}, {110, 17, 270}, {523, 40, 41}};

TEST_P(Training, ProductsAndTheirGradientsMeetTheDefinition) {
  for (const auto& [rows, in, out] : kProducts) {
    const std::string what = fmt::format("[{}, {}] -> {}", rows, in, out);
    Floats x = random_floats(size_t(rows * in), 1), weight = random_floats(size_t(out * in), 2);
    Floats bias = random_floats(size_t(out), 3), d_out = random_floats(size_t(rows * out), 4);
    const auto at = [](const Floats& m, int64_t cols) {
      return [&m, cols](int64_t i, int64_t p) { return double{m[size_t(i * cols + p)]}; };
    };
    const auto transposed = [](const Floats& m, int64_t cols) {
      return [&m, cols](int64_t i, int64_t p) { return double{m[size_t(p * cols + i)]}; };
    };
    const test::Tolerance tolerance = {.absolute = 1e-6 * double(rows + in + out)};
    const Weight w = weight_of(weight, in);

    for (const bool accumulate : {false, true}) {
      Floats y = random_floats(size_t(rows * out), 5), start = accumulate ? y : Floats(y.size());
      for (int64_t i = 0; i < rows * out; ++i) start[size_t(i)] += bias[size_t(i % out)];
      const MatmulPart part = {rows_in(y, out), &w, bias, accumulate};
      run().matmul(rows_in(x, in), {&part, 1});
      check_close(y, product(rows, out, in, at(x, in), at(weight, in), start), tolerance,
                  "matmul " + what);

      Floats d_x = random_floats(size_t(rows * in), 6);
      start = accumulate ? d_x : Floats(d_x.size());
      run().matmul_backward(rows_in(d_x, in), rows_in(d_out, out), w, accumulate);
      check_close(d_x, product(rows, in, out, at(d_out, out), transposed(weight, in), start),
                  tolerance, "d_x " + what);
    }
    Floats d_weight = random_floats(size_t(out * in), 7), d_bias = random_floats(size_t(out), 8);
    const Floats start = d_weight;
    Floats bias_sums = d_bias;
    for (int64_t j = 0; j < out; ++j) {
      double sum = d_bias[size_t(j)];
      for (int64_t r = 0; r < rows; ++r) sum += d_out[size_t(r * out + j)];
      bias_sums[size_t(j)] = static_cast<float>(sum);
    }
    run().matmul_backward_weight(rows_in(d_weight, in), d_bias, rows_in(d_out, out),
                                 rows_in(x, in));
    check_close(d_weight, product(out, in, rows, transposed(d_out, out), transposed(x, in), start),
                tolerance, "d_weight " + what);
    check_close(d_bias, bias_sums, tolerance, "d_bias " + what);
  }
}

TEST_P(Training, ProductsHaveTheSameBitsForAnyNumberOfThreads) {
  for (const auto& [rows, in, out] : kProducts) {
    Floats x = random_floats(size_t(rows * in), 1), d_out = random_floats(size_t(rows * out), 4);
    const Floats weight = random_floats(size_t(out * in), 2);
    const Weight w = weight_of(weight, in);
    std::vector<Floats> results;
    for (const int threads : {1, 2, 3, 5}) {
      ThreadPool pool(threads);
      CpuTrainingBackend backend(pool, GetParam());
      Floats y(size_t(rows * out)), d_x(size_t(rows * in)), d_weight(size_t(out * in)),
          d_bias(static_cast<size_t>(out));
      const MatmulPart part = {rows_in(y, out), &w, {}, false};
      backend.matmul(rows_in(x, in), {&part, 1});
      backend.matmul_backward(rows_in(d_x, in), rows_in(d_out, out), w, false);
      backend.matmul_backward_weight(rows_in(d_weight, in), d_bias, rows_in(d_out, out),
                                     rows_in(x, in));
      for (const Floats* part_of : {&d_x, &d_weight, &d_bias}) {
        y.insert(y.end(), part_of->begin(), part_of->end());
      }
      results.push_back(y);
    }
    for (const Floats& result : results) EXPECT_EQ(result, results.front());
  }
}

// Each product of two bfloat16 is exact in float, so only the order of the sums is free.
TEST_P(Training, Bf16ProductsAreThoseOfRoundedFactors) {
  if (!CpuTrainingBackend::supports(Precision::BF16, GetParam())) {
    EXPECT_THROW(CpuTrainingBackend(pool_, GetParam(), Precision::BF16), Error);
    return;
  }
  CpuTrainingBackend backend(pool_, GetParam(), Precision::BF16);
  const auto rounded = [](const Floats& x) {
    return [&x](int64_t i) { return double{from_bf16(to_bf16(x[static_cast<size_t>(i)]))}; };
  };
  for (const auto& [rows, in, out] : kProducts) {
    const std::string what = fmt::format("[{}, {}] -> {}", rows, in, out);
    Floats x = random_floats(size_t(rows * in), 1), weight = random_floats(size_t(out * in), 2);
    Floats d_out = random_floats(size_t(rows * out), 4);
    const auto rx = rounded(x), rw = rounded(weight), rd = rounded(d_out);
    const test::Tolerance tolerance = {.absolute = 1e-6 * double(rows + in + out)};
    const Weight w = weight_of(weight, in);

    Floats y(size_t(rows * out)), d_x(x.size()), d_weight(weight.size());
    const MatmulPart part = {rows_in(y, out), &w, {}, false};
    backend.matmul(rows_in(x, in), {&part, 1});
    backend.matmul_backward(rows_in(d_x, in), rows_in(d_out, out), w, false);
    backend.matmul_backward_weight(rows_in(d_weight, in), {}, rows_in(d_out, out), rows_in(x, in));
    check_close(y,
                product(
                    rows, out, in, [&](int64_t i, int64_t p) { return rx(i * in + p); },
                    [&](int64_t j, int64_t p) { return rw(j * in + p); }, Floats(y.size())),
                tolerance, "matmul " + what);
    check_close(d_x,
                product(
                    rows, in, out, [&](int64_t i, int64_t p) { return rd(i * out + p); },
                    [&](int64_t j, int64_t p) { return rw(p * in + j); }, Floats(x.size())),
                tolerance, "d_x " + what);
    check_close(d_weight,
                product(
                    out, in, rows, [&](int64_t i, int64_t p) { return rd(p * out + i); },
                    [&](int64_t j, int64_t p) { return rx(p * in + j); }, Floats(weight.size())),
                tolerance, "d_weight " + what);
  }
}

TEST_P(Training, RmsNormGradients) {
  constexpr float kEps = 1e-3f;
  for (const int64_t dim : {1, 7, 16, 33}) {
    constexpr int64_t kRows = 5;
    Floats x = random_floats(size_t(kRows * dim), 1), weight = random_floats(size_t(dim), 2);
    Floats d_out = random_floats(x.size(), 3);
    const auto norm = [&](const Doubles& in, const Doubles& w) {
      Doubles out(in.size());
      for (int64_t r = 0; r < kRows; ++r) {
        double squares = 0;
        for (int64_t i = 0; i < dim; ++i)
          squares += in[size_t(r * dim + i)] * in[size_t(r * dim + i)];
        const double scale = 1 / std::sqrt(squares / double(dim) + kEps);
        for (int64_t i = 0; i < dim; ++i) {
          out[size_t(r * dim + i)] = in[size_t(r * dim + i)] * scale * w[size_t(i)];
        }
      }
      return out;
    };
    const auto check = [&](const Floats& d_x, const Floats& d_weight) {
      check_gradient([&](const Doubles& at) { return norm(at, widened(weight)); }, x, d_out, d_x,
                     fmt::format("d_x, dim {}", dim));
      check_gradient([&](const Doubles& at) { return norm(widened(x), at); }, weight, d_out,
                     d_weight, fmt::format("d_weight, dim {}", dim));
    };
    Floats d_x(x.size()), d_weight(weight.size());
    run().rms_norm_backward(rows_in(d_x, dim), d_weight, rows_in(d_out, dim), rows_in(x, dim),
                            weight, kEps);
    check(d_x, d_weight);
    // Heads in place: kRows heads of one token.
    Floats d = d_out, d_head_weight(weight.size());
    run().rms_norm_heads_backward(heads_in(d, kRows, dim), d_head_weight, heads_in(x, kRows, dim),
                                  weight, kEps);
    check(d, d_head_weight);
  }
}

TEST_P(Training, RopeGradients) {
  constexpr int64_t kTokens = 3, kHeads = 2, kHeadDim = 22, kHalf = 9;  // four dims stay
  Floats x = random_floats(kTokens * kHeads * kHeadDim, 1), d = random_floats(x.size(), 2);
  Floats cos = random_floats(kTokens * kHalf, 3), sin = random_floats(kTokens * kHalf, 4);
  const Floats d_out = d;
  run().rope_backward(heads_in(d, kHeads, kHeadDim), rows_in(cos, kHalf), rows_in(sin, kHalf));
  const auto rope = [&](const Doubles& in) {
    Doubles out = in;
    for (int64_t head = 0; head < kTokens * kHeads; ++head) {
      for (int64_t i = 0; i < kHalf; ++i) {
        const auto a = size_t(head * kHeadDim + i), b = a + kHalf;
        const auto angle = size_t(head / kHeads * kHalf + i);
        out[a] = in[a] * cos[angle] - in[b] * sin[angle];
        out[b] = in[b] * cos[angle] + in[a] * sin[angle];
      }
    }
    return out;
  };
  check_gradient(rope, x, d_out, d, "rope");
}

TEST_P(Training, LayerNormGradients) {
  constexpr float kEps = 1e-3f;
  for (const int64_t dim : {3, 7, 16, 33}) {
    constexpr int64_t kRows = 5;
    Floats x = random_floats(size_t(kRows * dim), 1), weight = random_floats(size_t(dim), 2);
    Floats bias = random_floats(size_t(dim), 4), d_out = random_floats(x.size(), 3);
    const auto norm = [&](const Doubles& in, const Doubles& w, const Doubles& b) {
      Doubles out(in.size());
      for (int64_t r = 0; r < kRows; ++r) {
        const double* row = in.data() + r * dim;
        const double mean = std::accumulate(row, row + dim, 0.0) / double(dim);
        double variance = 0;
        for (int64_t i = 0; i < dim; ++i) variance += (row[i] - mean) * (row[i] - mean);
        const double scale = 1 / std::sqrt(variance / double(dim) + kEps);
        for (int64_t i = 0; i < dim; ++i) {
          out[size_t(r * dim + i)] = (row[i] - mean) * scale * w[size_t(i)] + b[size_t(i)];
        }
      }
      return out;
    };
    Floats d_x(x.size()), d_weight(weight.size()), d_bias(bias.size());
    run().layer_norm_backward(rows_in(d_x, dim), d_weight, d_bias, rows_in(d_out, dim),
                              rows_in(x, dim), weight, kEps);
    const Doubles wide_x = widened(x), wide_w = widened(weight), wide_b = widened(bias);
    check_gradient([&](const Doubles& at) { return norm(at, wide_w, wide_b); }, x, d_out, d_x,
                   fmt::format("d_x, dim {}", dim));
    check_gradient([&](const Doubles& at) { return norm(wide_x, at, wide_b); }, weight, d_out,
                   d_weight, fmt::format("d_weight, dim {}", dim));
    check_gradient([&](const Doubles& at) { return norm(wide_x, wide_w, at); }, bias, d_out, d_bias,
                   fmt::format("d_bias, dim {}", dim));
  }
}

TEST_P(Training, ActivationGradients) {
  Floats gate = random_floats(35, 1), up = random_floats(35, 2), d_out = random_floats(35, 3);
  for (float& g : gate) g *= 6;
  const std::pair<Activation, double (*)(double)> kinds[] = {
      {Activation::Silu, [](double x) { return x / (1 + std::exp(-x)); }},
      {Activation::Gelu, [](double x) { return x * 0.5 * std::erfc(-x / std::sqrt(2.0)); }},
      {Activation::GeluTanh, [](double x) {
         return 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
       }}};
  for (const auto& [activation, value] : kinds) {
    const auto act = [value = value](const Doubles& g, const Doubles& u) {
      Doubles out(g.size());
      for (size_t i = 0; i < g.size(); ++i) out[i] = value(g[i]) * u[i];
      return out;
    };
    Floats d_gate = gate, d_up = up;  // in place, as training does it
    run().activate_backward(rows_in(d_gate, 7), rows_in(d_up, 7), rows_in(d_out, 7),
                            rows_in(d_gate, 7), rows_in(d_up, 7), activation);
    check_gradient([&](const Doubles& at) { return act(at, widened(up)); }, gate, d_out, d_gate,
                   "d_gate");
    check_gradient([&](const Doubles& at) { return act(widened(gate), at); }, up, d_out, d_up,
                   "d_up");
    Floats alone = gate;
    run().activate_backward(rows_in(alone, 7), {}, rows_in(d_out, 7), rows_in(alone, 7), {},
                            activation);
    const Doubles ones(gate.size(), 1.0);
    check_gradient([&](const Doubles& at) { return act(at, ones); }, gate, d_out, alone, "d_x");
  }
}

TEST_P(Training, EmbeddingGradientsAddUpForEqualIds) {
  constexpr int64_t kDim = 70;
  const std::vector<int32_t> ids = {2, 0, 2, 2};
  Floats table(3 * kDim), d_out = random_floats(ids.size() * kDim, 1);
  run().embed_backward(rows_in(table, kDim), rows_in(d_out, kDim), ids);
  for (size_t i = 0; i < kDim; ++i) {
    EXPECT_EQ(table[i], d_out[kDim + i]);
    EXPECT_EQ(table[kDim + i], 0);
    EXPECT_NEAR(table[2 * kDim + i], d_out[i] + d_out[2 * kDim + i] + d_out[3 * kDim + i], 1e-6);
  }
}

struct AttentionCase {
  int64_t batch, seq, heads, kv_heads, head_dim, window;
  bool documents;
  float cap = 0;
  bool alibi = false;

  std::vector<float> slopes() const {
    std::vector<float> out;
    for (int64_t h = 0; alibi && h < heads; ++h) out.push_back(0.3f / static_cast<float>(h + 1));
    return out;
  }
};
constexpr AttentionCase kAttention[] = {{1, 1, 1, 1, 4, 0, false},
                                        {2, 7, 4, 2, 6, 0, false},
                                        {2, 9, 2, 2, 5, 3, true},
                                        {1, 98, 2, 1, 20, 0, false},
                                        {1, 211, 2, 1, 33, 50, true},
                                        {2, 150, 3, 3, 40, 0, true},
                                        {2, 9, 4, 2, 6, 0, false, 0.8f},
                                        {1, 110, 3, 3, 20, 0, false, 0, true},
                                        {2, 40, 2, 1, 12, 9, true, 1.1f, true}};

std::vector<int32_t> document_starts(const AttentionCase& c) {
  std::vector<int32_t> starts;
  if (!c.documents) return starts;
  for (int64_t i = 0; i < c.batch * c.seq; ++i) {
    starts.push_back(static_cast<int32_t>(i % c.seq / 4 * 4 * (i / c.seq == 0 ? 1 : 0) +
                                          i % c.seq / 101 * 101 * (i / c.seq == 0 ? 0 : 1)));
  }
  return starts;
}

// The definition: q [tokens, heads, d], k and v [tokens, kv_heads, d].
Doubles attend(const AttentionCase& c, double scale, std::span<const int32_t> starts,
               const Doubles& q, const Doubles& k, const Doubles& v) {
  Doubles out(q.size());
  for (int64_t row = 0; row < c.batch * c.seq; ++row) {
    const int64_t base = row / c.seq * c.seq, position = row - base;
    int64_t first = starts.empty() ? 0 : starts[size_t(row)];
    if (c.window > 0) first = std::max(first, position - c.window + 1);
    for (int64_t h = 0; h < c.heads; ++h) {
      const int64_t kv = h / (c.heads / c.kv_heads);
      const double* query = q.data() + (row * c.heads + h) * c.head_dim;
      Doubles weights;
      for (int64_t j = first; j <= position; ++j) {
        const double* key = k.data() + ((base + j) * c.kv_heads + kv) * c.head_dim;
        double score = scale * std::inner_product(key, key + c.head_dim, query, 0.0);
        if (c.cap > 0) score = double{c.cap} * std::tanh(score / c.cap);
        if (c.alibi) score += double{c.slopes()[size_t(h)]} * double(j - position);
        weights.push_back(std::exp(score));
      }
      const double sum = std::accumulate(weights.begin(), weights.end(), 0.0);
      for (int64_t j = first; j <= position; ++j) {
        const double* value = v.data() + ((base + j) * c.kv_heads + kv) * c.head_dim;
        for (int64_t d = 0; d < c.head_dim; ++d) {
          out[size_t((row * c.heads + h) * c.head_dim + d)] +=
              weights[size_t(j - first)] / sum * value[d];
        }
      }
    }
  }
  return out;
}

TEST_P(Training, AttentionAndItsGradients) {
  for (const AttentionCase& c : kAttention) {
    const std::string what = fmt::format("{} x {}, {} heads of {}, window {}", c.batch, c.seq,
                                         c.heads, c.head_dim, c.window);
    const int64_t tokens = c.batch * c.seq;
    Floats q = random_floats(size_t(tokens * c.heads * c.head_dim), 1);
    Floats k = random_floats(size_t(tokens * c.kv_heads * c.head_dim), 2);
    Floats v = random_floats(k.size(), 3), d_out = random_floats(q.size(), 4);
    const std::vector<int32_t> starts = document_starts(c);
    const std::vector<float> slopes = c.slopes();
    const TrainingAttention shape = {.batch = c.batch,
                                     .seq = c.seq,
                                     .scale = 0.7f,
                                     .rules = {c.window, c.cap, slopes},
                                     .starts = starts};
    const auto heads = [&](Floats& x, int64_t count) { return heads_in(x, count, c.head_dim); };

    Floats out(q.size()), log_sum(size_t(tokens * c.heads));
    run().attention_training(heads(out, c.heads), rows_in(log_sum, c.heads), heads(q, c.heads),
                             heads(k, c.kv_heads), heads(v, c.kv_heads), shape);
    const Doubles wide_q = widened(q), wide_k = widened(k), wide_v = widened(v);
    const double scale = shape.scale;
    check_close(out, narrowed(attend(c, scale, starts, wide_q, wide_k, wide_v)), {.absolute = 2e-6},
                what);

    Floats d_q = q, d_k = k, d_v = v;  // in place, as training does it
    run().attention_training_backward(
        heads(d_q, c.heads), heads(d_k, c.kv_heads), heads(d_v, c.kv_heads), heads(d_out, c.heads),
        heads(out, c.heads), rows_in(log_sum, c.heads), heads(d_q, c.heads), heads(d_k, c.kv_heads),
        heads(d_v, c.kv_heads), shape);
    check_gradient([&](const Doubles& at) { return attend(c, scale, starts, at, wide_k, wide_v); },
                   q, d_out, d_q, "d_q " + what);
    check_gradient([&](const Doubles& at) { return attend(c, scale, starts, wide_q, at, wide_v); },
                   k, d_out, d_k, "d_k " + what);
    check_gradient([&](const Doubles& at) { return attend(c, scale, starts, wide_q, wide_k, at); },
                   v, d_out, d_v, "d_v " + what);
  }
}

// The relative error of a whole tensor: what rounding does to single elements depends on the
// others.
double distance(const Floats& got, const Floats& want) {
  double error = 0, size = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    error += (double{got[i]} - want[i]) * (double{got[i]} - want[i]);
    size += double{want[i]} * want[i];
  }
  return std::sqrt(error / size);
}

// Rounding to eight bits loses up to 2^-9 of a factor; a wrong pair would be off by the whole
// value.
TEST_P(Training, Bf16AttentionStaysNearFloat) {
  if (!CpuTrainingBackend::supports(Precision::BF16, GetParam())) {
    GTEST_SKIP() << "skipped: no bf16 products with " << cpu::name(GetParam()) << " on this CPU";
  }
  CpuTrainingBackend rounding(pool_, GetParam(), Precision::BF16);
  for (const AttentionCase& c : kAttention) {
    if (c.seq == 1) continue;  // d_q and d_k are zero but for rounding
    const int64_t tokens = c.batch * c.seq;
    const std::vector<int32_t> starts = document_starts(c);
    const std::vector<float> slopes = c.slopes();
    const TrainingAttention shape = {.batch = c.batch,
                                     .seq = c.seq,
                                     .scale = 0.7f,
                                     .rules = {c.window, c.cap, slopes},
                                     .starts = starts};
    const Floats d_out = random_floats(size_t(tokens * c.heads * c.head_dim), 4);
    std::vector<Floats> results[2];
    for (CpuTrainingBackend* backend : {&run(), &rounding}) {
      Floats q = random_floats(size_t(tokens * c.heads * c.head_dim), 1);
      Floats k = random_floats(size_t(tokens * c.kv_heads * c.head_dim), 2);
      Floats v = random_floats(k.size(), 3), out(q.size()), d = d_out;
      Floats log_sum(size_t(tokens * c.heads));
      const auto heads = [&](Floats& x) {
        return heads_in(x, int64_t(x.size()) / (tokens * c.head_dim), c.head_dim);
      };
      backend->attention_training(heads(out), rows_in(log_sum, c.heads), heads(q), heads(k),
                                  heads(v), shape);
      backend->attention_training_backward(heads(q), heads(k), heads(v), heads(d), heads(out),
                                           rows_in(log_sum, c.heads), heads(q), heads(k), heads(v),
                                           shape);
      results[backend == &rounding] = {out, log_sum, q, k, v};
    }
    for (size_t i = 0; i < results[0].size(); ++i) {
      EXPECT_LT(distance(results[1][i], results[0][i]), 0.02)
          << fmt::format("{} x {}, heads of {}, tensor {}", c.batch, c.seq, c.head_dim, i);
    }
  }
}

TEST_P(Training, CrossEntropyOverSeveralChunks) {
  // 40,000 columns make chunks of 256 rows; 300 rows count.
  constexpr int64_t kTokens = 310, kDim = 3, kVocab = 40000;
  constexpr float kScale = 0.25f;
  Floats hidden = random_floats(kTokens * kDim, 1), head = random_floats(kVocab * kDim, 2);
  for (float& x : head) x *= 4;
  std::vector<int32_t> targets(kTokens);
  Rng rng(3);
  for (int64_t t = 0; t < kTokens; ++t) {
    targets[size_t(t)] = t % 31 == 5 ? -100 : static_cast<int32_t>(rng.below(kVocab));
  }
  double loss = 0;
  Doubles d_hidden(hidden.size()), d_head(head.size(), 0.5);
  for (int64_t t = 0; t < kTokens; ++t) {
    if (targets[size_t(t)] < 0) continue;
    const float* x = hidden.data() + t * kDim;
    Doubles exps(kVocab);
    double sum = 0;
    for (int64_t n = 0; n < kVocab; ++n) {
      double logit = 0;
      for (int64_t i = 0; i < kDim; ++i) logit += double{x[i]} * head[size_t(n * kDim + i)];
      sum += exps[size_t(n)] = std::exp(logit);
    }
    loss += std::log(sum / exps[size_t(targets[size_t(t)])]);
    for (int64_t n = 0; n < kVocab; ++n) {
      const double d = kScale * (exps[size_t(n)] / sum - (n == targets[size_t(t)] ? 1 : 0));
      for (int64_t i = 0; i < kDim; ++i) {
        d_hidden[size_t(t * kDim + i)] += d * head[size_t(n * kDim + i)];
        d_head[size_t(n * kDim + i)] += d * x[i];
      }
    }
  }
  Floats got_hidden(hidden.size(), 7.0f), got_head(head.size(), 0.5f);
  const Weight weight = weight_of(head, kDim);
  const LossSum sum = run().cross_entropy(rows_in(got_hidden, kDim), rows_in(got_head, kDim), {},
                                          rows_in(hidden, kDim), {&weight}, targets, kScale);
  EXPECT_EQ(sum.count, 300);
  EXPECT_NEAR(sum.loss, loss, 1e-6 * loss);
  check_close(got_hidden, narrowed(d_hidden), {.absolute = 5e-6, .relative = 2e-5}, "d_hidden");
  check_close(got_head, narrowed(d_head), {.absolute = 2e-6, .relative = 2e-6}, "d_lm_head");
  const LossSum alone =
      run().cross_entropy({}, {}, {}, rows_in(hidden, kDim), {&weight}, targets, 1);
  EXPECT_EQ(alone.count, 300);
  EXPECT_NEAR(alone.loss, loss, 1e-6 * loss);
}

// A bias, a scale and a cap between the product and the loss.
TEST_P(Training, CrossEntropyOfAdjustedLogits) {
  constexpr int64_t kTokens = 5, kDim = 6, kVocab = 11;
  Floats hidden = random_floats(kTokens * kDim, 1), head = random_floats(kVocab * kDim, 2);
  Floats bias = random_floats(kVocab, 3);
  const std::vector<int32_t> targets = {3, -100, 0, 10, 7};
  const float logit_scale = 1.7f, cap = 1.3f;
  const auto loss = [&](const Doubles& x, const Doubles& w, const Doubles& b) {
    double total = 0;
    for (int64_t t = 0; t < kTokens; ++t) {
      if (targets[size_t(t)] < 0) continue;
      double sum = 0, wanted = 0;
      for (int64_t n = 0; n < kVocab; ++n) {
        double logit = b[size_t(n)];
        for (int64_t i = 0; i < kDim; ++i)
          logit += x[size_t(t * kDim + i)] * w[size_t(n * kDim + i)];
        logit = double{cap} * std::tanh(logit * double{logit_scale} / cap);
        sum += std::exp(logit);
        if (n == targets[size_t(t)]) wanted = logit;
      }
      total += std::log(sum) - wanted;
    }
    return Doubles{total};
  };
  Floats d_hidden(hidden.size()), d_head(head.size()), d_bias(bias.size());
  const Weight weight = weight_of(head, kDim);
  const LossHead adjusted = {&weight, bias, logit_scale, cap};
  const LossSum sum = run().cross_entropy(rows_in(d_hidden, kDim), rows_in(d_head, kDim), d_bias,
                                          rows_in(hidden, kDim), adjusted, targets, 1);
  const Doubles x = widened(hidden), w = widened(head), b = widened(bias);
  EXPECT_NEAR(sum.loss, loss(x, w, b)[0], 1e-5);
  const Floats one = {1};
  check_gradient([&](const Doubles& at) { return loss(at, w, b); }, hidden, one, d_hidden,
                 "hidden");
  check_gradient([&](const Doubles& at) { return loss(x, at, b); }, head, one, d_head, "head");
  check_gradient([&](const Doubles& at) { return loss(x, w, at); }, bias, one, d_bias, "bias");
}

TEST_P(Training, CrossEntropyOfABatchWithoutLabelsIsZero) {
  Floats hidden = random_floats(6, 1), head = random_floats(12, 2), d_hidden(6, 1.0f), d_head(12);
  const std::vector<int32_t> targets = {-100, -100};
  const Weight weight = weight_of(head, 3);
  const LossSum sum = run().cross_entropy(rows_in(d_hidden, 3), rows_in(d_head, 3), {},
                                          rows_in(hidden, 3), {&weight}, targets, 1);
  EXPECT_EQ(sum.count, 0);
  EXPECT_EQ(sum.loss, 0);
  EXPECT_EQ(d_hidden, Floats(6));
  EXPECT_EQ(d_head, Floats(12));
}

TEST_P(Training, ProductsInDouble) {
  const auto& kernels = cpu::training_kernels(GetParam());
  for (const auto [rows, depth, cols] :
       {std::array<int64_t, 3>{1, 1, 1}, {5, 7, 3}, {6, 48, 16}, {13, 5, 37}, {48, 48, 70}}) {
    constexpr int64_t kPanel = cpu::kPanelDoubles;
    constexpr int64_t kDepth = cpu::kDepthDoubles;
    const int64_t out_step = cols + 1;
    const auto doubles = [](int64_t count, uint64_t seed) {
      const Floats floats = random_floats(static_cast<size_t>(count), seed);
      return Doubles(floats.begin(), floats.end());
    };
    const Doubles a = doubles(rows * kDepth, 1), before = doubles(rows * out_step, 3);
    const Doubles b = doubles((cols + kPanel - 1) / kPanel * kPanel * depth, 2);
    Doubles out = before;
    kernels.subtract_product(out.data(), out_step, a.data(), b.data(), rows, depth, cols);
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < out_step; ++c) {
        double want = before[size_t(r * out_step + c)];
        for (int64_t k = 0; c < cols && k < depth; ++k) {
          want -= a[size_t(r * kDepth + k)] *
                  b[size_t(c / kPanel * kPanel * depth + k * kPanel + c % kPanel)];
        }
        EXPECT_NEAR(out[size_t(r * out_step + c)], want, 1e-13 * double(depth + 1));
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, Training, test::every_isa(), test::isa_name);

}  // namespace
}  // namespace quern
