#include "text/template/expression_parser.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "text/template/builtins.h"
#include "text/template/template_error.h"

namespace quern::chat_template {
namespace {

using Kind = Token::Kind;
using EK = Expression::Kind;

constexpr int kMaxNesting = 200;     // of expressions and blocks within each other
constexpr int kMaxHeight = 1000;     // of an expression's tree, which long chains make high, too
constexpr size_t kMaxDigits = 4300;  // of an integer, as Python has it

}  // namespace

ExpressionParser::Depth::Depth(ExpressionParser& parser) : parser_(parser) {
  if (++parser_.depth_ > kMaxNesting) {
    parser_.syntax(fmt::format("nests deeper than {} levels", kMaxNesting));
  }
}

void ExpressionParser::syntax(const std::string& problem) const {
  fail(TemplateError::Cause::Syntax, fmt::format("line {}: {}", now().line, problem));
}

void ExpressionParser::unexpected(std::string_view expected) const {
  const std::string found = is(Kind::End)           ? "end of template"
                            : is(Kind::BlockEnd)    ? "end of statement block"
                            : is(Kind::VariableEnd) ? "end of print statement"
                                                    : "'" + printable(now().text, 40) + "'";
  syntax(fmt::format("unexpected {}, expected {}", found, expected));
}

void ExpressionParser::need_op(std::string_view op) {
  if (!skip_op(op)) unexpected(fmt::format("'{}'", op));
}

void ExpressionParser::need_name(std::string_view name) {
  if (!skip_name(name)) unexpected(fmt::format("'{}'", name));
}

std::string ExpressionParser::need_identifier() {
  if (!is(Kind::Name)) unexpected("a name");
  return take().text;
}

int ExpressionParser::id_of(const std::string& name) {
  const auto [entry, added] = ids_.emplace(name, static_cast<int>(tree_.names.size()));
  if (added) tree_.names.push_back(name);
  return entry->second;
}

ExpressionPointer ExpressionParser::make(EK kind) const {
  auto out = std::make_unique<Expression>();
  out->kind = kind;
  out->line = now().line;
  return out;
}

// Sets the height of an expression that is complete.
ExpressionPointer ExpressionParser::sized(ExpressionPointer out) const {
  const auto grow = [&](const ExpressionPointer& part) {
    if (part) out->height = std::max(out->height, part->height + 1);
  };
  for (const auto& item : out->items) grow(item);
  for (const auto& item : out->arguments.positional) grow(item);
  for (const auto& [name, item] : out->arguments.named) grow(item);
  grow(out->arguments.star);
  grow(out->arguments.star_star);
  if (out->height > kMaxHeight) {
    syntax(fmt::format("has an expression of more than {} steps in a row", kMaxHeight));
  }
  return out;
}

ExpressionPointer ExpressionParser::binary(Operator op, ExpressionPointer left,
                                           ExpressionPointer right) const {
  auto out = make(EK::Binary, std::move(left), std::move(right));
  out->op = op;
  return out;
}

ExpressionPointer ExpressionParser::expression(bool with_condition) {
  const Depth depth(*this);
  return with_condition ? choice() : or_expression();
}

ExpressionPointer ExpressionParser::choice() {
  auto value = or_expression();
  while (skip_name("if")) {
    auto condition = or_expression();
    ExpressionPointer otherwise;
    if (skip_name("else")) {
      const Depth depth(*this);
      otherwise = choice();
    }
    value = make(EK::Choice, std::move(value), std::move(condition), std::move(otherwise));
  }
  return value;
}

ExpressionPointer ExpressionParser::or_expression() {
  auto left = and_expression();
  while (skip_name("or")) {
    left = make(EK::Or, std::move(left), and_expression());
  }
  return left;
}

ExpressionPointer ExpressionParser::and_expression() {
  auto left = not_expression();
  while (skip_name("and")) {
    left = make(EK::And, std::move(left), not_expression());
  }
  return left;
}

ExpressionPointer ExpressionParser::not_expression() {
  if (!skip_name("not")) return comparison();
  const Depth depth(*this);
  auto out = make(EK::Unary, not_expression());
  out->op = Operator::Not;
  return out;
}

std::optional<Operator> ExpressionParser::comparison_operator() {
  constexpr std::pair<std::string_view, Operator> kKnown[] = {
      {"==", Operator::Equal},        {"!=", Operator::NotEqual}, {"<=", Operator::LessEqual},
      {">=", Operator::GreaterEqual}, {"<", Operator::Less},      {">", Operator::Greater}};
  for (const auto& [text, op] : kKnown) {
    if (skip_op(text)) return op;
  }
  if (skip_name("in")) return Operator::In;
  if (is_name("not") && peek().kind == Kind::Name && peek().text == "in") {
    take();
    take();
    return Operator::NotIn;
  }
  return std::nullopt;
}

ExpressionPointer ExpressionParser::comparison() {
  auto first = sum();
  ExpressionPointer out;
  while (const auto op = comparison_operator()) {
    if (!out) out = make(EK::Compare, std::move(first));
    out->ops.push_back(*op);
    out->items.push_back(sum());
  }
  return out ? sized(std::move(out)) : std::move(first);
}

ExpressionPointer ExpressionParser::sum() {
  auto left = concatenation();
  for (;;) {
    if (skip_op("+")) {
      left = binary(Operator::Add, std::move(left), concatenation());
    } else if (skip_op("-")) {
      left = binary(Operator::Subtract, std::move(left), concatenation());
    } else {
      return left;
    }
  }
}

ExpressionPointer ExpressionParser::concatenation() {
  auto first = product();
  if (!is_op("~")) return first;
  auto out = make(EK::Concat, std::move(first));
  while (skip_op("~")) out->items.push_back(product());
  return sized(std::move(out));
}

ExpressionPointer ExpressionParser::product() {
  constexpr std::pair<std::string_view, Operator> kKnown[] = {{"*", Operator::Multiply},
                                                              {"/", Operator::Divide},
                                                              {"//", Operator::FloorDivide},
                                                              {"%", Operator::Modulo}};
  auto left = power();
  for (;;) {
    const auto* known = std::find_if(std::begin(kKnown), std::end(kKnown),
                                     [&](const auto& row) { return is_op(row.first); });
    if (known == std::end(kKnown)) return left;
    take();
    left = binary(known->second, std::move(left), power());
  }
}

ExpressionPointer ExpressionParser::power() {
  auto left = unary(true);
  while (skip_op("**")) {
    left = binary(Operator::Power, std::move(left), unary(true));
  }
  return left;
}

ExpressionPointer ExpressionParser::unary(bool with_filters) {
  const Depth depth(*this);
  ExpressionPointer out;
  if (is_op("-") || is_op("+")) {
    const Operator op = take().text == "-" ? Operator::Negative : Operator::Positive;
    out = make(EK::Unary, unary(false));
    out->op = op;
  } else {
    out = primary();
  }
  out = postfix(std::move(out));
  return with_filters ? filter_chain(std::move(out)) : std::move(out);
}

ExpressionPointer ExpressionParser::constant(Value value) const {
  auto out = make(EK::Constant);
  out->constant = std::move(value);
  return out;
}

ExpressionPointer ExpressionParser::number(const Token& token) const {
  if (token.kind == Kind::Float) return constant(std::strtod(token.text.c_str(), nullptr));
  std::string_view digits = token.text;
  int base = 10;
  if (digits.size() > 2 && digits[0] == '0') {
    const char letter = static_cast<char>(digits[1] | 0x20);
    base = letter == 'x' ? 16 : letter == 'o' ? 8 : letter == 'b' ? 2 : 10;
    if (base != 10) digits.remove_prefix(2);
  }
  int64_t value = 0;
  const auto read = std::from_chars(digits.data(), digits.data() + digits.size(), value, base);
  if (read.ec == std::errc()) return constant(value);
  if (base != 10) syntax("has an integer of more than 64 bits");
  if (digits.size() > kMaxDigits) {
    syntax(fmt::format("has an integer of {} digits, at most {} are taken", digits.size(),
                       kMaxDigits));
  }
  return constant(BigInteger{std::make_shared<const std::string>(digits)});
}

ExpressionPointer ExpressionParser::primary() {
  if (is(Kind::Name)) {
    const std::string name = take().text;
    if (name == "true" || name == "True") return constant(true);
    if (name == "false" || name == "False") return constant(false);
    if (name == "none" || name == "None") return constant(None{});
    if (name == "caller") specials_.caller = true;
    if (name == "varargs") specials_.varargs = true;
    if (name == "kwargs") specials_.kwargs = true;
    auto out = make(EK::Name);
    out->name = name;
    out->id = id_of(name);
    return out;
  }
  if (is(Kind::String)) {
    std::string text = take().text;
    while (is(Kind::String)) text += take().text;
    return constant(Value::text(text, kLiteral));
  }
  if (is(Kind::Integer) || is(Kind::Float)) return number(take());
  if (skip_op("(")) {
    auto out = tuple(/*with_condition=*/true, false, /*may_be_empty=*/true);
    need_op(")");
    return out;
  }
  if (skip_op("[")) {
    auto out = make(EK::List);
    while (!is_op("]")) {
      if (!out->items.empty()) need_op(",");
      if (is_op("]")) break;
      out->items.push_back(expression());
    }
    need_op("]");
    return sized(std::move(out));
  }
  if (skip_op("{")) {
    auto out = make(EK::Dict);
    while (!is_op("}")) {
      if (!out->items.empty()) need_op(",");
      if (is_op("}")) break;
      out->items.push_back(expression());
      need_op(":");
      out->items.push_back(expression());
    }
    need_op("}");
    return sized(std::move(out));
  }
  unexpected("an expression");
}

bool ExpressionParser::tuple_ends(bool stop_at_recursive) const {
  if (is(Kind::VariableEnd) || is(Kind::BlockEnd) || is_op(")")) return true;
  return stop_at_recursive && is_name("recursive");
}

ExpressionPointer ExpressionParser::tuple(bool with_condition, bool stop_at_recursive,
                                          bool may_be_empty) {
  const Depth depth(*this);
  std::vector<ExpressionPointer> items;
  bool comma = false;
  for (;;) {
    if (!items.empty()) {
      if (!skip_op(",")) break;
      comma = true;
    }
    if (tuple_ends(stop_at_recursive)) break;
    items.push_back(expression(with_condition));
  }
  if (!comma) {
    if (!items.empty()) return std::move(items[0]);
    if (!may_be_empty) unexpected("an expression");
  }
  auto out = make(EK::Tuple);
  out->items = std::move(items);
  return sized(std::move(out));
}

ExpressionPointer ExpressionParser::postfix(ExpressionPointer node) {
  for (;;) {
    if (is_op(".")) {
      node = member(std::move(node));
    } else if (is_op("[")) {
      node = subscript(std::move(node));
    } else if (is_op("(")) {
      node = call(std::move(node));
    } else {
      return node;
    }
  }
}

ExpressionPointer ExpressionParser::member(ExpressionPointer node) {
  need_op(".");
  if (is(Kind::Integer)) {
    return make(EK::Item, std::move(node), number(take()));
  }
  auto out = make(EK::Member, std::move(node));
  out->name = need_identifier();
  return out;
}

ExpressionPointer ExpressionParser::subscript(ExpressionPointer node) {
  need_op("[");
  ExpressionPointer bounds[3];
  int colons = 0;
  std::vector<ExpressionPointer> items;
  while (!is_op("]")) {
    if (skip_op(":")) {
      if (++colons > 2) syntax("has a slice with more than two colons");
      continue;
    }
    if (colons == 0 && !items.empty()) need_op(",");
    if (bounds[colons]) unexpected("']'");
    auto item = expression();
    if (colons == 0 && !is_op(":")) {
      items.push_back(std::move(item));
    } else {
      bounds[colons] = std::move(item);
    }
  }
  need_op("]");
  if (colons > 0) {
    if (!items.empty()) syntax("has a subscript of slices and more, which no value takes");
    return make(EK::Slice, std::move(node), std::move(bounds[0]), std::move(bounds[1]),
                std::move(bounds[2]));
  }
  if (items.empty()) syntax("expected subscript expression");
  if (items.size() == 1) return make(EK::Item, std::move(node), std::move(items[0]));
  auto key = make(EK::Tuple);
  key->items = std::move(items);
  key = sized(std::move(key));
  return make(EK::Item, std::move(node), std::move(key));
}

CallArguments ExpressionParser::call_arguments() {
  CallArguments out;
  need_op("(");
  bool first = true;
  while (!is_op(")")) {
    if (!first) {
      need_op(",");
      if (is_op(")")) break;
    }
    first = false;
    if (skip_op("*")) {
      if (out.star || out.star_star) syntax("invalid syntax for function call expression");
      out.star = expression();
    } else if (skip_op("**")) {
      if (out.star_star) syntax("invalid syntax for function call expression");
      out.star_star = expression();
    } else if (is(Kind::Name) && peek().kind == Kind::Operator && peek().text == "=") {
      if (out.star_star) syntax("invalid syntax for function call expression");
      std::string name = take().text;
      take();
      out.named.emplace_back(std::move(name), expression());
    } else {
      if (out.star || out.star_star || !out.named.empty()) {
        syntax("invalid syntax for function call expression");
      }
      out.positional.push_back(expression());
    }
  }
  need_op(")");
  return out;
}

ExpressionPointer ExpressionParser::call(ExpressionPointer node) {
  auto out = make(EK::Call, std::move(node));
  out->arguments = call_arguments();
  return sized(std::move(out));
}

std::string ExpressionParser::dotted_name() {
  std::string name = need_identifier();
  while (skip_op(".")) name += "." + need_identifier();
  return name;
}

ExpressionPointer ExpressionParser::filters(ExpressionPointer node, bool first) {
  while (first || skip_op("|")) {
    first = false;
    auto out = make(EK::Filter, std::move(node));
    out->name = dotted_name();
    if (!has_filter(out->name)) {
      syntax(fmt::format("No filter named '{}'.", printable(out->name, 40)));
    }
    if (is_op("(")) out->arguments = call_arguments();
    node = sized(std::move(out));
  }
  return node;
}

ExpressionPointer ExpressionParser::filter_chain(ExpressionPointer node) {
  for (;;) {
    if (is_op("|")) {
      node = filters(std::move(node), false);
    } else if (is_name("is")) {
      node = test(std::move(node));
    } else if (is_op("(")) {
      node = call(std::move(node));
    } else {
      return node;
    }
  }
}

ExpressionPointer ExpressionParser::test(ExpressionPointer node) {
  take();
  const bool negated = skip_name("not");
  auto out = make(EK::Test, std::move(node));
  out->name = dotted_name();
  if (!has_test(out->name)) syntax(fmt::format("No test named '{}'.", printable(out->name, 40)));
  const bool argument = is(Kind::Name) ? !is_name("else") && !is_name("or") && !is_name("and")
                        : is(Kind::Operator)
                            ? is_op("[") || is_op("{")
                            : is(Kind::String) || is(Kind::Integer) || is(Kind::Float);
  if (is_op("(")) {
    out->arguments = call_arguments();
  } else if (argument) {
    if (is_name("is")) syntax("You cannot chain multiple tests with is");
    out->arguments.positional.push_back(postfix(primary()));
  }
  out = sized(std::move(out));
  if (!negated) return out;
  auto inverse = make(EK::Unary, std::move(out));
  inverse->op = Operator::Not;
  return inverse;
}

}  // namespace quern::chat_template
