#include "quantize/cholesky.h"

#include "support/support.h"

namespace quern {
namespace {

TEST(InverseCholesky, UtUTimesHIsTheIdentity) {
  ThreadPool pool(2);
  for (const int64_t n : {1, 2, 5, 63, 64, 65, 200}) {
    const auto x = test::random_floats(size_t(n * (n + 3)), uint64_t(n));
    std::vector<double> h(size_t(n * n));
    for (int64_t i = 0; i < n; ++i) {
      for (int64_t j = 0; j < n; ++j) {
        for (int64_t t = 0; t < n + 3; ++t) {
          h[size_t(i * n + j)] += double(x[size_t(t * n + i)]) * double(x[size_t(t * n + j)]);
        }
      }
      h[size_t(i * n + i)] += 0.1;
    }
    std::vector<double> u = h;
    ASSERT_TRUE(inverse_cholesky(pool, u, n));
    for (int64_t i = 0; i < n; ++i) {
      for (int64_t j = 0; j < i; ++j) EXPECT_EQ(u[size_t(i * n + j)], 0.0);
      for (int64_t j = 0; j < n; ++j) {  // (U H Uᵀ)[i, j]
        double sum = 0;
        for (int64_t a = i; a < n; ++a) {
          for (int64_t b = j; b < n; ++b) {
            sum += u[size_t(i * n + a)] * h[size_t(a * n + b)] * u[size_t(j * n + b)];
          }
        }
        EXPECT_NEAR(sum, i == j ? 1.0 : 0.0, 1e-8) << n;
      }
    }
  }
  std::vector<double> indefinite = {1, 2, 2, 1};
  EXPECT_FALSE(inverse_cholesky(pool, indefinite, 2));
}

// Of sizes with several stretches of columns: Uᵀ (U (H x)) is x again.
TEST(InverseCholesky, UndoesALargeMatrix) {
  ThreadPool pool(2);
  for (const int64_t n : {255, 256, 257, 601}) {
    const auto a = test::random_floats(size_t(n * 40), uint64_t(n));
    const auto x = test::random_floats(size_t(n), 5);
    std::vector<double> h(size_t(n * n)), hx(static_cast<size_t>(n)), y(hx.size()), back(hx.size());
    for (int64_t i = 0; i < n; ++i) {
      for (int64_t j = 0; j < n; ++j) {
        double& sum = h[size_t(i * n + j)];
        for (int64_t t = 0; t < 40; ++t) {
          sum += double(a[size_t(t * n + i)]) * double(a[size_t(t * n + j)]);
        }
        if (i == j) sum += 1;
        hx[size_t(i)] += sum * double(x[size_t(j)]);
      }
    }
    ASSERT_TRUE(inverse_cholesky(pool, h, n));
    for (int64_t i = 0; i < n; ++i) {
      for (int64_t j = i; j < n; ++j) y[size_t(i)] += h[size_t(i * n + j)] * hx[size_t(j)];
    }
    for (int64_t i = 0; i < n; ++i) {
      for (int64_t j = 0; j <= i; ++j) back[size_t(i)] += h[size_t(j * n + i)] * y[size_t(j)];
      EXPECT_NEAR(back[size_t(i)], double(x[size_t(i)]), 1e-9) << n;
    }
  }
}

}  // namespace
}  // namespace quern
