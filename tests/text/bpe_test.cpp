// Every fast way of merging gives what the definition gives, on vocabularies made to be awkward.
#include "text/bpe.h"

#include <set>

#include "core/rng.h"
#include "core/utf8.h"
#include "formats/tiktoken.h"
#include "support/support.h"
#include "text/merge_lanes.h"

namespace quern {
namespace {

using Ids = std::vector<TokenId>;
using Strings = std::vector<std::string>;

std::string random_text(Rng& rng, const Strings& alphabet, size_t characters) {
  std::string out;
  while (characters-- > 0) out += alphabet[rng.below(alphabet.size())];
  return out;
}

// All bytes, then tokens joined of two earlier ones or cut out of text at any byte, so that there
// are parts of characters, tokens over their edges, and tokens that no merges reach.
Strings random_vocabulary(Rng& rng, const Strings& alphabet, size_t count) {
  Strings tokens;
  for (int byte = 0; byte < 256; ++byte) tokens.emplace_back(1, static_cast<char>(byte));
  std::set<std::string> seen(tokens.begin(), tokens.end());
  Strings pool;
  for (const std::string& character : alphabet) {
    for (const char byte : character) pool.emplace_back(1, byte);
  }
  for (size_t tries = 0; tries < 20 * count && tokens.size() < 256 + count; ++tries) {
    std::string token;
    if (rng.below(4) != 0) {
      token = pool[rng.below(pool.size())] + pool[rng.below(pool.size())];
    } else {
      const std::string text = random_text(rng, alphabet, 4);
      const size_t from = rng.below(text.size() - 1);
      token = text.substr(from, 2 + rng.below(text.size() - from - 1));
    }
    if (token.size() > 40 || !seen.insert(token).second) continue;
    tokens.push_back(token);
    pool.push_back(token);
  }
  return tokens;
}

Ids by_definition(const Bpe& bpe, std::string_view piece) {
  Ids out;
  bpe.encode_piece_reference(piece, out);
  return out;
}

void expect_same(const Bpe& bpe, const std::string& piece) {
  const Ids expected = by_definition(bpe, piece);
  Ids out = {-7};  // encode_piece appends
  bpe.encode_piece(piece, out);
  ASSERT_EQ(out[0], -7);
  out.erase(out.begin());
  ASSERT_EQ(out, expected) << printable(piece);
  if (piece.size() > Bpe::kShortPiece) return;
  TokenId ids[Bpe::kShortPiece];
  const size_t count = bpe.encode_short(piece, ids);
  ASSERT_EQ(Ids(ids, ids + count), expected) << printable(piece);
}

// Many pieces at once, some of them the same, by every variant that this machine has.
void expect_same_side_by_side(const Bpe& bpe, const Strings& pieces) {
  for (const MergeManyVariant& variant : merge_many_variants()) {
    std::vector<Bpe::Job> jobs;
    std::vector<Ids> room;
    room.reserve(pieces.size());
    for (const std::string& piece : pieces) {
      room.emplace_back(piece.size(), -7);
      jobs.push_back({piece, Bpe::hash_of(piece), room.back().data(), 0});
    }
    variant.run(bpe, jobs);
    for (size_t i = 0; i < jobs.size(); ++i) {
      ASSERT_EQ(Ids(jobs[i].out, jobs[i].out + jobs[i].count), by_definition(bpe, pieces[i]))
          << variant.name << ": " << printable(pieces[i]);
    }
  }
}

const Strings kAlphabets[] = {{"a", "b"},           {"a", "b", "c", " "},
                              {"中", "国", "丰"},   {"中", "国", "a", "é", "è"},
                              {"é", "è", "ê", "x"}, {"😀", "😁", "中", "é", "a"},
                              {"ก", "ั", "ข"}};

TEST(Bpe, RandomVocabulariesWithRanksMergeByTheDefinition) {
  Rng rng(11);
  for (int round = 0; round < 150; ++round) {
    const Strings& alphabet = kAlphabets[static_cast<size_t>(round) % std::size(kAlphabets)];
    const Bpe bpe = Bpe::from_ranks(random_vocabulary(rng, alphabet, 4 + rng.below(120)));
    Strings short_pieces;
    for (int piece = 0; piece < 40; ++piece) {
      const size_t most = piece % 8 == 0 ? 300 : 30;
      const std::string text = random_text(rng, alphabet, 1 + rng.below(most));
      ASSERT_NO_FATAL_FAILURE(expect_same(bpe, text));
      if (text.size() <= Bpe::kShortPiece) short_pieces.push_back(text);
    }
    ASSERT_NO_FATAL_FAILURE(expect_same_side_by_side(bpe, short_pieces));
  }
}

// Merges in any order, several for one token, some that never come to pass.
TEST(Bpe, RandomMergeListsMergeByTheDefinition) {
  Rng rng(12);
  for (int round = 0; round < 150; ++round) {
    const Strings& alphabet = kAlphabets[static_cast<size_t>(round) % std::size(kAlphabets)];
    const Strings tokens = random_vocabulary(rng, alphabet, 4 + rng.below(80));
    std::vector<Bpe::Merge> merges;
    for (size_t id = 256; id < tokens.size(); ++id) {
      for (size_t cut = 1; cut < tokens[id].size(); ++cut) {
        const auto at = [&](const std::string& bytes) {
          return std::find(tokens.begin(), tokens.end(), bytes) - tokens.begin();
        };
        const auto left = at(tokens[id].substr(0, cut)), right = at(tokens[id].substr(cut));
        const auto none = static_cast<ptrdiff_t>(tokens.size());
        if (left == none || right == none || rng.below(3) == 0) continue;
        merges.push_back(
            {static_cast<TokenId>(left), static_cast<TokenId>(right), static_cast<TokenId>(id)});
      }
    }
    for (size_t i = merges.size(); i > 1 && round % 2 == 0; --i) {
      std::swap(merges[i - 1], merges[rng.below(i)]);
    }
    const Bpe bpe = Bpe::from_merges(tokens, merges, round % 3 == 0);
    Strings short_pieces;
    for (int piece = 0; piece < 40; ++piece) {
      const size_t most = piece % 8 == 0 ? 300 : 30;
      const std::string text = random_text(rng, alphabet, 1 + rng.below(most));
      ASSERT_NO_FATAL_FAILURE(expect_same(bpe, text));
      if (text.size() <= Bpe::kShortPiece) short_pieces.push_back(text);
    }
    ASSERT_NO_FATAL_FAILURE(expect_same_side_by_side(bpe, short_pieces));
  }
}

// Tokens longer than a window of merging: the windows have to grow, and the work has to end.
TEST(Bpe, TokensOfThousandsOfBytesAreFound) {
  Rng rng(13);
  Strings tokens;
  for (int byte = 0; byte < 256; ++byte) tokens.emplace_back(1, static_cast<char>(byte));
  for (std::string run = "aa"; run.size() <= 4096; run += run) tokens.push_back(run);
  tokens.push_back("ba");
  for (std::string run = "baa"; run.size() <= 3000; run = run + run + "a") tokens.push_back(run);
  tokens.push_back(tokens.back() + tokens.back());
  const Bpe bpe = Bpe::from_ranks(tokens);
  for (int round = 0; round < 12; ++round) {
    std::string piece;
    while (piece.size() < 9000) {
      piece += std::string(1 + rng.below(3000), 'a') + (rng.below(2) != 0 ? "b" : "");
    }
    ASSERT_NO_FATAL_FAILURE(expect_same(bpe, piece));
  }
}

TEST(Bpe, QwensVocabularyMergesByTheDefinition) {
  const fs::path file = test::shared("fixtures/tokenizer/qwen.tiktoken");
  QUERN_NEED(file);
  const Strings tokens = read_tiktoken(file).tokens;
  const Bpe bpe = Bpe::from_ranks(tokens);
  Rng rng(14);
  const auto point_below = [&](char32_t first, char32_t count) {
    std::string out;
    utf8::append(out, first + static_cast<char32_t>(rng.below(count)));
    return out;
  };
  Strings side_by_side;
  for (int round = 0; round < 30'000; ++round) {
    std::string piece;
    const uint64_t kind = rng.below(6);
    for (size_t n = 1 + rng.below(round % 50 == 0 ? 400 : 24); n > 0; --n) {
      switch (kind) {
        case 0:
          piece += static_cast<char>('a' + rng.below(26));
          break;
        case 1:
          piece += point_below(0x4E00, 0x5200);
          break;
        case 2:
          piece += point_below(0xA1, 0x2F00);
          break;
        case 3:
          piece += point_below(0x1F300, 0x700);
          break;
        case 4: {  // tokens side by side, whole characters only
          const std::string& token = tokens[rng.below(tokens.size())];
          if (utf8::is_valid(token)) piece += token;
          break;
        }
        default:
          piece += rng.below(2) != 0 ? point_below(0x3040, 0xC0) : point_below(0xAC00, 0x2BA4);
      }
    }
    if (piece.empty()) continue;
    ASSERT_NO_FATAL_FAILURE(expect_same(bpe, piece));
    if (piece.size() <= Bpe::kShortPiece) side_by_side.push_back(piece);
    if (side_by_side.size() == 300) {
      ASSERT_NO_FATAL_FAILURE(expect_same_side_by_side(bpe, side_by_side));
      side_by_side.clear();
    }
  }
}

// The time of one piece grows with its size and no faster: the work is counted, not the seconds.
TEST(Bpe, TheWorkOfAPieceIsLinearInItsSize) {
  const fs::path file = test::shared("fixtures/tokenizer/qwen.tiktoken");
  QUERN_NEED(file);
  const Bpe bpe = Bpe::from_ranks(read_tiktoken(file).tokens);
  Rng rng(15);
  std::string letters, ideographs, mixed, words;
  while (letters.size() < (1u << 20)) letters += static_cast<char>('a' + rng.below(26));
  while (ideographs.size() < (1u << 20)) {
    utf8::append(ideographs, static_cast<char32_t>(0x4E00 + rng.below(0x5200)));
  }
  while (mixed.size() < (1u << 20)) {
    utf8::append(mixed, static_cast<char32_t>(0x80 + rng.below(0xD700)));
  }
  while (words.size() < (1u << 20)) words += rng.below(2) != 0 ? "ing" : "supercalifragilistic";
  for (const std::string& text :
       {std::string(1 << 20, 'a'), std::string(1 << 20, ' '), std::string(1 << 20, '\n'),
        std::string(1 << 20, '!'), letters, ideographs, mixed, words}) {
    for (size_t size = 1 << 10; size <= 1 << 20; size *= 32) {
      size_t work = 0;
      std::vector<TokenId> ids;
      size_t end = size;
      while (end < text.size() && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) ++end;
      bpe.encode_piece(std::string_view(text).substr(0, end), ids, &work);
      EXPECT_LE(work, 2 * size + 4096) << printable(text.substr(0, 20)) << " " << size;
    }
  }
}

// Every token's bytes, the longest and the unreachable ones included, and every pair beside it.
TEST(Bpe, EveryTokenOfQwensIsItself) {
  const fs::path file = test::shared("fixtures/tokenizer/qwen.tiktoken");
  QUERN_NEED(file);
  const Strings tokens = read_tiktoken(file).tokens;
  const Bpe bpe = Bpe::from_ranks(tokens);
  for (size_t id = 0; id < tokens.size(); ++id) {
    ASSERT_EQ(bpe.find(tokens[id]), static_cast<TokenId>(id));
    if (!utf8::is_valid(tokens[id])) continue;
    Ids out;
    bpe.encode_piece(tokens[id], out);
    ASSERT_EQ(out, Ids{static_cast<TokenId>(id)});
  }
}

}  // namespace
}  // namespace quern
