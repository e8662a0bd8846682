#include "data/dataset.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <limits>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/json.h"

namespace quern {
namespace {

constexpr std::string_view kFormat = "quern-tokens";
constexpr int64_t kVersion = 1;
constexpr int64_t kMaxTokens = int64_t{1} << 46;
constexpr int32_t kIgnored = -100;

std::string manifest_text(const DatasetManifest& manifest) {
  nlohmann::ordered_json shards = nlohmann::ordered_json::array();
  for (const auto& shard : manifest.shards) {
    shards.push_back({{"file", shard.file},
                      {"tokens", shard.tokens},
                      {"documents", shard.documents},
                      {"sha256", shard.sha256}});
  }
  const nlohmann::ordered_json json = {{"format", kFormat},
                                       {"version", kVersion},
                                       {"name", manifest.name},
                                       {"tokenizer_hash", manifest.tokenizer_hash},
                                       {"vocab", manifest.vocab},
                                       {"tokens", manifest.tokens},
                                       {"learnt_tokens", manifest.learnt_tokens},
                                       {"documents", manifest.documents},
                                       {"text_bytes", manifest.text_bytes},
                                       {"shards", shards}};
  return dump(json, 2) + "\n";
}

template <class T>
std::vector<T> narrowed(const std::vector<int32_t>& ids) {
  return {ids.begin(), ids.end()};
}

}  // namespace

DatasetWriter::DatasetWriter(fs::path folder, DatasetManifest manifest, int64_t shard_tokens)
    : folder_(std::move(folder)), manifest_(std::move(manifest)), shard_tokens_(shard_tokens) {}

void DatasetWriter::add(std::span<const int32_t> ids, std::span<const uint8_t> mask,
                        int64_t text_bytes) {
  if (ids.empty()) return;
  const size_t total = ids_.size() + ids.size();
  if (!ids_.empty() && total > static_cast<size_t>(shard_tokens_)) close_shard();
  documents_.push_back(static_cast<int64_t>(ids_.size()));
  if (!mask.empty() || !mask_.empty()) {
    mask_.resize(ids_.size(), 1);
    if (mask.empty()) {
      mask_.resize(ids_.size() + ids.size(), 1);
    } else {
      mask_.insert(mask_.end(), mask.begin(), mask.end());
    }
  }
  ids_.insert(ids_.end(), ids.begin(), ids.end());
  manifest_.text_bytes += text_bytes;
}

void DatasetWriter::close_shard() {
  const auto count = static_cast<int64_t>(ids_.size());
  const bool narrow = manifest_.vocab <= std::numeric_limits<uint16_t>::max() + int64_t{1};
  const std::string file = fmt::format("tokens-{:05}.safetensors", manifest_.shards.size());
  std::vector<PlannedTensor> plan = {
      {"documents", DType::I64, {static_cast<int64_t>(documents_.size())}},
      {"tokens", narrow ? DType::U16 : DType::U32, {count}}};
  if (!mask_.empty()) plan.push_back({"loss_mask", DType::U8, {count}});
  SafetensorsWriter writer(
      folder_ / file, plan,
      {{"format", std::string(kFormat)}, {"tokenizer_hash", manifest_.tokenizer_hash}});
  writer.write(bytes_of(std::span<const int64_t>(documents_)));
  if (narrow) {
    const auto ids = narrowed<uint16_t>(ids_);
    writer.write(bytes_of(std::span<const uint16_t>(ids)));
  } else {
    writer.write(bytes_of(std::span<const int32_t>(ids_)));
  }
  if (!mask_.empty()) writer.write(bytes_of(std::span<const uint8_t>(mask_)));
  writer.finish();
  manifest_.shards.push_back(
      {file, count, static_cast<int64_t>(documents_.size()), sha256_file(folder_ / file)});
  manifest_.tokens += count;
  manifest_.documents += static_cast<int64_t>(documents_.size());
  manifest_.learnt_tokens +=
      mask_.empty() ? count : std::count(mask_.begin(), mask_.end(), uint8_t{1});
  ids_.clear();
  mask_.clear();
  documents_.clear();
}

const DatasetManifest& DatasetWriter::finish() {
  if (!ids_.empty()) close_shard();
  if (manifest_.tokens == 0) {
    throw_bad_input("there is no document to pack",
                    "look at the files, --field and --where: no record was taken");
  }
  write_file(folder_ / "manifest.json", manifest_text(manifest_));
  return manifest_;
}

DatasetManifest read_manifest(const fs::path& folder) {
  const fs::path path = folder / "manifest.json";
  if (!fs::exists(path)) {
    throw_bad_input(folder.string() + ": is no dataset: manifest.json is missing",
                    "make one with 'quern data pack'");
  }
  const Json json = Json::parse_file(path.string());
  if (json.string_or("format", "") != kFormat) {
    json.fail("is not the manifest of a dataset", "make one with 'quern data pack'");
  }
  if (json.at("version").integer() != kVersion) {
    json.at("version").fail(
        fmt::format("is {}, this program reads {}", json.at("version").integer(), kVersion));
  }
  DatasetManifest out;
  out.name = json.at("name").string();
  out.tokenizer_hash = json.at("tokenizer_hash").string();
  out.vocab = json.at("vocab").integer(1, int64_t{1} << 31);
  out.tokens = json.at("tokens").integer(1, kMaxTokens);
  out.learnt_tokens = json.at("learnt_tokens").integer(0, out.tokens);
  out.documents = json.at("documents").integer(1, out.tokens);
  out.text_bytes = json.at("text_bytes").integer(0);
  int64_t tokens = 0, documents = 0;
  for (const Json& item : json.at("shards").items()) {
    out.shards.push_back({item.at("file").string(), item.at("tokens").integer(1, kMaxTokens),
                          item.at("documents").integer(1, kMaxTokens), item.at("sha256").string()});
    tokens += out.shards.back().tokens;
    documents += out.shards.back().documents;
  }
  if (tokens != out.tokens || documents != out.documents) {
    json.at("shards").fail(
        fmt::format("hold {} tokens in {} documents together, the manifest "
                    "says {} in {}",
                    tokens, documents, out.tokens, out.documents));
  }
  return out;
}

Dataset::Dataset(const fs::path& folder, ThreadPool& pool)
    : folder_(folder), manifest_(read_manifest(folder)) {
  for (const auto& shard : manifest_.shards) open_shard(shard, pool);
}

void Dataset::open_shard(const DatasetManifest::Shard& planned, ThreadPool& pool) {
  const fs::path path = join_inside(folder_, planned.file, (folder_ / "manifest.json").string());
  Shard shard;
  shard.file = std::make_unique<SafetensorsFile>(path);
  if (const std::string sum = sha256_file(path); sum != planned.sha256) {
    throw_bad_input(fmt::format("{}: its SHA-256 is {}, manifest.json says {}", path.string(), sum,
                                printable(planned.sha256, 80)),
                    "the shard is damaged or of another dataset: pack the data again");
  }
  const auto expect = [&](const ConstTensorView& view, const char* name, int64_t count) {
    if (view.shape == Shape{count}) return;
    throw_bad_input(fmt::format("{}: {} is {}, manifest.json implies [{}]", path.string(), name,
                                to_string(view.shape), count));
  };
  const ConstTensorView tokens = shard.file->at("tokens");
  expect(tokens, "tokens", planned.tokens);
  shard.tokens = planned.tokens;
  shard.first = shards_.empty() ? 0 : shards_.back().first + shards_.back().tokens;
  if (tokens.dtype == DType::U16) {
    shard.ids16 = reinterpret_cast<const uint16_t*>(tokens.data);
  } else if (tokens.dtype == DType::U32) {
    shard.ids32 = reinterpret_cast<const uint32_t*>(tokens.data);
  } else {
    throw_bad_input(
        fmt::format("{}: tokens are {}, expected U16 or U32", path.string(), name(tokens.dtype)));
  }
  if (const auto mask = shard.file->find("loss_mask")) {
    expect(*mask, "loss_mask", planned.tokens);
    if (mask->dtype != DType::U8) {
      throw_bad_input(
          fmt::format("{}: loss_mask is {}, expected U8", path.string(), name(mask->dtype)));
    }
    shard.mask = reinterpret_cast<const uint8_t*>(mask->data);
  }
  const ConstTensorView documents = shard.file->at("documents");
  expect(documents, "documents", planned.documents);
  int64_t before = -1;
  for (const int64_t begin : to_integers(documents, path.string() + ": documents")) {
    if (begin <= before || begin >= planned.tokens || (before < 0 && begin != 0)) {
      throw_bad_input(
          fmt::format("{}: documents has {} after {}, expected offsets rising from 0 "
                      "below {}",
                      path.string(), begin, before, planned.tokens));
    }
    documents_.push_back(shard.first + begin);
    before = begin;
  }
  std::atomic<int64_t> bad{-1};
  pool.parallel_for(planned.tokens, 1 << 18, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t id = shard.ids16 ? shard.ids16[i] : static_cast<int64_t>(shard.ids32[i]);
      if (id >= manifest_.vocab) bad = i;
    }
  });
  if (bad >= 0) {
    throw_bad_input(fmt::format("{}: the token at {} is not below the vocabulary's {}",
                                path.string(), bad.load(), manifest_.vocab));
  }
  shards_.push_back(std::move(shard));
}

void Dataset::read(int64_t first, std::span<int32_t> ids, std::span<int32_t> labels) const {
  auto shard = std::upper_bound(shards_.begin(), shards_.end(), first,
                                [](int64_t at, const Shard& s) { return at < s.first; }) -
               1;
  for (size_t done = 0; done < ids.size(); ++shard) {
    const int64_t from = first + static_cast<int64_t>(done) - shard->first;
    const auto count =
        std::min<size_t>(ids.size() - done, static_cast<size_t>(shard->tokens - from));
    for (size_t i = 0; i < count; ++i) {
      const auto at = static_cast<size_t>(from) + i;
      const int32_t id = shard->ids16 ? shard->ids16[at] : static_cast<int32_t>(shard->ids32[at]);
      ids[done + i] = id;
      labels[done + i] = shard->mask && shard->mask[at] == 0 ? kIgnored : id;
    }
    done += count;
  }
}

}  // namespace quern
