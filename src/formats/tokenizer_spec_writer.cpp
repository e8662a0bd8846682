#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <unordered_set>

#include "core/base64.h"
#include "core/error.h"
#include "core/json.h"
#include "formats/tokenizer_spec.h"

namespace quern {
namespace {

using Normalizer = NormalizerStep::Kind;
using PreTokenizer = PreTokenizerStep::Kind;
using Decoder = DecoderStep::Kind;
using nlohmann::ordered_json;

[[noreturn]] void refuse(const TokenizerSpec& spec, const std::string& what) {
  throw Error(
      Kind::Unsupported,
      fmt::format("{}: its tokenizer {}, which tokenizer.json cannot say", spec.source, what));
}

ordered_json pattern(const TextPattern& text) {
  return {{text.is_regex ? "Regex" : "String", text.text}};
}

const char* behavior(SplitBehavior value) {
  switch (value) {
    case SplitBehavior::Removed:
      return "Removed";
    case SplitBehavior::Isolated:
      return "Isolated";
    case SplitBehavior::MergedWithPrevious:
      return "MergedWithPrevious";
    case SplitBehavior::MergedWithNext:
      return "MergedWithNext";
    case SplitBehavior::Contiguous:
      return "Contiguous";
  }
  return "";
}

const char* scheme(PrependScheme value) {
  return value == PrependScheme::Always  ? "always"
         : value == PrependScheme::First ? "first"
                                         : "never";
}

ordered_json byte_level(bool add_prefix_space, bool use_regex) {
  return {{"type", "ByteLevel"},
          {"add_prefix_space", add_prefix_space},
          {"trim_offsets", false},
          {"use_regex", use_regex}};
}

ordered_json normalizer(const TokenizerSpec& spec, const NormalizerStep& step) {
  switch (step.kind) {
    case Normalizer::Nfc:
      return {{"type", "NFC"}};
    case Normalizer::Nfd:
      return {{"type", "NFD"}};
    case Normalizer::Nfkc:
      return {{"type", "NFKC"}};
    case Normalizer::Nfkd:
      return {{"type", "NFKD"}};
    case Normalizer::Lowercase:
      return {{"type", "Lowercase"}};
    case Normalizer::Strip:
      return {{"type", "Strip"}, {"strip_left", step.left}, {"strip_right", step.right}};
    case Normalizer::StripAccents:
      return {{"type", "StripAccents"}};
    case Normalizer::Bert:
      return {{"type", "BertNormalizer"},
              {"clean_text", step.clean_text},
              {"handle_chinese_chars", step.chinese},
              {"strip_accents", step.accents},
              {"lowercase", step.lowercase}};
    case Normalizer::Nmt:
      return {{"type", "Nmt"}};
    case Normalizer::Replace:
      return {{"type", "Replace"}, {"pattern", pattern(step.pattern)}, {"content", step.content}};
    case Normalizer::Prepend:
      return {{"type", "Prepend"}, {"prepend", step.content}};
    case Normalizer::ByteLevel:
      return {{"type", "ByteLevel"}};
    case Normalizer::Charsmap:
      return {{"type", "Precompiled"}, {"precompiled_charsmap", base64_encode(step.charsmap)}};
    case Normalizer::SentencePiece:
      break;
  }
  refuse(spec, "normalizes text as SentencePiece does");
}

ordered_json pre_tokenizer(const PreTokenizerStep& step) {
  switch (step.kind) {
    case PreTokenizer::Bert:
      return {{"type", "BertPreTokenizer"}};
    case PreTokenizer::ByteLevel:
      return byte_level(step.add_prefix_space, step.use_regex);
    case PreTokenizer::Delimiter:
      return {{"type", "CharDelimiterSplit"}, {"delimiter", step.pattern.text}};
    case PreTokenizer::Metaspace:
      return {{"type", "Metaspace"},
              {"replacement", step.mark},
              {"prepend_scheme", scheme(step.prepend)},
              {"split", step.split}};
    case PreTokenizer::Whitespace:
      return {{"type", "Whitespace"}};
    case PreTokenizer::WhitespaceSplit:
      return {{"type", "WhitespaceSplit"}};
    case PreTokenizer::Split:
      return {{"type", "Split"},
              {"pattern", pattern(step.pattern)},
              {"behavior", behavior(step.behavior)},
              {"invert", step.invert}};
    case PreTokenizer::Punctuation:
      return {{"type", "Punctuation"}, {"behavior", behavior(step.behavior)}};
    case PreTokenizer::Digits:
      return {{"type", "Digits"}, {"individual_digits", step.individual_digits}};
    case PreTokenizer::Scripts:
      return {{"type", "UnicodeScripts"}};
    case PreTokenizer::FixedLength:
      return {{"type", "FixedLength"}, {"length", step.length}};
  }
  return nullptr;
}

ordered_json decoder(const DecoderStep& step) {
  switch (step.kind) {
    case Decoder::Bpe:
      return {{"type", "BPEDecoder"}, {"suffix", step.suffix}};
    case Decoder::ByteLevel:
      return byte_level(false, false);
    case Decoder::WordPiece:
      return {{"type", "WordPiece"}, {"prefix", step.suffix}, {"cleanup", step.cleanup}};
    case Decoder::Metaspace:
      return {{"type", "Metaspace"},
              {"replacement", step.content},
              {"prepend_scheme", scheme(step.prepend)},
              {"split", true}};
    case Decoder::Ctc:
      return {{"type", "CTC"},
              {"pad_token", step.suffix},
              {"word_delimiter_token", step.delimiter},
              {"cleanup", step.cleanup}};
    case Decoder::Replace:
      return {{"type", "Replace"}, {"pattern", pattern(step.pattern)}, {"content", step.content}};
    case Decoder::Fuse:
      return {{"type", "Fuse"}};
    case Decoder::Strip:
      return {
          {"type", "Strip"}, {"content", step.content}, {"start", step.start}, {"stop", step.stop}};
    case Decoder::ByteFallback:
      return {{"type", "ByteFallback"}};
  }
  return nullptr;
}

// A step alone, several as a sequence, none as null.
template <class Steps, class Write>
ordered_json chain(const Steps& steps, const char* list, Write&& write) {
  if (steps.empty()) return nullptr;
  if (steps.size() == 1) return write(steps[0]);
  ordered_json parts = ordered_json::array();
  for (const auto& step : steps) parts.push_back(write(step));
  return {{"type", "Sequence"}, {list, parts}};
}

const std::string& text_of(const TokenizerSpec& spec, int64_t id) {
  for (const AddedToken& token : spec.added) {
    if (token.id == id) return token.content;
  }
  return spec.model.tokens[static_cast<size_t>(id)];
}

ordered_json post_processor(const TokenizerSpec& spec) {
  if (spec.before.empty() && spec.after.empty()) return nullptr;
  ordered_json single = ordered_json::array(), pair = ordered_json::array();
  ordered_json tokens = ordered_json::object();
  const auto put = [&](const std::vector<int32_t>& ids) {
    for (const int32_t id : ids) {
      const std::string& name = text_of(spec, id);
      for (ordered_json* list : {&single, &pair}) {
        list->push_back({{"SpecialToken", {{"id", name}, {"type_id", 0}}}});
      }
      tokens[name] = {{"id", name},
                      {"ids", ordered_json::array({id})},
                      {"tokens", ordered_json::array({name})}};
    }
  };
  const auto text = [](const char* name) {
    return ordered_json{{"Sequence", {{"id", name}, {"type_id", 0}}}};
  };
  put(spec.before);
  single.push_back(text("A"));
  pair.push_back(text("A"));
  pair.push_back(text("B"));
  put(spec.after);
  return {{"type", "TemplateProcessing"},
          {"single", single},
          {"pair", pair},
          {"special_tokens", tokens}};
}

ordered_json vocabulary(const TokenizerSpec& spec) {
  const TokenModel& model = spec.model;
  std::unordered_set<std::string_view> seen;
  ordered_json vocab = ordered_json::object();
  for (size_t id = 0; id < model.tokens.size(); ++id) {
    if (!model.known[id]) continue;
    if (!seen.insert(model.tokens[id]).second) {
      refuse(spec, fmt::format("gives '{}' two ids", printable(model.tokens[id], 40)));
    }
    vocab.get_ref<ordered_json::object_t&>().emplace_back(model.tokens[id], id);
  }
  return vocab;
}

ordered_json unknown(const TokenModel& model) {
  if (model.unknown < 0) return nullptr;
  return model.tokens[static_cast<size_t>(model.unknown)];
}

ordered_json bpe(const TokenizerSpec& spec) {
  const TokenModel& model = spec.model;
  if (model.merge_by_score) refuse(spec, "merges by score");
  ordered_json merges = ordered_json::array();
  for (const auto& [left, right, both] : model.merges) {
    merges.push_back(
        {model.tokens[static_cast<size_t>(left)], model.tokens[static_cast<size_t>(right)]});
  }
  const auto text_or_null = [](const std::string& text) {
    return text.empty() ? ordered_json(nullptr) : ordered_json(text);
  };
  return {{"type", "BPE"},
          {"dropout", nullptr},
          {"unk_token", unknown(model)},
          {"continuing_subword_prefix", text_or_null(model.prefix)},
          {"end_of_word_suffix", text_or_null(model.suffix)},
          {"fuse_unk", model.fuse_unknown},
          {"byte_fallback", model.byte_fallback},
          {"ignore_merges", model.ignore_merges},
          {"vocab", vocabulary(spec)},
          {"merges", merges}};
}

ordered_json model(const TokenizerSpec& spec) {
  const TokenModel& model = spec.model;
  switch (model.kind) {
    case TokenModel::Kind::Bpe:
      return bpe(spec);
    case TokenModel::Kind::Unigram: {
      ordered_json vocab = ordered_json::array();
      for (size_t id = 0; id < model.tokens.size(); ++id) {
        vocab.push_back({model.tokens[id], model.scores[id]});
      }
      return {{"type", "Unigram"},
              {"unk_id", model.unknown < 0 ? ordered_json(nullptr) : ordered_json(model.unknown)},
              {"vocab", vocab},
              {"byte_fallback", model.byte_fallback}};
    }
    case TokenModel::Kind::WordPiece:
      return {{"type", "WordPiece"},
              {"unk_token", unknown(model)},
              {"continuing_subword_prefix", model.prefix},
              {"max_input_chars_per_word", model.max_word},
              {"vocab", vocabulary(spec)}};
    case TokenModel::Kind::WordLevel:
      break;
  }
  return {{"type", "WordLevel"}, {"vocab", vocabulary(spec)}, {"unk_token", unknown(model)}};
}

}  // namespace

std::string to_tokenizer_json(const TokenizerSpec& spec) {
  ordered_json added = ordered_json::array();
  for (const AddedToken& token : spec.added) {
    added.push_back({{"id", token.id},
                     {"content", token.content},
                     {"single_word", token.single_word},
                     {"lstrip", token.lstrip},
                     {"rstrip", token.rstrip},
                     {"normalized", token.normalized},
                     {"special", token.special}});
  }
  const ordered_json json = {
      {"version", "1.0"},
      {"truncation", nullptr},
      {"padding", nullptr},
      {"added_tokens", added},
      {"normalizer", chain(spec.normalizers, "normalizers",
                           [&](const NormalizerStep& step) { return normalizer(spec, step); })},
      {"pre_tokenizer", chain(spec.pre_tokenizers, "pretokenizers", pre_tokenizer)},
      {"post_processor", post_processor(spec)},
      {"decoder", chain(spec.decoders, "decoders", decoder)},
      {"model", model(spec)}};
  return dump(json);
}

}  // namespace quern
