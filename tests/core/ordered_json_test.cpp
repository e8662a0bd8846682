// JSON whose members keep their order, written as Python writes it.
#include "core/ordered_json.h"

#include "support/support.h"

namespace quern {
namespace {

std::string round_trip(std::string_view text, const PythonJson& style = {}) {
  return python_dumps(OrderedJson::parse(text, "test"), style);
}

TEST(OrderedJson, MembersKeepTheirOrderAndNumbersTheirValue) {
  EXPECT_EQ(round_trip(R"({"b":1,"a":[true,null,1.0,-0],"c":{"z":"","y":{}}})"),
            R"({"b": 1, "a": [true, null, 1.0, 0], "c": {"z": "", "y": {}}})");
  EXPECT_EQ(round_trip("[123456789012345678901234567890, -98765432109876543210]"),
            "[123456789012345678901234567890, -98765432109876543210]");
}

// Expected texts are those of Python's json.dumps(json.loads(text), ensure_ascii=False).
TEST(OrderedJson, WritesAsPython) {
  EXPECT_EQ(round_trip("[1e5, 1e22, 1e16, 1e15, 0.0001, 1e-5, 1e-7, 1.5e300, 0.1, -2.50, 1E-320]"),
            "[100000.0, 1e+22, 1e+16, 1000000000000000.0, 0.0001, 1e-05, 1e-07, 1.5e+300, 0.1, "
            "-2.5, 1e-320]");
  EXPECT_EQ(round_trip(R"(["\u2028\u007f\u0001\b\f\n\r\t\"\\\/é"])"),
            "[\"\u2028\x7f\\u0001\\b\\f\\n\\r\\t\\\"\\\\/é\"]");
  EXPECT_EQ(round_trip(R"({"b": 1, "é": 2, "a": 3})", {.sort_keys = true}),
            R"({"a": 3, "b": 1, "é": 2})");
  EXPECT_EQ(round_trip(R"({"a": [1, {}, []], "b": {"c": 2}})", {.indent = 2}),
            "{\n  \"a\": [\n    1,\n    {},\n    []\n  ],\n  \"b\": {\n    \"c\": 2\n  }\n}");
}

TEST(OrderedJson, RefusesWhatTheStrictReaderRefuses) {
  for (const std::string_view text :
       {"", "{", "[1,]", "{\"a\": 1, \"a\": 2}", "NaN", "\"\xff\"", "01", "[1] 2", "\"\\ud800\""}) {
    test::expect_error([&] { OrderedJson::parse(text, "tools.json"); }, Kind::BadInput,
                       {"tools.json"});
  }
  test::expect_error([] { OrderedJson::parse(std::string_view("[1]\0[2]", 7), "tools.json"); },
                     Kind::BadInput, {"NUL"});
  test::expect_error(
      [] { OrderedJson::parse(std::string(100, '['), "tools.json", {.max_depth = 64}); },
      Kind::BadInput, {"nested deeper than 64"});
  test::expect_error([] { OrderedJson::parse("[1,2,3]", "tools.json", {.max_values = 2}); },
                     Kind::BadInput, {"more than 2 values"});
}

TEST(OrderedJson, SetReplacesInPlace) {
  OrderedJson value = OrderedJson::parse(R"({"a": 1, "b": 2})", "test");
  value.set("a", OrderedJson::of_string("x"));
  value.set("c", OrderedJson::of_bool(true));
  EXPECT_EQ(python_dumps(value), R"({"a": "x", "b": 2, "c": true})");
  ASSERT_NE(value.find("b"), nullptr);
  EXPECT_EQ(value.find("d"), nullptr);
}

}  // namespace
}  // namespace quern
