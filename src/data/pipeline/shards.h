// Files of records: which there are, their lines, and compressed shards of them.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/file.h"

namespace quern {

// The files that the words name: files, folders (their record files, by name, hidden ones and
// `dropped/` and `bad/` left out), patterns with * and ?. Throws BadInput for one that names none.
std::vector<fs::path> expand_inputs(const std::vector<std::string>& words);

// Those of one folder, not of folders in it; maybe none.
std::vector<fs::path> record_files(const fs::path& folder);

// Regular files below a folder by path, without .git and links. An input of a stage may be such a
// folder (Stage::open): its digest is that of the paths and contents of all.
std::vector<fs::path> files_below(const fs::path& folder);
std::string input_sha256(const fs::path& input);
uint64_t input_bytes(const fs::path& input);

// Lines that go into one compressed file, which appears under its name when it is whole.
class ShardWriter {
 public:
  explicit ShardWriter(const fs::path& path);
  ~ShardWriter();
  ShardWriter(const ShardWriter&) = delete;
  ShardWriter& operator=(const ShardWriter&) = delete;

  void write(std::string_view line);  // without its end
  void commit();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

std::string shard_name(size_t index);  // shard-00000.jsonl.zst

}  // namespace quern
