#include "text/tokenizer.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "core/error.h"
#include "core/file.h"
#include "core/utf8.h"

namespace quern {
namespace {

// Length of the unfinished character that `text` ends with: a prefix of a valid one. As Python's
// incremental decoder does, two bytes of an encoded surrogate wait for the third, too.
size_t unfinished_tail(std::string_view text) {
  if (text.size() >= 2 && text[text.size() - 2] == '\xED' &&
      static_cast<unsigned char>(text.back()) >= 0xA0 &&
      static_cast<unsigned char>(text.back()) <= 0xBF) {
    return 2;
  }
  for (size_t back = std::min<size_t>(3, text.size()); back >= 1; --back) {
    const std::string_view tail = text.substr(text.size() - back);
    const auto lead = static_cast<unsigned char>(tail[0]);
    if (lead < 0xC2 || lead > 0xF4) continue;
    const size_t needed = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
    const utf8::Point point = utf8::decode(tail);
    if (!point.valid && point.length == back && back < needed) return back;
  }
  return 0;
}

// Appends `bytes` as text.
void append_text(std::string& out, std::string_view bytes, BadBytes bad) {
  while (!bytes.empty()) {
    const size_t valid = std::min(utf8::first_invalid(bytes), bytes.size());
    out.append(bytes.substr(0, valid));
    bytes.remove_prefix(valid);
    if (bytes.empty()) return;
    if (bad == BadBytes::Replace) utf8::append(out, 0xFFFD);
    bytes.remove_prefix(utf8::decode(bytes).length);
  }
}

// Bytes that are copied of every token, whatever its length.
constexpr size_t kCopied = 16;

}  // namespace

void Tokenizer::set_specials(std::vector<SpecialToken> specials, TokenId special_from, size_t plain,
                             bool named) {
  specials_ = std::move(specials);
  special_from_ = special_from;
  size_ = static_cast<int64_t>(plain);
  for (const SpecialToken& token : specials_) {
    by_name_.emplace(token.name, token.id);
    name_lengths_.push_back(token.name.size());
    if (first_bytes_.find(token.name[0]) == first_bytes_.npos) first_bytes_ += token.name[0];
    size_ = std::max(size_, int64_t{token.id} + 1);
    if (token.special) hidden_.insert(token.id);
    if (!named) continue;
    lowest_named_ = named_.empty() ? token.id : std::min(lowest_named_, token.id);
    highest_named_ = std::max(highest_named_, token.id);
    named_[token.id] = token.name;
  }
  std::sort(name_lengths_.begin(), name_lengths_.end(), std::greater<>());
  name_lengths_.erase(std::unique(name_lengths_.begin(), name_lengths_.end()), name_lengths_.end());
}

std::optional<TokenId> Tokenizer::special(std::string_view name) const {
  const auto it = by_name_.find(name);
  if (it == by_name_.end()) return std::nullopt;
  return it->second;
}

bool Tokenizer::is_special(TokenId id) const noexcept {
  if (special_from_ > 0) return id >= special_from_;
  return hidden_.contains(id);
}

bool Tokenizer::lists(SpecialPolicy::Set set, const std::vector<std::string>& names,
                      std::string_view name) {
  using Set = SpecialPolicy::Set;
  return set == Set::All ||
         (set == Set::Listed && std::find(names.begin(), names.end(), name) != names.end());
}

void Tokenizer::refuse_special(std::string_view name) {
  throw_bad_input(
      fmt::format("the text holds the special token {}, which is not allowed here", name));
}

std::vector<TokenId> Tokenizer::encode(std::string_view text, const SpecialPolicy& policy) const {
  using Set = SpecialPolicy::Set;
  std::vector<TokenId> out;
  if (policy.allowed == Set::None && policy.refused == Set::None) {
    encode(text, out);
  } else {
    encode_allowing(text, policy, out);
  }
  return out;
}

std::vector<TokenId> Tokenizer::encode_whole(std::string_view text,
                                             const SpecialPolicy& policy) const {
  std::vector<TokenId> ids = encode(text, policy);
  ids.insert(ids.begin(), before_.begin(), before_.end());
  ids.insert(ids.end(), after_.begin(), after_.end());
  return ids;
}

void Tokenizer::encode_allowing(std::string_view text, const SpecialPolicy& policy,
                                std::vector<TokenId>& out) const {
  std::string storage;
  const std::string_view normal = normalize(text, storage);
  size_t begin = 0;
  // First every refusal, wherever it stands, then the cuts: as tiktoken does.
  std::vector<std::pair<size_t, const std::pair<const std::string_view, TokenId>*>> cuts;
  for (size_t i = normal.find_first_of(first_bytes_); i != normal.npos;) {
    size_t step = 1;
    for (const size_t length : name_lengths_) {
      const auto found = by_name_.find(normal.substr(i, length));
      if (found == by_name_.end()) continue;
      if (lists(policy.allowed, policy.allowed_names, found->first)) {
        cuts.emplace_back(i, &*found);
        step = length;
        break;
      }
      if (lists(policy.refused, policy.refused_names, found->first)) refuse_special(found->first);
    }
    i = normal.find_first_of(first_bytes_, i + step);
  }
  for (const auto& [at, token] : cuts) {
    encode_stretch(normal.substr(begin, at - begin), out);
    out.push_back(token->second);
    begin = at + token->first.size();
  }
  encode_stretch(normal.substr(begin), out);
}

std::vector<TokenId> Tokenizer::encode_bytes(std::string_view bytes, BadText bad) const {
  std::vector<TokenId> out;
  if (bad == BadText::Keep) {
    encode_raw(bytes, out);
    return out;
  }
  if (bad == BadText::Refuse) {
    if (const size_t at = utf8::first_invalid(bytes); at != bytes.npos) {
      throw_bad_input(fmt::format("the text is not UTF-8: byte {} is 0x{:02x}", at,
                                  static_cast<unsigned char>(bytes[at])));
    }
  }
  encode(bytes, out);
  return out;
}

void Tokenizer::encode_raw(std::string_view, std::vector<TokenId>&) const {
  throw Error(Kind::Unsupported, "this tokenizer cannot keep bytes that are not UTF-8",
              "it has no token for each byte; let them be replaced");
}

std::string_view Tokenizer::token_bytes(TokenId id) const {
  const std::string_view bytes = id < 0 || id >= size() ? std::string_view() : bytes_or_none(id);
  if (bytes.data() == nullptr) {
    throw_bad_input(fmt::format("the id {} has no token", id),
                    fmt::format("the tokenizer has ids 0 to {}", size() - 1));
  }
  return bytes;
}

std::string_view Tokenizer::bytes_or_none(TokenId id) const noexcept {
  if (id >= lowest_named_ && id <= highest_named_) {
    if (const auto it = named_.find(id); it != named_.end()) return it->second;
  }
  return plain_bytes(id);
}

const Tokenizer::DecodeTable& Tokenizer::decode_table() const {
  std::call_once(decode_once_, [this] {
    const auto count = static_cast<TokenId>(size());
    size_t total = kCopied;
    for (TokenId id = 0; id < count; ++id) total += bytes_or_none(id).size();
    decode_table_.text.reserve(total);
    decode_table_.entries.reserve(static_cast<size_t>(count));
    for (TokenId id = 0; id < count; ++id) {
      const std::string_view token = bytes_or_none(id);
      const auto begin = static_cast<uint32_t>(decode_table_.text.size());
      const auto size = static_cast<uint32_t>(token.size());
      decode_table_.entries.push_back({begin, token.data() == nullptr ? kNoToken : size});
      decode_table_.text += token;
    }
    decode_table_.text.append(kCopied, '\0');
  });
  return decode_table_;
}

std::string Tokenizer::decode_bytes(std::span<const TokenId> ids) const {
  constexpr size_t kBlock = 512;
  const DecodeTable& table = decode_table();
  const DecodeTable::Entry* const entries = table.entries.data();
  const char* const text = table.text.data();
  std::string out;
  out.reserve(ids.size() * 5 + kCopied);
  for (; !ids.empty(); ids = ids.subspan(std::min(kBlock, ids.size()))) {
    const auto block = ids.first(std::min(kBlock, ids.size()));
    size_t total = 0;
    for (const TokenId id : block) {
      const auto index = static_cast<size_t>(id);
      if (index >= table.entries.size() || entries[index].size == kNoToken) token_bytes(id);
      total += entries[index].size;
    }
    const size_t before = out.size();
    out.resize(before + total + kCopied);
    char* to = out.data() + before;
    for (const TokenId id : block) {
      const auto [begin, size] = entries[static_cast<size_t>(id)];
      std::memcpy(to, text + begin, kCopied);
      if (size > kCopied) std::memcpy(to + kCopied, text + begin + kCopied, size - kCopied);
      to += size;
    }
    out.resize(before + total);
  }
  return out;
}

std::string Tokenizer::decode(std::span<const TokenId> ids, BadBytes bad, bool skip_special) const {
  std::string all;
  if (!skip_special) {
    all = decode_bytes(ids);
  } else {
    for (const TokenId id : ids) {
      const std::string_view token = token_bytes(id);
      if (!is_special(id)) all += token;
    }
  }
  if (utf8::is_valid(all)) return all;
  std::string out;
  append_text(out, all, bad);
  return out;
}

std::string Tokenizer::hash() const {
  std::string all;
  for (TokenId id = 0; id < size(); ++id) {
    const std::string_view token = bytes_or_none(id);
    all += std::to_string(token.size());
    all += ' ';
    all += token;
  }
  return sha256(all);
}

std::string StreamDecoder::put(TokenId id) {
  const std::string_view token = tokenizer_->token_bytes(id);
  if (skip_special_ && tokenizer_->is_special(id)) return {};
  if (!tokenizer_->concatenates()) {
    // Gives out what is certain: what the whole text so far adds to the text already shown.
    ids_.push_back(id);
    std::string all = tokenizer_->decode(ids_);
    if (!all.starts_with(shown_) || all.ends_with("\uFFFD")) return {};
    std::string more = all.substr(shown_.size());
    while (more.ends_with(' ')) more.pop_back();  // may not stay at the end
    shown_ += more;
    return more;
  }
  pending_ += token;
  if (drop_space_ && !pending_.empty()) {
    drop_space_ = false;
    if (tokenizer_->leads_with_space() && pending_[0] == ' ') pending_.erase(0, 1);
  }
  const size_t keep = unfinished_tail(pending_);
  std::string out;
  append_text(out, std::string_view(pending_).substr(0, pending_.size() - keep), BadBytes::Replace);
  pending_.erase(0, pending_.size() - keep);
  return out;
}

std::string StreamDecoder::flush() {
  std::string out;
  if (!ids_.empty()) {
    const std::string all = tokenizer_->decode(ids_);
    if (all.starts_with(shown_)) out = all.substr(shown_.size());
    ids_.clear();
    shown_.clear();
  }
  append_text(out, pending_, BadBytes::Replace);
  pending_.clear();
  return out;
}

}  // namespace quern
