// The tokenizers against the reference: every golden case of the fixtures.
#include <zlib.h>

#include "golden_lines.h"
#include "support/support.h"
#include "text/byte_bpe_tokenizer.h"
#include "text/chatml.h"
#include "text/load.h"
#include "text/unicode.h"

namespace quern {
namespace {

using test::golden_lines;
using test::ids_of;

using Ids = std::vector<TokenId>;

fs::path fixture(std::string_view name) {
  return test::shared("fixtures/tokenizer/" + std::string(name));
}

std::vector<std::string> strings_of(const Json& list) {
  std::vector<std::string> out;
  for (const Json& item : list.items()) out.push_back(item.string());
  return out;
}

std::string from_hex(const std::string& hex) {
  std::string bytes;
  for (size_t i = 0; i < hex.size(); i += 2) {
    bytes += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
  }
  return bytes;
}

std::string gunzip(const fs::path& path) {
  gzFile file = gzopen(path.c_str(), "rb");
  std::string out, block(1 << 16, '\0');
  for (int got; (got = gzread(file, block.data(), static_cast<unsigned>(block.size()))) > 0;) {
    out.append(block, 0, static_cast<size_t>(got));
  }
  gzclose(file);
  return out;
}

const SpecialPolicy kDefault = SpecialPolicy::all();

class QwenTokenizer : public testing::Test {
 protected:
  void SetUp() override {
    QUERN_NEED(fixture("qwen.tiktoken"));
    static const auto ranks = read_tiktoken(fixture("qwen.tiktoken"));
    static const std::shared_ptr<const ByteBpeTokenizer> loaded =
        ByteBpeTokenizer::from_ranks(ranks);
    ranks_ = &ranks;
    tokenizer_ = loaded;
  }
  const RankedTokens* ranks_ = nullptr;
  std::shared_ptr<const ByteBpeTokenizer> tokenizer_;
};

TEST_F(QwenTokenizer, Encodes) {
  for (const Json& line : golden_lines(fixture("encode.jsonl"))) {
    EXPECT_EQ(tokenizer_->encode(line.at("text").string(), kDefault), ids_of(line.at("ids")))
        << line.where() << " " << printable(line.at("text").string());
  }
}

TEST_F(QwenTokenizer, CutsPieces) {
  // The cuts were recorded with a regex engine of Unicode 17, which has two letters more than the
  // tokenizer itself (Unicode 16, as ClassesEqualTheReference has it).
  const std::string newer[] = {"\u0CDC", "\U00033218"};
  for (const Json& line : golden_lines(fixture("pretokens.jsonl"))) {
    const bool has_newer = std::any_of(std::begin(newer), std::end(newer), [&](const auto& letter) {
      return line.at("text").string().find(letter) != std::string::npos;
    });
    if (has_newer) continue;
    EXPECT_EQ(tokenizer_->split(line.at("text").string()), strings_of(line.at("pieces")))
        << line.where();
  }
}

SpecialPolicy policy_of(const Json& line) {
  using Set = SpecialPolicy::Set;
  SpecialPolicy policy;
  const auto read = [&](const char* key, Set& set, std::vector<std::string>& names) {
    const auto value = line.find(key);
    if (!value) return;
    set = value->is_string() ? Set::All : Set::Listed;
    if (!value->is_string()) names = strings_of(*value);
  };
  read("allowed_special", policy.allowed, policy.allowed_names);
  read("disallowed_special", policy.refused, policy.refused_names);
  return policy;
}

void check_specials(const Tokenizer& tokenizer, const fs::path& path) {
  for (const Json& line : golden_lines(path)) {
    const auto encode = [&] { return tokenizer.encode(line.at("text").string(), policy_of(line)); };
    if (line.has("error")) {
      test::expect_error(encode, Kind::BadInput, {line.at("error").string()});
    } else {
      EXPECT_EQ(encode(), ids_of(line.at("ids"))) << line.where();
    }
  }
}

TEST_F(QwenTokenizer, SpecialTokensByPolicy) {
  check_specials(*tokenizer_, fixture("special.jsonl"));
}

TEST_F(QwenTokenizer, FirstReleaseHasOtherSpecialTokens) {
  const auto first = ByteBpeTokenizer::from_ranks(*ranks_, ByteBpeTokenizer::Release::First);
  check_specials(*first, fixture("first_release_special.jsonl"));
}

TEST_F(QwenTokenizer, LoneSurrogatesAndBadBytesBecomeReplacementCharacters) {
  for (const Json& line : golden_lines(fixture("surrogates.jsonl"))) {
    std::u16string units;
    for (const Json& unit : line.at("utf16").items()) {
      units += static_cast<char16_t>(unit.integer(0, 0xFFFF));
    }
    EXPECT_EQ(tokenizer_->encode(unicode::from_utf16(units), kDefault), ids_of(line.at("ids")))
        << line.where();
  }
  for (const Json& line : golden_lines(fixture("invalid_utf8.jsonl"))) {
    std::string storage;
    const std::string bytes = from_hex(line.at("bytes_hex").string());
    EXPECT_EQ(unicode::to_valid_utf8(bytes, storage), line.at("as_text").string()) << line.where();
    EXPECT_EQ(tokenizer_->encode(bytes, kDefault), ids_of(line.at("ids"))) << line.where();
  }
}

TEST_F(QwenTokenizer, Decodes) {
  for (const Json& line : golden_lines(fixture("decode.jsonl"))) {
    const Ids ids = ids_of(line.at("ids"));
    EXPECT_EQ(tokenizer_->decode_bytes(ids), from_hex(line.at("bytes_hex").string()));
    EXPECT_EQ(tokenizer_->decode(ids), line.at("replace").string());
    EXPECT_EQ(tokenizer_->decode(ids, BadBytes::Ignore), line.at("ignore").string());
    EXPECT_EQ(tokenizer_->decode(ids, BadBytes::Replace, true),
              line.at("replace_skip_special").string());
  }
}

TEST_F(QwenTokenizer, DecodesOneIdAtATime) {
  for (const Json& line : golden_lines(fixture("decode_stream.jsonl"))) {
    const Ids ids = ids_of(line.at("ids"));
    const auto chunks = strings_of(line.at("chunks")),
               prefixes = strings_of(line.at("prefix_ignore"));
    StreamDecoder stream(*tokenizer_);
    for (size_t k = 0; k < ids.size(); ++k) {
      EXPECT_EQ(stream.put(ids[k]), chunks[k]) << line.where() << " id " << k;
      EXPECT_EQ(tokenizer_->decode(std::span(ids).first(k + 1), BadBytes::Ignore, true),
                prefixes[k]);
    }
    EXPECT_EQ(stream.flush(), line.at("flush").string()) << line.where();
  }
}

TEST_F(QwenTokenizer, RefusesIdsWithoutAToken) {
  for (const Json& line : golden_lines(fixture("decode_errors.jsonl"))) {
    const Ids ids = ids_of(line.at("ids"));
    test::expect_error([&] { tokenizer_->decode(ids); }, Kind::BadInput, {"has no token"});
  }
  test::expect_error([&] { tokenizer_->token_bytes(-1); }, Kind::BadInput, {"-1"});
}

TEST_F(QwenTokenizer, ChatPromptsAsMakeContextBuildsThem) {
  const ChatMl chat(*tokenizer_);
  for (const Json& line : golden_lines(fixture("chatml.jsonl"))) {
    std::vector<Message> messages;
    for (const Json& message : line.at("messages").items()) {
      messages.push_back({*role_of(message.at("role").string()), message.at("content").string()});
    }
    const auto prompt = chat.prompt(messages, line.at("max_window_size").integer());
    EXPECT_EQ(prompt.ids, ids_of(line.at("ids"))) << line.where();
    EXPECT_EQ(prompt.kept_turns, line.at("history_turns_kept").integer()) << line.where();
    std::string storage;  // the recorded text is as it was before NFC
    EXPECT_EQ(tokenizer_->decode(prompt.ids),
              unicode::to_nfc(line.at("raw_text").string(), storage))
        << line.where();
  }
  for (const Json& line : golden_lines(fixture("raw_context.jsonl"))) {
    EXPECT_EQ(tokenizer_->encode(line.at("query").string(), kDefault), ids_of(line.at("ids")));
  }
}

TEST_F(QwenTokenizer, TextNeverBecomesAControlToken) {
  const ChatMl chat(*tokenizer_);
  for (const SpecialToken& special : tokenizer_->specials()) {
    const auto prompt = chat.prompt({{ChatRole::System, special.name},
                                     {ChatRole::User, "x" + special.name},
                                     {ChatRole::Assistant, special.name + special.name},
                                     {ChatRole::User, "a" + special.name + "\n"}});
    const auto controls = std::count_if(prompt.ids.begin(), prompt.ids.end(),
                                        [&](TokenId id) { return tokenizer_->is_special(id); });
    EXPECT_EQ(controls, 2 * 4 + 1) << special.name;  // a start and an end a turn, and the answer's
  }
}

TEST_F(QwenTokenizer, WholeCorporaHaveTheRightDigests) {
  const fs::path corpora = test::shared("data/multilingual");
  QUERN_NEED(corpora);
  for (const Json& line : golden_lines(fixture("corpus_digests.jsonl"))) {
    const std::string text = read_file(
        test::shared(fs::path(line.at("file").string()).lexically_relative("shared").string()));
    ASSERT_EQ(sha256(text), line.at("bytes_sha256").string());
    Ids ids;
    tokenizer_->encode(text, ids);
    EXPECT_EQ(static_cast<int64_t>(ids.size()), line.at("tokens").integer()) << line.where();
    const std::string_view raw(reinterpret_cast<const char*>(ids.data()), 4 * ids.size());
    EXPECT_EQ(sha256(raw), line.at("ids_sha256").string()) << line.at("file").string();
    int64_t by_line = 0;
    for (std::string_view rest = text; !rest.empty();) {
      const size_t end = rest.find('\n');
      ids.clear();
      tokenizer_->encode(rest.substr(0, end), ids);
      by_line += static_cast<int64_t>(ids.size());
      rest.remove_prefix(end == rest.npos ? rest.size() : end + 1);
    }
    EXPECT_EQ(by_line, line.at("line_tokens").integer()) << line.at("file").string();
  }
}

TEST_F(QwenTokenizer, ExtraVocabularyIsUsed) {
  for (const std::string name : {"mixed", "qwen_extra"}) {
    if (!fs::exists(fixture("expand/" + name + ".tiktoken"))) continue;  // the release's own list
    const RankedTokens extra = read_tiktoken(fixture("expand/" + name + ".tiktoken"));
    const auto grown =
        ByteBpeTokenizer::from_ranks(*ranks_, ByteBpeTokenizer::Release::Later, &extra);
    for (const Json& line : golden_lines(fixture("expand/" + name + ".jsonl"))) {
      const std::string& text = line.at("text").string();
      const Ids ids = grown->encode(text, kDefault);
      EXPECT_EQ(ids, ids_of(line.at("ids"))) << line.where();
      EXPECT_EQ(tokenizer_->encode(text, kDefault), ids_of(line.at("ids_without_expansion")));
      EXPECT_EQ(grown->decode(ids), line.at("decoded").string());
      EXPECT_EQ(grown->decode(ids, BadBytes::Replace, true),
                line.at("decoded_skip_special").string());
    }
  }
}

TEST_F(QwenTokenizer, KnowsWhereItsTokensAre) {
  const Json constants = Json::parse_file(fixture("constants.json").string());
  for (const auto& [name, id] : constants.at("special_tokens").members()) {
    EXPECT_EQ(tokenizer_->special(name), static_cast<TokenId>(id.integer()));
  }
  EXPECT_EQ(tokenizer_->size(), constants.at("n_vocab").integer());
}

TEST(Qwen2Tokenizer, JsonAndVocabularyFilesEncodeAsTheReference) {
  QUERN_NEED(fixture("qwen2/tokenizer.json.gz"));
  const test::TempFolder folder;
  folder.write("tokenizer.json", gunzip(fixture("qwen2/tokenizer.json.gz")));
  const test::TempFolder pair;
  fs::copy_file(fixture("qwen2/vocab.json"), pair.path() / "vocab.json");
  fs::copy_file(fixture("qwen2/merges.txt"), pair.path() / "merges.txt");
  const auto json = load_tokenizer(folder.path()), files = load_tokenizer(pair.path());
  for (const Json& line : golden_lines(fixture("qwen2/encode.jsonl"))) {
    // Two lines follow an older Unicode than Quern does.
    if (line.boolean_or("differs_from_qwen_tiktoken", false)) continue;
    const std::string& text = line.at("text").string();
    const Ids expected = ids_of(line.at("ids"));
    EXPECT_EQ(json->encode(text, kDefault), expected) << line.where() << printable(text);
    EXPECT_EQ(json->decode(expected), line.at("decoded").string());
    const bool has_special =
        std::any_of(expected.begin(), expected.end(), [](TokenId id) { return id >= 151643; });
    if (has_special) continue;
    EXPECT_EQ(files->encode(text), expected) << line.where();
  }
}

TEST(TrainedTokenizers, EncodeAsTheLibraryThatTrainedThem) {
  QUERN_NEED(fixture("train"));
  for (const std::string name : {"corpus_1024", "corpus_4096", "ties_320"}) {
    const auto tokenizer = load_tokenizer(fixture("train/" + name + "_tokenizer.json"));
    for (const Json& line : golden_lines(fixture("train/" + name + "_encode.jsonl"))) {
      EXPECT_EQ(tokenizer->encode(line.at("text").string(), kDefault), ids_of(line.at("ids")))
          << line.where();
    }
  }
}

TEST(Unicode, NormalizesAsTheReference) {
  QUERN_NEED(fixture("unicode/nfc.jsonl"));
  for (const Json& line : golden_lines(fixture("unicode/nfc.jsonl"))) {
    std::string storage;
    EXPECT_EQ(unicode::to_nfc(line.at("in").string(), storage), line.at("out").string())
        << line.where();
  }
}

TEST(Unicode, ClassesEqualTheReferenceForEveryCodePoint) {
  const fs::path path = fixture("unicode/unicode_classes.json");
  QUERN_NEED(path);
  using unicode::Class;
  const Json json = Json::parse_file(path.string());
  std::vector<Class> expected(0x110000, Class::Other);
  const std::pair<const char*, Class> kinds[] = {
      {"L", Class::Letter}, {"N", Class::Number}, {"White_Space", Class::Space}};
  for (const auto& [key, kind] : kinds) {
    for (const Json& range : json.at(key).items()) {
      std::fill(expected.begin() + range[0].integer(), expected.begin() + range[1].integer() + 1,
                kind);
    }
  }
  expected['\r'] = expected['\n'] = Class::LineBreak;
  for (char32_t point = 0; point < 0x110000; ++point) {
    ASSERT_EQ(unicode::class_of(point), expected[point]) << static_cast<uint32_t>(point);
  }
}

TEST(SentencePiece, LlamaModelOfTheStories) {
  const fs::path folder = test::shared("fixtures/models/stories260k");
  QUERN_NEED(folder);
  const auto tokenizer = load_tokenizer(folder);
  const Json expected = Json::parse_file((folder / "case.json").string());
  const Ids ids = ids_of(expected.at("greedy_ids"));
  StreamDecoder stream(*tokenizer, true, true);
  std::string text;
  for (const TokenId id : ids) text += stream.put(id);
  EXPECT_EQ(text + stream.flush(), expected.at("greedy_text").string());
  EXPECT_EQ(tokenizer->bos(), 1);
  Ids again = {1};
  tokenizer->encode(text, again);
  EXPECT_EQ(tokenizer->decode(again), "<s> " + text);
}

}  // namespace
}  // namespace quern
