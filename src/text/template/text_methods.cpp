// Methods of str.
#include <fmt/format.h>

#include <algorithm>

#include "core/utf8.h"
#include "text/template/builtins.h"
#include "text/template/interpreter.h"
#include "text/template/methods.h"
#include "text/template/python_text.h"

namespace quern::chat_template {
namespace {

using R = Interpreter&;
using V = const Value&;
using A = const Arguments&;

const MarkedText& text_of(const Value& self) { return *self.as_text(); }

Value number(size_t value) { return static_cast<int64_t>(value); }

Value stripped(R run, V self, A given, Side side, const char* name) {
  const ArgumentReader args(name, given, {"chars"});
  const MarkedText& text = text_of(self);
  run.spend_bytes(text.size());
  const MarkedText* chars = args.text(0);
  if (chars == nullptr && args[0] != nullptr && !args[0]->is_none()) {
    args.need_text(0);
  }
  if (chars != nullptr) run.spend_bytes(chars->size());
  const std::string_view set = chars != nullptr ? chars->bytes() : std::string_view();
  const Range kept = strip(text.bytes(), side, chars != nullptr ? &set : nullptr);
  return text.sub(kept.begin, kept.end);
}

// Splits at runs of white space.
std::vector<MarkedText> split_space(const MarkedText& text, int64_t most, bool from_right) {
  std::vector<MarkedText> parts;
  const std::string_view bytes = text.bytes();
  auto [begin, end] = strip(bytes, Side::Both);
  while (begin < end) {
    if (most-- == 0) {  // what is left keeps the white space at the other end
      parts.push_back(from_right ? text.sub(0, end) : text.sub(begin, text.size()));
      break;
    }
    if (from_right) {
      size_t at = end;
      while (at > begin) {
        size_t last = at - 1;
        while (last > begin && (static_cast<unsigned char>(bytes[last]) & 0xC0) == 0x80) --last;
        if (is_space(utf8::decode(bytes.substr(last)).value)) break;
        at = last;
      }
      parts.push_back(text.sub(at, end));
      end = begin + strip(bytes.substr(begin, at - begin), Side::Right).end;
    } else {
      size_t at = begin;
      while (at < end) {
        const utf8::Point point = utf8::decode(bytes.substr(at));
        if (is_space(point.value)) break;
        at += point.length;
      }
      parts.push_back(text.sub(begin, at));
      begin = at + strip(bytes.substr(at, end - at), Side::Left).begin;
    }
  }
  if (from_right) std::reverse(parts.begin(), parts.end());
  return parts;
}

// string_view::rfind compares the part anew at each place.
void spend_backward(R run, const MarkedText& text, const MarkedText& part) {
  constexpr size_t kPartBytesOfAStep = 64;
  run.spend(text.size() / 8 * (part.size() / kPartBytesOfAStep));
}

Value split(R run, V self, A given, bool from_right) {
  const ArgumentReader args(from_right ? "rsplit" : "split", given, {"sep", "maxsplit"});
  const MarkedText& text = text_of(self);
  run.spend_bytes(8 * text.size());
  int64_t most = args.integer(1, -1);
  std::vector<Value> out;
  if (args[0] == nullptr || args[0]->is_none()) {
    for (MarkedText& part : split_space(text, most, from_right)) {
      run.spend(1);
      out.emplace_back(std::move(part));
    }
    return run.make_list(std::move(out));
  }
  const MarkedText& separator = args.need_text(0);
  if (separator.empty()) fail_value("empty separator");
  const std::string_view bytes = text.bytes();
  if (from_right) {
    spend_backward(run, text, separator);
    size_t end = text.size();
    while (most-- != 0) {
      if (end < separator.size()) break;
      const size_t at = bytes.substr(0, end).rfind(separator.bytes());
      if (at == bytes.npos) break;
      out.emplace_back(text.sub(at + separator.size(), end));
      end = at;
    }
    out.emplace_back(text.sub(0, end));
    std::reverse(out.begin(), out.end());
  } else {
    size_t begin = 0;
    while (most-- != 0) {
      const size_t at = chat_template::find(bytes, separator.bytes(), begin);
      if (at == bytes.npos) break;
      out.emplace_back(text.sub(begin, at));
      begin = at + separator.size();
    }
    out.emplace_back(text.sub(begin, text.size()));
  }
  return run.make_list(std::move(out));
}

Value splitlines(R run, V self, A given) {
  const ArgumentReader args("splitlines", given, {"keepends"});
  const MarkedText& text = text_of(self);
  run.spend_bytes(text.size());
  std::vector<Value> out;
  const auto ends_line = [](char32_t c) {
    return (c >= 0x0A && c <= 0x0D) || (c >= 0x1C && c <= 0x1E) || c == 0x85 || c == 0x2028 ||
           c == 0x2029;
  };
  size_t begin = 0;
  for (size_t at = 0; at < text.size();) {
    const utf8::Point point = utf8::decode(text.bytes().substr(at));
    const size_t line_end = at;
    at += point.length;
    if (!ends_line(point.value)) continue;
    if (point.value == '\r' && at < text.size() && text.bytes()[at] == '\n') ++at;
    out.emplace_back(text.sub(begin, args.flag(0, false) ? at : line_end));
    begin = at;
  }
  if (begin < text.size()) out.emplace_back(text.sub(begin, text.size()));
  return run.make_list(std::move(out));
}

Value partition(R run, V self, A given, bool from_right) {
  const ArgumentReader args("partition", given, {"sep"}, 1);
  const MarkedText& text = text_of(self);
  run.spend_bytes(text.size());
  const MarkedText& separator = args.need_text(0);
  if (separator.empty()) fail_value("empty separator");
  if (from_right) spend_backward(run, text, separator);
  const size_t at = from_right ? text.bytes().rfind(separator.bytes())
                               : chat_template::find(text.bytes(), separator.bytes());
  std::vector<Value> parts = {MarkedText(), MarkedText(), MarkedText()};
  if (at == std::string_view::npos) {
    parts[from_right ? 2 : 0] = text;
  } else {
    parts[0] = text.sub(0, at);
    parts[1] = text.sub(at, at + separator.size());
    parts[2] = text.sub(at + separator.size(), text.size());
  }
  return run.make_list(std::move(parts), Sequence::Kind::Tuple);
}

// The stretch of a text that start and end name, in code points.
Range stretch(const MarkedText& text, const ArgumentReader& args, size_t first) {
  const auto size = static_cast<int64_t>(length(text.bytes()));
  const auto bound = [&](size_t index, int64_t fallback) {
    if (args[index] == nullptr || args[index]->is_none()) return fallback;
    const int64_t given = args.integer(index, 0);
    return given < 0 ? std::max<int64_t>(given + size, 0) : given;
  };
  const int64_t begin = bound(first, 0), end = std::min(bound(first + 1, size), size);
  if (begin > end) return {text.size() + 1, text.size() + 1};
  return {offset_of(text.bytes(), static_cast<size_t>(begin)),
          offset_of(text.bytes(), static_cast<size_t>(end))};
}

Value affix(R run, V self, A given, bool at_end) {
  const ArgumentReader args(at_end ? "endswith" : "startswith", given, {"prefix", "start", "end"},
                            1);
  const MarkedText& text = text_of(self);
  run.spend_bytes(text.size() / 8 + (args[1] != nullptr ? text.size() : 0));
  const Range within = args[1] != nullptr ? stretch(text, args, 1) : Range{0, text.size()};
  if (within.begin > text.size()) return false;
  const std::string_view bytes = text.bytes().substr(within.begin, within.end - within.begin);
  const auto matches = [&](const Value& value) {
    const MarkedText* part = value.as_text();
    if (part == nullptr) {
      Interpreter::need_defined(value);
      fail_type(fmt::format("{} first arg must be str or a tuple of str, not {}",
                            at_end ? "endswith" : "startswith", value.type_name()));
    }
    run.spend_bytes(std::min(part->size(), bytes.size()));
    return at_end ? bytes.ends_with(part->bytes()) : bytes.starts_with(part->bytes());
  };
  const Sequence* several = args[0]->as_sequence();
  if (several == nullptr || several->kind != Sequence::Kind::Tuple) return matches(*args[0]);
  run.spend(several->items.size());
  return std::any_of(several->items.begin(), several->items.end(), matches);
}

Value find(R run, V self, A given, bool from_right, bool must) {
  const ArgumentReader args("find", given, {"sub", "start", "end"}, 1);
  const MarkedText& text = text_of(self);
  run.spend_bytes(2 * text.size());
  const MarkedText& part = args.need_text(0);
  const Range within = stretch(text, args, 1);
  size_t at = std::string_view::npos;
  if (within.begin <= text.size()) {
    const auto bytes = text.bytes().substr(within.begin, within.end - within.begin);
    if (from_right) spend_backward(run, text, part);
    at = from_right ? bytes.rfind(part.bytes()) : chat_template::find(bytes, part.bytes());
  }
  if (at != std::string_view::npos) {
    return number(length(text.bytes().substr(0, within.begin + at)));
  }
  if (must) fail_value("substring not found");
  return int64_t{-1};
}

Value count(R run, V self, A given) {
  const ArgumentReader args("count", given, {"sub", "start", "end"}, 1);
  const MarkedText& text = text_of(self);
  run.spend_bytes(2 * text.size());
  const MarkedText& part = args.need_text(0);
  const Range within = stretch(text, args, 1);
  if (within.begin > text.size()) return int64_t{0};
  const auto bytes = text.bytes().substr(within.begin, within.end - within.begin);
  if (part.empty()) return number(length(bytes) + 1);
  int64_t found = 0;
  for (size_t at = 0; (at = chat_template::find(bytes, part.bytes(), at)) != bytes.npos;
       at += part.size())
    ++found;
  return found;
}

MarkedText padding(R run, const MarkedText& fill, size_t times) {
  size_t bytes = 0;
  run.spend_bytes(__builtin_mul_overflow(times, fill.size(), &bytes) ? SIZE_MAX : bytes);
  MarkedText out;
  for (size_t i = 0; i < times; ++i) out.append(fill);
  return out;
}

Value justify(R run, V self, A given, int side) {
  const ArgumentReader args("justify", given, {"width", "fillchar"}, 1);
  const MarkedText& text = text_of(self);
  const MarkedText fill = args[1] != nullptr ? args.need_text(1) : MarkedText(" ", kLiteral);
  if (length(fill.bytes()) != 1) {
    fail_type("The fill character must be exactly one character long");
  }
  const auto size = static_cast<int64_t>(length(text.bytes()));
  const int64_t width = args.integer(0, 0);
  if (width <= size) return self;
  const auto missing = static_cast<size_t>(width - size);
  // Python's center puts the odd one left where both are odd.
  const size_t left = side < 0   ? 0
                      : side > 0 ? missing
                                 : missing / 2 + (missing & static_cast<size_t>(width) & 1);
  MarkedText out = padding(run, fill, left);
  out.append(text);
  out.append(padding(run, fill, missing - left));
  return run.make_text(std::move(out));
}

Value zfill(R run, V self, A given) {
  const ArgumentReader args("zfill", given, {"width"}, 1);
  const MarkedText& text = text_of(self);
  const auto size = static_cast<int64_t>(length(text.bytes()));
  const int64_t width = args.integer(0, 0);
  if (width <= size) return self;
  const size_t sign = text.bytes().starts_with('-') || text.bytes().starts_with('+') ? 1 : 0;
  MarkedText out = text.sub(0, sign);
  out.append(padding(run, MarkedText("0", kLiteral), static_cast<size_t>(width - size)));
  out.append(text, sign, text.size());
  return run.make_text(std::move(out));
}

Value join(R run, V self, A given) {
  const ArgumentReader args("join", given, {"iterable"}, 1);
  MarkedText out;
  const SequencePointer items = run.iterate(*args[0]);
  for (size_t i = 0; i < items->items.size(); ++i) {
    const MarkedText* text = items->items[i].as_text();
    if (text == nullptr) {
      fail_type(fmt::format("sequence item {}: expected str instance, {} found", i,
                            items->items[i].type_name()));
    }
    run.spend_bytes(text->size() + text_of(self).size());
    run.spend(1);
    if (i > 0) out.append(text_of(self));
    out.append(*text);
  }
  return run.make_text(std::move(out));
}

Value replaced(R run, V self, A given) {
  const ArgumentReader args("replace", given, {"old", "new", "count"}, 2);
  const MarkedText& text = text_of(self);
  const MarkedText &from = args.need_text(0), &to = args.need_text(1);
  run.spend_bytes(text.size());
  run.spend_bytes((text.size() / std::max<size_t>(from.size(), 1) + 1) * to.size());
  return run.make_text(replace(text, from.bytes(), to, args.integer(2, -1)));
}

Value removed(R run, V self, A given, bool suffix) {
  const ArgumentReader args(suffix ? "removesuffix" : "removeprefix", given, {"affix"}, 1);
  const MarkedText& text = text_of(self);
  const MarkedText& part = args.need_text(0);
  run.spend_bytes(text.size());
  if (suffix ? text.bytes().ends_with(part.bytes()) : text.bytes().starts_with(part.bytes())) {
    return suffix ? text.sub(0, text.size() - part.size()) : text.sub(part.size(), text.size());
  }
  return self;
}

template <MarkedText (*change)(const MarkedText&)>
Value changed(R run, V self, A given) {
  const ArgumentReader none("method", given, {});
  return run.make_text(change(text_of(self)));
}
template <bool (*test)(std::string_view)>
Value tested(R run, V self, A given) {
  const ArgumentReader none("method", given, {});
  run.spend_bytes(text_of(self).size());
  return test(text_of(self).bytes());
}

bool is_ascii(std::string_view text) {
  return std::all_of(text.begin(), text.end(),
                     [](char c) { return static_cast<signed char>(c) >= 0; });
}
bool is_identifier(std::string_view text) {
  if (text.empty() || (text[0] >= '0' && text[0] <= '9')) return false;
  return std::all_of(text.begin(), text.end(), [](char c) {
    return c == '_' || std::isalnum(static_cast<unsigned char>(c)) ||
           static_cast<signed char>(c) < 0;
  });
}
bool is_title(std::string_view text) {
  const MarkedText marked(text, kLiteral);
  return title(marked).bytes() == text &&
         (is_alpha(text) || upper(marked).bytes() != lower(marked).bytes());
}

}  // namespace

const MethodTable& text_methods() {
  static const MethodTable kMethods = {
      {"capitalize", changed<capitalize>},
      {"casefold", changed<lower>},
      {"center", [](R run, V self, A given) { return justify(run, self, given, 0); }},
      {"count", count},
      {"endswith", [](R run, V self, A given) { return affix(run, self, given, true); }},
      {"find", [](R run, V self, A given) { return find(run, self, given, false, false); }},
      {"format", [](R run, V self,
                    A given) { return run.make_text(format_braces(run, text_of(self), given)); }},
      {"format_map",
       [](R run, V self, A given) {
         const ArgumentReader args("format_map", given, {"mapping"}, 1);
         const Dict* dict = args[0]->as_dict();
         if (dict == nullptr) fail_type("format_map() takes a mapping");
         Arguments named;
         for (const auto& [key, value] : dict->members) {
           const MarkedText* name = key.as_text();
           if (name != nullptr) named.named.emplace_back(std::string(name->bytes()), value);
         }
         run.spend(named.named.size());
         return run.make_text(format_braces(run, text_of(self), named));
       }},
      {"index", [](R run, V self, A given) { return find(run, self, given, false, true); }},
      {"isalnum", tested<is_alnum>},
      {"isalpha", tested<is_alpha>},
      {"isascii", tested<is_ascii>},
      {"isdecimal", tested<is_decimal>},
      {"isdigit", tested<is_digit>},
      {"isidentifier", tested<is_identifier>},
      {"islower", tested<is_lower>},
      {"isnumeric", tested<is_digit>},
      {"isspace", tested<is_all_space>},
      {"istitle", tested<is_title>},
      {"isupper", tested<is_upper>},
      {"join", join},
      {"ljust", [](R run, V self, A given) { return justify(run, self, given, -1); }},
      {"lower", changed<lower>},
      {"lstrip",
       [](R run, V self, A given) { return stripped(run, self, given, Side::Left, "lstrip"); }},
      {"partition", [](R run, V self, A given) { return partition(run, self, given, false); }},
      {"removeprefix", [](R run, V self, A given) { return removed(run, self, given, false); }},
      {"removesuffix", [](R run, V self, A given) { return removed(run, self, given, true); }},
      {"replace", replaced},
      {"rfind", [](R run, V self, A given) { return find(run, self, given, true, false); }},
      {"rindex", [](R run, V self, A given) { return find(run, self, given, true, true); }},
      {"rjust", [](R run, V self, A given) { return justify(run, self, given, 1); }},
      {"rpartition", [](R run, V self, A given) { return partition(run, self, given, true); }},
      {"rsplit", [](R run, V self, A given) { return split(run, self, given, true); }},
      {"rstrip",
       [](R run, V self, A given) { return stripped(run, self, given, Side::Right, "rstrip"); }},
      {"split", [](R run, V self, A given) { return split(run, self, given, false); }},
      {"splitlines", splitlines},
      {"startswith", [](R run, V self, A given) { return affix(run, self, given, false); }},
      {"strip",
       [](R run, V self, A given) { return stripped(run, self, given, Side::Both, "strip"); }},
      {"swapcase", changed<swapcase>},
      {"title", changed<title>},
      {"upper", changed<upper>},
      {"zfill", zfill},
  };
  return kMethods;
}

}  // namespace quern::chat_template
