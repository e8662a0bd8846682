// Answers of the model in this process, beside what the engine itself gives.
#include <cmath>

#include "answer/answerer.h"
#include "support/support.h"

namespace quern::test {
namespace {

Model& mini() {
  static Model model(source("models/quern-mini"));
  return model;
}

std::vector<CompleteRequest> questions() {
  std::vector<CompleteRequest> out;
  for (int i = 0; i < 6; ++i) {
    CompleteRequest request;
    const std::string text = "Once upon a time there was number " + std::to_string(i);
    if (i % 2 == 0) {
      request.prompt = text;
    } else {
      request.messages = {{ChatRole::User, text}};
    }
    request.sampling.seed = 5;
    request.stream = static_cast<uint64_t>(i);
    request.max_new_tokens = 4 + i;
    request.ignore_eos = true;
    out.push_back(request);
  }
  return out;
}

TEST(ModelAnswerer, AnswersAreThoseOfTheEngineWhateverTheBatch) {
  const std::vector<CompleteRequest> asked = questions();
  const auto many = make_model_answerer(mini(), {.batch = 3});
  std::vector<std::string> streamed(asked.size());
  std::vector<size_t> ended;
  const std::vector<quern::Answer> together =
      many->complete(asked, {.text = [&](size_t i, std::string_view text) { streamed[i] += text; },
                             .done = [&](size_t i, const quern::Answer&) { ended.push_back(i); }});
  ASSERT_EQ(together.size(), asked.size());
  EXPECT_EQ(ended.size(), asked.size());
  for (size_t i = 0; i < asked.size(); ++i) {
    Request request;
    request.ids = asked[i].messages.empty()
                      ? mini().raw_prompt(asked[i].prompt)
                      : mini().chat().render({.messages = asked[i].messages}).ids;
    request.sampling = mini().default_sampling();
    request.sampling.seed = 5;
    request.stream = i;
    request.stop = mini().default_stop();
    request.stop.ignore_ids = true;
    request.max_new_tokens = asked[i].max_new_tokens;
    request.text_start = !asked[i].messages.empty();
    Engine engine(mini().network(), &mini().tokenizer(), mini().engine_options());
    const Completion expected = engine.run({request})[0];
    EXPECT_EQ(together[i].text, expected.text) << i;
    EXPECT_EQ(streamed[i], expected.text) << i;
    EXPECT_EQ(together[i].finish, FinishReason::Length);
    EXPECT_EQ(together[i].new_tokens, asked[i].max_new_tokens);
    EXPECT_EQ(together[i].prompt_tokens, static_cast<int64_t>(request.ids.size()));
    EXPECT_GT(together[i].seconds, 0);
  }
}

TEST(ModelAnswerer, OneRequestsFailureIsItsOwn) {
  std::vector<CompleteRequest> asked = questions();
  asked[1].messages.clear();
  asked[1].ids.assign(100'000, 65);
  asked[2].sampling.temperature = -1;
  asked[3].ids = {1 << 30};
  asked[3].messages.clear();
  const auto answers = make_model_answerer(mini())->complete(asked);
  for (const size_t i : {1, 2, 3}) {
    EXPECT_EQ(answers[i].finish, FinishReason::Failed) << i;
    EXPECT_FALSE(answers[i].failure.empty()) << i;
  }
  EXPECT_NE(answers[1].failure.find("100000"), std::string::npos) << answers[1].failure;
  EXPECT_EQ(answers[2].failure_kind, Kind::Misused);
  for (const size_t i : {0, 4, 5}) EXPECT_EQ(answers[i].finish, FinishReason::Length) << i;
}

TEST(ModelAnswerer, WhatIsCancelledKeepsItsText) {
  const std::vector<CompleteRequest> asked = questions();
  std::atomic<bool> cancel = false;
  const auto answers =
      make_model_answerer(mini(), {.batch = 1})
          ->complete(asked, {.text = [&](size_t, std::string_view) { cancel = true; }}, &cancel);
  for (const quern::Answer& answer : answers) {
    EXPECT_EQ(answer.finish, FinishReason::Interrupted);
  }
  EXPECT_FALSE(answers[0].text.empty());
  EXPECT_EQ(answers[5].new_tokens, 0);
  std::vector<LikelihoodRequest> likely(2);
  likely[0] = {.context = "Once upon", .continuation = " a time"};
  likely[1] = likely[0];
  for (const Likelihood& result :
       make_model_answerer(mini())->log_likelihood(likely, {}, &cancel)) {
    EXPECT_FALSE(result.known);
    EXPECT_FALSE(result.failure.empty());
  }
}

// By definition: the continuation's tokens, one by one, out of the distribution after what stands
// before each.
TEST(ModelAnswerer, LikelihoodsAreThoseOfTheTokensOneByOne) {
  std::vector<LikelihoodRequest> asked = {
      {.context = "Once upon a time, there was a", .continuation = " little girl"},
      {.context = "Once upon a time, there was a", .continuation = " qzx"},
      {.context = "Once upon a time, there was a ", .continuation = "dog"},
      {.context = "", .continuation = "Once"}};
  const auto ids = mini().raw_prompt("One day, Tom went");
  asked.push_back({.context_ids = {ids.begin(), ids.end() - 2},
                   .continuation_ids = {ids.end() - 2, ids.end()}});
  const auto answerer = make_model_answerer(mini(), {.batch = 2});
  const std::vector<Likelihood> got = answerer->log_likelihood(asked);
  for (size_t i = 0; i < asked.size(); ++i) {
    ASSERT_TRUE(got[i].known) << got[i].failure;
    std::vector<TokenId> whole = asked[i].context_ids;
    whole.insert(whole.end(), asked[i].continuation_ids.begin(), asked[i].continuation_ids.end());
    if (whole.empty()) whole = mini().raw_prompt(asked[i].context + asked[i].continuation);
    const auto first = static_cast<size_t>(got[i].context_tokens);
    if (asked[i].context.empty() && asked[i].context_ids.empty()) {
      EXPECT_EQ(first, 1u);
      if (!mini().tokenizer().bos()) whole.insert(whole.begin(), *mini().tokenizer().eos());
    }
    ASSERT_EQ(whole.size() - first, got[i].logprobs.size()) << i;
    double sum = 0;
    bool greedy = true;
    for (size_t at = first; at < whole.size(); ++at) {
      Request request;
      request.ids.assign(whole.begin(), whole.begin() + static_cast<int64_t>(at));
      request.max_new_tokens = 1;
      request.top_logprobs = mini().config().output_vocab;
      Engine engine(mini().network(), nullptr, mini().engine_options());
      const Completion next = engine.run({request})[0];
      const auto& all = next.logprobs[0].top;
      const auto found = std::find_if(all.begin(), all.end(),
                                      [&](const TokenLogprob& t) { return t.id == whole[at]; });
      EXPECT_EQ(got[i].logprobs[at - first], found->logprob) << i;
      sum += found->logprob;
      greedy &= found->logprob >= all[0].logprob;
    }
    EXPECT_NEAR(got[i].sum, sum, 1e-9);
    EXPECT_EQ(got[i].greedy, greedy) << i;
  }
  // " a" at the context's end goes with the continuation, as in lm-evaluation-harness.
  EXPECT_EQ(got[2].context_tokens, got[0].context_tokens);
  EXPECT_GT(got[0].sum, got[1].sum);
  const Likelihood none = answerer->log_likelihood(
      std::vector<LikelihoodRequest>{{.context = "Once", .continuation = ""}})[0];
  EXPECT_FALSE(none.known);
  EXPECT_NE(none.failure.find("continuation is empty"), std::string::npos) << none.failure;
}

}  // namespace
}  // namespace quern::test
