#include "text/pipeline/pipeline_tokenizer.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/error.h"
#include "core/utf8.h"
#include "formats/byte_level.h"
#include "text/piece_encoder.h"
#include "text/unicode.h"

namespace quern {
namespace {

bool is_byte_level(const TokenizerSpec& spec) {
  using Step = PreTokenizerStep::Kind;
  const bool bytes =
      std::any_of(spec.pre_tokenizers.begin(), spec.pre_tokenizers.end(),
                  [](const PreTokenizerStep& step) { return step.kind == Step::ByteLevel; }) ||
      std::any_of(spec.normalizers.begin(), spec.normalizers.end(), [](const NormalizerStep& step) {
        return step.kind == NormalizerStep::Kind::ByteLevel;
      });
  const TokenModel& model = spec.model;
  return bytes && model.kind == TokenModel::Kind::Bpe && model.prefix.empty() &&
         model.suffix.empty() && !model.byte_fallback && !model.merge_by_score;
}

}  // namespace

PipelineTokenizer::PipelineTokenizer(TokenizerSpec spec)
    : spec_(std::move(spec)),
      normalizer_(spec_.normalizers, spec_.source),
      pre_tokenizer_(spec_.pre_tokenizers, spec_.source),
      decoder_(spec_.decoders, spec_.source) {
  if (is_byte_level(spec_)) {
    make_byte_bpe();
  } else {
    model_ = make_piece_model(spec_.model, spec_.source);
  }
  find_added();
  before_ = spec_.before;
  after_ = spec_.after;
  for (const auto* list : {&before_, &after_}) {
    for (const TokenId id : *list) {
      if (id < 0 || id >= size()) {
        throw_bad_input(
            fmt::format("{}: puts the id {} around a text, which has no token", spec_.source, id));
      }
    }
  }
  if (spec_.bos >= 0) bos_ = static_cast<TokenId>(spec_.bos);
  if (!bos_ && !before_.empty()) bos_ = before_.front();
  if (spec_.eos >= 0) eos_ = static_cast<TokenId>(spec_.eos);
  if (!eos_) eos_ = special("<|endoftext|>");
  max_length_ = spec_.max_length;
  leads_with_space_ = spec_.shown_is_given ? spec_.leads_with_space : decoder_.drops_first_space();
}

// Merges go by ids, so the tokens' bytes take the place of their letters. One that has other
// characters than the alphabet's is never made out of text.
void PipelineTokenizer::make_byte_bpe() {
  TokenModel& model = spec_.model;
  std::vector<std::string> tokens(model.tokens.size());
  for (size_t id = 0; id < tokens.size(); ++id) {
    if (!model.is_made(id)) continue;
    if (auto bytes = byte_level_to_bytes(model.tokens[id])) tokens[id] = std::move(*bytes);
  }
  std::vector<Bpe::Merge> merges;
  merges.reserve(model.merges.size());
  for (const auto& [left, right, both] : model.merges) {
    if (tokens[static_cast<size_t>(left)].empty() || tokens[static_cast<size_t>(right)].empty()) {
      continue;
    }
    merges.push_back({left, right, both});
  }
  model.merges = {};
  bpe_ = Bpe::from_merges(tokens, merges, model.ignore_merges);
  for (size_t byte = 0; byte < 256; ++byte) {
    missing_[byte] = !bpe_->has_byte(static_cast<unsigned char>(byte));
    misses_bytes_ |= missing_[byte];
  }
}

void PipelineTokenizer::find_added() {
  std::vector<std::string> raw(spec_.added.size()), normalized(spec_.added.size());
  std::vector<SpecialToken> named;
  TokenId highest = -1;
  for (size_t i = 0; i < spec_.added.size(); ++i) {
    const AddedToken& token = spec_.added[i];
    const auto id = static_cast<TokenId>(token.id);
    lowest_added_ = i == 0 ? id : std::min(lowest_added_, id);
    highest = std::max(highest, id);
    named.push_back({token.content, id, token.special});
    if (!token.normalized) {
      raw[i] = token.content;
      continue;
    }
    std::string storage;
    normalized[i] = normalizer_.run(token.content, storage);
  }
  // What is found normalized is shown normalized, too.
  for (size_t i = 0; i < spec_.added.size(); ++i) {
    added_texts_.push_back(spec_.added[i].normalized ? normalized[i] : raw[i]);
  }
  if (highest >= 0) added_of_id_.resize(static_cast<size_t>(highest - lowest_added_) + 1);
  for (const AddedToken& token : spec_.added) {
    added_of_id_[static_cast<size_t>(token.id - lowest_added_)] = &token;
  }
  // A text may be cut behind a line break where nothing else is looked for across it.
  cuts_at_lines_ =
      bpe_ && pre_tokenizer_.rule().has_value() && !misses_bytes_ &&
      (normalizer_.empty() ||
       (spec_.normalizers.size() == 1 && spec_.normalizers[0].kind == NormalizerStep::Kind::Nfc)) &&
      std::all_of(spec_.added.begin(), spec_.added.end(), [](const AddedToken& token) {
        return token.special || (token.content.find('\n') == std::string::npos && !token.lstrip &&
                                 !token.rstrip && !token.single_word);
      });
  raw_added_ = AddedTokens(spec_.added, std::move(raw), spec_.longest_added_first);
  normalized_added_ = AddedTokens(spec_.added, std::move(normalized), spec_.longest_added_first);
  set_specials(std::move(named), 0, spec_.model.tokens.size(), /*named=*/false);
}

bool PipelineTokenizer::lacks_bytes(std::string_view text) const noexcept {
  if (!misses_bytes_) return false;
  return std::any_of(text.begin(), text.end(),
                     [&](char c) { return missing_[static_cast<unsigned char>(c)]; });
}

// A piece for which bytes may be missing: these become the unknown token, or vanish, before the rest
// is merged.
void PipelineTokenizer::encode_bytes_of(std::string_view piece, std::vector<TokenId>& out) const {
  const TokenModel& model = spec_.model;
  if (!lacks_bytes(piece)) return bpe_->encode_piece(piece, out);
  if (model.ignore_merges) {
    if (const auto id = bpe_->find(piece)) {
      out.push_back(*id);
      return;
    }
  }
  std::string kept;
  bool pending = false;
  for (const char c : piece) {
    if (!missing_[static_cast<unsigned char>(c)]) {
      kept += c;
      pending = false;
      continue;
    }
    if (model.unknown < 0) continue;
    if (!kept.empty()) bpe_->encode_by_merges(kept, out);
    kept.clear();
    if (!pending || !model.fuse_unknown) out.push_back(static_cast<TokenId>(model.unknown));
    pending = true;
  }
  if (!kept.empty()) bpe_->encode_by_merges(kept, out);
}

// A normalized text without added tokens.
void PipelineTokenizer::encode_cut(std::string_view text, bool first,
                                   std::vector<TokenId>& out) const {
  if (text.empty()) return;
  const bool lacks = bpe_ && lacks_bytes(text);
  if (const auto rule = pre_tokenizer_.rule(); bpe_ && rule && !lacks) {
    const PieceCaches::Lease lease(caches_);
    encode_pieces(*bpe_, *lease, splitter_of(*rule), text, out);
    return;
  }
  std::string buffer;
  std::vector<Cut> cuts;
  pre_tokenizer_.run(text, first, buffer, cuts);
  if (bpe_ && pre_tokenizer_.ends_in_bytes() && !lacks) {
    const PieceCaches::Lease lease(caches_);
    encode_pieces(*bpe_, *lease, buffer, cuts, out);
    return;
  }
  for (const Cut& cut : cuts) {
    const std::string_view piece(buffer.data() + cut.begin, cut.end - cut.begin);
    if (model_ != nullptr) {
      model_->encode(
          pre_tokenizer_.ends_in_bytes() ? bytes_to_byte_level(piece) : std::string(piece), out);
    } else if (pre_tokenizer_.ends_in_bytes()) {
      encode_bytes_of(piece, out);
    } else {
      encode_bytes_of(byte_level_bytes(piece), out);
    }
  }
}

void PipelineTokenizer::encode_allowing(std::string_view text, const SpecialPolicy& policy,
                                        std::vector<TokenId>& out) const {
  std::string valid_storage;
  text = unicode::to_valid_utf8(text, valid_storage);
  const std::function<bool(const AddedToken&)> allowed = [&](const AddedToken& token) {
    if (!token.special || lists(policy.allowed, policy.allowed_names, token.content)) return true;
    if (lists(policy.refused, policy.refused_names, token.content)) refuse_special(token.content);
    return false;
  };
  std::vector<AddedTokens::Part> parts, inner;
  if (raw_added_.empty()) {
    if (!text.empty()) parts.push_back({nullptr, 0, text.size()});
  } else {
    raw_added_.cut(text, allowed, parts);
  }
  std::string storage;
  for (const auto& part : parts) {
    if (part.token != nullptr) {
      out.push_back(static_cast<TokenId>(part.token->id));
      continue;
    }
    const std::string_view normal =
        normalizer_.run(text.substr(part.begin, part.end - part.begin), storage);
    if (normalized_added_.empty()) {
      encode_cut(normal, part.begin == 0, out);
      continue;
    }
    inner.clear();
    normalized_added_.cut(normal, allowed, inner);
    for (const auto& stretch : inner) {
      if (stretch.token != nullptr) {
        out.push_back(static_cast<TokenId>(stretch.token->id));
      } else {
        encode_cut(normal.substr(stretch.begin, stretch.end - stretch.begin),
                   part.begin == 0 && stretch.begin == 0, out);
      }
    }
  }
}

void PipelineTokenizer::encode(std::string_view text, std::vector<TokenId>& out) const {
  encode_allowing(text, {}, out);
}

void PipelineTokenizer::encode_stretch(std::string_view text, std::vector<TokenId>& out) const {
  encode_allowing(text, {}, out);
}

std::string_view PipelineTokenizer::normalize(std::string_view text, std::string& storage) const {
  return normalizer_.run(text, storage);
}

// Valid stretches are cut and merged without normalization; a byte that belongs to none is a piece
// by itself.
void PipelineTokenizer::encode_raw(std::string_view bytes, std::vector<TokenId>& out) const {
  if (!bpe_ || misses_bytes_) return Tokenizer::encode_raw(bytes, out);
  while (!bytes.empty()) {
    const size_t valid = std::min(utf8::first_invalid(bytes), bytes.size());
    encode_cut(bytes.substr(0, valid), false, out);
    bytes.remove_prefix(valid);
    if (bytes.empty()) return;
    const size_t bad = utf8::decode(bytes).length;
    for (size_t i = 0; i < bad; ++i) bpe_->encode_piece(bytes.substr(i, 1), out);
    bytes.remove_prefix(bad);
  }
}

std::string PipelineTokenizer::token_text(TokenId id) const {
  const auto index = static_cast<size_t>(id - lowest_added_);
  if (id >= lowest_added_ && index < added_of_id_.size() && added_of_id_[index] != nullptr) {
    return added_texts_[static_cast<size_t>(added_of_id_[index] - spec_.added.data())];
  }
  return spec_.model.tokens[static_cast<size_t>(id)];
}

void PipelineTokenizer::make_shown() const {
  std::call_once(shown_once_, [this] {
    shown_.resize(static_cast<size_t>(size()));
    const std::string before = decoder_.run({"a"});
    for (size_t id = 0; id < shown_.size(); ++id) {
      if (spec_.shown_is_given && id < spec_.shown.size()) {
        shown_[id] = spec_.shown[id];
        continue;
      }
      const std::string text = id < spec_.model.tokens.size() || id >= size_t(lowest_added_)
                                   ? token_text(static_cast<TokenId>(id))
                                   : std::string();
      if (decoder_.is_byte_level()) {
        shown_[id] = byte_level_bytes(text);
      } else if (const int byte = decoder_.has_byte_fallback() ? byte_of_name(text) : -1;
                 byte >= 0) {
        shown_[id] = std::string(1, static_cast<char>(byte));
      } else {
        const std::string both = decoder_.run({"a", text});
        shown_[id] = both.starts_with(before) ? both.substr(before.size()) : text;
      }
    }
  });
}

std::string_view PipelineTokenizer::plain_bytes(TokenId id) const noexcept {
  const auto i = static_cast<size_t>(id);
  const auto index = static_cast<size_t>(id - lowest_added_);
  const bool added = id >= lowest_added_ && index < added_of_id_.size() && added_of_id_[index];
  const bool known = i < spec_.model.known.size() && spec_.model.known[i];
  if (!added && !known) return {};
  if (bpe_ && !added && decoder_.is_byte_level() && !bpe_->bytes(id).empty()) {
    return bpe_->bytes(id);
  }
  make_shown();
  return shown_[i].empty() ? std::string_view("", 0) : std::string_view(shown_[i]);
}

std::string PipelineTokenizer::decode(std::span<const TokenId> ids, BadBytes bad,
                                      bool skip_special) const {
  if (spec_.shown_is_given || decoder_.is_byte_level()) {
    return Tokenizer::decode(ids, bad, skip_special);
  }
  std::vector<std::string> tokens;
  tokens.reserve(ids.size());
  for (const TokenId id : ids) {
    token_bytes(id);  // throws for an id that has no token
    if (!skip_special || !is_special(id)) tokens.push_back(token_text(id));
  }
  if (tokens.empty()) return {};
  return decoder_.run(std::move(tokens), bad == BadBytes::Replace);
}

}  // namespace quern
