#include "data/synthetic/derived_list.h"

#include <fmt/format.h>

#include <cmath>

#include "core/error.h"
#include "core/python_text.h"
#include "data/synthetic/text_template.h"

namespace quern {
namespace {

using nlohmann::ordered_json;

constexpr size_t kMaxValues = 100'000;
constexpr int kMaxDepth = 20;

// Values of one combination, by name.
class Scope {
 public:
  Scope(std::map<std::string, const ordered_json*> values, const std::string& where)
      : values_(std::move(values)), where_(where) {}

  ordered_json filled(const ordered_json& value, int depth = 0) const {
    if (depth > kMaxDepth) throw_bad_input(where_ + ": slots nest without an end");
    if (value.is_string()) return filled_text(value.get<std::string>(), depth);
    if (!value.is_structured()) return value;
    ordered_json out = value.is_array() ? ordered_json::array() : ordered_json::object();
    for (const auto& [key, inner] : value.items()) {
      if (value.is_array()) {
        out.push_back(filled(inner, depth + 1));
      } else {
        out[text_of(filled_text(key, depth))] = filled(inner, depth + 1);
      }
    }
    return out;
  }

 private:
  const ordered_json* find(const TemplatePart& part) const {
    const auto found = values_.find(part.path[0]);
    if (found == values_.end()) return nullptr;
    const ordered_json* value = found->second;
    for (size_t i = 1; i < part.path.size(); ++i) {
      if (!value->is_object() || !value->contains(part.path[i])) {
        throw_bad_input(fmt::format("{}: '{}' has no field '{}'", where_, part.path[i - 1],
                                    printable(part.path[i], 60)));
      }
      value = &(*value)[part.path[i]];
    }
    return value;
  }

  std::string text_of(const ordered_json& value) const {
    if (value.is_string()) return value.get<std::string>();
    if (value.is_number()) return number_text(value.get<double>());
    if (value.is_boolean()) return value.get<bool>() ? "true" : "false";
    throw_bad_input(where_ + ": a list or a table stands where a text should",
                    "{@name.field}, alone in its text, is the value itself");
  }

  ordered_json filled_text(const std::string& text, int depth) const {
    if (text.find('{') == text.npos) return text;
    const auto parts = parse_template(text, where_);
    if (parts.size() == 1 && parts[0].kind == TemplatePart::Kind::Structure) {
      const ordered_json* value = find(parts[0]);
      return value == nullptr ? ordered_json(text) : filled(*value, depth + 1);
    }
    std::string out;
    for (const TemplatePart& part : parts) {
      const ordered_json* value = part.path.empty() ? nullptr : find(part);
      if (value == nullptr) {
        refuse_computed(part);
        out += template_text(part);
        continue;
      }
      std::string inserted = text_of(filled(*value, depth + 1));
      for (const std::string& filter : part.filters) {
        if (inserted.find('{') != inserted.npos) {
          throw_bad_input(fmt::format("{}: '{}' still has slots and cannot be filtered", where_,
                                      printable(inserted, 60)));
        }
        inserted = apply_filter(filter, std::move(inserted));
      }
      out += inserted;
    }
    return out;
  }

  void refuse_computed(const TemplatePart& part) const {
    if (part.kind != TemplatePart::Kind::Expression) return;
    for (const auto& path : names_in_expression(part.text)) {
      if (!values_.contains(path[0])) continue;
      throw_bad_input(
          fmt::format("{}: {{={}}} computes with '{}'", where_, printable(part.text, 60), path[0]),
          "give it a name in [let]");
    }
  }

  std::map<std::string, const ordered_json*> values_;
  const std::string& where_;
};

}  // namespace

std::vector<ordered_json> combined(const ListProduct& product, const GrammarLists& lists,
                                   const std::string& where) {
  size_t count = 1;
  std::vector<const std::vector<ordered_json>*> values;
  for (const auto& [name, list] : product.every) {
    const auto found = lists.find(list);
    if (found == lists.end()) {
      throw_bad_input(
          fmt::format("{}: there is no list '{}' before it", where, printable(list, 60)));
    }
    values.push_back(&found->second);
    count *= found->second.size();
    if (count > kMaxValues) {
      throw_bad_input(fmt::format("{}: has more than {} combinations", where, kMaxValues));
    }
  }
  std::vector<ordered_json> out;
  for (size_t number = 0; number < count; ++number) {
    std::map<std::string, const ordered_json*> chosen;
    size_t rest = number;
    for (size_t i = values.size(); i-- > 0;) {
      chosen[product.every[i].first] = &(*values[i])[rest % values[i]->size()];
      rest /= values[i]->size();
    }
    out.push_back(Scope(std::move(chosen), where).filled(product.as));
  }
  return out;
}

}  // namespace quern
