// Grammars: what fits them fits, what doesn't is stopped at the first byte that is wrong, and what
// cannot be kept to is refused. Schemas are judged by a validator of their own.
#include "grammar/grammar.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <regex>

#include "core/utf8.h"
#include "grammar/automaton_text.h"
#include "support/support.h"

namespace quern::test {
namespace {

using nlohmann::ordered_json;

void expect_language(Grammar grammar, const std::vector<std::string>& good,
                     const std::vector<std::string>& bad, const std::string& name) {
  Automaton automaton(std::move(grammar), nullptr);
  for (const std::string& text : good) EXPECT_TRUE(fits(automaton, text)) << name << ": " << text;
  for (const std::string& text : bad) EXPECT_FALSE(fits(automaton, text)) << name << ": " << text;
}

TEST(Grammar, GbnfMeansWhatItSays) {
  struct Case {
    const char* grammar;
    std::vector<std::string> good, bad;
  };
  const Case cases[] = {
      {R"(root ::= "yes" | "no")", {"yes", "no"}, {"", "y", "yesno", "maybe"}},
      {"root ::= a b\na ::= \"x\"*\nb ::= \"y\"+", {"y", "xy", "xxyy"}, {"x", "yx", ""}},
      {"# words\nroot ::= [a-c]{2,3} # no more", {"ab", "abc"}, {"a", "abcd", "ad"}},
      {R"(root ::= ("ab"){2})", {"abab"}, {"ab", "abb"}},
      {R"(root ::= "ab"? "c")", {"abc", "c"}, {"ac"}},
      {R"(root ::= [^a-z\n] .)", {"1x", "\xC3\xA9z"}, {"ax", "\nx", "\xC3"}},
      {R"(root ::= "\x41\u00e9\"")", {"A\xC3\xA9\""}, {"A"}},
      {R"g(root ::= "(" root ")" | "x")g", {"x", "((x))"}, {"(x", "x)", "()"}},
      {R"(root ::= ("a" | "b" ("c" | ))+)", {"a", "bcab"}, {"c", ""}},
      {R"(root ::= [\u4e00-\u9fff]{1,})", {"\xE4\xB8\xAD\xE6\x96\x87"}, {"a", "\xE4\xB8"}},
      {R"(root ::= (("a"+)+)+)", {"a", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}, {"b", ""}},
  };
  for (const Case& c : cases)
    expect_language(grammar_from_gbnf(c.grammar), c.good, c.bad, c.grammar);
}

TEST(Grammar, RegexesAgreeWithTheStandardLibrary) {
  const char* patterns[] = {"a",       "abc|d",     "(a|b)*c",    "[0-9]{2,4}", "x?y+z*",
                            "(?:ab)+", "[^ab]",     "\\d+\\.\\d", "a{3}",       "(a+)+b",
                            "^ab$",    "\\w\\s\\W", "(a|)(b|)c",  "[a\\-c]+",   "(a{0,2}b){2}",
                            ".b.",     "[]",        "\\(\\)",     "a{2,}",      "((a|b)(c|d))*",
                            "a+?b??",  "(a*)*",     "(a|b*){2}",  "[\\d\\s]+",  "x{1,2}?",
                            "[^\\w-]", "(?:|a)+b",  "a\\-b\\/",   "\\x61\\.",   "[\\W_]"};
  Rng rng(1);
  for (const std::string pattern : patterns) {
    if (pattern == "[]") continue;  // the libraries differ about it: refused below
    Automaton automaton(grammar_from_regex(pattern), nullptr);
    const std::regex judge(pattern);
    for (int i = 0; i < 3000; ++i) {
      constexpr std::string_view kBytes = "abcdxyz0123. -()_";
      std::string text;
      for (uint64_t n = rng.below(7); n > 0; --n) text += kBytes[rng.below(kBytes.size())];
      ASSERT_EQ(fits(automaton, text), std::regex_match(text, judge)) << pattern << ": " << text;
    }
  }
}

// A class is exactly its code points: every one of Unicode is tried.
TEST(Grammar, ClassesAreExactlyTheirCharacters) {
  const std::pair<uint32_t, uint32_t> ranges[] = {{0x7F, 0x80},     {0x7FE, 0x801},
                                                  {0xE9, 0x4E2D},   {0xFFFE, 0x10001},
                                                  {0x41, 0x10FFFF}, {0x10FFFF, 0x10FFFF}};
  for (const auto& [first, last] : ranges) {
    Grammar grammar;
    const uint32_t root = grammar.new_rule();
    grammar.add(root, {grammar.characters({{first, last}})});
    grammar.finish(root);
    Automaton automaton(std::move(grammar), nullptr);
    for (uint32_t point = 0; point <= 0x10FFFF; ++point) {
      if (point >= 0xD800 && point <= 0xDFFF) continue;
      std::string text;
      utf8::append(text, point);
      ASSERT_EQ(fits(automaton, text), point >= first && point <= last) << point;
    }
    EXPECT_FALSE(fits(automaton, "\xED\xA0\x80"));
    EXPECT_FALSE(fits(automaton, "\xC0\x80"));
    EXPECT_FALSE(fits(automaton, "\xF4\x90\x80\x80"));
  }
}

std::string repeated(const std::string& text, size_t count) {
  std::string out;
  for (size_t i = 0; i < count; ++i) out += text;
  return out;
}

TEST(Grammar, WhatCannotBeKeptToIsRefused) {
  const std::string grammars[] = {
      "",
      "root",
      "root ::",
      "root ::= (",
      "root ::= )",
      "root ::= \"a",
      "root ::= [a",
      "root ::= []",
      "root ::= [z-a]",
      "root ::= a",
      "Root ::= \"a\"",
      "x ::= \"a\"",
      "root ::= \"a\"\nroot ::= \"b\"",
      "root ::= root \"a\" | \"a\"",
      "root ::= a\na ::= b\nb ::= root | \"x\"",
      "root ::= (\"\")*",
      "root ::= (\"a\"*)*",
      "root ::= e root | \"a\"\ne ::= \"\" | \"b\"",
      "root ::= \"a\" root",
      "root ::= \"a\"{5,2}",
      "root ::= \"a\"{1000000000}",
      "root ::= \"a\"{0,1000000000}",
      "root ::= \"\\q\"",
      "root ::= \"\\ud800\"",
      "root ::= \"\\U00110000\"",
      "root ::= \xFF",
      "root ::= " + repeated("(", 60'000) + "\"a\"" + repeated(")", 60'000),
      "root ::= " + repeated("(", 10'000),
      "root ::= " + repeated("\"a\" ", 60'000)};
  for (const std::string& text : grammars) {
    EXPECT_THROW(grammar_from_gbnf(text), Error) << text.substr(0, 60);
  }
  const std::string patterns[] = {"(",        ")",       "a)",
                                  "[",        "[]",      "*",
                                  "a**",      "a++",     "a*+",
                                  "a{2,1}",   "(?=a)",   "(?!a)",
                                  "\\1",      "a\\b",    "\\q",
                                  "^^",       "a$b",     "{",
                                  "[b-a]",    "\xFF",    repeated("(", 60'000),
                                  "(?<a",     "\\B",     "(?<=a)b",
                                  "[[:a:]]",  "\\ud800", "a{1000000000}",
                                  "[^\\s\\S]"};
  for (const std::string& text : patterns) {
    EXPECT_THROW(grammar_from_regex(text), Error) << text.substr(0, 60);
  }
}

// ---- Schemas ----

// JSON Schema's words as far as the random schemas use them.
bool valid(const ordered_json& schema, const ordered_json& value) {
  if (schema.is_boolean()) return schema.get<bool>();
  if (schema.contains("anyOf")) {
    const ordered_json& options = schema["anyOf"];
    return std::any_of(options.begin(), options.end(),
                       [&](const ordered_json& option) { return valid(option, value); });
  }
  if (schema.contains("enum")) {
    const ordered_json& list = schema["enum"];
    return std::find(list.begin(), list.end(), value) != list.end();
  }
  if (schema.contains("const")) return value == schema["const"];
  if (!schema.contains("type")) return true;
  const std::string type = schema["type"];
  const auto within = [&](const char* least, const char* most, size_t count) {
    return count >= schema.value(least, size_t{0}) && count <= schema.value(most, SIZE_MAX);
  };
  if (type == "string") {
    if (!value.is_string()) return false;
    const auto& text = value.get_ref<const std::string&>();
    const auto points =
        std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; });
    return within("minLength", "maxLength", static_cast<size_t>(points));
  }
  if (type == "integer") return value.is_number_integer();
  if (type == "number") return value.is_number();
  if (type == "boolean") return value.is_boolean();
  if (type == "null") return value.is_null();
  if (type == "array") {
    return value.is_array() && within("minItems", "maxItems", value.size()) &&
           (!schema.contains("items") ||
            std::all_of(value.begin(), value.end(),
                        [&](const ordered_json& item) { return valid(schema["items"], item); }));
  }
  if (!value.is_object()) return false;
  for (const auto& name : schema.value("required", ordered_json::array())) {
    if (!value.contains(name.get<std::string>())) return false;
  }
  for (const auto& [name, item] : value.items()) {
    if (schema.contains("properties") && schema["properties"].contains(name)) {
      if (!valid(schema["properties"][name], item)) return false;
    } else if (schema.contains("additionalProperties") &&
               !valid(schema["additionalProperties"], item)) {
      return false;
    }
  }
  return true;
}

ordered_json random_schema(Rng& rng, int depth) {
  const auto some = [&](ordered_json& schema, const char* least, const char* most) {
    const uint64_t low = rng.below(4);
    if (rng.below(2) == 0) schema[least] = low;
    if (rng.below(2) == 0) schema[most] = low + rng.below(4);
  };
  const uint64_t kind = rng.below(depth > 3 ? 7 : 10);
  ordered_json schema = ordered_json::object();
  switch (kind) {
    case 0:
      schema["type"] = "string";
      some(schema, "minLength", "maxLength");
      break;
    case 1:
      schema["type"] = "integer";
      break;
    case 2:
      schema["type"] = "number";
      break;
    case 3:
      schema["type"] = rng.below(2) == 0 ? "boolean" : "null";
      break;
    case 4:
      schema["enum"] = {"a\"b", 1, -2.5, nullptr, true, {1, 2}, {{"k", "\xE4\xB8\xAD"}}};
      break;
    case 5:
      schema["const"] = rng.below(2) == 0 ? ordered_json("line\nend") : ordered_json(7);
      break;
    case 6:
      if (rng.below(4) == 0) break;  // anything
      schema["type"] = "object";
      schema["additionalProperties"] = {{"type", "integer"}};
      break;
    case 7:
      schema["type"] = "array";
      some(schema, "minItems", "maxItems");
      schema["items"] = random_schema(rng, depth + 1);
      break;
    case 8:
      schema["anyOf"] = {random_schema(rng, depth + 1), random_schema(rng, depth + 1)};
      break;
    default:
      schema["type"] = "object";
      schema["properties"] = ordered_json::object();
      schema["required"] = ordered_json::array();
      for (uint64_t n = 1 + rng.below(4); n > 0; --n) {
        const std::string name = "p\"" + std::to_string(n);
        schema["properties"][name] = random_schema(rng, depth + 1);
        if (rng.below(2) == 0) schema["required"].push_back(name);
      }
      if (rng.below(2) == 0) schema["additionalProperties"] = false;
  }
  return schema;
}

TEST(Grammar, WhatASchemaAllowsIsValid) {
  Rng rng(7);
  int judged = 0;
  for (int i = 0; i < 1000; ++i) {
    const ordered_json schema = random_schema(rng, 0);
    Automaton automaton(grammar_from_schema(schema), nullptr);
    for (int j = 0; j < 2; ++j) {
      const auto text = walk(automaton, rng, 3000);
      if (!text) continue;
      const ordered_json value = ordered_json::parse(*text, nullptr, /*allow_exceptions=*/false);
      ASSERT_FALSE(value.is_discarded()) << schema << "\n" << *text;
      ASSERT_TRUE(valid(schema, value)) << schema << "\n" << *text;
      ++judged;
    }
  }
  EXPECT_GT(judged, 1500);
}

TEST(Grammar, SchemasAllowWhatTheyShould) {
  const auto check = [](const char* schema, const std::vector<std::string>& good,
                        const std::vector<std::string>& bad) {
    expect_language(grammar_from_schema(ordered_json::parse(schema)), good, bad, schema);
  };
  check(R"({"type":"object","properties":{"z":{"type":"integer"},"a":{"type":"string"}},
           "required":["z"],"additionalProperties":false})",
        {R"({"z":1})", R"({"z": -20, "a": "x"})"},
        {R"({"a":"x"})", R"({"a":"x","z":1})", "{}", R"({"z":01})"});
  check(
      R"({"$defs":{"n":{"type":"object","properties":{"next":{"anyOf":[{"$ref":"#/$defs/n"},{"type":"null"}]}},
           "required":["next"]}},"$ref":"#/$defs/n"})",
      {R"({"next":null})", R"({"next":{"next":null}})"}, {"null", R"({"next":{}})"});
  check(R"({"type":["string","null"]})", {"null", R"("x")"}, {"1"});
  check(R"({"type":"array","items":{"type":"boolean"},"minItems":1,"maxItems":2})",
        {"[true]", "[true, false]"}, {"[]", "[true,true,true]"});
  check("{}", {"1", "[]", R"({"a":[1.5e3, null]})"}, {"", "tru", "[1,]", R"({"a":1,})"});
  check(R"({"type":"string","maxLength":1})", {R"("é")", R"("\u00e9")", R"("")"},
        {R"("éé")", R"("\ud800")"});
  expect_language(grammar_of_json_object(), {"{}", R"({"a":{"b":[]}})"}, {"[]", "1", R"({"a"})"},
                  "json_object");
}

TEST(Grammar, SchemasThatCannotBeKeptToAreRefused) {
  std::string deep, names;
  for (int i = 0; i < 100; ++i) deep += R"({"type":"array","items":)";
  deep += "{}" + repeated("}", 100);
  for (int i = 0; i < 10'000; ++i) names += "\"value" + std::to_string(i) + "\",";
  const std::string schemas[] = {
      "1",
      "[]",
      "null",
      "false",
      R"({"$ref":"#"})",
      R"({"$ref":"#/$defs/x"})",
      R"({"$ref":"http://localhost/x"})",
      R"({"$ref":1})",
      R"({"$defs":{"a":{"$ref":"#/$defs/b"},"b":{"$ref":"#/$defs/a"}},"$ref":"#/$defs/a"})",
      R"({"type":"object","properties":{"a":{"$ref":"#"}},"required":["a"]})",
      R"({"enum":[]})",
      R"({"enum":1})",
      R"({"anyOf":[]})",
      R"({"type":"strin"})",
      R"({"type":1})",
      R"({"type":[]})",
      R"({"type":[1]})",
      R"({"oneOf":[{},{}]})",
      R"({"not":{}})",
      R"({"if":{}})",
      R"({"type":"array","minItems":1000000000})",
      R"({"type":"array","minItems":-1})",
      R"({"type":"array","minItems":1.5})",
      R"({"type":"array","minItems":3,"maxItems":2})",
      R"({"type":"array","uniqueItems":true})",
      R"({"type":"string","minLength":5,"maxLength":4})",
      R"({"type":"object","required":["a"],"additionalProperties":false})",
      R"({"type":"object","required":"a"})",
      R"({"type":"object","properties":[]})",
      R"({"type":"object","patternProperties":{}})",
      R"({"type":"string","enum":[1]})",
      R"({"enum":["a"],"minLength":3})",
      R"({"const":1,"enum":[2]})",
      R"({"type":"object","properties":{"a":{"frob":1}}})",
      R"({"type":"array","minItems":1,"items":false})",
      deep,
      "{\"enum\":[" + names + "1]}"};
  for (const std::string& text : schemas) {
    EXPECT_THROW(grammar_from_schema(ordered_json::parse(text)), Error) << text.substr(0, 80);
  }
}

}  // namespace
}  // namespace quern::test
