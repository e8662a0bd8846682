#include "text/load.h"

#include <algorithm>

#include "core/error.h"
#include "core/json.h"
#include "text/byte_bpe_tokenizer.h"
#include "text/gguf_tokenizer.h"
#include "text/sentencepiece_tokenizer.h"
#include "text/unigram_model.h"
#include "text/vocabulary_cache.h"

namespace quern {
namespace {

// The tokenizer's file in a folder, or an empty path.
fs::path find_file(const fs::path& folder) {
  if (fs::exists(folder / "tokenizer.json")) return folder / "tokenizer.json";
  std::vector<fs::path> ranks;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(folder, ignored)) {
    if (entry.path().extension() == ".tiktoken") ranks.push_back(entry.path());
  }
  if (!ranks.empty()) return *std::min_element(ranks.begin(), ranks.end());
  for (const char* name : {"vocab.json", "tokenizer.model"}) {
    if (fs::exists(folder / name)) return folder / name;
  }
  return {};
}

bool adds_bos(const fs::path& folder) {
  const fs::path config = folder / "tokenizer_config.json";
  if (!fs::exists(config)) return true;
  return Json::parse_file(config.string()).boolean_or("add_bos_token", true);
}

}  // namespace

bool has_tokenizer(const fs::path& path) {
  return is_gguf(path) ? has_gguf_tokenizer(GgufFile(path)) : !find_file(path).empty();
}

void copy_tokenizer(const fs::path& path, const fs::path& to) {
  const bool folder = fs::is_directory(path);
  const fs::path file = folder ? find_file(path) : path;
  std::vector<fs::path> files = {file};
  if (file.filename() == "vocab.json") files.push_back(file.parent_path() / "merges.txt");
  if (folder) {
    for (const char* name : {"tokenizer_config.json", "special_tokens_map.json"}) {
      files.push_back(path / name);
    }
  }
  for (const fs::path& source : files) {
    if (fs::is_regular_file(source)) write_file(to / source.filename(), read_file(source));
  }
}

std::shared_ptr<const Tokenizer> load_tokenizer(const fs::path& path,
                                                const TokenizerOptions& options) {
  if (is_gguf(path)) return load_gguf_tokenizer(GgufFile(path));
  const fs::path file = fs::is_directory(path) ? find_file(path) : path;
  if (file.empty() && has_unigram(path)) return load_unigram(path);
  if (file.empty()) {
    throw_bad_input(path.string() + ": has no tokenizer",
                    "looked for *.tiktoken, tokenizer.json, vocab.json with merges.txt, and "
                    "tokenizer.model");
  }
  if (file.extension() == ".tiktoken") {
    const auto release =
        options.first_release ? ByteBpeTokenizer::Release::First : ByteBpeTokenizer::Release::Later;
    if (options.extra_vocab.empty()) return ByteBpeTokenizer::from_ranks(load_ranks(file), release);
    const RankedTokens ranks = read_tiktoken(file);
    const RankedTokens extra = read_tiktoken(options.extra_vocab);
    return ByteBpeTokenizer::from_ranks(ranks, release, &extra);
  }
  if (file.filename() == "vocab.json") {
    return ByteBpeTokenizer::from_json(
        read_vocab_and_merges(file, file.parent_path() / "merges.txt"), file.string());
  }
  if (file.extension() == ".json") {
    return ByteBpeTokenizer::from_json(read_tokenizer_json(file), file.string());
  }
  if (file.extension() == ".model") {
    return std::make_shared<SentencePieceTokenizer>(file, adds_bos(file.parent_path()));
  }
  throw_bad_input(file.string() + ": is no tokenizer file",
                  "expected .tiktoken, .json, .model or .gguf");
}

}  // namespace quern
