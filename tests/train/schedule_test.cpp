// The learning rate of each step against the reference's: fixtures, qwen1-train.
#include "train/schedule.h"

#include "formats/safetensors.h"
#include "support/support.h"

namespace quern {
namespace {

void expect_shares(const std::string& name, double floor) {
  const SafetensorsFile golden(
      test::source("tests/fixtures/models/qwen1-train/golden.safetensors"));
  const std::vector<float> expected = to_floats(golden.at(name), name);
  const Schedule schedule = {.floor = floor, .warmup = 2, .total = 10};
  std::vector<float> got;
  for (int64_t i = 0; i <= 10; ++i) got.push_back(static_cast<float>(schedule.share_at(i)));
  test::check_close(got, expected, {.absolute = 1e-7}, name);
}

TEST(Schedule, CosineToATenthOfThePeak) { expect_shares("schedule.cosine_min10", 0.1); }
TEST(Schedule, CosineToZero) { expect_shares("schedule.hf_cosine", 0); }

TEST(Schedule, TheFirstStepIsNotWastedAndTheLastIsTheFloor) {
  const Schedule schedule = {.peak = 2, .floor = 0.1, .warmup = 4, .total = 100};
  EXPECT_DOUBLE_EQ(schedule.rate_of_step(1), 0.5);
  EXPECT_DOUBLE_EQ(schedule.rate_of_step(4), 2);
  EXPECT_DOUBLE_EQ(schedule.rate_of_step(100), 0.2);
  EXPECT_DOUBLE_EQ(schedule.rate_of_step(1000), 0.2);
}

TEST(Schedule, LinearAndConstant) {
  const Schedule linear = {.decline = Decline::Linear, .floor = 0, .warmup = 0, .total = 10};
  EXPECT_DOUBLE_EQ(linear.share_at(5), 0.5);
  const Schedule constant = {.decline = Decline::Constant, .warmup = 2, .total = 10};
  EXPECT_DOUBLE_EQ(constant.share_at(1), 0.5);
  EXPECT_DOUBLE_EQ(constant.share_at(9), 1);
  test::expect_error([] { parse_decline("step", "run.toml"); }, Kind::BadInput,
                     {"run.toml", "'step'", "cosine, linear or constant"});
}

}  // namespace
}  // namespace quern
