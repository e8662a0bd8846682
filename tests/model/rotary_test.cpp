#include "model/rotary.h"

#include <cmath>

#include "support/support.h"

namespace quern {
namespace {

// The factors that the reference used at these prompt lengths (fixtures, qwen1-longctx-both).
TEST(NtkAlpha, StepsAtPowersOfTwoOfTheTrainedLength) {
  const std::pair<int64_t, double> known[] = {{48, 1},  {64, 1},  {65, 3},  {100, 3},  {128, 3},
                                              {129, 7}, {200, 7}, {256, 7}, {257, 15}, {300, 15}};
  for (const auto& [length, alpha] : known) EXPECT_EQ(ntk_alpha(length, 64), alpha) << length;
  EXPECT_EQ(ntk_alpha(8192, 8192), 1);
  EXPECT_EQ(ntk_alpha(8193, 8192), 3);
  EXPECT_EQ(ntk_alpha(1, 8192), 1);
}

TEST(LogN, GrowsPastTheTrainedLengthOnly) {
  EXPECT_EQ(logn_factor(63, 64), 1);
  EXPECT_FLOAT_EQ(logn_factor(64, 64), static_cast<float>(std::log(65.0) / std::log(64.0)));
  EXPECT_FLOAT_EQ(logn_factor(4095, 64), 2);
}

TEST(Rotary, FrequenciesFollowTheFormula) {
  Config c = preset("qwen-7b");
  const auto plain = inverse_frequencies(c, 1);
  ASSERT_EQ(plain.size(), 64u);
  for (size_t j = 0; j < 64; ++j) {
    EXPECT_NEAR(plain[j], std::pow(10000.0, -2.0 * static_cast<double>(j) / 128), 1e-7);
  }
  const auto stretched = inverse_frequencies(c, 3);
  const double base = 10000 * std::pow(3.0, 128.0 / 126);
  EXPECT_NEAR(stretched[63], std::pow(base, -126.0 / 128), 1e-9);
  EXPECT_EQ(stretched[0], 1);
}

TEST(Rotary, AnglesAreFloat32Products) {
  Config c = preset("qwen-7b");
  const auto frequencies = inverse_frequencies(c, 1);
  std::vector<float> cos(64), sin(64);
  fill_rotary(cos.data(), sin.data(), frequencies, 32'000, 1);
  const float angle = 32'000.0f * frequencies[1];
  EXPECT_FLOAT_EQ(cos[1], std::cos(angle));
  EXPECT_FLOAT_EQ(sin[1], std::sin(angle));
}

}  // namespace
}  // namespace quern
