// What ranks come to together, with threads in their places.
#include "train/communicator.h"

#include <gtest/gtest.h>

#include <condition_variable>
#include <cstring>
#include <deque>
#include <map>
#include <mutex>
#include <thread>

#include "core/rng.h"
#include "train/gradient_tree.h"

namespace quern {
namespace {

// Letters between threads.
struct Post {
  std::mutex mutex;
  std::condition_variable came;
  std::map<std::pair<int, int>, std::deque<std::vector<std::byte>>> letters;  // from, to
};

class ThreadRank final : public Communicator {
 public:
  ThreadRank(Post& post, int rank, int size) : Communicator(rank, size), post_(post) {}
  void abort(int) override {}

 protected:
  void exchange(std::span<const std::byte> out, int to, std::span<std::byte> in,
                int from) override {
    std::unique_lock lock(post_.mutex);
    if (!out.empty()) {
      post_.letters[{rank(), to}].emplace_back(out.begin(), out.end());
      post_.came.notify_all();
    }
    if (in.empty()) return;
    auto& box = post_.letters[{from, rank()}];
    post_.came.wait(lock, [&] { return !box.empty(); });
    ASSERT_EQ(box.front().size(), in.size());
    std::ranges::copy(box.front(), in.begin());
    box.pop_front();
  }

 private:
  Post& post_;
};

void with_ranks(int size, const std::function<void(Communicator&)>& work) {
  Post post;
  std::vector<std::thread> threads;
  for (int rank = 0; rank < size; ++rank) {
    threads.emplace_back([&, rank] {
      ThreadRank communicator(post, rank, size);
      work(communicator);
    });
  }
  for (std::thread& thread : threads) thread.join();
}

// The sum over [begin, end) of a complete binary tree.
float tree_sum(const std::vector<std::vector<float>>& all, size_t i, size_t begin, size_t end) {
  if (end - begin == 1) return all[begin][i];
  const size_t middle = begin + (end - begin) / 2;
  return tree_sum(all, i, begin, middle) + tree_sum(all, i, middle, end);
}

TEST(Communicator, EveryRankGetsTheSumOfOneTree) {
  for (const int size : {1, 2, 3, 4, 5, 7, 8}) {
    for (const size_t count : {size_t{0}, size_t{1}, size_t{7}, size_t{1000}}) {
      Rng rng(static_cast<uint64_t>(size) * 10'000 + count);
      std::vector<std::vector<float>> given(static_cast<size_t>(size));
      for (auto& values : given) {
        for (size_t i = 0; i < count; ++i) {
          values.push_back(static_cast<float>(rng.normal() * (i % 3 == 0 ? 1e6 : 1)));
        }
      }
      std::vector<std::vector<float>> got = given;
      with_ranks(size, [&](Communicator& ranks) {
        ranks.all_reduce(got[static_cast<size_t>(ranks.rank())]);
      });
      for (size_t i = 0; i < count; ++i) {
        double exact = 0;
        for (const auto& values : given) exact += double{values[i]};
        for (const auto& values : got) {
          EXPECT_EQ(std::memcmp(&values[i], &got[0][i], sizeof(float)), 0);
          EXPECT_NEAR(values[i], exact, 1e-6 * 1e6 * size);
        }
        if ((size & (size - 1)) == 0) {
          EXPECT_EQ(got[0][i], tree_sum(given, i, 0, given.size())) << size << " " << i;
        }
      }
    }
  }
}

TEST(Communicator, GathersInTheOrderOfTheRanks) {
  for (const int size : {1, 2, 5}) {
    with_ranks(size, [&](Communicator& ranks) {
      const double mine[] = {static_cast<double>(ranks.rank()), 0.5};
      const std::vector<double> all = ranks.all_gather(std::span<const double>(mine));
      ASSERT_EQ(all.size(), 2 * static_cast<size_t>(size));
      for (int rank = 0; rank < size; ++rank) {
        EXPECT_EQ(all[2 * static_cast<size_t>(rank)], rank);
        EXPECT_EQ(all[2 * static_cast<size_t>(rank) + 1], 0.5);
      }
      ranks.barrier();
    });
  }
}

TEST(GradientTree, NeedsABufferForEachLevel) {
  const std::pair<int64_t, int64_t> cases[] = {{1, 1}, {2, 2}, {3, 3}, {4, 3}, {8, 4}, {128, 8}};
  for (const auto& [leaves, buffers] : cases) EXPECT_EQ(GradientTree::buffers(leaves), buffers);
}

}  // namespace
}  // namespace quern
