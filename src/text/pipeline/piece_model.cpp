#include "text/pipeline/piece_model.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <limits>
#include <unordered_map>

#include "core/error.h"
#include "text/pipeline/byte_trie.h"
#include "text/pipeline/characters.h"
#include "text/pipeline/symbol_bpe.h"

namespace quern {
namespace {

constexpr size_t kMaxTokenBytes = size_t{64} << 20;  // of all together
constexpr size_t kLongestToken = 4096;  // where tokens are looked for at every character

std::vector<std::pair<std::string_view, int32_t>> strings_of(const TokenModel& model) {
  std::vector<std::pair<std::string_view, int32_t>> strings;
  for (size_t id = 0; id < model.tokens.size(); ++id) {
    if (model.is_made(id)) strings.emplace_back(model.tokens[id], static_cast<int32_t>(id));
  }
  return strings;
}

[[noreturn]] void unknown(const std::string& source, std::string_view text) {
  throw_bad_input(fmt::format("{}: has no token for '{}', and none for what is unknown", source,
                              printable(text, 40)));
}

// The most probable way to cut a piece into tokens.
class Unigram : public PieceModel {
 public:
  Unigram(const TokenModel& model, const std::string& source)
      : model_(model), source_(source), trie_(strings_of(model)) {
    for (size_t id = 0; id < model.tokens.size(); ++id) {
      lowest_ = std::min(lowest_, model.scores[id]);
    }
    bytes_.fill(-1);
    for (size_t id = 0; id < model.tokens.size(); ++id) {
      const int byte = model.known[id] ? byte_of_name(model.tokens[id]) : -1;
      if (byte >= 0 && bytes_[size_t(byte)] < 0) bytes_[size_t(byte)] = static_cast<TokenId>(id);
    }
  }

  void encode(std::string_view piece, std::vector<TokenId>& out) const override {
    constexpr double kPenalty = 10;
    const double unknown_score = lowest_ - kPenalty;
    const auto no_id = static_cast<TokenId>(model_.unknown);
    best_.assign(piece.size() + 1, {});
    best_[0].score = 0;
    for (size_t at = 0; at < piece.size();) {
      const size_t character = utf8::decode(piece.substr(at)).length;
      const double here = best_[at].score;
      bool whole_character = false;
      trie_.each_prefix(piece, at, [&](size_t length, int32_t id) {
        improve(at + length, here + model_.scores[static_cast<size_t>(id)], at, id);
        whole_character |= length == character;
      });
      if (!whole_character) improve(at + character, here + unknown_score, at, no_id);
      at += character;
    }
    // The best path, read backwards; neighbouring unknown tokens become one.
    path_.clear();
    for (size_t end = piece.size(); end > 0;) {
      const Node& node = best_[end];
      const bool fuses = node.id == no_id && !path_.empty() && path_.back().id == no_id;
      if (fuses) {
        path_.back().begin = node.begin;
      } else {
        path_.push_back({node.begin, end, node.id});
      }
      end = node.begin;
    }
    for (auto it = path_.rbegin(); it != path_.rend(); ++it) {
      if (it->id != no_id) {
        out.push_back(it->id);
      } else {
        put_unknown(piece.substr(it->begin, it->end - it->begin), out);
      }
    }
  }

 private:
  struct Node {
    double score = -std::numeric_limits<double>::infinity();
    size_t begin = 0;
    TokenId id = -2;  // nothing ends here yet
  };
  struct Part {
    size_t begin, end;
    TokenId id;
  };

  static void improve(size_t at, double score, size_t begin, TokenId id) {
    Node& node = best_[at];
    if (node.id == -2 || score > node.score) node = {score, begin, id};
  }

  void put_unknown(std::string_view text, std::vector<TokenId>& out) const {
    // What is unknown may be the name of a token, as that of the unknown one.
    if (const auto whole = trie_.find(text); whole >= 0) {
      out.push_back(whole);
      return;
    }
    if (model_.byte_fallback) {
      const bool all = std::all_of(text.begin(), text.end(), [&](char c) {
        return bytes_[static_cast<unsigned char>(c)] >= 0;
      });
      if (all) {
        for (const char c : text) out.push_back(bytes_[static_cast<unsigned char>(c)]);
        return;
      }
    }
    if (model_.unknown < 0) unknown(source_, text);
    out.push_back(static_cast<TokenId>(model_.unknown));
  }

  const TokenModel& model_;
  std::string source_;
  ByteTrie trie_;
  double lowest_ = std::numeric_limits<double>::infinity();
  std::array<TokenId, 256> bytes_{};
  static thread_local std::vector<Node> best_;  // by bytes: the best way to end there
  static thread_local std::vector<Part> path_;
};

thread_local std::vector<Unigram::Node> Unigram::best_;
thread_local std::vector<Unigram::Part> Unigram::path_;

// Takes the longest token that a word begins with, then the longest prefixed one of the rest.
class WordPiece : public PieceModel {
 public:
  WordPiece(const TokenModel& model, const std::string& source) : model_(model), source_(source) {
    std::vector<std::pair<std::string_view, int32_t>> begins = strings_of(model), inner;
    for (const auto& [text, id] : begins) {
      if (text.starts_with(model.prefix)) inner.emplace_back(text.substr(model.prefix.size()), id);
    }
    begins_ = ByteTrie(std::move(begins));
    inner_ = ByteTrie(std::move(inner));
  }

  void encode(std::string_view piece, std::vector<TokenId>& out) const override {
    const auto characters = std::count_if(piece.begin(), piece.end(), [](char c) {
      return (static_cast<unsigned char>(c) & 0xC0) != 0x80;
    });
    const size_t before = out.size();
    size_t at = 0;
    while (at < piece.size() && characters <= model_.max_word) {
      size_t longest = 0;
      TokenId id = -1;
      (at == 0 ? begins_ : inner_).each_prefix(piece, at, [&](size_t length, int32_t found) {
        const bool whole = at + length == piece.size() ||
                           (static_cast<unsigned char>(piece[at + length]) & 0xC0) != 0x80;
        if (!whole) return;
        longest = length;
        id = found;
      });
      if (longest == 0) break;
      out.push_back(id);
      at += longest;
    }
    if (at == piece.size() && characters <= model_.max_word) return;
    out.resize(before);
    if (model_.unknown < 0) unknown(source_, piece);
    out.push_back(static_cast<TokenId>(model_.unknown));
  }

 private:
  const TokenModel& model_;
  std::string source_;
  ByteTrie begins_, inner_;
};

class WordLevel : public PieceModel {
 public:
  WordLevel(const TokenModel& model, const std::string& source) : model_(model), source_(source) {
    for (const auto& [text, id] : strings_of(model)) ids_.emplace(text, id);
  }
  void encode(std::string_view piece, std::vector<TokenId>& out) const override {
    const auto it = ids_.find(piece);
    if (it == ids_.end() && model_.unknown < 0) unknown(source_, piece);
    out.push_back(it == ids_.end() ? static_cast<TokenId>(model_.unknown) : it->second);
  }

 private:
  const TokenModel& model_;
  std::string source_;
  std::unordered_map<std::string_view, TokenId> ids_;
};

}  // namespace

int byte_of_name(std::string_view token) noexcept {
  if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return -1;
  int value = 0;
  for (const char c : token.substr(3, 2)) {
    const int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
    if (digit < 0) return -1;
    value = value << 4 | digit;
  }
  return value;
}

std::unique_ptr<PieceModel> make_piece_model(const TokenModel& model, const std::string& source) {
  size_t bytes = 0;
  size_t longest = 0;
  for (const std::string& token : model.tokens) {
    bytes += token.size();
    longest = std::max(longest, token.size());
  }
  if (bytes > kMaxTokenBytes) {
    throw Error(Kind::Unsupported, fmt::format("{}: its tokens have {} bytes together, at most {} "
                                               "are supported",
                                               source, bytes, kMaxTokenBytes));
  }
  if (longest > kLongestToken && model.kind != TokenModel::Kind::Bpe) {
    throw Error(Kind::Unsupported,
                fmt::format("{}: has a token of {} bytes, at most {} are supported", source,
                            longest, kLongestToken));
  }
  switch (model.kind) {
    case TokenModel::Kind::Unigram:
      return std::make_unique<Unigram>(model, source);
    case TokenModel::Kind::WordPiece:
      return std::make_unique<WordPiece>(model, source);
    case TokenModel::Kind::WordLevel:
      return std::make_unique<WordLevel>(model, source);
    case TokenModel::Kind::Bpe:
      break;
  }
  return std::make_unique<SymbolBpe>(model, source);
}

}  // namespace quern
