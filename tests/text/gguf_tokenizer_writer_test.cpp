// Tokenizers from folders into GGUF files and back: the ids stay, or what would be lost is named.
#include "text/gguf_tokenizer_writer.h"

#include <fstream>

#include "core/json.h"
#include "support/support.h"
#include "text/gguf_tokenizer.h"
#include "text/load.h"
#include "text/pipeline/pipeline_tokenizer.h"

namespace quern {
namespace {

using Ids = std::vector<TokenId>;

const fs::path kFixtures = test::source("tests/fixtures/tokenizers");

std::vector<std::string> texts_of(const fs::path& cases) {
  std::vector<std::string> out;
  std::ifstream file(cases);
  for (std::string line; std::getline(file, line);) {
    const Json json = Json::parse(line, cases.string());
    if (!json.has("error")) out.push_back(json.at("text").string());
  }
  EXPECT_FALSE(out.empty()) << cases;
  return out;
}

// A decoder of steps makes spaces of the marks of added tokens, too.
std::string shown(const Tokenizer& tokenizer, const Ids& ids) {
  std::string text = tokenizer.decode(ids);
  for (size_t at = 0; (at = text.find("\u2581", at)) != text.npos;) text.replace(at, 3, " ");
  return text;
}

void expect_alike(const Tokenizer& a, const Tokenizer& b, const std::vector<std::string>& texts,
                  const std::string& where) {
  for (const std::string& text : texts) {
    const Ids ids = a.encode_whole(text, SpecialPolicy::all());
    EXPECT_EQ(b.encode_whole(text, SpecialPolicy::all()), ids) << where << ": " << text;
    EXPECT_EQ(b.encode(text), a.encode(text)) << where << ": " << text;
    // And it drops the first space, which a GGUF file's tokens keep.
    const std::string one = shown(a, ids), other = shown(b, ids);
    if (one != " " + other && other != " " + one) {
      EXPECT_EQ(other, one) << where << ": " << text;
    }
  }
}

// A GGUF file of a tokenizer alone; nothing where something would be lost, which `lost` then names.
std::shared_ptr<const Tokenizer> through_gguf(const fs::path& folder, std::string& lost) {
  std::optional<GgufTokenizer> made;
  try {
    made.emplace(load_tokenizer_spec(folder));
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), Kind::Unsupported) << error.what();
    lost = error.what();
    return nullptr;
  }
  if (!made->lost().empty() || !made->overlap().empty()) {
    lost = made->lost().empty() ? made->overlap() : made->lost()[0];
    return nullptr;
  }
  const test::TempFolder temporary;
  const fs::path path = temporary.path() / "m.gguf";
  GgufWriter out(path);
  out.add_string("general.architecture", "llama");
  int64_t vocab = static_cast<int64_t>(made->spec().model.tokens.size());
  for (const AddedToken& token : made->spec().added) vocab = std::max(vocab, token.id + 1);
  made->write(out, vocab + 3, std::nullopt, {});
  out.begin();
  out.finish();
  return load_tokenizer(path);
}

TEST(GgufTokenizerWriter, FoldersThereAndBackAreExactOrRefused) {
  int exact = 0;
  for (const char* kind : {"json", "folders"}) {
    for (const auto& entry : fs::directory_iterator(kFixtures / kind)) {
      const fs::path& folder = entry.path();
      if (!fs::exists(folder / "cases.jsonl")) continue;
      const std::string name = folder.filename().string();
      std::string lost;
      const auto back = through_gguf(folder, lost);
      if (back == nullptr) {
        EXPECT_FALSE(lost.empty()) << name;
        continue;
      }
      ++exact;
      expect_alike(*load_tokenizer(folder), *back, texts_of(folder / "cases.jsonl"), name);
    }
  }
  EXPECT_GE(exact, 19);
}

TEST(GgufTokenizerWriter, EveryRuleOfGgufIsWrittenAsTokenizerJson) {
  int exact = 0, refused = 0;
  for (const auto& entry : fs::directory_iterator(kFixtures / "gguf")) {
    const fs::path& path = entry.path();
    if (path.extension() != ".gguf" || path.stem() == "none") continue;
    const std::string name = path.stem().string();
    const GgufFile file(path);
    std::string json;
    try {
      json = to_tokenizer_json(tokenizer_json_of_gguf(file));
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), Kind::Unsupported) << error.what();
      // Unigram and WordPiece are those of encoders.
      EXPECT_TRUE(name.starts_with("ugm") || name.starts_with("wpm")) << error.what();
      ++refused;
      continue;
    }
    ++exact;
    const PipelineTokenizer back(parse_tokenizer_spec(json, name));
    expect_alike(*load_tokenizer(path), back, texts_of(fs::path(path).replace_extension(".jsonl")),
                 name);
  }
  EXPECT_GE(exact, 90);
  EXPECT_LE(refused, 8);
}

TEST(GgufTokenizerWriter, WhatGgufHasNoPlaceForIsNamed) {
  TokenizerSpec spec = load_tokenizer_spec(test::source("models/quern-mini"));
  EXPECT_TRUE(GgufTokenizer(spec).lost().empty());
  TokenizerSpec other = spec;
  other.pre_tokenizers[0].pattern.text = "[a-z]+";
  EXPECT_EQ(GgufTokenizer(other).lost(),
            std::vector<std::string>{"the tokenizer's way to cut text, which has no name in GGUF"});
  other = spec;
  other.normalizers = {{.kind = NormalizerStep::Kind::Lowercase}};
  EXPECT_EQ(GgufTokenizer(other).lost(), std::vector<std::string>{"the tokenizer's normalization"});
  other = spec;
  other.added.at(0).lstrip = true;
  ASSERT_EQ(GgufTokenizer(other).lost().size(), 1u);
  EXPECT_NE(GgufTokenizer(other).lost()[0].find("lstrip of the added token"), std::string::npos);
  other = spec;
  other.before = {1, 2};
  EXPECT_EQ(GgufTokenizer(other).lost(),
            std::vector<std::string>{"other tokens around a text than BOS and EOS"});
  other = spec;
  other.model.kind = TokenModel::Kind::WordPiece;
  test::expect_error([&] { GgufTokenizer tokenizer(other); }, Kind::Unsupported,
                     {"neither byte-level BPE nor SentencePiece", "--lossy"});
}

}  // namespace
}  // namespace quern
