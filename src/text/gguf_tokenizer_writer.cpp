#include "text/gguf_tokenizer_writer.h"

#include <fmt/format.h>

#include <algorithm>
#include <unordered_set>

#include "core/error.h"
#include "formats/byte_level.h"
#include "text/gguf_pre_rules.h"
#include "text/gguf_tokenizer.h"
#include "text/pipeline/piece_model.h"
#include "text/splitter.h"

namespace quern {
namespace {

using Normalizer = NormalizerStep::Kind;
using PreTokenizer = PreTokenizerStep::Kind;

constexpr std::string_view kMark = "\u2581";

enum Type { kNormal = 1, kUnknown = 2, kControl = 3, kUserDefined = 4, kUnused = 5, kByte = 6 };

PreTokenizerStep split(std::string_view pattern) {
  return {.kind = PreTokenizer::Split, .pattern = {true, std::string(pattern)}};
}

// A pattern as the table of rules spells it.
std::string as_rule(std::string_view pattern) {
  // BLOOM's, with a set in the set.
  if (pattern == R"( ?[^(\s|[.,!?…。，、।۔،])]+)") return R"( ?[^(\s|.,!?…。，、।۔،)]+)";
  std::string out;
  for (size_t i = 0; i < pattern.size(); ++i) {
    const char c = pattern[i];
    if (c == '\\' && pattern.substr(i + 1).starts_with('"')) continue;
    if (c == '\\' && i + 1 < pattern.size()) {
      out += c;
      out += pattern[++i];
    } else if (c == '\r') {
      out += "\\r";
    } else if (c == '\n') {
      out += "\\n";
    } else {
      out += c;
    }
  }
  return out;
}

// Steps in the form that the rules of GGUF have them in: a regular expression for each cut, then
// the bytes. What is no such chain stays as it is, and equals no rule.
std::vector<PreTokenizerStep> as_rule(const std::vector<PreTokenizerStep>& steps) {
  std::vector<PreTokenizerStep> out;
  for (const PreTokenizerStep& step : steps) {
    const bool last = &step == &steps.back();
    if (step.kind == PreTokenizer::ByteLevel && step.use_regex && !step.add_prefix_space && last) {
      out.push_back(split(kGpt2Pattern));
      out.push_back({.kind = PreTokenizer::ByteLevel, .use_regex = false});
    } else if (step.kind == PreTokenizer::Digits && steps.size() > 1 && step.individual_digits) {
      out.push_back(split(R"(\p{N})"));
    } else if (step.kind == PreTokenizer::Split && step.pattern.is_regex && step.invert &&
               step.behavior == SplitBehavior::Removed && step.pattern.text.ends_with(R"(|\s+)")) {
      // The matches alone are kept, and these patterns match all of a text.
      out.push_back(split(as_rule(step.pattern.text)));
    } else {
      out.push_back(step);
      if (step.pattern.is_regex) out.back().pattern.text = as_rule(step.pattern.text);
    }
  }
  return out;
}

bool same(const PreTokenizerStep& a, const PreTokenizerStep& b) {
  const auto key = [](const PreTokenizerStep& s) {
    return std::tuple(s.kind, s.pattern.is_regex, std::string_view(s.pattern.text), s.behavior,
                      s.invert, s.add_prefix_space, s.use_regex, s.individual_digits);
  };
  return key(a) == key(b);
}

bool same(const NormalizerStep& a, const NormalizerStep& b) {
  return a.kind == b.kind && a.pattern.is_regex == b.pattern.is_regex &&
         a.pattern.text == b.pattern.text && a.content == b.content;
}

template <class Steps>
bool all_same(const Steps& a, const Steps& b) {
  return std::ranges::equal(a, b, [](const auto& x, const auto& y) { return same(x, y); });
}

// Whether a text can hold `first` and, from within it on, `second`.
bool overlap(std::string_view first, std::string_view second) {
  for (size_t at = 1; (at = first.find(second[0], at)) != first.npos; ++at) {
    const size_t size = std::min(first.size() - at, second.size());
    if (first.substr(at, size) == second.substr(0, size)) return true;
  }
  return false;
}

// A tokenizer.json finds the leftmost token, those that are not `normalized` before the others; in
// GGUF files the longest is found first.
bool found_in_another_order(const AddedToken& first, const AddedToken& second) {
  const bool runs = second.content.starts_with(first.content);  // as those of spaces
  if (overlap(first.content, second.content) && !runs) {
    return first.content.size() < second.content.size() || first.normalized != second.normalized;
  }
  return first.normalized && !second.normalized && runs;
}

bool has_all_bytes(const TokenModel& model) {
  const std::unordered_set<std::string_view> tokens(model.tokens.begin(), model.tokens.end());
  for (int byte = 0; byte < 256; ++byte) {
    const std::string letter = bytes_to_byte_level(std::string(1, static_cast<char>(byte)));
    if (!tokens.contains(letter)) return false;
  }
  return true;
}

bool has_bytes(const TokenizerSpec& spec) {
  return std::ranges::any_of(spec.pre_tokenizers, [](const PreTokenizerStep& step) {
    return step.kind == PreTokenizer::ByteLevel;
  });
}

// SentencePiece's ways to mark spaces; nothing for another chain of steps. The value: whether a
// mark is put before a text.
std::optional<bool> space_prefix(const TokenizerSpec& spec, std::vector<std::string>& lost) {
  const auto& normalizers = spec.normalizers;
  const NormalizerStep marks = {
      .kind = Normalizer::Replace, .pattern = {false, " "}, .content = std::string(kMark)};
  const NormalizerStep prefix = {.kind = Normalizer::Prepend, .content = std::string(kMark)};
  const auto steps = [&](const std::vector<NormalizerStep>& wanted) {
    return all_same(normalizers, wanted);
  };
  if (spec.pre_tokenizers.empty() && normalizers.size() == 1 &&
      normalizers[0].kind == Normalizer::SentencePiece) {
    if (!normalizers[0].charsmap.empty()) lost.emplace_back("the tokenizer's table of characters");
    if (normalizers[0].remove_extra_spaces) lost.emplace_back("that surplus spaces are removed");
    return normalizers[0].add_prefix;
  }
  // Gemma's cut at spaces comes when there are none any more.
  const bool no_cut =
      spec.pre_tokenizers.empty() ||
      (spec.pre_tokenizers.size() == 1 && spec.pre_tokenizers[0].kind == PreTokenizer::Split &&
       !spec.pre_tokenizers[0].pattern.is_regex && spec.pre_tokenizers[0].pattern.text == " ");
  if (no_cut && steps({prefix, marks})) return true;
  if (no_cut && steps({marks})) return false;
  if (normalizers.empty() && spec.pre_tokenizers.size() == 1 &&
      spec.pre_tokenizers[0].kind == PreTokenizer::Metaspace &&
      spec.pre_tokenizers[0].mark == kMark && !spec.pre_tokenizers[0].split) {
    const PrependScheme prepend = spec.pre_tokenizers[0].prepend;
    if (prepend == PrependScheme::First && !spec.added.empty()) {
      lost.emplace_back("that no space is put behind special tokens (legacy: false)");
    }
    return prepend != PrependScheme::Never;
  }
  return std::nullopt;
}

}  // namespace

GgufTokenizer::GgufTokenizer(TokenizerSpec spec) : spec_(std::move(spec)) {
  const TokenModel& model = spec_.model;
  const bool bpe =
      model.kind == TokenModel::Kind::Bpe && model.prefix.empty() && model.suffix.empty();
  if (bpe && has_bytes(spec_) && !model.byte_fallback) {
    find_byte_level_rule();
  } else if (bpe && model.byte_fallback) {
    take_sentencepiece();
  } else {
    throw Error(Kind::Unsupported,
                spec_.source +
                    ": is neither byte-level BPE nor SentencePiece's BPE, for which "
                    "GGUF has models",
                "--lossy writes the model without its tokenizer");
  }
  find_lost_of_added();
  const auto only = [](const std::vector<int32_t>& ids, int64_t id) {
    return ids.empty() || (ids.size() == 1 && ids[0] == id);
  };
  if (spec_.bos < 0 && spec_.before.size() == 1) spec_.bos = spec_.before[0];
  if (!only(spec_.before, spec_.bos) || !only(spec_.after, spec_.eos)) {
    lost_.emplace_back("other tokens around a text than BOS and EOS");
  }
}

void GgufTokenizer::find_byte_level_rule() {
  const std::vector<PreTokenizerStep> steps = as_rule(spec_.pre_tokenizers);
  if (spec_.model.unknown >= 0 && !has_all_bytes(spec_.model)) {
    lost_.emplace_back("the token for what the vocabulary lacks");
  }
  const NamedGgufPreRule* cuts_alike = nullptr;
  for (const NamedGgufPreRule& row : gguf_pre_rules()) {
    if (row.rule.raw || row.rule.sep || !all_same(pre_tokenizers_of(row.rule, false), steps)) {
      continue;
    }
    if (cuts_alike == nullptr) cuts_alike = &row;
    if (row.rule.ignore_merges == spec_.model.ignore_merges &&
        all_same(normalizers_of(row.rule), spec_.normalizers)) {
      pre_ = row.name;
      return;
    }
  }
  if (cuts_alike == nullptr) {
    pre_ = "default";
    lost_.emplace_back("the tokenizer's way to cut text, which has no name in GGUF");
    return;
  }
  pre_ = cuts_alike->name;
  if (cuts_alike->rule.ignore_merges != spec_.model.ignore_merges) {
    lost_.emplace_back("the tokenizer's ignore_merges");
  } else {
    lost_.emplace_back("the tokenizer's normalization");
  }
}

// Merges by score and a list of merges are the same where the list is what the scores come to.
void GgufTokenizer::take_sentencepiece() {
  sentencepiece_ = true;
  TokenModel& model = spec_.model;
  if (const auto prefix = space_prefix(spec_, lost_)) {
    space_prefix_ = *prefix;
  } else {
    lost_.emplace_back("the tokenizer's steps before merging");
  }
  if (model.ignore_merges) lost_.emplace_back("the tokenizer's ignore_merges");
  if (model.merge_by_score) {
    scores_ = model.scores;
    return;
  }
  scores_.assign(model.tokens.size(), 0);
  std::vector<bool> made(model.tokens.size());
  for (size_t i = 0; i < model.merges.size(); ++i) {
    const auto id = static_cast<size_t>(model.merges[i][2]);
    if (made[id]) continue;
    made[id] = true;
    scores_[id] = -static_cast<double>(i) - 1;
  }
  TokenModel by_score = model;
  by_score.scores = scores_;
  for (const AddedToken& token : spec_.added) {  // which merges never make
    if (static_cast<size_t>(token.id) < by_score.tokens.size()) {
      by_score.known[static_cast<size_t>(token.id)] = made[static_cast<size_t>(token.id)];
    }
  }
  merges_of_scores(by_score);
  // Two ways to make one token may change places: the result is the same token.
  const auto tokens_made = [](const TokenModel& each) {
    std::vector<int32_t> out;
    for (const auto& merge : each.merges) out.push_back(merge[2]);
    return out;
  };
  auto pairs = [](const TokenModel& each) {
    auto out = each.merges;
    std::ranges::sort(out);
    return out;
  };
  if (tokens_made(by_score) != tokens_made(model) || pairs(by_score) != pairs(model)) {
    lost_.emplace_back("merges that no order of the tokens comes to");
  }
}

void GgufTokenizer::find_lost_of_added() {
  const auto lose = [&](const char* what, const AddedToken& token) {
    lost_.push_back(fmt::format("{} of the added token '{}'", what, printable(token.content, 40)));
  };
  for (const AddedToken& token : spec_.added) {
    const char* flag = token.single_word ? "single_word"
                       : token.lstrip    ? "lstrip"
                       : token.rstrip    ? "rstrip"
                                         : nullptr;
    const bool spaces = token.content.find_first_not_of(" \t\r\n") == std::string::npos;
    if (token.normalized && !spec_.normalizers.empty() && !spaces) flag = "normalized";
    const auto control = gguf_control_by_name(token.content);
    if (control && *control != token.special) flag = "special";
    if (flag != nullptr) return lose(flag, token);
    for (const AddedToken& other : spec_.added) {
      if (overlap_.empty() && &token != &other && found_in_another_order(token, other)) {
        overlap_ = fmt::format("'{}' and '{}'", printable(token.content, 40),
                               printable(other.content, 40));
      }
    }
  }
}

std::vector<int32_t> GgufTokenizer::types(int64_t vocab) const {
  const TokenModel& model = spec_.model;
  std::vector<int32_t> types(static_cast<size_t>(vocab), kUnused);
  for (size_t id = 0; id < types.size() && id < model.tokens.size(); ++id) {
    if (!model.is_made(id)) continue;
    const bool byte = sentencepiece_ && byte_of_name(model.tokens[id]) >= 0;
    types[id] = byte ? kByte : kNormal;
  }
  for (const AddedToken& token : spec_.added) {
    if (token.id < vocab) {
      types[static_cast<size_t>(token.id)] = token.special ? kControl : kUserDefined;
    }
  }
  if (sentencepiece_ && model.unknown >= 0 && model.unknown < vocab) {
    types[static_cast<size_t>(model.unknown)] = kUnknown;
  }
  return types;
}

int64_t GgufTokenizer::added_id(std::string_view content) const {
  const auto token = std::ranges::find(spec_.added, content, &AddedToken::content);
  return token == spec_.added.end() ? -1 : token->id;
}

void GgufTokenizer::write(GgufWriter& out, int64_t vocab, std::optional<int64_t> bos,
                          const std::vector<int64_t>& ends) const {
  const TokenModel& model = spec_.model;
  std::vector<std::string> tokens(static_cast<size_t>(vocab));
  for (size_t id = 0; id < tokens.size(); ++id) {
    const bool known = id < model.tokens.size() && model.known[id];
    tokens[id] = known ? model.tokens[id] : fmt::format("[PAD{}]", id);
  }
  for (const AddedToken& token : spec_.added) {  // the embedding has no row for those beyond
    if (token.id < vocab) tokens[static_cast<size_t>(token.id)] = token.content;
  }
  out.add_string("tokenizer.ggml.model", sentencepiece_ ? "llama" : "gpt2");
  out.add_string("tokenizer.ggml.pre", sentencepiece_ ? "default" : pre_);
  out.add_strings("tokenizer.ggml.tokens", tokens);
  out.add_i32s("tokenizer.ggml.token_type", types(vocab));
  if (sentencepiece_) {
    std::vector<float> scores(tokens.size());
    for (size_t id = 0; id < scores.size() && id < scores_.size(); ++id) {
      scores[id] = static_cast<float>(scores_[id]);
    }
    out.add_f32s("tokenizer.ggml.scores", scores);
    out.add_bool("tokenizer.ggml.add_space_prefix", space_prefix_);
  } else {
    std::vector<std::string> merges;
    for (const auto& [left, right, both] : model.merges) {
      merges.push_back(model.tokens[static_cast<size_t>(left)] + " " +
                       model.tokens[static_cast<size_t>(right)]);
    }
    out.add_strings("tokenizer.ggml.merges", merges);
  }
  const auto add_id = [&](const char* key, int64_t id) {
    if (id >= 0 && id < vocab) out.add_u32(key, static_cast<uint32_t>(id));
  };
  const int64_t end_of_text = added_id("<|endoftext|>");
  const auto or_end_of_text = [&](int64_t id) { return id >= 0 ? id : end_of_text; };
  add_id("tokenizer.ggml.bos_token_id",
         spec_.before.empty() ? bos.value_or(or_end_of_text(spec_.bos)) : spec_.before[0]);
  const int64_t end = !spec_.after.empty() ? spec_.after[0]
                      : !ends.empty()      ? ends[0]
                                           : or_end_of_text(spec_.eos);
  add_id("tokenizer.ggml.eos_token_id", end);
  const auto other = std::ranges::find_if(ends, [&](int64_t id) { return id != end; });
  if (other != ends.end()) add_id("tokenizer.ggml.eot_token_id", *other);
  if (model.unknown >= 0) add_id("tokenizer.ggml.unknown_token_id", model.unknown);
  out.add_bool("tokenizer.ggml.add_bos_token", !spec_.before.empty());
  out.add_bool("tokenizer.ggml.add_eos_token", !spec_.after.empty());
}

}  // namespace quern
