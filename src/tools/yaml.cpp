#include "tools/yaml.h"

#include <fmt/format.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>

#include "core/error.h"

namespace quern {
namespace {

constexpr size_t kMaxBytes = size_t{8} << 20;
constexpr int kMaxDepth = 100;
constexpr int64_t kMaxValues = 1'000'000;

[[noreturn]] void bad(const std::string& source, int line, const std::string& what) {
  throw_bad_input(line < 0 ? fmt::format("{}: {}", source, what)
                           : fmt::format("{}: line {}: {}", source, line + 1, what));
}

// The parser recurses: what could be nested deeply is refused before it sees it.
void check_nesting(std::string_view text, const std::string& source) {
  int open = 0, line = 0, dashes = 0;
  bool line_begin = true;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c == '\n') {
      ++line;
      line_begin = true;
      dashes = 0;
      continue;
    }
    if (c == '[' || c == '{') ++open;
    if ((c == ']' || c == '}') && open > 0) --open;
    if (line_begin && (c == '-' || c == '?')) ++dashes;
    if (c != ' ' && c != '-' && c != '?') line_begin = false;
    const bool indented =
        line_begin && i >= 1000 && text.substr(i - 1000, 1000).find('\n') == text.npos;
    if (open > kMaxDepth || dashes > kMaxDepth || indented) {
      bad(source, line, fmt::format("is nested deeper than {}", kMaxDepth));
    }
  }
}

class Reader {
 public:
  explicit Reader(const std::string& source) : source_(source) {}

  OrderedJson value(const YAML::Node& node, int depth = 0) {
    const int line = node.Mark().line;
    if (depth > kMaxDepth) bad(source_, line, fmt::format("is nested deeper than {}", kMaxDepth));
    if (++values_ > kMaxValues)
      bad(source_, line, fmt::format("has more than {} values", kMaxValues));
    OrderedJson out;
    switch (node.Type()) {
      case YAML::NodeType::Undefined:
      case YAML::NodeType::Null:
        return out;
      case YAML::NodeType::Scalar:
        return scalar(node);
      case YAML::NodeType::Sequence:
        out.kind = OrderedJson::Kind::Array;
        for (const YAML::Node& item : node) out.items.push_back(value(item, depth + 1));
        return out;
      case YAML::NodeType::Map:
        out.kind = OrderedJson::Kind::Object;
        for (const auto& member : node) {
          if (!member.first.IsScalar()) bad(source_, member.first.Mark().line, "a key is no text");
          const std::string key = member.first.Scalar();
          if (out.find(key) != nullptr) {
            bad(source_, member.first.Mark().line,
                fmt::format("the key '{}' stands twice", printable(key, 60)));
          }
          out.set(key, value(member.second, depth + 1));
        }
        return out;
    }
    return out;
  }

 private:
  static bool is_number(std::string_view text) {
    size_t i = text.starts_with('-') || text.starts_with('+') ? 1 : 0;
    const size_t digits = i;
    while (i < text.size() && text[i] >= '0' && text[i] <= '9') ++i;
    bool any = i > digits;
    if (i < text.size() && text[i] == '.') {
      const size_t point = ++i;
      while (i < text.size() && text[i] >= '0' && text[i] <= '9') ++i;
      any = any || i > point;
    }
    if (!any) return false;
    if (i < text.size() && (text[i] == 'e' || text[i] == 'E')) {
      ++i;
      if (i < text.size() && (text[i] == '-' || text[i] == '+')) ++i;
      const size_t exponent = i;
      while (i < text.size() && text[i] >= '0' && text[i] <= '9') ++i;
      if (i == exponent) return false;
    }
    return i == text.size();
  }

  OrderedJson scalar(const YAML::Node& node) const {
    const std::string& text = node.Scalar();
    if (node.Tag() == "!") return OrderedJson::of_string(text);  // in quotes
    if (text.empty() || text == "~" || text == "null" || text == "Null" || text == "NULL")
      return {};
    if (text == "true" || text == "True" || text == "TRUE") return OrderedJson::of_bool(true);
    if (text == "false" || text == "False" || text == "FALSE") return OrderedJson::of_bool(false);
    if (!is_number(text)) return OrderedJson::of_string(text);
    if (text.find_first_of(".eE") == text.npos) {
      std::string digits = text.starts_with('+') ? text.substr(1) : text;
      const bool negative = digits.starts_with('-');
      const size_t first = digits.find_first_not_of('0', negative ? 1 : 0);
      digits = (negative ? "-" : "") + (first == digits.npos ? "0" : digits.substr(first));
      return OrderedJson::of_integer(digits == "-0" ? "0" : digits);
    }
    try {
      return OrderedJson::of_float(std::stod(text));
    } catch (const std::exception&) {  // beyond double
      return OrderedJson::of_string(text);
    }
  }

  const std::string& source_;
  int64_t values_ = 0;
};

}  // namespace

OrderedJson parse_yaml(std::string_view text, const std::string& source) {
  if (text.size() > kMaxBytes) bad(source, -1, "is longer than 8 MB");
  check_nesting(text, source);
  try {
    const std::vector<YAML::Node> documents = YAML::LoadAll(std::string(text));
    if (documents.size() != 1) bad(source, -1, fmt::format("holds {} documents", documents.size()));
    return Reader(source).value(documents[0]);
  } catch (const YAML::Exception& failure) {
    bad(source, failure.mark.line, "is no YAML: " + failure.msg);
  }
}

}  // namespace quern
