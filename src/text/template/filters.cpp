// Filters of numbers and of any value, and how filters are found.
#include "text/template/filters.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "text/template/builtins.h"
#include "text/template/interpreter.h"
#include "text/template/python_text.h"

namespace quern::chat_template {
namespace {

using Cause = TemplateError::Cause;

// ---- Numbers

Value do_abs(Interpreter&, const Value& value, const Arguments& given) {
  const ArgumentReader none("abs", given, {});
  Interpreter::need_defined(value);
  if (const auto whole = value.as_integer()) {
    if (*whole == INT64_MIN) fail_overflow();
    return *whole < 0 ? -*whole : *whole;
  }
  if (const auto* number = value.as<double>()) return std::fabs(*number);
  fail_type(fmt::format("bad operand type for abs(): '{}'", value.type_name()));
}

std::optional<int64_t> read_integer(std::string_view text, int64_t base) {
  if (base != 0 && (base < 2 || base > 36)) return std::nullopt;
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
  const long long value = std::strtoll(digits.c_str(), &end, static_cast<int>(base));
  if (end != digits.c_str() + digits.size() || errno != 0) return std::nullopt;
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
  if (end != digits.c_str() + digits.size()) return std::nullopt;
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
    if (const auto whole = read_integer(text->bytes(), args.integer(1, 10))) {
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

// ---- Any value

Value do_default(Interpreter&, const Value& value, const Arguments& given) {
  const ArgumentReader args("default", given, {"default_value", "boolean"});
  const bool missing = value.is_undefined() || (args.flag(1, false) && !value.truthy());
  if (!missing) return value;
  return args[0] != nullptr ? *args[0] : Value(MarkedText());
}
Value do_safe(Interpreter&, const Value& value, const Arguments&) { return value; }
Value do_pprint(Interpreter& run, const Value& value, const Arguments&) {
  run.spend(value.weight());
  MarkedText out;
  append_repr(out, value);
  return run.make_text(std::move(out));
}

const FilterTable& value_filters() {
  static const FilterTable kFilters = {
      {"abs", do_abs}, {"d", do_default},     {"default", do_default}, {"float", do_float},
      {"int", do_int}, {"pprint", do_pprint}, {"round", do_round},     {"safe", do_safe},
  };
  return kFilters;
}

FilterFunction find_filter(std::string_view name) {
  for (const FilterTable* table : {&text_filters(), &sequence_filters(), &value_filters()}) {
    if (const auto found = table->find(name); found != table->end()) return found->second;
  }
  return nullptr;
}

}  // namespace

bool has_filter(std::string_view name) { return find_filter(name) != nullptr; }

Value call_filter(Interpreter& run, std::string_view name, const Value& input,
                  const Arguments& arguments) {
  run.spend(1);
  return find_filter(name)(run, input, arguments);
}

}  // namespace quern::chat_template
