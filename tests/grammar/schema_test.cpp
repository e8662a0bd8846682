// Grammars of JSON Schemas: whatever they allow is valid in the eyes of valijson, another
// implementation; what people's models say is allowed; what cannot be kept to is refused by name.
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <nlohmann/json.hpp>
#include <optional>
#include <regex>
#include <valijson/adapters/nlohmann_json_adapter.hpp>
#include <valijson/schema.hpp>
#include <valijson/schema_parser.hpp>
#include <valijson/validator.hpp>

#include "core/utf8.h"
#include "grammar/automaton_text.h"
#include "support/support.h"

namespace quern::test::schemas {
namespace {

using nlohmann::ordered_json;

void expect_language(const char* schema, const std::vector<std::string>& good,
                     const std::vector<std::string>& bad) {
  SCOPED_TRACE(schema);
  try {
    Automaton automaton(grammar_from_schema(ordered_json::parse(schema)), nullptr);
    for (const std::string& text : good) EXPECT_TRUE(fits(automaton, text)) << text;
    for (const std::string& text : bad) EXPECT_FALSE(fits(automaton, text)) << text;
  } catch (const Error& problem) {
    ADD_FAILURE() << problem.what();
  }
}

std::string refusal(const std::string& schema) {
  try {
    grammar_from_schema(ordered_json::parse(schema));
  } catch (const Error& problem) {
    return problem.what();
  }
  return "";
}

// valijson knows draft 7: what is called prefixItems today is a list of items there.
nlohmann::json as_draft_7(nlohmann::json schema) {
  if (schema.is_object()) {
    if (schema.contains("prefixItems")) {
      if (schema.contains("items")) schema["additionalItems"] = schema["items"];
      schema["items"] = schema["prefixItems"];
      schema.erase("prefixItems");
    }
    schema.erase("format");  // judged apart
    for (auto& [name, value] : schema.items()) value = as_draft_7(value);
  } else if (schema.is_array()) {
    for (auto& value : schema) value = as_draft_7(value);
  }
  return schema;
}

class Validator {
 public:
  explicit Validator(const ordered_json& schema) {
    const nlohmann::json tree = as_draft_7(nlohmann::json(schema));
    valijson::SchemaParser().populateSchema(valijson::adapters::NlohmannJsonAdapter(tree), schema_);
  }
  bool valid(const nlohmann::json& value) {
    valijson::Validator validator;
    return validator.validate(schema_, valijson::adapters::NlohmannJsonAdapter(value), nullptr);
  }

 private:
  valijson::Schema schema_;
};

ordered_json random_schema(Rng& rng, int depth);

ordered_json random_number(Rng& rng, bool integer) {
  ordered_json schema = {{"type", integer ? "integer" : "number"}};
  const int64_t low = static_cast<int64_t>(rng.below(4000)) - 2000;
  const int64_t span = static_cast<int64_t>(rng.below(3000)) + 20;
  // Quarters and eighths are doubles, so that no judge can differ about the last bit.
  const double scale = integer ? 1 : 1 / static_cast<double>(1 << rng.below(4));
  const auto bound = [&](int64_t at) {
    return integer ? ordered_json(at) : ordered_json(static_cast<double>(at) * scale);
  };
  if (rng.below(2) == 0) schema[rng.below(2) == 0 ? "minimum" : "exclusiveMinimum"] = bound(low);
  if (rng.below(2) == 0) {
    schema[rng.below(2) == 0 ? "maximum" : "exclusiveMaximum"] = bound(low + span);
  }
  if (rng.below(3) == 0)
    schema["multipleOf"] = integer ? ordered_json(1 + rng.below(9)) : ordered_json(0.25);
  return schema;
}

ordered_json random_string(Rng& rng) {
  constexpr const char* kPatterns[] = {
      "^[a-c]+$", "\\d{2,3}",      "^(ab|c)*$",        "^x",       "y$",     "^[^a-z]+$", "^a|b$",
      "[0-9]+?-", "^\\w+\\s\\w+$", "^\"\\\\[\\n\\t]$", "^(a*)*b$", "^[^,]+$"};
  ordered_json schema = {{"type", "string"}};
  const uint64_t low = rng.below(4);
  if (rng.below(2) == 0) schema["minLength"] = low;
  if (rng.below(2) == 0) schema["maxLength"] = low + 4 + rng.below(4);
  if (rng.below(2) == 0) schema["pattern"] = kPatterns[rng.below(std::size(kPatterns))];
  return schema;
}

ordered_json random_object(Rng& rng, int depth) {
  ordered_json schema = {{"type", "object"}, {"properties", ordered_json::object()}};
  schema["required"] = ordered_json::array();
  const uint64_t count = 1 + rng.below(4);
  for (uint64_t n = count; n > 0; --n) {
    const std::string name = (rng.below(3) == 0 ? "p\"" : "p") + std::to_string(n);
    schema["properties"][name] = random_schema(rng, depth + 1);
    if (rng.below(2) == 0) schema["required"].push_back(name);
  }
  const uint64_t others = rng.below(3);
  if (others == 0) schema["additionalProperties"] = false;
  if (others == 1) schema["additionalProperties"] = random_schema(rng, depth + 2);
  const uint64_t required = schema["required"].size();
  if (rng.below(3) == 0) schema["minProperties"] = others == 1 ? required : rng.below(count + 1);
  if (rng.below(3) == 0) schema["maxProperties"] = count + rng.below(3);
  return schema;
}

ordered_json random_array(Rng& rng, int depth) {
  ordered_json schema = {{"type", "array"}};
  if (rng.below(2) == 0) {
    for (uint64_t n = 1 + rng.below(3); n > 0; --n) {
      schema["prefixItems"].push_back(random_schema(rng, depth + 1));
    }
  }
  if (rng.below(2) == 0) {
    schema["items"] = rng.below(4) == 0 ? ordered_json(false) : random_schema(rng, depth + 1);
  }
  const bool closed = schema.contains("items") && schema["items"] == false;
  const uint64_t listed = schema.contains("prefixItems") ? schema["prefixItems"].size() : 0;
  const uint64_t low = closed ? rng.below(listed + 1) : rng.below(4);
  if (rng.below(2) == 0) schema["minItems"] = low;
  if (rng.below(2) == 0) schema["maxItems"] = low + rng.below(4);
  return schema;
}

ordered_json random_schema(Rng& rng, int depth) {
  switch (rng.below(depth > 2 ? 8 : 14)) {
    case 0:
    case 1:
      return random_number(rng, true);
    case 2:
      return random_number(rng, false);
    case 3:
    case 4:
      return random_string(rng);
    case 5:
      return {{"type", rng.below(2) == 0 ? "boolean" : "null"}};
    case 6:
      return {{"enum", {"a\"b", 1, -2.5, nullptr, true, {1, 2}, {{"k", "\xE4\xB8\xAD"}}}}};
    case 7:
      return rng.below(3) == 0 ? ordered_json::object()
                               : ordered_json{{"type", {"string", "integer", "null"}}};
    case 8:
    case 9:
      return random_array(rng, depth);
    case 10:
      return {{"anyOf", {random_schema(rng, depth + 1), random_schema(rng, depth + 1)}}};
    case 11: {
      // Together: both at once of numbers or of objects.
      if (rng.below(2) == 0) {
        return {{"allOf", {random_number(rng, false), {{"minimum", -1e6}, {"maximum", 1e6}}}}};
      }
      ordered_json all = random_object(rng, depth);
      ordered_json more = {{"properties", {{"more", random_schema(rng, depth + 2)}}}};
      if (all.contains("additionalProperties")) all.erase("additionalProperties");
      return {{"allOf", {more}}, {"type", "object"}, {"properties", all["properties"]}};
    }
    case 12:
      return {
          {"oneOf",
           {random_number(rng, rng.below(2) == 0),
            random_string(rng),
            {{"type", "object"},
             {"properties", {{"kind", {{"const", "one"}}}}},
             {"required", {"kind"}}},
            {{"type", "object"},
             {"properties", {{"kind", {{"const", "two"}}}, {"x", random_schema(rng, depth + 1)}}},
             {"required", {"kind"}}}}}};
    default:
      return random_object(rng, depth);
  }
}

TEST(Schema, WhatARandomSchemaAllowsIsValid) {
  Rng rng(11);
  int judged = 0, refused = 0;
  for (int i = 0; i < 600; ++i) {
    const ordered_json schema = random_schema(rng, 0);
    std::optional<Automaton> automaton;
    try {
      automaton.emplace(grammar_from_schema(schema), nullptr);
    } catch (const Error&) {
      ++refused;  // bounds without a number between them and the like
      continue;
    }
    Validator judge(schema);
    for (int j = 0; j < 2; ++j) {
      const auto text = walk(*automaton, rng, 2000);
      if (!text) continue;
      const nlohmann::json value =
          nlohmann::json::parse(*text, nullptr, /*allow_exceptions=*/false);
      ASSERT_FALSE(value.is_discarded()) << schema << "\n" << *text;
      ASSERT_TRUE(judge.valid(value)) << schema << "\n" << *text;
      ++judged;
    }
  }
  EXPECT_GT(judged, 800);
  EXPECT_LT(refused, 100);
}

// Every integer and every quarter near the bounds is there, and no other.
TEST(Schema, BoundsOfNumbersAreExact) {
  Rng rng(3);
  for (int i = 0; i < 120; ++i) {
    const bool integer = i % 2 == 0;
    const ordered_json schema = random_number(rng, integer);
    std::optional<Automaton> automaton;
    try {
      automaton.emplace(grammar_from_schema(schema), nullptr);
    } catch (const Error& problem) {
      EXPECT_NE(std::string(problem.what()).find("between"), std::string::npos) << problem.what();
      continue;
    }
    Validator judge(schema);
    for (int64_t n = -2100 * 4; n < 5100 * 4; n += integer ? 4 : 1) {
      const double value = static_cast<double>(n) / 4;
      const std::string text = nlohmann::json(value).dump();
      const std::string shown =
          n % 4 == 0 ? std::to_string(n / 4) : text;  // 3.0 as 3, which an integer is
      ASSERT_EQ(fits(*automaton, shown),
                judge.valid(n % 4 == 0 ? nlohmann::json(n / 4) : nlohmann::json(value)))
          << schema << " " << shown;
    }
  }
}

TEST(Schema, KeywordsMeanWhatTheySay) {
  expect_language(R"({"type":"integer","minimum":3})", {"3", "10", "999"}, {"2", "-3", "0", "03"});
  expect_language(R"({"type":"integer","exclusiveMinimum":-2,"exclusiveMaximum":2})",
                  {"-1", "0", "1"}, {"-2", "2", "-0"});
  expect_language(R"({"type":"integer","minimum":0.5,"maximum":2.5})", {"1", "2"}, {"0", "3"});
  expect_language(R"({"type":"integer","minimum":1e15})", {"1000000000000000"},
                  {"999999999999999"});
  expect_language(R"({"type":"number","exclusiveMinimum":0,"maximum":1})",
                  {"1", "0.5", "0.000001", "1.0"}, {"0", "0.0", "1.1", "-0.5"});
  expect_language(R"({"type":"number","minimum":1e-9,"maximum":2e-9})", {"0.000000001"},
                  {"0", "1"});
  expect_language(R"({"type":"integer","multipleOf":7})", {"0", "7", "-14", "7007"},
                  {"8", "70006"});
  expect_language(R"({"type":"integer","multipleOf":1000,"minimum":1,"maximum":9999})",
                  {"1000", "9000"}, {"0", "500", "10000"});
  expect_language(R"({"type":"number","multipleOf":0.01})", {"0.01", "12.34", "-3.00", "1.5", "7"},
                  {"0.001", "1.5e3", "1.005"});
  expect_language(R"({"type":"integer","multipleOf":0.5})", {"0", "3"}, {"0.5"});
  expect_language(R"({"type":"string","pattern":"^[a-z]+$"})", {"\"abc\""}, {"\"\"", "\"aB\""});
  expect_language(R"({"type":"string","pattern":"b"})", {"\"abc\"", "\"b\"", R"("\n\"b")"},
                  {"\"\"", "\"ac\""});
  expect_language(R"({"type":"string","pattern":"^\"\\\\$"})", {R"("\"\\")"}, {R"("\\\"")"});
  expect_language(R"({"type":"string","pattern":"^[ab]*$","minLength":2,"maxLength":3})",
                  {"\"ab\"", "\"bab\""}, {"\"a\"", "\"abab\"", "\"abc\""});
  expect_language(R"({"type":"array","prefixItems":[{"type":"integer"},{"type":"string"}],
                      "minItems":2,"maxItems":2})",
                  {R"([1, "a"])"}, {"[1]", R"(["a",1])", R"([1,"a",2])"});
  expect_language(R"({"prefixItems":[{"type":"integer"}],"items":{"type":"boolean"}})",
                  {"[]", "[1]", "[1,true,false]"}, {"[true]", "[1,2]"});
  expect_language(R"({"items":[{"type":"integer"}],"additionalItems":false})", {"[]", "[1]"},
                  {"[1,1]", "[true]"});
  expect_language(R"({"items":{"type":"integer"}})", {"[]", "[1,2]"}, {"1", "[\"a\"]"});
  expect_language(R"({"allOf":[{"type":"integer","minimum":1},{"maximum":3}],"multipleOf":2})",
                  {"2"}, {"1", "3", "4"});
  expect_language(R"({"allOf":[{"properties":{"a":{"type":"integer"}},"required":["a"]},
                               {"properties":{"a":{"minimum":5},"b":{"type":"null"}}}]})",
                  {R"({"a":5})", R"({"a":6,"b":null})"}, {R"({"a":4})", "{}", R"({"b":null})"});
  expect_language(R"({"$ref":"#/$defs/a","minimum":3,"$defs":{"a":{"type":"integer"}}})", {"3"},
                  {"2", "\"a\""});
  expect_language(R"({"oneOf":[{"type":"integer"},{"type":"string"}]})", {"1", "\"a\""}, {"null"});
  expect_language(R"({"oneOf":[{"type":"integer","maximum":3},{"type":"integer","minimum":4}]})",
                  {"3", "4"}, {"null"});
  expect_language(
      R"({"oneOf":[{"type":"string","pattern":"^a+$"},{"type":"string","pattern":"^b+$"}]})",
      {"\"aa\"", "\"b\""}, {"\"ab\""});
  expect_language(
      R"({"properties":{"ab":{"type":"integer"}},"additionalProperties":{"type":"null"}})",
      {R"({"ab":1})", R"({"ab":1,"x":null})", R"({"a":null,"abc":null})", "{}"},
      {R"({"ab":null})", R"({"x":1})", R"({"\u0061b":null})"});
  expect_language(R"({"properties":{"a":{},"b":{},"c":{}},"minProperties":1,"maxProperties":2})",
                  {R"({"a":1})", R"({"b":1,"c":2})"}, {"{}", R"({"a":1,"b":1,"c":1})"});
  expect_language(R"({"anyOf":[{"required":["a"]},{"required":["b"]}],
                      "properties":{"a":{"type":"null"},"b":{"type":"null"}},"type":"object"})",
                  {R"({"a":null})", R"({"b":null})", R"({"a":null,"b":null})"}, {"{}"});
  expect_language(R"({"type":"integer","title":"t","description":"d","default":1,"examples":[2]})",
                  {"1"}, {"\"a\""});
  expect_language(R"({"type":"string","pattern":"^.{2}$"})", {"\"ab\"", "\"\xE4\xB8\xAD.\""},
                  {"\"a\"", "\"abc\"", R"("a\n")"});
  expect_language(R"({"enum":["ab","c",7],"minLength":2})", {"\"ab\"", "7"}, {"\"c\""});
}

TEST(Schema, FormatsAreThoseOfTheirStandards) {
  const auto check = [](const char* format, std::vector<std::string> good,
                        std::vector<std::string> bad) {
    for (auto* list : {&good, &bad}) {
      for (std::string& text : *list) text = "\"" + text + "\"";
    }
    expect_language(ordered_json{{"type", "string"}, {"format", format}}.dump().c_str(), good, bad);
  };
  check("date", {"2024-02-29", "2000-02-29", "1999-12-31", "0001-01-01"},
        {"2023-02-29", "1900-02-29", "2024-04-31", "0000-01-01", "2024-13-01", "24-01-01"});
  check("time", {"00:00:00Z", "23:59:59.123+02:00"},
        {"24:00:00Z", "12:00Z", "12:00:60Z", "12:00:00"});
  check("date-time", {"2024-02-29T12:00:00Z", "2024-01-01T00:00:00.5-07:30"},
        {"2024-02-30T12:00:00Z", "2024-01-01 00:00:00Z"});
  check("uuid", {"123e4567-e89b-12d3-a456-426614174000"}, {"123e4567e89b12d3a456426614174000"});
  check("email", {"a@b.co", "john.o'neil+x@mail.example.org"},
        {"a", "@b.co", "a@", "a..b@c.de", ".a@b.co", "a@b", "a b@c.de"});
  check("ipv4", {"0.0.0.0", "255.255.255.255", "10.1.2.3"}, {"256.1.1.1", "1.2.3", "01.2.3.4"});
  check("uri", {"https://example.org/a/b?x=1#y", "http://localhost:8080", "ftp://1.2.3.4/%20"},
        {"example.org", "http://", "http://a b.c/", "https://example.org/%2"});
  check("duration", {"P1Y2M3D", "PT1H", "P2W"}, {"P", "PT", "1D", "P1H"});
  // Every day of four hundred years, and none besides.
  Automaton dates(grammar_from_schema({{"type", "string"}, {"format", "date"}}), nullptr);
  for (int year = 1890; year < 2110; ++year) {
    for (unsigned month = 0; month <= 13; ++month) {
      for (unsigned day = 0; day <= 32; ++day) {
        const std::chrono::year_month_day when{std::chrono::year(year), std::chrono::month(month),
                                               std::chrono::day(day)};
        char text[24];
        std::snprintf(text, sizeof text, "\"%04d-%02u-%02u\"", year, month, day);
        ASSERT_EQ(fits(dates, text), when.ok()) << text;
      }
    }
  }
}

// What `model_json_schema()` of Pydantic says for the usual kinds of fields.
TEST(Schema, PydanticsSchemasCompile) {
  const char* schema = R"({
    "$defs": {
      "Color": {"enum": ["red", "green"], "title": "Color", "type": "string"},
      "Cat": {"properties": {"kind": {"const": "cat", "title": "Kind", "type": "string"},
                             "lives": {"default": 9, "maximum": 9, "minimum": 1, "title": "Lives",
                                       "type": "integer"}},
              "required": ["kind"], "title": "Cat", "type": "object"},
      "Dog": {"properties": {"kind": {"const": "dog", "title": "Kind", "type": "string"},
                             "name": {"minLength": 1, "pattern": "^[A-Z][a-z]*$", "title": "Name",
                                      "type": "string"}},
              "required": ["kind", "name"], "title": "Dog", "type": "object"},
      "Node": {"properties": {"next": {"anyOf": [{"$ref": "#/$defs/Node"}, {"type": "null"}],
                                       "default": null}},
               "title": "Node", "type": "object"}
    },
    "additionalProperties": false,
    "description": "One of everything.",
    "properties": {
      "age": {"exclusiveMinimum": 0, "maximum": 130, "title": "Age", "type": "integer"},
      "ratio": {"anyOf": [{"maximum": 1.0, "minimum": 0.0, "type": "number"}, {"type": "null"}],
                "default": null, "title": "Ratio"},
      "price": {"multipleOf": 0.01, "title": "Price", "type": "number"},
      "color": {"$ref": "#/$defs/Color", "default": "red", "description": "of the fur"},
      "mode": {"enum": ["fast", "slow", 3], "title": "Mode"},
      "born": {"format": "date", "title": "Born", "type": "string"},
      "seen": {"format": "date-time", "title": "Seen", "type": "string"},
      "id": {"format": "uuid", "title": "Id", "type": "string"},
      "mail": {"format": "email", "title": "Mail", "type": "string"},
      "site": {"format": "uri", "maxLength": 2083, "minLength": 1, "title": "Site",
               "type": "string"},
      "pet": {"discriminator": {"mapping": {"cat": "#/$defs/Cat", "dog": "#/$defs/Dog"},
                                "propertyName": "kind"},
              "oneOf": [{"$ref": "#/$defs/Cat"}, {"$ref": "#/$defs/Dog"}], "title": "Pet"},
      "pair": {"maxItems": 2, "minItems": 2,
               "prefixItems": [{"type": "integer"}, {"type": "string"}], "title": "Pair",
               "type": "array"},
      "tags": {"items": {"type": "string"}, "maxItems": 3, "title": "Tags", "type": "array"},
      "counts": {"additionalProperties": {"minimum": 0, "type": "integer"}, "title": "Counts",
                 "type": "object"},
      "tree": {"$ref": "#/$defs/Node"}
    },
    "required": ["age", "price", "mode", "born", "pet"],
    "title": "Everything",
    "type": "object"
  })";
  expect_language(
      schema,
      {R"({"age": 3, "price": 1.50, "mode": "fast", "born": "2020-02-29", "pet": {"kind": "cat"}})",
       R"({"age":130,"ratio":0.5,"price":0.99,"color":"green","mode":3,"born":"1999-01-31",)"
       R"("seen":"2024-05-06T07:08:09Z","id":"123e4567-e89b-12d3-a456-426614174000",)"
       R"("mail":"a@b.co","site":"https://example.org/","pet":{"kind":"dog","name":"Rex"},)"
       R"("pair":[1,"a"],"tags":["x"],"counts":{"x":1},"tree":{"next":{"next":null}}})"},
      {R"({"age":0,"price":1.50,"mode":"fast","born":"2020-02-29","pet":{"kind":"cat"}})",
       R"({"age":3,"price":1.505,"mode":"fast","born":"2020-02-29","pet":{"kind":"cat"}})",
       R"({"age":3,"price":1.50,"mode":"fast","born":"2020-02-30","pet":{"kind":"cat"}})",
       R"({"age":3,"price":1.50,"mode":"fast","born":"2020-02-29","pet":{"kind":"dog"}})"});
}

TEST(Schema, WhatCannotBeKeptToIsRefusedByName) {
  const std::pair<const char*, const char*> cases[] = {
      {R"({"not":{}})", "'not'"},
      {R"({"if":{}})", "'if'"},
      {R"({"type":"array","uniqueItems":true})", "uniqueItems"},
      {R"({"type":"array","contains":{}})", "contains"},
      {R"({"type":"object","patternProperties":{}})", "patternProperties"},
      {R"({"type":"object","propertyNames":{}})", "propertyNames"},
      {R"({"oneOf":[{},{}]})", "oneOf"},
      {R"({"oneOf":[{"type":"integer"},{"type":"number"}]})", "oneOf"},
      {R"({"oneOf":[{"type":"string"},{"const":"a"}]})", "oneOf"},
      {R"({"type":"string","format":"idn-email"})", "format"},
      {R"s({"type":"string","pattern":"(?=a)"})s", "pattern"},
      {R"({"type":"string","pattern":"(a)\\1"})", "pattern"},
      {R"({"type":"string","pattern":"^a$","minLength":2})", "pattern"},
      {R"({"type":"integer","minimum":3,"maximum":2})", "minimum"},
      {R"({"type":"integer","minimum":2.1,"maximum":2.9})", "minimum"},
      {R"({"type":"integer","minimum":"3"})", "minimum"},
      {R"({"type":"integer","multipleOf":0})", "multipleOf"},
      {R"({"type":"integer","multipleOf":1000003})", "multipleOf"},
      {R"({"type":"integer","minimum":1e30})", "minimum"},
      {R"({"type":"object","properties":{"a":{}},"minProperties":2})", "minProperties"},
      {R"({"allOf":[{"type":"string"},{"type":"integer"}]})", ""},
      {R"({"allOf":[]})", "allOf"},
      {R"({"type":"object","frob":1})", "frob"},
  };
  for (const auto& [schema, word] : cases) {
    const std::string problem = refusal(schema);
    EXPECT_FALSE(problem.empty()) << schema;
    EXPECT_NE(problem.find(word), std::string::npos) << schema << ": " << problem;
  }
}

// Nothing here may take long, whatever it comes to.
TEST(Schema, HostileSchemasEndSoon) {
  std::string wide = R"({"oneOf":[)";
  for (int i = 0; i < 150; ++i) {
    wide += R"({"type":"string","pattern":"^(a|b)*c{)" + std::to_string(i) + R"(}$"},)";
  }
  std::string crossed = R"({"allOf":[)";
  for (int i = 0; i < 40; ++i) crossed += R"({"anyOf":[{"minimum":1},{"maximum":9}]},)";
  std::string circles = R"({"$defs":{)";
  for (int i = 0; i < 50; ++i) {
    circles += "\"a" + std::to_string(i) + R"(":{"allOf":[{"$ref":"#/$defs/a)" +
               std::to_string((i + 1) % 50) + R"("}]},)";
  }
  std::string doubled = R"({"$defs":{"a0":{"type":"null"})";
  for (int i = 0; i < 25; ++i) {
    const std::string ref = R"({"$ref":"#/$defs/a)" + std::to_string(i) + R"("})";
    doubled += ",\"a" + std::to_string(i + 1) + R"(":{"allOf":[)" + ref + "," + ref + "]}";
  }
  std::string values = R"({"enum":[)";
  for (int i = 0; i < 7500; ++i) values += "[" + std::to_string(i) + "],";
  const std::string schemas[] = {
      doubled + R"(},"$ref":"#/$defs/a25"})",
      values + "[]]}",
      wide + R"({"type":"null"}]})",
      crossed + "{}]}",
      circles + R"("b":{}},"$ref":"#/$defs/a0"})",
      R"({"type":"string","pattern":"((a{1,500}){1,500}){1,500}"})",
      R"({"type":"string","pattern":"^(a|aa|aaa)*b(.|..)*$","maxLength":4000})",
      R"({"type":"array","prefixItems":[{"$ref":"#"},{"$ref":"#"}],"minItems":2})"};
  for (const std::string& schema : schemas) {
    const auto begin = std::chrono::steady_clock::now();
    refusal(schema);
    EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(20))
        << schema.substr(0, 80);
  }
}

// A pattern is searched for as std::regex does, in the text that the JSON string stands for.
TEST(Schema, PatternsAgreeWithTheStandardLibrary) {
  const char* patterns[] = {"a",         "^a",           "a$",         "^a$|b",      "[\\d\\s]b",
                            "a{2,3}?b",  "^(a*?)+c$",    "a\\.b|\\/",  "[^\\w\\s]",  "(a|b)(c|)$",
                            "^[\\w-]+$", "\\x61\\u0062", "a\\-b|\\ c", "^(?:a|b)??c"};
  Rng rng(5);
  for (const std::string pattern : patterns) {
    Automaton automaton(grammar_from_schema({{"type", "string"}, {"pattern", pattern}}), nullptr);
    const std::regex judge(pattern == "a\\-b|\\ c" ? "a-b| c" : pattern);
    for (int i = 0; i < 2000; ++i) {
      constexpr std::string_view kBytes = "abcd01. -/_\"\\\n";
      std::string text;
      for (uint64_t n = rng.below(7); n > 0; --n) text += kBytes[rng.below(kBytes.size())];
      ASSERT_EQ(fits(automaton, nlohmann::json(text).dump()), std::regex_search(text, judge))
          << pattern << ": " << text;
    }
  }
}

}  // namespace
}  // namespace quern::test::schemas
