#include "core/toml.h"

#include <fmt/format.h>
#include <toml++/toml.h>

#include <nlohmann/json.hpp>
#include <sstream>

#include "core/error.h"
#include "core/file.h"

namespace quern {
namespace {

using nlohmann::json;

// toml++ itself limits nesting to 256 levels, so plain recursion is safe here.
json convert(const toml::node& node) {
  if (const auto* table = node.as_table()) {
    json out = json::object();
    for (const auto& [key, value] : *table) out[std::string(key.str())] = convert(value);
    return out;
  }
  if (const auto* array = node.as_array()) {
    json out = json::array();
    for (const auto& value : *array) out.push_back(convert(value));
    return out;
  }
  if (const auto* value = node.as_integer()) return value->get();
  if (const auto* value = node.as_floating_point()) return value->get();
  if (const auto* value = node.as_boolean()) return value->get();
  if (const auto* value = node.as_string()) return value->get();
  std::ostringstream text;
  node.visit([&](const auto& value) {
    if constexpr (toml::is_value<decltype(value)>) text << value.get();
  });
  return text.str();
}

void add_lines(const toml::table& table, const std::string& above,
               std::map<std::string, int>& lines) {
  for (const auto& [key, value] : table) {
    const std::string path = above + std::string(key.str());
    lines[path] = static_cast<int>(value.source().begin.line);
    if (const auto* below = value.as_table()) add_lines(*below, path + ".", lines);
  }
}

}  // namespace

std::map<std::string, int> toml_lines(std::string_view text) {
  std::map<std::string, int> lines;
  try {
    add_lines(toml::parse(text), "", lines);
  } catch (const toml::parse_error&) {  // parse_toml() says what is wrong
  }
  return lines;
}

Json parse_toml(std::string_view text, std::string source) {
  try {
    return Json::wrap(convert(toml::parse(text, source)), source);
  } catch (const toml::parse_error& failure) {
    throw_bad_input(fmt::format("{}: line {}, column {}: {}", source, failure.source().begin.line,
                                failure.source().begin.column, failure.description()));
  }
}

Json parse_toml_file(const std::string& path) {
  return parse_toml(read_file(path, size_t{16} << 20), path);
}

}  // namespace quern
