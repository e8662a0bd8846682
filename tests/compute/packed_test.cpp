// Packed weights: what is stored is what the source says, and every variant of the products agrees
// with the definition bit for bit in the integers, and with the float product within the rounding
// of the activations.
#include "compute/packed.h"

#include <cmath>
#include <cstring>

#include "compute/cpu/cpu_training_backend.h"
#include "core/dtype.h"
#include "core/rng.h"
#include "support/support.h"

namespace quern {
namespace {

using test::check_close;
using test::random_floats;

// A GPTQ matrix with memory of its own and its weights as floats, by the format's definition.
struct Gptq {
  Gptq(int bits, int64_t out, int64_t inputs, int64_t group, bool symmetric, bool scattered,
       uint64_t seed)
      : in(inputs) {
    Rng rng(seed);
    const int64_t per = 32 / bits, groups = in / group;
    qweight.resize(static_cast<size_t>(in / per * out));
    qzeros.resize(static_cast<size_t>(groups * out / per));
    scales.resize(static_cast<size_t>(groups * out));
    g_idx.resize(static_cast<size_t>(in));
    for (int64_t k = 0; k < in; ++k) {
      g_idx[size_t(k)] = static_cast<int32_t>(scattered ? k * 7 % groups : k / group);
    }
    weights.resize(static_cast<size_t>(out * in));
    std::vector<int> zeros(static_cast<size_t>(groups * out));
    for (int64_t g = 0; g < groups; ++g) {
      for (int64_t j = 0; j < out; ++j) {
        const int zero = symmetric ? 1 << (bits - 1) : 1 + int(rng.below(uint64_t(1) << bits));
        zeros[size_t(g * out + j)] = zero;
        qzeros[size_t(g * (out / per) + j / per)] |= uint32_t(zero - 1) << (j % per * bits);
        scales[size_t(g * out + j)] = to_f16(0.001f + 0.01f * float(rng.below(100)));
      }
    }
    for (int64_t k = 0; k < in; ++k) {
      for (int64_t j = 0; j < out; ++j) {
        const auto q = static_cast<uint32_t>(rng.below(uint64_t(1) << bits));
        qweight[size_t(k / per * out + j)] |= q << (k % per * bits);
        const auto at = size_t(g_idx[size_t(k)] * out + j);
        weights[size_t(j * in + k)] = from_f16(scales[at]) * float(int(q) - zeros[at]);
      }
    }
    matrix = {qweight.data(), qzeros.data(), scales.data(), g_idx.data(), out, bits};
  }

  PackedMatrix pack() const {
    auto packed = packed_shape(matrix, in);
    EXPECT_TRUE(packed.has_value());
    packed->memory = allocate_host(DType::U8, {packed->bytes()});
    pack_gptq(*packed, matrix, 0, packed->strips());
    return std::move(*packed);
  }

  int64_t in;
  std::vector<uint32_t> qweight, qzeros;
  std::vector<uint16_t> scales;
  std::vector<int32_t> g_idx;
  std::vector<float> weights;
  GptqMatrix matrix;
};

struct Shape2 {
  int bits;
  int64_t out, in, group;
  bool symmetric, scattered;
};
const Shape2 kShapes[] = {
    {4, 8, 32, 32, true, false},    {4, 24, 64, 64, false, false},  {4, 16, 192, 32, true, true},
    {4, 40, 256, 128, false, true}, {4, 72, 128, 128, true, false}, {8, 4, 32, 32, true, false},
    {8, 12, 96, 32, false, false},  {8, 20, 256, 64, true, true},   {8, 44, 128, 128, false, true},
};

TEST(Packed, HoldsTheWeightsOfGptq) {
  for (const Shape2& s : kShapes) {
    const Gptq source(s.bits, s.out, s.in, s.group, s.symmetric, s.scattered, 1);
    const PackedMatrix packed = source.pack();
    EXPECT_EQ(packed.order.empty(), !s.scattered || s.group == s.in);
    EXPECT_EQ(packed.scales == PackedScales::Symmetric, s.symmetric);
    std::vector<float> row(size_t(s.in));
    for (int64_t j = 0; j < s.out; ++j) {
      decode_packed(row, packed, j);
      check_close(row, std::span(source.weights).subspan(size_t(j * s.in), size_t(s.in)), {0, 1e-7},
                  "row " + std::to_string(j));
    }
  }
}

TEST(Packed, GroupsThatNoBlockLiesInHaveNoForm) {
  EXPECT_FALSE(packed_shape(Gptq(4, 8, 64, 8, true, false, 1).matrix, 64));
  EXPECT_FALSE(packed_shape(Gptq(4, 8, 48, 48, true, false, 1).matrix, 48));
  Gptq unequal(4, 8, 64, 32, true, false, 1);
  unequal.g_idx[40] = 0;
  EXPECT_FALSE(packed_shape(unequal.matrix, 64));
}

// A matrix in one of GGUF's forms, filled with anything that is valid.
PackedMatrix random_packed(int bits, PackedScales scales, int64_t rows, int64_t cols,
                           uint64_t seed) {
  PackedMatrix m;
  m.bits = bits;
  m.scales = scales;
  m.rows = rows;
  m.cols = cols;
  m.memory = allocate_host(DType::U8, {m.bytes()});
  Rng rng(seed);
  for (int64_t s = 0; s < m.strips(); ++s) {
    const StripParts<std::byte> parts(m, m.strip(s));
    for (int64_t i = 0; i < cols / kBlockInputs * bits * kStripRows; ++i) {
      auto word = static_cast<uint32_t>(rng.below(uint64_t{1} << 32));
      if (bits == 8 && (scales == PackedScales::Minima || scales == PackedScales::Offsets)) {
        word &= 0x1F1F1F1Fu;  // 0 to 31
      }
      if (scales == PackedScales::Sixteens) {  // -32 to 31
        word = (((word & 0x3F3F3F3Fu) | 0x80808080u) - 0x20202020u) ^ 0x80808080u;
      }
      parts.levels[i] = word;
    }
    const bool grouped = scales == PackedScales::Symmetric || scales == PackedScales::Offsets;
    const int64_t halves = grouped                          ? cols / m.group
                           : scales == PackedScales::Minima ? cols / kSuperInputs * 2
                                                            : cols / kSuperInputs;
    for (int64_t i = 0; i < halves * kStripRows; ++i) {
      parts.halves[i] = to_f16(0.001f + 0.0001f * float(rng.below(100)));
    }
    if (scales == PackedScales::Offsets) {
      for (int64_t i = 0; i < halves * kStripRows; ++i) {
        parts.zeros[i] = static_cast<int16_t>(to_f16(-0.01f + 0.0002f * float(rng.below(100))));
      }
    }
    if (grouped) continue;
    const int64_t smalls = cols / 16 * (scales == PackedScales::MinimaSixteens ? 2 : 1);
    for (int64_t i = 0; i < smalls * kStripRows; ++i) {
      parts.small[i] =
          static_cast<uint8_t>(rng.below(scales == PackedScales::Minima           ? 64
                                         : scales == PackedScales::MinimaSixteens ? 16
                                                                                  : 256));
    }
  }
  return m;
}

// What a row is after rounding, by the definition in quant_kernels.h: levels times scales.
std::vector<double> rounded(std::span<const float> x, cpu::RoundedForm form) {
  const float most = form == cpu::RoundedForm::Words      ? 32767
                     : form == cpu::RoundedForm::TwoBytes ? 127 * 256
                                                          : 127;
  std::vector<double> out;
  for (size_t begin = 0; begin < x.size(); begin += 32) {
    float largest = 0;
    for (size_t k = begin; k < begin + 32; ++k) {
      largest = std::max(largest, std::abs(x[k]));
      if (form == cpu::RoundedForm::Pairs) largest = std::max(largest, std::abs(x[k] + x[k ^ 1]));
    }
    const float d = largest / most, inverse = most / largest;
    for (size_t k = begin; k < begin + 32; ++k) {
      out.push_back(largest > 0 ? double(d) * double(std::nearbyint(x[k] * inverse)) : 0);
    }
  }
  return out;
}

struct Checked {
  const PackedMatrix& m;
  int64_t rows;
  std::vector<float> x = random_floats(static_cast<size_t>(rows * m.cols), 3);
  std::vector<float> bias = random_floats(static_cast<size_t>(m.rows), 4);
  std::vector<float> start = random_floats(static_cast<size_t>(rows * m.rows), 5);

  // With the weight's outputs from `first` on.
  std::vector<float> product(const cpu::QuantKernels& kernels, int threads, int64_t first = 0,
                             int64_t row_begin = 0, int64_t row_count = -1) const {
    ThreadPool pool(threads);
    CpuBackend run(pool, cpu::Isa::Scalar, kernels);
    const int64_t count = row_count < 0 ? rows : row_count, n = m.rows - first;
    const Weight whole = {
        .format = WeightFormat::Packed, .rows = m.rows, .cols = m.cols, .packed = &m};
    const Weight weight = whole.slice(first, n);
    std::vector<float> out;
    for (int64_t r = row_begin; r < row_begin + count; ++r) {
      out.insert(out.end(), start.begin() + r * m.rows + first, start.begin() + (r + 1) * m.rows);
    }
    const MatmulPart part = {{out.data(), count, n, n},
                             &weight,
                             std::span(bias).subspan(static_cast<size_t>(first)),
                             true};
    run.matmul({x.data() + row_begin * m.cols, count, m.cols, m.cols}, {&part, 1});
    return out;
  }

  // In double. `exact`: of x itself, else of x as it is rounded.
  std::vector<float> definition(bool exact, std::vector<double>* sizes = nullptr) const {
    std::vector<float> weights(static_cast<size_t>(m.cols)), out(start);
    if (sizes != nullptr) sizes->assign(out.size(), 0);
    for (int64_t r = 0; r < rows; ++r) {
      const auto row = std::span(x).subspan(size_t(r * m.cols), size_t(m.cols));
      std::vector<float> ordered(row.begin(), row.end());
      for (size_t k = 0; k < m.order.size(); ++k) ordered[k] = row[size_t(m.order[k])];
      std::vector<double> factors(ordered.begin(), ordered.end());
      if (!exact) factors = rounded(ordered, cpu::rounded_form(m));
      for (int64_t i = 0; i < m.rows; ++i) {
        decode_packed(weights, m, i);
        double sum = double(bias[size_t(i)]) + double(start[size_t(r * m.rows + i)]), size = 0;
        for (int64_t k = 0; k < m.cols; ++k) {
          const int64_t place = m.order.empty() ? k : m.order[size_t(k)];
          const double w = weights[size_t(place)];
          sum += factors[size_t(k)] * w;
          size += std::abs(w);
        }
        out[size_t(r * m.rows + i)] = static_cast<float>(sum);
        if (sizes != nullptr) (*sizes)[size_t(r * m.rows + i)] = size;
      }
    }
    return out;
  }
};

std::vector<PackedMatrix> matrices() {
  std::vector<PackedMatrix> all;
  for (const int bits : {8, 16}) {
    const auto add = [&](PackedMatrix m) {
      m.activation_bits = bits;
      all.push_back(std::move(m));
    };
    for (const Shape2& s : kShapes) {
      add(Gptq(s.bits, s.out, s.in, s.group, s.symmetric, s.scattered, 2).pack());
    }
    add(random_packed(4, PackedScales::Offsets, 21, 96, 2));
    add(random_packed(4, PackedScales::Offsets, 70, 576, 2));
    add(random_packed(8, PackedScales::Offsets, 21, 96, 2));
    add(random_packed(4, PackedScales::Minima, 21, 512, 2));
    add(random_packed(8, PackedScales::Minima, 9, 256, 3));
    add(random_packed(8, PackedScales::Minima, 40, 1280, 3));
    add(random_packed(8, PackedScales::Sixteens, 17, 512, 4));
    add(random_packed(8, PackedScales::Sixteens, 33, 1280, 4));
    // Levels and activations at their ends: nothing may overflow on the way.
    const auto add_ends = [&](int levels, PackedScales scales, int byte) {
      PackedMatrix m = random_packed(levels, scales, 16, 256, 5);
      for (int64_t s = 0; s < m.strips(); ++s) {
        std::memset(m.strip(s), byte, static_cast<size_t>(m.level_bytes()));
      }
      add(std::move(m));
    };
    add(random_packed(4, PackedScales::MinimaSixteens, 21, 512, 2));
    add(random_packed(4, PackedScales::MinimaSixteens, 70, 1280, 2));
    add_ends(4, PackedScales::MinimaSixteens, 0xFF);
    add_ends(8, PackedScales::Minima, 31);
    add_ends(8, PackedScales::Offsets, 31);
    add_ends(4, PackedScales::Offsets, 0xFF);
    add_ends(8, PackedScales::Sixteens, 31);
    add_ends(8, PackedScales::Sixteens, -32);
    if (bits == 16) {  // IQ4_XS
      add_ends(8, PackedScales::Sixteens, 127);
      add_ends(8, PackedScales::Sixteens, -128);
    }
    for (const int byte : {0xFF, 0x80, 0x7F, 0}) {
      for (const int levels : {4, 8}) add_ends(levels, PackedScales::Symmetric, byte);
    }
  }
  return all;
}

TEST(PackedProduct, EveryVariantAgreesWithTheDefinitionOfItsRounding) {
  for (const PackedMatrix& m : matrices()) {
    for (const int64_t rows : {1, 2, 3, 5, 17, 61}) {
      Checked check = {m, rows};
      // A row of one sign at the end of the range, and one of zeros.
      if (rows > 2) {
        std::fill_n(check.x.begin(), m.cols, 1.0f);
        std::fill_n(check.x.begin() + m.cols, m.cols, 0.0f);
        std::fill_n(check.x.begin() + 2 * m.cols, m.cols, -1.0f);
      }
      std::vector<double> sizes;
      const auto expected = check.definition(/*exact=*/false, &sizes);
      for (const cpu::QuantKernels* kernels : cpu::quant_variants()) {
        if (!kernels->supported()) continue;
        const auto got = check.product(*kernels, 2);
        for (size_t i = 0; i < got.size(); ++i) {  // float arithmetic on inputs up to 1
          ASSERT_NEAR(got[i], expected[i], 4e-6 * sizes[i] + 2e-5)
              << kernels->name << ", " << m.bits << " bits, " << m.rows << " x " << m.cols
              << ", row " << i / size_t(m.rows);
        }
      }
    }
  }
}

// |Σ (x - x̂) w| ≤ Σ over blocks of d / 2 · Σ |w|: half a step of the rounding for each input.
TEST(PackedProduct, StaysWithinTheErrorBoundOfTheFloatProduct) {
  for (const PackedMatrix& m : matrices()) {
    const Checked check = {m, 4};
    std::vector<double> sizes;
    const auto exact = check.definition(/*exact=*/true, &sizes);
    const auto form = cpu::rounded_form(m);
    const double step = form == cpu::RoundedForm::Bytes   ? 1.0 / 127
                        : form == cpu::RoundedForm::Pairs ? 2.0 / 127  // of two ones
                                                          : 1.0 / (127 * 256);
    for (const cpu::QuantKernels* kernels : cpu::quant_variants()) {
      if (!kernels->supported()) continue;
      const auto got = check.product(*kernels, 1);
      for (size_t i = 0; i < got.size(); ++i) {
        // Inputs are below 1; the rest is float arithmetic.
        const double bound = sizes[i] * (step / 2 + 4e-6) + 2e-5;
        EXPECT_LE(std::abs(double(got[i]) - double(exact[i])), bound) << kernels->name;
      }
    }
  }
}

TEST(PackedProduct, DoesNotDependOnCompanyThreadsOrSlices) {
  for (const PackedMatrix& m : matrices()) {
    const Checked check = {m, 23};
    for (const cpu::QuantKernels* kernels : cpu::quant_variants()) {
      if (!kernels->supported()) continue;
      const auto all = check.product(*kernels, 3);
      EXPECT_EQ(check.product(*kernels, 1), all);
      for (const int64_t row : {0, 10, 22}) {
        const auto alone = check.product(*kernels, 1, 0, row, 1);
        EXPECT_EQ(std::memcmp(alone.data(), all.data() + row * m.rows, size_t(m.rows) * 4), 0);
      }
      const int64_t first = m.rows > 5 ? 5 : 1;  // in the middle of a strip
      const auto part = check.product(*kernels, 2, first);
      for (int64_t r = 0; r < 23; ++r) {
        EXPECT_EQ(std::memcmp(part.data() + r * (m.rows - first), all.data() + r * m.rows + first,
                              size_t(m.rows - first) * 4),
                  0);
      }
    }
  }
}

TEST(PackedProduct, WhatIsNotFiniteStaysSo) {
  const PackedMatrix m = Gptq(4, 8, 64, 32, true, false, 1).pack();
  for (const float bad : {NAN, INFINITY, -INFINITY}) {
    Checked check = {m, 2};
    check.x[40] = bad;
    for (const cpu::QuantKernels* kernels : cpu::quant_variants()) {
      if (!kernels->supported()) continue;
      const auto got = check.product(*kernels, 1);
      EXPECT_FALSE(std::isfinite(got[3])) << kernels->name;
      EXPECT_TRUE(std::isfinite(got[8 + 3])) << kernels->name;
    }
  }
}

// What training needs of a frozen matrix: the gradient of its input, whatever its format. The
// definition is that of the same matrix as floats.
TEST(FrozenWeights, TheGradientOfTheInputIsThatOfTheFloats) {
  ThreadPool pool(2);
  for (const cpu::Isa isa : cpu::supported_isas()) {
    CpuTrainingBackend backend(pool, isa);
    for (const Shape2& shape : kShapes) {
      const Gptq source(shape.bits, shape.out, shape.in, shape.group, shape.symmetric,
                        shape.scattered, 3);
      const PackedMatrix packed = source.pack();
      const int64_t rows = 5;
      std::vector<float> d_out = random_floats(size_t(rows * shape.out), 4);
      const auto gradient = [&](const Weight& weight) {
        std::vector<float> d_x = random_floats(size_t(rows * shape.in), 5);
        backend.matmul_backward({d_x.data(), rows, shape.in, shape.in},
                                {d_out.data(), rows, shape.out, shape.out}, weight,
                                /*accumulate=*/true);
        return d_x;
      };
      const Weight floats = {.format = WeightFormat::F32,
                             .rows = shape.out,
                             .cols = shape.in,
                             .data = reinterpret_cast<const std::byte*>(source.weights.data())};
      const std::vector<float> want = gradient(floats);
      const Weight words = {.format = WeightFormat::Gptq,
                            .rows = shape.out,
                            .cols = shape.in,
                            .gptq = &source.matrix};
      const Weight strips = {
          .format = WeightFormat::Packed, .rows = shape.out, .cols = shape.in, .packed = &packed};
      check_close(gradient(words), want, {1e-5, 1e-5}, "words");
      check_close(gradient(strips), want, {1e-5, 1e-5}, "strips");
      // A part of the rows, from the middle of a strip on.
      d_out.resize(size_t(rows * (shape.out - 3)));
      const auto part = [&](const Weight& weight) {
        std::vector<float> d_x(size_t(rows * shape.in));
        backend.matmul_backward({d_x.data(), rows, shape.in, shape.in},
                                {d_out.data(), rows, shape.out - 3, shape.out - 3},
                                weight.slice(3, shape.out - 3), /*accumulate=*/false);
        return d_x;
      };
      check_close(part(strips), part(floats), {1e-5, 1e-5}, "part of the strips");
      check_close(part(words), part(floats), {1e-5, 1e-5}, "part of the words");
    }
  }
}

TEST(FrozenWeights, SixteenBitsAreMultipliedAndDifferentiatedAsTheirFloats) {
  ThreadPool pool(2);
  const int64_t rows = 7, in = 70, out = 700;  // more rows of the weight than are widened at once
  for (const bool bf16 : {false, true}) {
    std::vector<float> floats = random_floats(size_t(out * in), 1);
    std::vector<uint16_t> halves;
    for (float& x : floats) {
      halves.push_back(bf16 ? to_bf16(x) : to_f16(x));
      x = bf16 ? from_bf16(halves.back()) : from_f16(halves.back());
    }
    const auto weight_of = [&](WeightFormat format, const void* data) {
      return Weight{
          .format = format, .rows = out, .cols = in, .data = static_cast<const std::byte*>(data)};
    };
    const Weight wide = weight_of(WeightFormat::F32, floats.data());
    const Weight narrow = weight_of(bf16 ? WeightFormat::BF16 : WeightFormat::F16, halves.data());
    const std::vector<float> x = random_floats(size_t(rows * in), 2);
    const std::vector<float> d_out = random_floats(size_t(rows * out), 3);
    for (const cpu::Isa isa : cpu::supported_isas()) {
      CpuTrainingBackend backend(pool, isa);
      const auto both = [&](const Weight& weight) {
        std::vector<float> y(size_t(rows * out)), d_x(size_t(rows * in));
        const MatmulPart part = {{y.data(), rows, out, out}, &weight, {}, false};
        backend.matmul({x.data(), rows, in, in}, {&part, 1});
        backend.matmul_backward({d_x.data(), rows, in, in}, {d_out.data(), rows, out, out}, weight,
                                false);
        return std::pair(y, d_x);
      };
      EXPECT_EQ(both(narrow).first, both(wide).first);
      check_close(both(narrow).second, both(wide).second, {1e-4, 1e-5}, "d_x");
    }
  }
}

}  // namespace
}  // namespace quern
