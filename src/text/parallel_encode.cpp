#include "text/parallel_encode.h"

#include <algorithm>

#include "core/utf8.h"
#include "text/unicode.h"

namespace quern {

// A line feed joins with nothing when text is put in NFC. Of the pattern's parts those that may
// hold one end with it or with more white space, and those that take letters or numbers hold none:
// a piece ends here whatever stands around, and what comes before is cut the same at the end of a
// text.
size_t safe_cut(std::string_view text, size_t from) {
  for (size_t at = from - 1; (at = text.find('\n', at)) != text.npos;) {
    if (++at == text.size()) break;
    const utf8::Point point = utf8::decode(text.substr(at));
    if (!point.valid) continue;
    const unicode::Class kind = unicode::class_of(point.value);
    if (kind == unicode::Class::Letter || kind == unicode::Class::Number) return at;
  }
  return text.size();
}

std::vector<TokenId> encode_parallel(const Tokenizer& tokenizer, std::string_view text,
                                     ThreadPool& threads, size_t chunk_bytes) {
  std::vector<TokenId> out;
  const bool cuttable = tokenizer.cuts_at_lines();
  if (!cuttable || threads.size() == 1 || text.size() <= chunk_bytes) {
    tokenizer.encode(text, out);
    return out;
  }
  std::vector<std::string_view> chunks;
  for (size_t begin = 0; begin < text.size();) {
    const size_t from = begin + chunk_bytes;
    const size_t end = from < text.size() ? safe_cut(text, from) : text.size();
    chunks.push_back(text.substr(begin, end - begin));
    begin = end;
  }
  std::vector<std::vector<TokenId>> ids(chunks.size());
  threads.parallel_for(static_cast<int64_t>(chunks.size()), 1, [&](int64_t from, int64_t to, int) {
    for (auto i = static_cast<size_t>(from); i < static_cast<size_t>(to); ++i) {
      tokenizer.encode(chunks[i], ids[i]);
    }
  });
  size_t total = 0;
  for (const auto& list : ids) total += list.size();
  out.reserve(total);
  for (auto& list : ids) {
    out.insert(out.end(), list.begin(), list.end());
    std::vector<TokenId>().swap(list);
  }
  return out;
}

}  // namespace quern
