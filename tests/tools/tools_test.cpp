// Python, search, commands and HTTP as tools, and the file that describes them.
#include <fmt/format.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <thread>

#include "support/scripted_server.h"
#include "support/support.h"
#include "tools/builtin.h"
#include "tools/http_tool.h"
#include "tools/python_session.h"
#include "tools/schema_check.h"
#include "tools/tools_file.h"
#include "tools/yaml.h"

namespace quern {
namespace {

namespace fs = std::filesystem;

ToolResult call(Tool& tool, const std::string& arguments, double seconds = 20) {
  CallContext context;
  context.seconds = seconds;
  try {
    return tool.call(OrderedJson::parse(arguments, "arguments"), context);
  } catch (const Error& error) {
    return {error.what(), true};
  }
}

bool has(const std::string& text, const std::string& part) { return text.find(part) != text.npos; }

TEST(SchemaCheck, SaysWhatIsWrong) {
  const OrderedJson schema = OrderedJson::parse(
      R"({"type": "object", "properties": {"city": {"type": "string", "pattern": "^[A-Z]"},
          "days": {"type": "integer", "minimum": 1}}, "required": ["city"],
          "additionalProperties": false})",
      "a schema");
  const auto problem = [&](const char* text) {
    return argument_problem(schema, OrderedJson::parse(text, "arguments"));
  };
  EXPECT_EQ(problem(R"({"city": "Rome", "days": 2})"), "");
  EXPECT_TRUE(has(problem(R"({"days": 2})"), "city"));
  EXPECT_TRUE(has(problem(R"({"city": "Rome", "days": "2"})"), "days"));
  EXPECT_TRUE(has(problem(R"({"city": "Rome", "days": 0})"), "days"));
  EXPECT_TRUE(has(problem(R"({"city": "Rome", "x": 1})"), "x"));
  EXPECT_TRUE(has(problem(R"({"city": "rome"})"), "pattern"));
  EXPECT_TRUE(has(problem("null"), "no JSON object"));
  // A text that std::regex would take the stack for.
  OrderedJson large;
  large.set("city", OrderedJson::of_string(std::string(2'000'000, 'A')));
  EXPECT_EQ(argument_problem(schema, large), "");
  EXPECT_TRUE(has(schema_problem(OrderedJson::parse(R"({"$ref": "http://x.test/y"})", "s")),
                  "cannot be read"));
}

TEST(PythonTool, KeepsItsNames) {
  PythonSession session;
  try {
    EXPECT_EQ(session.run("x = 20\nprint('set')", 20).output, "set\n");
  } catch (const Error& error) {
    if (error.kind() == Kind::Unsupported) GTEST_SKIP() << "skipped: " << error.what();
    throw;
  }
  EXPECT_EQ(session.run("x + 1", 20).output, "21\n");
  const auto failed = session.run("def f():\n    return 1 / 0\nf()", 20);
  EXPECT_TRUE(failed.failed);
  EXPECT_TRUE(has(failed.output, "ZeroDivisionError")) << failed.output;
  EXPECT_TRUE(has(failed.output, "return 1 / 0"));
  EXPECT_FALSE(has(failed.output, "_serve"));
  EXPECT_TRUE(session.run("def f(:", 20).failed);
  EXPECT_EQ(session.run("import os\nx if os.system('echo from a child') == 0 else None", 20).output,
            "from a child\n20\n");
  EXPECT_EQ(session.run("import sys\nsys.exit(0)", 20).failed, true);
  EXPECT_EQ(session.run("x", 20).output, "20\n");  // SystemExit ends the code, not the names
}

TEST(PythonTool, OutlivesWhatCodeDoes) {
  PythonSession session;
  try {
    session.run("x = 1", 20);
  } catch (const Error& error) {
    if (error.kind() == Kind::Unsupported) GTEST_SKIP() << "skipped: " << error.what();
    throw;
  }
  const auto late = session.run("while True: pass", 0.5);
  EXPECT_TRUE(late.failed);
  EXPECT_TRUE(has(late.output, "took longer than 0.5 s; all names are lost")) << late.output;
  EXPECT_TRUE(has(session.run("x", 20).output, "NameError"));
  EXPECT_TRUE(has(session.run("import os\nos._exit(3)", 20).output, "status 3"));
  const auto flood = session.run("print('x' * 1000000)", 20);
  EXPECT_LT(flood.output.size(), 70'000u);
  EXPECT_TRUE(has(flood.output, "bytes more]"));
  EXPECT_TRUE(
      session.run("import os\nos.write(3, b'zzzz')\nos.write(4, b'zzzzzzzz' * 9)", 20).failed);
  EXPECT_TRUE(has(session.run("open('/etc/shadow').read()", 20).output, "Error"));
  EXPECT_TRUE(
      has(session.run("import socket\nsocket.create_connection(('1.1.1.1', 80), 2)", 20).output,
          "Error"));
  EXPECT_TRUE(has(session.run("import os\nfor i in range(500): os.fork()", 5).output, ""))
      << "forks";
  EXPECT_EQ(session.run("1 + 1", 20).output, "2\n");
}

TEST(SearchFolder, FindsWordsAndChinese) {
  const test::TempFolder folder;
  folder.write("notes.md", "# Trip\n\nThe ferry to Naxos leaves at nine.\n\nBring sunscreen.\n");
  folder.write("code.py", "def boil_eggs(minutes):\n    return minutes * 60\n");
  folder.write("page.html",
               "<html><script>ferry ferry</script><body>\n<p>Opening hours &amp; prices: 5 &lt; "
               "6</p></body></html>");
  folder.write("zh.txt", "北京今天的天气很好，适合去公园。\n");
  folder.write(".hidden.txt", "ferry secret");
  folder.write("binary.txt", std::string("ferry\0\1\2", 8));
  fs::create_symlink("/etc", folder.path() / "link");
  const auto tool = make_search_folder(folder.path());
  EXPECT_TRUE(
      call(*tool, R"({"query": "When do ferries leave?"})").text.starts_with("notes.md:1\n"));
  EXPECT_TRUE(has(call(*tool, R"({"query": "boil_eggs"})").text, "code.py:1"));
  const std::string page = call(*tool, R"({"query": "opening hours"})").text;
  EXPECT_TRUE(has(page, "Opening hours & prices: 5 < 6")) << page;
  EXPECT_FALSE(has(page, "ferry ferry"));
  EXPECT_TRUE(has(call(*tool, R"({"query": "今天的天气怎么样"})").text, "zh.txt:1"));
  EXPECT_TRUE(has(call(*tool, R"({"query": "公园"})").text, "zh.txt:1"));
  EXPECT_FALSE(has(call(*tool, R"({"query": "ferry"})").text, "secret"));
  // Nothing in a query is FTS5's syntax.
  for (const char* query : {R"(\"ferry)", "ferry NEAR(", "text: *", "AND OR NOT", "a'b; DROP"}) {
    const ToolResult result = call(*tool, fmt::format(R"({{"query": "{}"}})", query));
    EXPECT_FALSE(has(result.text, "syntax")) << query << result.text;
  }
  EXPECT_TRUE(call(*tool, R"({"query": "?!"})").failed);
  test::expect_error([&] { make_search_folder(folder.path() / "none"); }, Kind::BadInput, {"none"});
}

struct File {
  test::TempFolder folder;
  Toolbox tools;
  void read(const std::string& text) {
    tools = Toolbox();
    add_tools_file(folder.write("tools.toml", text).string(), tools);
  }
};

TEST(ToolsFile, RunsCommandsWithoutAShell) {
  File file;
  ::setenv("QUERN_TEST_KEY", "sesame-1234", 1);
  file.read(R"T(
[tool.say]
description = "Says it"
command = ["printf", "%s|%s", "{what}", "--more={more}"]
parameters = {type = "object", properties = {what = {type = "string"}, more = {type = "integer"}}}
side_effects = false
timeout = 5
[tool.braces]
command = ["printf", "%s", "{{what}} {print $1} }{"]
[tool.key]
command = ["sh", "-c", "echo key $QUERN_TEST_KEY, home ${QUERN_OTHER:-none}"]
env = ["QUERN_TEST_KEY"]
[tool.hang]
command = ["sh", "-c", "sleep 300 & sleep 300"]
[tool.flood]
command = ["sh", "-c", "yes"]
[tool.fail]
command = ["sh", "-c", "echo out; echo err >&2; exit 3"]
[tool.daemon]
command = ["sh", "-c", "setsid sh -c 'sleep 1; touch escaped' & echo begun"]
[tool.gone]
command = ["/no/such/program"]
)T");
  Toolbox& t = file.tools;
  EXPECT_FALSE(t.find("say")->spec().side_effects);
  EXPECT_TRUE(t.find("fail")->spec().side_effects);
  EXPECT_EQ(call(*t.find("say"), R"({"what": "$(id); `id`", "more": 3})").text,
            "$(id); `id`|--more=3");
  EXPECT_EQ(call(*t.find("say"), R"({"what": "a"})").text, "a|");
  EXPECT_TRUE(has(call(*t.find("say"), R"({"what": "-v"})").text, "take for an option"));
  EXPECT_EQ(call(*t.find("braces"), "{}").text, "{what} {print $1} }{");
  const std::string key = call(*t.find("key"), "{}").text;
  EXPECT_EQ(key, "key sesame-1234, home none\n");
  EXPECT_EQ(t.secrets.hide(key), "key ***, home none\n");
  const auto begun = std::chrono::steady_clock::now();
  EXPECT_TRUE(has(call(*t.find("hang"), "{}", 0.3).text, "took longer"));
  EXPECT_TRUE(has(call(*t.find("flood"), "{}").text, "wrote more than 64 MiB"));
  EXPECT_LT(std::chrono::steady_clock::now() - begun, std::chrono::seconds(15));
  const ToolResult failed = call(*t.find("fail"), "{}");
  EXPECT_TRUE(failed.failed);
  EXPECT_EQ(failed.text, "the command ended with exit status 3\nout\n\nerr\n");
  EXPECT_EQ(call(*t.find("daemon"), "{}").text, "begun\n");
  std::this_thread::sleep_for(std::chrono::milliseconds(1500));
  EXPECT_FALSE(fs::exists(file.folder.path() / "escaped"));  // it was ended with its command
  EXPECT_TRUE(has(call(*t.find("gone"), "{}").text, "cannot be run"));
}

TEST(ToolsFile, RefusesWhatItDoesNotKnow) {
  File file;
  const std::pair<const char*, const char*> kBad[] = {
      {"[tool.a]\ncommand = [\"x\"]\nshell = true", "shell"},
      {"[tool.a]\ncommand = []", "empty"},
      {"[tool.a]\ncommand = [\"x\", \"{y}\"]", "{y}"},
      {"[tool.a]\ndescription = \"x\"", "is no tool"},
      {"[tool.\"a b\"]\ncommand = [\"x\"]", "name"},
      {"[tool.a]\ncommand = [\"x\"]\nenv = [\"QUERN_TEST_UNSET\"]", "QUERN_TEST_UNSET"},
      {"[tool.a]\ncommand = [\"x\"]\nparameters = {\"$ref\" = \"http://x.test\"}", "schema"},
      {"[tool.a]\ncommand = [\"x\"]\nmax_output = 99999999", "max_output"},
      {"[tool.web_search]\nurl = \"https://x.test\"", "{query}"},
      {"[tool.web_search]\nurl = \"https://x.test/{query}\"\naddresses = [\"any\"]", "any"},
      {"[tool.search_folder]\nfolder = \"none\"", "none"},
      {"[tool.a]\nopenapi = \"a.yaml\"", "a.yaml"},
      {"[tools.a]\ncommand = [\"x\"]", "tools"}};
  for (const auto& [text, part] : kBad) {
    test::expect_error([&] { file.read(text); }, Kind::BadInput, {part});
  }
}

constexpr const char* kApi = R"J({
  "openapi": "3.0.3", "info": {"title": "t", "version": "1"},
  "servers": [{"url": "SERVER"}],
  "paths": {
    "/weather/{city}": {
      "parameters": [{"$ref": "#/components/parameters/City"}],
      "get": {"operationId": "weather", "summary": "Weather of a city",
        "parameters": [{"name": "days", "in": "query", "schema": {"type": "integer"}},
                       {"name": "X-Unit", "in": "header", "schema": {"enum": ["C", "F"]}}],
        "responses": {}}},
    "/trees": {
      "post": {"operationId": "plant", "requestBody": {"required": true, "content":
        {"application/json": {"schema": {"$ref": "#/components/schemas/Tree"}}}}, "responses": {}}}},
  "components": {
    "parameters": {"City": {"name": "city", "in": "path", "required": true,
                            "schema": {"type": "string"}}},
    "schemas": {"Tree": {"type": "object", "required": ["name"], "properties": {
      "name": {"type": "string", "nullable": true},
      "children": {"type": "array", "items": {"$ref": "#/components/schemas/Tree"}}}},
      "Round": {"$ref": "#/components/schemas/About"},
      "About": {"$ref": "#/components/schemas/Round"}}}})J";

OrderedJson api(const std::string& server, const std::string& from = "",
                const std::string& to = "") {
  std::string text = kApi;
  text.replace(text.find("SERVER"), 6, server);
  if (!from.empty()) text.replace(text.find(from), from.size(), to);
  return OrderedJson::parse(text, "api.json");
}

TEST(OpenApi, MakesRequestsOfCalls) {
  test::ScriptedServer server([](const test::ServedRequest& request, test::ServedConnection& c) {
    if (request.target.starts_with("/away")) {
      c.answer(302, "", "text/plain", "Location: http://169.254.169.254/latest\r\n");
    } else if (request.target.starts_with("/weather/broken")) {
      c.answer(500, "no weather");
    } else {
      c.answer(200, request.method + " " + request.target + " " + request.body);
    }
  });
  HttpToolOptions options;
  options.addresses = {"loopback"};
  options.headers = {{"Authorization", "Bearer k"}};
  auto tools = openapi_tools(api(server.url("/")), options, "api.json");
  ASSERT_EQ(tools.size(), 2u);
  Tool& weather = *tools[0];
  Tool& plant = *tools[1];
  EXPECT_EQ(weather.spec().name, "weather");
  EXPECT_FALSE(weather.spec().side_effects);
  EXPECT_TRUE(plant.spec().side_effects);
  EXPECT_EQ(call(weather, R"({"city": "São/Tomé?", "days": 2, "X-Unit": "C"})").text,
            "GET /weather/S%C3%A3o%2FTom%C3%A9%3F?days=2 ");
  EXPECT_EQ(server.requests()[0].headers.at("x-unit"), "C");
  EXPECT_EQ(server.requests()[0].headers.at("authorization"), "Bearer k");
  EXPECT_EQ(call(plant, R"({"body": {"name": "oak", "children": [{"name": null}]}})").text,
            R"(POST /trees {"name": "oak", "children": [{"name": null}]})");
  // A schema that contains itself holds at every depth.
  EXPECT_TRUE(
      has(argument_problem(
              plant.spec().parameters,
              OrderedJson::parse(R"({"body": {"name": "a", "children": [{"name": 1}]}})", "a")),
          "name"));
  EXPECT_TRUE(
      has(argument_problem(weather.spec().parameters, OrderedJson::parse(R"({"days": 1})", "a")),
          "city"));
  const ToolResult broken = call(weather, R"({"city": "broken"})");
  EXPECT_TRUE(broken.failed);
  EXPECT_EQ(broken.text, "status 500: no weather");
  options.server = server.url("/away");
  const auto away = openapi_tools(api("http://x.test"), options, "api.json");
  const ToolResult redirected = call(*away[0], R"({"city": "x"})");
  EXPECT_TRUE(redirected.failed);
  EXPECT_TRUE(has(redirected.text, "169.254.169.254")) << redirected.text;
  EXPECT_TRUE(has(redirected.text, "not followed"));
}

TEST(OpenApi, IsReadFromYaml) {
  const OrderedJson json = OrderedJson::parse(
      R"({"openapi": "3.0.3", "n": [1, -2, 1.5, 1e3, true, null, "true", "1", "x: y"],
          "text": "two\nlines\n", "a": {"b": [{"c": ""}]}, "same": {"b": [{"c": ""}]}})",
      "json");
  EXPECT_EQ(python_dumps(parse_yaml(R"(# a comment
openapi: "3.0.3"
n: [1, -2, 1.5, 1e3, true, ~, "true", '1', 'x: y']
text: |
  two
  lines
a: &anchor
  b:
    - c: ''
same: *anchor
)",
                                    "y")),
            python_dumps(json));
  const auto refuse = [](const std::string& text, const std::string& part) {
    test::expect_error([&] { parse_yaml(text, "a.yaml"); }, Kind::BadInput, {"a.yaml", part});
  };
  refuse("a: [1", "line");
  refuse("a: 1\na: 2", "stands twice");
  refuse("? [1]\n: 2", "no text");
  refuse(std::string(5000, '['), "deeper");
  std::string dashes;
  for (int i = 0; i < 500; ++i) dashes += "- ";
  refuse(dashes + "x", "deeper");
  refuse("a: 1\n---\nb: 2", "2 documents");
  refuse("a: &a [*a]", "");
  // Each level repeats the one before ten times.
  std::string bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n";
  for (int i = 1; i < 9; ++i) {
    const std::string before = "*a" + std::to_string(i - 1);
    bomb += "a" + std::to_string(i) + ": &a" + std::to_string(i) + " [";
    for (int k = 0; k < 10; ++k) bomb += (k == 0 ? "" : ", ") + before;
    bomb += "]\n";
  }
  refuse(bomb, "more than 1000000 values");
}

TEST(OpenApi, ReachesPublicAddressesOnly) {
  test::ScriptedServer server([](const test::ServedRequest&, test::ServedConnection& c) {
    c.answer(200, "weather for all");
  });
  for (const std::string& address :
       {server.url("/"), fmt::format("http://localhost:{}", server.port()),
        std::string("http://169.254.169.254"), std::string("http://10.0.0.1"),
        std::string("http://[::1]:80")}) {
    const auto tools = openapi_tools(api(address), {}, "api.json");
    const ToolResult result = call(*tools[0], R"({"city": "x"})", 5);
    EXPECT_TRUE(result.failed) << address;
    EXPECT_FALSE(has(result.text, "weather for all")) << address << result.text;
  }
  EXPECT_EQ(server.requests().size(), 0u);
}

TEST(OpenApi, RefusesWhatLeadsNowhere) {
  const auto refuse = [](const std::string& from, const std::string& to, const char* part) {
    test::expect_error([&] { openapi_tools(api("https://x.test", from, to), {}, "api.json"); },
                       Kind::BadInput, {"api.json", part});
  };
  refuse("3.0.3", "2.0", "openapi");
  refuse("schemas/Tree\"}}}}", "schemas/Bush\"}}}}", "not there");
  refuse("schemas/Tree\"}}}}", "schemas/Round\"}}}}", "circle");
  refuse("\"#/components/parameters/City\"", "\"other.json#/City\"", "outside of this file");
  refuse("https://x.test", "/relative", "servers[0].url");
  refuse("\"plant\"", "\"weather\"", "operationId");
  refuse("application/json", "text/xml", "application/json");
  refuse("/weather/{city}", "/weather/{town}", "{town}");
  HttpToolOptions options;
  options.operations = {"none"};
  test::expect_error([&] { openapi_tools(api("https://x.test"), options, "api.json"); },
                     Kind::BadInput, {"none"});
}

TEST(WebSearch, AsksTheEngineThatWasNamed) {
  test::ScriptedServer server([](const test::ServedRequest&, test::ServedConnection& c) {
    c.answer(
        200,
        R"({"web": {"results": [{"title": "A", "link": "https://a.test", "snippet": "about a"}]}})");
  });
  File file;
  file.read(fmt::format(R"T([tool.web_search]
url = "{}"
results = "web.results"
link = "link"
text = "snippet"
addresses = ["loopback"])T",
                        server.url("/?q={query}&n=1")));
  const ToolResult found = call(*file.tools.find("web_search"), R"({"query": "a & b"})");
  EXPECT_EQ(found.text, "1. A\nhttps://a.test\nabout a\n\n");
  EXPECT_EQ(server.requests()[0].target, "/?q=a%20%26%20b&n=1");
}

}  // namespace
}  // namespace quern
