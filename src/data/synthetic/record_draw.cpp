#include "data/synthetic/record_draw.h"

#include <fmt/format.h>

#include <cmath>

#include "core/error.h"
#include "core/json.h"
#include "core/python_text.h"
#include "data/arithmetic.h"

namespace quern {
namespace {

constexpr int kMaxDepth = 100;
constexpr size_t kMaxBytes = size_t{4} << 20;

// FNV-1a: names of streams.
uint64_t hash_of(std::string_view text) noexcept {
  uint64_t hash = 14695981039346656037u;
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 1099511628211u;
  return hash;
}

// Where a comparison's operator stands, outside of quotes.
struct Operator {
  size_t at = std::string_view::npos, size = 0;
};
Operator find_operator(std::string_view text) {
  char quote = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (quote) {
      if (c == quote) quote = 0;
    } else if (c == '"' || c == '\'') {
      quote = c;
    } else if (c == '<' || c == '>' || c == '=' || c == '!') {
      return {i, i + 1 < text.size() && text[i + 1] == '=' ? size_t{2} : size_t{1}};
    }
  }
  return {};
}

}  // namespace

RecordDraw::RecordDraw(const TextGrammar& grammar, uint64_t seed, uint64_t index, uint64_t attempt)
    : grammar_(grammar), seed_(seed), index_(index), attempt_(attempt), rng_(stream("")) {}

Rng RecordDraw::stream(std::string_view name) const {
  const std::string key = fmt::format("{}/{}/{}", index_, attempt_, name);
  return Rng(seed_, hash_of(key));
}

void RecordDraw::fail(const std::string& problem, const std::string& hint) const {
  throw_bad_input(fmt::format("{}: record {}: {}", grammar_.source_, index_, problem), hint);
}

const nlohmann::ordered_json& RecordDraw::draw(const std::vector<Value>& list) {
  return list[static_cast<size_t>(rng_.below(list.size()))];
}

nlohmann::ordered_json RecordDraw::several(const Binding& binding, Rng& rng) {
  const std::vector<Value>& list = grammar_.lists_.at(binding.source);
  const auto span = static_cast<uint64_t>(binding.most - binding.least + 1);
  const auto count = static_cast<size_t>(binding.least) + static_cast<size_t>(rng.below(span));
  std::vector<size_t> order;
  for (size_t i = 0; i < list.size(); ++i) {
    if (binding.when.empty() || holds_for(list[i], binding.when)) order.push_back(i);
  }
  // The one that is to be among them is always.
  size_t wanted = list.size();
  if (!binding.with.empty()) {
    const auto found = std::ranges::find(list, named(binding.with));
    if (found == list.end()) {
      fail(fmt::format("'{}' is none of the list '{}'", binding.with, binding.source));
    }
    wanted = static_cast<size_t>(found - list.begin());
    if (std::ranges::find(order, wanted) == order.end()) order.push_back(wanted);
  }
  if (order.size() < count) {
    fail(fmt::format("wants {} of '{}', of which {} fit", count, binding.source, order.size()));
  }
  for (size_t i = 0; i < count; ++i) {
    std::swap(order[i], order[i + static_cast<size_t>(rng.below(order.size() - i))]);
  }
  order.resize(count);
  if (wanted != list.size() && std::ranges::find(order, wanted) == order.end()) {
    order[static_cast<size_t>(rng.below(count))] = wanted;
  }
  Value out = Value::array();
  for (const size_t i : order) out.push_back(list[i]);
  return out;
}

bool RecordDraw::holds_for(const Value& item, const std::string& condition) {
  const Value* const before = item_;
  item_ = &item;
  const bool out = holds(condition);
  item_ = before;
  return out;
}

std::string RecordDraw::each(const Binding& binding) {
  const Value over = named(binding.over);
  if (!over.is_array()) fail(fmt::format("'{}' is one value, each needs several", binding.over));
  std::string out;
  for (const Value& item : over) {
    const Value* const before = item_;
    item_ = &item;
    if (!out.empty()) out += binding.join;
    out += expand_rule(binding.source);
    item_ = before;
  }
  return out;
}

nlohmann::ordered_json RecordDraw::binding(const std::string& name, const Binding& binding) {
  Rng rng = stream(name);
  // What is drawn on the way comes from this name's stream.
  std::swap(rng, rng_);
  Value out;
  switch (binding.kind) {
    case Binding::Kind::Drawn: {
      const auto list = grammar_.lists_.find(binding.source);
      if (list != grammar_.lists_.end()) {
        out = draw(list->second);
      } else if (grammar_.rules_.contains(binding.source)) {
        out = expand_rule(binding.source);
      } else {
        out = filled(binding.source);
      }
      break;
    }
    case Binding::Kind::Number: {
      const double from = number(binding.from), to = number(binding.to);
      const double steps = std::floor((to - from) / binding.step + 1e-9);
      if (!(steps >= 0) || steps > 1e15) {
        fail(fmt::format("let.{}: nothing lies between {} and {}", name, number_text(from),
                         number_text(to)));
      }
      const auto step = static_cast<double>(rng_.below(static_cast<uint64_t>(steps) + 1));
      out = from + step * binding.step;
      break;
    }
    case Binding::Kind::Value: {
      double value = number(binding.source);
      if (binding.digits) {
        const double scale = std::pow(10, *binding.digits);
        value = std::round(value * scale) / scale;
      }
      out = value;
      break;
    }
    case Binding::Kind::Some:
      out = several(binding, rng_);
      break;
    case Binding::Kind::Each:
      out = each(binding);
      break;
  }
  std::swap(rng, rng_);
  return out;
}

nlohmann::ordered_json RecordDraw::named(const std::string& name) {
  if (name == "index") return index_;
  if (name == "item" && item_) return *item_;
  const auto bound = bound_.find(name);
  if (bound != bound_.end()) return bound->second;
  const auto found = grammar_.bindings_.find(name);
  // Inside its own definition a name means the list or the rule that it hides.
  if (found != grammar_.bindings_.end() && !in_progress_.contains(name)) {
    in_progress_.insert(name);
    Value value = binding(name, found->second);
    in_progress_.erase(name);
    return bound_[name] = std::move(value);
  }
  const auto list = grammar_.lists_.find(name);
  if (list != grammar_.lists_.end()) return draw(list->second);
  if (grammar_.rules_.contains(name)) return expand_rule(name);
  fail(found == grammar_.bindings_.end() ? fmt::format("nothing is called '{}'", name)
                                         : fmt::format("let.{} needs itself", name));
}

nlohmann::ordered_json RecordDraw::at(const std::vector<std::string>& path) {
  Value value = named(path[0]);
  for (size_t i = 1; i < path.size(); ++i) {
    // Of several values: the field of each.
    if (value.is_array()) {
      Value fields = Value::array();
      for (Value& item : value) {
        if (!item.is_object() || !item.contains(path[i])) {
          fail(fmt::format("one of '{}' has no field '{}'", path[0], path[i]));
        }
        fields.push_back(item[path[i]]);
      }
      value = std::move(fields);
      continue;
    }
    if (!value.is_object() || !value.contains(path[i])) {
      fail(fmt::format("'{}' has no field '{}'", path[i - 1], path[i]));
    }
    Value inner = value[path[i]];
    value = std::move(inner);
  }
  return value;
}

std::string RecordDraw::text_of(const Value& value, const std::vector<std::string>& filters) {
  std::string text;
  if (value.is_array()) {
    if (value.empty()) fail("an empty list has no text");
    if (std::ranges::find(filters, "join") != filters.end()) {
      for (const Value& item : value) {
        if (!text.empty()) text += ", ";
        text += text_of(item, {});
      }
    } else {
      const Value drawn = value[static_cast<size_t>(rng_.below(value.size()))];
      text = text_of(drawn, {});
    }
  } else if (value.is_string()) {
    text = expand(value.get<std::string>());
  } else if (value.is_number()) {
    text = number_text(value.get<double>());
  } else if (value.is_boolean()) {
    text = value.get<bool>() ? "true" : "false";
  } else {
    fail("a value of several fields stands where a text should", "name one of its fields");
  }
  for (const std::string& filter : filters) text = apply_filter(filter, std::move(text));
  return text;
}

std::string RecordDraw::expand(const std::string& text) {
  if (text.find_first_of("{}") == text.npos) return text;
  if (++depth_ > kMaxDepth) {
    fail(fmt::format("texts nest deeper than {}", kMaxDepth), "a rule has no end");
  }
  std::string out;
  for (const TemplatePart& part : parse_template(text, grammar_.source_)) {
    switch (part.kind) {
      case TemplatePart::Kind::Literal:
        out += part.text;
        break;
      case TemplatePart::Kind::Expression:
        out += number_text(number(part.text));
        break;
      case TemplatePart::Kind::Slot:
        out += text_of(at(part.path), part.filters);
        break;
      case TemplatePart::Kind::Structure:
        out += dump(filled(at(part.path)));
        break;
    }
    if (bytes_ + out.size() > kMaxBytes) fail("grows beyond 4 MB", "a rule has no end");
  }
  --depth_;
  return out;
}

std::string RecordDraw::expand_rule(const std::string& name) {
  const std::vector<Alternative>& all = grammar_.rules_.at(name);
  double total = 0;
  std::vector<double> weights;
  for (const Alternative& alternative : all) {
    const bool applies = alternative.when.empty() || holds(alternative.when);
    weights.push_back(applies ? alternative.weight : 0);
    total += weights.back();
  }
  if (!(total > 0)) fail(fmt::format("no alternative of rule.{} applies", name));
  double left = rng_.uniform() * total;
  size_t chosen = 0;
  for (size_t i = 0; i < all.size(); ++i) {
    if (weights[i] <= 0) continue;
    chosen = i;
    if ((left -= weights[i]) < 0) break;
  }
  std::string out = expand(all[chosen].text);
  bytes_ += out.size();
  return out;
}

nlohmann::ordered_json RecordDraw::filled(const Value& value) {
  if (value.is_string()) {
    const auto text = value.get<std::string>();
    const auto parts = parse_template(text, grammar_.source_);
    if (parts.size() == 1 && parts[0].kind == TemplatePart::Kind::Structure) {
      if (++depth_ > kMaxDepth) fail("values nest without an end");
      Value out = filled(at(parts[0].path));
      --depth_;
      // A whole number is written as one.
      if (out.is_number_float() && out == std::floor(out.get<double>()) &&
          std::abs(out.get<double>()) < 1e15) {
        return static_cast<int64_t>(out.get<double>());
      }
      return out;
    }
    std::string out = expand(text);
    if ((bytes_ += out.size()) > kMaxBytes) fail("grows beyond 4 MB", "a rule has no end");
    return out;
  }
  if (!value.is_structured()) return value;
  Value out = value.is_array() ? Value::array() : Value::object();
  for (const auto& [key, inner] : value.items()) {
    if (value.is_array()) {
      out.push_back(filled(inner));
    } else {
      out[key] = filled(inner);
    }
  }
  return out;
}

double RecordDraw::number(const std::string& expression) {
  std::string text;
  size_t done = 0;
  for (const auto& path : names_in_expression(expression)) {
    std::string name;
    for (const std::string& part : path) name += (name.empty() ? "" : ".") + part;
    const size_t at_name = expression.find(name, done);
    text += expression.substr(done, at_name - done);
    const Value value = at(path);
    const std::string shown = text_of(value, {});
    if (!parse_python_float(shown)) {
      fail(fmt::format("'{}' is '{}', no number", name, printable(shown, 40)));
    }
    text += "(" + (value.is_number() ? fmt::format("{:.17g}", value.get<double>()) : shown) + ")";
    done = at_name + name.size();
  }
  text += expression.substr(done);
  const std::optional<double> value = evaluate_arithmetic(text);
  if (!value) fail(fmt::format("'{}' has no value: {}", printable(expression, 80), text));
  return *value;
}

std::string RecordDraw::side(std::string_view expression) {
  const std::string_view bare = python::strip(expression);
  if (bare.size() >= 2 && (bare[0] == '"' || bare[0] == '\'') && bare.back() == bare[0]) {
    return std::string(bare.substr(1, bare.size() - 2));
  }
  const auto names = names_in_expression(bare);
  if (names.size() == 1) {
    std::string whole;
    for (const std::string& part : names[0]) whole += (whole.empty() ? "" : ".") + part;
    if (whole == bare) {
      const Value value = at(names[0]);
      return value.is_number() ? fmt::format("{:.17g}", value.get<double>()) : text_of(value, {});
    }
  }
  return fmt::format("{:.17g}", number(std::string(bare)));
}

bool RecordDraw::compare(std::string_view condition) {
  const Operator op = find_operator(condition);
  if (op.at == condition.npos) {
    const std::string value = side(condition);
    return !value.empty() && value != "0" && value != "false";
  }
  const std::string_view sign = condition.substr(op.at, op.size);
  const std::string left = side(condition.substr(0, op.at));
  const std::string right = side(condition.substr(op.at + op.size));
  const auto a = parse_python_float(left), b = parse_python_float(right);
  const auto order = a && b ? *a <=> *b : std::partial_ordering(left <=> right);
  if (sign == "==" || sign == "=") return order == 0;
  if (sign == "!=") return order != 0;
  if (sign == "<") return order < 0;
  if (sign == "<=") return order <= 0;
  if (sign == ">") return order > 0;
  if (sign == ">=") return order >= 0;
  fail(fmt::format("'{}' is no condition", printable(condition, 80)));
}

bool RecordDraw::holds(const std::string& condition) {
  for (const std::string_view any : python::split_at(condition, " or ")) {
    bool all = true;
    for (const std::string_view one : python::split_at(any, " and ")) all = all && compare(one);
    if (all) return true;
  }
  return false;
}

}  // namespace quern
