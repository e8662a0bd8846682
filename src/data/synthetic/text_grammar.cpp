#include "data/synthetic/text_grammar.h"

#include <fmt/format.h>
#include <toml++/toml.h>

#include <algorithm>

#include "core/error.h"
#include "core/json.h"
#include "core/python_text.h"
#include "data/synthetic/record_draw.h"

namespace quern {
namespace {

using nlohmann::ordered_json;

constexpr uint64_t kMaxBytes = uint64_t{64} << 20;

// In the order of the file, which toml++'s tables don't have.
std::vector<std::pair<std::string, const toml::node*>> members(const toml::table& table) {
  std::vector<std::pair<std::string, const toml::node*>> all;
  for (const auto& [key, value] : table) all.emplace_back(std::string(key.str()), &value);
  std::ranges::stable_sort(all, {}, [](const auto& member) {
    const auto begin = member.second->source().begin;
    return std::pair(begin.line, begin.column);
  });
  return all;
}

ordered_json to_json(const toml::node& node, const std::string& where) {
  if (const auto* table = node.as_table()) {
    ordered_json out = ordered_json::object();
    for (const auto& [key, value] : members(*table)) out[key] = to_json(*value, where + "." + key);
    return out;
  }
  if (const auto* array = node.as_array()) {
    ordered_json out = ordered_json::array();
    for (const auto& value : *array) out.push_back(to_json(value, where));
    return out;
  }
  if (const auto* value = node.as_integer()) return value->get();
  if (const auto* value = node.as_floating_point()) return value->get();
  if (const auto* value = node.as_boolean()) return value->get();
  if (const auto* value = node.as_string()) return value->get();
  throw_bad_input(where + " is a date", "write it as a string");
}

// Reads the members of a table that are known, and names the others.
class Fields {
 public:
  Fields(const toml::table& table, std::string where) : table_(table), where_(std::move(where)) {}

  std::optional<std::string> text(const char* key) {
    const toml::node* node = find(key);
    if (!node) return std::nullopt;
    if (const auto* value = node->as_string()) return value->get();
    if (const auto* value = node->as_integer()) return fmt::format("{}", value->get());
    if (const auto* value = node->as_floating_point()) return fmt::format("{}", value->get());
    throw_bad_input(where_ + "." + key + " is neither a text nor a number");
  }
  std::optional<double> number(const char* key) {
    const toml::node* node = find(key);
    if (!node) return std::nullopt;
    const auto value = node->value<double>();
    if (!value) throw_bad_input(where_ + "." + key + " is no number");
    return value;
  }
  const toml::node* find(const char* key) {
    known_.insert(key);
    return table_.get(key);
  }
  void finish() const {
    for (const auto& [key, value] : table_) {
      const std::string name(key.str());
      if (known_.contains(name)) continue;
      const std::string near = nearest(name, known_);
      throw_bad_input(fmt::format("{}: unknown key '{}'", where_, printable(name, 60)),
                      near.empty() ? "" : fmt::format("did you mean '{}'?", near));
    }
  }

 private:
  const toml::table& table_;
  std::string where_;
  std::set<std::string> known_;
};

Alternative read_alternative(const toml::node& node, const std::string& where) {
  if (const auto* text = node.as_string()) return {text->get(), 1, {}};
  const auto* table = node.as_table();
  if (!table) throw_bad_input(where + " is neither a text nor a table");
  Fields fields(*table, where);
  Alternative out;
  const auto text = fields.text("text");
  if (!text) throw_bad_input(where + " has no text");
  out.text = *text;
  out.weight = fields.number("weight").value_or(1);
  out.when = fields.text("when").value_or("");
  fields.finish();
  if (!(out.weight >= 0) || out.weight > 1e9) throw_bad_input(where + ".weight is not 0 to 1e9");
  return out;
}

std::vector<Alternative> read_rule(const toml::node& node, const std::string& where) {
  std::vector<Alternative> out;
  if (const auto* array = node.as_array()) {
    for (const auto& value : *array) {
      out.push_back(read_alternative(value, fmt::format("{}[{}]", where, out.size())));
    }
  } else {
    out.push_back(read_alternative(node, where));
  }
  const bool possible = std::ranges::any_of(out, [](const auto& a) { return a.weight > 0; });
  if (!possible) throw_bad_input(where + " has no alternative to draw");
  return out;
}

Binding read_binding(const toml::node& node, const std::string& where) {
  Binding out;
  if (const auto* text = node.as_string()) {
    out.source = text->get();
    return out;
  }
  const auto* table = node.as_table();
  if (!table) throw_bad_input(where + " is neither a text nor a table");
  Fields fields(*table, where);
  if (const auto value = fields.text("value")) {
    out.kind = Binding::Kind::Value;
    out.source = *value;
    if (const auto digits = fields.number("digits")) {
      if (!(*digits >= 0) || *digits > 10) throw_bad_input(where + ".digits is not 0 to 10");
      out.digits = static_cast<int>(*digits);
    }
  } else if (const auto some = fields.text("some")) {
    out.kind = Binding::Kind::Some;
    out.source = *some;
    if (const toml::node* count = fields.find("count")) {
      const auto* array = count->as_array();
      const auto least =
          array && array->size() == 2 ? array->get(0)->value<int64_t>() : count->value<int64_t>();
      const auto most = array && array->size() == 2 ? array->get(1)->value<int64_t>() : least;
      if (!least || !most || *least < 1 || *most < *least || *most > 100'000) {
        throw_bad_input(where + ".count is neither a number nor [least, most]");
      }
      out.least = *least;
      out.most = *most;
    }
    out.with = fields.text("with").value_or("");
    out.when = fields.text("when").value_or("");
  } else if (const auto over = fields.text("each")) {
    out.kind = Binding::Kind::Each;
    out.over = *over;
    const auto rule = fields.text("rule");
    if (!rule) throw_bad_input(where + " has no rule for each of " + *over);
    out.source = *rule;
    out.join = fields.text("join").value_or("\n");
  } else {
    const auto from = fields.text("from"), to = fields.text("to");
    if (!from || !to) {
      throw_bad_input(where + " says nothing to draw from",
                      "a text, or a table with from and to, value, some, or each and rule");
    }
    out.kind = Binding::Kind::Number;
    out.from = *from;
    out.to = *to;
    out.step = fields.number("step").value_or(1);
    if (!(out.step > 0)) throw_bad_input(where + ".step is not above 0");
  }
  fields.finish();
  return out;
}

// The members of a table at the top; nothing where it is absent.
std::vector<std::pair<std::string, const toml::node*>> section(Fields& file, const char* name,
                                                               const std::string& source) {
  const toml::node* node = file.find(name);
  if (!node) return {};
  const auto* table = node->as_table();
  if (!table) throw_bad_input(fmt::format("{}: {} is no table", source, name));
  return members(*table);
}

// A list's values: as they are written, or made of other lists.
std::vector<ordered_json> read_list(const toml::node& node, const GrammarLists& lists,
                                    std::set<std::string>& product_names,
                                    const std::string& where) {
  std::vector<ordered_json> out;
  if (const auto* array = node.as_array()) {
    for (const auto& value : *array) out.push_back(to_json(value, where));
  } else if (const auto* table = node.as_table()) {
    Fields fields(*table, where);
    const toml::node *any = fields.find("any"), *every = fields.find("every");
    const toml::node* as = fields.find("as");
    fields.finish();
    if (any && any->is_array() && !every && !as) {
      for (const auto& name : *any->as_array()) {
        const std::string list = name.value_or(std::string());
        const auto found = lists.find(list);
        if (found == lists.end()) {
          throw_bad_input(
              fmt::format("{}.any: there is no list '{}' before it", where, printable(list, 60)));
        }
        out.insert(out.end(), found->second.begin(), found->second.end());
      }
    } else if (every && every->is_table() && as && !any) {
      ListProduct product;
      for (const auto& [name, list] : members(*every->as_table())) {
        product.every.emplace_back(name, list->value_or(std::string()));
        product_names.insert(name);
      }
      product.as = to_json(*as, where + ".as");
      out = combined(product, lists, where);
    } else {
      throw_bad_input(where + " is made of nothing", "it has either any, or every and as");
    }
  }
  if (out.empty()) throw_bad_input(where + " is no list of values");
  return out;
}

}  // namespace

TextGrammar TextGrammar::load(const fs::path& path) {
  TextGrammar grammar;
  grammar.source_ = path.string();
  grammar.record_ = ordered_json::object();
  grammar.read(path, 0);
  if (grammar.record_.empty()) {
    throw_bad_input(grammar.source_ + ": has no [record]", "it says what a record looks like");
  }
  if (!grammar.distinct_.empty() && !grammar.record_.contains(grammar.distinct_)) {
    throw_bad_input(fmt::format("{}: distinct names '{}', which no record has", grammar.source_,
                                printable(grammar.distinct_, 60)));
  }
  grammar.check();
  return grammar;
}

void TextGrammar::read(const fs::path& path, int depth) {
  constexpr int kMaxDepth = 8;
  const std::string source = path.string();
  if (depth > kMaxDepth) throw_bad_input(source + ": files include one another without an end");
  const std::string text = read_file(path, kMaxBytes);
  toml::table table;
  try {
    table = toml::parse(text);
  } catch (const toml::parse_error& error) {
    throw_bad_input(
        fmt::format("{}: line {}: {}", source, error.source().begin.line, error.description()));
  }
  Fields file(table, source);
  if (const toml::node* include = file.find("include")) {
    const auto read_one = [&](const toml::node& node) {
      const auto name = node.value<std::string>();
      if (!name) throw_bad_input(source + ": include is neither a file's name nor a list of such");
      included_.push_back(path.parent_path() / *name);
      read(path.parent_path() / *name, depth + 1);
    };
    if (const auto* array = include->as_array()) {
      for (const auto& node : *array) read_one(node);
    } else {
      read_one(*include);
    }
  }
  const auto where = [&](const char* part, const std::string& name) {
    return fmt::format("{}: {}.{}", source, part, name);
  };
  const auto add = [&](auto& all, const char* part, const std::string& name, auto value) {
    if (!all.emplace(name, std::move(value)).second) {
      throw_bad_input(where(part, name) + " is defined in a file that this one includes");
    }
  };
  for (const auto& [name, node] : section(file, "list", source)) {
    add(lists_, "list", name, read_list(*node, lists_, product_names_, where("list", name)));
  }
  for (const auto& [name, node] : section(file, "rule", source)) {
    add(rules_, "rule", name, read_rule(*node, where("rule", name)));
  }
  for (const auto& [name, node] : section(file, "let", source)) {
    add(bindings_, "let", name, read_binding(*node, where("let", name)));
  }
  for (const auto& [name, node] : section(file, "record", source)) {
    record_[name] = to_json(*node, where("record", name));
  }
  if (const auto distinct = file.text("distinct")) distinct_ = *distinct;
  file.finish();
}

void TextGrammar::check_name(const std::vector<std::string>& path, const std::string& where,
                             bool in_each) const {
  const std::string& name = path[0];
  if (bindings_.contains(name) || lists_.contains(name) || rules_.contains(name)) return;
  if (name == "item" && in_each) return;
  if (name == "index" || product_names_.contains(name)) return;
  std::set<std::string> known;
  for (const auto& [key, value] : bindings_) known.insert(key);
  for (const auto& [key, value] : lists_) known.insert(key);
  for (const auto& [key, value] : rules_) known.insert(key);
  const std::string near = nearest(name, known);
  throw_bad_input(fmt::format("{}: nothing is called '{}'", where, printable(name, 60)),
                  near.empty() ? "" : fmt::format("did you mean '{}'?", near));
}

void TextGrammar::check_expression(const std::string& expression, const std::string& where) const {
  for (const auto& path : names_in_expression(expression)) {
    if (path[0] == "and" || path[0] == "or" || path[0] == "not") continue;
    check_name(path, where, true);
  }
}

void TextGrammar::check_text(const std::string& text, const std::string& where,
                             bool in_each) const {
  for (const TemplatePart& part : parse_template(text, where)) {
    if (part.kind == TemplatePart::Kind::Expression) check_expression(part.text, where);
    if (!part.path.empty()) check_name(part.path, where, in_each);
  }
}

void TextGrammar::check_value(const ordered_json& value, const std::string& where) const {
  if (value.is_string()) check_text(value.get<std::string>(), where, true);
  if (!value.is_structured()) return;
  for (const auto& [key, inner] : value.items()) {
    check_value(inner, value.is_object() ? where + "." + key : where);
  }
}

void TextGrammar::check() const {
  const auto at = [&](const char* part, const std::string& name) {
    return fmt::format("{}: {}.{}", source_, part, name);
  };
  for (const auto& [name, values] : lists_) {
    for (const ordered_json& value : values) check_value(value, at("list", name));
  }
  for (const auto& [name, alternatives] : rules_) {
    for (const Alternative& alternative : alternatives) {
      check_text(alternative.text, at("rule", name), true);
      check_expression(alternative.when, at("rule", name));
    }
  }
  for (const auto& [name, binding] : bindings_) {
    const std::string where = at("let", name);
    switch (binding.kind) {
      case Binding::Kind::Drawn:
        if (!lists_.contains(binding.source) && !rules_.contains(binding.source)) {
          check_text(binding.source, where, false);
        }
        break;
      case Binding::Kind::Number:
        check_expression(binding.from, where);
        check_expression(binding.to, where);
        break;
      case Binding::Kind::Value:
        check_expression(binding.source, where);
        break;
      case Binding::Kind::Some: {
        const auto list = lists_.find(binding.source);
        if (list == lists_.end()) {
          throw_bad_input(
              fmt::format("{}: there is no list '{}'", where, printable(binding.source, 60)));
        }
        if (static_cast<size_t>(binding.most) > list->second.size()) {
          throw_bad_input(fmt::format("{}: wants up to {} of '{}', which has {}", where,
                                      binding.most, binding.source, list->second.size()));
        }
        if (!binding.with.empty()) check_name({binding.with}, where, false);
        check_expression(binding.when, where);
        break;
      }
      case Binding::Kind::Each:
        check_name({binding.over}, where, false);
        if (!rules_.contains(binding.source)) {
          throw_bad_input(
              fmt::format("{}: there is no rule '{}'", where, printable(binding.source, 60)));
        }
        break;
    }
  }
  for (const auto& [name, value] : record_.items()) check_value(value, at("record", name));
}

std::string TextGrammar::record(uint64_t seed, uint64_t index, uint64_t attempt) const {
  RecordDraw draw(*this, seed, index, attempt);
  ordered_json out = draw.filled(record_);
  if (!out.contains("id")) {
    ordered_json with_id = {{"id", fmt::format("{}-{}", fs::path(source_).stem().string(), index)}};
    with_id.update(out);
    out = std::move(with_id);
  }
  return dump(out);
}

}  // namespace quern
