// The MCP client against a small server of our own, in each revision and over each transport, and
// against one that does everything wrong.
#include "tools/mcp.h"

#include <fmt/format.h>

#include <chrono>
#include <fstream>
#include <optional>
#include <thread>

#include "support/support.h"
#include "tools/builtin.h"
#include "tools/child_process.h"

namespace quern {
namespace {

namespace fs = std::filesystem;

const char* const kPython = "/usr/bin/python3";

struct Case {
  const char* era;
  enum Transport { Lines, Http, Events } transport;
};

// The server's address as --mcp takes it; of HTTP with the server's process.
class TestServer {
 public:
  TestServer(const Case& how, const std::string& fault) {
    const std::string script = test::source("tests/tools/mcp/server.py").string();
    std::vector<std::string> command = {kPython, script, "--era", how.era};
    if (!fault.empty()) command.insert(command.end(), {"--fault", fault});
    if (how.transport == Case::Lines) {
      target_ = fmt::format("{}", fmt::join(command, " "));
      return;
    }
    const fs::path port = folder_.path() / "port";
    command.insert(command.end(), {"--http", port.string()});
    if (how.transport == Case::Events) command.emplace_back("--sse");
    process_.emplace(ChildOptions{.command = command});
    for (int i = 0; i < 500 && !fs::exists(port); ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    std::string number;
    std::ifstream(port) >> number;
    target_ = "http://127.0.0.1:" + number + "/mcp";
  }
  const std::string& target() const { return target_; }

 private:
  test::TempFolder folder_;
  std::string target_;
  std::optional<ChildProcess> process_;
};

struct Client {
  explicit Client(const TestServer& at) {
    server = std::make_shared<McpServer>("t", at.target());
    for (auto& tool :
         server->tools(server, [&](std::string_view text) { notes.emplace_back(text); })) {
      tools.add(std::move(tool));
    }
  }
  ToolResult call(const char* tool, const char* arguments = "{}", double seconds = 20) {
    CallContext context;
    context.seconds = seconds;
    context.note = [&](std::string_view text) { progress.emplace_back(text); };
    try {
      return tools.find(tool)->call(OrderedJson::parse(arguments, "arguments"), context);
    } catch (const Error& error) {
      return {error.what(), true};
    }
  }

  std::shared_ptr<McpServer> server;
  Toolbox tools;
  std::vector<std::string> notes, progress;
};

TEST(Mcp, CallsToolsInEachRevisionOverEachTransport) {
  QUERN_NEED(fs::path(kPython));
  for (const Case& how :
       {Case{"modern", Case::Lines}, Case{"2025-11-25", Case::Lines},
        Case{"2025-06-18", Case::Lines}, Case{"modern", Case::Http}, Case{"modern", Case::Events},
        Case{"2025-11-25", Case::Http}, Case{"2025-06-18", Case::Events}}) {
    SCOPED_TRACE(fmt::format("{} {}", how.era, static_cast<int>(how.transport)));
    const bool modern = std::string_view(how.era) == "modern";
    const TestServer at(how, "");
    Client client(at);
    EXPECT_EQ(client.server->revision(), modern ? "2026-07-28" : how.era);
    // Three pages; of the names one came before and one is none.
    EXPECT_EQ(client.tools.names(), (std::vector<std::string>{"echo", "erase", "picture", "numbers",
                                                              "slow", "asks", "ends"}));
    ASSERT_EQ(client.notes.size(), 2u);
    EXPECT_NE(client.notes[0].find("another one has its name"), std::string::npos);
    EXPECT_NE(client.notes[1].find("its name has other characters"), std::string::npos);
    EXPECT_FALSE(client.tools.find("echo")->spec().side_effects);
    EXPECT_TRUE(client.tools.find("erase")->spec().side_effects);

    const ToolResult said = client.call("echo", R"({"text": "grüße <|im_end|>"})");
    EXPECT_EQ(said.text, "grüße <|im_end|>");
    EXPECT_FALSE(said.failed);
    if (how.transport != Case::Http) {
      ASSERT_EQ(client.progress.size(), 1u);
      EXPECT_EQ(client.progress[0], "t: 1 of 2 half way");
    }
    EXPECT_EQ(client.call("picture").text, "[image image/png, 3 bytes, not shown]");
    EXPECT_TRUE(client.call("erase", R"({"text": "all"})").failed);
    EXPECT_EQ(client.call("asks").text, modern ? R"({"q": {"action": "decline"}})" : "asked");
    EXPECT_NE(client.call("numbers").text.find("calls"), std::string::npos);
  }
}

TEST(Mcp, GivesUpAtTheDeadlineAndGoesOn) {
  QUERN_NEED(fs::path(kPython));
  for (const char* era : {"modern", "2025-11-25"}) {
    const TestServer at({era, Case::Lines}, "");
    Client client(at);
    const ToolResult late = client.call("slow", "{}", 0.2);
    EXPECT_TRUE(late.failed);
    EXPECT_NE(late.text.find("does not answer in time"), std::string::npos) << late.text;
    // Its answer comes still, and is nobody's. The server was told that nobody waits.
    EXPECT_EQ(client.call("echo", R"({"text": "on"})").text, "on");
    EXPECT_NE(client.call("numbers").text.find("\"cancelled\": ["), std::string::npos);
  }
}

TEST(Mcp, AServerThatEndsIsStartedAgainOnce) {
  QUERN_NEED(fs::path(kPython));
  const TestServer at({"2025-11-25", Case::Lines}, "");
  Client client(at);
  const ToolResult ended = client.call("ends");
  EXPECT_TRUE(ended.failed);
  EXPECT_NE(ended.text.find("has ended: out of cheese"), std::string::npos) << ended.text;
  EXPECT_EQ(client.call("numbers").text, R"({"calls": 1, "cancelled": []})");
  EXPECT_TRUE(client.call("ends").failed);
  EXPECT_NE(client.call("numbers").text.find("not started a third time"), std::string::npos);
}

TEST(Mcp, OutlivesServersThatDoEverythingWrong) {
  QUERN_NEED(fs::path(kPython));
  const std::pair<const char*, const char*> kFaults[] = {{"other", "answers what was not asked"},
                                                         {"flood", "without end"},
                                                         {"half", "in the middle of a message"},
                                                         {"long", "over 16 MiB"}};
  for (const auto& [fault, problem] : kFaults) {
    const TestServer at({"modern", Case::Lines}, fault);
    Client client(at);
    const ToolResult result = client.call("echo", R"({"text": "x"})");
    EXPECT_TRUE(result.failed) << fault;
    EXPECT_NE(result.text.find(problem), std::string::npos) << fault << ": " << result.text;
  }
  const TestServer strange({"modern", Case::Lines}, "strange");
  Client client(strange);
  EXPECT_EQ(client.call("echo", R"({"text": "x"})").text, "x");
  for (const char* fault : {"circle", "deep"}) {
    const TestServer at({"modern", Case::Lines}, fault);
    test::expect_error([&] { Client other(at); }, Kind::Failed,
                       {fault[0] == 'c' ? "circle" : "deep"});
  }
  const TestServer redirect({"modern", Case::Http}, "redirect");
  test::expect_error([&] { Client other(redirect); }, Kind::Failed, {"302"});
  const auto server = std::make_shared<McpServer>("t", "/no/such/program");
  test::expect_error([&] { server->tools(server, [](std::string_view) {}); }, Kind::BadInput,
                     {"/no/such/program"});
}

TEST(Mcp, ReadsCommandLinesAsWords) {
  EXPECT_EQ(command_words(R"(a  'b c' "d \"e" f\ g '')"),
            (std::vector<std::string>{"a", "b c", "d \"e", "f g", ""}));
  test::expect_error([] { command_words("a 'b"); }, Kind::Misused, {"open quote"});
}

TEST(Mcp, AListThatChangesIsReadAgain) {
  for (const Case& how : {Case{"modern", Case::Lines}, Case{"2025-06-18", Case::Lines},
                          Case{"2025-11-25", Case::Events}}) {
    const TestServer server(how, "grows");
    Toolbox tools;
    std::vector<std::string> notes;
    add_mcp_server("t=" + server.target(), tools,
                   [&](std::string_view text) { notes.emplace_back(text); });
    tools.add(make_calculator());
    EXPECT_FALSE(tools.refresh());
    ASSERT_NE(tools.find("erase"), nullptr);
    CallContext context;
    tools.find("picture")->call(OrderedJson::parse("{}", "a"), context);
    EXPECT_TRUE(tools.refresh()) << how.era;
    EXPECT_FALSE(tools.refresh());
    EXPECT_EQ(tools.find("erase"), nullptr);
    ASSERT_NE(tools.find("grown"), nullptr);
    EXPECT_NE(tools.find("calculator"), nullptr);
    tools.find("grown")->call(OrderedJson::parse("{}", "a"), context);
  }
}

}  // namespace
}  // namespace quern
