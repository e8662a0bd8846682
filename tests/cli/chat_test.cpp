// The conversation, at a terminal and through pipes, over a checkpoint that `quern init` makes.
#include "cli/checkpoint.h"
#include "cli/program.h"
#include "core/json.h"

namespace quern::test {
namespace {

class Chat : public ::testing::Test {
 protected:
  std::vector<std::string> arguments() const {
    return {"chat", model_.string(), "--max-new-tokens", "8", "--seed", "1"};
  }
  std::vector<std::pair<std::string, std::string>> variables() const {
    return {{"XDG_STATE_HOME", folder_.path().string()}, {"TERM", "xterm"}, {"LC_ALL", "C.UTF-8"}};
  }
  std::string history() const {
    return run({"cat", (folder_.path() / "quern/chat_history").string()}).out;
  }
  fs::path file(const char* name) const { return folder_.path() / name; }

  // The contents of a saved conversation's messages by one role.
  std::vector<std::string> said_by(const std::string& role, const fs::path& saved) const {
    std::vector<std::string> said;
    const Json conversation = Json::parse_file(saved.string());
    for (const Json& message : conversation.at("messages").items()) {
      if (message.at("role").string() == role) said.push_back(message.at("content").string());
    }
    return said;
  }

  int runs_ = 0;
  TempFolder folder_;
  fs::path model_ = tiny_checkpoint(folder_);
};

TEST_F(Chat, AnswersAtATerminalAndLeavesAtCtrlD) {
  Terminal terminal(arguments(), variables());
  terminal.expect("/help lists the commands");
  terminal.expect_prompt();
  terminal.type("hello\r/stats\r");
  terminal.expect("8 new tokens");
  terminal.expect_prompt();
  terminal.type("\x04");
  EXPECT_EQ(terminal.wait(), 0);
  EXPECT_EQ(history(), "hello\n/stats\n");
}

TEST_F(Chat, EditsWithTheKeysOfEmacsAndArrows) {
  Terminal terminal(arguments(), variables());
  terminal.expect_prompt();
  // "world" – home – "hello " – end – "!" – left – delete – word left – kill – yank
  terminal.type(
      "world\x01hello \x05!\x1b[D\x1b[3~\x1b"
      "b\x0b\x19\r");
  terminal.expect_prompt();
  terminal.type("/save " + file("chat.json").string() + "\r");
  terminal.expect("saved 2 messages");
  terminal.expect_prompt();
  terminal.type("/quit\r");
  EXPECT_EQ(terminal.wait(), 0);
  EXPECT_EQ(said_by("user", file("chat.json")), std::vector<std::string>{"hello world"});
}

TEST_F(Chat, APasteAndAltEnterMakeEntriesOfSeveralLines) {
  Terminal terminal(arguments(), variables());
  terminal.expect_prompt();
  // In a paste even Ctrl-D and an arrow's bytes are text, or nothing.
  terminal.type("\x1b[200~one\r\ntwo\x04\x1b[A\x1b[201~\x1b\rthree\\\rfour\r");
  terminal.expect_prompt();
  terminal.type("/save " + file("chat.json").string() + "\r");
  terminal.expect("saved 2 messages");
  terminal.expect_prompt();
  terminal.type("\x04");
  EXPECT_EQ(terminal.wait(), 0);
  EXPECT_EQ(said_by("user", file("chat.json")), std::vector<std::string>{"one\ntwo\nthree\nfour"});
}

TEST_F(Chat, WhatIsTypedDuringAnAnswerIsForTheNextEntry) {
  std::vector<std::string> longer = arguments();
  longer[3] = "300";
  Terminal terminal(longer, variables());
  terminal.expect_prompt();
  terminal.type("one\r");
  terminal.expect("\uFFFD");  // the answer is on its way
  terminal.type("\x1b[200~two\rlines\x1b[201~\r/save " + file("chat.json").string() + "\r\x04");
  EXPECT_EQ(terminal.wait(), 0);
  EXPECT_EQ(said_by("user", file("chat.json")), (std::vector<std::string>{"one", "two\nlines"}));
}

TEST_F(Chat, WideCharactersMoveTheCursorByTwoColumns) {
  Terminal terminal(arguments(), variables());
  terminal.expect_prompt();
  terminal.type("你好");
  terminal.expect("你好\r\x1b[6C");  // two for the prompt, four for the text
  terminal.type("\x1b[D");
  terminal.expect("你好\r\x1b[4C");
  terminal.type("\x7f");
  terminal.expect("好\r\x1b[2C");
}

TEST_F(Chat, HistoryIsThereTheNextTimeAndIsSearched) {
  folder_.write("quern/chat_history", "first entry\nsecond\\nof two lines\nthird entry\n");
  Terminal terminal(arguments(), variables());
  terminal.expect_prompt();
  terminal.type("\x1b[A");
  terminal.expect("third entry");
  terminal.type("\x1b[A");
  terminal.expect("second");
  terminal.expect("… of two lines");
  terminal.type("\x03");
  terminal.expect("^C");
  terminal.type(
      "\x12"
      "entry");
  terminal.expect("search 'entry': third entry");
  terminal.type("\x12");
  terminal.expect("search 'entry': first entry");
  terminal.type("\x07");
  terminal.type("\x04");
  EXPECT_EQ(terminal.wait(), 0);
}

TEST_F(Chat, CtrlCEndsTheAnswerAndNotTheProgram) {
  std::vector<std::string> endless = arguments();
  endless.insert(endless.end(), {"--ignore-eos", "--max-new-tokens", "1000000", "--context",
                                 "100000", "--kv-cache", "fp16"});
  endless.erase(endless.begin() + 2, endless.begin() + 4);
  Terminal terminal(endless, variables());
  terminal.expect_prompt();
  terminal.type("go\r");
  terminal.expect("\x1b[?2004l");  // the editor is done
  terminal.expect("\uFFFD");       // random bytes make no whole characters: the answer has begun
  terminal.type("\x03");
  terminal.expect_prompt();
  terminal.type("/save " + file("chat.json").string() + "\r");
  terminal.expect("saved 2 messages");
  terminal.expect_prompt();
  terminal.type("/quit\r");
  EXPECT_EQ(terminal.wait(), 0);
}

TEST_F(Chat, ReadsPlainLinesFromAPipe) {
  const Outcome outcome = quern(
      arguments(), {.input = "first\\\nline\n/retry\n/save " + file("chat.json").string() + "\n",
                    .variables = variables(),
                    .folder = {}});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(said_by("user", file("chat.json")), std::vector<std::string>{"first\nline"});
  EXPECT_EQ(said_by("assistant", file("chat.json")).size(), 1u);
}

TEST_F(Chat, ASavedConversationIsLoadedWithItsSystemMessage) {
  folder_.write("old.json",
                R"({"messages": [{"role": "system", "content": "Be brief."},
                                 {"role": "user", "content": "a"},
                                 {"role": "assistant", "content": "b"}]})");
  const Outcome outcome =
      quern(arguments(), {.input = "/load " + file("old.json").string() + "\nc\n/save " +
                                   file("new.json").string() + "\n",
                          .variables = variables(),
                          .folder = {}});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(said_by("system", file("new.json")), std::vector<std::string>{"Be brief."});
  EXPECT_EQ(said_by("user", file("new.json")), (std::vector<std::string>{"a", "c"}));
  EXPECT_EQ(said_by("assistant", file("new.json"))[0], "b");
}

TEST_F(Chat, ResetForgetsAndSystemChanges) {
  const Outcome outcome = quern(
      arguments(),
      {.input = "a\n/reset\nb\n/system Be brief.\nc\n/save " + file("chat.json").string() + "\n",
       .variables = variables(),
       .folder = {}});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(said_by("system", file("chat.json")), std::vector<std::string>{"Be brief."});
  EXPECT_EQ(said_by("user", file("chat.json")), std::vector<std::string>{"c"});
}

TEST_F(Chat, MistakesAreNamedAndTheConversationGoesOn) {
  folder_.write("bad.json", R"({"messages": [{"role": "king", "content": "a"}]})");
  const std::pair<std::string, std::string> mistakes[] = {
      {"/rset", "there is no command /rset (did you mean /reset?)"},
      {"/set temperature hot", "/set temperature needs a number"},
      {"/set colour 3", "there is no setting 'colour'"},
      {"/set top-p 2", "top"},
      {"/retry", "there is no question to retry"},
      {"/stats", "there is no answer yet"},
      {"/load " + file("missing.json").string(), "missing.json"},
      {"/load " + file("bad.json").string(),
       "messages[0].role is 'king', expected system, developer, user, assistant or tool"}};
  for (const auto& [line, message] : mistakes) {
    const Outcome outcome = quern(
        arguments(), {.input = line + "\n/set\n/quit\n", .variables = variables(), .folder = {}});
    EXPECT_EQ(outcome.code, 0) << line;
    EXPECT_NE(outcome.err.find(message), std::string::npos) << line << ": " << outcome.err;
    EXPECT_NE(outcome.out.find("temperature"), std::string::npos) << line << ": " << outcome.out;
  }
}

TEST_F(Chat, SettingsChangeWhatIsSampled) {
  // Answers to the same question, each in a conversation of its own: sampled ones differ from draw
  // to draw, greedy ones and those from a single token never do.
  const auto answers = [&](const std::string& setting) {
    std::string input = setting;
    for (int i = 0; i < 3; ++i) input += "go\n/save a" + std::to_string(i) + "\n/reset\n";
    const fs::path place = folder_.path() / std::to_string(runs_++);
    fs::create_directories(place);
    const Outcome outcome =
        quern(arguments(), {.input = input, .variables = variables(), .folder = place});
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    std::vector<std::string> said;
    for (int i = 0; i < 3; ++i) {
      said.push_back(said_by("assistant", place / ("a" + std::to_string(i)))[0]);
    }
    return said;
  };
  const auto sampled = answers("");
  EXPECT_NE(sampled[0], sampled[1]);
  for (const char* setting : {"/set greedy on\n", "/set top-k 1\n", "/set temperature 0\n"}) {
    const auto said = answers(setting);
    EXPECT_EQ(said[0], said[1]) << setting;
    EXPECT_EQ(said[0], said[2]) << setting;
  }
  EXPECT_EQ(answers("/set greedy on\n"), answers("/set top-k 1\n"));
}

TEST_F(Chat, ASeedIsDrawnAndShown) {
  std::vector<std::string> words = arguments();
  words.resize(words.size() - 2);  // without --seed
  const Outcome outcome =
      quern(words, {.input = "a\n/stats\n/set\n", .variables = variables(), .folder = {}});
  const size_t at = outcome.out.find("; seed ");
  ASSERT_NE(at, std::string::npos) << outcome.out;
  const std::string seed = outcome.out.substr(at + 7, outcome.out.find(']', at) - at - 7);
  EXPECT_NE(outcome.out.find("seed " + seed + " "), std::string::npos) << outcome.out;
}

TEST_F(Chat, WhatChangesTheConversationSaysSo) {
  folder_.write("there.json", "{}");
  const Outcome outcome =
      quern(arguments(), {.input = "/system Be brief.\n/system\n/reset\n/save there.json\n/save -f "
                                   "there.json\n/save there.json\n",
                          .variables = variables(),
                          .folder = folder_.path()});
  EXPECT_EQ(outcome.out,
            "the system message is set, the conversation starts over\nBe brief.\n"
            "the conversation is forgotten\nsaved 0 messages to there.json\n"
            "saved 0 messages to there.json\n");
  EXPECT_NE(outcome.err.find("there.json: exists already"), std::string::npos) << outcome.err;
}

}  // namespace
}  // namespace quern::test
