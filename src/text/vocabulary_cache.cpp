#include "text/vocabulary_cache.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>

#include "core/error.h"
#include "formats/tiktoken.h"
#include "text/bpe_file.h"

namespace quern {
namespace {

constexpr size_t kMinSourceBytes = 256 << 10;  // what has less is soon made

Bpe make(std::string_view text, const std::string& source) {
  const RankedTokens ranks = parse_tiktoken(text, source);
  if (ranks.first_rank != 0) {
    throw_bad_input(
        fmt::format("the vocabulary's ranks begin at {}, expected 0", ranks.first_rank));
  }
  Bpe bpe = Bpe::from_ranks(ranks.tokens);
  if (bpe.has_equal_tokens()) refuse_equal_tokens(ranks, source);
  return bpe;
}

// Whether nobody else can have written the file, or can write it now.
bool is_ours(const fs::path& path) {
  struct stat info {};
  return ::lstat(path.c_str(), &info) == 0 && S_ISREG(info.st_mode) &&
         (info.st_uid == ::geteuid() || info.st_uid == 0) &&
         (info.st_mode & (S_IWGRP | S_IWOTH)) == 0;
}

std::optional<Bpe> try_open(const fs::path& path, const SourceId& id) {
  try {
    if (!is_ours(path)) return std::nullopt;
    return BpeFile::open(MappedFile(path), id);
  } catch (const Error&) {
    return std::nullopt;
  }
}

void try_write(const fs::path& path, std::string_view bytes) {
  if (bytes.empty()) return;
  try {
    std::error_code failure;  // then the file cannot be created either
    fs::create_directories(path.parent_path(), failure);
    write_file(path, bytes);
  } catch (const Error&) {  // it will be made again
  }
}

}  // namespace

fs::path vocabulary_cache_folder() {
  if (const char* own = std::getenv("QUERN_TOKENIZER_CACHE"); own != nullptr && *own != '\0') {
    return std::string_view(own) == "off" ? fs::path() : fs::path(own);
  }
  const char* cache = std::getenv("XDG_CACHE_HOME");
  if (cache != nullptr && *cache == '/') return fs::path(cache) / "quern" / "tokenizers";
  const char* home = std::getenv("HOME");
  if (home == nullptr || *home != '/') return {};
  return fs::path(home) / ".cache" / "quern" / "tokenizers";
}

Bpe load_ranks(const fs::path& tiktoken, const fs::path& folder) {
  const MappedFile file(tiktoken);
  const std::string_view text = file.text();
  if (folder.empty() || text.size() < kMinSourceBytes) return make(text, tiktoken.string());
  const SourceId id = source_id(text);
  const fs::path path = folder / fmt::format("{:016x}{:016x}.bpe", id.hash[1], id.hash[0]);
  if (std::optional<Bpe> kept = try_open(path, id)) return std::move(*kept);
  Bpe made = make(text, tiktoken.string());
  try_write(path, BpeFile::make(made, id));
  return made;
}

}  // namespace quern
