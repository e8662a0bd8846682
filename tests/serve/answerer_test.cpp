// The Answerer over our own server gives what it gives of the same model in this process.
#include "answer/answerer.h"

#include "serve/test_server.h"

namespace quern::test {
namespace {

TEST(Answerer, ThroughTheServerIsAsInThisProcess) {
  TestServer server;
  Model model(tiny_model());
  const auto here = make_model_answerer(model);
  const auto there = make_server_answerer(
      {.client = {.url = "http://127.0.0.1:" + std::to_string(server.port())}});
  std::vector<CompleteRequest> asked(2);
  asked[0].prompt = "Once upon";
  asked[1].messages = {{ChatRole::User, "hello"}};
  for (CompleteRequest& request : asked) {
    request.max_new_tokens = 9;
    request.sampling.greedy = true;
  }
  const auto answers = here->complete(asked), others = there->complete(asked);
  for (size_t i = 0; i < asked.size(); ++i) {
    EXPECT_EQ(others[i].failure, "");
    EXPECT_EQ(others[i].text, answers[i].text);
    EXPECT_EQ(others[i].prompt_tokens, answers[i].prompt_tokens);
    EXPECT_EQ(others[i].finish, answers[i].finish);
  }
  const std::vector<LikelihoodRequest> likely = {
      {.context = "Once upon", .continuation = " a time"},
      {.context = "caf\xC3\xA9 ", .continuation = "au lait"},
      {.context_ids = {70, 71, 72}, .continuation_ids = {73, 74}}};
  const auto got = here->log_likelihood(likely), also = there->log_likelihood(likely);
  for (size_t i = 0; i < likely.size(); ++i) {
    ASSERT_TRUE(got[i].known && also[i].known) << got[i].failure << also[i].failure;
    EXPECT_EQ(also[i].logprobs, got[i].logprobs) << i;
    EXPECT_EQ(also[i].greedy, got[i].greedy);
    EXPECT_EQ(also[i].context_tokens, got[i].context_tokens);
  }
}

}  // namespace
}  // namespace quern::test
