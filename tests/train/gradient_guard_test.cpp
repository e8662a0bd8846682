// Steps that are not to be taken.
#include "train/gradient_guard.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace quern {
namespace {

using Verdict = GradientGuard::Verdict;

// Norms around 1 that vary by a third, as a run's do.
GradientGuard settled(const GuardOptions& options) {
  GradientGuard guard(options);
  for (int i = 0; i < 200; ++i) {
    EXPECT_EQ(guard.judge(3, std::exp(0.3 * std::sin(i * 1.7))), Verdict::Take);
  }
  return guard;
}

TEST(GradientGuard, WhatIsNotFiniteIsNeverTaken) {
  GradientGuard guard({});
  const double nan = std::numeric_limits<double>::quiet_NaN();
  EXPECT_EQ(guard.judge(nan, 1), Verdict::NotFinite);
  EXPECT_EQ(guard.judge(1, nan), Verdict::NotFinite);
  EXPECT_EQ(guard.judge(1, std::numeric_limits<double>::infinity()), Verdict::NotFinite);
  EXPECT_EQ(guard.judge(1, 1), Verdict::Take);
}

TEST(GradientGuard, AnOutlierIsSkippedAndDoesNotMoveTheMean) {
  GradientGuard guard = settled({.z_score = 6});
  const double before = guard.limit();
  EXPECT_GT(before, 1.5);
  EXPECT_LT(before, 10);
  EXPECT_EQ(guard.judge(3, 1000), Verdict::Outlier);
  EXPECT_EQ(guard.limit(), before);
  EXPECT_EQ(guard.judge(3, 1.2), Verdict::Take);
}

TEST(GradientGuard, TheFirstStepsAreNotJudged) {
  GradientGuard guard({.settle_steps = 10});
  EXPECT_EQ(guard.judge(9, 1), Verdict::Take);
  EXPECT_EQ(guard.judge(9, 1e6), Verdict::Take);
}

TEST(GradientGuard, ZeroTurnsTheJudgementOfOutliersOff) {
  GradientGuard guard = settled({.z_score = 0});
  EXPECT_EQ(guard.judge(3, 1e9), Verdict::Take);
}

TEST(GradientGuard, GivesUpAfterSoManyInARow) {
  GradientGuard guard = settled({.max_skips = 3});
  guard.judge(3, 1e9);
  guard.judge(3, 1e9);
  EXPECT_FALSE(guard.gives_up());
  guard.judge(3, 1);
  guard.judge(3, 1e9);
  guard.judge(3, 1e9);
  EXPECT_FALSE(guard.gives_up());
  guard.judge(3, 1e9);
  EXPECT_TRUE(guard.gives_up());
}

TEST(GradientGuard, ARestoredOneJudgesAlike) {
  GradientGuard guard = settled({});
  GradientGuard other({});
  other.restore(guard.state());
  EXPECT_EQ(guard.limit(), other.limit());
}

}  // namespace
}  // namespace quern
