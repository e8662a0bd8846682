// The model against the reference implementation: every inference case of the fixtures, on every
// instruction set that the machine has, within the tolerances that the fixtures give.
#include <cmath>
#include <numeric>

#include "compute/cpu/cpu_backend.h"
#include "core/json.h"
#include "core/rng.h"
#include "formats/safetensors.h"
#include "model/forward.h"
#include "support/golden.h"
#include "support/isa.h"
#include "support/support.h"

namespace quern {
namespace {

using test::Golden;
using test::Tolerance;

struct Loaded {
  Loaded(const fs::path& folder, ThreadPool& pool, cpu::Isa isa, LoadOptions options = {})
      : backend(pool, isa),
        config(load_config(folder)),
        weights(LoadedWeights::load(folder, config, options)),
        runner({backend, config, weights.weights()}, 512, 512) {}

  ContextRules rules() const { return {config.dynamic_ntk, config.logn}; }

  CpuBackend backend;
  Config config;
  LoadedWeights weights;
  Runner runner;
};

// One sequence with a cache of its own.
struct Single {
  Single(Loaded& loaded, int64_t prompt_length, DType kv = DType::F32, int64_t offset = 0)
      : model(loaded),
        cache(loaded.backend, loaded.config, kv, 512),
        sequence(cache, loaded.config, loaded.rules(), prompt_length, offset) {
    sequence.reserve(512);
  }

  // Logits [ids, vocab] of all ids in one call.
  std::vector<float> feed(std::span<const int32_t> ids) {
    const BatchItem item = {&sequence, ids};
    const ConstRows hidden = model.runner.forward({&item, 1}, cache, Runner::Want::All);
    const MutRows logits = model.runner.logits(hidden);
    return {logits.data, logits.data + logits.rows * logits.cols};
  }
  std::vector<float> feed_one_by_one(std::span<const int32_t> ids) {
    std::vector<float> all;
    for (const int32_t id : ids) {
      const auto row = feed({&id, 1});
      all.insert(all.end(), row.begin(), row.end());
    }
    return all;
  }
  // Greedy continuation, and the logits that the last token was taken from.
  std::vector<int32_t> greedy(std::span<const int32_t> prompt, size_t count,
                              std::vector<float>* last_logits = nullptr) {
    std::vector<int32_t> out;
    std::vector<float> logits = feed(prompt);
    while (true) {
      const auto vocab = static_cast<size_t>(model.config.output_vocab);
      const auto last = std::span(logits).last(vocab);
      out.push_back(
          static_cast<int32_t>(std::max_element(last.begin(), last.end()) - last.begin()));
      if (out.size() == count) {
        if (last_logits != nullptr) last_logits->assign(last.begin(), last.end());
        return out;
      }
      logits = feed({&out.back(), 1});
    }
  }

  Loaded& model;
  KvCache cache;
  Sequence sequence;
};

class Parity : public testing::TestWithParam<std::tuple<const char*, cpu::Isa>> {
 protected:
  void SetUp() override {
    const auto& [name, isa] = GetParam();
    folder_ = test::case_folder(name);
    QUERN_NEED(folder_);
    if (!cpu::supported(isa)) GTEST_SKIP() << "skipped: this CPU lacks " << cpu::name(isa);
    isa_ = isa;
  }
  Loaded load(LoadOptions options = {}) { return {folder_, pool_, isa_, std::move(options)}; }

  fs::path folder_;
  cpu::Isa isa_{};
  ThreadPool pool_{2};
};

const auto kIsas = test::every_isa();

std::string test_name(const testing::TestParamInfo<Parity::ParamType>& instance) {
  std::string name = std::get<0>(instance.param);
  std::replace(name.begin(), name.end(), '-', '_');
  return name + "_" + std::string(cpu::name(std::get<1>(instance.param)));
}

// Prompts: logits at all positions, the residual stream after each block, greedy continuations.
class PromptParity : public Parity {};
TEST_P(PromptParity, LogitsHiddenStatesAndGreedyPath) {
  Loaded model = load();
  const Golden golden(folder_);
  int prompts = 0;
  for (; golden.has("prompt" + std::to_string(prompts) + ".input_ids"); ++prompts) {
    const std::string prompt = "prompt" + std::to_string(prompts) + ".";
    const auto ids = golden.ids(prompt + "input_ids");
    model.runner.set_probe([&](std::string_view name, ConstRows rows) {
      std::string key = prompt;
      if (name == "embed" || name == "final") {
        key += "hidden." + std::string(name);
      } else if (name.ends_with(".out")) {
        key += "hidden." + std::string(name.substr(0, name.size() - 4));
      } else {
        key += name;
      }
      if (!golden.has(key)) return;
      std::vector<float> dense;
      for (int64_t r = 0; r < rows.rows; ++r) {
        dense.insert(dense.end(), rows.row(r), rows.row(r) + rows.cols);
      }
      golden.check(key, dense);
    });
    Single single(model, static_cast<int64_t>(ids.size()));
    const auto logits = single.feed(ids);
    model.runner.set_probe({});
    if (golden.has(prompt + "logits")) golden.check(prompt + "logits", logits);
    if (golden.has(prompt + "logits_last")) {
      golden.check(prompt + "logits_last",
                   std::span(logits).last(static_cast<size_t>(model.config.output_vocab)));
    }
    const auto greedy = golden.ids(prompt + "greedy");
    std::vector<float> last;
    Single fresh(model, static_cast<int64_t>(ids.size()));
    EXPECT_EQ(fresh.greedy(ids, greedy.size(), &last), greedy) << prompt;
    if (golden.has(prompt + "greedy_logits_last"))
      golden.check(prompt + "greedy_logits_last", last);
    // The same one token at a time: within the reference's tolerance as well.
    if (golden.has(prompt + "logits") && ids.size() <= 40) {
      Single steps(model, static_cast<int64_t>(ids.size()));
      golden.check(prompt + "logits", steps.feed_one_by_one(ids));
    }
  }
  EXPECT_GT(prompts, 0);
}
INSTANTIATE_TEST_SUITE_P(
    Cases, PromptParity,
    testing::Combine(testing::Values("qwen1-new", "qwen1-new-sharded", "qwen1-bf16", "qwen1-fp16",
                                     "qwen1-odd", "qwen1-old", "qwen1-old-odd", "qwen1-fullvocab",
                                     "qwen1-gptq-int4", "qwen1-gptq-int4-actorder",
                                     "qwen1-gptq-int4-asym", "qwen1-gptq-int4-nogroup",
                                     "qwen1-gptq-int8", "qwen2", "qwen2-tied", "qwen2-yarn",
                                     "qwen2-window", "qwen3", "qwen3-untied", "llama2",
                                     "llama-gqa"),
                     kIsas),
    test_name);

// Prompts past the trained length, in one call and step by step.
class LongContextParity : public Parity {};
TEST_P(LongContextParity, PrefillAndDecodeBeyondTheTrainedLength) {
  Loaded model = load();
  const Golden golden(folder_);
  const auto ids = golden.ids("input_ids");
  for (const int64_t n : {48, 64, 65, 100, 128, 129, 130, 200, 300}) {
    const auto prompt = std::span(ids).first(static_cast<size_t>(n));
    Single single(model, n);
    const auto logits = single.feed(prompt);
    const std::string name = "prefill" + std::to_string(n);
    if (golden.has(name + ".logits")) golden.check(name + ".logits", logits);
    if (golden.has(name + ".logits_last8")) {
      golden.check(name + ".logits_last8",
                   std::span(logits).last(static_cast<size_t>(8 * model.config.output_vocab)));
    }
    // In chunks of one prompt the factor of dynamic NTK is the whole prompt's.
    Single chunked(model, n);
    chunked.feed(prompt.first(static_cast<size_t>(n / 3)));
    const auto tail = chunked.feed(prompt.subspan(static_cast<size_t>(n / 3)));
    test::check_close(tail, std::span(logits).last(tail.size()), {2e-3, 1e-3}, name + " chunked");
  }
  for (const size_t n : {size_t{60}, size_t{100}}) {
    const std::string name = "decode" + std::to_string(n) + ".logits";
    Single single(model, static_cast<int64_t>(n));
    single.feed(std::span(ids).first(n));
    const auto count = static_cast<size_t>(golden.shape(name)[0]);
    golden.check(name, single.feed_one_by_one(std::span(ids).subspan(n, count)));
  }
  if (golden.has("chunk100.logits")) {
    const auto count = static_cast<size_t>(golden.shape("chunk100.logits")[0]);
    Single single(model, 100);
    single.feed(std::span(ids).first(100));
    golden.check("chunk100.logits", single.feed(std::span(ids).subspan(100, count)));
  }
  if (golden.has("decode60.greedy")) {
    const auto greedy = golden.ids("decode60.greedy");
    Single single(model, 60);
    EXPECT_EQ(single.greedy(std::span(ids).first(60), greedy.size()), greedy);
  }
}
INSTANTIATE_TEST_SUITE_P(Cases, LongContextParity,
                         testing::Combine(testing::Values("qwen1-longctx-none", "qwen1-longctx-ntk",
                                                          "qwen1-longctx-logn",
                                                          "qwen1-longctx-both",
                                                          "qwen1-longctx-old"),
                                          kIsas),
                         test_name);

// Rows of a left-padded batch, run together as sequences of unequal length. The reference counts
// pads in positions: each sequence gets them as its offset.
std::vector<std::vector<int32_t>> unpadded(const Golden& golden, const std::string& prefix) {
  const auto ids = golden.ids(prefix + "input_ids"), mask = golden.ids(prefix + "attention_mask");
  const auto cols = static_cast<size_t>(golden.shape(prefix + "input_ids")[1]);
  std::vector<std::vector<int32_t>> rows(ids.size() / cols);
  for (size_t i = 0; i < ids.size(); ++i) {
    if (mask[i] != 0) rows[i / cols].push_back(ids[i]);
  }
  return rows;
}

// Of wanted outputs alone the last block computes what they need: they are what they would be among
// all, and what the cache holds is the same to the bit.
class OutputsParity : public Parity {};
TEST_P(OutputsParity, WantedOutputsAreThoseOfAllTokens) {
  Loaded model = load();
  std::vector<int32_t> ids(60);
  Rng rng(5);
  for (int32_t& id : ids) {
    id = static_cast<int32_t>(rng.below(static_cast<uint64_t>(model.config.vocab)));
  }
  constexpr int64_t kItems = 5;
  constexpr size_t kLengths[kItems] = {9, 1, 20, 7, 23};
  constexpr int64_t kOutputs[kItems] = {1, 1, 3, 0, 23};
  std::vector<std::vector<float>> outputs, steps;
  for (const auto want : {Runner::Want::All, Runner::Want::Outputs}) {
    KvCache cache(model.backend, model.config, DType::F32, 512, kItems);
    std::vector<Sequence> sequences;
    std::vector<BatchItem> batch, next;
    sequences.reserve(kItems);
    size_t first = 0;
    for (size_t i = 0; i < kItems; ++i) {
      Sequence& sequence = sequences.emplace_back(cache, model.config, model.rules(), 24);
      sequence.reserve(32);
      batch.push_back({&sequence, std::span(ids).subspan(first, kLengths[i]), kOutputs[i]});
      next.push_back({&sequence, std::span(ids).subspan(i, 1)});
      first += kLengths[i];
    }
    const ConstRows hidden = model.runner.forward(batch, cache, want);
    std::vector<float>& wanted = outputs.emplace_back();
    int64_t row = 0;
    for (size_t i = 0; i < kItems; ++i) {
      if (want == Runner::Want::All) row += static_cast<int64_t>(kLengths[i]) - kOutputs[i];
      for (int64_t k = 0; k < kOutputs[i]; ++k, ++row) {
        wanted.insert(wanted.end(), hidden.row(row), hidden.row(row) + hidden.cols);
      }
    }
    const ConstRows after = model.runner.forward(next, cache);
    steps.emplace_back(after.data, after.data + after.rows * after.cols);
  }
  test::check_close(outputs[1], outputs[0], {1e-5, 1e-5}, "outputs");
  EXPECT_EQ(steps[0], steps[1]);
}

INSTANTIATE_TEST_SUITE_P(
    Cases, OutputsParity,
    testing::Combine(testing::Values("qwen1-new", "qwen1-bf16", "qwen1-gptq-int4-actorder",
                                     "qwen2-window", "qwen3", "llama-gqa", "qwen1-longctx-logn"),
                     kIsas),
    test_name);

class BatchParity : public Parity {};
TEST_P(BatchParity, SequencesOfUnequalLengthTogether) {
  Loaded model = load();
  const Golden golden(folder_);
  const bool long_context = golden.has("batch.input_ids");
  const std::string prefix = long_context ? "batch." : "";
  const auto rows = unpadded(golden, prefix);
  const int64_t padded = golden.shape(prefix + "input_ids")[1];
  KvCache cache(model.backend, model.config, DType::F32, 1024, 3);
  std::vector<Sequence> sequences;
  std::vector<BatchItem> batch;
  for (const auto& row : rows) {
    const auto length = static_cast<int64_t>(row.size());
    sequences.emplace_back(cache, model.config, model.rules(), length, padded - length);
    sequences.back().reserve(length + 40);
  }
  for (size_t r = 0; r < rows.size(); ++r) batch.push_back({&sequences[r], rows[r]});
  const auto vocab = static_cast<size_t>(model.config.output_vocab);

  const ConstRows hidden = model.runner.forward(batch, cache, Runner::Want::All);
  MutRows logits = model.runner.logits(hidden);
  std::vector<std::vector<float>> last;
  int64_t row = 0;
  for (size_t r = 0; r < rows.size(); ++r) {
    const auto count = static_cast<int64_t>(rows[r].size());
    const std::span<const float> got(logits.row(row), static_cast<size_t>(count) * vocab);
    if (long_context) {
      const std::string name = "batch.logits_row" + std::to_string(r);
      if (golden.has(name)) golden.check(name, got);
    } else {
      const auto all = golden.floats("logits");
      const size_t begin = ((r + 1) * static_cast<size_t>(padded) - rows[r].size()) * vocab;
      test::check_close(got, std::span(all).subspan(begin, got.size()), {2e-3, 1e-3}, "logits");
    }
    row += count;
    last.emplace_back(logits.row(row - 1), logits.row(row - 1) + vocab);
  }

  const auto steps = golden.ids(long_context ? "batch.step_ids" : "greedy");
  const size_t count = steps.size() / rows.size();
  const auto expected = long_context ? golden.floats("batch.step_logits") : std::vector<float>{};
  for (size_t step = 0; step < count; ++step) {
    std::vector<int32_t> next;
    for (size_t r = 0; r < rows.size(); ++r) {
      const int32_t wanted = steps[r * count + step];
      next.push_back(wanted);
      if (long_context) continue;
      const auto best = std::max_element(last[r].begin(), last[r].end()) - last[r].begin();
      EXPECT_EQ(best, wanted) << "row " << r << ", step " << step;
    }
    for (size_t r = 0; r < rows.size(); ++r) batch[r].ids = {&next[r], 1};
    logits = model.runner.logits(model.runner.forward(batch, cache));
    for (size_t r = 0; r < rows.size(); ++r) {
      last[r].assign(logits.row(int64_t(r)), logits.row(int64_t(r)) + vocab);
      if (!long_context) continue;
      test::check_close(last[r], std::span(expected).subspan((r * count + step) * vocab, vocab),
                        {2e-3, 1e-3}, "batch.step_logits");
    }
  }
}
INSTANTIATE_TEST_SUITE_P(Cases, BatchParity,
                         testing::Combine(testing::Values("qwen1-batch", "qwen1-longctx-both"),
                                          kIsas),
                         test_name);

// The release's 8-bit cache: the mean difference tells a right rounding from a wrong one.
class ByteCacheParity : public Parity {};
TEST_P(ByteCacheParity, LogitsWithinBothBounds) {
  Loaded model = load();
  const Golden golden(folder_);
  for (const std::string prompt : {"prompt0.", "prompt1."}) {
    const auto ids = golden.ids(prompt + "input_ids"), next = golden.ids(prompt + "next_ids");
    const auto check = [&](const std::string& name, const std::vector<float>& got) {
      golden.check(name, got);
      const auto want = golden.floats(name);
      double sum = 0;
      for (size_t i = 0; i < got.size(); ++i) sum += std::abs(got[i] - want[i]);
      EXPECT_LT(sum / static_cast<double>(got.size()), 0.03) << name;
    };
    Single single(model, static_cast<int64_t>(ids.size()), DType::U8);
    check(prompt + "logits", single.feed(ids));
    check(prompt + "next_logits", single.feed_one_by_one(next));
    Single plain(model, static_cast<int64_t>(ids.size()));
    golden.check(prompt + "logits_float_cache", plain.feed(ids));
  }
}
INSTANTIATE_TEST_SUITE_P(Cases, ByteCacheParity,
                         testing::Combine(testing::Values("qwen1-kvint8"), kIsas), test_name);

// Adapters, on float and on quantized weights.
class AdapterParity : public Parity {};
TEST_P(AdapterParity, LogitsWithTheAdapter) {
  const Golden golden(folder_);
  const auto ids = golden.ids("input_ids");
  const auto cols = static_cast<size_t>(golden.shape("input_ids")[1]);
  for (const bool with_adapter : {false, true}) {
    Loaded model = with_adapter ? load({.adapters = {folder_ / "adapter"}}) : load();
    std::vector<float> all;
    for (size_t r = 0; r * cols < ids.size(); ++r) {
      Single single(model, static_cast<int64_t>(cols));
      const auto logits = single.feed(std::span(ids).subspan(r * cols, cols));
      all.insert(all.end(), logits.begin(), logits.end());
    }
    golden.check(with_adapter ? "adapter.logits" : "base.logits", all);
  }
}
INSTANTIATE_TEST_SUITE_P(Cases, AdapterParity,
                         testing::Combine(testing::Values("qwen1-lora", "qwen1-lora-saved-modules",
                                                          "qwen1-qlora"),
                                          kIsas),
                         test_name);

// A cache in half precision costs little accuracy.
class HalfCache : public testing::TestWithParam<DType> {};
TEST_P(HalfCache, StaysNearTheFullOne) {
  const fs::path folder = test::case_folder("qwen1-new");
  QUERN_NEED(folder);
  ThreadPool pool(2);
  Loaded model(folder, pool, cpu::chosen_isa());
  const Golden golden(folder);
  const auto ids = golden.ids("prompt3.input_ids");
  Single single(model, static_cast<int64_t>(ids.size()), GetParam());
  const double tolerance = GetParam() == DType::F16 ? 0.05 : 0.4;
  test::check_close(single.feed(ids), golden.floats("prompt3.logits"), {tolerance, 0}, "logits");
}
INSTANTIATE_TEST_SUITE_P(Types, HalfCache, testing::Values(DType::F16, DType::BF16),
                         [](const auto& instance) { return std::string(name(instance.param)); });

// The bits of a sequence's logits do not depend on its company, nor on the number of threads.
TEST(BatchInvariance, AloneAndInACrowdTheSameBits) {
  const fs::path folder = test::case_folder("qwen1-new");
  QUERN_NEED(folder);
  const Golden golden(folder);
  const auto ids = golden.ids("prompt2.input_ids");
  std::vector<std::vector<float>> results;
  for (const int threads : {1, 3}) {
    ThreadPool pool(threads);
    Loaded model(folder, pool, cpu::chosen_isa());
    Single alone(model, static_cast<int64_t>(ids.size()));
    results.push_back(alone.feed(ids));
    KvCache cache(model.backend, model.config, DType::F32, 2048, 9);
    std::vector<Sequence> crowd;
    std::vector<BatchItem> batch;
    for (int i = 0; i < 9; ++i) {
      crowd.emplace_back(cache, model.config, model.rules(), 17);
      crowd.back().reserve(64);
    }
    for (size_t i = 0; i < crowd.size(); ++i) {
      const auto all = std::span(ids);
      batch.push_back({&crowd[i], i == 4 ? all : all.first(3 + i)});
    }
    const ConstRows hidden = model.runner.forward(batch, cache, Runner::Want::All);
    const MutRows logits = model.runner.logits(hidden);
    const int64_t first = 3 + 4 + 5 + 6;
    results.emplace_back(logits.row(first), logits.row(first + static_cast<int64_t>(ids.size())));
  }
  for (const auto& result : results) EXPECT_EQ(result, results[0]);
}

// Layer-wise windows: a window at least as long as the text changes nothing, a short one does.
TEST(LayerWindows, ActOnlyOnceTheyAreShorterThanTheText) {
  const fs::path folder = test::case_folder("qwen1-new");
  QUERN_NEED(folder);
  ThreadPool pool(1);
  const Golden golden(folder);
  const auto ids = golden.ids("prompt3.input_ids");
  const auto logits_with = [&](std::vector<int64_t> windows) {
    Loaded model(folder, pool, cpu::chosen_isa());
    model.config.windows = std::move(windows);
    Single single(model, static_cast<int64_t>(ids.size()));
    return single.feed(ids);
  };
  const auto full = logits_with({});
  EXPECT_EQ(logits_with({33, 40, 64}), full);
  EXPECT_NE(logits_with({8, 16, 64}), full);
}

}  // namespace
}  // namespace quern
