#include "text/vocabulary_files.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <unordered_map>

#include "core/error.h"
#include "core/json.h"
#include "core/log.h"
#include "core/utf8.h"
#include "formats/byte_level.h"
#include "text/pipeline/piece_model.h"
#include "text/splitter.h"

namespace quern {
namespace {

using Piece = SentencePieceModel::Type;
using Normalizer = NormalizerStep::Kind;
using PreTokenizer = PreTokenizerStep::Kind;
using Decoder = DecoderStep::Kind;

constexpr const char* kMark = "\u2581";
constexpr uint64_t kMaxFile = uint64_t{256} << 20;

NormalizerStep spaces_to_marks() {
  return {.kind = Normalizer::Replace, .pattern = {false, " "}, .content = kMark};
}

// Adds a token that text may hold; the vocabulary's own if it is there, else one with the next id.
void add_special(TokenizerSpec& spec, const AddedToken& token) {
  for (const AddedToken& known : spec.added) {
    if (known.content == token.content) return;
  }
  AddedToken added = token;
  added.id = id_of(spec, token.content);
  if (added.id < 0) {
    added.id = static_cast<int64_t>(spec.model.tokens.size());
    for (const AddedToken& known : spec.added) added.id = std::max(added.id, known.id + 1);
  }
  spec.added.push_back(std::move(added));
}

void read_pieces(const SentencePieceModel& file, TokenizerSpec& spec) {
  for (size_t id = 0; id < file.pieces.size(); ++id) {
    const SentencePieceModel::Piece& piece = file.pieces[id];
    spec.model.set(static_cast<int64_t>(id), piece.text);
    spec.model.scores.push_back(double{piece.score});
    if ((piece.type == Piece::Control || piece.type == Piece::UserDefined) && !piece.text.empty()) {
      spec.added.push_back({.id = static_cast<int64_t>(id),
                            .content = piece.text,
                            .special = piece.type == Piece::Control});
    }
  }
  spec.model.byte_fallback = file.byte_fallback;
  const auto count = static_cast<int64_t>(file.pieces.size());
  if (file.unknown >= 0 && file.unknown < count) spec.model.unknown = file.unknown;
  if (file.bos >= 0 && file.bos < count) spec.bos = file.bos;
  if (file.eos >= 0 && file.eos < count) spec.eos = file.eos;
}

void llama(const SentencePieceModel& file, const TokenizerConfig& config, TokenizerSpec& spec) {
  const bool prefix = config.add_prefix_space.value_or(true);
  spec.model.byte_fallback = true;
  spec.model.fuse_unknown = true;
  if (file.algorithm == SentencePieceModel::Algorithm::Unigram) {
    spec.model.kind = TokenModel::Kind::Unigram;
    spec.model.unknown = 0;
  } else {
    merges_of_scores(spec.model);
    spec.model.scores.clear();
  }
  if (config.legacy.value_or(true)) {
    if (prefix) spec.normalizers.push_back({.kind = Normalizer::Prepend, .content = kMark});
    spec.normalizers.push_back(spaces_to_marks());
  } else {
    spec.pre_tokenizers.push_back({.kind = PreTokenizer::Metaspace,
                                   .mark = kMark,
                                   .prepend = prefix ? PrependScheme::First : PrependScheme::Never,
                                   .split = false});
  }
  spec.decoders = sentencepiece_decoder(prefix);
  if (config.add_bos.value_or(true) && spec.bos >= 0) {
    spec.before = {static_cast<int32_t>(spec.bos)};
  }
  if (config.add_eos.value_or(false) && spec.eos >= 0) {
    spec.after = {static_cast<int32_t>(spec.eos)};
  }
}

void gemma(const TokenizerConfig& config, TokenizerSpec& spec) {
  spec.model.byte_fallback = true;
  spec.model.fuse_unknown = true;
  merges_of_scores(spec.model);
  spec.model.scores.clear();
  spec.normalizers = {spaces_to_marks()};
  spec.pre_tokenizers = {{.kind = PreTokenizer::Split,
                          .pattern = {false, " "},
                          .behavior = SplitBehavior::MergedWithPrevious}};
  spec.decoders = sentencepiece_decoder(false);
  if (config.add_bos.value_or(true) && spec.bos >= 0) {
    spec.before = {static_cast<int32_t>(spec.bos)};
  }
  if (config.add_eos.value_or(false) && spec.eos >= 0) {
    spec.after = {static_cast<int32_t>(spec.eos)};
  }
}

void t5(const SentencePieceModel& file, const TokenizerConfig& config, TokenizerSpec& spec) {
  spec.model.kind = TokenModel::Kind::Unigram;
  spec.model.byte_fallback = false;
  const int64_t extra = config.extra_ids.value_or(100);
  for (int64_t i = extra - 1; i >= 0; --i) {
    const auto id = static_cast<int64_t>(spec.model.tokens.size());
    const std::string name = fmt::format("<extra_id_{}>", i);
    spec.model.set(id, name);
    spec.model.scores.push_back(0);
    spec.added.push_back({.id = id, .content = name});
  }
  if (!file.charsmap.empty()) {
    spec.normalizers.push_back({.kind = Normalizer::Charsmap, .charsmap = file.charsmap});
  }
  spec.normalizers.push_back({.kind = Normalizer::Strip, .left = false, .right = true});
  spec.normalizers.push_back(
      {.kind = Normalizer::Replace, .pattern = {true, " {2,}"}, .content = kMark});
  const PrependScheme prepend = !config.add_prefix_space.value_or(true) ? PrependScheme::Never
                                : config.legacy.value_or(true)          ? PrependScheme::Always
                                                                        : PrependScheme::First;
  spec.pre_tokenizers = {{.kind = PreTokenizer::Metaspace, .mark = kMark, .prepend = prepend}};
  spec.decoders = {{.kind = Decoder::Metaspace, .content = kMark, .prepend = prepend}};
  if (spec.eos >= 0) spec.after = {static_cast<int32_t>(spec.eos)};
}

// As the library does.
void plain_sentencepiece(const SentencePieceModel& file, const TokenizerConfig& config,
                         TokenizerSpec& spec) {
  if (file.algorithm == SentencePieceModel::Algorithm::Unigram) {
    spec.model.kind = TokenModel::Kind::Unigram;
  } else if (file.algorithm == SentencePieceModel::Algorithm::Bpe) {
    spec.model.merge_by_score = true;
  } else {
    throw Error(Kind::Unsupported,
                spec.source + ": is a SentencePiece model of words or characters");
  }
  if (file.space_as_suffix || !file.escape_spaces) {
    throw Error(Kind::Unsupported, spec.source + ": marks spaces in a way that is not known");
  }
  for (size_t id = 0; id < file.pieces.size(); ++id) {
    const Piece type = file.pieces[id].type;
    if (type != Piece::Normal && type != Piece::UserDefined && type != Piece::Unused) {
      spec.model.hide(static_cast<int64_t>(id));
    }
    if (type == Piece::Unknown) {
      spec.added.push_back({.id = static_cast<int64_t>(id), .content = file.pieces[id].text});
    }
  }
  const bool prefix = config.add_prefix_space.value_or(file.add_prefix);
  spec.normalizers = {{.kind = Normalizer::SentencePiece,
                       .charsmap = file.charsmap,
                       .remove_extra_spaces = file.remove_extra_spaces,
                       .add_prefix = prefix}};
  spec.decoders = sentencepiece_decoder(prefix);
  if (config.add_bos.value_or(true) && spec.bos >= 0) {
    spec.before = {static_cast<int32_t>(spec.bos)};
  }
  if (config.add_eos.value_or(false) && spec.eos >= 0) {
    spec.after = {static_cast<int32_t>(spec.eos)};
  }
}

bool says_qwen(const fs::path& folder, const TokenizerConfig& config, size_t tokens) {
  if (!config.family.empty()) return config.family == "Qwen2";
  if (const fs::path path = folder / "config.json"; fs::exists(path)) {
    const std::string type = Json::parse_file(path.string()).string_or("model_type", "");
    return type.starts_with("qwen");
  }
  constexpr size_t kQwenTokens = 151'643;
  return tokens == kQwenTokens;
}

}  // namespace

std::vector<DecoderStep> sentencepiece_decoder(bool strip) {
  std::vector<DecoderStep> steps = {
      {.kind = Decoder::Replace, .pattern = {false, kMark}, .content = " "},
      {.kind = Decoder::ByteFallback},
      {.kind = Decoder::Fuse}};
  if (strip) steps.push_back({.kind = Decoder::Strip, .content = " ", .start = 1});
  return steps;
}

std::vector<PreTokenizerStep> split_then_bytes(std::string_view pattern) {
  return {{.kind = PreTokenizer::Split, .pattern = {true, std::string(pattern)}},
          {.kind = PreTokenizer::ByteLevel, .use_regex = false}};
}

TokenizerSpec spec_of_sentencepiece(const SentencePieceModel& file, const std::string& source,
                                    const TokenizerConfig& config) {
  TokenizerSpec spec;
  spec.source = source;
  read_pieces(file, spec);
  if (!config.bos.empty()) spec.bos = id_of(spec, config.bos);
  const std::string& family = config.family;
  for (const std::string_view shifted : {"XLMRoberta", "Camembert", "MBart", "MBart50", "Nllb",
                                         "Barthez", "Pegasus", "BigBird", "XGLM", "Marian"}) {
    if (family == shifted) {
      throw Error(Kind::Unsupported,
                  fmt::format("{}: {}Tokenizer gives the pieces other ids than this file does",
                              source, family),
                  "a tokenizer.json beside it would be read");
    }
  }
  // The end of a text may be a token that only the files beside the model know.
  for (const AddedToken& token : config.added) {
    if (token.content == config.eos) spec.eos = token.id;
    if (token.content == config.bos) spec.bos = token.id;
  }
  const bool bpe = file.algorithm == SentencePieceModel::Algorithm::Bpe;
  if (family == "T5" || family == "MT5") {
    t5(file, config, spec);
  } else if (family == "Gemma" && bpe) {
    gemma(config, spec);
  } else if (family == "Llama" || family == "CodeLlama") {
    llama(file, config, spec);
  } else {
    plain_sentencepiece(file, config, spec);
  }
  for (const AddedToken& token : config.added) {
    const auto same = std::find_if(spec.added.begin(), spec.added.end(), [&](const auto& other) {
      return other.content == token.content;
    });
    if (same == spec.added.end()) {
      spec.added.push_back(token);
    } else {
      *same = token;
    }
  }
  for (const AddedToken& token : config.named) add_special(spec, token);
  if (!config.eos.empty() && spec.eos != id_of(spec, config.eos)) {
    const auto eos = static_cast<int32_t>(id_of(spec, config.eos));
    for (int32_t& id : spec.after) {
      if (id == spec.eos) id = eos;
    }
    spec.eos = eos;
  }
  spec.max_length = config.max_length;
  return spec;
}

TokenizerSpec spec_of_vocab_and_merges(const fs::path& vocab, const fs::path& merges,
                                       const TokenizerConfig& config) {
  // The two as a tokenizer.json would hold them.
  std::string text = R"({"model": {"type": "BPE", "vocab": )";
  text += read_file(vocab, kMaxFile);
  nlohmann::json lines = nlohmann::json::array();
  const std::string merge_text = read_file(merges, kMaxFile);
  for (std::string_view rest = merge_text; !rest.empty();) {
    const size_t newline = rest.find('\n');
    std::string_view line = rest.substr(0, newline);
    rest.remove_prefix(newline == rest.npos ? rest.size() : newline + 1);
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (!line.empty() && !line.starts_with("#version")) lines.push_back(line);
  }
  text += R"(, "merges": )" + dump(lines) + "}}";
  TokenizerSpec spec = parse_tokenizer_spec(text, vocab.string());
  const size_t tokens = spec.model.tokens.size();
  if (says_qwen(vocab.parent_path(), config, tokens)) {
    spec.normalizers = {{.kind = Normalizer::Nfc}};
    spec.pre_tokenizers = split_then_bytes(kQwenPattern);
  } else {
    const bool known = config.family == "GPT2" || config.family == "CodeGen" ||
                       config.family == "Roberta" || config.family == "Bart" ||
                       config.family == "Longformer";
    if (!known) {
      log::warning(fmt::format("{}: {}; text is cut by GPT-2's rule", vocab.string(),
                               config.family.empty() ? "nothing says which tokenizer it belongs to"
                                                     : config.family + "Tokenizer is not known"));
    }
    spec.pre_tokenizers = {{.kind = PreTokenizer::ByteLevel,
                            .add_prefix_space = config.add_prefix_space.value_or(false)}};
  }
  spec.decoders = {{.kind = Decoder::ByteLevel}};
  apply_tokenizer_config(config, spec);
  if (config.family == "Roberta" || config.family == "Bart" || config.family == "Longformer") {
    const auto cls = id_of(spec, config.cls.empty() ? "<s>" : config.cls);
    const auto sep = id_of(spec, config.sep.empty() ? "</s>" : config.sep);
    if (cls >= 0) spec.before = {static_cast<int32_t>(cls)};
    if (sep >= 0) spec.after = {static_cast<int32_t>(sep)};
  }
  return spec;
}

TokenizerSpec spec_of_vocab_txt(const fs::path& vocab, const TokenizerConfig& config) {
  TokenizerSpec spec;
  spec.source = vocab.string();
  const std::string text = read_file(vocab, kMaxFile);
  if (!utf8::is_valid(text)) throw_bad_input(spec.source + ": is not valid UTF-8");
  int64_t id = 0;
  for (std::string_view rest = text; !rest.empty(); ++id) {
    const size_t newline = rest.find('\n');
    std::string_view line = rest.substr(0, newline);
    rest.remove_prefix(newline == rest.npos ? rest.size() : newline + 1);
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (id > (1 << 20) - 2) {
      throw Error(Kind::Unsupported, spec.source + ": has more tokens than are supported");
    }
    spec.model.set(id, std::string(line));
  }
  if (spec.model.tokens.empty()) throw_bad_input(spec.source + ": holds no tokens");
  spec.model.kind = TokenModel::Kind::WordPiece;
  spec.model.prefix = "##";
  const auto name = [](const std::string& given, const char* usual) {
    return given.empty() ? std::string(usual) : given;
  };
  spec.model.unknown = id_of(spec, name(config.unknown, "[UNK]"));
  spec.normalizers = {{.kind = Normalizer::Bert,
                       .chinese = config.chinese,
                       .accents = config.strip_accents.value_or(config.lowercase),
                       .lowercase = config.lowercase}};
  spec.pre_tokenizers = {{.kind = PreTokenizer::Bert}};
  spec.decoders = {{.kind = Decoder::WordPiece, .suffix = "##", .cleanup = true}};
  apply_tokenizer_config(config, spec);
  for (const char* usual : {"[UNK]", "[SEP]", "[PAD]", "[CLS]", "[MASK]"}) {
    const int64_t found = id_of(spec, usual);
    const bool known = std::any_of(spec.added.begin(), spec.added.end(),
                                   [&](const AddedToken& token) { return token.id == found; });
    if (found >= 0 && !known) spec.added.push_back({.id = found, .content = usual});
  }
  const int64_t cls = id_of(spec, name(config.cls, "[CLS]"));
  const int64_t sep = id_of(spec, name(config.sep, "[SEP]"));
  if (cls >= 0) spec.before = {static_cast<int32_t>(cls)};
  if (sep >= 0) spec.after = {static_cast<int32_t>(sep)};
  return spec;
}

TokenizerSpec spec_of_byte_vocabulary(const std::vector<std::string>& tokens,
                                      std::vector<std::array<int32_t, 3>> merges,
                                      std::vector<AddedToken> added) {
  TokenizerSpec spec;
  for (size_t id = 0; id < tokens.size(); ++id) {
    spec.model.set(static_cast<int64_t>(id), bytes_to_byte_level(tokens[id]));
  }
  spec.model.merges = std::move(merges);
  spec.added = std::move(added);
  spec.normalizers = {{.kind = Normalizer::Nfc}};
  spec.pre_tokenizers = split_then_bytes(kQwenPattern);
  spec.decoders = {{.kind = Decoder::ByteLevel}};
  return spec;
}

std::vector<std::array<int32_t, 3>> merges_of_ranks(const std::vector<std::string>& tokens) {
  std::unordered_map<std::string_view, size_t> ranks;
  for (size_t id = 0; id < tokens.size(); ++id) ranks.emplace(tokens[id], id);
  std::vector<std::array<int32_t, 3>> merges;
  for (size_t id = 0; id < tokens.size(); ++id) {
    const std::string& token = tokens[id];
    if (token.size() < 2) continue;
    std::vector<std::string_view> parts;
    for (size_t i = 0; i < token.size(); ++i) parts.push_back(std::string_view(token).substr(i, 1));
    while (parts.size() > 2) {
      size_t best = id, where = parts.size();
      for (size_t i = 0; i + 1 < parts.size(); ++i) {
        const std::string_view pair(parts[i].data(), parts[i].size() + parts[i + 1].size());
        const auto found = ranks.find(pair);
        if (found == ranks.end() || found->second >= best) continue;
        best = found->second;
        where = i;
      }
      if (where == parts.size()) break;
      parts[where] = {parts[where].data(), parts[where].size() + parts[where + 1].size()};
      parts.erase(parts.begin() + static_cast<std::ptrdiff_t>(where) + 1);
    }
    if (parts.size() != 2) continue;
    const auto left = ranks.find(parts[0]), right = ranks.find(parts[1]);
    if (left == ranks.end() || right == ranks.end()) continue;
    merges.push_back({static_cast<int32_t>(left->second), static_cast<int32_t>(right->second),
                      static_cast<int32_t>(id)});
  }
  return merges;
}

}  // namespace quern
