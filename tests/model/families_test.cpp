// Every family of the table against its reference implementation: a tiny checkpoint with random
// weights, looking like the published ones, quirks included. Prompts in one call, in chunks, step by
// step, as a batch, and greedy continuations, on every instruction set that the machine has.
#include "model/families.h"

#include <algorithm>
#include <cmath>

#include "compute/cpu/cpu_backend.h"
#include "model/forward.h"
#include "support/golden.h"
#include "support/isa.h"
#include "support/support.h"

namespace quern {
namespace {

using test::Golden;

constexpr const char* kCases[] = {
    "baichuan13b-tiny", "baichuan2-13b-tiny", "baichuan2-7b-tiny", "baichuan7b-tiny",
    "bloom-tiny",       "chatglm2-tiny",      "falcon-rw-tiny",    "falcon40b-tiny",
    "falcon7b-tiny",    "gemma-tiny",         "gemma2-tiny",       "gemma3-tiny",
    "gpt2-tiny",        "granite-tiny",       "internlm-tiny",     "internlm2-tiny",
    "llama3-tiny",      "mistral-tiny",       "mixtral-tiny",      "mpt-storywriter-tiny",
    "mpt-tiny",         "olmo2-tiny",         "phi2-tiny",         "phi3-longrope-tiny",
    "phi3-tiny",        "phi4-mini-tiny",     "polylm-tiny",       "pythia-tiny",
    "qwen15-moe-tiny",  "qwen3-moe-tiny",     "smollm3-tiny",      "starcoder-tiny",
    "starcoder2-tiny",
};

class FamilyParity : public testing::TestWithParam<std::tuple<cpu::Isa, const char*>> {
 protected:
  void SetUp() override {
    const auto [isa, name] = GetParam();
    if (!cpu::supported(isa)) GTEST_SKIP() << "skipped: this CPU lacks " << cpu::name(isa);
    const fs::path folder = test::case_folder(name);
    QUERN_NEED(folder);
    golden_ = std::make_unique<Golden>(folder);
    backend_ = std::make_unique<CpuBackend>(pool_, isa);
    config_ = load_config(folder);
    loaded_.emplace(LoadedWeights::load(folder, config_));
    runner_ = std::make_unique<Runner>(Network{*backend_, config_, loaded_->weights()}, 256, 256);
  }

  // A sequence with a cache of its own.
  struct Single {
    Single(FamilyParity& test, int64_t prompt_length)
        : cache(*test.backend_, test.config_, DType::F32, 512),
          sequence(cache, test.config_, {}, prompt_length) {
      sequence.reserve(512);
    }
    KvCache cache;
    Sequence sequence;
  };

  std::vector<float> feed(Single& single, std::span<const int32_t> ids) {
    const BatchItem item = {&single.sequence, ids};
    const MutRows logits =
        runner_->logits(runner_->forward({&item, 1}, single.cache, Runner::Want::All));
    return {logits.data, logits.data + logits.rows * logits.cols};
  }
  // The last rows of some logits.
  std::span<const float> last(const std::vector<float>& logits, int64_t rows) const {
    return std::span(logits).last(static_cast<size_t>(rows * config_.output_vocab));
  }
  int32_t likeliest(std::span<const float> row) const {
    return static_cast<int32_t>(std::max_element(row.begin(), row.end()) - row.begin());
  }

  ThreadPool pool_{2};
  std::unique_ptr<Golden> golden_;
  std::unique_ptr<CpuBackend> backend_;
  Config config_;
  std::optional<LoadedWeights> loaded_;
  std::unique_ptr<Runner> runner_;
};

TEST_P(FamilyParity, PromptsInOneCall) {
  for (const std::string prompt : {"prompt0", "prompt1", "prompt2"}) {
    const std::vector<int32_t> ids = golden_->ids(prompt + ".input_ids");
    std::vector<std::vector<float>> blocks;
    runner_->set_probe([&](std::string_view name, ConstRows rows) {
      if (!name.ends_with(".out")) return;
      blocks.emplace_back(rows.data, rows.data + rows.rows * rows.cols);
    });
    Single single(*this, std::ssize(ids));
    golden_->check(prompt + ".logits", feed(single, ids));
    if (prompt != "prompt0") continue;
    for (size_t l = 0; l < blocks.size(); ++l) {
      golden_->check("prompt0.hidden.block" + std::to_string(l), blocks[l]);
    }
  }
}

TEST_P(FamilyParity, ALongSequenceInOneCallInChunksAndStepByStep) {
  const std::vector<int32_t> ids = golden_->ids("input_ids");
  const std::span<const int32_t> all(ids);
  int checked = 0;
  for (const std::string& name : golden_->names()) {
    if (name.starts_with("prefill")) {
      const auto count = std::stoul(name.substr(7));
      Single single(*this, static_cast<int64_t>(count));
      golden_->check(name, last(feed(single, all.first(count)), 8));
    } else if (name.starts_with("decode")) {
      const auto begin = std::stoul(name.substr(6));
      Single single(*this, static_cast<int64_t>(begin));
      feed(single, all.first(begin));
      std::vector<float> rows;
      for (int64_t i = 0; i < golden_->shape(name)[0]; ++i) {
        const auto row = feed(single, all.subspan(begin + static_cast<size_t>(i), 1));
        rows.insert(rows.end(), row.begin(), row.end());
      }
      golden_->check(name, rows);
    } else if (name == "chunked.sizes") {
      const std::vector<int32_t> sizes = golden_->ids(name);
      int64_t total = 0;
      for (const int32_t size : sizes) total += size;
      Single single(*this, sizes.front());
      std::vector<float> logits;
      size_t at = 0;
      for (const int32_t size : sizes) {
        const auto rows = feed(single, all.subspan(at, static_cast<size_t>(size)));
        logits.insert(logits.end(), rows.begin(), rows.end());
        at += static_cast<size_t>(size);
      }
      golden_->check("chunked.logits_last12", last(logits, 12));
    } else {
      continue;
    }
    ++checked;
  }
  EXPECT_GE(checked, 3);
}

TEST_P(FamilyParity, GreedyContinuations) {
  for (const std::string prompt : {"prompt0", "prompt1", "prompt2", "prompt3"}) {
    if (!golden_->has(prompt + ".greedy")) continue;
    const std::vector<int32_t> ids = golden_->ids(prompt + ".input_ids");
    const std::vector<int32_t> want = golden_->ids(prompt + ".greedy");
    Single single(*this, std::ssize(ids));
    std::vector<int32_t> got = {likeliest(last(feed(single, ids), 1))};
    while (got.size() < want.size()) {
      got.push_back(likeliest(last(feed(single, {&got.back(), 1}), 1)));
    }
    EXPECT_EQ(got, want) << prompt;
  }
}

// A sequence has the same bits alone, in a batch, and where only its last token is asked about.
TEST_P(FamilyParity, TheSameBitsInAnyCompany) {
  const std::string prompts[] = {"prompt0", "prompt1", "prompt2"};
  std::vector<std::vector<int32_t>> ids;
  std::vector<std::vector<float>> alone;
  int64_t total = 0;
  for (const std::string& prompt : prompts) {
    ids.push_back(golden_->ids(prompt + ".input_ids"));
    total += std::ssize(ids.back());
    Single single(*this, std::ssize(ids.back()));
    alone.push_back(feed(single, ids.back()));
  }
  for (const Runner::Want want : {Runner::Want::All, Runner::Want::Outputs}) {
    KvCache cache(*backend_, config_, DType::F32, 512, 3);
    std::vector<Sequence> sequences;
    std::vector<BatchItem> batch;
    sequences.reserve(3);
    for (const auto& prompt : ids) {
      sequences.emplace_back(cache, config_, ContextRules{}, std::ssize(prompt));
      sequences.back().reserve(std::ssize(prompt) + 1);
      batch.push_back({&sequences.back(), prompt});
    }
    const MutRows logits = runner_->logits(runner_->forward(batch, cache, want));
    int64_t row = 0;
    for (size_t i = 0; i < ids.size(); ++i) {
      const int64_t rows = want == Runner::Want::All ? std::ssize(ids[i]) : 1;
      const auto expected = last(alone[i], rows);
      EXPECT_TRUE(std::equal(expected.begin(), expected.end(), logits.row(row))) << prompts[i];
      row += rows;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, FamilyParity,
                         testing::Combine(test::every_isa(), testing::ValuesIn(kCases)),
                         [](const auto& instance) {
                           std::string name = std::string(cpu::name(std::get<0>(instance.param))) +
                                              "_" + std::get<1>(instance.param);
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

TEST(Families, TheTableIsInTheOrderOfTheEnumeration) {
  for (size_t i = 0; i < families().size(); ++i) {
    EXPECT_EQ(static_cast<size_t>(families()[i].family), i) << families()[i].type;
  }
}

}  // namespace
}  // namespace quern
