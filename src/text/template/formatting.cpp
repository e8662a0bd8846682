// str.format and the % operator.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "core/utf8.h"
#include "text/template/builtins.h"
#include "text/template/interpreter.h"
#include "text/template/python_text.h"

namespace quern::chat_template {
namespace {

constexpr int kMaxWidth = 10'000;  // of a formatted value

struct Specification {
  std::string fill = " ";
  char align = 0, sign = '-', grouping = 0, type = 0;
  bool alternate = false;
  int width = 0, precision = -1;
};

Specification read_specification(std::string_view text) {
  const std::string_view whole = text;
  Specification out;
  const auto aligns = [](char c) { return c == '<' || c == '>' || c == '^' || c == '='; };
  if (!text.empty()) {
    const size_t first = utf8::decode(text).length;
    if (text.size() > first && aligns(text[first])) {
      out.fill = std::string(text.substr(0, first));
      out.align = text[first];
      text.remove_prefix(first + 1);
    } else if (aligns(text[0])) {
      out.align = text[0];
      text.remove_prefix(1);
    }
  }
  const auto take = [&](std::string_view set) -> char {
    if (text.empty() || set.find(text[0]) == set.npos) return 0;
    const char c = text[0];
    text.remove_prefix(1);
    return c;
  };
  const auto integer = [&]() {
    int value = 0;
    while (!text.empty() && text[0] >= '0' && text[0] <= '9') {
      value = value * 10 + (text[0] - '0');
      if (value > kMaxWidth) fail_value("Too many decimal digits in format string");
      text.remove_prefix(1);
    }
    return value;
  };
  if (const char sign = take("+- ")) out.sign = sign;
  out.alternate = take("#") != 0;
  if (take("0") != 0 && out.align == 0) {
    out.fill = "0";
    out.align = '=';
  }
  out.width = integer();
  out.grouping = take(",_");
  if (take(".") != 0) out.precision = integer();
  out.type = take("bcdeEfFgGnosxX%");
  if (!text.empty()) {
    fail_value(fmt::format("Invalid format specifier '{}'", printable(whole, 40)));
  }
  return out;
}

std::string grouped(std::string digits, char separator) {
  const size_t end = std::min(digits.find_first_of(".e%"), digits.size());
  for (size_t at = end; at > 3;) {
    at -= 3;
    digits.insert(at, 1, separator);
  }
  return digits;
}

std::string format_float(double value, const Specification& spec) {
  const double size = std::fabs(value);
  if (!std::isfinite(value)) return std::isnan(value) ? "nan" : "inf";
  const int precision = spec.precision < 0 ? 6 : spec.precision;
  switch (spec.type) {
    case 'f':
    case 'F':
      return fmt::format("{:.{}f}", size, precision);
    case 'e':
      return fmt::format("{:.{}e}", size, precision);
    case 'E':
      return fmt::format("{:.{}E}", size, precision);
    case '%':
      return fmt::format("{:.{}f}%", size * 100, precision);
    case 'g':
    case 'n':
      return fmt::format("{:.{}g}", size, std::max(precision, 1));
    case 'G':
      return fmt::format("{:.{}G}", size, std::max(precision, 1));
    default:
      break;
  }
  if (spec.precision < 0) return python_repr(size);
  std::string digits = fmt::format("{:.{}g}", size, std::max(spec.precision, 1));
  if (digits.find_first_of(".e") == digits.npos) digits += ".0";
  return digits;
}

MarkedText padded(const MarkedText& text, const Specification& spec, char fallback_align,
                  size_t sign_size) {
  const auto size = static_cast<int>(length(text.bytes()));
  if (size >= spec.width) return text;
  const char align = spec.align != 0 ? spec.align : fallback_align;
  const int missing = spec.width - size;
  const int left = align == '<' ? 0 : align == '^' ? missing / 2 : missing;
  MarkedText out;
  if (align == '=') out.append(text, 0, sign_size);
  for (int i = 0; i < left; ++i) out.append(spec.fill, kLiteral);
  out.append(text, align == '=' ? sign_size : 0, text.size());
  for (int i = left; i < missing; ++i) out.append(spec.fill, kLiteral);
  return out;
}

}  // namespace

MarkedText format_value(const Value& value, std::string_view specification) {
  MarkedText text;
  if (specification.empty()) {
    append_str(text, value);
    return text;
  }
  Specification spec = read_specification(specification);
  if (const MarkedText* given = value.as_text()) {
    if (spec.type != 0 && spec.type != 's') {
      fail_value(fmt::format("Unknown format code '{}' for object of type 'str'", spec.type));
    }
    if (spec.align == '=') {
      fail_value("'=' alignment not allowed in string format specifier");
    }
    text = spec.precision >= 0
               ? given->sub(0, offset_of(given->bytes(), static_cast<size_t>(spec.precision)))
               : *given;
    return padded(text, spec, '<', 0);
  }
  if (!value.is_number() || value.as<BigInteger>() != nullptr) {
    fail_type(fmt::format("unsupported format string passed to {}.__format__", value.type_name()));
  }
  const bool real =
      value.as<double>() != nullptr ||
      (spec.type != 0 && std::string_view("eEfFgG%").find(spec.type) != std::string_view::npos);
  const bool negative = value.as_double() < 0 || (real && std::signbit(value.as_double()));
  std::string digits;
  if (real) {
    if (spec.type != 0 && std::string_view("bcdosxX").find(spec.type) != std::string_view::npos) {
      fail_value(fmt::format("Unknown format code '{}' for object of type 'float'", spec.type));
    }
    digits = format_float(value.as_double(), spec);
  } else {
    const int64_t number = *value.as_integer();
    const uint64_t size =
        number < 0 ? 0 - static_cast<uint64_t>(number) : static_cast<uint64_t>(number);
    switch (spec.type) {
      case 'x':
        digits = fmt::format("{}{:x}", spec.alternate ? "0x" : "", size);
        break;
      case 'X':
        digits = fmt::format("{}{:X}", spec.alternate ? "0X" : "", size);
        break;
      case 'o':
        digits = fmt::format("{}{:o}", spec.alternate ? "0o" : "", size);
        break;
      case 'b':
        digits = fmt::format("{}{:b}", spec.alternate ? "0b" : "", size);
        break;
      case 'c': {
        std::string one;
        utf8::append(one, static_cast<char32_t>(std::min<uint64_t>(size, 0x10FFFF)));
        return padded(MarkedText(one, kForeign), spec, '<', 0);
      }
      case 's':
        fail_value("Unknown format code 's' for object of type 'int'");
      default:
        digits = std::to_string(size);
    }
  }
  if (spec.grouping != 0) digits = grouped(std::move(digits), spec.grouping);
  const std::string sign = negative ? "-" : spec.sign == '-' ? "" : std::string(1, spec.sign);
  return padded(MarkedText(sign + digits, kLiteral), spec, '>', sign.size());
}

namespace {

class BraceFormatter {
 public:
  BraceFormatter(Interpreter& run, const MarkedText& format, const Arguments& arguments)
      : run_(run), format_(format), arguments_(arguments) {}

  MarkedText formatted() { return part(0, format_.size(), 0); }

 private:
  MarkedText part(size_t at, size_t end, int level) {
    if (level > 2) fail_value("Max string recursion exceeded");
    const std::string_view bytes = format_.bytes();
    MarkedText out;
    while (at < end) {
      const size_t brace = std::min(bytes.find_first_of("{}", at), end);
      out.append(format_, at, brace);
      if (brace == end) break;
      if (brace + 1 < end && bytes[brace + 1] == bytes[brace]) {
        out.append(format_, brace, brace + 1);
        at = brace + 2;
        continue;
      }
      if (bytes[brace] == '}') fail_value("Single '}' encountered in format string");
      int open = 1;
      size_t close = brace + 1;
      for (; close < end; ++close) {
        if (bytes[close] == '{') ++open;
        if (bytes[close] == '}' && --open == 0) break;
      }
      if (close == end) fail_value("expected '}' before end of string");
      out.append(field(brace + 1, close, level));
      run_.spend_bytes(out.size() / 8 + 8);
      at = close + 1;
    }
    return out;
  }

  MarkedText field(size_t begin, size_t end, int level) {
    const std::string_view bytes = format_.bytes();
    size_t name_end = begin;
    while (name_end < end && bytes[name_end] != '!' && bytes[name_end] != ':') {
      if (bytes[name_end] == '[') {
        name_end = std::min(bytes.find(']', name_end), end);
        continue;
      }
      ++name_end;
    }
    char conversion = 0;
    size_t spec = name_end;
    if (spec < end && bytes[spec] == '!') {
      if (spec + 1 >= end) fail_value("end of string while looking for conversion specifier");
      conversion = bytes[spec + 1];
      spec += 2;
      if (spec < end && bytes[spec] != ':') fail_value("expected ':' after conversion specifier");
    }
    Value value = lookup(bytes.substr(begin, name_end - begin));
    if (conversion == 'r' || conversion == 'a') {
      MarkedText shown;
      run_.spend(value.weight());
      append_repr(shown, value);
      value = shown;
    } else if (conversion == 's') {
      value = run_.str(value);
    } else if (conversion != 0) {
      fail_value(fmt::format("Unknown conversion specifier {}", conversion));
    }
    run_.spend(value.weight());
    const MarkedText specification = spec < end ? part(spec + 1, end, level + 1) : MarkedText();
    return format_value(value, specification.bytes());
  }

  Value lookup(std::string_view name) {
    const size_t path = std::min(name.find_first_of(".["), name.size());
    const std::string_view first = name.substr(0, path);
    const bool numbered =
        !first.empty() && first.size() < 8 && first.find_first_not_of("0123456789") == first.npos;
    Value value;
    if (first.empty() || numbered) {
      const size_t index =
          first.empty() ? next_++ : static_cast<size_t>(std::stoi(std::string(first)));
      if (index >= arguments_.positional.size()) {
        throw TemplateError(TemplateError::Cause::Other,
                            fmt::format("Replacement index {} out of range for positional args "
                                        "tuple",
                                        index),
                            "IndexError");
      }
      value = arguments_.positional[index];
    } else {
      const auto found = std::find_if(arguments_.named.begin(), arguments_.named.end(),
                                      [&](const auto& row) { return row.first == first; });
      if (found == arguments_.named.end()) {
        throw TemplateError(TemplateError::Cause::Other, fmt::format("'{}'", printable(first, 40)),
                            "KeyError");
      }
      value = found->second;
    }
    for (std::string_view rest = name.substr(path); !rest.empty();) {
      if (rest[0] == '.') {
        const size_t end = std::min(rest.find_first_of(".[", 1), rest.size());
        value = run_.member(value, rest.substr(1, end - 1));
        rest.remove_prefix(end);
      } else {
        const size_t end = rest.find(']');
        if (end == rest.npos) fail_value("Missing ']' in format string");
        const std::string_view key = rest.substr(1, end - 1);
        const bool index =
            !key.empty() && key.size() < 10 && key.find_first_not_of("0123456789") == key.npos;
        value = run_.item(value,
                          index ? Value(int64_t{std::stoi(std::string(key))}) : Value::text(key));
        rest.remove_prefix(end + 1);
      }
    }
    return value;
  }

  Interpreter& run_;
  const MarkedText& format_;
  const Arguments& arguments_;
  size_t next_ = 0;
};

}  // namespace

MarkedText format_braces(Interpreter& run, const MarkedText& format, const Arguments& arguments) {
  return BraceFormatter(run, format, arguments).formatted();
}

MarkedText format_percent(Interpreter& run, const MarkedText& format, const Value& values) {
  const Sequence* tuple = values.as_sequence();
  if (tuple != nullptr && tuple->kind != Sequence::Kind::Tuple) tuple = nullptr;
  const size_t count = tuple != nullptr ? tuple->items.size() : 1;
  size_t next = 0;
  bool named = false;
  const std::string_view bytes = format.bytes();
  MarkedText out;
  const auto take = [&]() -> Value {
    if (next >= count) fail_type("not enough arguments for format string");
    return tuple != nullptr ? tuple->items[next++] : (++next, values);
  };
  for (size_t at = 0; at < bytes.size();) {
    const size_t percent = std::min(bytes.find('%', at), bytes.size());
    out.append(format, at, percent);
    if (percent == bytes.size()) break;
    at = percent + 1;
    if (at >= bytes.size()) fail_value("incomplete format");
    if (bytes[at] == '%') {
      out.append(format, at, at + 1);
      ++at;
      continue;
    }
    std::optional<Value> value;
    if (bytes[at] == '(') {
      const size_t close = bytes.find(')', at);
      if (close == bytes.npos) fail_value("incomplete format key");
      if (values.as_dict() == nullptr) fail_type("format requires a mapping");
      const Value* found = values.as_dict()->find(bytes.substr(at + 1, close - at - 1));
      if (found == nullptr) {
        throw TemplateError(
            TemplateError::Cause::Other,
            fmt::format("'{}'", printable(bytes.substr(at + 1, close - at - 1), 40)), "KeyError");
      }
      value = *found;
      named = true;
      at = close + 1;
    }
    Specification spec;
    for (; at < bytes.size() && std::string_view("#0- +").find(bytes[at]) != std::string_view::npos;
         ++at) {
      if (bytes[at] == '-') spec.align = '<';
      if (bytes[at] == '0' && spec.align == 0) {
        spec.align = '=';
        spec.fill = "0";
      }
      if (bytes[at] == '+' || bytes[at] == ' ') spec.sign = bytes[at];
      if (bytes[at] == '#') spec.alternate = true;
    }
    const auto integer = [&]() -> int {
      if (at < bytes.size() && bytes[at] == '*') {
        ++at;
        const auto width = take().as_integer();
        if (!width) fail_type("* wants int");
        return static_cast<int>(std::clamp<int64_t>(*width, 0, kMaxWidth));
      }
      int number = 0;
      for (; at < bytes.size() && bytes[at] >= '0' && bytes[at] <= '9'; ++at) {
        number = number * 10 + (bytes[at] - '0');
        if (number > kMaxWidth) fail_value("width too big");
      }
      return number;
    };
    spec.width = integer();
    if (at < bytes.size() && bytes[at] == '.') {
      ++at;
      spec.precision = integer();
    }
    if (at >= bytes.size()) fail_value("incomplete format");
    const char type = bytes[at++];
    const Value one = value ? *value : take();
    run.spend(one.weight());
    if (type == 's' || type == 'r' || type == 'a') {
      MarkedText text;
      if (type == 's') {
        append_str(text, one);
      } else {
        append_repr(text, one);
      }
      if (spec.precision >= 0) {
        text = text.sub(0, offset_of(text.bytes(), static_cast<size_t>(spec.precision)));
      }
      if (spec.align == '=') spec = Specification{.width = spec.width};
      out.append(padded(text, spec, '>', 0));
    } else if (std::string_view("diuxXoeEfFgGc").find(type) != std::string_view::npos) {
      Interpreter::need_defined(one);
      const bool real = std::string_view("eEfFgG").find(type) != std::string_view::npos;
      if (!one.is_number() && !(type == 'c' && one.as_text() != nullptr)) {
        fail_type(
            fmt::format("%{} format: a real number is required, not {}", type, one.type_name()));
      }
      if (type == 'c' && one.as_text() != nullptr) {
        out.append(*one.as_text());
        continue;
      }
      const char code = type == 'i' || type == 'u' ? 'd' : type;
      Value subject = one;
      if (const auto* number = one.as<double>(); number != nullptr && !real) {
        if (!(std::fabs(*number) < 0x1p63)) fail_overflow();
        subject = static_cast<int64_t>(*number);
      }
      std::string text;
      if (spec.align != 0) text += spec.fill + spec.align;
      if (spec.sign != '-') text += spec.sign;
      if (spec.alternate) text += '#';
      if (spec.width > 0) text += std::to_string(spec.width);
      if (spec.precision >= 0 && real) text += "." + std::to_string(spec.precision);
      out.append(format_value(subject, text + code));
    } else {
      fail_value(fmt::format("unsupported format character '{}'", type));
    }
    run.spend_bytes(8 + out.size() / 64);
  }
  if (!named && next < count && values.as_dict() == nullptr) {
    fail_type("not all arguments converted during string formatting");
  }
  return out;
}

}  // namespace quern::chat_template
