// Tokenizers of all kinds against what Hugging Face tokenizers and llama.cpp make of the same files
// (tests/fixtures/tokenizers).
#include <algorithm>
#include <cstdlib>

#include "golden_lines.h"
#include "support/support.h"
#include "text/load.h"

namespace quern {
namespace {

using test::golden_lines;
using test::ids_of;

using Ids = std::vector<TokenId>;

// The ids under `key`, or what stands for them where they are the same.
Ids ids_or(const Json& line, const char* key, const Ids& fallback) {
  const auto list = line.find(key);
  return list ? ids_of(*list) : fallback;
}

std::vector<std::string> folders_in(const fs::path& path) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(path)) {
    if (entry.is_directory()) names.push_back(entry.path().filename().string());
  }
  std::sort(names.begin(), names.end());
  EXPECT_GT(names.size(), 8u);
  return names;
}

// Decoding one id at a time gives the same text, but for the end of it, and but for bytes that make
// no character, of which the whole decoder sees all at once.
void expect_streams(const Tokenizer& tokenizer, const Ids& ids, const std::string& where) {
  StreamDecoder stream(tokenizer, false, true);
  std::string shown;
  for (const TokenId id : ids) shown += stream.put(id);
  shown += stream.flush();
  const std::string whole = tokenizer.decode(ids);
  if (whole.find("\uFFFD") != std::string::npos) return;
  std::string_view expected = whole;
  if (shown != whole && tokenizer.leads_with_space()) {  // the space in front of a text's start
    if (expected.starts_with(' ')) expected.remove_prefix(1);
    if (shown.starts_with(' ')) shown.erase(0, 1);
  }
  EXPECT_EQ(shown, expected) << where;
}

void check_folder(const fs::path& folder) {
  const auto tokenizer = load_tokenizer(folder);
  for (const Json& line : golden_lines(folder / "cases.jsonl")) {
    const std::string where = folder.filename().string() + " " + line.where();
    const std::string& text = line.at("text").string();
    if (line.has("error")) {
      EXPECT_THROW(tokenizer->encode(text, SpecialPolicy::all()), Error) << where;
      continue;
    }
    const Ids ids = ids_of(line.at("ids"));
    const auto slow = line.find("ids_slow");
    const Ids parsed = tokenizer->encode(text, SpecialPolicy::all());
    if (!slow || parsed != ids_of(*slow)) {
      EXPECT_EQ(parsed, ids) << where;
    }
    if (!slow) {
      EXPECT_EQ(tokenizer->encode(text), ids_or(line, "ids_plain", ids)) << where;
    }
    const Ids special = ids_or(line, "ids_special", ids);
    EXPECT_EQ(tokenizer->encode_whole(text, SpecialPolicy::all()), special) << where;
    const auto decoded = line.find("decoded");
    if (!decoded) continue;  // the library fails there
    EXPECT_EQ(tokenizer->decode(special), decoded->string()) << where;
    EXPECT_EQ(tokenizer->decode(special, BadBytes::Replace, true),
              line.string_or("decoded_skip", decoded->string()))
        << where;
    expect_streams(*tokenizer, special, where);
  }
}

TEST(TokenizerGoldens, TokenizerJson) {
  const fs::path root = test::source("tests/fixtures/tokenizers/json");
  for (const std::string& name : folders_in(root)) check_folder(root / name);
}

TEST(TokenizerGoldens, FoldersWithoutTokenizerJson) {
  const fs::path root = test::source("tests/fixtures/tokenizers/folders");
  for (const std::string& name : folders_in(root)) check_folder(root / name);
}

// Where llama.cpp is not what the model was trained with, either answer will do.
TEST(TokenizerGoldens, Gguf) {
  const fs::path root = test::source("tests/fixtures/tokenizers/gguf");
  int files = 0;
  for (const auto& entry : fs::directory_iterator(root)) {
    if (entry.path().extension() != ".jsonl") continue;
    ++files;
    // llama.cpp shows U+FFFD for letters of this class that we can show.
    const bool whitespace = entry.path().stem() == "pre-whitespace";
    fs::path file = entry.path();
    const auto tokenizer = load_tokenizer(file.replace_extension(".gguf"));
    for (const Json& line : golden_lines(entry.path())) {
      const std::string where = file.filename().string() + " " + line.where();
      const std::string& text = line.at("text").string();
      const Ids ids = ids_of(line.at("ids"));
      const Ids parsed = ids_or(line, "ids_parsed", ids);
      const Ids published = ids_or(line, "ids_published", ids);
      const Ids published_parsed =
          ids_or(line, "ids_parsed_published", line.has("ids_published") ? published : parsed);
      const Ids got = tokenizer->encode(text);
      if (got != published) {
        EXPECT_EQ(got, ids) << where;
      }
      const Ids got_parsed = tokenizer->encode(text, SpecialPolicy::all());
      if (got_parsed != published_parsed) {
        EXPECT_EQ(got_parsed, parsed) << where;
      }
      if (got_parsed == parsed) {
        EXPECT_EQ(tokenizer->encode_whole(text, SpecialPolicy::all()),
                  ids_or(line, "ids_special", parsed))
            << where;
      }
      const std::string decoded = line.string_or("decoded", text);
      // llama.cpp has no way to show letters that are no byte letters.
      if (decoded.find("[UNK_BYTE_") != std::string::npos || whitespace) continue;
      EXPECT_EQ(tokenizer->decode(parsed), decoded) << where;
    }
  }
  EXPECT_GE(files, 100);
}

TEST(TokenizerGoldens, AGgufFileWithoutATokenizerSaysSo) {
  test::expect_error(
      [] { load_tokenizer(test::source("tests/fixtures/tokenizers/gguf/none.gguf")); },
      Kind::Unsupported, {"has no tokenizer", "by ids"});
}

// Published files that the repository may not hold, where somebody has put them.
TEST(TokenizerGoldens, PublishedFiles) {
  const fs::path root = test::shared("fixtures/tokenizer_json/real");
  const char* folder = std::getenv("QUERN_REAL_TOKENIZERS");
  if (folder == nullptr) GTEST_SKIP() << "skipped: QUERN_REAL_TOKENIZERS names no folder";
  QUERN_NEED(root);
  int checked = 0;
  for (const Json& entry : golden_lines(root / "index.jsonl")) {
    const std::string& name = entry.at("name").string();
    const fs::path file = fs::path(folder) / name / "tokenizer.json";
    if (!fs::exists(file)) continue;
    ++checked;
    const auto tokenizer = load_tokenizer(file);
    for (const Json& line : golden_lines(root / (name + ".jsonl"))) {
      const std::string& text = line.at("text").string();
      const Ids ids = ids_of(line.at("ids"));
      EXPECT_EQ(tokenizer->encode(text, SpecialPolicy::all()), ids) << name << line.where();
      EXPECT_EQ(tokenizer->encode(text), ids_or(line, "ids_plain", ids)) << name << line.where();
      EXPECT_EQ(tokenizer->encode_whole(text, SpecialPolicy::all()),
                ids_or(line, "ids_special", ids))
          << name << line.where();
      EXPECT_EQ(tokenizer->decode(ids), line.string_or("decoded", text)) << name << line.where();
    }
  }
  EXPECT_GT(checked, 0);
}

TEST(TokenizerGoldens, SmolLm2OfAGgufFile) {
  const fs::path model = test::published_model();
  const fs::path cases = test::shared("fixtures/published/smollm2-135m-instruct");
  QUERN_NEED_PUBLISHED(model);
  QUERN_NEED(cases);
  const auto tokenizer = load_tokenizer(model);
  for (const Json& line : golden_lines(cases / "encode.jsonl")) {
    const bool parse = line.boolean_or("parse_special", false);
    EXPECT_EQ(
        tokenizer->encode(line.at("text").string(), parse ? SpecialPolicy::all() : SpecialPolicy()),
        ids_of(line.at("ids")))
        << line.where();
  }
  for (const Json& line : golden_lines(cases / "decode.jsonl")) {
    EXPECT_EQ(tokenizer->decode(ids_of(line.at("ids"))),
              line.string_or("text", line.string_or("replaced", "")))
        << line.where();
  }
  for (const Json& line : golden_lines(cases / "missing_bytes.jsonl")) {
    EXPECT_EQ(tokenizer->encode(line.at("text").string()), ids_of(line.at("ids_hf")))
        << line.where();
  }
}

}  // namespace
}  // namespace quern
