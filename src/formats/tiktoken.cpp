#include "formats/tiktoken.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <unordered_set>

#include "core/error.h"

namespace quern {
namespace {

constexpr uint64_t kMaxFileBytes = uint64_t{256} << 20;
constexpr size_t kMaxTokenBytes = 1 << 16;
constexpr int64_t kMaxRank = int64_t{1} << 30;
constexpr std::string_view kAlphabet =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

constexpr std::array<int8_t, 256> make_digits() {
  std::array<int8_t, 256> digits{};
  for (auto& digit : digits) digit = -1;
  for (size_t i = 0; i < kAlphabet.size(); ++i) {
    digits[static_cast<unsigned char>(kAlphabet[i])] = static_cast<int8_t>(i);
  }
  return digits;
}

// Appends the decoded bytes; false if `text` is not canonical base64.
bool decode_base64(std::string_view text, std::string& out) {
  static constexpr std::array<int8_t, 256> kDigits = make_digits();
  if (text.empty() || text.size() % 4 != 0) return false;
  size_t padding = 0;
  while (padding < 2 && text[text.size() - 1 - padding] == '=') ++padding;
  for (size_t i = 0; i < text.size(); i += 4) {
    const bool last = i + 4 == text.size();
    const size_t digits = last ? 4 - padding : 4;
    uint32_t word = 0;
    for (size_t k = 0; k < 4; ++k) {
      const int8_t digit =
          k < digits ? kDigits[static_cast<unsigned char>(text[i + k])] : int8_t{0};
      if (digit < 0) return false;
      word = word << 6 | static_cast<uint32_t>(digit);
    }
    const size_t bytes = digits - 1;
    if ((word & ((1u << (8 * (3 - bytes))) - 1u)) != 0) return false;  // bits past the end
    for (size_t k = 0; k < bytes; ++k) out.push_back(static_cast<char>(word >> (16 - 8 * k)));
  }
  return true;
}

std::string encode_base64(std::string_view bytes) {
  std::string out;
  for (size_t i = 0; i < bytes.size(); i += 3) {
    const size_t count = std::min<size_t>(3, bytes.size() - i);
    uint32_t word = 0;
    for (size_t k = 0; k < 3; ++k) {
      word = word << 8 | (k < count ? static_cast<unsigned char>(bytes[i + k]) : 0u);
    }
    for (size_t k = 0; k < 4; ++k) {
      out += k <= count ? kAlphabet[word >> (18 - 6 * k) & 0x3F] : '=';
    }
  }
  return out;
}

}  // namespace

RankedTokens read_tiktoken(const fs::path& path) {
  const std::string text = read_file(path, kMaxFileBytes);
  const std::string source = path.string();
  if (is_lfs_pointer(text)) {
    throw_bad_input(source + ": is a Git LFS pointer, not the vocabulary itself",
                    "run 'git lfs pull' in the model's repository");
  }
  std::vector<std::pair<int64_t, std::string>> entries;
  size_t line_number = 0;
  const auto fail = [&](const std::string& problem) {
    throw_bad_input(fmt::format("{}: line {}: {}", source, line_number, problem),
                    "expected a token in base64, a space and its rank");
  };
  for (std::string_view rest = text; !rest.empty();) {
    ++line_number;
    const size_t newline = rest.find('\n');
    const std::string_view line = rest.substr(0, newline);
    rest.remove_prefix(newline == rest.npos ? rest.size() : newline + 1);
    const size_t space = line.find(' ');
    if (space == line.npos) fail("has no rank");
    const std::string_view rank_text = line.substr(space + 1);
    int64_t rank = -1;
    const auto [end, failure] =
        std::from_chars(rank_text.data(), rank_text.data() + rank_text.size(), rank);
    if (failure != std::errc{} || end != rank_text.data() + rank_text.size()) {
      fail(fmt::format("the rank '{}' is not a number", printable(rank_text, 40)));
    }
    if (rank < 0 || rank > kMaxRank) fail(fmt::format("the rank {} is out of range", rank));
    std::string token;
    if (space > 2 * kMaxTokenBytes) fail("the token is too long");
    if (!decode_base64(line.substr(0, space), token)) {
      fail(fmt::format("'{}' is not base64", printable(line.substr(0, space), 40)));
    }
    entries.emplace_back(rank, std::move(token));
  }
  if (entries.empty()) throw_bad_input(source + ": holds no tokens");
  std::sort(entries.begin(), entries.end());
  RankedTokens out;
  out.first_rank = entries[0].first;
  std::unordered_set<std::string_view> seen;
  for (const auto& [rank, token] : entries) {
    const int64_t expected = out.first_rank + static_cast<int64_t>(out.tokens.size());
    if (rank != expected) {
      throw_bad_input(fmt::format("{}: the rank {} is {}", source, std::min(rank, expected),
                                  rank < expected ? "given twice" : "missing"));
    }
    out.tokens.push_back(token);
  }
  for (const std::string& token : out.tokens) {
    if (!seen.insert(token).second) {
      throw_bad_input(
          fmt::format("{}: the token '{}' is given twice", source, printable(token, 80)));
    }
  }
  return out;
}

void write_tiktoken(const fs::path& path, const RankedTokens& tokens) {
  std::string text;
  int64_t rank = tokens.first_rank;
  for (const std::string& token : tokens.tokens) {
    text += fmt::format("{} {}\n", encode_base64(token), rank++);
  }
  write_file(path, text);
}

}  // namespace quern
