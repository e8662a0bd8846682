// What training does to whole runs of numbers, whatever tensors they are: norms, the optimizer's
// step, rounding, clearing, dropout; on every instruction set that the machine has.
#include <algorithm>
#include <cmath>

#include "compute/training_fixture.h"
#include "core/dtype.h"

namespace quern {
namespace {

using test::check_close;
using test::random_floats;
using Floats = std::vector<float>;
using Doubles = std::vector<double>;

Floats narrowed(const Doubles& x) { return {x.begin(), x.end()}; }

class TrainingSpans : public Training {};

TEST_P(TrainingSpans, SquaredNorm) {
  for (const size_t count : {size_t{0}, size_t{1}, size_t{17}, size_t{40001}}) {
    const Floats x = random_floats(count, count);
    double want = 0;
    for (const float v : x) want += double{v} * v;
    EXPECT_NEAR(run().squared_norm(x), want, 1e-12 * want);
  }
}

TEST_P(TrainingSpans, AdamWMeetsTheDefinition) {
  const AdamWStep step = {.learning_rate = 0.01,
                          .beta_1 = 0.9,
                          .beta_2 = 0.95,
                          .epsilon = 1e-6,
                          .weight_decay = 0.1,
                          .gradient_scale = 0.5,
                          .step = 3};
  Floats p = random_floats(37, 1), m = random_floats(37, 3), v = random_floats(37, 4);
  const Floats g = random_floats(37, 2);
  for (float& x : v) x = std::abs(x);
  Doubles want_p, want_m, want_v;
  for (size_t i = 0; i < p.size(); ++i) {
    const double gradient = 0.5 * g[i];
    const double mi = 0.9 * m[i] + 0.1 * gradient, vi = 0.95 * v[i] + 0.05 * gradient * gradient;
    const double decayed = p[i] * (1 - 0.01 * 0.1);
    want_m.push_back(mi);
    want_v.push_back(vi);
    want_p.push_back(decayed - 0.01 * (mi / (1 - std::pow(0.9, 3))) /
                                   (std::sqrt(vi / (1 - std::pow(0.95, 3))) + 1e-6));
  }
  run().adamw(p, g, m, v, step);
  check_close(p, narrowed(want_p), {.absolute = 1e-7, .relative = 1e-6}, "p");
  check_close(m, narrowed(want_m), {.absolute = 1e-7, .relative = 1e-6}, "m");
  check_close(v, narrowed(want_v), {.absolute = 1e-7, .relative = 1e-6}, "v");
}

TEST_P(TrainingSpans, RoundingToBfloat16AndBack) {
  for (const size_t count : {size_t{1}, size_t{37}, size_t{70001}}) {
    const Floats x = random_floats(count, 3);
    std::vector<uint16_t> narrow(count);
    Floats wide(count);
    run().narrow(narrow, x);
    run().widen(wide, narrow);
    for (size_t i = 0; i < count; ++i) {
      ASSERT_EQ(narrow[i], to_bf16(x[i])) << i;
      ASSERT_EQ(wide[i], from_bf16(narrow[i])) << i;
    }
  }
}

TEST_P(TrainingSpans, ClearedMemoryIsZeroAndItsNeighboursAreNot) {
  constexpr size_t kSize = 400000;
  Tensor block = run().allocate(DType::F32, {kSize});
  for (const size_t begin : {size_t{0}, size_t{3}, size_t{1024}}) {
    for (const size_t count : {size_t{0}, size_t{7}, size_t{1024}, size_t{390000}}) {
      std::ranges::fill(block.floats(), 1.0f);
      run().clear(block.floats().subspan(begin, count));
      for (size_t i = 0; i < kSize; ++i) {
        ASSERT_EQ(block.floats()[i], i >= begin && i < begin + count ? 0 : 1) << begin << " " << i;
      }
    }
  }
}

TEST_P(TrainingSpans, DropoutKeepsTheShareItIsToldTo) {
  constexpr int64_t kCols = 1003;
  const Dropout dropout = {.probability = 0.25f, .seed = 1, .stream = 2};
  Floats x(100 * kCols, 3.0f);
  run().dropout(rows_in(x, kCols), dropout);
  const auto dropped = std::ranges::count(x, 0.0f), kept = std::ranges::count(x, 4.0f);
  EXPECT_EQ(dropped + kept, static_cast<int64_t>(x.size()));
  // Five standard deviations of a binomial.
  EXPECT_NEAR(double(dropped) / double(x.size()), 0.25, 5 * std::sqrt(0.1875 / double(x.size())));

  Floats again(x.size(), 3.0f), other = again;
  ThreadPool pool(3);
  CpuTrainingBackend backend(pool, GetParam());
  backend.dropout(rows_in(again, kCols), dropout);
  EXPECT_EQ(again, x);
  backend.dropout(rows_in(other, kCols), {.probability = 0.25f, .seed = 1, .stream = 3});
  EXPECT_NE(other, x);
}

INSTANTIATE_TEST_SUITE_P(All, TrainingSpans, test::every_isa(), test::isa_name);

}  // namespace
}  // namespace quern
