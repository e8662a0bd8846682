// Records of JSONL files, good and bad: reliability list F.
#include "data/documents.h"

#include <sys/stat.h>

#include "support/compress.h"
#include "support/support.h"

namespace quern {
namespace {

std::vector<std::string> texts(const fs::path& path, const DocumentOptions& options = {}) {
  DocumentReader reader(path, options);
  std::vector<std::string> out;
  for (Document document; reader.next(document);) out.push_back(document.text);
  return out;
}
using Texts = std::vector<std::string>;

TEST(Documents, JsonlPlainAndCompressed) {
  const test::TempFolder folder;
  const std::string records = "{\"text\": \"one\"}\r\n\n{\"text\": \"zwölf\", \"id\": 2}";
  EXPECT_EQ(texts(folder.write("a.jsonl", records)), (Texts{"one", "zwölf"}));
  EXPECT_EQ(texts(folder.write("a.jsonl.gz", test::gzip(records))), (Texts{"one", "zwölf"}));
  EXPECT_EQ(texts(folder.write("a.jsonl.zst", test::zstd(records))), (Texts{"one", "zwölf"}));
}

TEST(Documents, ATextFileIsOneDocument) {
  const test::TempFolder folder;
  EXPECT_EQ(texts(folder.write("a.txt", "two\nlines\n")), Texts{"two\nlines\n"});
  EXPECT_EQ(texts(folder.write("b.txt.gz", test::gzip("text"))), Texts{"text"});
  EXPECT_EQ(texts(folder.write("empty.txt", "")), Texts{});
  const fs::path latin1 = folder.write("c.txt", "caf\xE9");
  test::expect_error([&] { texts(latin1); }, Kind::BadInput, {"c.txt", "not UTF-8"});
}

TEST(Documents, OnlyTheRecordsThatAreAskedFor) {
  const test::TempFolder folder;
  const fs::path path = folder.write("a.jsonl",
                                     R"({"text": "1", "lang": "en", "kind": "book"}
{"text": "2", "lang": "fr", "kind": "book"}
{"text": "3", "lang": "en", "kind": "code"}
{"text": "4"}
)");
  EXPECT_EQ(texts(path, {.where = {{"lang", "en"}}}), (Texts{"1", "3"}));
  EXPECT_EQ(texts(path, {.where = {{"lang", "en"}, {"lang", "fr"}, {"kind", "book"}}}),
            (Texts{"1", "2"}));
}

// Records as people keep them: one array, one object, objects behind each other, one a line.
TEST(Documents, RecordsAreFoundHoweverTheyStand) {
  const test::TempFolder folder;
  const Texts both = {"a [1]", "b \"}{"};
  const std::string a = R"({"text": "a [1]"})", b = R"({"text": "b \"}{"})";
  EXPECT_EQ(texts(folder.write("lines.json", a + "\n" + b + "\n")), both);
  EXPECT_EQ(texts(folder.write("array.json", "[\n " + a + ",\n " + b + "\n]\n")), both);
  EXPECT_EQ(texts(folder.write("array.jsonl", "[" + a + "," + b + "]")), both);
  EXPECT_EQ(texts(folder.write("BOM.JSONL", "\xEF\xBB\xBF" + a + "\r\n" + b)), both);
  EXPECT_EQ(texts(folder.write("bom.json", "\xEF\xBB\xBF[" + a + "," + b + "]")), both);
  EXPECT_EQ(texts(folder.write("pretty.json", "{\n  \"text\": \"a [1]\"\n}\n")), Texts{"a [1]"});
  EXPECT_EQ(texts(folder.write("no-ending", a + "\n" + b)), both);
  EXPECT_EQ(texts(folder.write("a.json.gz", test::gzip("[" + a + "]"))), Texts{"a [1]"});
  EXPECT_EQ(texts(folder.write("empty.json", "[]")), Texts{});
  EXPECT_EQ(texts(folder.write("nothing.json", "")), Texts{});
  EXPECT_EQ(texts(folder.write("text", "[not] a record")), Texts{"[not] a record"});
  EXPECT_EQ(texts(folder.write("code.TXT", "{\"text\": \"x\"}")), Texts{"{\"text\": \"x\"}"});
  EXPECT_EQ(texts(folder.write("bom.txt", "\xEF\xBB\xBFtext")), Texts{"text"});
}

TEST(Documents, RecordsThatDoNotEndAreNamed) {
  const test::TempFolder folder;
  const std::pair<const char*, const char*> kBad[] = {
      {"[{\"text\": \"a\"},\n{\"text\": \"b\"", "line 2"},
      {"[{\"text\": \"a\"}", "ends inside the array"},
      {"[{\"text\": \"a\"} {\"text\": \"a\"}]", "comma"},
      {"[{\"text\": \"a\"}] x", "after the array"},
      {"[1, 2]", "no JSON object"},
      {"words", "line 1"}};
  for (const auto& [text, message] : kBad) {
    const fs::path path = folder.write("bad.json", text);
    test::expect_error([&] { texts(path); }, Kind::BadInput, {"bad.json", message});
  }
}

TEST(Documents, ReplacementsNeedConversations) {
  const test::TempFolder folder;
  const fs::path path = folder.write("a.jsonl", R"({"text": "{{name}}"})");
  test::expect_error(
      [&] {
        DocumentReader(path, {.replace = {{"name", "Quern"}}});
      },
      Kind::Misused, {"a.jsonl", "messages"});
}

TEST(Documents, NumbersAndBooleansAreComparedAsSuch) {
  const test::TempFolder folder;
  const fs::path path = folder.write("a.jsonl", R"({"text": "1", "n": 3, "good": true}
{"text": "2", "n": 3.5, "good": false}
{"text": "3", "n": 3.0}
{"text": "4", "n": "3"}
)");
  EXPECT_EQ(texts(path, {.where = {{"n", "3"}}}), (Texts{"1", "3", "4"}));
  EXPECT_EQ(texts(path, {.where = {{"n", "3.5"}}}), Texts{"2"});
  EXPECT_EQ(texts(path, {.where = {{"good", "true"}}}), Texts{"1"});
  EXPECT_EQ(texts(path, {.where = {{"good", "false"}}}), Texts{"2"});
}

TEST(Documents, OptionsThatCannotApplyAreErrors) {
  const test::TempFolder folder;
  const fs::path plain = folder.write("a.txt", "text");
  test::expect_error(
      [&] {
        texts(plain, {.where = {{"lang", "en"}}});
      },
      Kind::BadInput, {"a.txt", "--where"});
  test::expect_error([&] { texts(plain, {.text_field = "body"}); }, Kind::BadInput,
                     {"a.txt", "--field"});
  const fs::path records = folder.write("a.jsonl", "{\"text\": \"a\"}\n");
  test::expect_error(
      [&] {
        texts(records, {.where = {{"lang", "en"}}});
      },
      Kind::BadInput, {"a.jsonl", "'lang'"});
  const fs::path list = folder.write("b.jsonl", "{\"text\": \"a\", \"lang\": [\"en\"]}\n");
  test::expect_error(
      [&] {
        texts(list, {.where = {{"lang", "en"}}});
      },
      Kind::BadInput, {"b.jsonl: line 1", "lang"});
}

struct BadRecord {
  const char* name;
  const char* line;
  const char* message;
};

class BadRecords : public testing::TestWithParam<BadRecord> {};

TEST_P(BadRecords, AreNamedByFileAndLineOrCounted) {
  const test::TempFolder folder;
  const fs::path path = folder.write("bad.jsonl", std::string("{\"text\": \"good\"}\n") +
                                                      GetParam().line + "\n{\"text\": \"end\"}\n");
  test::expect_error([&] { texts(path); }, Kind::BadInput,
                     {"bad.jsonl: line 2", GetParam().message});
  DocumentReader reader(path, {.skip_bad = true});
  Texts out;
  for (Document document; reader.next(document);) out.push_back(document.text);
  EXPECT_EQ(out, (Texts{"good", "end"}));
  EXPECT_EQ(reader.bad_records(), 1);
  EXPECT_NE(reader.first_bad().find("line 2"), std::string::npos);
}

const std::string kDeep = std::string(100, '[') + std::string(100, ']');

INSTANTIATE_TEST_SUITE_P(
    ListF, BadRecords,
    testing::Values(BadRecord{"NotAnObject", "[1]", "not an object"},
                    BadRecord{"NoJson", "{\"text\": ", "line 2"},
                    BadRecord{"NoText", "{\"id\": 1}", "text"},
                    BadRecord{"TextIsNull", "{\"text\": null}", "text"},
                    BadRecord{"TextIsANumber", "{\"text\": 5}", "text is an integer"},
                    BadRecord{"TextIsAList", "{\"text\": [\"a\"]}", "text is a"},
                    BadRecord{"BadUtf8", "{\"text\": \"\xFF\"}", "line 2"},
                    BadRecord{"LoneSurrogate", "{\"text\": \"\\ud800\"}", "line 2"},
                    BadRecord{"DuplicateKey", "{\"text\": \"a\", \"text\": \"b\"}", "text"},
                    BadRecord{"TwoValues", "{\"text\": \"a\"} {\"text\": \"b\"}", "line 2"},
                    BadRecord{"TooDeep", kDeep.c_str(), "line 2"}),
    [](const auto& instance) { return std::string(instance.param.name); });

TEST(Documents, ALineThatIsTooLongIsNamed) {
  const test::TempFolder folder;
  const fs::path path =
      folder.write("long.jsonl", "{\"text\": \"" + std::string(5000, 'x') + "\"}\n");
  test::expect_error([&] { texts(path, {.max_record_bytes = 1000}); }, Kind::BadInput,
                     {"long.jsonl: line 1", "1000 bytes"});
}

TEST(Documents, APipeIsRefusedInsteadOfWaitedFor) {
  const test::TempFolder folder;
  const fs::path pipe = folder.path() / "pipe.jsonl";
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  test::expect_error([&] { texts(pipe); }, Kind::BadInput,
                     {"pipe.jsonl", "is a FIFO, expected a regular file"});
}

std::vector<Message> conversation(const test::TempFolder& folder, const std::string& messages) {
  const fs::path path = folder.write("chat.jsonl", "{\"messages\": " + messages + "}\n");
  DocumentReader reader(path, {.messages_field = "messages", .replace = {{"name", "Quern"}}});
  Document document;
  EXPECT_TRUE(reader.next(document));
  return document.messages;
}

TEST(Documents, Conversations) {
  const test::TempFolder folder;
  const auto messages =
      conversation(folder, R"([{"role": "user", "content": "Who?"},)"
                           R"({"role": "assistant", "content": "I am {{name}}, {{name}}."}])");
  ASSERT_EQ(messages.size(), 2U);
  EXPECT_EQ(messages[1].text(), "I am Quern, Quern.");
}

TEST(Documents, AMessageOfWeightZeroIsNotLearnt) {
  const test::TempFolder folder;
  const auto messages = conversation(
      folder, R"([{"role": "user", "content": "?"}, {"role": "assistant", "content": "a",)"
              R"( "weight": 0}, {"role": "user", "content": "?"},)"
              R"( {"role": "assistant", "content": "b", "weight": 1}])");
  EXPECT_FALSE(messages[1].learn);
  EXPECT_TRUE(messages[3].learn);
}

TEST(Documents, ConversationsThatCannotBeLearntFromAreRefused) {
  const test::TempFolder folder;
  const auto refuse = [&](std::string messages, const char* part) {
    std::replace(messages.begin(), messages.end(), '\'', '"');
    test::expect_error([&] { conversation(folder, messages); }, Kind::BadInput,
                       {"chat.jsonl: line 1", "messages", part});
  };
  refuse("[]", "no answer");
  refuse("[{'role': 'system', 'content': 'only'}]", "no answer");
  refuse("[{'role': 'user', 'content': 'x'}, {'role': 'assistant', 'content': ''}]", "no answer");
  refuse("[{'role': 'robot', 'content': 'x'}]", "'robot'");
  refuse("[{'role': 'user'}]", "content");
  refuse("[{'role': 'user', 'content': 'x'}, {'role': 'system', 'content': 'x'}]", "system");
  refuse("'text'", "string");
}

}  // namespace
}  // namespace quern
