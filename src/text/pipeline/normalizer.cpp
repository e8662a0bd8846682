#include "text/pipeline/normalizer.h"

#include <utf8proc.h>

#include <algorithm>
#include <cstdlib>
#include <memory>

#include "core/error.h"
#include "formats/byte_level.h"
#include "text/pipeline/characters.h"

namespace quern {
namespace {

using Rule = NormalizerStep::Kind;
using namespace characters;  // NOLINT

bool is_ascii(std::string_view text) {
  return std::all_of(text.begin(), text.end(),
                     [](char c) { return static_cast<signed char>(c) >= 0; });
}

void compose(std::string_view text, int options, std::string& out) {
  if (is_ascii(text)) {
    out = text;
    return;
  }
  utf8proc_uint8_t* mapped = nullptr;
  const auto length = utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                                   static_cast<utf8proc_ssize_t>(text.size()), &mapped,
                                   static_cast<utf8proc_option_t>(UTF8PROC_STABLE | options));
  if (length < 0) throw Error(Kind::Failed, utf8proc_errmsg(length));
  const std::unique_ptr<utf8proc_uint8_t, void (*)(void*)> owner(mapped, std::free);
  out.assign(reinterpret_cast<const char*>(mapped), static_cast<size_t>(length));
}

template <class Keep>
void filter(std::string_view text, std::string& out, Keep&& keep) {
  out.clear();
  each(text, [&](char32_t point, size_t begin, size_t end) {
    if (keep(point)) out.append(text.substr(begin, end - begin));
  });
}

void lower(std::string_view text, std::string& out) {
  out.clear();
  each(text, [&](char32_t point, size_t, size_t) { append_lower(out, point); });
}

void strip(std::string_view text, bool left, bool right, std::string& out) {
  size_t begin = 0, end = text.size();
  while (left && begin < end) {
    const utf8::Point point = utf8::decode(text.substr(begin));
    if (!is_space(point.value)) break;
    begin += point.length;
  }
  while (right && end > begin) {
    size_t at = 0;
    if (!is_space(before(text, end, at))) break;
    end = at;
  }
  out = text.substr(begin, end - begin);
}

void bert(const NormalizerStep& step, std::string_view text, std::string& out) {
  std::string cleaned;
  each(text, [&](char32_t point, size_t begin, size_t end) {
    const bool plain_space = point == '\t' || point == '\n' || point == '\r';
    if (step.clean_text) {
      if (point == 0 || point == 0xFFFD || (!plain_space && is_control(point))) return;
      if (plain_space || is_space(point)) {
        cleaned += ' ';
        return;
      }
    }
    const bool apart = step.chinese && is_chinese(point);
    if (apart) cleaned += ' ';
    cleaned.append(text.substr(begin, end - begin));
    if (apart) cleaned += ' ';
  });
  if (step.accents) {
    std::string decomposed;
    compose(cleaned, UTF8PROC_DECOMPOSE, decomposed);
    filter(decomposed, cleaned, [](char32_t point) { return !is_nonspacing_mark(point); });
  }
  if (step.lowercase) {
    lower(cleaned, out);
  } else {
    out = std::move(cleaned);
  }
}

void nmt(std::string_view text, std::string& out) {
  out.clear();
  each(text, [&](char32_t point, size_t begin, size_t end) {
    const auto among = [&](char32_t first, char32_t last) {
      return point >= first && point <= last;
    };
    if (among(1, 8) || point == 0xB || among(0xE, 0x1F) || point == 0x7F || point == 0x8F ||
        point == 0x9F) {
      return;
    }
    const bool space = point == 9 || point == 0xA || point == 0xC || point == 0xD ||
                       point == 0x1680 || among(0x200B, 0x200F) || point == 0x2028 ||
                       point == 0x2029 || point == 0x2581 || point == 0xFEFF || point == 0xFFFD;
    if (space) {
      out += ' ';
    } else {
      out.append(text.substr(begin, end - begin));
    }
  });
}

// Hugging Face's way: of each grapheme of less than six bytes the shortest beginning that is known
// stands for all of it; else each of its characters is looked up.
void by_graphemes(const Charsmap& map, std::string_view text, std::string& out) {
  constexpr size_t kLong = 6;
  out.clear();
  const auto take = [&](std::string_view grapheme) {
    if (grapheme.size() < kLong) {
      if (const auto found = map.shortest(grapheme)) {
        out += found->text;
        return;
      }
    }
    each(grapheme, [&](char32_t, size_t begin, size_t end) {
      const std::string_view part = grapheme.substr(begin, end - begin);
      const auto found = map.shortest(part);
      out += found ? found->text : part;
    });
  };
  size_t start = 0;
  utf8proc_int32_t previous = 0, state = 0;
  each(text, [&](char32_t point, size_t begin, size_t) {
    const auto next = static_cast<utf8proc_int32_t>(point);
    if (begin > 0 && utf8proc_grapheme_break_stateful(previous, next, &state)) {
      take(text.substr(start, begin - start));
      start = begin;
    }
    previous = next;
  });
  if (start < text.size()) take(text.substr(start));
}

// SentencePiece's way: the longest beginning that is known; then its rules for spaces, which the
// mark stands for.
void sentencepiece(const NormalizerStep& step, const Charsmap& map, std::string_view text,
                   std::string& out) {
  constexpr std::string_view kMark = "\u2581";
  out.clear();
  bool marked = false, in_word = false;
  const auto take = [&](std::string_view part) {
    for (const char c : part) {
      if (c == ' ') {
        in_word = false;
        if (!step.remove_extra_spaces) out += kMark;
        continue;
      }
      if (!in_word) {
        in_word = true;
        if ((step.add_prefix && !marked) || step.remove_extra_spaces) {
          out += kMark;
          marked = true;
        }
      }
      out += c;
    }
  };
  while (!text.empty()) {
    if (const auto found = map.longest(text)) {
      take(found->text);
      text.remove_prefix(found->length);
      continue;
    }
    const size_t length = utf8::decode(text).length;
    take(text.substr(0, length));
    text.remove_prefix(length);
  }
}

}  // namespace

void replace_matches(const TextPattern& pattern, const Regex* regex, std::string_view content,
                     std::string_view text, std::string& out) {
  out.clear();
  size_t kept = 0;
  const auto take = [&](size_t begin, size_t end) {
    out.append(text.substr(kept, begin - kept));
    out += content;
    kept = end;
  };
  if (regex != nullptr) {
    regex->each_match(text, take);
  } else {
    for (size_t at = 0; (at = text.find(pattern.text, at)) != text.npos; at = kept) {
      take(at, at + pattern.text.size());
    }
  }
  out.append(text.substr(kept));
}

Normalizer::Normalizer(std::vector<NormalizerStep> steps, const std::string& source) {
  for (NormalizerStep& what : steps) {
    Step step;
    step.what = std::move(what);
    if (step.what.pattern.is_regex) step.regex.emplace(step.what.pattern.text, source);
    step.charsmap = Charsmap(step.what.charsmap, source);
    steps_.push_back(std::move(step));
  }
}

void Normalizer::apply(const Step& step, std::string_view text, std::string& out) {
  switch (step.what.kind) {
    case Rule::Nfc: {
      std::string storage;
      const std::string_view normal = unicode::to_nfc(text, storage);
      if (normal.data() == storage.data()) {
        out = std::move(storage);
      } else {
        out = normal;
      }
      return;
    }
    case Rule::Nfd:
      return compose(text, UTF8PROC_DECOMPOSE, out);
    case Rule::Nfkc:
      return compose(text, UTF8PROC_COMPOSE | UTF8PROC_COMPAT, out);
    case Rule::Nfkd:
      return compose(text, UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT, out);
    case Rule::Lowercase:
      return lower(text, out);
    case Rule::Strip:
      return strip(text, step.what.left, step.what.right, out);
    case Rule::StripAccents:
      return filter(text, out, [](char32_t point) { return !is_mark(point); });
    case Rule::Bert:
      return bert(step.what, text, out);
    case Rule::Nmt:
      return nmt(text, out);
    case Rule::Replace:
      return replace_matches(step.what.pattern, step.regex ? &*step.regex : nullptr,
                             step.what.content, text, out);
    case Rule::Prepend:
      out = text.empty() ? std::string() : step.what.content;
      out += text;
      return;
    case Rule::ByteLevel:
      out = bytes_to_byte_level(text);
      return;
    case Rule::Charsmap:
      return by_graphemes(step.charsmap, text, out);
    case Rule::SentencePiece:
      return sentencepiece(step.what, step.charsmap, text, out);
  }
}

std::string_view Normalizer::run(std::string_view text, std::string& storage) const {
  if (steps_.size() == 1 && steps_[0].what.kind == Rule::Nfc) {
    return unicode::to_nfc(text, storage);
  }
  std::string next;
  for (const Step& step : steps_) {
    apply(step, text, next);
    storage.swap(next);
    text = storage;
  }
  return text;
}

}  // namespace quern
