#include "text/unigram_model.h"

#include <fmt/format.h>

#include <charconv>

#include "core/base64.h"
#include "core/error.h"
#include "formats/byte_source.h"
#include "text/pipeline/pipeline_tokenizer.h"
#include "text/vocabulary_files.h"

namespace quern {
namespace {

fs::path find_table(const fs::path& folder) {
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(folder, ignored)) {
    const std::string name = entry.path().filename().string();
    if (name.ends_with("unigram.tsv") || name.ends_with("unigram.tsv.gz")) return entry.path();
  }
  return {};
}

// Lines of base64.
std::string decode_lines(std::string text, const std::string& source) {
  std::erase_if(text, [](char c) { return c == '\n' || c == '\r'; });
  std::string out;
  if (!text.empty() && !base64_decode(text, out)) throw_bad_input(source + ": is not base64");
  return out;
}

}  // namespace

bool has_unigram(const fs::path& folder) { return !find_table(folder).empty(); }

std::shared_ptr<const Tokenizer> load_unigram(const fs::path& folder) {
  const fs::path table = find_table(folder);
  if (table.empty()) throw_bad_input(folder.string() + ": has no *unigram.tsv");
  SentencePieceModel model;
  model.unknown = model.bos = model.eos = -1;
  constexpr uint64_t kMaxLine = 1 << 16;
  LineReader lines(ByteSource::open(table), table.string(), kMaxLine);
  int64_t id = 0;
  for (std::string line; lines.next(line); ++id) {
    const size_t tab = line.rfind('\t');
    SentencePieceModel::Piece piece;
    const char* end = line.data() + line.size();
    if (tab == line.npos || tab == 0 ||
        std::from_chars(line.data() + tab + 1, end, piece.score).ptr != end) {
      throw_bad_input(fmt::format("{}: line {}: expected a piece, a tab and a number",
                                  table.string(), lines.number()));
    }
    piece.text = line.substr(0, tab);
    if (piece.score == 0) piece.type = SentencePieceModel::Type::Control;
    if (piece.text == "<unk>") {
      piece.type = SentencePieceModel::Type::Unknown;
      model.unknown = id;
    }
    if (piece.text == "<s>") model.bos = id;
    if (piece.text == "</s>") model.eos = id;
    model.pieces.push_back(std::move(piece));
  }
  if (model.unknown < 0) throw_bad_input(table.string() + ": has no entry <unk>");
  const fs::path map = folder / "precompiled_charsmap.b64";
  model.charsmap = decode_lines(read_file(map, 64 << 20), map.string());
  TokenizerConfig config;
  config.add_bos = false;
  return std::make_shared<PipelineTokenizer>(spec_of_sentencepiece(model, table.string(), config));
}

}  // namespace quern
