// Filling in: a completion with a text behind it.
#include "serve/test_server.h"

namespace quern::test {
namespace {

TEST(Suffix, StandsBehindThePromptAsTheModelWasTrainedOnIt) {
  const TempFolder folder;
  const fs::path model = folder.path() / "model";
  fs::copy(tiny_model(), model, fs::copy_options::recursive);
  for (const auto& entry : fs::directory_iterator(model)) {
    if (entry.path().extension() == ".tiktoken") fs::remove(entry.path());
  }
  folder.write("model/tokenizer.json",
               byte_tokenizer_json({"<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"}));
  serve::ServeOptions options = tiny_options();
  options.models[0].folder = model;
  TestServer server(std::move(options));
  const auto text_of = [&](const json& prompt, const json& suffix) {
    json body = {{"prompt", prompt}, {"max_tokens", 12}, {"temperature", 0}};
    if (!suffix.is_null()) body["suffix"] = suffix;
    const Answer answer = server.post("/v1/completions", body);
    EXPECT_EQ(answer.status, 200) << answer.body;
    return std::pair(answer.parsed()["choices"][0]["text"].get<std::string>(),
                     answer.parsed()["usage"]["prompt_tokens"].get<int>());
  };
  const auto filled = text_of("ab", "c<|fim_middle|>");
  std::vector<int> ids = {256, 'a', 'b', 257, 'c'};  // a mark in the text stays text
  for (const char c : std::string("<|fim_middle|>")) ids.push_back(c);
  ids.push_back(258);
  EXPECT_EQ(filled, text_of(ids, nullptr));
  EXPECT_NE(filled.first, text_of("ab", nullptr).first);

  const Answer refused = server.post(
      "/v1/completions", {{"prompt", "ab"}, {"suffix", "c"}, {"echo", true}, {"max_tokens", 1}});
  EXPECT_EQ(refused.status, 400);
  EXPECT_NE(refused.body.find("suffix"), std::string::npos);
}

TEST(Suffix, IsRefusedWhereTheVocabularyHasNoMarks) {
  TestServer server(tiny_options());
  const Answer answer =
      server.post("/v1/completions", {{"prompt", "ab"}, {"suffix", "c"}, {"max_tokens", 1}});
  EXPECT_EQ(answer.status, 400);
  EXPECT_NE(answer.body.find("<|fim_prefix|>"), std::string::npos) << answer.body;
  EXPECT_EQ(json::parse(answer.body)["error"]["param"], "suffix");
}

}  // namespace
}  // namespace quern::test
