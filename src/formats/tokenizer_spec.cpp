#include "formats/tokenizer_spec.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <set>
#include <unordered_map>

#include "core/base64.h"
#include "core/error.h"
#include "core/json.h"

namespace quern {
namespace {

using Normalizer = NormalizerStep::Kind;
using PreTokenizer = PreTokenizerStep::Kind;
using Decoder = DecoderStep::Kind;

constexpr int64_t kMaxId = (int64_t{1} << 20) - 2;  // ids have 20 bits where merges are looked up
constexpr size_t kMaxPatternBytes = 4096;
constexpr size_t kMaxContentBytes = 4096;  // of an added token
constexpr size_t kMaxSteps = 256;
constexpr JsonLimits kLimits = {.max_bytes = size_t{256} << 20, .max_values = 20'000'000};

[[noreturn]] void refuse(const Json& where, const std::string& problem) {
  throw Error(Kind::Unsupported, where.where() + " " + problem);
}

template <class Step, size_t N>
Step kind_of(const Json& component, const std::pair<std::string_view, Step> (&names)[N]) {
  const Json type = component.at("type");
  const std::string& wanted = type.string();
  for (const auto& [name, kind] : names) {
    if (wanted == name) return kind;
  }
  throw Error(Kind::Unsupported,
              fmt::format("{} is '{}', which is not known", type.where(), printable(wanted, 40)));
}

// The steps of a component, sequences within sequences laid out flat.
template <class Take>
void each_step(const Json& component, const char* list, size_t& steps, Take&& take) {
  if (component.at("type").string() == "Sequence") {
    for (const Json& part : component.at(list).items()) each_step(part, list, steps, take);
    return;
  }
  if (++steps > kMaxSteps) component.fail(fmt::format("is one of more than {} steps", kMaxSteps));
  take(component);
}

TextPattern read_pattern(const Json& json) {
  TextPattern pattern;
  const bool regex = json.has("Regex");
  if (!regex && !json.has("String")) json.fail("has neither 'Regex' nor 'String'");
  pattern.is_regex = regex;
  pattern.text = json.at(regex ? "Regex" : "String").string();
  if (pattern.text.empty() || pattern.text.size() > kMaxPatternBytes) {
    json.fail(fmt::format("has {} bytes, expected 1 to {}", pattern.text.size(), kMaxPatternBytes));
  }
  return pattern;
}

std::string one_character(const Json& json) {
  const std::string& text = json.string();
  const auto count = std::count_if(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xC0) != 0x80;
  });
  if (count != 1) json.fail(fmt::format("is '{}', expected one character", printable(text, 40)));
  return text;
}

SplitBehavior read_behavior(const Json& component, SplitBehavior fallback) {
  const auto value = component.find("behavior");
  if (!value) return fallback;
  constexpr std::pair<std::string_view, SplitBehavior> kNames[] = {
      {"Removed", SplitBehavior::Removed},
      {"Isolated", SplitBehavior::Isolated},
      {"MergedWithPrevious", SplitBehavior::MergedWithPrevious},
      {"MergedWithNext", SplitBehavior::MergedWithNext},
      {"Contiguous", SplitBehavior::Contiguous}};
  for (const auto& [name, behavior] : kNames) {
    if (value->string() == name) return behavior;
  }
  value->fail(fmt::format("is '{}', which is not known", printable(value->string(), 40)));
}

PrependScheme read_prepend(const Json& component) {
  const auto scheme = component.find("prepend_scheme");
  const auto older = component.find("add_prefix_space");  // older files
  if (!scheme) {
    return older && !older->boolean() ? PrependScheme::Never : PrependScheme::Always;
  }
  PrependScheme read = PrependScheme::Always;
  if (scheme->string() == "never") {
    read = PrependScheme::Never;
  } else if (scheme->string() == "first") {
    read = PrependScheme::First;
  } else if (scheme->string() != "always") {
    scheme->fail(
        fmt::format("is '{}', expected always, first or never", printable(scheme->string(), 40)));
  }
  if (older && !older->boolean() && read != PrependScheme::Never) {
    older->fail("is false, but prepend_scheme says otherwise");
  }
  return read;
}

NormalizerStep read_normalizer(const Json& component) {
  constexpr std::pair<std::string_view, Normalizer> kNames[] = {
      {"NFC", Normalizer::Nfc},
      {"NFD", Normalizer::Nfd},
      {"NFKC", Normalizer::Nfkc},
      {"NFKD", Normalizer::Nfkd},
      {"Lowercase", Normalizer::Lowercase},
      {"Strip", Normalizer::Strip},
      {"StripAccents", Normalizer::StripAccents},
      {"BertNormalizer", Normalizer::Bert},
      {"Nmt", Normalizer::Nmt},
      {"Replace", Normalizer::Replace},
      {"Prepend", Normalizer::Prepend},
      {"ByteLevel", Normalizer::ByteLevel},
      {"Precompiled", Normalizer::Charsmap}};
  NormalizerStep step = {.kind = kind_of(component, kNames)};
  switch (step.kind) {
    case Normalizer::Replace:
      step.pattern = read_pattern(component.at("pattern"));
      step.content = component.at("content").string();
      break;
    case Normalizer::Prepend:
      step.content = component.at("prepend").string();
      break;
    case Normalizer::Strip:
      step.left = component.boolean_or("strip_left", true);
      step.right = component.boolean_or("strip_right", true);
      break;
    case Normalizer::Charsmap:
      if (const Json charsmap = component.at("precompiled_charsmap");
          !charsmap.string().empty() && !base64_decode(charsmap.string(), step.charsmap)) {
        charsmap.fail("is not base64");
      }
      break;
    case Normalizer::Bert:
      step.clean_text = component.boolean_or("clean_text", true);
      step.chinese = component.boolean_or("handle_chinese_chars", true);
      step.lowercase = component.boolean_or("lowercase", true);
      step.accents = component.boolean_or("strip_accents", step.lowercase);
      break;
    default:
      break;
  }
  return step;
}

PreTokenizerStep read_pre_tokenizer(const Json& component) {
  constexpr std::pair<std::string_view, PreTokenizer> kNames[] = {
      {"BertPreTokenizer", PreTokenizer::Bert},
      {"ByteLevel", PreTokenizer::ByteLevel},
      {"CharDelimiterSplit", PreTokenizer::Delimiter},
      {"Metaspace", PreTokenizer::Metaspace},
      {"Whitespace", PreTokenizer::Whitespace},
      {"WhitespaceSplit", PreTokenizer::WhitespaceSplit},
      {"Split", PreTokenizer::Split},
      {"Punctuation", PreTokenizer::Punctuation},
      {"Digits", PreTokenizer::Digits},
      {"UnicodeScripts", PreTokenizer::Scripts},
      {"FixedLength", PreTokenizer::FixedLength}};
  PreTokenizerStep step = {.kind = kind_of(component, kNames)};
  switch (step.kind) {
    case PreTokenizer::ByteLevel:
      step.add_prefix_space = component.boolean_or("add_prefix_space", true);
      step.use_regex = component.boolean_or("use_regex", true);
      break;
    case PreTokenizer::Delimiter:
      step.pattern = {false, one_character(component.at("delimiter"))};
      step.behavior = SplitBehavior::Removed;
      break;
    case PreTokenizer::Metaspace:
      step.mark = one_character(component.at("replacement"));
      step.prepend = read_prepend(component);
      step.split = component.boolean_or("split", true);
      break;
    case PreTokenizer::Split:
      step.pattern = read_pattern(component.at("pattern"));
      component.at("behavior");
      step.behavior = read_behavior(component, SplitBehavior::Isolated);
      step.invert = component.boolean_or("invert", false);
      break;
    case PreTokenizer::Punctuation:
      step.behavior = read_behavior(component, SplitBehavior::Isolated);
      break;
    case PreTokenizer::Digits:
      step.individual_digits = component.boolean_or("individual_digits", false);
      break;
    case PreTokenizer::FixedLength:
      step.length = component.integer_or("length", 5, 1, int64_t{1} << 31);
      break;
    default:
      break;
  }
  return step;
}

DecoderStep read_decoder(const Json& component) {
  constexpr std::pair<std::string_view, Decoder> kNames[] = {
      {"BPEDecoder", Decoder::Bpe},
      {"ByteLevel", Decoder::ByteLevel},
      {"WordPiece", Decoder::WordPiece},
      {"Metaspace", Decoder::Metaspace},
      {"CTC", Decoder::Ctc},
      {"Replace", Decoder::Replace},
      {"Fuse", Decoder::Fuse},
      {"Strip", Decoder::Strip},
      {"ByteFallback", Decoder::ByteFallback}};
  DecoderStep step = {.kind = kind_of(component, kNames)};
  switch (step.kind) {
    case Decoder::Bpe:
      step.suffix = component.string_or("suffix", "</w>");
      break;
    case Decoder::WordPiece:
      step.suffix = component.string_or("prefix", "##");
      step.cleanup = component.boolean_or("cleanup", true);
      break;
    case Decoder::Metaspace:
      step.content = one_character(component.at("replacement"));
      step.prepend = read_prepend(component);
      break;
    case Decoder::Ctc:
      step.suffix = component.string_or("pad_token", "<pad>");
      step.delimiter = component.string_or("word_delimiter_token", "|");
      step.cleanup = component.boolean_or("cleanup", true);
      break;
    case Decoder::Replace:
      step.pattern = read_pattern(component.at("pattern"));
      step.content = component.at("content").string();
      break;
    case Decoder::Strip:
      step.content = one_character(component.at("content"));
      step.start = component.integer_or("start", 0, 0, int64_t{1} << 31);
      step.stop = component.integer_or("stop", 0, 0, int64_t{1} << 31);
      break;
    default:
      break;
  }
  return step;
}

// The ids that a post-processor puts around a text; each goes around what those before it made.
void read_post_processor(const Json& component, TokenizerSpec& spec) {
  const std::string& type = component.at("type").string();
  if (type == "ByteLevel") return;  // offsets alone
  std::vector<int32_t> before, after;
  const auto id_of = [](const Json& id) { return static_cast<int32_t>(id.integer(0, kMaxId)); };
  if (type == "BertProcessing" || type == "RobertaProcessing") {
    const Json cls = component.at("cls"), sep = component.at("sep");
    if (cls.size() != 2) cls.fail("is not a pair of a token and its id");
    if (sep.size() != 2) sep.fail("is not a pair of a token and its id");
    before = {id_of(cls[1])};
    after = {id_of(sep[1])};
  } else if (type == "TemplateProcessing") {
    const Json single = component.at("single");
    int texts = 0;
    for (const Json& part : single.items()) {
      if (part.has("Sequence")) {
        ++texts;
        continue;
      }
      const Json name = part.at("SpecialToken").at("id");
      for (const Json& id : component.at("special_tokens").at(name.string()).at("ids").items()) {
        (texts == 0 ? before : after).push_back(id_of(id));
      }
    }
    if (texts != 1) refuse(single, fmt::format("holds the text {} times, expected once", texts));
  } else {
    refuse(component.at("type"), fmt::format("is '{}', which is not known", printable(type, 40)));
  }
  spec.before.insert(spec.before.begin(), before.begin(), before.end());
  spec.after.insert(spec.after.end(), after.begin(), after.end());
}

using Ids = std::unordered_map<std::string_view, int32_t>;

void read_vocabulary(const Json& vocab, TokenModel& model) {
  if (!vocab.is_object()) vocab.fail("is not an object of tokens and ids");
  const nlohmann::json& raw = vocab.raw();
  const auto limit = std::min(kMaxId, static_cast<int64_t>(4 * raw.size() + 100'000));
  model.tokens.resize(raw.size());
  model.known.resize(raw.size());
  for (auto it = raw.begin(); it != raw.end(); ++it) {
    const nlohmann::json& value = it.value();
    if (!value.is_number_integer()) vocab.at(it.key()).integer();
    const bool fits = value.is_number_unsigned() ? value.get<uint64_t>() <= uint64_t(limit)
                                                 : value.get<int64_t>() >= 0;
    if (!fits) vocab.at(it.key()).integer(0, limit);
    const auto id = static_cast<size_t>(value.get<uint64_t>());
    if (id < model.known.size() && model.known[id]) {
      vocab.fail(fmt::format("gives the id {} to two tokens", id));
    }
    model.set(static_cast<int64_t>(id), it.key());
  }
}

Ids ids_of(const TokenModel& model) {
  Ids ids;
  ids.reserve(model.tokens.size());
  for (size_t id = 0; id < model.tokens.size(); ++id) {
    if (model.known[id]) ids.emplace(model.tokens[id], static_cast<int32_t>(id));
  }
  return ids;
}

void read_merges(const Json& list, const Ids& ids, TokenModel& model) {
  if (!list.is_array()) list.fail("is not a list");
  model.merges.reserve(list.raw().size());
  std::string both;
  size_t index = 0;
  for (const nlohmann::json& merge : list.raw()) {
    std::string_view left, right;
    if (merge.is_string()) {
      const std::string_view line = merge.get_ref<const std::string&>();
      if (index == 0 && line.starts_with("#version")) continue;
      const size_t space = line.find(' ');
      if (space == line.npos || space == 0 || space + 1 == line.size() ||
          line.find(' ', space + 1) != line.npos) {
        list.fail(fmt::format("has the merge '{}', expected two tokens", printable(line, 80)));
      }
      left = line.substr(0, space);
      right = line.substr(space + 1);
    } else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() &&
               merge[1].is_string()) {  // newer files hold pairs
      left = merge[0].get_ref<const std::string&>();
      right = merge[1].get_ref<const std::string&>();
    } else {
      list[index].fail("is not a pair of tokens");
    }
    ++index;
    both = left;
    both += right.starts_with(model.prefix) ? right.substr(model.prefix.size()) : right;
    const auto l = ids.find(left), r = ids.find(right), joined = ids.find(both);
    if (l == ids.end() || r == ids.end() || joined == ids.end()) {
      list.fail(fmt::format("merges '{}' and '{}', of which one, or both together, are no token",
                            printable(left, 40), printable(right, 40)));
    }
    model.merges.push_back({l->second, r->second, joined->second});
  }
}

int64_t unknown_of(const Json& json, const Ids& ids, const std::string& fallback = {}) {
  const std::string name = json.string_or("unk_token", fallback);
  if (!json.has("unk_token") && fallback.empty()) return -1;
  const auto it = ids.find(name);
  // A name that is no token matters only when something is unknown: nothing can stand for it.
  return it == ids.end() ? -1 : it->second;
}

void read_unigram(const Json& json, TokenModel& model) {
  const Json vocab = json.at("vocab");
  if (!vocab.is_array() || vocab.size() == 0) vocab.fail("is not a list of tokens and scores");
  const auto& raw = vocab.raw();
  if (raw.size() > size_t(kMaxId)) {
    refuse(vocab, fmt::format("has {} tokens, at most {} are supported", raw.size(), kMaxId));
  }
  model.scores.reserve(raw.size());
  for (size_t id = 0; id < raw.size(); ++id) {
    const auto& item = raw[id];
    if (!item.is_array() || item.size() != 2 || !item[0].is_string() || !item[1].is_number()) {
      vocab[id].fail("is not a token and its score");
    }
    model.set(static_cast<int64_t>(id), item[0].get<std::string>());
    model.scores.push_back(item[1].get<double>());
  }
  model.unknown = json.integer_or("unk_id", -1, 0, static_cast<int64_t>(raw.size()) - 1);
  model.byte_fallback = json.boolean_or("byte_fallback", false);
}

TokenModel read_model(const Json& json) {
  using Kind = TokenModel::Kind;
  TokenModel model;
  std::string type = json.string_or("type", "");
  if (type.empty()) {  // older files do not say
    type = json.has("merges")                     ? "BPE"
           : json.at("vocab").is_array()          ? "Unigram"
           : json.has("max_input_chars_per_word") ? "WordPiece"
                                                  : "WordLevel";
  }
  if (type == "Unigram") {
    model.kind = Kind::Unigram;
    read_unigram(json, model);
    return model;
  }
  if (type != "BPE" && type != "WordPiece" && type != "WordLevel") {
    refuse(json, fmt::format("has the type '{}', which is not known", printable(type, 40)));
  }
  read_vocabulary(json.at("vocab"), model);
  const Ids ids = ids_of(model);
  if (type == "BPE") {
    if (json.number_or("dropout", 0) != 0) {
      refuse(json.at("dropout"), "is set: merges left out by chance are for training alone");
    }
    model.prefix = json.string_or("continuing_subword_prefix", "");
    model.suffix = json.string_or("end_of_word_suffix", "");
    model.byte_fallback = json.boolean_or("byte_fallback", false);
    model.fuse_unknown = json.boolean_or("fuse_unk", false);
    model.ignore_merges = json.boolean_or("ignore_merges", false);
    model.unknown = unknown_of(json, ids);
    read_merges(json.at("merges"), ids, model);
    return model;
  }
  model.kind = type == "WordPiece" ? Kind::WordPiece : Kind::WordLevel;
  model.unknown = unknown_of(json, ids, type == "WordPiece" ? "[UNK]" : "<unk>");
  if (model.kind == Kind::WordPiece) {
    model.prefix = json.string_or("continuing_subword_prefix", "##");
    model.max_word = json.integer_or("max_input_chars_per_word", 100, 0, int64_t{1} << 31);
  }
  return model;
}

}  // namespace

void TokenModel::set(int64_t id, std::string token) {
  const auto i = static_cast<size_t>(id);
  if (tokens.size() <= i) {
    tokens.resize(i + 1);
    known.resize(i + 1);
  }
  tokens[i] = std::move(token);
  known[i] = true;
}

void TokenModel::hide(int64_t id) {
  hidden.resize(tokens.size());
  hidden[static_cast<size_t>(id)] = true;
}

// The same content twice is one token with two ids, of which text becomes the first.
std::vector<AddedToken> read_added_tokens(const Json& list) {
  std::vector<AddedToken> added;
  std::set<int64_t> ids;
  for (const Json& item : list.items()) {
    AddedToken token = {.id = item.at("id").integer(0, kMaxId),
                        .content = item.at("content").string(),
                        .special = item.boolean_or("special", false),
                        .single_word = item.boolean_or("single_word", false),
                        .lstrip = item.boolean_or("lstrip", false),
                        .rstrip = item.boolean_or("rstrip", false)};
    token.normalized = item.boolean_or("normalized", !token.special);
    if (token.content.empty()) item.fail("has an empty content");
    if (token.content.size() > kMaxContentBytes) {
      item.fail(fmt::format("has a content of {} bytes, at most {} are accepted",
                            token.content.size(), kMaxContentBytes));
    }
    if (!ids.insert(token.id).second) {
      item.fail(fmt::format("repeats the id {}, here with the content '{}'", token.id,
                            printable(token.content, 80)));
    }
    added.push_back(std::move(token));
  }
  return added;
}

TokenizerSpec parse_tokenizer_spec(std::string_view text, const std::string& source) {
  const Json json = Json::parse(text, source, kLimits);
  TokenizerSpec spec;
  spec.source = source;
  spec.model = read_model(json.at("model"));
  size_t steps = 0;
  if (const auto part = json.find("normalizer")) {
    each_step(*part, "normalizers", steps, [&](const Json& component) {
      spec.normalizers.push_back(read_normalizer(component));
    });
  }
  if (const auto part = json.find("pre_tokenizer")) {
    each_step(*part, "pretokenizers", steps, [&](const Json& component) {
      spec.pre_tokenizers.push_back(read_pre_tokenizer(component));
    });
  }
  if (const auto part = json.find("post_processor")) {
    each_step(*part, "processors", steps,
              [&](const Json& component) { read_post_processor(component, spec); });
  }
  if (const auto part = json.find("decoder")) {
    each_step(*part, "decoders", steps,
              [&](const Json& component) { spec.decoders.push_back(read_decoder(component)); });
    // An empty sequence joins the tokens as they are.
    if (spec.decoders.empty()) spec.decoders.push_back({.kind = Decoder::Fuse});
  }
  if (const auto added = json.find("added_tokens")) spec.added = read_added_tokens(*added);
  for (const AddedToken& token : spec.added) {
    if (static_cast<size_t>(token.id) > spec.model.tokens.size() + 100'000) {
      json.at("added_tokens").fail(fmt::format("has the id {} far past the vocabulary", token.id));
    }
  }
  return spec;
}

TokenizerSpec read_tokenizer_spec(const fs::path& path) {
  return parse_tokenizer_spec(read_file(path, kLimits.max_bytes), path.string());
}

}  // namespace quern
