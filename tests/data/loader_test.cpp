// The order of training data: complete, mixed by weight, and continued exactly.
#include "data/loader.h"

#include <map>
#include <set>

#include "data/pack.h"
#include "support/byte_tokenizer.h"
#include "support/support.h"

namespace quern {
namespace {

TEST(Permutation, EveryIndexComesOnce) {
  for (const int64_t count : {1, 2, 3, 7, 64, 65, 1000}) {
    std::set<int64_t> seen;
    for (int64_t i = 0; i < count; ++i) seen.insert(permuted(i, count, 5, 9));
    EXPECT_EQ(static_cast<int64_t>(seen.size()), count);
    EXPECT_EQ(*seen.begin(), 0);
    EXPECT_EQ(*seen.rbegin(), count - 1);
  }
}

TEST(Permutation, AnotherKeyOrStreamIsAnotherOrder) {
  const auto order = [](uint64_t key, uint64_t stream) {
    std::vector<int64_t> out;
    for (int64_t i = 0; i < 100; ++i) out.push_back(permuted(i, 100, key, stream));
    return out;
  };
  EXPECT_EQ(order(1, 2), order(1, 2));
  EXPECT_NE(order(1, 2), order(2, 2));
  EXPECT_NE(order(1, 2), order(1, 3));
}

// Datasets of one letter each: document i has i % 9 + 1 of them.
struct Letters {
  test::TempFolder temp;
  ThreadPool pool{1};
  std::vector<std::unique_ptr<Dataset>> sets;

  explicit Letters(const std::string& letters) {
    for (const char letter : letters) {
      std::string records;
      for (int i = 0; i < 200; ++i) {
        records += "{\"text\": \"" + std::string(static_cast<size_t>(i % 9 + 1), letter) + "\"}\n";
      }
      const fs::path folder = temp.path() / std::string(1, letter);
      fs::create_directory(folder);
      pack({temp.write("in.jsonl", records)}, *test::byte_tokenizer(), folder, {}, pool,
           [](uint64_t) {});
      sets.push_back(std::make_unique<Dataset>(folder, pool));
    }
  }
  Loader loader(std::vector<double> weights, LoaderOptions options) const {
    std::vector<LoaderSource> sources;
    for (size_t i = 0; i < sets.size(); ++i) sources.push_back({sets[i].get(), weights[i]});
    return {sources, options};
  }
};

struct Sequence {
  std::vector<int32_t> ids, labels, starts;
  bool operator==(const Sequence&) const = default;
};

Sequence next(Loader& loader, int64_t seq) {
  const auto size = static_cast<size_t>(seq);
  Sequence out{std::vector<int32_t>(size), std::vector<int32_t>(size), std::vector<int32_t>(size)};
  loader.next(out.ids, out.labels, out.starts);
  return out;
}

TEST(Loader, SourcesComeByTheirWeights) {
  const Letters data("ab");
  Loader loader = data.loader({3, 1}, {.seq = 16});
  for (int i = 0; i < 400; ++i) {
    next(loader, 16);
    const LoaderPosition& drawn = loader.position();
    // Never more than one sequence away from the share.
    EXPECT_LE(std::abs(static_cast<double>(drawn[0]) - 0.75 * (i + 1)), 1.0);
  }
  EXPECT_EQ(loader.position(), (LoaderPosition{300, 100}));
}

TEST(Loader, AnEpochCutsTheStreamIntoWindowsThatDoNotOverlap) {
  const Letters data("a");
  Loader loader = data.loader({1}, {.seq = 16, .isolate_documents = false});
  // Two epochs: each has every window once, cut at other places.
  std::vector<std::multiset<std::vector<int32_t>>> epochs(2);
  for (auto& epoch : epochs) {
    for (int64_t i = 0; i < loader.windows(0); ++i) {
      const Sequence one = next(loader, 16);
      EXPECT_EQ(one.labels, one.ids);
      EXPECT_EQ(one.starts, std::vector<int32_t>(16, 0));
      epoch.insert(one.ids);
    }
  }
  EXPECT_NE(epochs[0], epochs[1]);
  EXPECT_DOUBLE_EQ(loader.epochs(0), 2);
}

TEST(Loader, GoesOnExactlyWhereItStood) {
  const Letters data("abc");
  const LoaderOptions options = {.seq = 24, .seed = 7};
  Loader whole = data.loader({1, 2, 3}, options);
  std::vector<Sequence> expected;
  LoaderPosition middle;
  for (int i = 0; i < 500; ++i) {
    if (i == 250) middle = whole.position();
    expected.push_back(next(whole, 24));
  }
  Loader resumed = data.loader({1, 2, 3}, options);
  resumed.seek(middle);
  for (size_t i = 250; i < 500; ++i) EXPECT_EQ(next(resumed, 24), expected[i]);
  test::expect_error([&] { resumed.seek({1, 2}); }, Kind::BadInput, {"2 sources", "has 3"});
}

TEST(Loader, DocumentsAreApartWhereTheyAreIsolated) {
  const Letters data("a");
  Loader loader = data.loader({1}, {.seq = 32});
  for (int i = 0; i < 50; ++i) {
    const Sequence one = next(loader, 32);
    int32_t start = 0;
    for (size_t t = 0; t < 32; ++t) {
      // The end of text belongs to the document that it ends.
      if (t > 0 && one.ids[t - 1] == 256) {
        start = static_cast<int32_t>(t);
        EXPECT_EQ(one.labels[t], -100);
      }
      EXPECT_EQ(one.starts[t], start);
    }
  }
}

TEST(Loader, WholeDocumentsArePackedTogether) {
  const Letters data("a");
  Loader loader = data.loader({1}, {.seq = 20, .packing = Packing::Documents});
  int64_t learnt = 0;
  for (int64_t i = 0; i < loader.windows(0); ++i) {
    const Sequence one = next(loader, 20);
    EXPECT_EQ(one.ids[0], 'a');  // begins with a document
    int64_t last = 0;
    for (int64_t t = 0; t < 20; ++t) {
      if (one.ids[static_cast<size_t>(t)] != 0) last = t;
    }
    EXPECT_EQ(one.ids[static_cast<size_t>(last)], 256);  // ends with one
    for (auto t = static_cast<size_t>(last) + 1; t < 20; ++t) EXPECT_EQ(one.labels[t], -100);
    learnt += last + 1;
  }
  EXPECT_EQ(learnt, data.sets[0]->tokens());
}

TEST(Loader, WhatIsLongerThanASequenceIsCutOff) {
  const Letters data("a");
  Loader loader = data.loader({1}, {.seq = 4, .packing = Packing::Documents});
  for (int64_t i = 0; i < loader.windows(0); ++i) EXPECT_EQ(next(loader, 4).ids[0], 'a');
}

TEST(Loader, ASourceThatIsTooSmallIsNamed) {
  const Letters data("a");
  test::expect_error([&] { data.loader({1}, {.seq = 2000}); }, Kind::BadInput,
                     {"1193 tokens", "two sequences of 2000"});
}

TEST(Packing, UnknownWordsAreRefused) {
  test::expect_error([] { parse_packing("tight", "run.toml: data.packing"); }, Kind::BadInput,
                     {"run.toml: data.packing", "'tight'", "stream or documents"});
}

}  // namespace
}  // namespace quern
