#include "formats/tokenizer_json.h"

#include <fmt/format.h>

#include <array>
#include <nlohmann/json.hpp>
#include <set>
#include <unordered_map>

#include "core/error.h"
#include "core/json.h"
#include "core/utf8.h"

namespace quern {
namespace {

constexpr int64_t kMaxId = int64_t{1} << 24;
constexpr size_t kMaxPatternBytes = 4096;
constexpr JsonLimits kLimits = {.max_bytes = size_t{256} << 20, .max_values = 20'000'000};

// Byte-level BPE writes bytes as printable characters: the printable ones of Latin-1 stand for
// themselves, the others are numbered from U+0100 on.
struct ByteAlphabet {
  std::array<char32_t, 256> of_byte{};
  std::unordered_map<char32_t, char> to_byte;

  ByteAlphabet() {
    char32_t next = 0x100;
    for (unsigned byte = 0; byte < 256; ++byte) {
      const bool printable_byte =
          (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
      of_byte[byte] = printable_byte ? byte : next++;
      to_byte[of_byte[byte]] = static_cast<char>(byte);
    }
  }
};

const ByteAlphabet& alphabet() {
  static const ByteAlphabet instance;
  return instance;
}

std::string to_bytes(std::string_view text, const Json& where) {
  if (auto bytes = byte_level_to_bytes(text)) return *std::move(bytes);
  where.fail(fmt::format("has the token '{}', which is not in the byte-level alphabet",
                         printable(text, 40)));
}

void set_token(std::vector<std::string>& tokens, int64_t id, std::string bytes, const Json& where) {
  const auto i = static_cast<size_t>(id);
  if (tokens.size() <= i) tokens.resize(i + 1);
  if (!tokens[i].empty()) where.fail(fmt::format("gives the id {} to two tokens", id));
  tokens[i] = std::move(bytes);
}

void read_vocab(const Json& vocab, std::vector<std::string>& tokens) {
  if (!vocab.is_object()) vocab.fail("is not an object of tokens and ids");
  const auto limit = static_cast<int64_t>(4 * vocab.size() + 100'000);
  for (const auto& [text, id] : vocab.members()) {
    const int64_t value = id.integer(0, std::min(kMaxId, limit));
    if (text.empty()) vocab.fail("has an empty token");
    set_token(tokens, value, to_bytes(text, vocab), vocab);
  }
}

std::pair<std::string, std::string> split_merge(std::string_view line, const Json& where) {
  const size_t space = line.find(' ');
  if (space == line.npos || space == 0 || space + 1 == line.size() ||
      line.find(' ', space + 1) != line.npos) {
    where.fail(fmt::format("has the merge '{}', expected two tokens", printable(line, 80)));
  }
  return {to_bytes(line.substr(0, space), where), to_bytes(line.substr(space + 1), where)};
}

std::vector<AddedToken> read_added(const Json& json) {
  std::vector<AddedToken> added;
  std::set<int64_t> ids;
  std::set<std::string> contents;
  for (const Json& item : json.items()) {
    AddedToken token = {item.at("id").integer(0, kMaxId), item.at("content").string(),
                        item.boolean_or("special", true)};
    if (token.content.empty()) item.fail("has an empty content");
    if (!ids.insert(token.id).second || !contents.insert(token.content).second) {
      item.fail(fmt::format("repeats the id {} or the content '{}'", token.id,
                            printable(token.content, 80)));
    }
    added.push_back(std::move(token));
  }
  return added;
}

void refuse(const Json& component, const char* what) {
  component.fail(fmt::format("is a {} that is not supported", what),
                 "Quern reads byte-level BPE with NFC or no normalizer and a splitting pattern");
}

void read_pre_tokenizer(const Json& json, TokenizerJson& out) {
  const std::string& type = json.at("type").string();
  if (type == "Sequence") {
    for (const Json& part : json.at("pretokenizers").items()) read_pre_tokenizer(part, out);
  } else if (type == "Split") {
    const Json pattern = json.at("pattern");
    if (!pattern.has("Regex") || json.boolean_or("invert", false) ||
        json.string_or("behavior", "Isolated") != "Isolated") {
      refuse(json, "split");
    }
    out.pattern = pattern.at("Regex").string();
    if (out.pattern.empty() || out.pattern.size() > kMaxPatternBytes) {
      pattern.fail(
          fmt::format("has {} bytes, expected 1 to {}", out.pattern.size(), kMaxPatternBytes));
    }
  } else if (type != "ByteLevel" || json.boolean_or("add_prefix_space", false)) {
    refuse(json, "pre-tokenizer");
  }
}

}  // namespace

std::optional<std::string> byte_level_to_bytes(std::string_view text) {
  std::string out;
  while (!text.empty()) {
    const utf8::Point point = utf8::decode(text);
    const auto it = alphabet().to_byte.find(point.value);
    if (it == alphabet().to_byte.end()) return std::nullopt;
    out += it->second;
    text.remove_prefix(point.length);
  }
  return out;
}

std::string bytes_to_byte_level(std::string_view bytes) {
  std::string out;
  for (const char byte : bytes) {
    utf8::append(out, alphabet().of_byte[static_cast<unsigned char>(byte)]);
  }
  return out;
}

TokenizerJson read_tokenizer_json(const fs::path& path) {
  const Json json = Json::parse_file(path.string(), kLimits);
  const Json model = json.at("model");
  if (const std::string type = model.string_or("type", "BPE"); type != "BPE") {
    model.fail(fmt::format("has the type '{}', expected BPE", printable(type, 40)));
  }
  for (const char* option :
       {"dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix"}) {
    const auto value = model.find(option);
    if (value && !(value->is_string() && value->string().empty())) {
      value->fail("is set, which byte-level BPE does not use");
    }
  }
  if (model.boolean_or("byte_fallback", false)) {
    model.at("byte_fallback").fail("is true, expected a byte-level vocabulary");
  }
  TokenizerJson out;
  out.ignore_merges = model.boolean_or("ignore_merges", false);
  if (const auto normalizer = json.find("normalizer")) {
    if (normalizer->at("type").string() != "NFC") refuse(*normalizer, "normalizer");
    out.nfc = true;
  }
  read_pre_tokenizer(json.at("pre_tokenizer"), out);
  read_vocab(model.at("vocab"), out.tokens);
  const Json merges = model.at("merges");
  for (const Json& merge : merges.items()) {
    if (merge.is_string()) {
      out.merges.push_back(split_merge(merge.string(), merges));
    } else {  // newer files hold pairs
      if (merge.size() != 2) merge.fail("is not a pair of tokens");
      out.merges.emplace_back(to_bytes(merge[0].string(), merges),
                              to_bytes(merge[1].string(), merges));
    }
  }
  if (const auto added = json.find("added_tokens")) out.added = read_added(*added);
  for (const AddedToken& token : out.added) {
    const auto id = static_cast<size_t>(token.id);
    if (id > out.tokens.size() + 100'000) {
      json.at("added_tokens").fail(fmt::format("has the id {} far past the vocabulary", token.id));
    }
    // A special token may stand in the vocabulary too; as text it is never made by merges.
    if (id < out.tokens.size()) out.tokens[id].clear();
  }
  return out;
}

TokenizerJson read_vocab_and_merges(const fs::path& vocab, const fs::path& merges) {
  TokenizerJson out;
  const Json json = Json::parse_file(vocab.string(), kLimits);
  read_vocab(json, out.tokens);
  const std::string text = read_file(merges, kLimits.max_bytes);
  const Json where = Json::wrap(nullptr, merges.string());
  for (std::string_view rest = text; !rest.empty();) {
    const size_t newline = rest.find('\n');
    const std::string_view line = rest.substr(0, newline);
    rest.remove_prefix(newline == rest.npos ? rest.size() : newline + 1);
    if (line.empty() || line.starts_with("#version")) continue;
    out.merges.push_back(split_merge(line, where));
  }
  out.nfc = true;
  const fs::path config = vocab.parent_path() / "tokenizer_config.json";
  if (!fs::exists(config)) return out;
  const Json settings = Json::parse_file(config.string(), kLimits);
  if (const auto decoder = settings.find("added_tokens_decoder")) {
    for (const auto& [id, token] : decoder->members()) {
      const bool digits =
          !id.empty() && id.size() < 9 && id.find_first_not_of("0123456789") == id.npos;
      if (!digits) decoder->fail(fmt::format("has the id '{}'", printable(id, 40)));
      out.added.push_back(
          {std::stoll(id), token.at("content").string(), token.boolean_or("special", true)});
    }
  }
  return out;
}

void write_tokenizer_json(const fs::path& path, const TokenizerJson& tokenizer) {
  using nlohmann::ordered_json;
  ordered_json added = ordered_json::array();
  for (const AddedToken& token : tokenizer.added) {
    added.push_back({{"id", token.id},
                     {"content", token.content},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", false},
                     {"special", token.special}});
  }
  const ordered_json byte_level = {{"type", "ByteLevel"},
                                   {"add_prefix_space", false},
                                   {"trim_offsets", false},
                                   {"use_regex", false}};
  ordered_json vocab = ordered_json::object();
  for (size_t id = 0; id < tokenizer.tokens.size(); ++id) {
    if (!tokenizer.tokens[id].empty()) vocab[bytes_to_byte_level(tokenizer.tokens[id])] = id;
  }
  ordered_json merges = ordered_json::array();
  for (const auto& [left, right] : tokenizer.merges) {
    merges.push_back({bytes_to_byte_level(left), bytes_to_byte_level(right)});
  }
  const ordered_json json = {
      {"version", "1.0"},
      {"truncation", nullptr},
      {"padding", nullptr},
      {"added_tokens", added},
      {"normalizer", tokenizer.nfc ? ordered_json{{"type", "NFC"}} : ordered_json(nullptr)},
      {"pre_tokenizer",
       {{"type", "Sequence"},
        {"pretokenizers",
         {{{"type", "Split"},
           {"pattern", {{"Regex", tokenizer.pattern}}},
           {"behavior", "Isolated"},
           {"invert", false}},
          byte_level}}}},
      {"post_processor", byte_level},
      {"decoder", byte_level},
      {"model",
       {{"type", "BPE"},
        {"dropout", nullptr},
        {"unk_token", nullptr},
        {"continuing_subword_prefix", nullptr},
        {"end_of_word_suffix", nullptr},
        {"fuse_unk", false},
        {"byte_fallback", false},
        {"ignore_merges", tokenizer.ignore_merges},
        {"vocab", vocab},
        {"merges", merges}}},
  };
  write_file(path, dump(json));
}

}  // namespace quern
