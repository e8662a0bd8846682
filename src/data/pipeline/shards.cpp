#include "data/pipeline/shards.h"

#include <fmt/format.h>
#include <glob.h>
#include <zstd.h>

#include <algorithm>

#include "core/ascii.h"
#include "core/error.h"

namespace quern {
namespace {

constexpr int kLevel = 3;

bool is_record_file(const fs::path& path) {
  std::string name = ascii_lower(path.filename().string());
  if (name.starts_with(".")) return false;
  for (const std::string_view packed : {".gz", ".zst"}) {
    if (name.ends_with(packed)) name.resize(name.size() - packed.size());
  }
  for (const std::string_view ending : {".jsonl", ".ndjson", ".json"}) {
    if (name.ends_with(ending)) return name != "manifest.json";
  }
  return false;
}

}  // namespace

std::vector<fs::path> record_files(const fs::path& folder) {
  std::vector<fs::path> found;
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (entry.is_regular_file() && is_record_file(entry.path())) found.push_back(entry.path());
  }
  std::ranges::sort(found);
  return found;
}

std::vector<fs::path> files_below(const fs::path& folder) {
  std::vector<fs::path> files;
  for (auto entry = fs::recursive_directory_iterator(folder);
       entry != fs::recursive_directory_iterator(); ++entry) {
    if (entry->is_symlink()) continue;
    if (entry->is_directory() && entry->path().filename() == ".git") {
      entry.disable_recursion_pending();
    } else if (entry->is_regular_file()) {
      files.push_back(entry->path());
    }
  }
  std::sort(files.begin(), files.end());
  return files;
}

std::string input_sha256(const fs::path& input) {
  if (!fs::is_directory(input)) return sha256_file(input);
  std::string all;
  for (const fs::path& file : files_below(input)) {
    all += fs::relative(file, input).generic_string() + "\n" + sha256_file(file) + "\n";
  }
  return sha256(all);
}

uint64_t input_bytes(const fs::path& input) {
  if (!fs::is_directory(input)) return fs::file_size(input);
  uint64_t total = 0;
  for (const fs::path& file : files_below(input)) total += fs::file_size(file);
  return total;
}

std::vector<fs::path> expand_inputs(const std::vector<std::string>& words) {
  std::vector<fs::path> out;
  for (const std::string& word : words) {
    const size_t before = out.size();
    if (fs::is_directory(word)) {
      for (const fs::path& file : record_files(word)) out.push_back(file);
    } else if (fs::exists(word)) {
      out.emplace_back(word);
    } else if (word.find_first_of("*?[") != std::string::npos) {
      glob_t found = {};
      if (::glob(word.c_str(), 0, nullptr, &found) == 0) {
        for (size_t i = 0; i < found.gl_pathc; ++i) {
          if (fs::is_regular_file(found.gl_pathv[i])) out.emplace_back(found.gl_pathv[i]);
        }
      }
      ::globfree(&found);
    } else {
      throw_bad_input(word + ": is not there");
    }
    if (out.size() == before) {
      throw_bad_input(word + ": names no file of records",
                      "looked for .jsonl, .ndjson and .json, also .gz and .zst");
    }
  }
  return out;
}

struct ShardWriter::State {
  explicit State(const fs::path& path) : file(path), context(ZSTD_createCCtx()) {
    if (context == nullptr) throw Error(Kind::NoResources, "out of memory");
    ZSTD_CCtx_setParameter(context, ZSTD_c_compressionLevel, kLevel);
    ZSTD_CCtx_setParameter(context, ZSTD_c_checksumFlag, 1);
    packed.resize(ZSTD_CStreamOutSize());
    pending.reserve(kChunk + (1 << 16));
  }
  ~State() { ZSTD_freeCCtx(context); }

  void compress(ZSTD_EndDirective mode) {
    ZSTD_inBuffer in = {pending.data(), pending.size(), 0};
    size_t left = 0;
    do {
      ZSTD_outBuffer out = {packed.data(), packed.size(), 0};
      left = ZSTD_compressStream2(context, &out, &in, mode);
      if (ZSTD_isError(left)) throw Error(Kind::Failed, ZSTD_getErrorName(left));
      file.write(std::string_view(packed.data(), out.pos));
    } while (mode == ZSTD_e_end ? left != 0 : in.pos < in.size);
    pending.clear();
  }

  static constexpr size_t kChunk = 1 << 20;
  AtomicFile file;
  ZSTD_CCtx* context;
  std::string pending;
  std::vector<char> packed;
};

ShardWriter::ShardWriter(const fs::path& path) : state_(std::make_unique<State>(path)) {}
ShardWriter::~ShardWriter() = default;

void ShardWriter::write(std::string_view line) {
  state_->pending += line;
  state_->pending += '\n';
  if (state_->pending.size() >= State::kChunk) state_->compress(ZSTD_e_continue);
}

void ShardWriter::commit() {
  state_->compress(ZSTD_e_end);
  state_->file.commit();
}

std::string shard_name(size_t index) { return fmt::format("shard-{:05}.jsonl.zst", index); }

}  // namespace quern
