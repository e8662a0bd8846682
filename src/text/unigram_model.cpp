#include "text/unigram_model.h"

#include <fmt/format.h>

#include <charconv>
#include <cstring>

#include "core/base64.h"
#include "core/error.h"
#include "formats/byte_source.h"
#include "text/sentencepiece_tokenizer.h"

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

// What of protocol buffers a model needs: fields that are numbers, bytes, or messages in bytes.
void put_varint(std::string& out, uint64_t value) {
  for (; value >= 0x80; value >>= 7) out += static_cast<char>(value | 0x80);
  out += static_cast<char>(value);
}
void put_number(std::string& out, unsigned field, uint64_t value) {
  put_varint(out, uint64_t{field} << 3);
  put_varint(out, value);
}
void put_bytes(std::string& out, unsigned field, std::string_view bytes) {
  put_varint(out, uint64_t{field} << 3 | 2);
  put_varint(out, bytes.size());
  out += bytes;
}
void put_float(std::string& out, unsigned field, float value) {
  put_varint(out, uint64_t{field} << 3 | 5);
  char raw[4];
  std::memcpy(raw, &value, 4);
  out.append(raw, 4);
}

// Lines of base64.
std::string decode_lines(std::string text, const std::string& source) {
  std::erase_if(text, [](char c) { return c == '\n' || c == '\r'; });
  std::string out;
  if (!text.empty() && !base64_decode(text, out)) throw_bad_input(source + ": is not base64");
  return out;
}

// Message numbers are those of SentencePiece's published model format.
constexpr unsigned kPiece = 1, kTrainer = 2, kNormalizer = 3;
enum PieceType : uint64_t { Normal = 1, Unknown = 2, Control = 3 };

}  // namespace

bool has_unigram(const fs::path& folder) { return !find_table(folder).empty(); }

std::shared_ptr<const Tokenizer> load_unigram(const fs::path& folder) {
  const fs::path table = find_table(folder);
  if (table.empty()) throw_bad_input(folder.string() + ": has no *unigram.tsv");
  std::string model;
  int64_t special_ids[3] = {-1, -1, -1};  // <unk>, <s>, </s>
  constexpr uint64_t kMaxLine = 1 << 16;
  LineReader lines(ByteSource::open(table), table.string(), kMaxLine);
  int64_t id = 0;
  for (std::string line; lines.next(line); ++id) {
    const size_t tab = line.rfind('\t');
    float score = 0;
    const char* end = line.data() + line.size();
    if (tab == line.npos || tab == 0 ||
        std::from_chars(line.data() + tab + 1, end, score).ptr != end) {
      throw_bad_input(fmt::format("{}: line {}: expected a piece, a tab and a number",
                                  table.string(), lines.number()));
    }
    const std::string_view piece = std::string_view(line).substr(0, tab);
    PieceType type = score == 0 ? Control : Normal;
    constexpr std::string_view kSpecial[] = {"<unk>", "<s>", "</s>"};
    for (size_t i = 0; i < std::size(kSpecial); ++i) {
      if (piece == kSpecial[i]) special_ids[i] = id;
    }
    if (piece == "<unk>") type = Unknown;
    std::string entry;
    put_bytes(entry, 1, piece);
    put_float(entry, 2, score);
    put_number(entry, 3, type);
    put_bytes(model, kPiece, entry);
  }
  if (special_ids[0] < 0) throw_bad_input(table.string() + ": has no entry <unk>");
  std::string trainer;
  put_number(trainer, 3, 1);  // unigram
  put_number(trainer, 4, static_cast<uint64_t>(id));
  for (unsigned i = 0; i < 3; ++i) {  // -1 takes ten bytes, as any negative number
    put_number(trainer, 40 + i, static_cast<uint64_t>(special_ids[i]));
  }
  put_number(trainer, 43, static_cast<uint64_t>(int64_t{-1}));  // no padding
  put_bytes(model, kTrainer, trainer);
  const fs::path map = folder / "precompiled_charsmap.b64";
  std::string normalizer;
  put_bytes(normalizer, 1, "nmt_nfkc");
  put_bytes(normalizer, 2, decode_lines(read_file(map, 64 << 20), map.string()));
  for (unsigned option = 3; option <= 5; ++option) {  // a space in front, none twice, all marked
    put_number(normalizer, option, 1);
  }
  put_bytes(model, kNormalizer, normalizer);
  return std::make_shared<SentencePieceTokenizer>(model, table.string(), /*add_bos=*/false);
}

}  // namespace quern
