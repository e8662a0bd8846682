#include "text/gguf_tokenizer.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <unordered_map>

#include "core/ascii.h"
#include "core/error.h"
#include "core/log.h"
#include "core/utf8.h"
#include "text/gguf_pre_rules.h"
#include "text/pipeline/piece_model.h"
#include "text/pipeline/pipeline_tokenizer.h"
#include "text/vocabulary_files.h"

namespace quern {
namespace {

constexpr const char* kModel = "tokenizer.ggml.model";
constexpr const char* kTokens = "tokenizer.ggml.tokens";
constexpr const char* kTypes = "tokenizer.ggml.token_type";
constexpr const char* kScores = "tokenizer.ggml.scores";
constexpr size_t kMaxTokenBytes = 1 << 16;

enum class TokenType {
  Normal = 1,
  Unknown = 2,
  Control = 3,
  UserDefined = 4,
  Unused = 5,
  Byte = 6
};

const std::vector<std::string_view>& checked_tokens(const GgufFile& file) {
  const auto& tokens = file.strings(kTokens);
  if (tokens.empty()) file.fail(fmt::format("the key '{}' is empty", kTokens));
  for (size_t id = 0; id < tokens.size(); ++id) {
    if (tokens[id].size() > kMaxTokenBytes) {
      file.fail(fmt::format("the token {} has {} bytes", id, tokens[id].size()));
    }
    if (!utf8::is_valid(tokens[id])) {
      file.fail(
          fmt::format("the token {} ('{}') is not valid UTF-8", id, printable(tokens[id], 40)));
    }
  }
  return tokens;
}

std::vector<TokenType> checked_types(const GgufFile& file, size_t count) {
  std::vector<TokenType> types(count, TokenType::Normal);
  if (!file.has(kTypes)) return types;
  const auto& numbers = file.numbers(kTypes);
  if (numbers.size() != count) {
    file.fail(
        fmt::format("the key '{}' has {} items for {} tokens", kTypes, numbers.size(), count));
  }
  for (size_t id = 0; id < count; ++id) {
    if (!(numbers[id] >= 1 && numbers[id] <= 6)) {
      file.fail(fmt::format("the token {} has the type {:g}, expected 1 to 6", id, numbers[id]));
    }
    types[id] = static_cast<TokenType>(static_cast<int>(numbers[id]));
  }
  return types;
}

// Tokens' ids that the metadata name are those of tokens.
void check_ids(const GgufFile& file, size_t count) {
  for (const char* key : {"tokenizer.ggml.bos_token_id", "tokenizer.ggml.eos_token_id",
                          "tokenizer.ggml.padding_token_id", "tokenizer.ggml.unknown_token_id"}) {
    file.integer_or(key, 0, 0, static_cast<int64_t>(count) - 1);
  }
}

using Normalizer = NormalizerStep::Kind;
using PreTokenizer = PreTokenizerStep::Kind;

constexpr std::string_view kMark = "\u2581";

// Names of ends of a turn, which are control tokens whatever the file calls them.
constexpr std::string_view kEnds[] = {"<|eot_id|>",
                                      "<|im_end|>",
                                      "<|end|>",
                                      "<end_of_turn>",
                                      "<|endoftext|>",
                                      "<|end_of_text|>",
                                      "</s>",
                                      "<|eom_id|>",
                                      "<EOT>",
                                      "_<EOT>",
                                      "[EOT]",
                                      "[EOS]",
                                      "<|return|>",
                                      "<|call|>",
                                      "<eos>",
                                      "<|flush|>",
                                      "<|calls|>",
                                      "<end_of_utterance>",
                                      "<\uFF5Cend\u2581of\u2581sentence\uFF5C>"};
// Parts of gpt-oss's messages, which are shown.
constexpr std::string_view kShown[] = {"<|channel|>", "<|message|>", "<|start|>", "<|constrain|>"};

std::string marks_to_spaces(std::string_view text) {
  std::string out(text);
  for (size_t at = 0; (at = out.find(kMark, at)) != out.npos;) {
    out.replace(at, kMark.size(), 1, ' ');
  }
  return out;
}

struct Vocabulary {
  const std::vector<std::string_view>& tokens;
  std::vector<TokenType> types;
};

Vocabulary vocabulary_of(const GgufFile& file) {
  const auto& tokens = checked_tokens(file);
  Vocabulary vocabulary = {tokens, checked_types(file, tokens.size())};
  const bool has_types = file.has(kTypes);
  for (size_t id = 0; has_types && id < tokens.size(); ++id) {
    TokenType& type = vocabulary.types[id];
    if (type == TokenType::Unused || type == TokenType::Byte) continue;
    if (const auto control = gguf_control_by_name(tokens[id])) {
      type = *control ? TokenType::Control : TokenType::UserDefined;
    }
  }
  return vocabulary;
}

bool is_added(TokenType type) {
  return type == TokenType::Control || type == TokenType::UserDefined || type == TokenType::Unknown;
}

// Tokens, added ones, and ids, which are the same for all models. `text_of(id)` is what a token of
// text shows.
template <class TextOf>
TokenizerSpec begin_spec(const GgufFile& file, const Vocabulary& vocabulary, TextOf&& text_of) {
  TokenizerSpec spec;
  spec.source = file.path().string();
  spec.shown_is_given = true;
  spec.shown.reserve(vocabulary.tokens.size());
  for (size_t id = 0; id < vocabulary.tokens.size(); ++id) {
    const std::string_view text = vocabulary.tokens[id];
    const TokenType type = vocabulary.types[id];
    spec.model.set(static_cast<int64_t>(id), std::string(text));
    if (is_added(type) && !text.empty()) {
      spec.added.push_back({.id = static_cast<int64_t>(id),
                            .content = std::string(text),
                            .special = type != TokenType::UserDefined});
    }
    const bool as_it_is = is_added(type) || type == TokenType::Unused;
    spec.shown.push_back(as_it_is ? std::string(text) : text_of(id));
  }
  const auto last = static_cast<int64_t>(vocabulary.tokens.size()) - 1;
  const auto id_or_none = [&](const char* key) { return file.integer_or(key, -1, 0, last); };
  spec.bos = id_or_none("tokenizer.ggml.bos_token_id");
  spec.eos = id_or_none("tokenizer.ggml.eos_token_id");
  spec.model.unknown = id_or_none("tokenizer.ggml.unknown_token_id");
  return spec;
}

// Tokens around a text: as the file says, else as the rule does.
void put_around(const GgufFile& file, bool bos, bool eos, bool sep, TokenizerSpec& spec) {
  const auto last = static_cast<int64_t>(spec.model.tokens.size()) - 1;
  const auto add = [&](const char* key, bool fallback, int64_t id, const char* what,
                       std::vector<int32_t>& list) {
    if (!file.boolean_or(key, fallback)) return;
    if (id >= 0) {
      list.push_back(static_cast<int32_t>(id));
    } else {
      log::warning(
          fmt::format("{}: {} belongs to a text, but the file names none", spec.source, what));
    }
  };
  int64_t separator = -1;  // the key is spelled as in the format
  for (const char* key :
       {"tokenizer.ggml.seperator_token_id", "tokenizer.ggml.separator_token_id"}) {
    if (separator < 0) separator = file.integer_or(key, -1, 0, last);
  }
  add("tokenizer.ggml.add_bos_token", bos, spec.bos, "a BOS token", spec.before);
  if (file.has("tokenizer.ggml.add_sep_token") || (sep && separator >= 0)) {
    add("tokenizer.ggml.add_sep_token", sep, separator, "a separator", spec.after);
  }
  add("tokenizer.ggml.add_eos_token", eos, spec.eos, "an EOS token", spec.after);
}

void add_merges(const GgufFile& file, TokenModel& model) {
  std::unordered_map<std::string_view, int32_t> ids;
  for (size_t id = 0; id < model.tokens.size(); ++id) {
    if (model.known[id]) ids.emplace(model.tokens[id], static_cast<int32_t>(id));
  }
  const auto& merges = file.strings("tokenizer.ggml.merges");
  model.merges.reserve(merges.size());
  std::vector<std::pair<int32_t, int32_t>> seen;
  std::string both;
  for (size_t i = 0; i < merges.size(); ++i) {
    // The first space behind the first character parts the two.
    const std::string_view merge = merges[i];
    const size_t space = merge.find(' ', 1);
    if (merge.empty() || space == merge.npos) {
      file.fail(fmt::format("the merge {} ('{}') has no space", i, printable(merge, 40)));
    }
    const std::string_view left = merge.substr(0, space), right = merge.substr(space + 1);
    both = left;
    both += right;
    const auto l = ids.find(left), r = ids.find(right), joined = ids.find(both);
    if (l == ids.end() || r == ids.end() || joined == ids.end()) {
      file.fail(
          fmt::format("the merge {} ('{}') joins '{}' and '{}', of which one, or both "
                      "together, are no token",
                      i, printable(merge, 40), printable(left, 40), printable(right, 40)));
    }
    model.merges.push_back({l->second, r->second, joined->second});
  }
}

// Models that Phi-3 and some encoders are: their marks swallow spaces, as llama.cpp has it by name.
void set_flags_by_name(const GgufFile& file, std::string_view rule, TokenizerSpec& spec) {
  const std::string name =
      file.has("general.name") ? ascii_lower(file.string("general.name")) : std::string();
  const bool phi3 = name.find("phi-3") != name.npos || name.find("phi3") != name.npos;
  const bool jina = rule == "jina-v2-de" || rule == "jina-v2-es" || rule == "jina-v2-code";
  for (AddedToken& token : spec.added) {
    if (phi3) {
      token.rstrip = (token.special || token.content == "</s>") && token.content != "<unk>" &&
                     token.content != "<s>" && token.content != "<|endoftext|>";
    }
    if ((jina && token.content == "<mask>") ||
        (rule == "modern-bert" && token.content == "[MASK]")) {
      token.lstrip = true;
    }
  }
}

TokenizerSpec bpe(const GgufFile& file, std::string_view model) {
  std::string_view name = model == "gpt2" ? "default" : model;
  if (file.has("tokenizer.ggml.pre")) {
    name = file.string("tokenizer.ggml.pre");
  } else if (model == "gpt2") {
    log::warning(file.path().string() +
                 ": does not say how text is cut (tokenizer.ggml.pre); GPT-2's rule is taken");
  }
  if (name.empty()) name = "default";
  const auto rule = gguf_pre_rule(name);
  if (!rule) {
    throw Error(Kind::Unsupported,
                fmt::format("{}: splits text by the rule '{}', which is not known",
                            file.path().string(), printable(name, 40)),
                "the model still runs by ids");
  }
  const bool raw = rule->raw || model != "gpt2";
  const Vocabulary vocabulary = vocabulary_of(file);
  TokenizerSpec spec = begin_spec(file, vocabulary, [&](size_t id) {
    const std::string_view text = vocabulary.tokens[id];
    if (!raw) return byte_level_bytes(text);
    if (const int byte = byte_of_name(text); vocabulary.types[id] == TokenType::Byte && byte >= 0) {
      return std::string(1, static_cast<char>(byte));
    }
    return rule->marks ? marks_to_spaces(text) : std::string(text);
  });
  for (size_t id = 0; id < spec.model.tokens.size(); ++id) {
    const TokenType type = vocabulary.types[id];
    if (is_added(type) || type == TokenType::Unused) spec.model.hide(static_cast<int64_t>(id));
  }
  add_merges(file, spec.model);
  spec.model.ignore_merges = rule->ignore_merges;
  if (!raw) spec.model.unknown = -1;  // what has no token vanishes
  spec.model.byte_fallback = raw;
  spec.normalizers = normalizers_of(*rule);
  spec.pre_tokenizers = pre_tokenizers_of(*rule, raw);
  put_around(file, rule->bos || model == "gemma4", false, rule->sep, spec);
  set_flags_by_name(file, name, spec);
  return spec;
}

const std::vector<double>& checked_scores(const GgufFile& file, size_t tokens) {
  const auto& scores = file.numbers(kScores);
  if (scores.size() != tokens) {
    file.fail(
        fmt::format("the key '{}' has {} items for {} tokens", kScores, scores.size(), tokens));
  }
  return scores;
}

std::string sentencepiece_text(const GgufFile& file, const Vocabulary& vocabulary, size_t id) {
  if (vocabulary.types[id] != TokenType::Byte) return marks_to_spaces(vocabulary.tokens[id]);
  const int byte = byte_of_name(vocabulary.tokens[id]);
  if (byte < 0) {
    file.fail(fmt::format("the token {} is '{}', expected a byte as <0x0A>", id,
                          printable(vocabulary.tokens[id], 40)));
  }
  return std::string(1, static_cast<char>(byte));
}

TokenizerSpec sentencepiece(const GgufFile& file) {
  const Vocabulary vocabulary = vocabulary_of(file);
  TokenizerSpec spec = begin_spec(
      file, vocabulary, [&](size_t id) { return sentencepiece_text(file, vocabulary, id); });
  const auto last = static_cast<int64_t>(vocabulary.tokens.size()) - 1;
  if (spec.bos < 0) spec.bos = std::min<int64_t>(1, last);
  if (spec.eos < 0) spec.eos = std::min<int64_t>(2, last);
  if (spec.model.unknown < 0) spec.model.unknown = 0;
  spec.model.scores = checked_scores(file, vocabulary.tokens.size());
  spec.model.merge_by_score = true;
  spec.model.byte_fallback = true;
  // Merges make text only; tokens that are none are hidden from them.
  for (size_t id = 0; id < spec.model.tokens.size(); ++id) {
    const TokenType type = vocabulary.types[id];
    if (type == TokenType::Control || type == TokenType::Unknown || type == TokenType::Unused) {
      spec.model.hide(static_cast<int64_t>(id));
    }
  }
  spec.longest_added_first = true;
  spec.leads_with_space = file.boolean_or("tokenizer.ggml.add_space_prefix", true);
  if (spec.leads_with_space) {
    spec.normalizers.push_back({.kind = Normalizer::Prepend, .content = std::string(kMark)});
  }
  spec.normalizers.push_back(
      {.kind = Normalizer::Replace, .pattern = {false, " "}, .content = std::string(kMark)});
  put_around(file, true, false, false, spec);
  set_flags_by_name(file, "", spec);
  return spec;
}

TokenizerSpec unigram(const GgufFile& file) {
  const Vocabulary vocabulary = vocabulary_of(file);
  TokenizerSpec spec = begin_spec(
      file, vocabulary, [&](size_t id) { return sentencepiece_text(file, vocabulary, id); });
  const auto last = static_cast<int64_t>(vocabulary.tokens.size()) - 1;
  if (spec.eos < 0) spec.eos = std::min<int64_t>(1, last);
  if (spec.model.unknown < 0) spec.model.unknown = std::min<int64_t>(2, last);
  spec.model.kind = TokenModel::Kind::Unigram;
  spec.model.scores = checked_scores(file, vocabulary.tokens.size());
  for (size_t id = 0; id < spec.model.tokens.size(); ++id) {
    const TokenType type = vocabulary.types[id];
    if (type != TokenType::Normal && type != TokenType::UserDefined && type != TokenType::Unused) {
      spec.model.hide(static_cast<int64_t>(id));
    }
  }
  spec.longest_added_first = true;
  std::string map;
  if (file.has("tokenizer.ggml.precompiled_charsmap")) {
    for (const double byte : file.numbers("tokenizer.ggml.precompiled_charsmap")) {
      if (!(byte >= -128 && byte <= 255))
        file.fail("the precompiled charsmap holds more than bytes");
      map += static_cast<char>(static_cast<int>(byte) & 0xFF);
    }
  }
  spec.leads_with_space = file.boolean_or("tokenizer.ggml.add_space_prefix", false);
  spec.normalizers = {
      {.kind = Normalizer::SentencePiece,
       .charsmap = map,
       .remove_extra_spaces = file.boolean_or("tokenizer.ggml.remove_extra_whitespaces", false),
       .add_prefix = spec.leads_with_space}};
  put_around(file, false, true, false, spec);
  return spec;
}

// In these files a word's first token begins with the mark, and the others have none.
TokenizerSpec word_piece(const GgufFile& file) {
  const Vocabulary vocabulary = vocabulary_of(file);
  TokenizerSpec spec = begin_spec(
      file, vocabulary, [&](size_t id) { return marks_to_spaces(vocabulary.tokens[id]); });
  const auto last = static_cast<int64_t>(vocabulary.tokens.size()) - 1;
  const auto usual = [&](int64_t& id, int64_t fallback) {
    if (id < 0 && fallback <= last) id = fallback;
  };
  usual(spec.bos, 101);
  usual(spec.eos, 102);
  usual(spec.model.unknown, 100);
  spec.model.kind = TokenModel::Kind::WordPiece;
  spec.model.prefix = "##";
  spec.model.max_word = std::numeric_limits<int64_t>::max();
  for (size_t id = 0; id < spec.model.tokens.size(); ++id) {
    if (vocabulary.types[id] != TokenType::Normal) {
      spec.model.hide(static_cast<int64_t>(id));
      continue;
    }
    const std::string_view text = vocabulary.tokens[id];
    const bool begins = text.starts_with(kMark);
    spec.model.tokens[id] =
        begins ? std::string(text.substr(kMark.size())) : "##" + std::string(text);
  }
  const bool lower = file.boolean_or("tokenizer.ggml.normalizer.lowercase", true);
  // White space parts words there before control characters go.
  spec.normalizers = {
      {.kind = Normalizer::Replace, .pattern = {true, R"([\x0b\x0c\x{85}])"}, .content = " "},
      {.kind = Normalizer::Bert,
       .accents = file.boolean_or("tokenizer.ggml.normalizer.strip_accents", lower),
       .lowercase = lower}};
  spec.pre_tokenizers = {{.kind = PreTokenizer::Bert}};
  spec.leads_with_space = true;
  // The separator stands at the end; an EOS that is the same token stands there once.
  put_around(file, true, false, true, spec);
  if (spec.after.empty() && spec.eos >= 0 &&
      file.boolean_or("tokenizer.ggml.add_sep_token", true)) {
    spec.after.push_back(static_cast<int32_t>(spec.eos));
  }
  return spec;
}

bool names_none(const GgufFile& file) {
  const std::string_view model = file.string(kModel);
  return model == "none" || model == "no_vocab";
}

}  // namespace

bool has_gguf_tokenizer(const GgufFile& file) { return file.has(kModel) && !names_none(file); }

std::optional<bool> gguf_control_by_name(std::string_view content) {
  if (std::ranges::find(kEnds, content) != std::end(kEnds)) return true;
  if (std::ranges::find(kShown, content) != std::end(kShown)) return false;
  return std::nullopt;
}

TokenizerSpec gguf_tokenizer_spec(const GgufFile& file) {
  if (!file.has(kModel) || names_none(file)) {
    throw Error(Kind::Unsupported,
                file.path().string() + ": has no tokenizer, so that it can't read or write text",
                "it runs by ids (generate --ids-file, logits, bench)");
  }
  const std::string_view model = file.string(kModel);
  check_ids(file, file.strings(kTokens).size());
  if (model == "gpt2" || model == "gemma4" || model == "whitespace") return bpe(file, model);
  if (model == "llama") return sentencepiece(file);
  if (model == "t5") return unigram(file);
  if (model == "bert") return word_piece(file);
  throw Error(
      Kind::Unsupported,
      fmt::format("{}: the tokenizer model '{}' is not known", file.path().string(),
                  printable(model, 40)),
      "known are gpt2, llama, t5, bert, gemma4 and whitespace; the model still runs by ids");
}

std::shared_ptr<const Tokenizer> load_gguf_tokenizer(const GgufFile& file) {
  return std::make_shared<PipelineTokenizer>(gguf_tokenizer_spec(file));
}

TokenizerSpec tokenizer_json_of_gguf(const GgufFile& file) {
  TokenizerSpec spec = gguf_tokenizer_spec(file);
  TokenModel& model = spec.model;
  const auto hidden = [&](int32_t id) {
    return !model.hidden.empty() && model.hidden[static_cast<size_t>(id)];
  };
  if (model.merge_by_score) {
    merges_of_scores(model);
    std::erase_if(model.merges, [&](const auto& merge) { return hidden(merge[2]); });
    model.merge_by_score = false;
    model.fuse_unknown = true;
    model.scores.clear();
  }
  std::erase_if(model.merges,
                [&](const auto& merge) { return hidden(merge[0]) || hidden(merge[1]); });
  const bool bytes = std::ranges::any_of(spec.pre_tokenizers, [](const PreTokenizerStep& step) {
    return step.kind == PreTokenizerStep::Kind::ByteLevel;
  });
  if (model.kind != TokenModel::Kind::Bpe) {
    throw Error(Kind::Unsupported,
                spec.source + ": its tokenizer is not BPE, and is not written as tokenizer.json");
  }
  spec.decoders = bytes ? std::vector<DecoderStep>{{.kind = DecoderStep::Kind::ByteLevel}}
                        : sentencepiece_decoder(spec.leads_with_space);
  spec.shown_is_given = false;
  spec.shown.clear();
  return spec;
}

}  // namespace quern
