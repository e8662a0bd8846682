#include "text/sentencepiece_tokenizer.h"

#include <sentencepiece_processor.h>

#include "core/error.h"
#include "text/unicode.h"

namespace quern {
namespace {

constexpr std::string_view kSpaceMark = "\xE2\x96\x81";  // U+2581 stands for a space

std::string piece_bytes(const sentencepiece::SentencePieceProcessor& processor, int id) {
  if (processor.IsControl(id)) return {};
  std::string piece = processor.IdToPiece(id);
  if (processor.IsByte(id)) {  // "<0x0A>"
    return std::string(1, static_cast<char>(std::stoi(piece.substr(3, 2), nullptr, 16)));
  }
  if (processor.IsUnknown(id)) return " \xE2\x81\x87 ";  // as the library shows it
  for (size_t at = 0; (at = piece.find(kSpaceMark, at)) != piece.npos;) {
    piece.replace(at, kSpaceMark.size(), 1, ' ');
  }
  return piece;
}

}  // namespace

SentencePieceTokenizer::SentencePieceTokenizer(const fs::path& model, bool add_bos)
    : SentencePieceTokenizer(read_file(model, uint64_t{256} << 20), model.string(), add_bos) {}

SentencePieceTokenizer::SentencePieceTokenizer(std::string_view content, const std::string& source,
                                               bool add_bos)
    : processor_(std::make_unique<sentencepiece::SentencePieceProcessor>()) {
  if (is_lfs_pointer(content)) {
    throw_bad_input(source + ": is a Git LFS pointer, not the tokenizer itself",
                    "run 'git lfs pull' in the model's repository");
  }
  if (!processor_->LoadFromSerializedProto(absl::string_view(content.data(), content.size()))
           .ok()) {
    throw_bad_input(source + ": is not a SentencePiece model");
  }
  const int count = processor_->GetPieceSize();
  owned_bytes_.reserve(static_cast<size_t>(count));
  std::vector<SpecialToken> specials;
  for (int id = 0; id < count; ++id) {
    owned_bytes_.push_back(piece_bytes(*processor_, id));
    if (processor_->IsControl(id)) specials.push_back({processor_->IdToPiece(id), id});
  }
  set_specials(std::move(specials), 0, owned_bytes_.size(), /*named=*/false);
  if (add_bos && processor_->bos_id() >= 0) bos_ = processor_->bos_id();
  if (processor_->eos_id() >= 0) eos_ = processor_->eos_id();
  leads_with_space_ = true;
}

SentencePieceTokenizer::~SentencePieceTokenizer() = default;

std::string_view SentencePieceTokenizer::plain_bytes(TokenId id) const noexcept {
  if (static_cast<size_t>(id) >= owned_bytes_.size()) return {};
  return owned_bytes_[static_cast<size_t>(id)];
}

std::string_view SentencePieceTokenizer::normalize(std::string_view text,
                                                   std::string& storage) const {
  return unicode::to_valid_utf8(text, storage);  // the rest is the model's own matter
}

void SentencePieceTokenizer::encode(std::string_view text, std::vector<TokenId>& out) const {
  std::string storage;
  encode_stretch(normalize(text, storage), out);
}

void SentencePieceTokenizer::encode_stretch(std::string_view text,
                                            std::vector<TokenId>& out) const {
  if (text.empty()) return;
  std::vector<int> ids;
  if (!processor_->Encode(absl::string_view(text.data(), text.size()), &ids).ok()) {
    throw Error(Kind::Failed, "SentencePiece could not encode the text");
  }
  out.insert(out.end(), ids.begin(), ids.end());
}

}  // namespace quern
