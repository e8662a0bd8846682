// The grammars of recipes/: each makes what its readers read, and the benchmark among them has nothing
// that training saw.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <set>

#include "data/conversations.h"
#include "data/stages/words.h"
#include "data/synthetic/text_grammar.h"
#include "records.h"
#include "support/support.h"

namespace quern {
namespace {

using nlohmann::ordered_json;

std::vector<fs::path> grammars(const std::string& folder, bool suite) {
  std::vector<fs::path> out;
  for (const auto& entry : fs::directory_iterator(test::source("recipes/" + folder))) {
    const std::string name = entry.path().filename().string();
    if (entry.path().extension() != ".toml" || name.starts_with("suite") != suite) continue;
    if (read_file(entry.path()).find("\n[record]") != std::string::npos)
      out.push_back(entry.path());
  }
  std::ranges::sort(out);
  return out;
}

std::set<std::vector<uint64_t>> runs_of(std::string_view text, size_t length) {
  std::vector<uint64_t> words;
  shingle_words(text, words);
  std::set<std::vector<uint64_t>> out;
  for (size_t i = 0; i + length <= words.size(); ++i) {
    const auto begin = words.begin() + static_cast<ptrdiff_t>(i);
    out.insert({begin, begin + static_cast<ptrdiff_t>(length)});
  }
  return out;
}

TEST(Recipes, MakeConversationsThatTrainingReads) {
  size_t files = 0;
  for (const char* folder : {"service", "security"}) {
    for (const fs::path& file : grammars(folder, false)) {
      const TextGrammar grammar = TextGrammar::load(file);
      ++files;
      for (uint64_t i = 0; i < 12; ++i) {
        ConversationForm form = ConversationForm::Auto;
        const OrderedJson record = OrderedJson::parse(grammar.record(5, i), file.string());
        const Conversation conversation = read_conversation(record, form, file.string());
        EXPECT_GE(conversation.messages.size(), 2u);
        // What is called is offered, and its arguments are the tool's own.
        for (const Message& message : conversation.messages) {
          for (const ToolCall& call : message.tool_calls) {
            bool offered = false;
            for (const OrderedJson& tool : conversation.tools.items) {
              const OrderedJson& function = *tool.find("function");
              if (function.find("name")->text != call.name) continue;
              offered = true;
              std::set<std::string> known;
              const OrderedJson& parameters = *function.find("parameters");
              if (parameters.is_array()) {
                for (const OrderedJson& one : parameters.items)
                  known.insert(one.find("name")->text);
              } else {
                for (const auto& [name, one] : parameters.find("properties")->members) {
                  known.insert(name);
                }
              }
              for (const auto& [name, value] : call.arguments.members) {
                EXPECT_TRUE(known.contains(name)) << file << " " << call.name << " " << name;
              }
            }
            EXPECT_TRUE(offered) << file << " " << call.name;
          }
        }
      }
    }
  }
  EXPECT_GE(files, 12u);
}

TEST(Recipes, TheBenchmarkHasNothingThatTrainingSaw) {
  std::set<std::string> trained;
  std::set<std::vector<uint64_t>> seen;
  for (const fs::path& file : grammars("service", false)) {
    const TextGrammar grammar = TextGrammar::load(file);
    for (uint64_t i = 0; i < 80; ++i) {
      const auto record = ordered_json::parse(grammar.record(1, i));
      for (const auto& tool : record.at("tools")) trained.insert(tool["function"]["name"]);
      for (const auto& message : record.at("messages")) {
        if (!message.contains("content")) continue;
        seen.merge(runs_of(message["content"].get<std::string>(), 13));
      }
    }
  }
  EXPECT_GT(trained.size(), 300u);
  std::set<std::string> plugins;
  const std::vector<fs::path> suite = grammars("service", true);
  EXPECT_EQ(suite.size(), 8u);
  for (const fs::path& file : suite) {
    const TextGrammar grammar = TextGrammar::load(file);
    for (uint64_t i = 0; i < 130; ++i) {
      const auto record = ordered_json::parse(grammar.record(9, i));
      const size_t tools = record["tools"].size();
      EXPECT_TRUE(tools >= 2 && tools <= 5) << file;
      const bool positive = record["kind"] == "easy" || record["kind"] == "hard";
      EXPECT_EQ(record.contains("gold"), positive) << file;
      bool offered = false;
      for (const auto& tool : record["tools"]) {
        const std::string name = tool["name_for_model"];
        plugins.insert(name);
        EXPECT_FALSE(trained.contains(name)) << name;
        if (!positive || record["gold"]["action"] != name) continue;
        offered = true;
        // Every parameter has its value, and nothing else.
        std::set<std::string> wanted, given;
        for (const auto& one : tool["parameters"]) wanted.insert(one["name"]);
        for (const auto& [key, value] : record["gold"]["action_input"].items()) given.insert(key);
        EXPECT_EQ(given, wanted) << file;
      }
      EXPECT_EQ(offered, positive) << file;
      for (const auto& run : runs_of(record["query"].get<std::string>(), 13)) {
        EXPECT_FALSE(seen.contains(run)) << record["query"];
      }
    }
  }
  EXPECT_GE(plugins.size(), 60u);
}

TEST(Recipes, NoRequestOfASafetyBenchmarkIsTrainedOn) {
  const fs::path file = test::shared("data/safety/redteam_prompts.jsonl");
  QUERN_NEED(file);
  std::set<std::vector<uint64_t>> benchmark;
  std::set<std::string> prompts;
  for (const OrderedJson& record : test::read_records(file)) {
    const std::string& prompt = record.find("prompt")->text;
    prompts.insert(prompt);
    benchmark.merge(runs_of(prompt, 13));
  }
  ASSERT_GT(prompts.size(), 3000u);
  for (const fs::path& grammar_file : grammars("security", false)) {
    const TextGrammar grammar = TextGrammar::load(grammar_file);
    for (uint64_t i = 0; i < 600; ++i) {
      const auto record = ordered_json::parse(grammar.record(2, i));
      const std::string prompt = record["messages"][0]["content"];
      EXPECT_FALSE(prompts.contains(prompt)) << prompt;
      for (const auto& run : runs_of(prompt, 13)) EXPECT_FALSE(benchmark.contains(run)) << prompt;
    }
  }
}

}  // namespace
}  // namespace quern
