// Items put to SmolLM2-135M-Instruct, as Q4_1, against the reference implementation with the same
// weights in float32. The weights are in nobody's tree: they are looked for where `QUERN_PUBLISHED`
// says, or in the user's cache.
#include <algorithm>

#include "core/json.h"
#include "evaluate/answers.h"
#include "evaluate/task.h"
#include "evaluate/text_meter.h"
#include "support/support.h"

namespace quern {
namespace {

class PublishedItems : public ::testing::Test {
 protected:
  void SetUp() override {
    const fs::path file = test::published_model();
    QUERN_NEED_PUBLISHED(file);
    goldens = test::shared("fixtures/published/smollm2-135m-instruct");
    data = test::shared("data/eval");
    QUERN_NEED(goldens);
    QUERN_NEED(data);
    ModelOptions options;
    options.float32 = true;
    model = std::make_unique<Model>(file, options);
    source = std::make_unique<LocalModel>(*model, "", LocalModel::Options{});
  }

  std::vector<Json> records(const char* name) const {
    std::vector<Json> all;
    for_each_record(goldens / name, [&](const Json& record, int64_t) { all.push_back(record); });
    return all;
  }

  std::vector<ItemAnswer> answers(const Task& task, std::span<const Item> items) const {
    std::vector<Question> questions;
    for (const Item& item : items) questions.push_back({&item, task.cut_above, task.complete});
    std::vector<ItemAnswer> out(items.size());
    const std::atomic<bool> never = false;
    source->answer(
        questions, [&](size_t i, ItemAnswer answer) { out[i] = std::move(answer); }, never);
    return out;
  }

  // The item that a golden names, which must be asked with the golden's text.
  static const Item& item_of(const std::vector<Item>& items, const Json& golden) {
    const std::string subject = golden.string_or("subject", "");
    const auto found = std::find_if(items.begin(), items.end(), [&](const Item& item) {
      if (golden.has("task_id")) return item.id == golden.at("task_id").string();
      return item.subset.value_or("") == subject && item.index == golden.at("index").integer();
    });
    if (found == items.end()) golden.fail("names no item");
    EXPECT_EQ(sha256(found->prompt), golden.at("prompt_sha256").string()) << found->id;
    return *found;
  }

  fs::path goldens, data;
  std::unique_ptr<Model> model;
  std::unique_ptr<LocalModel> source;
};

TEST_F(PublishedItems, LettersAreAsLikelyAsTheReferenceSays) {
  const auto all = records("eval.jsonl");
  for (const std::string name : {"ceval", "mmlu", "cmmlu"}) {
    const Task& task = find_task(name);
    const std::vector<Item> loaded = task.load(DataFolder(data), {});
    // The shortest: the longest would take their minutes.
    std::vector<Json> chosen;
    for (const Json& golden : all) {
      if (golden.at("task").string() == name) chosen.push_back(golden);
    }
    std::sort(chosen.begin(), chosen.end(), [](const Json& a, const Json& b) {
      return a.at("n_tokens").integer() < b.at("n_tokens").integer();
    });
    ASSERT_GE(chosen.size(), 4u);
    chosen.erase(chosen.begin() + 4, chosen.end());
    std::vector<Item> items;
    for (const Json& golden : chosen) items.push_back(item_of(loaded, golden));
    const auto got = answers(task, items);
    for (size_t i = 0; i < items.size(); ++i) {
      EXPECT_EQ(got[i].prompt_tokens, chosen[i].at("n_tokens").integer()) << items[i].id;
      const auto want = chosen[i].at("logprobs_of_letters").items();
      ASSERT_EQ(want.size(), got[i].response.choice_logprobs.size());
      for (size_t letter = 0; letter < want.size(); ++letter) {
        EXPECT_NEAR(got[i].response.choice_logprobs[letter], want[letter].number(), 5e-3)
            << items[i].id;
      }
    }
  }
}

TEST_F(PublishedItems, WikitextIsAsLikelyAsTheReferenceSays) {
  const Json golden = Json::parse_file((goldens / "perplexity.json").string());
  const std::vector<Item> items = find_task("wikitext2").load(DataFolder(data), {});
  const std::vector<TokenId> ids = model->tokenizer().encode(items[0].prompt);
  EXPECT_EQ(static_cast<int64_t>(ids.size()), golden.at("tokens_of_the_whole_file").integer());
  TextMeter meter(*model, {});
  const PerplexityResult got = meter.measure(std::span(ids).first(2048), 2048, meter.own());
  EXPECT_EQ(got.tokens, 2047);
  EXPECT_NEAR(got.nll, golden.at("window_nll")[0].number(), 2047 * 2e-4);
}

}  // namespace
}  // namespace quern
