// The choice of bits by what they are worth.
#include "quantize/sensitivity.h"

#include "support/support.h"

namespace quern {
namespace {

TEST(BitChoices, AreOfGroupsThatDivide) {
  const auto groups = [](int64_t cols, int64_t group) {
    std::vector<std::pair<int, int64_t>> out;
    for (const BitChoice& c : bit_choices(cols, group)) out.emplace_back(c.bits, c.group);
    return out;
  };
  using Pairs = std::vector<std::pair<int, int64_t>>;
  EXPECT_EQ(groups(4096, 128), (Pairs{{4, 256}, {4, 128}, {4, 64}, {4, 32}, {8, 128}}));
  EXPECT_EQ(groups(11008, 128), (Pairs{{4, 256}, {4, 128}, {4, 64}, {4, 32}, {8, 128}}));
  EXPECT_EQ(groups(320, 128), (Pairs{{4, 160}, {4, 64}, {4, 32}, {8, 64}}));
  EXPECT_EQ(groups(344, 8), (Pairs{{4, 8}, {8, 8}}));
  EXPECT_DOUBLE_EQ((BitChoice{4, 128}.bits_per_weight()), 4.15625);
}

Sensitivity matrix(const char* name, int64_t weights, std::vector<double> cost) {
  return {name, weights, {{4, 128}, {4, 32}, {8, 128}}, std::move(cost)};
}

TEST(ChooseBits, SpendsThemWhereTheySaveMost) {
  const std::vector<Sensitivity> matrices = {
      matrix("dull", 1000, {0.01, 0.009, 0}),
      matrix("keen", 1000, {1, 0.5, 0.001}),
      matrix("small", 100, {0.2, 0.1, 0.001}),
  };
  const auto bits = [&](double target) {
    std::vector<int> out;
    double sum = 0;
    const auto chosen = choose_bits(matrices, target);
    for (size_t i = 0; i < chosen.size(); ++i) {
      out.push_back(chosen[i].bits);
      sum += double(matrices[i].weights) * chosen[i].bits_per_weight();
    }
    EXPECT_LE(sum / 2100, target + 1e-5);
    return out;
  };
  EXPECT_EQ(bits(4.16), (std::vector{4, 4, 4}));
  EXPECT_EQ(bits(4.36), (std::vector{4, 4, 8}));
  EXPECT_EQ(bits(6.3), (std::vector{4, 8, 8}));
  EXPECT_EQ(bits(9), (std::vector{8, 8, 8}));
  // Groups of 32 are the step where eight bits do not fit.
  EXPECT_EQ(choose_bits(matrices, 4.6)[1].group, 32);
  test::expect_error([&] { choose_bits(matrices, 4.1); }, Kind::Misused,
                     {"--target-bits is 4.1", "4.156 bits a weight at least"});
}

}  // namespace
}  // namespace quern
