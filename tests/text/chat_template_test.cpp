#include "text/chat_template.h"

#include <gtest/gtest.h>

#include <fstream>
#include <map>

#include "core/json.h"
#include "support/support.h"
#include "text/load.h"

namespace quern {
namespace {

using chat_template::LocalTime;
using chat_template::MarkedText;
using chat_template::Template;
using chat_template::TemplateError;
using chat_template::Variables;

std::vector<OrderedJson> lines(const fs::path& path) {
  std::ifstream file(path);
  std::vector<OrderedJson> out;
  for (std::string line; std::getline(file, line);) {
    out.push_back(OrderedJson::parse(line, path.string()));
  }
  return out;
}

const LocalTime kNow = chat_template::parse_local_time("2026-11-30 14:05:09");

std::string rendered(std::string_view source, const Variables& variables = {}) {
  return std::string(Template(source).render(variables, kNow).bytes());
}

TEST(ChatTemplate, PrintsWhatJinjaPrints) {
  const auto rows = lines(test::source("tests/fixtures/chat_template/jinja.jsonl"));
  ASSERT_GT(rows.size(), 400U);
  Variables variables;
  for (const auto& [name, value] : rows[0].find("variables")->members) {
    variables.emplace_back(name, from_json(value, chat_template::kForeign));
  }
  for (size_t i = 1; i < rows.size(); ++i) {
    const std::string& source = rows[i].find("template")->text;
    const OrderedJson* error = rows[i].find("error");
    const OrderedJson* message = rows[i].find("message");
    try {
      const std::string text = rendered(source, variables);
      if (error != nullptr) {
        ADD_FAILURE() << source << "\nprints " << text << ", expected " << error->text;
      } else {
        EXPECT_EQ(text, rows[i].find("text")->text) << source;
      }
    } catch (const TemplateError& failure) {
      EXPECT_EQ(failure.cause_name(), error != nullptr ? error->text : "") << source;
      if (message != nullptr) {
        EXPECT_EQ(failure.problem(), message->text) << source;
      }
    }
  }
}

TEST(ChatTemplate, HostileOnesEndInOneLine) {
  const std::string endless =
      "{% for i in range(100000) %}{% for j in range(100000) %}x"
      "{% endfor %}{% endfor %}";
  const std::pair<std::string, const char*> cases[] = {
      {endless, "takes more than"},
      {"{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "recurses deeper"},
      {"{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}", "recurses deeper"},
      {"{% set ns = namespace(s='x') %}{% for i in range(100) %}{% set ns.s = ns.s + ns.s %}"
       "{% endfor %}",
       "more than"},
      {"{% set ns = namespace(l=[1]) %}{% for i in range(100) %}{% set ns.l = ns.l + ns.l %}"
       "{% endfor %}",
       "takes more than"},
      {"{% set ns = namespace(l=[1]) %}{% for i in range(1000) %}{% set ns.l = [ns.l] %}"
       "{% endfor %}",
       "nests lists and dicts deeper"},
      {"{% set ns = namespace(l=[1]) %}{% for i in range(90) %}{% set ns.l = [ns.l, ns.l] %}"
       "{% endfor %}{{ ns.l }}",
       "takes more than"},
      {"{{ 'a' * 1000000000000 }}", "more than"},
      {"{{ [1] * 1000000000000 }}", "takes more than"},
      {"{{ 'a'.ljust(100000000000) }}", "more than"},
      {"{{ '%1000000000d' % 1 }}", "too big"},
      {"{{ 2 ** 100000 }}", "past 64 bits"},
      {"{{ " + std::string(100'000, '(') + "1 }}", "unexpected"},
      {"{{ " + std::string(500, '(') + "1" + std::string(500, ')') + " }}", "nests deeper"},
      {"{{ 1" +
           [] {
             std::string all;
             for (int i = 0; i < 100'000; ++i) all += "+1";
             return all;
           }() +
           " }}",
       "more than 1000 steps"},
      // Numbers at the end of their range.
      {"{{ (-9223372036854775807 - 1)|abs }}", "past 64 bits"},
      {"{{ '%d' % 1e30 }}", "past 64 bits"},
      {"{{ 'a'.ljust(4611686018427387905, '\U0001F600') }}", "more than"},
      {"{% if " + std::string(5000, '1') + " %}{% endif %}", "5000 digits"},
      // Values that weigh more than they seem to.
      {"{% set ns = namespace(l=1) %}{% for i in range(20) %}"
       "{% set ns.l = [{'a': ns.l}, {'a': ns.l}]|groupby('a') %}{% endfor %}{{ ns.l }}",
       "takes more than"},
      {"{% set ns = namespace(l=[1]) %}{% for i in range(60) %}{% set ns.l = [ns.l, ns.l] %}"
       "{% endfor %}{% for i in [1, 2] %}{{ loop.changed([ns.l]) }}{{ loop.changed([[1]]) }}"
       "{% endfor %}{{ ns.l == [ns.l[0], ns.l[1]] }}",
       "takes more than"},
      {"{% for i in range(1000) %}{% for j in range(1000) %}{% if -1 in range(100000) %}"
       "{% endif %}{% endfor %}{% endfor %}",
       "takes more than"},
      {"{% set s = 'x' * 1000000 %}{{ ([s] * 1000)|sort|length }}", "takes more than"},
      {"{% set s = ('x' * 1000000) %}{{ ([0] * 10000)|tojson(separators=(s, s)) }}",
       "takes more than"},
      {"{% set ns = namespace(f=0) %}{% for i in range(100000) %}{% set ns.f = cycler(ns.f) %}"
       "{% endfor %}",
       "nests lists and dicts deeper"},
      {"{% set ns = namespace(f=0) %}{% for i in range(100000) %}"
       "{% set ns.f = {'f': ns.f}.get %}{% endfor %}",
       "nests lists and dicts deeper"},
      // Searches that start anew at each place.
      {"{% set s = 'a' * 8000000 %}{{ s.rfind('b' ~ 'a' * 4000000) }}", "takes more than"},
      {std::string(2 << 20, 'x'), "bytes"},
      {"{# ", "Missing end of comment"},
  };
  for (const auto& [source, part] : cases) {
    test::expect_error([&] { rendered(source); }, Kind::BadInput, {"the chat template", part});
  }
  // These are quick.
  EXPECT_EQ(rendered("{% set s = 'a' * 8000000 %}{{ s.find('a' * 4000000 ~ 'b') }}"), "-1");
  EXPECT_EQ(rendered("{% set s = 'a ' * 500000 ~ ' ' * 1000000 %}{{ s.split()|length }}"),
            "500000");
  std::string many;
  for (int i = 0; i < 100'000; ++i) many += "{{v" + std::to_string(i) + "}}";
  EXPECT_EQ(rendered(many), "");
  // What holds itself is let go of again.
  EXPECT_EQ(rendered("{% set ns = namespace() %}{% set ns.me = ns %}{{ ns.me is defined }}"),
            "True");
}

// Expected values are Python's and Jinja's.
TEST(ChatTemplate, OddArgumentsGiveWhatPythonGives) {
  const std::pair<const char*, const char*> cases[] = {
      {"{{ [1, 2, 3][1::9223372036854775807] }}", "[2]"},
      {"{{ [1, 2, 3][1::-9223372036854775807] }}", "[2]"},
      {"{{ 'abc'[1::9223372036854775807] }}", "b"},
      {"{{ 'abc'|truncate(9223372036854775807, leeway=9223372036854775807) }}", "abc"},
      {"{{ '12'|int(7, 1) }} {{ '12'|int(7, 37) }} {{ '12'|int(7, 4294967306) }}", "12 12 12"},
      {"{{ 'x'|int(7, 1) }} {{ '12\\x00'|int(7) }}", "7 7"},
      {"{{ 1e300.is_integer() }} {{ (1e300 * 1e300).is_integer() }}", "True False"},
      {"{{ '  1  2   3  '.split(none, 1) }}", "['1', '2   3  ']"},
      {"{{ '  1  2   3  '.rsplit(none, 1) }}", "['  1  2', '3']"},
      {"{{ '  1  2   3  '.rsplit() }}{{ '  '.split() }}", "['1', '2', '3'][]"},
  };
  for (const auto& [source, text] : cases) EXPECT_EQ(rendered(source), text) << source;
  const std::pair<const char*, const char*> mistakes[] = {
      {"{{ [1, 2, 3][0:1 2] }}", "expected ']'"},
      {"{{ '\\x+1' }}", "escape"},
      {"{% for i in [1] %}{% generation %}{% break %}{% endgeneration %}{% endfor %}",
       "'break' outside loop"},
  };
  for (const auto& [source, part] : mistakes) {
    test::expect_error([&] { rendered(source); }, Kind::BadInput, {"has a mistake", part});
  }
}

TEST(ChatTemplate, BytesKeepTheirOriginThroughFilters) {
  const Variables variables = {
      {"s", MarkedText("<|a|>", chat_template::kForeign)},
      {"e", MarkedText("</s>", chat_template::kLiteral)},
  };
  const auto literal_bytes = [&](std::string_view source) {
    const MarkedText text = Template(source).render(variables, kNow);
    std::string out;
    for (size_t i = 0; i < text.size(); ++i) {
      if (text.origin_at(i).literal) out += text.bytes()[i];
    }
    return out;
  };
  EXPECT_EQ(literal_bytes("[{{ s }}]{{ e }}"), "[]</s>");
  EXPECT_EQ(literal_bytes("{{ ('x' + s + 'y')|upper }}"), "XY");
  EXPECT_EQ(literal_bytes("{{ ('x' ~ s)[::-1] }}"), "x");
  EXPECT_EQ(literal_bytes("{{ s.replace('a', 'b') }}"), "b");
  EXPECT_EQ(literal_bytes("{{ 'a-b'.replace('-', s) }}"), "ab");
  EXPECT_EQ(literal_bytes("{{ ['x', s]|join(',') }}"), "x,");
  EXPECT_EQ(literal_bytes("{% set t %}({{ s }}){% endset %}{{ t|trim }}"), "()");
  EXPECT_EQ(literal_bytes("{% macro m(x) %}m{{ x }}{% endmacro %}{{ m(s) }}"), "m");
  EXPECT_EQ(literal_bytes("{{ '%s!' % s }}{{ '{}?'.format(s) }}"), "!?");
  EXPECT_EQ(literal_bytes("{{ s|tojson }}{{ [s] }}{{ s.split('|') }}"), "");
}

fs::path fixtures() { return test::shared("fixtures/chat_template"); }

ChatTemplateText golden_template(const std::string& name) {
  ChatTemplateText out;
  out.where = name;
  out.text = read_file(fixtures() / "templates" / (name + ".jinja"));
  for (const OrderedJson& row : lines(fixtures() / "templates/index.jsonl")) {
    if (row.find("name")->text != name) continue;
    for (const char* token : {"bos_token", "eos_token"}) {
      const OrderedJson* value = row.find(token);
      if (value != nullptr && value->is_string()) out.tokens.emplace_back(token, value->text);
    }
  }
  return out;
}

TEST(ChatTemplate, PromptsAreThoseOfTransformers) {
  QUERN_NEED(fixtures());
  const auto tokenizer = load_tokenizer(fixtures() / "tokenizer.json");
  std::map<std::string, std::unique_ptr<TemplatedChat>> formats;
  size_t checked = 0;
  for (const OrderedJson& row : lines(fixtures() / "cases.jsonl")) {
    const std::string& name = row.find("template")->text;
    const std::string what = name + ", " + row.find("conversation")->text;
    auto& format = formats[name];
    if (!format) format = std::make_unique<TemplatedChat>(*tokenizer, golden_template(name));
    TemplatedChat::Input input;
    input.messages = *row.find("messages");
    input.now = "2026-11-30 14:05:09";
    if (const OrderedJson* tools = row.find("tools")) input.tools = *tools;
    input.variables.kind = OrderedJson::Kind::Object;
    for (const auto& [key, value] : row.find("options")->members) {
      if (key == "add_generation_prompt") {
        input.add_generation_prompt = value.boolean;
      } else if (key == "documents") {
        input.documents = value;
      } else {
        input.variables.set(key, value);
      }
    }
    try {
      const RenderedChat chat = format->render(input);
      ASSERT_NE(row.find("text"), nullptr) << what << " prints " << chat.text;
      EXPECT_EQ(chat.text, row.find("text")->text) << what;
      if (row.find("ids") == nullptr) continue;
      const auto ids_of = [&](const char* key) {
        std::vector<TokenId> ids;
        for (const OrderedJson& id : row.find(key)->items) ids.push_back(std::stoi(id.text));
        return ids;
      };
      if (row.find("ids_strict") != nullptr && chat.ids == ids_of("ids_strict")) continue;
      EXPECT_EQ(chat.ids, ids_of("ids")) << what;
      ++checked;
    } catch (const TemplateError& failure) {
      ASSERT_NE(row.find("error"), nullptr) << what << ": " << failure.what();
      EXPECT_EQ(failure.cause_name(), row.find("error")->text) << what;
      EXPECT_EQ(failure.problem(), row.find("message")->text) << what;
    }
  }
  EXPECT_GT(checked, 200U);
}

TEST(ChatTemplate, ALastMessageCanBeContinued) {
  QUERN_NEED(fixtures());
  const auto tokenizer = load_tokenizer(fixtures() / "tokenizer.json");
  const TemplatedChat format(*tokenizer, golden_template("qwen2.5"));
  ChatPrompt prompt;
  prompt.messages = {
      {ChatRole::System, "s"}, {ChatRole::User, "u"}, {ChatRole::Assistant, "so far "}};
  prompt.add_generation_prompt = false;
  prompt.continue_final_message = true;
  EXPECT_EQ(format.render(prompt).text,
            "<|im_start|>system\ns<|im_end|>\n<|im_start|>user\nu<|im_end|>\n"
            "<|im_start|>assistant\nso far ");
  prompt.add_generation_prompt = true;
  test::expect_error([&] { format.render(prompt); }, Kind::BadInput, {"not compatible"});
  // What the template leaves out cannot be continued.
  const TemplatedChat deaf(*tokenizer, {.text = "{{ messages[0].content }}", .where = "t"});
  prompt.add_generation_prompt = false;
  test::expect_error([&] { deaf.render(prompt); }, Kind::BadInput, {"does not appear in the chat"});
}

TEST(ChatTemplate, TurnsEndWithTheTokenThatTheTemplateWrites) {
  QUERN_NEED(fixtures());
  const auto tokenizer = load_tokenizer(fixtures() / "tokenizer.json");
  const std::pair<const char*, const char*> cases[] = {
      {"qwen3", "<|im_end|>"},      {"llama-3.1", "<|eot_id|>"}, {"mistral-v3", "</s>"},
      {"gemma-2", "<end_of_turn>"}, {"phi-4", "<|im_end|>"},     {"own-zephyr-like", "</s>"}};
  for (const auto& [name, token] : cases) {
    const TemplatedChat format(*tokenizer, golden_template(name));
    ASSERT_EQ(format.turn_ends().size(), 1U) << name;
    EXPECT_EQ(format.turn_ends()[0], tokenizer->special(token)) << name;
  }
}

TEST(ChatTemplate, BuiltInOnesWriteTheirFormats) {
  QUERN_NEED(fixtures());
  const auto tokenizer = load_tokenizer(fixtures() / "tokenizer.json");
  ChatPrompt prompt;
  prompt.messages = {{ChatRole::System, "S"},
                     {ChatRole::User, "U"},
                     {ChatRole::Assistant, "A"},
                     {ChatRole::User, "V"}};
  // The same conversations by the published templates, where the two write the same.
  const std::pair<const char*, const char*> cases[] = {
      {"chatml", "smollm2"},          {"llama-3", "llama-3"},       {"phi-4", "phi-4"},
      {"llama-2", "own-llama2-like"}, {"gemma", "own-gemma3-like"}, {"alpaca", "own-alpaca-like"},
      {"zephyr", "own-zephyr-like"}};
  for (const auto& [name, published] : cases) {
    ChatTemplateText text = golden_template(published);
    const std::string want = TemplatedChat(*tokenizer, text).render(prompt).text;
    text.text = builtin_chat_template(name);
    ASSERT_FALSE(text.text.empty()) << name;
    EXPECT_EQ(TemplatedChat(*tokenizer, text).render(prompt).text, want) << name;
  }
  for (const std::string_view name : builtin_chat_templates()) {
    ChatTemplateText text = golden_template("own-llama2-like");
    text.text = builtin_chat_template(name);
    const std::string all = TemplatedChat(*tokenizer, text).render(prompt).text;
    for (const char* part : {"S", "U", "A", "V"}) EXPECT_NE(all.find(part), all.npos) << name;
  }
}

TEST(ChatTemplate, IsFoundInAModelsFiles) {
  const test::TempFolder folder;
  EXPECT_TRUE(find_chat_template(folder.path()).text.empty());
  folder.write("tokenizer_config.json",
               R"({"bos_token": {"content": "<s>"}, "eos_token": "</s>", "pad_token": null,
                   "chat_template": "config"})");
  ChatTemplateText found = find_chat_template(folder.path());
  EXPECT_EQ(found.text, "config");
  ASSERT_EQ(found.tokens.size(), 2U);
  EXPECT_EQ(found.tokens[0].second, "<s>");
  folder.write("tokenizer_config.json",
               R"({"chat_template": [{"name": "default", "template": "a"},
                                     {"name": "tool_use", "template": "b"}]})");
  found = find_chat_template(folder.path());
  EXPECT_EQ(found.text, "a");
  EXPECT_EQ(found.with_tools, "b");
  folder.write("chat_template.jinja", "file");
  EXPECT_EQ(find_chat_template(folder.path()).text, "file");
  EXPECT_EQ(named_chat_template("chatml", folder.path()).text, builtin_chat_template("chatml"));
  EXPECT_EQ(
      named_chat_template((folder.path() / "chat_template.jinja").string(), folder.path()).text,
      "file");
  test::expect_error([&] { named_chat_template("chatlm", folder.path()); }, Kind::Misused,
                     {"'chatlm'", "chatml", "llama-3"});
  folder.write("tokenizer_config.json", R"({"chat_template": 5})");
  test::expect_error([&] { find_chat_template(folder.path()); }, Kind::BadInput,
                     {"tokenizer_config.json: chat_template"});
}

}  // namespace
}  // namespace quern
