// Token ids on disk. A dataset is a folder with manifest.json and shards; a shard is a safetensors
// file with
//   tokens     U16 or U32 [tokens]      documents one after the other, each ended by <|endoftext|>
//   documents  I64 [documents]          where each document begins in `tokens`, rising from 0
//   loss_mask  U8 [tokens], or absent   1 where a token is to be learnt, 0 where it is only read
// so any reader of safetensors can look at it. A document never spans two shards.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/thread_pool.h"
#include "formats/safetensors.h"

namespace quern {

struct DatasetManifest {
  std::string name;
  std::string tokenizer_hash;  // Tokenizer::hash()
  int64_t vocab = 0;           // ids are below it
  int64_t tokens = 0;
  int64_t learnt_tokens = 0;  // those whose mask is 1
  int64_t documents = 0;
  int64_t text_bytes = 0;  // of UTF-8 before tokenizing: for bits per byte

  struct Shard {
    std::string file;
    int64_t tokens = 0, documents = 0;
    std::string sha256;
  };
  std::vector<Shard> shards;
};

// Writes a dataset into an empty folder, which the caller makes appear at once (AtomicFolder).
class DatasetWriter {
 public:
  // `manifest` gives name, tokenizer_hash, vocab; the rest is counted. Ids are stored in 16 bits
  // where `vocab` allows.
  DatasetWriter(fs::path folder, DatasetManifest manifest, int64_t shard_tokens);

  // `mask` is empty (learn all) or as long as `ids`.
  void add(std::span<const int32_t> ids, std::span<const uint8_t> mask, int64_t text_bytes);
  const DatasetManifest& finish();

 private:
  void close_shard();

  fs::path folder_;
  DatasetManifest manifest_;
  int64_t shard_tokens_;
  std::vector<int32_t> ids_;
  std::vector<uint8_t> mask_;  // empty while everything is learnt
  std::vector<int64_t> documents_;
};

// A dataset's manifest alone: its shards are not looked at. Throws BadInput as Dataset does.
DatasetManifest read_manifest(const fs::path& folder);

class Dataset {
 public:
  // Throws BadInput naming file and field where the folder is no dataset, a shard differs from the
  // manifest, or an offset or id is out of range. Every byte is read once, by all threads.
  Dataset(const fs::path& folder, ThreadPool& pool);

  const fs::path& folder() const noexcept { return folder_; }
  const DatasetManifest& manifest() const noexcept { return manifest_; }
  int64_t tokens() const noexcept { return manifest_.tokens; }

  // Where documents begin, counted over all shards, rising from 0.
  const std::vector<int64_t>& documents() const noexcept { return documents_; }

  // Tokens [first, first + ids.size()), over the ends of shards; where mask is 0, labels become
  // kIgnoredLabel's -100.
  void read(int64_t first, std::span<int32_t> ids, std::span<int32_t> labels) const;

 private:
  struct Shard {
    std::unique_ptr<SafetensorsFile> file;
    int64_t first = 0, tokens = 0;
    const uint16_t* ids16 = nullptr;  // one of the two
    const uint32_t* ids32 = nullptr;
    const uint8_t* mask = nullptr;
  };
  void open_shard(const DatasetManifest::Shard& planned, ThreadPool& pool);

  fs::path folder_;
  DatasetManifest manifest_;
  std::vector<Shard> shards_;
  std::vector<int64_t> documents_;
};

}  // namespace quern
