#include "core/json.h"

#include <nlohmann/json.hpp>

#include "core/toml.h"
#include "support/support.h"

namespace quern {
namespace {

Json parse(std::string_view text) { return Json::parse(text, "x.json"); }

void expect_bad(std::string_view text, const std::vector<std::string>& parts) {
  test::expect_error([&] { parse(text); }, Kind::BadInput, parts);
}

TEST(Json, ReadsValuesOfTheirTypes) {
  const Json json = parse(R"({"a": 3, "b": 1.5, "c": "字", "d": [true, null], "e": {"f": -1}})");
  EXPECT_EQ(json.at("a").integer(), 3);
  EXPECT_EQ(json.at("a").number(), 3.0);
  EXPECT_EQ(json.at("b").number(), 1.5);
  EXPECT_EQ(json.at("c").string(), "字");
  EXPECT_TRUE(json.at("d")[0].boolean());
  EXPECT_FALSE(json.has("missing"));
  EXPECT_EQ(json.at("e").at("f").integer(-5, 5), -1);
  EXPECT_EQ(json.integer_or("missing", 7), 7);
}

TEST(Json, NeverConvertsSilently) {
  const Json json = parse(R"({"f": 1.9, "s": "1", "b": true, "big": 18446744073709551615})");
  for (const char* key : {"f", "s", "b", "big"}) {
    test::expect_error([&] { json.at(key).integer(); }, Kind::BadInput, {"x.json: ", key});
  }
  test::expect_error([&] { json.at("s").number(); }, Kind::BadInput, {"expected a number"});
  test::expect_error([&] { json.at("f").boolean(); }, Kind::BadInput, {"expected true or false"});
}

TEST(Json, NamesThePathOfTheField) {
  const Json json = parse(R"({"a": [{"b": {"c": "x"}}]})");
  test::expect_error([&] { json.at("a")[0].at("b").at("c").integer(); }, Kind::BadInput,
                     {"x.json: a[0].b.c is a string, expected an integer"});
  test::expect_error([&] { json.at("a")[0].at("q"); }, Kind::BadInput, {"a[0]", "'q'"});
}

TEST(Json, RangesAreChecked) {
  const Json json = parse(R"({"n": 12})");
  test::expect_error([&] { json.at("n").integer(0, 10); }, Kind::BadInput, {"is 12", "0 to 10"});
  test::expect_error([&] { json.number_or("n", 0, 0, 1); }, Kind::BadInput, {"n is 12"});
}

TEST(Json, RefusesDuplicateKeys) { expect_bad(R"({"a": 1, "a": 2})", {"'a'", "twice"}); }

TEST(Json, RefusesDepthBeyondTheLimit) {
  expect_bad(std::string(100'000, '['), {"nested deeper than 64"});
  EXPECT_NO_THROW(parse(std::string(64, '[') + std::string(64, ']')));
}

TEST(Json, RefusesWhatIsNoJson) {
  expect_bad("", {"not valid JSON"});
  expect_bad("{} x", {"not valid JSON"});
  expect_bad(std::string_view("{}\0x", 4), {"NUL byte"});
  expect_bad("\xEF\xBB\xBF{}", {"not valid JSON"});
  expect_bad("{\"a\": NaN}", {"not valid JSON"});
  expect_bad("{\"a\": 1e999}", {"out of range"});
  expect_bad("{\"a\": \"\xFF\"}", {"not valid UTF-8 at byte 7"});
  expect_bad("version https://git-lfs.github.com/spec/v1\noid sha256:0\n", {"Git LFS pointer"});
}

TEST(Json, RefusesTooManyValues) {
  std::string text = "[0";
  for (int i = 0; i < 20; ++i) text += ",0";
  test::expect_error([&] { Json::parse(text + "]", "x", {.max_values = 10}); }, Kind::BadInput,
                     {"more than 10 values"});
}

TEST(Json, UnknownKeysNameTheNearest) {
  const Json json = parse(R"({"learning_rte": 1})");
  test::expect_error(
      [&] {
        json.only_keys({"learning_rate", "seed"});
      },
      Kind::BadInput, {"learning_rte", "did you mean 'learning_rate'"});
}

TEST(Json, DumpReplacesBadUtf8) { EXPECT_EQ(dump(nlohmann::json("a\xFF")), "\"a\xEF\xBF\xBD\""); }

TEST(Toml, ReadsIntoTheSameTree) {
  const Json json = parse_toml("a = 1\n[b]\nc = [1.5, 2.5]\nd = 2020-01-02\n", "run.toml");
  EXPECT_EQ(json.at("a").integer(), 1);
  EXPECT_EQ(json.at("b").at("c")[1].number(), 2.5);
  EXPECT_EQ(json.at("b").at("d").string(), "2020-01-02");
}

TEST(Toml, ErrorsNameLineAndColumn) {
  test::expect_error([] { parse_toml("a = 1\nb = \n", "run.toml"); }, Kind::BadInput,
                     {"run.toml: line 2"});
}

}  // namespace
}  // namespace quern
