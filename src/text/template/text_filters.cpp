// Filters of texts, and those that make one.
#include <fmt/format.h>

#include <algorithm>

#include "core/utf8.h"
#include "text/template/builtins.h"
#include "text/template/filters.h"
#include "text/template/interpreter.h"
#include "text/template/python_text.h"

namespace quern::chat_template {
namespace {

using Cause = TemplateError::Cause;

MarkedText constant(std::string_view text) { return {text, kLiteral}; }

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
  if (chars != nullptr) run.spend_bytes(chars->size());
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
  constexpr int64_t kFar = int64_t{1} << 40;  // longer than any text, and far from an overflow
  if (size <= std::clamp(most, -kFar, kFar) + std::clamp(leeway, -kFar, kFar)) return text;
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

}  // namespace

const FilterTable& text_filters() {
  static const FilterTable kFilters = {
      {"capitalize", do_capitalize}, {"center", do_center},       {"e", do_escape},
      {"escape", do_escape},         {"forceescape", do_escape},  {"format", do_format},
      {"indent", do_indent},         {"lower", do_lower},         {"replace", do_replace},
      {"string", do_string},         {"striptags", do_striptags}, {"title", do_title},
      {"tojson", do_tojson},         {"trim", do_trim},           {"truncate", do_truncate},
      {"upper", do_upper},           {"urlencode", do_urlencode}, {"wordcount", do_wordcount},
  };
  return kFilters;
}

}  // namespace quern::chat_template
