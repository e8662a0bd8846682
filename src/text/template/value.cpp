#include "text/template/value.h"

#include <fmt/format.h>
#include <utf8proc.h>

#include <algorithm>
#include <charconv>
#include <cmath>

#include "core/utf8.h"

namespace quern::chat_template {
namespace {

constexpr size_t kIndexFrom = 8;  // members of a dict; fewer are found faster one by one

bool printable_point(char32_t point) {
  if (point == ' ') return true;
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(point))) {
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
    case UTF8PROC_CATEGORY_ZS:
      return false;
    default:
      return true;
  }
}

void append_text_repr(MarkedText& out, const MarkedText& text) {
  const std::string_view bytes = text.bytes();
  const bool double_quotes = bytes.find('\'') != bytes.npos && bytes.find('"') == bytes.npos;
  const char quote = double_quotes ? '"' : '\'';
  out.append({&quote, 1}, kForeign);
  size_t plain = 0;  // begin of what is copied as it is
  for (size_t at = 0; at < bytes.size();) {
    const utf8::Point point = utf8::decode(bytes.substr(at));
    std::string escaped;
    const char32_t c = point.value;
    if (c == '\\' || c == static_cast<char32_t>(quote)) {
      escaped = {'\\', static_cast<char>(c)};
    } else if (c == '\n') {
      escaped = "\\n";
    } else if (c == '\r') {
      escaped = "\\r";
    } else if (c == '\t') {
      escaped = "\\t";
    } else if (c < 0x80 ? (c < 0x20 || c == 0x7F) : !printable_point(c)) {
      const auto number = static_cast<uint32_t>(c);
      escaped = c < 0x100     ? fmt::format("\\x{:02x}", number)
                : c < 0x10000 ? fmt::format("\\u{:04x}", number)
                              : fmt::format("\\U{:08x}", number);
    }
    if (!escaped.empty()) {
      out.append(text, plain, at);
      out.append(escaped, text.origin_at(at));
      plain = at + point.length;
    }
    at += point.length;
  }
  out.append(text, plain, bytes.size());
  out.append({&quote, 1}, kForeign);
}

void append_sequence_repr(MarkedText& out, const Sequence& sequence) {
  using Kind = Sequence::Kind;
  const auto put = [&](std::string_view text) { out.append(text, kForeign); };
  switch (sequence.kind) {
    case Kind::Range:
      put(sequence.range[2] == 1
              ? fmt::format("range({}, {})", sequence.range[0], sequence.range[1])
              : fmt::format("range({}, {}, {})", sequence.range[0], sequence.range[1],
                            sequence.range[2]));
      return;
    case Kind::Generator:
      put("<generator object>");
      return;
    case Kind::Keys:
      put("dict_keys(");
      break;
    case Kind::Values:
      put("dict_values(");
      break;
    case Kind::Items:
      put("dict_items(");
      break;
    case Kind::List:
    case Kind::Tuple:
      break;
  }
  const bool tuple = sequence.kind == Kind::Tuple;
  put(tuple ? "(" : "[");
  for (size_t i = 0; i < sequence.items.size(); ++i) {
    if (i > 0) put(", ");
    append_repr(out, sequence.items[i]);
  }
  if (tuple && sequence.items.size() == 1) put(",");
  put(tuple ? ")" : "]");
  if (sequence.kind >= Kind::Keys) put(")");
}

int compare_digits(std::string_view a, std::string_view b) {
  const bool a_negative = a.starts_with('-'), b_negative = b.starts_with('-');
  if (a_negative != b_negative) return a_negative ? -1 : 1;
  int order = a.size() != b.size() ? (a.size() < b.size() ? -1 : 1) : a.compare(b);
  order = order < 0 ? -1 : order > 0 ? 1 : 0;
  return a_negative ? -order : order;
}

bool equal_numbers(const Value& a, const Value& b) {
  const auto *big_a = a.as<BigInteger>(), *big_b = b.as<BigInteger>();
  if (big_a != nullptr && big_b != nullptr) {
    return compare_digits(*big_a->digits, *big_b->digits) == 0;
  }
  const auto whole_a = a.as_integer(), whole_b = b.as_integer();
  if (whole_a && whole_b) return *whole_a == *whole_b;
  if (big_a != nullptr && whole_b) return false;
  if (big_b != nullptr && whole_a) return false;
  return a.as_double() == b.as_double();
}

}  // namespace

const Value* Dict::find(std::string_view key) const {
  if (members.size() >= kIndexFrom) {
    const auto found = index.find(std::string(key));
    return found == index.end() ? nullptr : &members[found->second].second;
  }
  for (const auto& [name, value] : members) {
    const MarkedText* text = name.as_text();
    if (text != nullptr && text->bytes() == key) return &value;
  }
  return nullptr;
}

const Value* Dict::find(const Value& key) const {
  if (const MarkedText* text = key.as_text()) return find(text->bytes());
  for (const auto& [name, value] : members) {
    if (equal(name, key)) return &value;
  }
  return nullptr;
}

void Dict::set(Value key, Value value) {
  depth = std::max(depth, std::max(key.depth(), value.depth()) + 1);
  weight = add_weights(weight, add_weights(key.weight(), value.weight()));
  if (const Value* old = find(key)) {
    *const_cast<Value*>(old) = std::move(value);
    return;
  }
  members.emplace_back(std::move(key), std::move(value));
  const auto enter = [&](size_t at) {
    if (const MarkedText* text = members[at].first.as_text()) {
      index.emplace(std::string(text->bytes()), at);
    }
  };
  if (members.size() == kIndexFrom) {
    for (size_t at = 0; at < members.size(); ++at) enter(at);
  } else if (members.size() > kIndexFrom) {
    enter(members.size() - 1);
  }
}

std::optional<int64_t> Value::as_integer() const noexcept {
  if (const auto* number = as<int64_t>()) return *number;
  if (const auto* flag = as<bool>()) return *flag ? 1 : 0;
  return std::nullopt;
}

bool Value::is_number() const noexcept {
  return as_integer() || as<double>() != nullptr || as<BigInteger>() != nullptr;
}

double Value::as_double() const noexcept {
  if (const auto whole = as_integer()) return static_cast<double>(*whole);
  if (const auto* big = as<BigInteger>()) return std::strtod(big->digits->c_str(), nullptr);
  const auto* number = as<double>();
  return number != nullptr ? *number : 0;
}

bool Value::truthy() const noexcept {
  if (is_undefined() || is_none()) return false;
  if (const auto whole = as_integer()) return *whole != 0;
  if (const auto* number = as<double>()) return *number != 0;
  if (const MarkedText* text = as_text()) return !text->empty();
  if (const Sequence* list = as_sequence()) {
    return list->kind == Sequence::Kind::Generator || !list->items.empty();
  }
  if (const Dict* dict = as_dict()) return !dict->members.empty();
  return true;
}

Value undefined(std::string problem, bool unsafe) {
  return Undefined{std::make_shared<const std::string>(std::move(problem)), unsafe};
}

uint64_t add_weights(uint64_t a, uint64_t b) noexcept {
  return a > UINT64_MAX - b ? UINT64_MAX : a + b;
}

uint64_t Value::weight() const noexcept {
  if (const MarkedText* text = as_text()) return 1 + text->size() / 8;
  if (const Sequence* list = as_sequence()) return list->weight;
  if (const Dict* dict = as_dict()) return dict->weight;
  return 1;
}

int Value::depth() const noexcept {
  if (const Sequence* list = as_sequence()) return list->depth;
  if (const Dict* dict = as_dict()) return dict->depth;
  if (const Namespace* space = as_namespace()) return space->depth;
  if (const Function* function = as_function()) return function->depth;
  return 0;
}

std::string Value::type_name() const {
  if (is_undefined()) return "Undefined";
  if (is_none()) return "NoneType";
  if (as<bool>() != nullptr) return "bool";
  if (as<int64_t>() != nullptr || as<BigInteger>() != nullptr) return "int";
  if (as<double>() != nullptr) return "float";
  if (as_text() != nullptr) return "str";
  if (const Sequence* list = as_sequence()) {
    constexpr const char* kNames[] = {"list",      "tuple",       "range",     "generator",
                                      "dict_keys", "dict_values", "dict_items"};
    return kNames[static_cast<size_t>(list->kind)];
  }
  if (as_dict() != nullptr) return "dict";
  if (const Namespace* space = as_namespace()) return space->type;
  return as_function()->type;
}

bool equal(const Value& a, const Value& b) {
  if (a.is_number() && b.is_number()) return equal_numbers(a, b);
  if (a.is_undefined() || b.is_undefined()) return a.is_undefined() && b.is_undefined();
  if (a.is_none() || b.is_none()) return a.is_none() && b.is_none();
  const MarkedText *text_a = a.as_text(), *text_b = b.as_text();
  if (text_a != nullptr && text_b != nullptr) return text_a->bytes() == text_b->bytes();
  const Sequence *list_a = a.as_sequence(), *list_b = b.as_sequence();
  if (list_a != nullptr && list_b != nullptr) {
    if (list_a == list_b) return true;
    if (list_a->kind != list_b->kind || list_a->kind == Sequence::Kind::Generator) return false;
    return std::equal(list_a->items.begin(), list_a->items.end(), list_b->items.begin(),
                      list_b->items.end(), equal);
  }
  const Dict *dict_a = a.as_dict(), *dict_b = b.as_dict();
  if (dict_a != nullptr && dict_b != nullptr) {
    if (dict_a->members.size() != dict_b->members.size()) return false;
    return std::all_of(dict_a->members.begin(), dict_a->members.end(), [&](const auto& member) {
      const Value* other = dict_b->find(member.first);
      return other != nullptr && equal(member.second, *other);
    });
  }
  if (a.as_namespace() != nullptr) return a.as_namespace() == b.as_namespace();
  return a.as_function() != nullptr && a.as_function() == b.as_function();
}

std::optional<size_t> hash_of(const Value& value) {
  if (value.is_number()) return std::hash<double>()(value.as_double());
  if (const MarkedText* text = value.as_text()) return std::hash<std::string_view>()(text->bytes());
  if (value.is_none()) return 1;
  if (value.is_undefined()) return 2;
  if (const Sequence* list = value.as_sequence()) {
    if (list->kind != Sequence::Kind::Tuple) return std::nullopt;
    size_t all = 3;
    for (const Value& item : list->items) {
      // Tuples within tuples are told apart by equal() alone.
      const Sequence* inner = item.as_sequence();
      const auto one = inner != nullptr && inner->kind == Sequence::Kind::Tuple
                           ? inner->items.size()
                           : hash_of(item);
      if (!one) return std::nullopt;
      all = all * 1000003 + *one;
    }
    return all;
  }
  if (value.as_dict() != nullptr) return std::nullopt;
  return 4;
}

void append_str(MarkedText& out, const Value& value) {
  if (const MarkedText* text = value.as_text()) {
    out.append(*text);
  } else if (!value.is_undefined()) {
    append_repr(out, value);
  }
}

void append_repr(MarkedText& out, const Value& value) {
  // Digits and the words True, False, None make no token; what quotes foreign text is not trusted.
  const auto put = [&](std::string_view text) { out.append(text, kLiteral); };
  if (value.is_undefined()) {
    put("Undefined");
  } else if (value.is_none()) {
    put("None");
  } else if (const auto* flag = value.as<bool>()) {
    put(*flag ? "True" : "False");
  } else if (const auto* whole = value.as<int64_t>()) {
    put(std::to_string(*whole));
  } else if (const auto* big = value.as<BigInteger>()) {
    put(*big->digits);
  } else if (const auto* number = value.as<double>()) {
    put(python_repr(*number));
  } else if (const MarkedText* text = value.as_text()) {
    append_text_repr(out, *text);
  } else if (const Sequence* list = value.as_sequence()) {
    append_sequence_repr(out, *list);
  } else if (const Dict* dict = value.as_dict()) {
    out.append("{", kForeign);
    for (size_t i = 0; i < dict->members.size(); ++i) {
      if (i > 0) out.append(", ", kForeign);
      append_repr(out, dict->members[i].first);
      out.append(": ", kForeign);
      append_repr(out, dict->members[i].second);
    }
    out.append("}", kForeign);
  } else if (const Namespace* space = value.as_namespace()) {
    out.append(fmt::format("<{}>", space->type), kForeign);
  } else {
    const Function* function = value.as_function();
    out.append(fmt::format("<{} '{}'>", function->type, function->name), kForeign);
  }
}

Value from_json(const OrderedJson& json, Origin origin) {
  using Kind = OrderedJson::Kind;
  switch (json.kind) {
    case Kind::Null:
      return None{};
    case Kind::Bool:
      return json.boolean;
    case Kind::Integer: {
      int64_t number = 0;
      const char* end = json.text.data() + json.text.size();
      const auto read = std::from_chars(json.text.data(), end, number);
      if (read.ec == std::errc() && read.ptr == end) return number;
      return BigInteger{std::make_shared<const std::string>(json.text)};
    }
    case Kind::Float:
      return json.number;
    case Kind::String:
      return MarkedText(json.text, origin);
    case Kind::Array: {
      auto list = std::make_shared<Sequence>();
      list->items.reserve(json.items.size());
      for (const OrderedJson& item : json.items) {
        list->items.push_back(from_json(item, origin));
        list->depth = std::max(list->depth, list->items.back().depth() + 1);
        list->weight = add_weights(list->weight, list->items.back().weight());
      }
      return list;
    }
    case Kind::Object: {
      auto dict = std::make_shared<Dict>();
      for (const auto& [name, value] : json.members) {
        dict->set(MarkedText(name, origin), from_json(value, origin));
      }
      return dict;
    }
  }
  return None{};
}

}  // namespace quern::chat_template
