// Whole generations against the reference, and what the engine promises about its steps.
#include "generate/engine.h"

#include <atomic>

#include "core/json.h"
#include "formats/safetensors.h"
#include "generate/model.h"
#include "support/support.h"

int64_t allocations_so_far();  // counting_new.cpp

namespace quern {
namespace {

std::vector<TokenId> ids_of(const SafetensorsFile& golden, const std::string& name) {
  const auto wide = to_integers(golden.at(name), name);
  return {wide.begin(), wide.end()};
}

Request greedy(std::vector<TokenId> ids, int64_t count) {
  Request request;
  request.ids = std::move(ids);
  request.sampling.greedy = true;
  request.max_new_tokens = count;
  return request;
}

Engine engine_of(Model& model) {
  return Engine(model.network(), model.tokenizer_or_null(), model.engine_options());
}

TEST(Engine, DeterministicSettingsOfTheReference) {
  const fs::path folder = test::case_folder("qwen1-generate");
  QUERN_NEED(folder);
  Model model(folder);
  Engine engine = engine_of(model);
  const SafetensorsFile golden(folder / "golden.safetensors");
  const auto prompt = ids_of(golden, "input_ids");
  const auto run = [&](const Request& request) { return engine.run({request})[0].ids; };

  EXPECT_EQ(run(greedy(prompt, 40)), ids_of(golden, "greedy"));
  for (const auto& [name, penalty] :
       {std::pair{"greedy_rep1.1", 1.1}, {"greedy_rep1.6", 1.6}, {"greedy_rep0.9", 0.9}}) {
    Request request = greedy(prompt, 40);
    request.sampling.repetition_penalty = penalty;
    EXPECT_EQ(run(request), ids_of(golden, name)) << name;
  }
  for (const auto& [name, n] : {std::pair{"greedy_norepeat2", 2}, {"greedy_norepeat3", 3}}) {
    Request request = greedy(prompt, 40);
    request.sampling.no_repeat_ngram = n;
    EXPECT_EQ(run(request), ids_of(golden, name)) << name;
  }
  Request to_eos = greedy(prompt, 40);
  to_eos.stop.ids = ids_of(golden, "eos_id");
  EXPECT_EQ(run(to_eos), ids_of(golden, "greedy_eos"));
  EXPECT_EQ(engine.run({to_eos})[0].reason, FinishReason::Stop);

  Request to_words = greedy(prompt, 40);
  to_words.stop.ids = {static_cast<TokenId>(model.config().output_vocab - 12)};
  to_words.stop.sequences = {ids_of(golden, "stop_words")};
  EXPECT_EQ(run(to_words), ids_of(golden, "greedy_stop_words"));
}

TEST(Engine, ABatchOfUnequalPromptsAsTheReference) {
  const fs::path folder = test::case_folder("qwen1-batch");
  QUERN_NEED(folder);
  Model model(folder);
  Engine engine = engine_of(model);
  const SafetensorsFile golden(folder / "golden.safetensors");
  const auto ids = ids_of(golden, "input_ids"), mask = ids_of(golden, "attention_mask");
  const auto expected = ids_of(golden, "greedy");
  const size_t rows = 3, cols = ids.size() / rows, steps = expected.size() / rows;
  std::vector<Request> requests;
  for (size_t r = 0; r < rows; ++r) {
    std::vector<TokenId> prompt;
    for (size_t i = r * cols; i < (r + 1) * cols; ++i) {
      if (mask[i] != 0) prompt.push_back(ids[i]);
    }
    requests.push_back(greedy(prompt, static_cast<int64_t>(steps)));
  }
  const auto completions = engine.run(requests);
  for (size_t r = 0; r < rows; ++r) {
    EXPECT_EQ(completions[r].ids,
              (std::vector<TokenId>(expected.begin() + static_cast<int64_t>(r * steps),
                                    expected.begin() + static_cast<int64_t>((r + 1) * steps))));
  }
}

TEST(Engine, ThePublishedStoryWordForWord) {
  const fs::path folder = test::case_folder("stories260k");
  QUERN_NEED(folder);
  Model model(folder);
  Engine engine = engine_of(model);
  Request request = greedy(model.raw_prompt(""), 256);
  request.stop = model.default_stop();
  request.text_start = true;
  std::string streamed;
  const auto out =
      engine.run({request}, [&](size_t, const NewToken& token) { streamed += token.text; });
  const Json expected = Json::parse_file((folder / "case.json").string());
  EXPECT_EQ(out[0].text.substr(0, expected.at("greedy_text").string().size()),
            expected.at("greedy_text").string());
  EXPECT_EQ(streamed, out[0].text);
}

class TinyModel : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = test::case_folder("qwen1-longctx-both");
    QUERN_NEED(folder_);
    model_ = std::make_unique<Model>(folder_);
    const SafetensorsFile golden(folder_ / "golden.safetensors");
    ids_ = ids_of(golden, "input_ids");
  }
  std::vector<TokenId> prompt(size_t length) const {
    return {ids_.begin(), ids_.begin() + static_cast<int64_t>(length)};
  }
  fs::path folder_;
  std::unique_ptr<Model> model_;
  std::vector<TokenId> ids_;
};

// Each sequence has its own factor of dynamic NTK: neighbours do not change one another.
TEST_F(TinyModel, SequencesPastTheTrainedLengthDoNotDisturbEachOther) {
  Engine engine = engine_of(*model_);
  std::vector<Request> requests;
  std::vector<std::vector<TokenId>> alone;
  for (const size_t length : {40, 70, 140, 260}) {
    requests.push_back(greedy(prompt(length), 12));
    alone.push_back(engine.run({requests.back()})[0].ids);
  }
  const auto together = engine.run(requests);
  for (size_t i = 0; i < requests.size(); ++i) EXPECT_EQ(together[i].ids, alone[i]) << i;
}

TEST_F(TinyModel, AContinuedConversationEqualsAFreshOne) {
  Engine continued = engine_of(*model_);
  std::vector<TokenId> conversation = prompt(30);
  for (int turn = 0; turn < 5; ++turn) {
    const Request request = greedy(conversation, 6);
    const auto reply = continued.run_continued(request);
    Engine fresh = engine_of(*model_);
    EXPECT_EQ(reply.ids, fresh.run({request})[0].ids) << "turn " << turn;
    conversation.insert(conversation.end(), reply.ids.begin(), reply.ids.end());
    // The user goes on; from the third turn on the prompt is past the trained length.
    conversation.insert(conversation.end(), ids_.begin() + turn, ids_.begin() + turn + 7);
  }
}

TEST_F(TinyModel, AnOverLongPromptIsAnErrorWithBothCountsOrCut) {
  ModelOptions options;
  options.context = 64;
  Model small(folder_, options);
  Engine engine = engine_of(small);
  Request request = greedy(prompt(100), 8);
  test::expect_error([&] { engine.run({request}); }, Kind::BadInput, {"100 tokens", "context 64"});
  request.truncate = true;
  const auto cut = engine.run({request});
  EXPECT_EQ(cut[0].prompt_tokens, 56);
  EXPECT_EQ(cut[0].ids.size(), 8u);
}

TEST_F(TinyModel, IdsOutOfRangeAreNamed) {
  Engine engine = engine_of(*model_);
  test::expect_error(
      [&] {
        engine.run({greedy({1, 256}, 4)});
      },
      Kind::BadInput, {"256", "index 1"});
  test::expect_error([&] { engine.run({greedy({-1}, 4)}); }, Kind::BadInput, {"-1"});
  test::expect_error([&] { engine.run({greedy({}, 4)}); }, Kind::BadInput, {"empty"});
}

TEST_F(TinyModel, AStepOfDecodingAllocatesNothing) {
  KvCache cache(model_->backend(), model_->config(), DType::F32, 256);
  Runner runner(model_->network(), 64);
  Sequence sequence(cache, model_->config(), {true, true}, 40);
  sequence.reserve(200);
  BatchItem item = {&sequence, std::span(ids_).first(40)};
  runner.logits(runner.forward({&item, 1}, cache));
  const auto step = [&] {
    item.ids = std::span(ids_).subspan(50, 1);
    runner.logits(runner.forward({&item, 1}, cache));
  };
  step();
  const int64_t before = allocations_so_far();
  for (int i = 0; i < 20; ++i) step();
  EXPECT_EQ(allocations_so_far() - before, 0);
}

TEST_F(TinyModel, CancellingEndsWithinAStep) {
  Engine engine = engine_of(*model_);
  std::atomic<bool> cancel{false};
  const auto out = engine.run(
      {greedy(prompt(10), 50)}, [&](size_t, const NewToken&) { cancel = true; }, &cancel);
  EXPECT_EQ(out[0].ids.size(), 1u);
  EXPECT_EQ(out[0].reason, FinishReason::Interrupted);
}

TEST_F(TinyModel, SamplesOfOnePromptDifferAndRepeat) {
  Engine engine = engine_of(*model_);
  std::vector<Request> requests(3);
  for (size_t i = 0; i < requests.size(); ++i) {
    requests[i].ids = prompt(10);
    requests[i].max_new_tokens = 20;
    requests[i].stream = i;
  }
  const auto first = engine.run(requests), second = engine.run(requests);
  EXPECT_NE(first[0].ids, first[1].ids);
  EXPECT_NE(first[1].ids, first[2].ids);
  for (size_t i = 0; i < 3; ++i) EXPECT_EQ(first[i].ids, second[i].ids);
  EXPECT_EQ(engine.run({requests[1]})[0].ids, first[1].ids);  // alone as in the crowd
}

}  // namespace
}  // namespace quern
