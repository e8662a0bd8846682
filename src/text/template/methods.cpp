// Methods of texts, lists and dicts, and the functions that every template finds.
#include <fmt/format.h>

#include <algorithm>
#include <unordered_map>
#include <unordered_set>

#include "core/utf8.h"
#include "text/template/builtins.h"
#include "text/template/interpreter.h"
#include "text/template/python_text.h"

namespace quern::chat_template {
namespace {

using Method = Value (*)(Interpreter&, const Value& self, const Arguments&);
using Table = std::unordered_map<std::string_view, Method>;
using R = Interpreter&;
using V = const Value&;
using A = const Arguments&;

const MarkedText& text_of(const Value& self) { return *self.as_text(); }

Value number(size_t value) { return static_cast<int64_t>(value); }

MarkedText need_text(const ArgumentReader& args, size_t index, const char* method) {
  if (const MarkedText* text = args.text(index)) return *text;
  if (args[index] != nullptr) Interpreter::need_defined(*args[index]);
  fail_type(fmt::format("{}: an argument is {}, expected str", method,
                        args[index] != nullptr ? args[index]->type_name() : "missing"));
}

Value stripped(R run, V self, A given, Side side, const char* name) {
  const ArgumentReader args(name, given, {"chars"});
  const MarkedText& text = text_of(self);
  run.spend_bytes(text.size());
  const MarkedText* chars = args.text(0);
  if (chars == nullptr && args[0] != nullptr && !args[0]->is_none()) {
    need_text(args, 0, name);
  }
  const std::string_view set = chars != nullptr ? chars->bytes() : std::string_view();
  const Range kept = strip(text.bytes(), side, chars != nullptr ? &set : nullptr);
  return text.sub(kept.begin, kept.end);
}

// By white space: runs of it part words.
std::vector<MarkedText> split_space(const MarkedText& text, int64_t most, bool from_right) {
  std::vector<MarkedText> parts;
  size_t begin = 0, end = text.size();
  const std::string_view bytes = text.bytes();
  for (;;) {
    const Range rest = strip(bytes.substr(begin, end - begin), Side::Both);
    if (from_right) {
      end = begin + strip(bytes.substr(begin, end - begin), Side::Right).end;
      if (rest.begin == rest.end) break;
      if (most-- == 0) {
        parts.push_back(
            text.sub(begin + strip(bytes.substr(begin, end - begin), Side::Left).begin, end));
        break;
      }
      size_t at = end;
      while (at > begin) {
        size_t last = at - 1;
        while (last > begin && (static_cast<unsigned char>(bytes[last]) & 0xC0) == 0x80) --last;
        if (is_space(utf8::decode(bytes.substr(last)).value)) break;
        at = last;
      }
      parts.push_back(text.sub(at, end));
      end = at;
    } else {
      begin += rest.begin;
      if (begin >= end || rest.begin == rest.end) break;
      if (most-- == 0) {
        parts.push_back(text.sub(begin, end));
        break;
      }
      size_t at = begin;
      while (at < end) {
        const utf8::Point point = utf8::decode(bytes.substr(at));
        if (is_space(point.value)) break;
        at += point.length;
      }
      parts.push_back(text.sub(begin, at));
      begin = at;
    }
  }
  if (from_right) std::reverse(parts.begin(), parts.end());
  return parts;
}

Value split(R run, V self, A given, bool from_right) {
  const ArgumentReader args(from_right ? "rsplit" : "split", given, {"sep", "maxsplit"});
  const MarkedText& text = text_of(self);
  run.spend_bytes(8 * text.size());
  int64_t most = args.integer(1, -1);
  std::vector<Value> out;
  if (args[0] == nullptr || args[0]->is_none()) {
    // Stripping looks at both ends again for each word: their lengths are bounded by the steps.
    for (MarkedText& part : split_space(text, most, from_right)) {
      run.spend(1);
      out.emplace_back(std::move(part));
    }
    return run.make_list(std::move(out));
  }
  const MarkedText separator = need_text(args, 0, "split");
  if (separator.empty()) fail_value("empty separator");
  const std::string_view bytes = text.bytes();
  if (from_right) {
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
      const size_t at = bytes.find(separator.bytes(), begin);
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
  const MarkedText separator = need_text(args, 0, "partition");
  if (separator.empty()) fail_value("empty separator");
  const size_t at =
      from_right ? text.bytes().rfind(separator.bytes()) : text.bytes().find(separator.bytes());
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
  const MarkedText part = need_text(args, 0, "find");
  const Range within = stretch(text, args, 1);
  size_t at = std::string_view::npos;
  if (within.begin <= text.size()) {
    const auto bytes = text.bytes().substr(within.begin, within.end - within.begin);
    at = from_right ? bytes.rfind(part.bytes()) : bytes.find(part.bytes());
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
  const MarkedText part = need_text(args, 0, "count");
  const Range within = stretch(text, args, 1);
  if (within.begin > text.size()) return int64_t{0};
  const auto bytes = text.bytes().substr(within.begin, within.end - within.begin);
  if (part.empty()) return number(length(bytes) + 1);
  int64_t found = 0;
  for (size_t at = 0; (at = bytes.find(part.bytes(), at)) != bytes.npos; at += part.size()) ++found;
  return found;
}

MarkedText padding(R run, const MarkedText& fill, size_t times) {
  run.spend_bytes(times * fill.size());
  MarkedText out;
  for (size_t i = 0; i < times; ++i) out.append(fill);
  return out;
}

Value justify(R run, V self, A given, int side) {
  const ArgumentReader args("justify", given, {"width", "fillchar"}, 1);
  const MarkedText& text = text_of(self);
  const MarkedText fill =
      args[1] != nullptr ? need_text(args, 1, "justify") : MarkedText(" ", kLiteral);
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
  const MarkedText from = need_text(args, 0, "replace"), to = need_text(args, 1, "replace");
  run.spend_bytes(text.size());
  run.spend_bytes((text.size() / std::max<size_t>(from.size(), 1) + 1) * to.size());
  return run.make_text(replace(text, from.bytes(), to, args.integer(2, -1)));
}

Value removed(R run, V self, A given, bool suffix) {
  const ArgumentReader args(suffix ? "removesuffix" : "removeprefix", given, {"affix"}, 1);
  const MarkedText& text = text_of(self);
  const MarkedText part = need_text(args, 0, "removeprefix");
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

const Table& text_methods() {
  static const Table kMethods = {
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

// ---- Lists and dicts

Value list_count(R run, V self, A given) {
  const ArgumentReader args("count", given, {"value"}, 1);
  const auto& items = self.as_sequence()->items;
  run.spend(self.weight());
  return number(static_cast<size_t>(std::count_if(
      items.begin(), items.end(), [&](const Value& item) { return equal(item, *args[0]); })));
}
Value list_index(R run, V self, A given) {
  const ArgumentReader args("index", given, {"value"}, 1);
  const auto& items = self.as_sequence()->items;
  run.spend(self.weight());
  for (size_t i = 0; i < items.size(); ++i) {
    if (equal(items[i], *args[0])) return number(i);
  }
  fail_value("the value is not in list");
}

Value dict_view(R run, V self, Sequence::Kind kind) {
  std::vector<Value> items;
  for (const auto& [key, value] : self.as_dict()->members) {
    if (kind == Sequence::Kind::Items) {
      items.push_back(run.make_list({key, value}, Sequence::Kind::Tuple));
    } else {
      items.push_back(kind == Sequence::Kind::Keys ? key : value);
    }
  }
  return run.make_list(std::move(items), kind);
}
Value dict_get(R run, V self, A given) {
  const ArgumentReader args("get", given, {"key", "default"}, 1);
  if (!hash_of(*args[0])) fail_type(fmt::format("unhashable type: '{}'", args[0]->type_name()));
  run.spend(args[0]->as_text() != nullptr ? 1 : self.weight());
  if (const Value* found = self.as_dict()->find(*args[0])) return *found;
  return args[1] != nullptr ? *args[1] : Value(None{});
}

const Table& dict_methods() {
  static const Table kMethods = {
      {"copy", [](R, V self, A) { return self; }},
      {"get", dict_get},
      {"items", [](R run, V self, A) { return dict_view(run, self, Sequence::Kind::Items); }},
      {"keys", [](R run, V self, A) { return dict_view(run, self, Sequence::Kind::Keys); }},
      {"values", [](R run, V self, A) { return dict_view(run, self, Sequence::Kind::Values); }},
  };
  return kMethods;
}
const Table& list_methods() {
  static const Table kMethods = {
      {"copy", [](R, V self, A) { return self; }}, {"count", list_count}, {"index", list_index}};
  return kMethods;
}

const std::unordered_set<std::string_view>& changing(bool dict) {
  static const std::unordered_set<std::string_view> kDict = {"clear", "pop", "popitem",
                                                             "setdefault", "update"};
  static const std::unordered_set<std::string_view> kList = {
      "append", "clear", "extend", "insert", "pop", "remove", "reverse", "sort"};
  return dict ? kDict : kList;
}

// Attributes that every Python object has; the sandbox hides them.
bool inner_attribute(std::string_view name) {
  if (!name.starts_with("__") || !name.ends_with("__")) return false;
  static const std::unordered_set<std::string_view> kInner = {"__class__",
                                                              "__doc__",
                                                              "__init__",
                                                              "__new__",
                                                              "__dict__",
                                                              "__module__",
                                                              "__mro__",
                                                              "__subclasses__",
                                                              "__getattribute__",
                                                              "__setattr__",
                                                              "__delattr__",
                                                              "__eq__",
                                                              "__ne__",
                                                              "__lt__",
                                                              "__le__",
                                                              "__gt__",
                                                              "__ge__",
                                                              "__hash__",
                                                              "__repr__",
                                                              "__str__",
                                                              "__format__",
                                                              "__reduce__",
                                                              "__reduce_ex__",
                                                              "__sizeof__",
                                                              "__dir__",
                                                              "__init_subclass__",
                                                              "__subclasshook__",
                                                              "__getstate__",
                                                              "__len__",
                                                              "__iter__",
                                                              "__contains__",
                                                              "__getitem__",
                                                              "__setitem__",
                                                              "__delitem__",
                                                              "__add__",
                                                              "__mul__",
                                                              "__rmul__",
                                                              "__call__",
                                                              "__globals__",
                                                              "__code__",
                                                              "__closure__",
                                                              "__builtins__",
                                                              "__func__",
                                                              "__self__",
                                                              "__name__",
                                                              "__qualname__",
                                                              "__class_getitem__",
                                                              "__getnewargs__",
                                                              "__mod__",
                                                              "__or__",
                                                              "__reversed__"};
  return kInner.contains(name);
}

// ---- Functions

FunctionPointer function(std::string name,
                         std::function<Value(Interpreter&, const Arguments&)> call) {
  auto made = std::make_shared<Function>();
  made->name = std::move(name);
  made->call = std::move(call);
  return made;
}

constexpr int64_t kMaxRange = 100'000;  // as Jinja's sandbox has it

Value range(R run, A given) {
  const auto integer = [&](size_t index) {
    const auto whole = given.positional[index].as_integer();
    if (!whole) {
      Interpreter::need_defined(given.positional[index]);
      fail_type(fmt::format("'{}' object cannot be interpreted as an integer",
                            given.positional[index].type_name()));
    }
    return *whole;
  };
  const size_t count = given.positional.size();
  if (count < 1 || count > 3 || !given.named.empty()) {
    fail_type(fmt::format("range expected 1 to 3 arguments, got {}", count));
  }
  const int64_t begin = count > 1 ? integer(0) : 0, end = integer(count > 1 ? 1 : 0);
  const int64_t step = count > 2 ? integer(2) : 1;
  if (step == 0) fail_value("range() arg 3 must not be zero");
  auto list = std::make_shared<Sequence>();
  list->kind = Sequence::Kind::Range;
  list->range[0] = begin;
  list->range[1] = end;
  list->range[2] = step;
  for (int64_t at = begin; step > 0 ? at < end : at > end;) {
    if (static_cast<int64_t>(list->items.size()) >= kMaxRange) {
      throw TemplateError(TemplateError::Cause::Other,
                          fmt::format("Range too big. The sandbox blocks ranges larger than "
                                      "MAX_RANGE ({}).",
                                      kMaxRange),
                          "OverflowError");
    }
    list->items.emplace_back(at);
    if (__builtin_add_overflow(at, step, &at)) break;
  }
  run.spend(list->items.size());
  return SequencePointer(std::move(list));
}

Value make_dict(R run, A given) {
  auto dict = std::make_shared<Dict>();
  if (given.positional.size() > 1) {
    fail_type(fmt::format("dict expected at most 1 argument, got {}", given.positional.size()));
  }
  if (!given.positional.empty()) {
    if (const Dict* other = given.positional[0].as_dict()) {
      *dict = *other;
      run.spend(other->members.size());
    } else {
      for (const auto all = run.iterate(given.positional[0]); const Value& pair : all->items) {
        const SequencePointer items = run.iterate(pair);
        if (items->items.size() != 2) {
          fail_value("dictionary update sequence element has not two items");
        }
        if (!hash_of(items->items[0])) {
          fail_type(fmt::format("unhashable type: '{}'", items->items[0].type_name()));
        }
        dict->set(items->items[0], items->items[1]);
        run.spend(1);
      }
    }
  }
  for (const auto& [name, value] : given.named) dict->set(Value::text(name), value);
  run.value_depth(dict->depth);
  return DictPointer(std::move(dict));
}

Value make_namespace(R run, A given) {
  const Value dict = make_dict(run, given);
  auto space = std::make_shared<Namespace>();
  for (const auto& [key, value] : dict.as_dict()->members) {
    const MarkedText* name = key.as_text();
    if (name == nullptr) continue;
    if (name->bytes().starts_with('_')) {
      fail(TemplateError::Cause::Security,
           fmt::format("Chat templates cannot store underscore-prefixed attributes on a namespace, "
                       "but got '{}'. Please rename the attribute.",
                       printable(name->bytes(), 40)));
    }
    space->members.emplace_back(std::string(name->bytes()), value);
  }
  space->depth = run.value_depth(dict.depth());
  run.keep(space);
  return NamespacePointer(std::move(space));
}

Value raise_exception(R run, A given) {
  const ArgumentReader args("raise_exception", given, {"message"}, 1);
  fail(TemplateError::Cause::Raise, std::string(run.str(*args[0]).bytes()));
}

Value strftime_now(R run, A given) {
  const ArgumentReader args("strftime_now", given, {"format"}, 1);
  const MarkedText format = need_text(args, 0, "strftime_now");
  if (format.size() > 1000) fail_value("strftime_now: the format has more than 1000 bytes");
  // A leading mark tells an empty result from a buffer that is too small.
  const std::string marked = "." + std::string(format.bytes());
  std::vector<char> buffer(16384);
  const size_t size = std::strftime(buffer.data(), buffer.size(), marked.c_str(), &run.now());
  if (size == 0) fail_value("strftime_now: the result is too long");
  return run.make_text({std::string_view(buffer.data() + 1, size - 1), kLiteral});
}

// Gives one of its items after the other.
Value make_cycler(R, A given) {
  if (given.positional.empty()) {
    throw TemplateError(TemplateError::Cause::Other, "at least one item has to be provided",
                        "RuntimeError");
  }
  struct State {
    std::vector<Value> items;
    size_t at = 0;
  };
  const auto state = std::make_shared<State>(State{given.positional});
  auto made = std::make_shared<Function>();
  made->name = "cycler";
  made->type = "Cycler";
  made->attribute = [state](R, std::string_view name) -> std::optional<Value> {
    if (name == "current") return state->items[state->at];
    if (name == "next") {
      return function("next", [state](R, A) {
        const size_t now = state->at;
        state->at = (now + 1) % state->items.size();
        return state->items[now];
      });
    }
    if (name == "reset") {
      return function("reset", [state](R, A) {
        state->at = 0;
        return Value(None{});
      });
    }
    return std::nullopt;
  };
  return FunctionPointer(std::move(made));
}

// Nothing at its first call, the separator at later ones.
Value make_joiner(R, A given) {
  const ArgumentReader args("joiner", given, {"sep"});
  const auto used = std::make_shared<bool>(false);
  const Value separator = args[0] != nullptr ? *args[0] : Value::text(", ");
  return function("joiner", [used, separator](R, A) {
    return std::exchange(*used, true) ? separator : Value(MarkedText());
  });
}

}  // namespace

std::optional<Value> find_method(const Value& self, std::string_view name, bool& unsafe) {
  const Table* table = nullptr;
  if (self.as_text() != nullptr) {
    table = &text_methods();
  } else if (self.as_dict() != nullptr) {
    table = &dict_methods();
    unsafe = changing(true).contains(name);
  } else if (const Sequence* list = self.as_sequence()) {
    if (list->grouped && (name == "grouper" || name == "list")) {
      return list->items[name == "list" ? 1 : 0];
    }
    if (list->kind <= Sequence::Kind::Range) table = &list_methods();
    unsafe = list->kind == Sequence::Kind::List && changing(false).contains(name);
  } else if (self.as<double>() != nullptr && name == "is_integer") {
    const double number = *self.as<double>();
    return function("is_integer", [number](R, A) {
      return number == static_cast<double>(static_cast<int64_t>(number));
    });
  }
  unsafe = unsafe || inner_attribute(name);
  if (unsafe || table == nullptr) return std::nullopt;
  const auto found = table->find(name);
  if (found == table->end()) return std::nullopt;
  return function(std::string(name), [self, method = found->second](R run, A given) {
    run.spend(1);
    return method(run, self, given);
  });
}

std::optional<Value> find_global(std::string_view name) {
  using Call = Value (*)(R, A);
  static const std::unordered_map<std::string_view, Call> kFunctions = {
      {"range", range},
      {"dict", make_dict},
      {"namespace", make_namespace},
      {"raise_exception", raise_exception},
      {"strftime_now", strftime_now},
      {"cycler", make_cycler},
      {"joiner", make_joiner},
  };
  const auto found = kFunctions.find(name);
  if (found == kFunctions.end()) return std::nullopt;
  return function(std::string(name), found->second);
}

}  // namespace quern::chat_template
