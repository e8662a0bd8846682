// Commands as users run them: what they print, write and refuse.
#include <unistd.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "cli/checkpoint.h"
#include "cli/program.h"
#include "core/file.h"
#include "core/json.h"
#include "formats/safetensors.h"

namespace quern::test {
namespace {

fs::path case_folder(const std::string& name) { return source("tests/fixtures/models") / name; }

std::vector<int64_t> integers(const Json& list) {
  std::vector<int64_t> values;
  for (const Json& value : list.items()) values.push_back(value.integer());
  return values;
}

std::string json_list(const std::vector<int64_t>& ids) { return dump(nlohmann::json(ids)); }

std::vector<std::string> lines(const std::string& text) {
  std::vector<std::string> all;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) all.push_back(line);
  return all;
}

// A golden case of the reference: its ids and tensors.
struct Case {
  explicit Case(const std::string& name)
      : folder(case_folder(name)), file(folder / "golden.safetensors") {}
  std::vector<int64_t> ids(const std::string& tensor) const {
    return to_integers(file.at(tensor), tensor);
  }
  std::vector<float> floats(const std::string& tensor) const {
    return to_floats(file.at(tensor), tensor);
  }
  Tolerance tolerance(const std::string& tensor) const {
    const Json entry = Json::parse_file((folder / "case.json").string()).at("tensors").at(tensor);
    return {entry.number_or("atol", 0), entry.number_or("rtol", 0)};
  }
  fs::path folder;
  SafetensorsFile file;
};

// --- generate

TEST(Generate, PrintsThePublishedStoryWordForWord) {
  const fs::path model = shared("fixtures/models/stories260k");
  QUERN_NEED(model);
  const Json golden = Json::parse_file((model / "case.json").string());
  const Outcome outcome = quern({"generate", model.string(), "--greedy", "-n", "256"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(outcome.out, golden.at("greedy_text").string() + "\n");
}

TEST(Generate, ContinuesIdsGreedilyAsTheReferenceDoes) {
  const Case golden("qwen1-new");
  const TempFolder folder;
  for (const std::string prompt : {"prompt0", "prompt1", "prompt2", "prompt3"}) {
    const auto input = golden.ids(prompt + ".input_ids");
    const auto expected = golden.ids(prompt + ".greedy");
    const fs::path file = folder.write("ids.json", json_list(input));
    const Json line =
        parsed(quern({"generate", golden.folder.string(), "--ids-file", file.string(), "--greedy",
                      "--ignore-eos", "--json", "-n", std::to_string(expected.size())}));
    EXPECT_EQ(integers(line.at("ids")), expected) << prompt;
    EXPECT_FALSE(line.has("text"));  // the case has no tokenizer
    EXPECT_EQ(line.at("finish_reason").string(), "length");
  }
}

TEST(Generate, AListOfListsIsABatchWithALineForEach) {
  const Case golden("qwen1-new");
  const TempFolder folder;
  const fs::path file =
      folder.write("ids.json", "[" + json_list(golden.ids("prompt1.input_ids")) + "," +
                                   json_list(golden.ids("prompt3.input_ids")) + "]");
  const Outcome outcome = quern({"generate", golden.folder.string(), "--ids-file", file.string(),
                                 "--greedy", "--ignore-eos", "--json", "-n", "32"});
  const auto output = lines(outcome.out);
  ASSERT_EQ(output.size(), 2u) << outcome.err;
  EXPECT_EQ(integers(Json::parse(output[0], "line 0").at("ids")), golden.ids("prompt1.greedy"));
  EXPECT_EQ(integers(Json::parse(output[1], "line 1").at("ids")), golden.ids("prompt3.greedy"));
}

TEST(Generate, TheSameSeedGivesTheSameTextAndSamplesDiffer) {
  const TempFolder folder;
  const std::string model = tiny_checkpoint(folder).string();
  const std::vector<std::string> arguments = {"generate", model, "abc",       "--seed", "5",
                                              "-n",       "12",  "--samples", "2",      "--json"};
  const auto ids_of = [&](const std::vector<std::string>& with) {
    std::vector<std::vector<int64_t>> ids;
    for (const std::string& line : lines(quern(with).out)) {
      ids.push_back(integers(Json::parse(line, "line").at("ids")));
    }
    return ids;
  };
  const auto first = ids_of(arguments);
  ASSERT_EQ(first.size(), 2u);
  EXPECT_NE(first[0], first[1]);
  EXPECT_EQ(ids_of(arguments), first);
}

TEST(Generate, LogprobsAreThoseOfTheLikeliestFirst) {
  const TempFolder folder;
  const std::string model = tiny_checkpoint(folder).string();
  const Json line =
      parsed(quern({"generate", model, "abc", "--greedy", "-n", "3", "--logprobs", "4", "--json"}));
  ASSERT_EQ(line.at("logprobs").size(), line.at("ids").size());
  for (const Json& token : line.at("logprobs").items()) {
    ASSERT_EQ(token.at("top").size(), 4u);
    EXPECT_EQ(token.at("top")[0].at("id").integer(), token.at("id").integer());  // greedy
    for (size_t i = 1; i < 4; ++i) {
      EXPECT_LE(token.at("top")[i].number_or("logprob", 1),
                token.at("top")[i - 1].number_or("logprob", 1));
    }
  }
}

TEST(Generate, LogprobsAreAlsoForPeople) {
  const TempFolder folder;
  const std::string model = tiny_checkpoint(folder).string();
  const std::vector<std::string> words = {"generate", model, "abc",        "--greedy",
                                          "-n",       "3",   "--logprobs", "2"};
  std::vector<std::string> as_json = words;
  as_json.push_back("--json");
  const Json expected = parsed(quern(as_json));
  const auto text = lines(quern(words).out);
  ASSERT_GE(text.size(), 4u);
  const size_t first = text.size() - 3;
  EXPECT_NE(text[first - 1].find("logprob"), std::string::npos) << text[first - 1];
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_NEAR(std::stod(text[first + i]), expected.at("logprobs")[i].number_or("logprob", 1),
                1e-4);
  }
}

TEST(Generate, WhatComesThroughAPipeIsThePrompt) {
  const TempFolder folder;
  const std::string model = tiny_checkpoint(folder).string();
  const auto ids = [&](const std::vector<std::string>& more, const std::string& input) {
    std::vector<std::string> words = {"generate", model, "--greedy", "-n", "6", "--json"};
    words.insert(words.end(), more.begin(), more.end());
    return integers(parsed(quern(words, {.input = input})).at("ids"));
  };
  const auto expected = ids({"some text"}, "");
  EXPECT_EQ(ids({}, "some text\n"), expected);
  EXPECT_EQ(ids({}, "some text"), expected);
  EXPECT_EQ(ids({"some text"}, "what an argument goes before"), expected);
  EXPECT_NE(ids({}, ""), expected);
}

TEST(Decode, TurnsIdsBackIntoText) {
  const TempFolder folder;
  const std::string vocabulary = folder.write("bytes.tiktoken", byte_vocabulary()).string();
  EXPECT_EQ(quern({"decode", vocabulary, "72", "105"}).out, "Hi\n");
  EXPECT_EQ(quern({"decode", vocabulary}, {.input = "[72, 105]\n"}).out, "Hi\n");
  const fs::path lists = folder.write("ids.json", "[[72], [105]]");
  EXPECT_EQ(quern({"decode", vocabulary, "--ids-file", lists.string(), "--json"}).out,
            "{\"ids\":[72],\"text\":\"H\"}\n{\"ids\":[105],\"text\":\"i\"}\n");
  EXPECT_EQ(quern({"decode", vocabulary, "1e3"}).code, 2);
  const Outcome beyond = quern({"decode", vocabulary, "99999"});
  EXPECT_EQ(beyond.code, 3);
  EXPECT_NE(beyond.err.find("99999 has no token"), std::string::npos) << beyond.err;
}

// Every command that writes, with a file or a folder in its way.
TEST(Outputs, AreNeverOverwrittenWithoutForce) {
  const TempFolder folder;
  const std::string model = tiny_checkpoint(folder).string();
  folder.write("ids.json", "[1, 2, 3]");
  folder.write("texts/en.txt", "Some text.\n");
  folder.write("book.txt", "All happy families are alike.");
  folder.write("words.txt", "hello\t3\n");
  folder.write("there/mine.txt", "mine");
  folder.write("there.bin", "mine");
  folder.write("there.svg", "mine");
  const std::vector<std::vector<std::string>> commands = {
      {"logits", model, "--ids-file", "ids.json", "--out", "there.bin"},
      {"tokenize", model, "text", "--out", "there.bin"},
      {"tokenizer", "expand", "words.txt", "--tokenizer", "bytes.tiktoken", "--out", "there.bin"},
      {"tokenizer", "train", "book.txt", "--vocab-size", "300", "--out", "there"},
      {"tokenizer", "compression", "--data", "texts", "--baseline", "bytes.tiktoken", "--figure",
       "there.svg"},
      {"data", "pack", "book.txt", "--tokenizer", "bytes.tiktoken", "--out", "there"},
      {"init", "there", "--preset", "tiny"},
      {"quantize", model, "there", "--to", "int8"},
      {"compare", model, model, "--data", "book.txt", "--plot", "there.svg"}};
  for (std::vector<std::string> words : commands) {
    const Outcome refused = quern(words, {.folder = folder.path()});
    EXPECT_EQ(refused.code, 2) << words[0] << ": " << refused.err;
    EXPECT_NE(refused.err.find("exists already"), std::string::npos) << refused.err;
    EXPECT_TRUE(fs::exists(folder.path() / "there/mine.txt")) << words[0];
    EXPECT_EQ(read_file(folder.path() / "there.bin"), "mine") << words[0];
    words.push_back("--force");
    const Outcome forced = quern(words, {.folder = folder.path()});
    EXPECT_EQ(forced.code, 0) << words[0] << ": " << forced.err;
    // As it was, for the next one.
    fs::remove_all(folder.path() / "there");
    folder.write("there/mine.txt", "mine");
    folder.write("there.bin", "mine");
    folder.write("there.svg", "mine");
  }
  for (const auto& entry : fs::directory_iterator(folder.path())) {
    EXPECT_EQ(entry.path().string().find(".new"), std::string::npos) << entry.path();
  }
  // Folders within are nobody's to take away.
  folder.write("there/deep/file", "mine");
  const Outcome deep =
      quern({"init", "there", "--preset", "tiny", "--force"}, {.folder = folder.path()});
  EXPECT_EQ(deep.code, 2);
  EXPECT_NE(deep.err.find("holds folders"), std::string::npos) << deep.err;
}

TEST(Outputs, WhereTheyMayNotBeWrittenIsABadInput) {
  if (::geteuid() == 0) GTEST_SKIP() << "skipped: root may write anywhere";
  const TempFolder folder;
  const std::string model = tiny_checkpoint(folder).string();
  fs::permissions(folder.path() / "model", fs::perms::owner_read | fs::perms::owner_exec);
  EXPECT_EQ(quern({"tokenize", model, "text", "--out", model + "/x"}).code, 3);
  fs::permissions(folder.path() / "model", fs::perms::owner_all);
}

TEST(Errors, AFileWhereAFolderIsWantedIsNamedAsOne) {
  const TempFolder folder;
  const std::string model = tiny_checkpoint(folder).string();
  const Outcome file = quern({"generate", model + "/config.json", "a"});
  EXPECT_EQ(file.code, 3);
  EXPECT_NE(file.err.find("config.json: is a file, expected a checkpoint's folder"),
            std::string::npos)
      << file.err;
  const Outcome missing = quern({"generate", model + "/no", "a"});
  EXPECT_EQ(missing.code, 3);
  EXPECT_NE(missing.err.find("there is no such"), std::string::npos) << missing.err;
}

TEST(Generate, ReadsThePromptFromFileAndStandardInputAlike) {
  const TempFolder folder;
  const std::string model = tiny_checkpoint(folder).string();
  const fs::path file = folder.write("prompt.txt", "some text");
  const auto generate = [&](const std::vector<std::string>& prompt) {
    std::vector<std::string> arguments = {"generate", model, "--greedy", "-n", "6", "--json"};
    arguments.insert(arguments.end(), prompt.begin(), prompt.end());
    return integers(
        parsed(quern(arguments, {.input = "some text", .variables = {}, .folder = {}})).at("ids"));
  };
  const auto expected = generate({"some text"});
  EXPECT_EQ(generate({"--prompt-file", file.string()}), expected);
  EXPECT_EQ(generate({"-"}), expected);
}

TEST(Generate, APromptLongerThanTheContextIsRefusedWithBothCountsOrCut) {
  const TempFolder folder;
  const std::string model = tiny_checkpoint(folder).string();
  const std::vector<std::string> arguments = {
      "generate", model, std::string(100, 'a'), "--context", "64", "-n", "4", "--greedy", "--json"};
  const Outcome refused = quern(arguments);
  EXPECT_EQ(refused.code, 3);
  EXPECT_NE(refused.err.find("the prompt has 100 tokens, the context 64"), refused.err.npos)
      << refused.err;
  std::vector<std::string> with = arguments;
  with.push_back("--truncate");
  EXPECT_LT(parsed(quern(with)).integer_or("prompt_tokens", 1000), 64);
}

TEST(Generate, BadIdsAreNamedWithFileAndPlace) {
  const TempFolder folder;
  const std::string model = tiny_checkpoint(folder).string();
  const std::pair<std::string, std::string> cases[] = {
      {"[1, 2, 1024]", "1024"}, {"[1, -1]", "-1"},          {"[]", "empty"},
      {"{}", "list"},           {"[1, 2.5]", "[1]"},        {"[[1], []]", "empty"},
      {"[1, \"2\"]", "[1]"},    {"[1, 4294967297]", "[1]"}, {"[1", "ids.json"}};
  for (const auto& [text, part] : cases) {
    const fs::path file = folder.write("ids.json", text);
    const Outcome outcome = quern({"generate", model, "--ids-file", file.string()});
    EXPECT_EQ(outcome.code, 3) << text;
    EXPECT_EQ(lines(outcome.err).size(), 1u) << outcome.err;
    EXPECT_NE(outcome.err.find("ids.json"), std::string::npos) << text << ": " << outcome.err;
    EXPECT_NE(outcome.err.find(part), std::string::npos) << text << ": " << outcome.err;
  }
}

TEST(Generate, SamplingOutOfRangeIsMisuse) {
  const TempFolder folder;
  const std::string model = tiny_checkpoint(folder).string();
  const std::vector<std::vector<std::string>> cases = {{"--temperature", "-1"},
                                                       {"--top-p", "1.5"},
                                                       {"--min-p", "2"},
                                                       {"--top-k", "-1"},
                                                       {"--repetition-penalty", "0"},
                                                       {"--logit-bias", "x:1"},
                                                       {"--logit-bias", "99999:1"},
                                                       {"--stop", ""}};
  for (const auto& options : cases) {
    std::vector<std::string> arguments = {"generate", model, "a", "-n", "1"};
    arguments.insert(arguments.end(), options.begin(), options.end());
    const Outcome outcome = quern(arguments);
    EXPECT_EQ(outcome.code, 2) << options[0] << " " << options[1] << ": " << outcome.err;
    EXPECT_EQ(lines(outcome.err).size(), 1u) << outcome.err;
  }
}

// --- tokenize

TEST(Tokenize, JsonlAnswersEveryGoldenLine) {
  const fs::path vocabulary = shared("fixtures/tokenizer/qwen.tiktoken");
  QUERN_NEED(vocabulary);
  for (const char* name : {"encode.jsonl", "chatml.jsonl", "special.jsonl"}) {
    std::ifstream file(shared("fixtures/tokenizer/" + std::string(name)));
    std::string requests;
    std::vector<std::vector<int64_t>> expected;
    for (std::string line; std::getline(file, line);) {
      const Json request = Json::parse(line, name);
      if (!request.has("ids")) continue;  // a refusal, which would end the run
      requests += line + "\n";
      expected.push_back(integers(request.at("ids")));
    }
    const Outcome outcome = quern({"tokenize", vocabulary.string(), "--jsonl"},
                                  {.input = requests, .variables = {}, .folder = {}});
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    const auto answers = lines(outcome.out);
    ASSERT_EQ(answers.size(), expected.size()) << name;
    for (size_t i = 0; i < answers.size(); ++i) {
      EXPECT_EQ(integers(Json::parse(answers[i], "answer").at("ids")), expected[i])
          << name << " line " << i + 1;
    }
  }
}

TEST(Tokenize, LoneSurrogatesInJsonBecomeReplacementCharacters) {
  const fs::path vocabulary = shared("fixtures/tokenizer/qwen.tiktoken");
  QUERN_NEED(vocabulary);
  std::ifstream file(shared("fixtures/tokenizer/surrogates.jsonl"));
  std::string requests;
  std::vector<std::vector<int64_t>> expected;
  for (std::string line; std::getline(file, line);) {
    const Json request = Json::parse(line, "surrogates.jsonl");
    requests += "{\"text\": \"";
    for (const int64_t unit : integers(request.at("utf16"))) {
      char escape[8];
      std::snprintf(escape, sizeof escape, "\\u%04x", static_cast<unsigned>(unit));
      requests += escape;
    }
    requests += "\"}\n";
    expected.push_back(integers(request.at("ids")));
  }
  const Outcome outcome = quern({"tokenize", vocabulary.string(), "--jsonl"},
                                {.input = requests, .variables = {}, .folder = {}});
  const auto answers = lines(outcome.out);
  ASSERT_EQ(answers.size(), expected.size()) << outcome.err;
  for (size_t i = 0; i < answers.size(); ++i) {
    EXPECT_EQ(integers(Json::parse(answers[i], "answer").at("ids")), expected[i]) << "line " << i;
  }
}

TEST(Tokenize, ABadLineIsAnsweredByItsErrorAndTheNextIsRead) {
  const TempFolder folder;
  const std::string vocabulary = folder.write("bytes.tiktoken", byte_vocabulary()).string();
  for (const std::string bad :
       {"{", "[]", "{}", "{\"text\": 3}", "{\"text\": \"a\", \"allowed_special\": \"some\"}",
        "{\"messages\": [{\"role\": \"user\"}]}"}) {
    const Outcome outcome = quern({"tokenize", vocabulary, "--jsonl"},
                                  {.input = "{\"text\": \"a\"}\n" + bad + "\n{\"ids\": [97, 98]}\n",
                                   .variables = {},
                                   .folder = {}});
    EXPECT_EQ(outcome.code, 0) << bad;
    const auto answers = lines(outcome.out);
    ASSERT_EQ(answers.size(), 3u) << outcome.out;
    EXPECT_EQ(answers[0], "{\"ids\":[97]}") << bad;
    const std::string error = Json::parse(answers[1], "answer").at("error").string();
    EXPECT_NE(error.find("standard input: line 2"), std::string::npos) << error;
    EXPECT_EQ(answers[2], "{\"text\":\"ab\"}") << bad;
  }
}

TEST(Decode, IdsBecomeText) {
  const TempFolder folder;
  const std::string vocabulary = folder.write("bytes.tiktoken", byte_vocabulary()).string();
  EXPECT_EQ(quern({"decode", vocabulary, "97", "0xC3"}).code, 2);
  EXPECT_EQ(quern({"decode", vocabulary, "97", "195", "169"}).out, "aé\n");
  EXPECT_EQ(quern({"decode", vocabulary}, {.input = "[97, 98]", .variables = {}, .folder = {}}).out,
            "ab\n");
  EXPECT_EQ(quern({"decode", vocabulary, "97", "256", "--skip-special-tokens"}).out, "a\n");
  EXPECT_EQ(quern({"decode", vocabulary, "99999"}).code, 3);
}

TEST(Tokenize, OffsetsCountBytes) {
  const TempFolder folder;
  const std::string vocabulary = folder.write("bytes.tiktoken", byte_vocabulary()).string();
  const Json answer = parsed(quern({"tokenize", vocabulary, "aé", "--json"}));
  EXPECT_EQ(integers(answer.at("ids")), (std::vector<int64_t>{97, 0xC3, 0xA9}));
  EXPECT_EQ(integers(answer.at("pieces")[2].at("offsets")), (std::vector<int64_t>{2, 3}));
}

TEST(Tokenize, SpecialNamesAreTextUnlessAskedFor) {
  const TempFolder folder;
  const std::string vocabulary = folder.write("bytes.tiktoken", byte_vocabulary()).string();
  const std::string name = "<|endoftext|>";
  EXPECT_EQ(parsed(quern({"tokenize", vocabulary, name, "--json"})).at("ids").size(), name.size());
  EXPECT_EQ(parsed(quern({"tokenize", vocabulary, name, "--json", "--specials"})).at("ids").size(),
            1u);
}

// --- logits

class Logits : public ::testing::TestWithParam<const char*> {};

TEST_P(Logits, AgreeWithTheReferenceInOneCallAndThroughTheCache) {
  const Case golden(GetParam());
  const TempFolder folder;
  const auto ids = golden.ids("prompt2.input_ids");
  const fs::path input = folder.write("ids.json", json_list(ids));
  for (const std::string prefill : {"0", "1", "5"}) {
    const fs::path out = folder.path() / ("logits-" + prefill + ".safetensors");
    const Outcome outcome = quern({"logits", golden.folder.string(), "--ids-file", input.string(),
                                   "--prefill", prefill, "--out", out.string()});
    ASSERT_EQ(outcome.code, 0) << outcome.err;
    const SafetensorsFile file(out);
    const ConstTensorView logits = file.at("logits");
    EXPECT_EQ(logits.dtype, DType::F32);
    ASSERT_EQ(logits.shape[0], static_cast<int64_t>(ids.size()));
    check_close(to_floats(logits, "logits"), golden.floats("prompt2.logits"),
                golden.tolerance("prompt2.logits"), prefill);
  }
}

INSTANTIATE_TEST_SUITE_P(Command, Logits,
                         ::testing::Values("qwen1-new", "qwen1-odd", "qwen1-bf16", "qwen2",
                                           "llama-gqa"));

TEST(LogitsCommand, RefusesSeveralListsAndLeavesNoFile) {
  const TempFolder folder;
  const std::string model = tiny_checkpoint(folder).string();
  const fs::path ids = folder.write("ids.json", "[[1], [2]]");
  const fs::path out = folder.path() / "out.safetensors";
  const Outcome outcome =
      quern({"logits", model, "--ids-file", ids.string(), "--out", out.string()});
  EXPECT_EQ(outcome.code, 3);
  EXPECT_FALSE(fs::exists(out));
}

// --- perplexity

TEST(PerplexityCommand, OfAUniformModelIsTheSizeOfTheVocabulary) {
  // With an output layer of zeros every token has the same probability.
  const TempFolder folder;
  const fs::path model = tiny_checkpoint(folder);
  fill_tensor(model / "model.safetensors", "lm_head.weight", 0);
  const Json result =
      parsed(quern({"perplexity", model.string(), "-", "--length", "64", "--json"},
                   {.input = std::string(500, 'x'), .variables = {}, .folder = {}}));
  EXPECT_NEAR(result.at("results")[0].number_or("perplexity", 0), 1024, 0.5);
}

}  // namespace
}  // namespace quern::test
