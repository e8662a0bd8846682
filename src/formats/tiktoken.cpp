#include "formats/tiktoken.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <charconv>
#include <cstring>
#include <numeric>

#include "core/base64.h"
#include "core/error.h"
#include "core/huge_pages.h"

namespace quern {
namespace {

constexpr uint64_t kMaxFileBytes = uint64_t{256} << 20;
constexpr size_t kMaxTokenBytes = 1 << 16;
constexpr int64_t kMaxRank = int64_t{1} << 30;

template <class T>
using Scratch = std::vector<T, HugePages<T>>;

// The first token that an earlier one equals; null where there is none.
const std::string* find_duplicate(const std::vector<std::string>& tokens) {
  const auto hash_of = [](std::string_view bytes) {
    uint64_t hash = bytes.size();
    for (size_t i = 0; i < bytes.size(); i += 8) {
      uint64_t word = 0;
      std::memcpy(&word, bytes.data() + i, std::min<size_t>(8, bytes.size() - i));
      hash = (hash ^ word) * 0x9E3779B97F4A7C15u;
      hash ^= hash >> 32;
    }
    return hash * 0xD6E8FEB86659FD93u;
  };
  Scratch<uint64_t> hashes(tokens.size());
  for (size_t i = 0; i < tokens.size(); ++i) hashes[i] = hash_of(tokens[i]);
  // Open addressing: the upper half of a hash, and the number + 1.
  Scratch<uint64_t> slots(std::bit_ceil(tokens.size() + tokens.size() / 2 + 1), 0);
  const int shift = 64 - std::countr_zero(slots.size());
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (i + 16 < tokens.size()) __builtin_prefetch(&slots[hashes[i + 16] >> shift], 1);
    const uint64_t half = hashes[i] << 32;  // the index has the upper bits
    size_t slot = hashes[i] >> shift;
    for (; slots[slot] != 0; slot = (slot + 1) & (slots.size() - 1)) {
      if ((slots[slot] ^ half) >> 32 != 0) continue;
      if (tokens[static_cast<uint32_t>(slots[slot]) - 1] == tokens[i]) return &tokens[i];
    }
    slots[slot] = half | (i + 1);
  }
  return nullptr;
}

}  // namespace

RankedTokens read_tiktoken(const fs::path& path) {
  const MappedFile file(path);
  RankedTokens tokens = parse_tiktoken(file.text(), path.string());
  refuse_equal_tokens(tokens, path.string());
  return tokens;
}

void refuse_equal_tokens(const RankedTokens& tokens, const std::string& source) {
  if (const std::string* twice = find_duplicate(tokens.tokens)) {
    throw_bad_input(
        fmt::format("{}: the token '{}' is given twice", source, printable(*twice, 80)));
  }
}

RankedTokens parse_tiktoken(std::string_view text, const std::string& source) {
  if (text.size() > kMaxFileBytes) {
    throw_bad_input(fmt::format("{}: has {} bytes, at most {} are accepted", source, text.size(),
                                kMaxFileBytes));
  }
  if (is_lfs_pointer(text)) {
    throw_bad_input(source + ": is a Git LFS pointer, not the vocabulary itself",
                    "run 'git lfs pull' in the model's repository");
  }
  RankedTokens out;
  Scratch<int64_t> ranks;
  const auto lines = static_cast<size_t>(std::count(text.begin(), text.end(), '\n')) + 1;
  out.tokens.reserve(lines);
  ranks.reserve(lines);
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
    if (space > 2 * kMaxTokenBytes) fail("the token is too long");
    if (!base64_decode(line.substr(0, space), out.tokens.emplace_back())) {
      fail(fmt::format("'{}' is not base64", printable(line.substr(0, space), 40)));
    }
    ranks.push_back(rank);
  }
  if (ranks.empty()) throw_bad_input(source + ": holds no tokens");
  if (!std::is_sorted(ranks.begin(), ranks.end())) {
    std::vector<size_t> order(ranks.size());
    std::iota(order.begin(), order.end(), size_t{0});
    std::stable_sort(order.begin(), order.end(),
                     [&](size_t a, size_t b) { return ranks[a] < ranks[b]; });
    std::vector<std::string> sorted;
    for (const size_t i : order) sorted.push_back(std::move(out.tokens[i]));
    out.tokens = std::move(sorted);
    std::sort(ranks.begin(), ranks.end());
  }
  out.first_rank = ranks[0];
  for (size_t i = 0; i < ranks.size(); ++i) {
    const int64_t expected = out.first_rank + static_cast<int64_t>(i);
    if (ranks[i] != expected) {
      throw_bad_input(fmt::format("{}: the rank {} is {}", source, std::min(ranks[i], expected),
                                  ranks[i] < expected ? "given twice" : "missing"));
    }
  }
  return out;
}

void write_tiktoken(const fs::path& path, const RankedTokens& tokens) {
  std::string text;
  int64_t rank = tokens.first_rank;
  for (const std::string& token : tokens.tokens) {
    text += fmt::format("{} {}\n", base64_encode(token), rank++);
  }
  write_file(path, text);
}

}  // namespace quern
