// Python's json.dumps.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "core/utf8.h"
#include "text/template/builtins.h"
#include "text/template/interpreter.h"
#include "text/template/python_text.h"

namespace quern::chat_template {
namespace {

class JsonWriter {
 public:
  JsonWriter(Interpreter& run, const JsonStyle& style) : run_(run), style_(style) {}

  void write(const Value& value, int level) {
    run_.spend(1);
    if (value.is_none()) {
      put("null");
    } else if (const auto* flag = value.as<bool>()) {
      put(*flag ? "true" : "false");
    } else if (const auto* number = value.as<double>()) {
      put(std::isnan(*number)   ? "NaN"
          : std::isinf(*number) ? (*number < 0 ? "-Infinity" : "Infinity")
                                : python_repr(*number));
    } else if (value.is_number()) {
      append_repr(out, value);
    } else if (const MarkedText* text = value.as_text()) {
      write_text(*text);
    } else if (const Dict* dict = value.as_dict()) {
      write_dict(*dict, level);
    } else if (const Sequence* list = value.as_sequence();
               list != nullptr && list->kind <= Sequence::Kind::Tuple) {
      write_list(*list, level);
    } else {
      if (value.is_undefined() && value.as<Undefined>()->unsafe) Interpreter::need_defined(value);
      fail_type(fmt::format("Object of type {} is not JSON serializable", value.type_name()));
    }
    if (out.size() > (size_t{1} << 20)) run_.spend_bytes(out.size() / 1024);
  }

  MarkedText out;

 private:
  void put(std::string_view text) {
    run_.spend_bytes(text.size());
    out.append(text, kForeign);
  }
  void line(int level) {
    if (!style_.indent) return;
    put("\n");
    for (int i = 0; i < level; ++i) put(*style_.indent);
  }
  void write_text(const MarkedText& text) {
    run_.spend_bytes(text.size());
    put("\"");
    size_t plain = 0;
    const std::string_view bytes = text.bytes();
    for (size_t at = 0; at < bytes.size();) {
      const auto c = static_cast<unsigned char>(bytes[at]);
      size_t size = 1;
      std::string escaped;
      if (c == '"' || c == '\\') {
        escaped = {'\\', static_cast<char>(c)};
      } else if (c < 0x20) {
        constexpr std::string_view kCodes = "\b\f\n\r\t", kLetters = "bfnrt";
        const size_t known = kCodes.find(static_cast<char>(c));
        escaped =
            known != kCodes.npos ? std::string{'\\', kLetters[known]} : fmt::format("\\u{:04x}", c);
      } else if (c >= 0x7F && style_.ascii) {
        const utf8::Point point = utf8::decode(bytes.substr(at));
        size = point.length;
        const auto code = static_cast<uint32_t>(point.value);
        escaped = code < 0x10000
                      ? fmt::format("\\u{:04x}", code)
                      : fmt::format("\\u{:04x}\\u{:04x}", 0xD800 + ((code - 0x10000) >> 10),
                                    0xDC00 + ((code - 0x10000) & 0x3FF));
      }
      if (!escaped.empty()) {
        out.append(text, plain, at);
        out.append(escaped, text.origin_at(at));
        plain = at + size;
      }
      at += size;
    }
    out.append(text, plain, bytes.size());
    put("\"");
  }
  void write_list(const Sequence& list, int level) {
    put("[");
    for (size_t i = 0; i < list.items.size(); ++i) {
      if (i > 0) put(style_.item_separator);
      line(level + 1);
      write(list.items[i], level + 1);
    }
    if (!list.items.empty()) line(level);
    put("]");
  }
  void write_key(const Value& key) {
    if (const MarkedText* text = key.as_text()) return write_text(*text);
    if (!key.is_number() && !key.is_none()) {
      fail_type(fmt::format("keys must be str, int, float, bool or None, not {}", key.type_name()));
    }
    put("\"");
    write(key, 0);
    put("\"");
  }
  void write_dict(const Dict& dict, int level) {
    std::vector<const std::pair<Value, Value>*> order;
    for (const auto& member : dict.members) order.push_back(&member);
    if (style_.sort_keys) {
      std::stable_sort(order.begin(), order.end(),
                       [&](const auto* a, const auto* b) { return run_.less(a->first, b->first); });
    }
    put("{");
    for (size_t i = 0; i < order.size(); ++i) {
      if (i > 0) put(style_.item_separator);
      line(level + 1);
      write_key(order[i]->first);
      put(style_.key_separator);
      write(order[i]->second, level + 1);
    }
    if (!order.empty()) line(level);
    put("}");
  }

  Interpreter& run_;
  const JsonStyle& style_;
};

}  // namespace

MarkedText to_json(Interpreter& run, const Value& value, const JsonStyle& style) {
  JsonWriter writer(run, style);
  writer.write(value, 0);
  return std::move(writer.out);
}

}  // namespace quern::chat_template
