// The small pieces: conversions, checked arithmetic, UTF-8, random numbers, threads, texts.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <numeric>
#include <thread>

#include "core/checked.h"
#include "core/dtype.h"
#include "core/progress.h"
#include "core/rng.h"
#include "core/shape.h"
#include "core/thread_pool.h"
#include "core/utf8.h"
#include "support/support.h"

namespace quern {
namespace {

TEST(DType, EveryHalfSurvivesTheWayThroughFloat) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const auto half = static_cast<uint16_t>(bits);
    const float value = from_f16(half);
    if (std::isnan(value)) {
      EXPECT_TRUE(std::isnan(from_f16(to_f16(value))));
    } else {
      ASSERT_EQ(to_f16(value), half);
    }
  }
}

TEST(DType, HalfRoundsToNearestEven) {
  EXPECT_EQ(to_f16(1 + 0x1p-11f), to_f16(1.0f));  // a tie goes to the even neighbour
  EXPECT_EQ(to_f16(1 + 3 * 0x1p-11f), to_f16(1 + 0x1p-9f));
  EXPECT_EQ(to_f16(65504.0f), 0x7BFF);
  EXPECT_EQ(to_f16(65520.0f), 0x7C00);
  EXPECT_EQ(to_f16(0x1p-24f), 0x0001);
  EXPECT_EQ(to_f16(0x1p-25f), 0x0000);
  EXPECT_EQ(to_f16(1e-30f), 0x0000);
  EXPECT_EQ(to_f16(-2.0f), 0xC000);
}

TEST(DType, EveryBfloatSurvivesTheWayThroughFloat) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const float value = from_bf16(static_cast<uint16_t>(bits));
    if (std::isnan(value)) continue;
    ASSERT_EQ(to_bf16(value), bits);
  }
  EXPECT_TRUE(std::isnan(from_bf16(to_bf16(std::numeric_limits<float>::quiet_NaN()))));
  EXPECT_EQ(to_bf16(1 + 0x1p-8f), to_bf16(1.0f));
  EXPECT_EQ(to_bf16(1 + 3 * 0x1p-8f), to_bf16(1 + 0x1p-6f));
}

TEST(DType, NamesOfUsersAndFiles) {
  EXPECT_EQ(dtype_from_name("BF16"), DType::BF16);
  EXPECT_EQ(dtype_from_name("bf16"), std::nullopt);
  EXPECT_EQ(dtype_from_user("torch.bfloat16"), DType::BF16);
  EXPECT_EQ(dtype_from_user("FP32"), DType::F32);
  EXPECT_EQ(dtype_from_user("fp8"), std::nullopt);
}

TEST(Checked, OverflowIsAnError) {
  EXPECT_EQ(checked_mul<int64_t>(3, 4, "x"), 12);
  test::expect_error([] { checked_mul<int64_t>(int64_t{1} << 62, 4, "header"); }, Kind::BadInput,
                     {"header"});
  test::expect_error([] { checked_add<uint64_t>(~uint64_t{0}, 1, "x"); }, Kind::BadInput, {"sum"});
  test::expect_error([] { checked_cast<int32_t>(int64_t{1} << 40, "rank"); }, Kind::BadInput,
                     {"rank", "out of range"});
}

TEST(Utf8, DecodesAndRefusesByTheStandardsTable) {
  EXPECT_EQ(utf8::decode("字").value, U'字');
  for (const char* bad : {"\x80", "\xC0\x80", "\xE0\x80\x80", "\xED\xA0\x80", "\xF4\x90\x80\x80",
                          "\xF5\x80\x80\x80", "\xE5\xAD"}) {
    EXPECT_FALSE(utf8::is_valid(bad)) << printable(bad);
  }
  EXPECT_EQ(utf8::decode("\xE5\xAD").length, 2u);      // a cut sequence is one ill-formed part
  EXPECT_EQ(utf8::decode("\xE0\x80\x80").length, 1u);  // an overlong one is one part a byte
  for (char32_t point :
       {U'\x7F', U'\x80', U'\x7FF', U'\x800', U'\xFFFF', U'\x10000', U'\x10FFFF'}) {
    std::string text;
    utf8::append(text, point);
    EXPECT_EQ(utf8::decode(text).value, point);
    EXPECT_EQ(utf8::decode(text).length, text.size());
  }
}

// Known answers published with the generator (Random123's kat_vectors).
TEST(Rng, PhiloxKnownAnswers) {
  using Words = std::array<uint32_t, 4>;
  EXPECT_EQ(philox({0, 0, 0, 0}, {0, 0}), (Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(philox({~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}),
            (Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(Rng, MomentsAndBounds) {
  Rng rng(7);
  double sum = 0, squares = 0;
  constexpr int kCount = 100'000;
  for (int i = 0; i < kCount; ++i) {
    const double x = rng.normal();
    sum += x;
    squares += x * x;
  }
  EXPECT_NEAR(sum / kCount, 0, 0.02);
  EXPECT_NEAR(squares / kCount, 1, 0.03);
  for (int i = 0; i < 1000; ++i) EXPECT_LT(rng.below(3), 3u);
}

TEST(Rng, SeekGoesBackToAPosition) {
  Rng rng(1, 2);
  rng.next_u64();
  const uint64_t at = rng.position();
  const uint32_t value = rng.next_u32();
  rng.seek(at);
  EXPECT_EQ(rng.next_u32(), value);
}

TEST(ThreadPool, EveryIndexIsVisitedOnce) {
  for (int threads : {1, 2, 5}) {
    ThreadPool pool(threads);
    for (int round = 0; round < 50; ++round) {
      std::vector<int> visits(1000, 0);
      pool.parallel_for(1000, 7, [&](int64_t begin, int64_t end, int) {
        for (int64_t i = begin; i < end; ++i) ++visits[static_cast<size_t>(i)];
      });
      ASSERT_EQ(std::accumulate(visits.begin(), visits.end(), 0), 1000);
      ASSERT_EQ(*std::max_element(visits.begin(), visits.end()), 1);
    }
  }
}

TEST(ThreadPool, AThreadTakesItsShareAndThenTheEndOfAnothers) {
  ThreadPool pool(2);
  constexpr int64_t kChunks = 20;
  std::atomic<int64_t> done{0};
  std::vector<int64_t> taken;  // by the second thread
  pool.parallel_for(kChunks, 1, [&](int64_t begin, int64_t, int thread) {
    if (thread == 1) {
      taken.push_back(begin);
    } else {  // its first chunk keeps the first thread until all others are done
      while (done < kChunks - 1) std::this_thread::yield();
    }
    ++done;
  });
  std::vector<int64_t> expected(kChunks / 2);
  std::iota(expected.begin(), expected.end(), kChunks / 2);
  for (int64_t chunk = kChunks / 2 - 1; chunk >= 0; --chunk) expected.push_back(chunk);
  // Where the first thread came too late for any chunk, the second has taken all.
  ASSERT_GE(static_cast<int64_t>(taken.size()), kChunks - 1);
  expected.resize(taken.size());
  EXPECT_EQ(taken, expected);
}

TEST(ThreadPool, AnExceptionReachesTheCaller) {
  ThreadPool pool(3);
  EXPECT_THROW(pool.run([](int thread) {
    if (thread == 2) throw std::runtime_error("from a worker");
  }),
               std::runtime_error);
  std::atomic<int> calls{0};
  pool.run([&](int) { ++calls; });  // and the pool still works
  EXPECT_EQ(calls, 3);
}

TEST(Error, IsAlwaysOneLine) {
  const Error error(Kind::BadInput, "a\nb\x1b[31m", "try \xFF");
  EXPECT_EQ(error.line(), "a\\x0ab\\x1b[31m (try \\xff)");
  EXPECT_EQ(error.exit_code(), 3);
}

TEST(Error, NearestWord) {
  const std::vector<std::string> words = {"temperature", "top-k", "top-p"};
  EXPECT_EQ(nearest("temprature", words), "temperature");
  EXPECT_EQ(nearest("zzzzzz", words), "");
}

TEST(Progress, AmountsForPeople) {
  EXPECT_EQ(human_bytes(999), "999 B");
  EXPECT_EQ(human_bytes(1'500'000), "1.50 MB");
  EXPECT_EQ(human_count(7'721'000'000), "7.72 B");
  EXPECT_EQ(human_seconds(0.25), "250 ms");
  EXPECT_EQ(human_seconds(3725), "1 h 02 min");
}

TEST(Shape, CountAndText) {
  EXPECT_EQ(Shape({2, 3, 4}).count(), 24);
  EXPECT_EQ(Shape().count(), 1);
  EXPECT_EQ(to_string(Shape({12288, 4096})), "[12288, 4096]");
}

}  // namespace
}  // namespace quern
