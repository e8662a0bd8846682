#include "data/conversations.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>

#include "data/chat_labels.h"
#include "support/support.h"
#include "text/load.h"

namespace quern {
namespace {

Conversation read(std::string json, ConversationForm form = ConversationForm::Auto) {
  std::replace(json.begin(), json.end(), '\'', '"');
  return read_conversation(OrderedJson::parse(json, "line"), form, "chats.jsonl: line 3");
}

TEST(Conversations, OneReaderForFourForms) {
  const auto openai = read(
      "{'messages': [{'role': 'user', 'content': 'a'},"
      "{'role': 'assistant', 'content': 'b'}], 'tools': []}");
  const auto sharegpt = read(
      "{'conversations': [{'from': 'human', 'value': 'a'},"
      "{'from': 'gpt', 'value': 'b'}], 'system': '', 'tools': ''}");
  const auto release = read(
      "{'conversations': [{'from': 'user', 'value': 'a'},"
      "{'from': 'assistant', 'value': 'b'}], 'id': 'x'}");
  const auto alpaca = read("{'instruction': 'a', 'input': '', 'output': 'b'}");
  for (const Conversation& one : {openai, sharegpt, release, alpaca}) {
    ASSERT_EQ(one.messages.size(), 2U);
    EXPECT_EQ(one.messages[0].role, ChatRole::User);
    EXPECT_EQ(one.messages[0].text(), "a");
    EXPECT_EQ(one.messages[1].text(), "b");
    EXPECT_TRUE(one.tools.is_null());
  }
  const auto history = read(
      "{'instruction': 'c', 'input': 'd', 'output': 'e', 'system': 's',"
      "'history': [['a', 'b']]}");
  ASSERT_EQ(history.messages.size(), 5U);
  EXPECT_EQ(history.messages[0].role, ChatRole::System);
  EXPECT_EQ(history.messages[3].text(), "c\nd");
  const auto calls = read(
      "{'conversations': [{'from': 'human', 'value': 'a'}, {'from': 'function_call', 'value': "
      "'{\\u0022name\\u0022: \\u0022f\\u0022, \\u0022arguments\\u0022: {}}'},"
      "{'from': 'observation', 'value': '2'}, {'from': 'gpt', 'value': 'b'}]}");
  ASSERT_EQ(calls.messages.size(), 4U);
  EXPECT_EQ(calls.messages[1].tool_calls[0].name, "f");
  EXPECT_EQ(calls.messages[2].role, ChatRole::Tool);
}

TEST(Conversations, CallsMayBeTurnsOfTheirOwnAmongMessages) {
  const auto calls = read(
      "{'tools': '[{\\u0022name\\u0022: \\u0022f\\u0022}]', 'messages': [{'role': 'user', "
      "'content': "
      "'a'}, {'role': 'function_call', 'content': '{\\u0022name\\u0022: \\u0022f\\u0022, "
      "\\u0022arguments\\u0022: {\\u0022x\\u0022: 1}}'},"
      "{'role': 'observation', 'content': '2'}, {'role': 'assistant', 'content': 'b'}]}");
  ASSERT_EQ(calls.messages.size(), 4U);
  EXPECT_EQ(calls.messages[1].role, ChatRole::Assistant);
  EXPECT_EQ(calls.messages[1].tool_calls[0].name, "f");
  EXPECT_EQ(python_dumps(calls.messages[1].tool_calls[0].arguments), "{\"x\": 1}");
  EXPECT_EQ(calls.messages[2].role, ChatRole::Tool);
  EXPECT_EQ(calls.tools.items.size(), 1U);
  test::expect_error(
      [] {
        read(
            "{'messages': [{'role': 'user', 'content': 'a'}, {'role': 'function_call', "
            "'content': 'f(1)'}]}");
      },
      Kind::BadInput, {"messages[1].content"});
}

TEST(Conversations, WhatCannotBeLearntFromIsNamed) {
  const std::pair<const char*, const char*> cases[] = {
      {"{'text': 'a'}", "is no conversation that is known"},
      {"{'messages': [{'role': 'robot', 'content': 'a'}]}", "messages[0].role is 'robot'"},
      {"{'messages': [{'role': 'system', 'content': 'a'}]}", "nothing but a system message"},
      {"{'messages': [{'role': 'user', 'content': ''}, {'role': 'assistant', 'content': 'b'}]}",
       "messages[0] is an empty turn"},
      {"{'messages': [{'role': 'user', 'content': 'a'}, {'role': 'assistant', 'content': ''}]}",
       "messages[1] is an empty turn"},
      {"{'messages': [{'role': 'user', 'content': 'a'}, {'role': 'user', 'content': 'b'},"
       "{'role': 'assistant', 'content': 'c'}]}",
       "messages[1] is the user's, as the turn before it"},
      {"{'messages': [{'role': 'user', 'content': 'a'}, {'role': 'assistant', 'tool_calls': "
       "[{'name': 'f'}]}, {'role': 'user', 'content': 'b'}, {'role': 'assistant', 'content': "
       "'c'}]}",
       "messages[2] follows a tool call that has no result"},
      {"{'messages': [{'role': 'user', 'content': 'a'}, {'role': 'tool', 'content': 'x'},"
       "{'role': 'assistant', 'content': 'c'}]}",
       "messages[1] is a tool's result, and no call waits for one"},
      {"{'conversations': [{'from': 'human', 'value': 'a'}, {'from': 'assistant', 'value': 'b'}]}",
       "conversations[1].from is 'assistant', which belongs to the form release"},
      {"{'conversations': [{'from': 'alien', 'value': 'a'}]}", "conversations[0].from is 'alien'"},
      {"{'conversations': [{'from': 'human', 'value': 'a'}, {'from': 'gpt', 'value': 'b', "
       "'weight': 0}]}",
       "conversations[1].weight is known in the form openai only"},
      {"{'functions': [], 'messages': [{'role': 'user', 'content': 'a'}]}",
       "functions is not known here"},
      {"{'instruction': 'a'}", "lacks the member 'output'"},
  };
  for (const auto& [json, problem] : cases) {
    test::expect_error([&] { read(json); }, Kind::BadInput, {"chats.jsonl: line 3", problem});
  }
}

TEST(Conversations, BadRecordsAreCountedOrStopTheReading) {
  const test::TempFolder folder;
  const fs::path path =
      folder.write("mixed.jsonl",
                   "\xEF\xBB\xBF{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, "
                   "{\"role\": \"assistant\", \"content\": \"b\"}]}\n\n"
                   "{\"instruction\": \"a\", \"output\": \"b\"}\nno json\n");
  ConversationReader reader(path, {});
  Conversation conversation;
  ASSERT_TRUE(reader.next(conversation));
  EXPECT_EQ(conversation.line, 1);
  EXPECT_FALSE(reader.next(conversation));
  EXPECT_EQ(reader.bad_records(), 2);
  EXPECT_NE(reader.problems()[0].find("mixed.jsonl: line 3 is of the form alpaca"),
            std::string::npos);
  ConversationReader strict(path, {.strict = true});
  ASSERT_TRUE(strict.next(conversation));
  test::expect_error([&] { strict.next(conversation); }, Kind::BadInput, {"line 3"});
  const fs::path array = folder.write(
      "array.json", " [{\"instruction\": \"a\",\n \"output\": \"b\"}, {\"instruction\": \"a\"}]");
  ConversationReader items(array, {});
  ASSERT_TRUE(items.next(conversation));
  EXPECT_EQ(conversation.line, 1);
  EXPECT_FALSE(items.next(conversation));
  EXPECT_EQ(items.bad_records(), 1);
}

std::vector<OrderedJson> rows(const fs::path& path) {
  std::ifstream file(path);
  std::vector<OrderedJson> out;
  for (std::string line; std::getline(file, line);) {
    out.push_back(OrderedJson::parse(line, path.string()));
  }
  return out;
}

std::vector<int64_t> numbers(const OrderedJson& list) {
  std::vector<int64_t> out;
  for (const OrderedJson& item : list.items) out.push_back(std::stoll(item.text));
  return out;
}

std::vector<uint8_t> learnt_of(const OrderedJson& spans, size_t size) {
  std::vector<uint8_t> out(size, 0);
  for (const OrderedJson& span : spans.items) {
    const auto ends = numbers(span);
    std::fill(out.begin() + ends[0], out.begin() + ends[1], uint8_t{1});
  }
  return out;
}

TEST(ChatLabels, AreThoseOfTheRelease) {
  const fs::path path = test::shared("fixtures/sft/chat_labels.jsonl");
  QUERN_NEED(path);
  const auto tokenizer = load_tokenizer(test::shared("fixtures/tokenizer/qwen.tiktoken"));
  const ChatMl format(*tokenizer);
  const std::pair<const char*, ChatMask> masks[] = {{"learn_memo", ChatMask::Memo},
                                                    {"learn_release", ChatMask::Release},
                                                    {"learn_assistant", ChatMask::Assistant}};
  for (const OrderedJson& row : rows(path)) {
    // One row has the ids of a control token for its name in a content, against the fixture's rule.
    const bool named = python_dumps(row).find("\"<|im_start|>assistant\"") != std::string::npos;
    if (named && row.find("ids_release_script") == nullptr) continue;
    ConversationForm form = ConversationForm::Auto;
    const Conversation conversation = read_conversation(row, form, "fixture");
    for (const auto& [field, mask] : masks) {
      const ChatLabeller labeller(*tokenizer, format, mask);
      if (row.find(field)->items.empty()) {
        test::expect_error([&] { labeller.label(conversation); }, Kind::BadInput, {"nothing"});
        continue;
      }
      const LabelledChat chat = labeller.label(conversation);
      ASSERT_EQ(std::vector<int64_t>(chat.ids.begin(), chat.ids.end()), numbers(*row.find("ids")));
      EXPECT_EQ(chat.learnt, learnt_of(*row.find(field), chat.ids.size())) << field;
      std::vector<std::vector<int64_t>> turns, want;
      for (const auto& [begin, end] : chat.turns) {
        turns.push_back({static_cast<int64_t>(begin), static_cast<int64_t>(end)});
      }
      for (const OrderedJson& turn : row.find("turns")->items) want.push_back(numbers(turn));
      EXPECT_EQ(turns, want);
    }
  }
}

TEST(ChatLabels, OfTemplatesAreTheAssistantsWords) {
  const fs::path fixtures = test::shared("fixtures/chat_template");
  QUERN_NEED(fixtures);
  const auto tokenizer = load_tokenizer(fixtures / "tokenizer.json");
  for (const std::string family : {"qwen25", "qwen3"}) {
    const char* file = family == "qwen3" ? "qwen3.jinja" : "qwen2.5.jinja";
    const TemplatedChat format(*tokenizer,
                               {.text = read_file(fixtures / "templates" / file), .where = file});
    const ChatLabeller labeller(*tokenizer, format, ChatMask::Assistant);
    for (const OrderedJson& row : rows(test::shared("fixtures/sft/tools_" + family + ".jsonl"))) {
      ConversationForm form = ConversationForm::Auto;
      const Conversation conversation = read_conversation(row, form, "fixture");
      const LabelledChat chat = labeller.label(conversation);
      ASSERT_EQ(std::vector<int64_t>(chat.ids.begin(), chat.ids.end()), numbers(*row.find("ids")))
          << family;
      EXPECT_EQ(chat.learnt, learnt_of(*row.find("learn_assistant"), chat.ids.size())) << family;
    }
  }
}

// What a model of a format without tools learns of a conversation that calls them.
TEST(ChatLabels, ToolsAreReActWhereTheFormatKnowsNone) {
  const auto tokenizer = load_tokenizer(test::source("models/quern-mini"));
  ConversationForm form = ConversationForm::Auto;
  const Conversation conversation = read_conversation(
      OrderedJson::parse(R"({"tools": [{"type": "function", "function": {"name": "rain",
          "description": "Rain of a city", "parameters": {"type": "object"}}}], "messages": [
          {"role": "user", "content": "Rome and Oslo?"},
          {"role": "assistant", "content": "I look it up.", "tool_calls": [
            {"id": "a", "type": "function", "function": {"name": "rain", "arguments": {"city": "Rome"}}},
            {"id": "b", "type": "function", "function": {"name": "rain", "arguments": {"city": "Oslo"}}}]},
          {"role": "tool", "tool_call_id": "b", "content": "much"},
          {"role": "tool", "tool_call_id": "a", "content": "none"},
          {"role": "assistant", "content": "Oslo."},
          {"role": "user", "content": "Sure?"},
          {"role": "assistant", "content": "Yes."}]})",
                         "line"),
      form, "line");
  const std::string
      first =
          "Thought: I look it up.\nAction: rain\nAction Input: {\"city\": \"Oslo\"}\nObservation:",
      second =
          "\nThought: I need one more call.\nAction: rain\n"
          "Action Input: {\"city\": \"Rome\"}\nObservation:",
      third = "\nThought: I now know the final answer.\nFinal Answer: Oslo.";
  const auto learnt_text = [&](const LabelledChat& chat, uint8_t learnt) {
    std::vector<TokenId> ids;
    for (size_t i = 0; i < chat.ids.size(); ++i) {
      if (chat.learnt[i] == learnt) ids.push_back(chat.ids[i]);
    }
    return tokenizer->decode(ids, BadBytes::Replace, false);
  };
  const ChatMl release(*tokenizer);
  // ChatML once by the program and once as a template that leaves tools out.
  const TemplatedChat templated(
      *tokenizer, {.text = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
                           "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}"
                           "<|im_start|>assistant\n{% endif %}",
                   .where = "template"});
  const ChatLabeller both[] = {ChatLabeller(*tokenizer, release, ChatMask::Assistant),
                               ChatLabeller(*tokenizer, templated, ChatMask::Assistant)};
  for (const ChatLabeller& labeller : both) {
    const LabelledChat chat = labeller.label(conversation);
    EXPECT_EQ(learnt_text(chat, 1), first + second + third +
                                        "<|im_end|>Thought: I now know the final answer.\n"
                                        "Final Answer: Yes.<|im_end|>");
    const std::string given = learnt_text(chat, 0);
    EXPECT_NE(given.find("<|im_start|>system\nYou are a helpful assistant.<|im_end|>"), given.npos);
    EXPECT_NE(given.find("rain: Call this tool to interact with the rain API."), given.npos);
    EXPECT_NE(given.find("Question: Rome and Oslo?<|im_end|>"), given.npos);
    EXPECT_NE(given.find(" much none"), given.npos);
    EXPECT_NE(given.find("<|im_start|>user\nQuestion: Sure?<|im_end|>"), given.npos);
  }
  EXPECT_EQ(both[0].label(conversation).ids, both[1].label(conversation).ids);
  // The memo's mask learns results, too.
  const LabelledChat memo = ChatLabeller(*tokenizer, release, ChatMask::Memo).label(conversation);
  EXPECT_NE(learnt_text(memo, 1).find(first + " much" + second + " none" + third),
            std::string::npos);
  // A greeting in front is no turn of the release's form; the tools stand in the first question still.
  Conversation greeted = conversation;
  greeted.messages.insert(greeted.messages.begin(), Message(ChatRole::Assistant, "Hello."));
  EXPECT_EQ(both[0].label(greeted).ids, both[0].label(conversation).ids);
  EXPECT_EQ(both[0].label(greeted).learnt, both[0].label(conversation).learnt);
  EXPECT_NE(learnt_text(both[1].label(greeted), 0).find("rain: Call this tool"), std::string::npos);
  Conversation listless = conversation;
  listless.tools = {};
  test::expect_error([&] { both[0].label(listless); }, Kind::BadInput, {"has no list of them"});
}

TEST(ChatLabels, LongConversationsLoseWholeTurnsOrTheirEnd) {
  const fs::path vocabulary = test::shared("fixtures/tokenizer/qwen.tiktoken");
  QUERN_NEED(vocabulary);
  const auto tokenizer = load_tokenizer(vocabulary);
  const ChatMl format(*tokenizer);
  const ChatLabeller labeller(*tokenizer, format, ChatMask::Assistant);
  const Conversation two = {.messages = {{ChatRole::System, "s"},
                                         {ChatRole::User, "one"},
                                         {ChatRole::Assistant, "two"},
                                         {ChatRole::User, "three"},
                                         {ChatRole::Assistant, "four"}},
                            .tools = {}};
  const Conversation last = {.messages = {two.messages[0], two.messages[3], two.messages[4]},
                             .tools = {}};
  const auto whole = labeller.label(two), shorter = labeller.label(last);
  const auto size = static_cast<int64_t>(whole.ids.size());
  const auto same = labeller.label(two, size, LongChat::Drop);
  EXPECT_FALSE(same->truncated);
  const auto dropped = labeller.label(two, size - 1, LongChat::Drop);
  EXPECT_EQ(dropped->ids, shorter.ids);
  EXPECT_TRUE(dropped->truncated);
  EXPECT_FALSE(labeller.label(two, 8, LongChat::Drop).has_value());
  const auto cut = labeller.label(two, size - 1, LongChat::Cut);
  EXPECT_EQ(cut->ids.size(), static_cast<size_t>(size - 1));
  EXPECT_TRUE(cut->truncated);
  test::expect_error([&] { labeller.label(two, size - 1, LongChat::Error); }, Kind::BadInput,
                     {"tokens, at most"});
}

}  // namespace
}  // namespace quern
