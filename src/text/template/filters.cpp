#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <unordered_map>
#include <unordered_set>

#include "core/utf8.h"
#include "text/template/builtins.h"
#include "text/template/interpreter.h"
#include "text/template/python_text.h"

namespace quern::chat_template {
namespace {

using Filter = Value (*)(Interpreter&, const Value&, const Arguments&);
using Cause = TemplateError::Cause;

Value generator(Interpreter& run, std::vector<Value> items) {
  return run.make_list(std::move(items), Sequence::Kind::Generator);
}

MarkedText constant(std::string_view text) { return {text, kLiteral}; }

// "a.b.0": members and items, one after the other; `fallback` stands for each that is missing.
Value attribute_of(Interpreter& run, Value value, std::string_view path,
                   const Value* fallback = nullptr) {
  for (;;) {
    const size_t dot = path.find('.');
    const std::string_view part = path.substr(0, dot);
    const bool number =
        !part.empty() && part.size() < 10 &&
        std::all_of(part.begin(), part.end(), [](char c) { return c >= '0' && c <= '9'; });
    value =
        run.item(value, number ? Value(int64_t{std::stoi(std::string(part))}) : Value::text(part));
    if (value.is_undefined() && fallback != nullptr && !fallback->is_none()) value = *fallback;
    if (dot == path.npos) return value;
    path.remove_prefix(dot + 1);
  }
}

Value attribute_of(Interpreter& run, const Value& value, const Value& attribute,
                   const Value* fallback = nullptr) {
  if (const MarkedText* path = attribute.as_text()) {
    return attribute_of(run, value, path->bytes(), fallback);
  }
  const Value found = run.item(value, attribute);
  return found.is_undefined() && fallback != nullptr && !fallback->is_none() ? *fallback : found;
}

// Case does not tell texts apart, unless asked for.
Value folded(const Value& value, bool case_sensitive) {
  const MarkedText* text = value.as_text();
  return text != nullptr && !case_sensitive ? Value(lower(*text)) : value;
}

// ---- Texts

Value do_upper(Interpreter& run, const Value& value, const Arguments& given) {
  const ArgumentReader none("upper", given, {});
  return run.make_text(upper(run.str(value)));
}
Value do_lower(Interpreter& run, const Value& value, const Arguments& given) {
  const ArgumentReader none("lower", given, {});
  return run.make_text(lower(run.str(value)));
}
Value do_title(Interpreter& run, const Value& value, const Arguments& given) {
  const ArgumentReader none("title", given, {});
  return run.make_text(jinja_title(run.str(value)));
}
Value do_capitalize(Interpreter& run, const Value& value, const Arguments& given) {
  const ArgumentReader none("capitalize", given, {});
  return run.make_text(capitalize(run.str(value)));
}
Value do_string(Interpreter& run, const Value& value, const Arguments& given) {
  const ArgumentReader none("string", given, {});
  return run.str(value);
}
Value do_trim(Interpreter& run, const Value& value, const Arguments& given) {
  const ArgumentReader args("trim", given, {"chars"});
  const MarkedText text = run.str(value);
  const MarkedText* chars = args.text(0);
  const std::string_view set = chars != nullptr ? chars->bytes() : std::string_view();
  const Range kept = strip(text.bytes(), Side::Both, chars != nullptr ? &set : nullptr);
  return text.sub(kept.begin, kept.end);
}
Value do_replace(Interpreter& run, const Value& value, const Arguments& given) {
  const ArgumentReader args("replace", given, {"old", "new", "count"}, 2);
  const MarkedText text = run.str(value), from = run.str(*args[0]), to = run.str(*args[1]);
  run.spend_bytes(text.size() + (from.empty() ? text.size() * (to.size() + 1) : 0));
  if (!from.empty()) run.spend_bytes(text.size() / from.size() * to.size());
  return run.make_text(replace(text, from.bytes(), to, args.integer(2, -1)));
}
Value do_center(Interpreter& run, const Value& value, const Arguments& given) {
  const ArgumentReader args("center", given, {"width"});
  const Value text = run.str(value);
  bool unsafe = false;
  return run.call(*find_method(text, "center", unsafe), {{args.integer(0, 80)}, {}});
}
std::vector<MarkedText> split_lines(const MarkedText& text) {
  std::vector<MarkedText> lines;
  size_t begin = 0;
  while (begin < text.size()) {
    const size_t end = std::min(text.bytes().find_first_of("\r\n", begin), text.size());
    lines.push_back(text.sub(begin, end));
    begin = end + 1;
    if (end < text.size() && text.bytes()[end] == '\r' && begin < text.size() &&
        text.bytes()[begin] == '\n') {
      ++begin;
    }
  }
  return lines;
}
Value do_indent(Interpreter& run, const Value& value, const Arguments& given) {
  const ArgumentReader args("indent", given, {"width", "first", "blank"});
  MarkedText indent;
  if (args[0] != nullptr && args[0]->as_text() != nullptr) {
    indent = *args[0]->as_text();
  } else {
    const int64_t width = std::max<int64_t>(args.integer(0, 4), 0);
    run.spend_bytes(static_cast<size_t>(width));
    indent = constant(std::string(static_cast<size_t>(width), ' '));
  }
  MarkedText text = run.str(value);
  text.append("\n", kLiteral);
  const auto lines = split_lines(text);
  run.spend_bytes(text.size() + lines.size() * indent.size());
  MarkedText out;
  if (args.flag(1, false)) out.append(indent);
  for (size_t i = 0; i < lines.size(); ++i) {
    if (i > 0) {
      out.append("\n", kLiteral);
      if (args.flag(2, false) || !lines[i].empty()) out.append(indent);
    }
    out.append(lines[i]);
  }
  return run.make_text(std::move(out));
}
Value do_truncate(Interpreter& run, const Value& value, const Arguments& given) {
  const ArgumentReader args("truncate", given, {"length", "killwords", "end", "leeway"});
  const MarkedText text = run.str(value);
  const MarkedText end = args.text(2) != nullptr ? *args.text(2) : constant("...");
  const int64_t most = args.integer(0, 255), leeway = args.integer(3, 5);
  const auto size = static_cast<int64_t>(length(text.bytes()));
  const auto end_size = static_cast<int64_t>(length(end.bytes()));
  if (size <= most + leeway) return text;
  if (most < end_size) fail_value(fmt::format("expected length >= {}, got {}", end_size, most));
  size_t kept = offset_of(text.bytes(), static_cast<size_t>(most - end_size));
  if (!args.flag(1, false)) {
    if (const size_t space = text.bytes().substr(0, kept).rfind(' '); space != std::string::npos) {
      kept = space;
    }
  }
  MarkedText out = text.sub(0, kept);
  out.append(end);
  return run.make_text(std::move(out));
}
Value do_striptags(Interpreter& run, const Value& value, const Arguments& given) {
  const ArgumentReader none("striptags", given, {});
  const MarkedText text = run.str(value);
  MarkedText out;
  for (size_t at = 0; at < text.size();) {
    const size_t open = std::min(text.bytes().find('<', at), text.size());
    out.append(text, at, open);
    const bool comment = text.bytes().substr(open).starts_with("<!--");
    const size_t close = text.bytes().find(comment ? "-->" : ">", open);
    if (close == std::string::npos) {
      out.append(text, open, text.size());
      break;
    }
    at = close + (comment ? 3 : 1);
  }
  // White space becomes one space.
  MarkedText joined;
  for (size_t at = 0; at < out.size();) {
    const utf8::Point point = utf8::decode(out.bytes().substr(at));
    if (is_space(point.value)) {
      if (!joined.empty() && !joined.bytes().ends_with(' ')) joined.append(" ", kLiteral);
    } else {
      joined.append(out, at, at + point.length);
    }
    at += point.length;
  }
  if (joined.bytes().ends_with(' ')) joined.truncate(joined.size() - 1);
  constexpr std::pair<std::string_view, char> kEntities[] = {{"&amp;", '&'}, {"&lt;", '<'},
                                                             {"&gt;", '>'},  {"&#39;", '\''},
                                                             {"&#34;", '"'}, {"&quot;", '"'}};
  MarkedText unescaped;
  for (size_t at = 0; at < joined.size();) {
    const std::string_view rest = joined.bytes().substr(at);
    const auto* known = std::find_if(std::begin(kEntities), std::end(kEntities),
                                     [&](const auto& row) { return rest.starts_with(row.first); });
    if (known == std::end(kEntities)) {
      unescaped.append(joined, at, at + 1);
      ++at;
    } else {
      unescaped.append({&known->second, 1}, joined.origin_at(at));
      at += known->first.size();
    }
  }
  return run.make_text(std::move(unescaped));
}
Value do_escape(Interpreter& run, const Value& value, const Arguments& given) {
  const ArgumentReader none("escape", given, {});
  const MarkedText text = run.str(value);
  MarkedText out;
  for (size_t at = 0; at < text.size(); ++at) {
    const char c = text.bytes()[at];
    const std::string_view entity = c == '&'    ? "&amp;"
                                    : c == '<'  ? "&lt;"
                                    : c == '>'  ? "&gt;"
                                    : c == '\'' ? "&#39;"
                                    : c == '"'  ? "&#34;"
                                                : std::string_view();
    if (entity.empty()) {
      out.append(text, at, at + 1);
    } else {
      out.append(entity, text.origin_at(at));
    }
  }
  return run.make_text(std::move(out));
}
void quote_url(const MarkedText& text, MarkedText& out) {
  for (size_t at = 0; at < text.size(); ++at) {
    const char c = text.bytes()[at];
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                       std::string_view("_.-~/").find(c) != std::string_view::npos;
    if (plain) {
      out.append(text, at, at + 1);
    } else {
      out.append(fmt::format("%{:02X}", static_cast<unsigned char>(c)), kForeign);
    }
  }
}
Value do_urlencode(Interpreter& run, const Value& value, const Arguments& given) {
  const ArgumentReader none("urlencode", given, {});
  MarkedText out;
  const Dict* dict = value.as_dict();
  if (dict == nullptr) {
    quote_url(run.str(value), out);
  } else {
    for (const auto& [key, member] : dict->members) {
      if (!out.empty()) out.append("&", kForeign);
      quote_url(run.str(key), out);
      out.append("=", kForeign);
      quote_url(run.str(member), out);
    }
  }
  return run.make_text(std::move(out));
}
Value do_wordcount(Interpreter& run, const Value& value, const Arguments& given) {
  const ArgumentReader none("wordcount", given, {});
  const MarkedText text = run.str(value);
  int64_t words = 0;
  bool within = false;
  for (std::string_view rest = text.bytes(); !rest.empty();) {
    const utf8::Point point = utf8::decode(rest);
    const bool letter = point.value == '_' || is_alnum(rest.substr(0, point.length));
    words += letter && !within ? 1 : 0;
    within = letter;
    rest.remove_prefix(point.length);
  }
  return words;
}
Value do_format(Interpreter& run, const Value& value, const Arguments& given) {
  if (!given.positional.empty() && !given.named.empty()) {
    throw TemplateError(Cause::Other,
                        "can't handle positional and keyword arguments at the same "
                        "time",
                        "FilterArgumentError");
  }
  Value values = run.make_list(given.positional, Sequence::Kind::Tuple);
  if (!given.named.empty()) {
    auto dict = std::make_shared<Dict>();
    for (const auto& [name, one] : given.named) dict->set(Value::text(name), one);
    values = DictPointer(std::move(dict));
  }
  return run.make_text(format_percent(run, run.str(value), values));
}
Value do_tojson(Interpreter& run, const Value& value, const Arguments& given) {
  const ArgumentReader args("tojson", given, {"ensure_ascii", "indent", "separators", "sort_keys"});
  JsonStyle style{.ascii = args.flag(0, false), .sort_keys = args.flag(3, false)};
  if (args[1] != nullptr && !args[1]->is_none()) {
    if (const MarkedText* indent = args[1]->as_text()) {
      style.indent = std::string(indent->bytes());
    } else {
      const int64_t width = std::max<int64_t>(args.integer(1, 0), 0);
      if (width > 1000) fail(Cause::Limit, "it indents JSON by more than 1000 spaces");
      style.indent = std::string(static_cast<size_t>(width), ' ');
    }
    style.item_separator = ",";
  }
  if (args[2] != nullptr && !args[2]->is_none()) {
    const Sequence* pair = args[2]->as_sequence();
    if (pair == nullptr || pair->items.size() != 2 || pair->items[0].as_text() == nullptr ||
        pair->items[1].as_text() == nullptr) {
      fail_type("tojson: separators are not a pair of strings");
    }
    style.item_separator = std::string(pair->items[0].as_text()->bytes());
    style.key_separator = std::string(pair->items[1].as_text()->bytes());
  }
  return run.make_text(to_json(run, value, style));
}

// ---- Numbers

Value do_abs(Interpreter&, const Value& value, const Arguments& given) {
  const ArgumentReader none("abs", given, {});
  Interpreter::need_defined(value);
  if (const auto whole = value.as_integer()) return *whole < 0 ? -*whole : *whole;
  if (const auto* number = value.as<double>()) return std::fabs(*number);
  fail_type(fmt::format("bad operand type for abs(): '{}'", value.type_name()));
}

std::optional<int64_t> read_integer(std::string_view text, int base) {
  const Range kept = strip(text, Side::Both);
  std::string digits(text.substr(kept.begin, kept.end - kept.begin));
  if (digits.find("__") != digits.npos || digits.starts_with('_') || digits.ends_with('_')) {
    return std::nullopt;
  }
  std::erase(digits, '_');
  const size_t sign = digits.starts_with('-') || digits.starts_with('+') ? 1 : 0;
  if (digits.size() > sign + 2 && digits[sign] == '0') {
    const char prefix = static_cast<char>(digits[sign + 1] | 0x20);
    if ((base == 16 && prefix == 'x') || (base == 8 && prefix == 'o') ||
        (base == 2 && prefix == 'b')) {
      digits.erase(sign, 2);
    }
  }
  if (digits.size() == sign || digits.find_first_of(" \t\n") != digits.npos) return std::nullopt;
  if (!std::isalnum(static_cast<unsigned char>(digits[sign]))) return std::nullopt;
  char* end = nullptr;
  errno = 0;
  const long long value = std::strtoll(digits.c_str(), &end, base);
  if (*end != '\0' || errno != 0) return std::nullopt;
  return value;
}

std::optional<double> read_float(std::string_view text) {
  const Range kept = strip(text, Side::Both);
  std::string digits(text.substr(kept.begin, kept.end - kept.begin));
  const std::string plain = [&] {
    std::string lowered = digits;
    std::transform(lowered.begin(), lowered.end(), lowered.begin(),
                   [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    return lowered;
  }();
  if (plain.find_first_of("xp(") != plain.npos || plain.empty()) return std::nullopt;
  char* end = nullptr;
  const double value = std::strtod(digits.c_str(), &end);
  if (*end != '\0') return std::nullopt;
  return value;
}

Value truncated(double value, const Value& fallback) {
  if (!std::isfinite(value) || std::fabs(value) >= 9.2e18) return fallback;
  return static_cast<int64_t>(value);
}

Value do_int(Interpreter&, const Value& value, const Arguments& given) {
  const ArgumentReader args("int", given, {"default", "base"});
  const Value fallback = args[0] != nullptr ? *args[0] : Value(int64_t{0});
  if (const auto whole = value.as_integer()) return *whole;
  if (value.as<BigInteger>() != nullptr) return value;
  if (const auto* number = value.as<double>()) return truncated(*number, fallback);
  if (const MarkedText* text = value.as_text()) {
    if (const auto whole = read_integer(text->bytes(), static_cast<int>(args.integer(1, 10)))) {
      return *whole;
    }
    if (const auto number = read_float(text->bytes())) return truncated(*number, fallback);
  }
  Interpreter::need_defined(value);
  return fallback;
}

Value do_float(Interpreter&, const Value& value, const Arguments& given) {
  const ArgumentReader args("float", given, {"default"});
  if (value.is_number()) return value.as_double();
  if (const MarkedText* text = value.as_text()) {
    if (const auto number = read_float(text->bytes())) return *number;
  }
  Interpreter::need_defined(value);
  return args[0] != nullptr ? *args[0] : Value(0.0);
}

Value do_round(Interpreter&, const Value& value, const Arguments& given) {
  const ArgumentReader args("round", given, {"precision", "method"});
  Interpreter::need_defined(value);
  const std::string_view method = args.text(1) != nullptr ? args.text(1)->bytes() : "common";
  const int64_t precision = std::clamp<int64_t>(args.integer(0, 0), -400, 400);
  if (method != "common" && method != "ceil" && method != "floor") {
    throw TemplateError(Cause::Other, "method must be common, ceil or floor",
                        "FilterArgumentError");
  }
  if (!value.is_number()) {
    fail_type(fmt::format("type {} doesn't define __round__ method", value.type_name()));
  }
  if (method == "common") {
    if (value.as<double>() == nullptr && precision >= 0) return value;
    if (precision >= 0) {
      return std::strtod(fmt::format("{:.{}f}", value.as_double(), precision).c_str(), nullptr);
    }
    const double scale = std::pow(10.0, static_cast<double>(-precision));
    const double rounded = std::nearbyint(value.as_double() / scale) * scale;
    return value.as<double>() != nullptr ? Value(rounded) : truncated(rounded, value);
  }
  const double scale = std::pow(10.0, static_cast<double>(precision));
  const double scaled = value.as_double() * scale;
  return (method == "ceil" ? std::ceil(scaled) : std::floor(scaled)) / scale;
}

// ---- Sequences

Value do_length(Interpreter& run, const Value& value, const Arguments& given) {
  const ArgumentReader none("length", given, {});
  return static_cast<int64_t>(run.length(value));
}
Value do_first(Interpreter& run, const Value& value, const Arguments& given) {
  const ArgumentReader none("first", given, {});
  const SequencePointer items = run.iterate(value);
  if (items->items.empty()) {
    return Undefined{std::make_shared<const std::string>("No first item, sequence was empty.")};
  }
  return items->items.front();
}
Value do_last(Interpreter& run, const Value& value, const Arguments& given) {
  const ArgumentReader none("last", given, {});
  if (const Sequence* list = value.as_sequence();
      list != nullptr && list->kind == Sequence::Kind::Generator) {
    fail_type("'generator' object is not reversible");
  }
  const SequencePointer items = run.iterate(value);
  if (items->items.empty()) {
    return Undefined{std::make_shared<const std::string>("No last item, sequence was empty.")};
  }
  return items->items.back();
}
Value do_list(Interpreter& run, const Value& value, const Arguments& given) {
  const ArgumentReader none("list", given, {});
  return run.make_list(run.iterate(value)->items);
}
Value do_reverse(Interpreter& run, const Value& value, const Arguments& given) {
  const ArgumentReader none("reverse", given, {});
  if (const MarkedText* text = value.as_text()) return run.make_text(reverse(*text));
  std::vector<Value> items = run.iterate(value)->items;
  std::reverse(items.begin(), items.end());
  return generator(run, std::move(items));
}
Value do_join(Interpreter& run, const Value& value, const Arguments& given) {
  const ArgumentReader args("join", given, {"d", "attribute"});
  const MarkedText separator = args[0] != nullptr ? run.str(*args[0]) : MarkedText();
  MarkedText out;
  bool first = true;
  for (const auto all = run.iterate(value); const Value& item : all->items) {
    if (!first) out.append(separator);
    first = false;
    run.spend(item.weight());
    append_str(out, args[1] != nullptr ? attribute_of(run, item, *args[1]) : item);
    run.spend(1);
    run.spend_bytes(separator.size());
    if (out.size() > (size_t{1} << 20)) run.spend_bytes(out.size() / 64);
  }
  return run.make_text(std::move(out));
}
Value do_items(Interpreter& run, const Value& value, const Arguments& given) {
  const ArgumentReader none("items", given, {});
  if (value.is_undefined()) return generator(run, {});
  const Dict* dict = value.as_dict();
  if (dict == nullptr) fail_type("Can only get item pairs from a mapping.");
  std::vector<Value> items;
  for (const auto& [key, member] : dict->members) {
    items.push_back(run.make_list({key, member}, Sequence::Kind::Tuple));
  }
  return generator(run, std::move(items));
}

// Keys by which a list is sorted, and the items in their order.
std::vector<Value> sorted(Interpreter& run, const std::vector<Value>& items,
                          const std::vector<Value>& keys, bool descending) {
  std::vector<size_t> order(items.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return descending ? run.less(keys[b], keys[a]) : run.less(keys[a], keys[b]);
  });
  std::vector<Value> out;
  for (const size_t i : order) out.push_back(items[i]);
  return out;
}
Value do_sort(Interpreter& run, const Value& value, const Arguments& given) {
  const ArgumentReader args("sort", given, {"reverse", "case_sensitive", "attribute"});
  const std::vector<Value> items = run.iterate(value)->items;
  std::vector<Value> keys;
  for (const Value& item : items) {
    if (args[2] == nullptr || args[2]->is_none()) {
      keys.push_back(folded(item, args.flag(1, false)));
      continue;
    }
    std::vector<Value> parts;  // several attributes, parted by commas
    const MarkedText* path = args[2]->as_text();
    if (path == nullptr) {
      parts.push_back(folded(run.item(item, *args[2]), args.flag(1, false)));
    } else {
      for (std::string_view rest = path->bytes(); !rest.empty();) {
        const size_t comma = std::min(rest.find(','), rest.size());
        parts.push_back(
            folded(attribute_of(run, item, rest.substr(0, comma)), args.flag(1, false)));
        rest.remove_prefix(std::min(comma + 1, rest.size()));
      }
    }
    for (const Value& part : parts) Interpreter::need_defined(part);
    keys.push_back(run.make_list(std::move(parts)));
  }
  // Keys are compared even where there is nothing to sort: a mixed list is an error.
  return run.make_list(sorted(run, items, keys, args.flag(0, false)));
}
Value do_dictsort(Interpreter& run, const Value& value, const Arguments& given) {
  const ArgumentReader args("dictsort", given, {"case_sensitive", "by", "reverse"});
  const Dict* dict = value.as_dict();
  if (dict == nullptr) {
    Interpreter::need_defined(value);
    fail_type(fmt::format("'{}' object has no attribute 'items'", value.type_name()));
  }
  const std::string_view by = args.text(1) != nullptr ? args.text(1)->bytes() : "key";
  if (by != "key" && by != "value") {
    throw TemplateError(Cause::Other, "You can only sort by either \"key\" or \"value\"",
                        "FilterArgumentError");
  }
  std::vector<Value> items, keys;
  for (const auto& [key, member] : dict->members) {
    items.push_back(run.make_list({key, member}, Sequence::Kind::Tuple));
    keys.push_back(folded(by == "key" ? key : member, args.flag(0, false)));
  }
  return run.make_list(sorted(run, items, keys, args.flag(2, false)));
}
Value do_unique(Interpreter& run, const Value& value, const Arguments& given) {
  const ArgumentReader args("unique", given, {"case_sensitive", "attribute"});
  std::vector<Value> out;
  std::unordered_multimap<size_t, Value> seen;
  for (const auto all = run.iterate(value); const Value& item : all->items) {
    const Value key =
        folded(args[1] != nullptr && !args[1]->is_none() ? attribute_of(run, item, *args[1]) : item,
               args.flag(0, false));
    run.spend(key.weight());
    const auto hash = hash_of(key);
    if (!hash) fail_type(fmt::format("unhashable type: '{}'", key.type_name()));
    run.spend(1);
    const auto [begin, end] = seen.equal_range(*hash);
    if (std::any_of(begin, end, [&](const auto& one) { return run.same(one.second, key); }))
      continue;
    seen.emplace(*hash, key);
    out.push_back(item);
  }
  return generator(run, std::move(out));
}
Value extreme(Interpreter& run, const Value& value, const Arguments& given, bool most) {
  const ArgumentReader args(most ? "max" : "min", given, {"case_sensitive", "attribute"});
  const SequencePointer items = run.iterate(value);
  if (items->items.empty()) {
    return Undefined{
        std::make_shared<const std::string>("No aggregated item, sequence was empty.")};
  }
  const auto key = [&](const Value& item) {
    return folded(
        args[1] != nullptr && !args[1]->is_none() ? attribute_of(run, item, *args[1]) : item,
        args.flag(0, false));
  };
  Value best = items->items[0], best_key = key(best);
  for (size_t i = 1; i < items->items.size(); ++i) {
    const Value other = key(items->items[i]);
    if (most ? run.less(best_key, other) : run.less(other, best_key)) {
      best = items->items[i];
      best_key = other;
    }
  }
  return best;
}
Value do_max(Interpreter& run, const Value& value, const Arguments& given) {
  return extreme(run, value, given, true);
}
Value do_min(Interpreter& run, const Value& value, const Arguments& given) {
  return extreme(run, value, given, false);
}
Value do_sum(Interpreter& run, const Value& value, const Arguments& given) {
  const ArgumentReader args("sum", given, {"attribute", "start"});
  Value total = args[1] != nullptr ? *args[1] : Value(int64_t{0});
  for (const auto all = run.iterate(value); const Value& item : all->items) {
    const bool by = args[0] != nullptr && !args[0]->is_none();
    total = run.binary(Operator::Add, total, by ? attribute_of(run, item, *args[0]) : item);
  }
  return total;
}
Value do_batch(Interpreter& run, const Value& value, const Arguments& given) {
  const ArgumentReader args("batch", given, {"linecount", "fill_with"}, 1);
  const auto size = static_cast<size_t>(std::max<int64_t>(args.integer(0, 1), 1));
  std::vector<Value> out, row;
  const auto flush = [&](bool last) {
    if (last && args[1] != nullptr && !args[1]->is_none()) {
      run.spend(size - row.size());
      row.resize(size, *args[1]);
    }
    out.push_back(run.make_list(std::exchange(row, {})));
  };
  for (const auto all = run.iterate(value); const Value& item : all->items) {
    row.push_back(item);
    if (row.size() == size) flush(false);
  }
  if (!row.empty()) flush(true);
  return generator(run, std::move(out));
}
Value do_slice(Interpreter& run, const Value& value, const Arguments& given) {
  const ArgumentReader args("slice", given, {"slices", "fill_with"}, 1);
  const std::vector<Value> items = run.iterate(value)->items;
  const auto count = static_cast<size_t>(std::max<int64_t>(args.integer(0, 1), 1));
  run.spend(count);
  const size_t each = items.size() / count, more = items.size() % count;
  std::vector<Value> out;
  for (size_t i = 0, at = 0; i < count; ++i) {
    const size_t size = each + (i < more ? 1 : 0);
    std::vector<Value> row(items.begin() + static_cast<ptrdiff_t>(at),
                           items.begin() + static_cast<ptrdiff_t>(at + size));
    at += size;
    if (i >= more && args[1] != nullptr && !args[1]->is_none()) row.push_back(*args[1]);
    out.push_back(run.make_list(std::move(row)));
  }
  return generator(run, std::move(out));
}
Value do_groupby(Interpreter& run, const Value& value, const Arguments& given) {
  const ArgumentReader args("groupby", given, {"attribute", "default", "case_sensitive"}, 1);
  const std::vector<Value> items = run.iterate(value)->items;
  std::vector<Value> keys, names;
  for (const Value& item : items) {
    const Value name = attribute_of(run, item, *args[0], args[1]);
    names.push_back(run.make_list({name, item}));
    keys.push_back(folded(name, args.flag(2, false)));
  }
  std::vector<Value> pairs;
  for (size_t i = 0; i < items.size(); ++i) pairs.push_back(run.make_list({keys[i], names[i]}));
  const std::vector<Value> ordered = sorted(run, pairs, keys, false);
  std::vector<Value> out;
  for (size_t i = 0; i < ordered.size();) {
    const Value key = ordered[i].as_sequence()->items[0];
    const Value first = ordered[i].as_sequence()->items[1].as_sequence()->items[0];
    std::vector<Value> group;
    for (; i < ordered.size() && run.same(ordered[i].as_sequence()->items[0], key); ++i) {
      group.push_back(ordered[i].as_sequence()->items[1].as_sequence()->items[1]);
    }
    auto pair = std::make_shared<Sequence>();
    pair->kind = Sequence::Kind::Tuple;
    pair->grouped = true;
    pair->items = {first, run.make_list(std::move(group))};
    pair->depth = run.value_depth(pair->items[1].depth() + 1);
    out.push_back(SequencePointer(std::move(pair)));
  }
  return run.make_list(std::move(out));
}

// ---- Filters and tests over items

std::string_view name_of(const Value& value) {
  const MarkedText* text = value.as_text();
  if (text == nullptr) {
    Interpreter::need_defined(value);
    fail_type(fmt::format("the name of a filter or test is '{}'", value.type_name()));
  }
  return text->bytes();
}

Value do_map(Interpreter& run, const Value& value, const Arguments& given) {
  const SequencePointer items = run.iterate(value);
  std::vector<Value> out;
  if (given.positional.empty()) {
    if (given.named.empty()) {
      throw TemplateError(Cause::Other, "map requires a filter argument", "FilterArgumentError");
    }
    const ArgumentReader args("map", given, {"attribute", "default"}, 1);
    for (const Value& item : items->items) {
      out.push_back(attribute_of(run, item, *args[0], args[1]));
    }
    return generator(run, std::move(out));
  }
  const std::string_view name = name_of(given.positional[0]);
  if (!has_filter(name)) {
    throw TemplateError(Cause::Other, fmt::format("No filter named '{}'.", printable(name, 40)),
                        "TemplateRuntimeError");
  }
  const Arguments rest{{given.positional.begin() + 1, given.positional.end()}, given.named};
  for (const Value& item : items->items) out.push_back(call_filter(run, name, item, rest));
  return generator(run, std::move(out));
}

Value select(Interpreter& run, const Value& value, const Arguments& given, bool keep,
             bool by_attribute) {
  const size_t first = by_attribute ? 1 : 0;
  if (given.positional.size() < first) {
    throw TemplateError(Cause::Other, "Missing parameter for attribute name",
                        "FilterArgumentError");
  }
  const bool tested = given.positional.size() > first;
  const std::string_view name = tested ? name_of(given.positional[first]) : std::string_view();
  if (tested && !has_test(name)) {
    throw TemplateError(Cause::Other, fmt::format("No test named '{}'.", printable(name, 40)),
                        "TemplateRuntimeError");
  }
  Arguments rest;
  if (tested) {
    rest = {{given.positional.begin() + static_cast<ptrdiff_t>(first) + 1, given.positional.end()},
            given.named};
  }
  std::vector<Value> out;
  for (const auto all = run.iterate(value); const Value& item : all->items) {
    run.spend(1);
    const Value subject = by_attribute ? attribute_of(run, item, given.positional[0]) : item;
    const bool good = tested ? call_test(run, name, subject, rest) : subject.truthy();
    if (good == keep) out.push_back(item);
  }
  return generator(run, std::move(out));
}
Value do_select(Interpreter& run, const Value& value, const Arguments& given) {
  return select(run, value, given, true, false);
}
Value do_reject(Interpreter& run, const Value& value, const Arguments& given) {
  return select(run, value, given, false, false);
}
Value do_selectattr(Interpreter& run, const Value& value, const Arguments& given) {
  return select(run, value, given, true, true);
}
Value do_rejectattr(Interpreter& run, const Value& value, const Arguments& given) {
  return select(run, value, given, false, true);
}

// ---- Others

Value do_default(Interpreter&, const Value& value, const Arguments& given) {
  const ArgumentReader args("default", given, {"default_value", "boolean"});
  const bool missing = value.is_undefined() || (args.flag(1, false) && !value.truthy());
  if (!missing) return value;
  return args[0] != nullptr ? *args[0] : Value(MarkedText());
}
Value do_attr(Interpreter& run, const Value& value, const Arguments& given) {
  const ArgumentReader args("attr", given, {"name"}, 1);
  // An attribute alone: a dict's keys are none.
  const std::string_view name = name_of(*args[0]);
  if (value.as_dict() == nullptr) return run.member(value, name);
  bool unsafe = false;
  if (auto method = find_method(value, name, unsafe)) return std::move(*method);
  return Undefined{
      std::make_shared<const std::string>(
          unsafe ? fmt::format("access to attribute '{}' of 'dict' object is unsafe.", name)
                 : fmt::format("'dict object' has no attribute '{}'", name)),
      unsafe};
}
Value do_safe(Interpreter&, const Value& value, const Arguments&) { return value; }
Value do_pprint(Interpreter& run, const Value& value, const Arguments&) {
  run.spend(value.weight());
  MarkedText out;
  append_repr(out, value);
  return run.make_text(std::move(out));
}

const std::unordered_map<std::string_view, Filter>& filters() {
  static const std::unordered_map<std::string_view, Filter> kFilters = {
      {"abs", do_abs},
      {"attr", do_attr},
      {"batch", do_batch},
      {"capitalize", do_capitalize},
      {"center", do_center},
      {"count", do_length},
      {"d", do_default},
      {"default", do_default},
      {"dictsort", do_dictsort},
      {"e", do_escape},
      {"escape", do_escape},
      {"first", do_first},
      {"float", do_float},
      {"forceescape", do_escape},
      {"format", do_format},
      {"groupby", do_groupby},
      {"indent", do_indent},
      {"int", do_int},
      {"items", do_items},
      {"join", do_join},
      {"last", do_last},
      {"length", do_length},
      {"list", do_list},
      {"lower", do_lower},
      {"map", do_map},
      {"max", do_max},
      {"min", do_min},
      {"pprint", do_pprint},
      {"reject", do_reject},
      {"rejectattr", do_rejectattr},
      {"replace", do_replace},
      {"reverse", do_reverse},
      {"round", do_round},
      {"safe", do_safe},
      {"select", do_select},
      {"selectattr", do_selectattr},
      {"slice", do_slice},
      {"sort", do_sort},
      {"string", do_string},
      {"striptags", do_striptags},
      {"sum", do_sum},
      {"title", do_title},
      {"tojson", do_tojson},
      {"trim", do_trim},
      {"truncate", do_truncate},
      {"unique", do_unique},
      {"upper", do_upper},
      {"urlencode", do_urlencode},
      {"wordcount", do_wordcount},
  };
  return kFilters;
}

}  // namespace

bool has_filter(std::string_view name) { return filters().contains(name); }

Value call_filter(Interpreter& run, std::string_view name, const Value& input,
                  const Arguments& arguments) {
  run.spend(1);
  return filters().at(name)(run, input, arguments);
}

}  // namespace quern::chat_template
