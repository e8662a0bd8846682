#include "tools/schema_check.h"

#define VALIJSON_USE_EXCEPTIONS 1  // else what it cannot do ends the program

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <valijson/adapters/nlohmann_json_adapter.hpp>
#include <valijson/schema.hpp>
#include <valijson/schema_parser.hpp>
#include <valijson/validation_results.hpp>
#include <valijson/validator.hpp>

#include "core/error.h"
#include "core/json_tree.h"
#include "grammar/grammar.h"

namespace quern {
namespace {

constexpr size_t kMaxLine = 600;
constexpr size_t kMaxSchemaBytes = size_t{256} << 10;

// Valijson gives patterns to std::regex, which takes the stack for a long text: fits_schema() looks
// at these. False where names are patterns: without them the rest says something else.
bool drop_patterns(nlohmann::json& schema) {
  if (schema.is_object()) {
    if (const auto names = schema.find("patternProperties");
        names != schema.end() && names->is_object()) {
      return false;
    }
    for (const char* name : {"pattern", "format"}) {
      const auto found = schema.find(name);
      if (found != schema.end() && found->is_string()) schema.erase(found);
    }
  }
  if (schema.is_structured()) {
    for (auto& item : schema) {
      if (!drop_patterns(item)) return false;
    }
  }
  return true;
}

void parse(const nlohmann::json& tree, valijson::Schema& schema) {
  valijson::SchemaParser parser;
  const valijson::adapters::NlohmannJsonAdapter adapter(tree);
  parser.populateSchema(adapter, schema);
}

// "<root>[city][0]" → "city[0]"
std::string place(const std::vector<std::string>& context) {
  std::string out;
  for (const std::string& part : context) {
    if (part == "<root>") continue;
    const bool name = part.size() > 2 && part[0] == '[' && (part[1] < '0' || part[1] > '9');
    out += name ? (out.empty() ? "" : ".") + part.substr(1, part.size() - 2) : part;
  }
  return out.empty() ? "the arguments" : printable(out, 80);
}

}  // namespace

std::string schema_problem(const OrderedJson& schema) {
  if (schema.is_null()) return {};
  if (!schema.is_object()) return "the schema is no object";
  try {
    const std::string text = python_dumps(schema);
    if (text.size() > kMaxSchemaBytes) return "the schema is larger than 256 KB";
    nlohmann::json tree = to_json_tree(schema);
    if (!drop_patterns(tree)) return {};
    valijson::Schema parsed;
    parse(tree, parsed);
    return {};
  } catch (const std::exception& problem) {
    return "the schema cannot be read: " + printable(problem.what(), 200);
  }
}

std::string argument_problem(const OrderedJson& schema, const OrderedJson& arguments) {
  if (!arguments.is_object()) return "the arguments are no JSON object";
  if (schema.is_null()) return {};
  std::string out;
  try {
    nlohmann::json tree = to_json_tree(schema);
    const bool known = drop_patterns(tree);
    valijson::Schema parsed;
    if (known) parse(tree, parsed);
    valijson::Validator validator;
    valijson::ValidationResults results;
    const nlohmann::json value = to_json_tree(arguments);
    const valijson::adapters::NlohmannJsonAdapter adapter(value);
    if (known && !validator.validate(parsed, adapter, &results)) {
      valijson::ValidationResults::Error error;
      while (results.popError(error) && out.size() < kMaxLine) {
        out += fmt::format("{}{}: {}", out.empty() ? "" : "; ", place(error.context),
                           printable(error.description, 160));
      }
      if (out.empty()) out = "the arguments do not fit the schema";
      return out;
    }
  } catch (const std::exception& problem) {
    return "the arguments cannot be checked: " + printable(problem.what(), 200);
  }
  try {
    if (!fits_schema(to_ordered_tree(schema), to_ordered_tree(arguments))) {
      return "the arguments do not fit a pattern of the schema";
    }
  } catch (const Error&) {
    // A keyword that only Valijson knows: its word holds.
  }
  return {};
}

}  // namespace quern
