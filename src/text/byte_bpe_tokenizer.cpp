#include "text/byte_bpe_tokenizer.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/error.h"
#include "core/utf8.h"
#include "text/piece_encoder.h"
#include "text/splitter.h"
#include "text/unicode.h"

namespace quern {
namespace {

// Special tokens of the release, whose ids begin at `first`.
std::vector<SpecialToken> release_specials(ByteBpeTokenizer::Release release, TokenId first) {
  std::vector<std::string> names = {"<|endoftext|>", "<|im_start|>", "<|im_end|>"};
  if (release == ByteBpeTokenizer::Release::First) {
    for (const char* name : {"<R>", "<S>", "<X>", "<mask>", "<sep>"}) names.emplace_back(name);
    for (int i = 0; i < 200; ++i) names.push_back(fmt::format("<extra_{}>", i));
  } else {
    for (int i = 0; i < 205; ++i) names.push_back(fmt::format("<|extra_{}|>", i));
  }
  std::vector<SpecialToken> out;
  for (std::string& name : names) out.push_back({std::move(name), first++});
  return out;
}

}  // namespace

std::string_view ByteBpeTokenizer::plain_bytes(TokenId id) const noexcept {
  if (static_cast<size_t>(id) >= bpe_.size()) return {};
  const std::string_view token = bpe_.bytes(id);
  return token.empty() ? std::string_view() : token;
}

std::unique_ptr<ByteBpeTokenizer> ByteBpeTokenizer::from_ranks(const RankedTokens& ranks,
                                                               Release release,
                                                               const RankedTokens* extra) {
  if (ranks.first_rank != 0) {
    throw_bad_input(
        fmt::format("the vocabulary's ranks begin at {}, expected 0", ranks.first_rank));
  }
  const auto special_from = static_cast<TokenId>(ranks.tokens.size());
  std::vector<SpecialToken> specials = release_specials(release, special_from);
  std::vector<std::string> longer;
  if (extra != nullptr) {
    const auto expected = static_cast<int64_t>(ranks.tokens.size() + specials.size());
    if (extra->first_rank != expected) {
      throw_bad_input(fmt::format("the extra vocabulary begins at the id {}, expected {}",
                                  extra->first_rank, expected));
    }
    longer = ranks.tokens;
    longer.resize(static_cast<size_t>(expected));  // the special ids are a gap among the ranks
    longer.insert(longer.end(), extra->tokens.begin(), extra->tokens.end());
  }
  const std::vector<std::string>& tokens = extra == nullptr ? ranks.tokens : longer;
  std::unique_ptr<ByteBpeTokenizer> out(new ByteBpeTokenizer(Bpe::from_ranks(tokens)));
  out->set_specials(std::move(specials), special_from, out->bpe_.size());
  out->eos_ = special_from;
  return out;
}

std::unique_ptr<ByteBpeTokenizer> ByteBpeTokenizer::from_ranks(Bpe bpe, Release release) {
  const auto special_from = static_cast<TokenId>(bpe.size());
  std::unique_ptr<ByteBpeTokenizer> out(new ByteBpeTokenizer(std::move(bpe)));
  out->set_specials(release_specials(release, special_from), special_from, out->bpe_.size());
  out->eos_ = special_from;
  return out;
}

std::string_view ByteBpeTokenizer::normalize(std::string_view text, std::string& storage) const {
  std::string valid_storage;
  const std::string_view valid = unicode::to_valid_utf8(text, valid_storage);
  const std::string_view normal = unicode::to_nfc(valid, storage);
  if (normal.data() != valid_storage.data()) return normal;
  storage = std::move(valid_storage);
  return storage;
}

void ByteBpeTokenizer::encode(std::string_view text, std::vector<TokenId>& out) const {
  std::string storage;
  encode_stretch(normalize(text, storage), out);
}

// Valid stretches are cut and merged as ever; a byte that belongs to none is a piece by itself.
void ByteBpeTokenizer::encode_raw(std::string_view bytes, std::vector<TokenId>& out) const {
  while (!bytes.empty()) {
    const size_t valid = std::min(utf8::first_invalid(bytes), bytes.size());
    encode_stretch(bytes.substr(0, valid), out);
    bytes.remove_prefix(valid);
    if (bytes.empty()) return;
    const size_t bad = utf8::decode(bytes).length;
    for (size_t i = 0; i < bad; ++i) bpe_.encode_piece(bytes.substr(i, 1), out);
    bytes.remove_prefix(bad);
  }
}

void ByteBpeTokenizer::encode_stretch(std::string_view text, std::vector<TokenId>& out) const {
  const PieceCaches::Lease lease(caches_);
  encode_pieces(bpe_, *lease, splitter_of(SplitRule::Qwen2), text, out);
}

std::vector<std::string> ByteBpeTokenizer::split(std::string_view text) const {
  std::string storage;
  const std::string_view normal = normalize(text, storage);
  std::vector<std::string> pieces;
  for (size_t begin = 0; begin < normal.size();) {
    const size_t end = piece_end(normal, begin);
    pieces.emplace_back(normal.substr(begin, end - begin));
    begin = end;
  }
  return pieces;
}

}  // namespace quern
