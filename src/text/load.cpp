#include "text/load.h"

#include <algorithm>

#include "core/error.h"
#include "text/byte_bpe_tokenizer.h"
#include "text/gguf_tokenizer.h"
#include "text/pipeline/pipeline_tokenizer.h"
#include "text/tokenizer_config.h"
#include "text/unigram_model.h"
#include "text/vocabulary_cache.h"
#include "text/vocabulary_files.h"

namespace quern {
namespace {

constexpr uint64_t kMaxModel = uint64_t{256} << 20;

// The tokenizer's file in a folder, or an empty path.
fs::path find_file(const fs::path& folder) {
  if (fs::exists(folder / "tokenizer.json")) return folder / "tokenizer.json";
  std::vector<fs::path> ranks;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(folder, ignored)) {
    if (entry.path().extension() == ".tiktoken") ranks.push_back(entry.path());
  }
  if (!ranks.empty()) return *std::min_element(ranks.begin(), ranks.end());
  if (fs::exists(folder / "vocab.json") && fs::exists(folder / "merges.txt")) {
    return folder / "vocab.json";
  }
  for (const char* name :
       {"tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "vocab.txt", "vocab.json"}) {
    if (fs::exists(folder / name)) return folder / name;
  }
  return {};
}

constexpr const char* kBeside[] = {"tokenizer_config.json", "special_tokens_map.json",
                                   "added_tokens.json", "chat_template.jinja",
                                   "chat_template.json"};

// Reads a tokenizer's file and the files beside it. A tokenizer.json that is named itself, rather
// than by its folder, is read alone.
TokenizerSpec read_spec(const fs::path& file, bool alone) {
  if (alone && file.extension() == ".json" && file.filename() != "vocab.json") {
    return read_tokenizer_spec(file);
  }
  const fs::path folder = file.parent_path();
  const TokenizerConfig config = read_tokenizer_config(folder.empty() ? "." : folder);
  if (file.filename() == "vocab.json") {
    return spec_of_vocab_and_merges(file, file.parent_path() / "merges.txt", config);
  }
  if (file.extension() == ".json") {
    TokenizerSpec spec = read_tokenizer_spec(file);
    apply_tokenizer_config(config, spec);
    return spec;
  }
  if (file.extension() == ".txt") return spec_of_vocab_txt(file, config);
  if (file.extension() == ".model") {
    return spec_of_sentencepiece(
        parse_sentencepiece_model(read_file(file, kMaxModel), file.string()), file.string(),
        config);
  }
  throw_bad_input(file.string() + ": is no tokenizer file",
                  "expected .tiktoken, .json, .model, .txt or .gguf");
}

// Options that belong to the vocabulary of Qwen's first release.
void refuse_options(const TokenizerOptions& options, const fs::path& file) {
  const char* given = !options.extra_vocab.empty() ? "--extra-vocab"
                      : options.first_release      ? "--first-release"
                                                   : nullptr;
  if (given == nullptr) return;
  throw Error(Kind::Misused, file.string() + ": has a tokenizer that " + given + " does not fit",
              "the option belongs to a .tiktoken vocabulary");
}

fs::path found_file(const fs::path& path) {
  fs::path file = fs::is_directory(path) ? find_file(path) : path;
  if (!file.empty()) return file;
  throw_bad_input(path.string() + ": has no tokenizer",
                  "looked for tokenizer.json, *.tiktoken, vocab.json with merges.txt, "
                  "tokenizer.model, spiece.model and vocab.txt");
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
  const fs::path beside = folder ? path : file.parent_path();
  for (const char* name : kBeside) files.push_back(beside / name);
  for (const fs::path& source : files) {
    if (fs::is_regular_file(source)) write_file(to / source.filename(), read_file(source));
  }
}

TokenizerSpec load_tokenizer_spec(const fs::path& path) {
  if (is_gguf(path)) return gguf_tokenizer_spec(GgufFile(path));
  const fs::path file = found_file(path);
  if (file.extension() != ".tiktoken") return read_spec(file, !fs::is_directory(path));
  const std::vector<std::string> tokens = read_tiktoken(file).tokens;
  std::vector<AddedToken> added;
  const auto tokenizer = load_tokenizer(file);
  for (const SpecialToken& special : tokenizer->specials()) {
    added.push_back({.id = special.id, .content = special.name});
  }
  TokenizerSpec spec = spec_of_byte_vocabulary(tokens, merges_of_ranks(tokens), std::move(added));
  spec.source = file.string();
  return spec;
}

std::shared_ptr<const Tokenizer> load_tokenizer(const fs::path& path,
                                                const TokenizerOptions& options) {
  if (is_gguf(path)) {
    refuse_options(options, path);
    return load_gguf_tokenizer(GgufFile(path));
  }
  if (fs::is_directory(path) && find_file(path).empty() && has_unigram(path)) {
    refuse_options(options, path);
    return load_unigram(path);
  }
  const fs::path file = found_file(path);
  if (file.extension() == ".tiktoken") {
    const auto release =
        options.first_release ? ByteBpeTokenizer::Release::First : ByteBpeTokenizer::Release::Later;
    if (options.extra_vocab.empty()) return ByteBpeTokenizer::from_ranks(load_ranks(file), release);
    const RankedTokens ranks = read_tiktoken(file);
    const RankedTokens extra = read_tiktoken(options.extra_vocab);
    return ByteBpeTokenizer::from_ranks(ranks, release, &extra);
  }
  refuse_options(options, file);
  return std::make_shared<PipelineTokenizer>(read_spec(file, !fs::is_directory(path)));
}

}  // namespace quern
