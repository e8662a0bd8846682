#include "model/divergence.h"

#include <cmath>

#include "support/support.h"

namespace quern {
namespace {

TEST(KlDivergence, IsItsDefinition) {
  const float p[] = {0, std::log(3.0f)}, q[] = {0, 0};  // 1/4, 3/4 against 1/2, 1/2
  EXPECT_NEAR(kl_divergence(p, q), 0.25 * std::log(0.5) + 0.75 * std::log(1.5), 1e-6);
  EXPECT_EQ(kl_divergence(p, p), 0);
}

}  // namespace
}  // namespace quern
