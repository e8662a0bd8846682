#include "tools/tool.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>

#include "core/error.h"
#include "core/utf8.h"

namespace quern {

void check_tool_name(std::string_view name, std::string_view where) {
  const auto good = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '-' || c == '.';
  };
  if (name.empty() || name.size() > 64 || !std::ranges::all_of(name, good)) {
    throw_bad_input(fmt::format("{}: a tool's name is '{}'", where, printable(name, 60)),
                    "it has 1 to 64 letters, digits, _, - or dots");
  }
}

std::string Secrets::fill(std::string_view text, std::string_view where) {
  std::string out;
  for (size_t at = 0; at < text.size();) {
    const size_t open = text.find("${", at);
    out += text.substr(at, open - at);
    if (open == text.npos) break;
    const size_t close = text.find('}', open);
    if (close == text.npos) {
      throw_bad_input(fmt::format("{}: has ${{ without its }}", where));
    }
    const std::string name(text.substr(open + 2, close - open - 2));
    const char* value = std::getenv(name.c_str());
    if (value == nullptr || *value == '\0') {
      throw_bad_input(
          fmt::format("{}: the environment variable {} is not set", where, printable(name, 60)));
    }
    add(value);
    out += value;
    at = close + 1;
  }
  return out;
}

void Secrets::add(std::string value) {
  if (value.size() < 4 || std::ranges::find(values_, value) != values_.end()) return;
  values_.push_back(std::move(value));
  std::ranges::sort(values_, std::greater<>(), &std::string::size);
}

std::string Secrets::hide(std::string text) const {
  for (const std::string& value : values_) {
    for (size_t at = text.find(value); at != text.npos; at = text.find(value, at + 3)) {
      text.replace(at, value.size(), "***");
    }
  }
  return text;
}

std::string observation_text(std::string_view result, size_t max_bytes) {
  const std::string_view kept = result.substr(0, max_bytes + 4);
  std::string out;
  for (size_t at = 0; at < kept.size();) {
    const utf8::Point point = utf8::decode(kept.substr(at));
    at += point.length;
    const char32_t c = point.value;
    const bool control = (c < 0x20 && c != '\n' && c != '\t') || (c >= 0x7F && c < 0xA0);
    if (!control) utf8::append(out, c);
  }
  if (out.size() <= max_bytes && kept.size() == result.size()) return out;
  size_t end = std::min(max_bytes, out.size());
  while (end > 0 && end < out.size() && (static_cast<unsigned char>(out[end]) & 0xC0) == 0x80)
    --end;
  out.resize(end);
  return out + fmt::format("\n[cut here: {} of {} bytes are shown]", end, result.size());
}

void Toolbox::add(std::unique_ptr<Tool> tool) {
  const ToolSpec& spec = tool->spec();
  check_tool_name(spec.name, spec.origin);
  if (const Tool* other = find(spec.name)) {
    throw_bad_input(fmt::format("two tools are named {}: of {} and of {}", spec.name,
                                other->spec().origin, spec.origin),
                    "rename one of them");
  }
  tools_.push_back(std::move(tool));
}

void Toolbox::add_from(std::unique_ptr<Tool> tool, const std::string& prefix) {
  if (find(tool->spec().name) != nullptr) {
    tool->spec().name = prefix + "-" + tool->spec().name;
  }
  add(std::move(tool));
}

void Toolbox::add_source(std::string origin, Changes changes) {
  sources_.emplace_back(std::move(origin), std::move(changes));
}

bool Toolbox::refresh() {
  bool any = false;
  for (const auto& [origin, changes] : sources_) {
    try {
      auto now = changes();
      if (!now) continue;
      std::erase_if(tools_, [&](const auto& tool) { return tool->spec().origin == origin; });
      for (auto& tool : *now) add_from(std::move(tool), origin);
      any = true;
    } catch (const Error&) {
    }
  }
  return any;
}

Tool* Toolbox::find(std::string_view name) const noexcept {
  const auto found = std::ranges::find_if(
      tools_, [&](const std::unique_ptr<Tool>& tool) { return tool->spec().name == name; });
  return found == tools_.end() ? nullptr : found->get();
}

std::vector<std::string> Toolbox::names() const {
  std::vector<std::string> out;
  for (const auto& tool : tools_) out.push_back(tool->spec().name);
  return out;
}

OrderedJson Toolbox::offered() const {
  OrderedJson list;
  if (tools_.empty()) return list;
  list.kind = OrderedJson::Kind::Array;
  for (const auto& tool : tools_) {
    OrderedJson function, item;
    function.set("name", OrderedJson::of_string(tool->spec().name));
    function.set("description", OrderedJson::of_string(tool->spec().description));
    function.set("parameters", tool->spec().parameters);
    item.set("type", OrderedJson::of_string("function"));
    item.set("function", std::move(function));
    list.items.push_back(std::move(item));
  }
  return list;
}

std::string text_argument(const OrderedJson& arguments, std::string_view name,
                          std::string_view fallback) {
  const OrderedJson* value = arguments.find(name);
  if (value == nullptr || value->is_null()) return std::string(fallback);
  return value->is_string() ? value->text : python_dumps(*value);
}

double number_argument(const OrderedJson& arguments, std::string_view name, double fallback) {
  const OrderedJson* value = arguments.find(name);
  if (value == nullptr) return fallback;
  if (value->is(OrderedJson::Kind::Float)) return value->number;
  if (value->is(OrderedJson::Kind::Integer)) return std::strtod(value->text.c_str(), nullptr);
  return fallback;
}

OrderedJson object_schema(std::string_view members, const std::vector<std::string>& required) {
  OrderedJson out, list;
  out.set("type", OrderedJson::of_string("object"));
  out.set("properties", OrderedJson::parse(members, "a schema"));
  list.kind = OrderedJson::Kind::Array;
  for (const std::string& name : required) list.items.push_back(OrderedJson::of_string(name));
  if (!required.empty()) out.set("required", std::move(list));
  out.set("additionalProperties", OrderedJson::of_bool(false));
  return out;
}

}  // namespace quern
