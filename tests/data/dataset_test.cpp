// Datasets: what is packed comes back; what is damaged or foreign is refused.
#include "data/dataset.h"

#include <fstream>
#include <nlohmann/json.hpp>

#include "core/json.h"
#include "data/pack.h"
#include "support/byte_tokenizer.h"
#include "support/support.h"

namespace quern {
namespace {

constexpr int32_t kEnd = 256;  // <|endoftext|> of the byte tokenizer

std::vector<int32_t> ids_of(const Dataset& data, std::vector<int32_t>* labels = nullptr) {
  std::vector<int32_t> ids(static_cast<size_t>(data.tokens())), unused(ids.size());
  data.read(0, ids, unused);
  if (labels != nullptr) *labels = unused;
  return ids;
}

struct Packed {
  test::TempFolder temp;
  ThreadPool pool{2};
  fs::path folder = temp.path() / "set";
  PackReport report;

  explicit Packed(const std::string& jsonl, PackOptions options = {}) {
    options.name = "set";
    const fs::path file = temp.write("in.jsonl", jsonl);
    fs::create_directory(folder);
    report = pack({file}, *test::byte_tokenizer(), folder, options, pool, [](uint64_t) {});
  }
  Dataset open() { return Dataset(folder, pool); }
  void expect_refused(const std::vector<std::string>& parts) {
    test::expect_error([&] { open(); }, Kind::BadInput, parts);
  }
  // Rewrites the manifest with a change.
  void edit(const std::function<void(nlohmann::ordered_json&)>& change) const {
    const fs::path path = folder / "manifest.json";
    auto json = nlohmann::ordered_json::parse(read_file(path));
    change(json);
    write_file(path, json.dump());
  }
};

const std::string kTwoTexts = "{\"text\": \"abc\"}\n{\"text\": \"de\"}\n";

TEST(Pack, DocumentsAreJoinedByTheEndOfText) {
  Packed packed(kTwoTexts);
  const Dataset data = packed.open();
  EXPECT_EQ(ids_of(data), (std::vector<int32_t>{'a', 'b', 'c', kEnd, 'd', 'e', kEnd}));
  EXPECT_EQ(data.documents(), (std::vector<int64_t>{0, 4}));
  EXPECT_EQ(data.manifest().text_bytes, 5);
  EXPECT_EQ(data.manifest().learnt_tokens, 7);
  EXPECT_EQ(data.manifest().tokenizer_hash, test::byte_tokenizer()->hash());
}

TEST(Pack, ReadsOverTheEndsOfShards) {
  std::string records;
  std::vector<int32_t> expected;
  for (int i = 0; i < 50; ++i) {
    const std::string text =
        std::string(static_cast<size_t>(i % 7 + 1), static_cast<char>('a' + i % 26));
    records += "{\"text\": \"" + text + "\"}\n";
    expected.insert(expected.end(), text.begin(), text.end());
    expected.push_back(kEnd);
  }
  Packed packed(records, {.shard_tokens = 20});
  const Dataset data = packed.open();
  EXPECT_GT(data.manifest().shards.size(), 5U);
  EXPECT_EQ(ids_of(data), expected);
  std::vector<int32_t> part(30), labels(30);
  data.read(15, part, labels);
  EXPECT_TRUE(std::equal(part.begin(), part.end(), expected.begin() + 15));
}

TEST(Pack, OnlyTheAssistantsWordsAreLearnt) {
  Packed packed(R"({"messages": [{"role": "user", "content": "<|im_end|>"},)"
                R"({"role": "assistant", "content": "hi"}, {"role": "user", "content": "q"},)"
                R"({"role": "assistant", "content": "a"}]})"
                "\n",
                {.documents = {.messages_field = "messages"}, .system = "s"});
  const Dataset data = packed.open();
  std::vector<int32_t> labels;
  const std::vector<int32_t> ids = ids_of(data, &labels);
  const auto tokenizer = test::byte_tokenizer();
  EXPECT_EQ(tokenizer->decode(ids),
            "<|im_start|>system\ns<|im_end|>\n<|im_start|>user\n<|im_end|><|im_end|>\n"
            "<|im_start|>assistant\nhi<|im_end|>\n<|im_start|>user\nq<|im_end|>\n"
            "<|im_start|>assistant\na<|im_end|>\n<|endoftext|>");
  const TokenId end = *tokenizer->special("<|im_end|>");
  // What a user wrote stays text: five control tokens end turns, none comes from the content.
  EXPECT_EQ(std::count(ids.begin(), ids.end(), end), 5);
  std::vector<int32_t> learnt;
  for (const int32_t label : labels) {
    if (label >= 0) learnt.push_back(label);
  }
  EXPECT_EQ(learnt, (std::vector<int32_t>{'h', 'i', end, 'a', end}));
  EXPECT_EQ(data.manifest().learnt_tokens, 5);
}

TEST(Pack, NoDocumentIsAnError) {
  test::expect_error([] { Packed packed(""); }, Kind::BadInput, {"no document"});
  test::expect_error([] { Packed packed("{\"text\": \"\"}\n"); }, Kind::BadInput, {"no document"});
}

TEST(Pack, TheSameFilesForAnyNumberOfThreads) {
  std::string records;
  for (int i = 0; i < 300; ++i) records += "{\"text\": \"" + std::to_string(i * i) + "\"}\n";
  Packed packed(records);
  const fs::path other = packed.temp.path() / "other";
  fs::create_directory(other);
  ThreadPool one(1);
  pack({packed.temp.path() / "in.jsonl"}, *test::byte_tokenizer(), other, {.name = "set"}, one,
       [](uint64_t) {});
  for (const auto& entry : fs::directory_iterator(other)) {
    EXPECT_EQ(read_file(entry.path()), read_file(packed.folder / entry.path().filename()));
  }
}

TEST(Dataset, AFolderThatIsNoneIsRefused) {
  const test::TempFolder folder;
  ThreadPool pool(1);
  const auto open = [&] { Dataset(folder.path(), pool); };
  test::expect_error(open, Kind::BadInput, {"manifest.json is missing", "quern data pack"});
  folder.write("manifest.json", "{}");
  test::expect_error(open, Kind::BadInput, {"manifest.json", "not the manifest of a dataset"});
}

TEST(Dataset, ADamagedShardIsRefused) {
  Packed packed(kTwoTexts);
  const fs::path shard = packed.folder / "tokens-00000.safetensors";
  std::string bytes = read_file(shard);
  bytes.back() = static_cast<char>(bytes.back() ^ 1);
  write_file(shard, bytes);
  packed.expect_refused({"tokens-00000.safetensors", "SHA-256"});
  fs::resize_file(shard, bytes.size() / 2);
  packed.expect_refused({"tokens-00000.safetensors"});
  fs::remove(shard);
  packed.expect_refused({"tokens-00000.safetensors"});
}

TEST(Dataset, AManifestThatLiesIsRefused) {
  Packed packed(kTwoTexts);
  const auto lie = [&](const char* field, int64_t value, const std::vector<std::string>& parts) {
    const std::string before = read_file(packed.folder / "manifest.json");
    packed.edit([&](auto& json) { json[field] = value; });
    packed.expect_refused(parts);
    write_file(packed.folder / "manifest.json", before);
  };
  lie("version", 2, {"version", "is 2"});
  lie("tokens", 8, {"shards", "7 tokens"});
  lie("documents", 3, {"shards", "2 documents"});
  lie("vocab", 100, {"not below the vocabulary's 100"});
  lie("tokens", -1, {"tokens"});
  packed.edit([](auto& json) { json["shards"][0]["file"] = "../in.jsonl"; });
  packed.expect_refused({"manifest.json", "../in.jsonl"});
}

TEST(Dataset, AShardOfAnotherFormIsRefused) {
  Packed packed(kTwoTexts);
  const auto replace = [&](const std::vector<PlannedTensor>& plan, size_t bytes,
                           const std::vector<std::string>& parts) {
    const fs::path shard = packed.folder / "tokens-00000.safetensors";
    SafetensorsWriter writer(shard, plan);
    const std::vector<std::byte> zeros(bytes);
    writer.write(zeros);
    writer.finish();
    packed.edit([&](auto& json) { json["shards"][0]["sha256"] = sha256_file(shard); });
    packed.expect_refused(parts);
  };
  replace({{"tokens", DType::U16, {7}}}, 14, {"documents"});
  replace({{"documents", DType::I64, {2}}, {"tokens", DType::U16, {6}}}, 28, {"tokens is [6]"});
  replace({{"documents", DType::I64, {2}}, {"tokens", DType::I16, {7}}}, 30, {"I16"});
  // Two documents that begin at 0.
  replace({{"documents", DType::I64, {2}}, {"tokens", DType::U16, {7}}}, 30, {"rising from 0"});
}

}  // namespace
}  // namespace quern
