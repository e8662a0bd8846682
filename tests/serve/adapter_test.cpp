// A LoRA adapter under a name of its own, over the socket, against the reference's logits.
#include <cmath>
#include <thread>

#include "formats/safetensors.h"
#include "serve/test_server.h"

namespace quern::test {
namespace {

// Log-probability of each id but the first, by the definition, from logits [tokens, vocab].
std::vector<double> expected_logprobs(std::span<const float> logits, const std::vector<int>& ids) {
  const size_t vocab = logits.size() / ids.size();
  std::vector<double> out;
  for (size_t i = 0; i + 1 < ids.size(); ++i) {
    const auto row = logits.subspan(i * vocab, vocab);
    double sum = 0;
    for (const float x : row) sum += std::exp(double{x});
    out.push_back(row[static_cast<size_t>(ids[i + 1])] - std::log(sum));
  }
  return out;
}

fs::path adapter_fixture() {
  const fs::path own = source("tests/fixtures/models/qwen1-lora");
  return fs::exists(own) ? own : shared("fixtures/models/qwen1-lora");
}

// The fixture's model with a tokenizer, in `folder`, as "base".
serve::ServeOptions base_options(const TempFolder& folder) {
  fs::copy(adapter_fixture(), folder.path() / "model", fs::copy_options::recursive);
  folder.write("model/tokenizer.json", byte_tokenizer_json());
  serve::ServeOptions options = tiny_options();
  options.models[0].name = "base";
  options.models[0].folder = folder.path() / "model";
  return options;
}

class AdapterLogits : public testing::TestWithParam<bool> {};

// Over the base's own weights, or with weights of its own.
TEST_P(AdapterLogits, EachNameGivesTheReferences) {
  const fs::path folder = adapter_fixture();
  QUERN_NEED(folder);
  const TempFolder temporary;
  serve::ServeOptions options = base_options(temporary);
  serve::ModelSource adapted = options.models[0];
  adapted.name = "adapted";
  if (GetParam()) {
    adapted.base = "base";
    adapted.adapter = adapted.folder / "adapter";
  } else {
    adapted.options.adapters = {adapted.folder / "adapter"};
  }
  options.models.push_back(adapted);
  TestServer server(std::move(options));
  EXPECT_EQ(server.get("/v1/models").parsed()["data"].size(), 2u);

  const SafetensorsFile golden(folder / "golden.safetensors");
  const auto ids = to_integers(golden.at("input_ids"), "input_ids");
  const size_t length = ids.size() / 2;
  for (const auto& [name, tensor] :
       {std::pair{"base", "base.logits"}, std::pair{"adapted", "adapter.logits"}}) {
    const std::vector<float> logits = to_floats(golden.at(tensor), tensor);
    for (size_t row = 0; row < 2; ++row) {
      const auto first = ids.begin() + static_cast<int64_t>(row * length);
      const std::vector<int> prompt(first, first + static_cast<int64_t>(length));
      const Answer answer = server.post("/v1/completions", {{"model", name},
                                                            {"prompt", prompt},
                                                            {"max_tokens", 0},
                                                            {"echo", true},
                                                            {"logprobs", 0}});
      ASSERT_EQ(answer.status, 200) << answer.body;
      const json got = answer.parsed()["choices"][0]["logprobs"]["token_logprobs"];
      const auto expected = expected_logprobs(
          std::span(logits).subspan(row * logits.size() / 2, logits.size() / 2), prompt);
      ASSERT_EQ(got.size(), length);
      for (size_t i = 1; i < length; ++i) {
        EXPECT_NEAR(got[i].get<double>(), expected[i - 1], 4e-3) << name << " " << row << " " << i;
      }
    }
  }
  // Nobody takes over what the other computed: the keys are not the same.
  const json body = {{"prompt", json(std::vector<int>(150, 7))}, {"max_tokens", 1}};
  for (const char* name : {"base", "adapted"}) {
    json named = body;
    named["model"] = name;
    const json usage = server.post("/v1/completions", named).parsed()["usage"];
    EXPECT_EQ(usage["prompt_tokens_details"]["cached_tokens"], 0) << name;
  }
}
INSTANTIATE_TEST_SUITE_P(, AdapterLogits, testing::Bool(), [](const auto& test) {
  return test.param ? "OverSharedWeights" : "WithWeightsOfItsOwn";
});

TEST(Adapters, ComeAndGoWhileServing) {
  QUERN_NEED(adapter_fixture());
  const TempFolder folder;
  serve::ServeOptions options = base_options(folder);
  const std::string adapter = (options.models[0].folder / "adapter").string();
  options.api_key_file =
      folder.write("keys", "an-admins-key-of-length admin\na-users-key-of-length\n");
  TestServer server(std::move(options));
  const Headers admin = {{"Authorization", "Bearer an-admins-key-of-length"}};
  const Headers user = {{"Authorization", "Bearer a-users-key-of-length"}};
  const auto erase = [&](const std::string& name, const Headers& headers) {
    Client client = server.connect();
    client.send(request_text("DELETE", "/admin/adapters/" + name, "", headers));
    return client.answer();
  };
  const auto answer = [&](const std::string& model) {
    return server.post("/v1/completions",
                       {{"model", model},
                        {"prompt", json(std::vector<int>(100, 7))},
                        {"max_tokens", 8},
                        {"temperature", 0},
                        {"logprobs", 0}},
                       user);
  };
  const json wanted = {{"name", "tuned"}, {"path", adapter}};
  for (const Headers& headers : {user, Headers{}}) {
    const int status = headers.empty() ? 401 : 403;
    EXPECT_EQ(server.post("/admin/adapters", wanted, headers).status, status);
    EXPECT_EQ(server.get("/admin/adapters", headers).status, status);
    EXPECT_EQ(erase("tuned", headers).status, status);
  }
  EXPECT_EQ(answer("tuned").status, 404);
  const Answer added = server.post("/admin/adapters", wanted, admin);
  ASSERT_EQ(added.status, 200) << added.body;
  const json entry = added.parsed()["data"][0];
  EXPECT_EQ(entry["name"], "tuned");
  EXPECT_EQ(entry["model"], "base");
  EXPECT_EQ(entry["loaded"], true);
  EXPECT_GT(entry["bytes"], 0);
  const json models = server.get("/v1/models", user).parsed()["data"];
  ASSERT_EQ(models.size(), 2u);
  EXPECT_EQ(models[1]["parent"], "base");

  const json base = answer("base").parsed(), tuned = answer("tuned").parsed();
  EXPECT_EQ(tuned["model"], "tuned");
  EXPECT_NE(base["choices"][0]["logprobs"]["token_logprobs"],
            tuned["choices"][0]["logprobs"]["token_logprobs"]);
  // Asked at once, each answers what it answers alone.
  std::vector<std::thread> clients;
  for (int i = 0; i < 8; ++i) {
    clients.emplace_back([&, i] {
      const json& alone = i % 2 == 0 ? base : tuned;
      const Answer one = answer(i % 2 == 0 ? "base" : "tuned");
      EXPECT_EQ(one.parsed()["choices"], alone["choices"]);
    });
  }
  for (std::thread& client : clients) client.join();

  EXPECT_EQ(server.post("/admin/adapters", wanted, admin).status, 409);
  const auto refused = [&](const json& body, int status, const std::string& part) {
    const Answer got = server.post("/admin/adapters", body, admin);
    EXPECT_EQ(got.status, status) << got.body;
    EXPECT_NE(got.body.find(part), got.body.npos) << got.body;
  };
  refused({{"name", "x"}}, 400, "path");
  refused({{"name", ""}, {"path", adapter}}, 400, "name");
  refused({{"name", "x"}, {"path", adapter}, {"rank", 3}}, 400, "rank");
  refused({{"name", "x"}, {"path", adapter}, {"model", "nobody"}}, 404, "nobody");
  refused({{"name", "x"}, {"path", (folder.path() / "nothing").string()}}, 400, "nothing");
  EXPECT_EQ(server.get("/v1/models", user).parsed()["data"].size(), 2u);

  EXPECT_EQ(erase("base", admin).status, 409);
  EXPECT_EQ(erase("nobody", admin).status, 404);
  EXPECT_EQ(erase("tuned", admin).status, 200);
  EXPECT_EQ(answer("tuned").status, 404);
  EXPECT_EQ(answer("base").parsed()["choices"], base["choices"]);
  EXPECT_EQ(server.post("/admin/adapters", wanted, admin).status, 200);
  EXPECT_EQ(answer("tuned").parsed()["choices"], tuned["choices"]);
}

}  // namespace
}  // namespace quern::test
