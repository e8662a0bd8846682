#include "model/rotary.h"

#include <algorithm>
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

Config scaled(RopeScaling scaling) {
  Config c;
  c.head_dim = c.rotary_dim = 16;
  c.rope_theta = 10000;
  c.rope_scaling = std::move(scaling);
  return c;
}
double plain(size_t j, double base = 10000) {
  return std::pow(base, -static_cast<double>(2 * j) / 16);
}

// base · (factor · length / original - (factor - 1))^(dim / (dim - 2)) past the original context.
TEST(Rotary, DynamicScalingFollowsTheLengthOfThePrompt) {
  const Config c =
      scaled({.type = RopeScaling::Type::Dynamic, .factor = 2, .original_context = 100});
  EXPECT_EQ(dynamic_alpha(c.rope_scaling, 100), 1);
  EXPECT_DOUBLE_EQ(dynamic_alpha(c.rope_scaling, 101), 1.02);
  EXPECT_DOUBLE_EQ(dynamic_alpha(c.rope_scaling, 300), 5);
  const double base = 10000 * std::pow(5.0, 16.0 / 14);
  EXPECT_NEAR(inverse_frequencies(c, 5, 300)[7], plain(7, base), 1e-7);
  EXPECT_EQ(dynamic_alpha(scaled({}).rope_scaling, 300), 1);
}

TEST(Rotary, LongRopeHasFactorsForShortAndLongSequences) {
  const Config c = scaled({.type = RopeScaling::Type::LongRope,
                           .factor = 4,
                           .original_context = 100,
                           .short_factors = {1, 1, 1, 1, 1, 1, 1, 2},
                           .long_factors = {1, 2, 3, 4, 5, 6, 7, 8}});
  EXPECT_NEAR(inverse_frequencies(c, 1, 100)[7], plain(7) / 2, 1e-7);
  EXPECT_NEAR(inverse_frequencies(c, 1, 101)[7], plain(7) / 8, 1e-7);
  EXPECT_NEAR(inverse_frequencies(c, 1, 101)[1], plain(1) / 2, 1e-7);
  EXPECT_FALSE(takes_long_factors(c, 100));
  EXPECT_TRUE(takes_long_factors(c, 101));
  EXPECT_FLOAT_EQ(rotary_magnitude(c), std::sqrt(1 + std::log(4.0f) / std::log(100.0f)));
}

// The dim that turns r times over the original context: dim · ln(original / (2 π r)) / (2 ln base).
TEST(Rotary, YarnsRampMayBeginBetweenDims) {
  RopeScaling s = {.type = RopeScaling::Type::Yarn, .factor = 4, .original_context = 2048};
  const auto dim_of = [](double turns) {
    return 16 * std::log(2048 / (turns * 2 * M_PI)) / (2 * std::log(10000.0));
  };
  for (const bool truncate : {true, false}) {
    s.truncate = truncate;
    const double low = truncate ? std::floor(dim_of(32)) : dim_of(32);
    const double high = truncate ? std::ceil(dim_of(1)) : dim_of(1);
    const auto got = inverse_frequencies(scaled(s), 1);
    for (size_t j = 0; j < 8; ++j) {
      const double ramp = std::clamp((static_cast<double>(j) - low) / (high - low), 0.0, 1.0);
      EXPECT_NEAR(got[j], plain(j) * (ramp / 4 + 1 - ramp), 1e-6 * plain(j)) << j;
    }
  }
}

TEST(Rotary, YarnsMagnitudeIsGivenOrFollowsFromTheFactor) {
  RopeScaling s = {.type = RopeScaling::Type::Yarn, .factor = 4, .original_context = 2048};
  EXPECT_FLOAT_EQ(rotary_magnitude(scaled(s)), static_cast<float>(0.1 * std::log(4.0) + 1));
  s.mscale = 2;
  EXPECT_FLOAT_EQ(rotary_magnitude(scaled(s)), static_cast<float>(0.1 * std::log(4.0) + 1));
  s.mscale_all_dim = 0.5;
  EXPECT_FLOAT_EQ(rotary_magnitude(scaled(s)),
                  static_cast<float>((0.2 * std::log(4.0) + 1) / (0.05 * std::log(4.0) + 1)));
  s.attention_factor = 1.25;
  EXPECT_EQ(rotary_magnitude(scaled(s)), 1.25f);
}

}  // namespace
}  // namespace quern
