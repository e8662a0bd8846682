// quern agent as a user runs it: over a server whose answers a test writes, and with the published
// model where that is there.
#include <fmt/format.h>
#include <unistd.h>

#include <chrono>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "cli/program.h"
#include "core/file.h"
#include "support/scripted_server.h"
#include "tools/child_process.h"

namespace quern::test {
namespace {

using nlohmann::json;

// An OpenAI-compatible server that gives these messages in turn, and keeps what it was asked.
class Model {
 public:
  template <class... Messages>
  explicit Model(const Messages&... messages)
      : messages_{json(messages)...},
        server_([this](const ServedRequest& request, ServedConnection& connection) {
          if (request.target.ends_with("/models")) {
            connection.answer(200, R"({"data": [{"id": "m"}]})", "application/json");
            return;
          }
          const json body = json::parse(request.body);
          asked.push_back(body);
          const json message = asked.size() <= messages_.size() ? messages_[asked.size() - 1]
                                                                : json{{"content", "?"}};
          const bool calls = message.contains("tool_calls");
          json delta = message;
          delta["role"] = "assistant";
          const json chunk = {{"choices",
                               {{{"index", 0},
                                 {"delta", delta},
                                 {"finish_reason", calls ? "tool_calls" : "stop"}}}},
                              {"usage", {{"prompt_tokens", 9}, {"completion_tokens", 7}}}};
          connection.answer(200, "data: " + chunk.dump() + "\n\ndata: [DONE]\n\n",
                            "text/event-stream");
        }) {}
  std::string url() const { return server_.url(); }
  std::vector<json> asked;

 private:
  std::vector<json> messages_;
  ScriptedServer server_;
};

json call(const std::string& name, const std::string& arguments) {
  return {{"content", nullptr},
          {"tool_calls",
           {{{"index", 0},
             {"id", "c1"},
             {"type", "function"},
             {"function", {{"name", name}, {"arguments", arguments}}}}}}};
}
json says(const std::string& text) { return {{"content", text}}; }

std::vector<json> lines(const std::string& text) {
  std::vector<json> out;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) out.push_back(json::parse(line));
  return out;
}

std::string example(const std::string& name) { return source("examples/agents/" + name).string(); }

TEST(Agent, AnswersThroughAServersCalls) {
  const TempFolder folder;
  Model model(call("calculator", R"({"expression": "17.5% of 2340 plus 12"})"),
              says("It is 421.5."));
  const std::string transcript = (folder.path() / "t.jsonl").string();
  const Outcome outcome = quern({"agent", "--server", model.url(), "--json", "--transcript",
                                 transcript, "What is 17.5% of 2340 plus 12?"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  const auto events = lines(outcome.out);
  ASSERT_EQ(events.size(), 3u) << outcome.out;
  EXPECT_EQ(events[0]["type"], "call");
  EXPECT_EQ(events[0]["arguments"]["expression"], "17.5% of 2340 plus 12");
  EXPECT_EQ(events[1]["text"], "421.5");
  EXPECT_EQ(events[2]["text"], "It is 421.5.");
  EXPECT_EQ(events[2]["steps"], 2);
  EXPECT_EQ(events[2]["tokens"], 14);
  // What the server was asked is OpenAI's form.
  EXPECT_EQ(model.asked[0]["tools"][0]["function"]["name"], "calculator");
  EXPECT_EQ(model.asked[1]["messages"][2]["role"], "tool");
  EXPECT_EQ(model.asked[1]["messages"][2]["content"], "421.5");
  EXPECT_EQ(model.asked[1]["messages"][2]["tool_call_id"], "c1");
  // The transcript is a conversation of the data that models are trained on.
  const json kept = json::parse(read_file(transcript));
  EXPECT_EQ(kept["messages"].size(), 4u);
  EXPECT_EQ(kept["tools"][0]["function"]["name"], "calculator");
}

TEST(Agent, ToldToAPersonTheAnswerIsStandardOutput) {
  Model model(call("calculator", R"({"expression": "2*3"})"), says("six"));
  const Outcome outcome = quern({"agent", "--server", model.url(), "2*3?"});
  EXPECT_EQ(outcome.out, "six\n");
  EXPECT_NE(outcome.err.find("-> calculator {\"expression\": \"2*3\"}\n<- 6\n"), std::string::npos)
      << outcome.err;
  Model quiet(says("six"));
  EXPECT_EQ(quern({"agent", "-q", "--server", quiet.url(), "2*3?"}).err, "");
}

TEST(Agent, EndsWithTheCodeThatTellsHow) {
  const json again = call("calculator", R"({"expression": "1"})");
  Model loop(again, again);
  const Outcome looped = quern({"agent", "--server", loop.url(), "--json", "x"});
  EXPECT_EQ(looped.code, 6);
  EXPECT_NE(looped.err.find("again and again"), std::string::npos);
  EXPECT_EQ(lines(looped.out).back()["text"], nullptr);
  Model wrong(call("calculator", "null"), call("calculator", "[]"));
  EXPECT_EQ(quern({"agent", "--server", wrong.url(), "x"}).code, 1);
  Model steps(call("calculator", R"({"expression": "1"})"), says("x"));
  EXPECT_EQ(quern({"agent", "--server", steps.url(), "--max-steps", "1", "x"}).code, 6);
  Model dry(call("calculator", R"({"expression": "1"})"));
  const Outcome dried = quern({"agent", "--server", dry.url(), "--dry", "--json", "x"});
  EXPECT_EQ(dried.code, 0);
  EXPECT_EQ(lines(dried.out).size(), 2u);
}

TEST(Agent, RefusesWhatIsNot) {
  for (const auto& [arguments, part] :
       {std::pair(std::vector<std::string>{"--allow", "calulator", "x"}, "did you mean calculator"),
        {{"--allow", "search_folder", "x"}, "--folder DIR"},
        {{"--allow", "web_search", "x"}, "tool.web_search"},
        {{"--yes", "rm", "x"}, "there is no tool rm"},
        {{"--mcp", "nothing", "x"}, "NAME=COMMAND"}}) {
    std::vector<std::string> command = {"agent"};
    command.insert(command.end(), arguments.begin(), arguments.end());
    const Outcome outcome = quern(command);
    EXPECT_EQ(outcome.code, 2) << outcome.err;
    EXPECT_NE(outcome.err.find(part), std::string::npos) << outcome.err;
  }
  const Outcome dead = quern({"agent", "--mcp", "x=/no/such/server", "--list-tools"});
  EXPECT_EQ(dead.code, 1);
  EXPECT_NE(dead.err.find("/no/such/server"), std::string::npos);
  EXPECT_NE(dead.out.find("calculator"), std::string::npos);  // the others are there
}

TEST(Agent, SideEffectsWithNobodyToAskAreNotHad) {
  const TempFolder folder;
  const std::string tools =
      folder.write("tools.toml", "[tool.touch]\ncommand = [\"touch\", \"made\"]\n").string();
  Model model(call("touch", "{}"), says("well"));
  const Outcome outcome = run({"setsid", "-w", program_path(), "agent", "--server", model.url(),
                               "--tools", tools, "--json", "x"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_FALSE(fs::exists(folder.path() / "made"));
  EXPECT_EQ(lines(outcome.out)[1]["type"], "confirm");
  EXPECT_EQ(lines(outcome.out)[1]["allowed"], false);
  Model named(call("touch", "{}"), says("well"));
  quern({"agent", "--server", named.url(), "--tools", tools, "--yes", "touch", "x"});
  EXPECT_TRUE(fs::exists(folder.path() / "made"));
}

TEST(AgentExamples, Weather) {
  if (run({"sh", "-c", "command -v python3"}).code != 0) GTEST_SKIP() << "skipped: needs python3";
  EXPECT_EQ(
      quern({"agent", "--allow", "", "--tools", example("weather/tools.toml"), "--list-tools"})
          .out.substr(0, 7),
      "weather");
  ChildProcess service({.command = {"python3", example("weather/server.py"), "0"}});
  std::string address;
  for (int i = 0; i < 500 && !address.ends_with('\n'); ++i) {
    char bytes[100];
    const ssize_t count = ::read(service.out(), bytes, sizeof bytes);
    if (count > 0) address.append(bytes, static_cast<size_t>(count));
    if (count < 0) std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  ASSERT_TRUE(address.ends_with('\n'));
  address.pop_back();
  // As the example's, at the port that was free.
  const TempFolder folder;
  const std::string tools =
      folder
          .write("tools.toml",
                 fmt::format("[tool.weather]\nopenapi = \"{}\"\nserver = \"{}\"\naddresses = "
                             "[\"loopback\"]\n",
                             example("weather/weather.json"), address))
          .string();
  Model model(call("weather", R"({"city": "Rome"})"), call("weather", R"({"city": "Atlantis"})"),
              says("sunny"));
  const Outcome outcome = quern({"agent", "--server", model.url(), "--allow", "", "--tools", tools,
                                 "--json", "What is the weather in Rome?"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  const auto events = lines(outcome.out);
  ASSERT_EQ(events.size(), 5u) << outcome.out;
  EXPECT_EQ(events[1]["text"], R"({"city": "Rome", "sky": "sunny", "celsius": 24})");
  EXPECT_EQ(events[3]["failed"], true);
}

TEST(AgentExamples, Analysis) {
  Model model(call("read_table", "{}"),
              call("python",
                   R"J({"code": "rows = {'May': 3102, 'June': 3690}\nmax(rows, key=rows.get)"})J"),
              call("python", R"J({"code": "rows['June']"})J"), says("June, 3690"));
  const Outcome outcome =
      quern({"agent", "--server", model.url(), "--allow", "python", "--tools",
             example("analysis/tools.toml"), "--json", "Which month had the most visitors?"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  const auto events = lines(outcome.out);
  ASSERT_EQ(events.size(), 7u) << outcome.out;
  EXPECT_NE(events[1]["text"].get<std::string>().find("June,3690,29520.00"), std::string::npos);
  if (events[3]["text"].get<std::string>().find("sandbox cannot start") != std::string::npos) {
    GTEST_SKIP() << "skipped: needs the sandbox";
  }
  EXPECT_EQ(events[3]["text"], "'June'\n");
  EXPECT_EQ(events[5]["text"], "3690\n");
}

TEST(AgentExamples, Folder) {
  Model model(call("search_folder", R"({"query": "ferry to Naxos"})"), says("07:30"));
  const Outcome outcome = quern({"agent", "--server", model.url(), "--allow", "", "--folder",
                                 example("folder/notes"), "--json", "When does the ferry leave?"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  const std::string found = lines(outcome.out)[1]["text"];
  EXPECT_TRUE(found.starts_with("travel.md:1\n")) << found;
  EXPECT_NE(found.find("leaves Piraeus at 07:30"), std::string::npos);
}

}  // namespace
}  // namespace quern::test
