// The example of docs/tokenizer.md.
#include "support/support.h"
#include "text/load.h"
#include "text/parallel_encode.h"

namespace quern {
namespace {

std::string round_trip(const fs::path& model, std::string_view text) {
  const auto tokenizer = load_tokenizer(model);
  // Special tokens' names are plain text unless the policy allows them.
  const std::vector<TokenId> plain = tokenizer->encode(text);
  const std::vector<TokenId> parsed = tokenizer->encode(text, SpecialPolicy::all());
  ThreadPool threads;  // for large texts: the same ids with any number of threads
  if (encode_parallel(*tokenizer, text, threads) != plain) return "never";

  // Bytes that are not UTF-8: replaced, refused, or kept.
  const std::vector<TokenId> raw = tokenizer->encode_bytes("\xFF", BadText::Keep);
  if (tokenizer->decode_bytes(raw) != "\xFF") return "never";

  StreamDecoder stream(*tokenizer);  // never shows half a character
  std::string shown;
  for (const TokenId id : parsed) shown += stream.put(id);
  return shown + stream.flush();
}

TEST(Example, OfTheDocumentationRuns) {
  const fs::path vocabulary = test::shared("fixtures/tokenizer/qwen.tiktoken");
  QUERN_NEED(vocabulary);
  EXPECT_EQ(round_trip(vocabulary, "你好, world<|endoftext|>"), "你好, world<|endoftext|>");
}

}  // namespace
}  // namespace quern
