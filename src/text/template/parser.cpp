#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "text/template/builtins.h"
#include "text/template/lexer.h"
#include "text/template/syntax_tree.h"
#include "text/template/template_error.h"

namespace quern::chat_template {
namespace {

using Kind = Token::Kind;
using EK = Expression::Kind;
using SK = Statement::Kind;

constexpr int kMaxNesting = 200;  // of expressions and blocks within each other
constexpr int kMaxHeight = 1000;  // of an expression's tree, which long chains make high, too

class Parser {
 public:
  explicit Parser(std::string_view source) : tokens_(tokenize_template(source)) {}

  SyntaxTree run() {
    tree_.body = body({});
    return std::move(tree_);
  }

 private:
  struct Depth {
    explicit Depth(Parser& parser) : parser_(parser) {
      if (++parser_.depth_ > kMaxNesting) {
        parser_.syntax(fmt::format("nests deeper than {} levels", kMaxNesting));
      }
    }
    ~Depth() { --parser_.depth_; }
    Depth(const Depth&) = delete;
    Depth& operator=(const Depth&) = delete;
    Parser& parser_;
  };

  // Tokens.
  const Token& now() const { return tokens_[at_]; }
  const Token& peek() const { return tokens_[std::min(at_ + 1, tokens_.size() - 1)]; }
  const Token& take() { return tokens_[at_ + 1 < tokens_.size() ? at_++ : at_]; }
  bool is(Kind kind) const { return now().kind == kind; }
  bool is_op(std::string_view op) const { return is(Kind::Operator) && now().text == op; }
  bool is_name(std::string_view name) const { return is(Kind::Name) && now().text == name; }
  bool skip_op(std::string_view op) { return is_op(op) && (take(), true); }
  bool skip_name(std::string_view name) { return is_name(name) && (take(), true); }
  [[noreturn]] void syntax(const std::string& problem) const {
    fail(TemplateError::Cause::Syntax, fmt::format("line {}: {}", now().line, problem));
  }
  [[noreturn]] void unexpected(std::string_view expected) const {
    const std::string found = is(Kind::End)           ? "end of template"
                              : is(Kind::BlockEnd)    ? "end of statement block"
                              : is(Kind::VariableEnd) ? "end of print statement"
                                                      : "'" + printable(now().text, 40) + "'";
    syntax(fmt::format("unexpected {}, expected {}", found, expected));
  }
  void need_op(std::string_view op) {
    if (!skip_op(op)) unexpected(fmt::format("'{}'", op));
  }
  void need_name(std::string_view name) {
    if (!skip_name(name)) unexpected(fmt::format("'{}'", name));
  }
  std::string need_identifier() {
    if (!is(Kind::Name)) unexpected("a name");
    return take().text;
  }
  void need_block_end() {
    if (!is(Kind::BlockEnd)) unexpected("the end of the statement block");
    take();
  }
  int id_of(const std::string& name) {
    const auto found = std::find(tree_.names.begin(), tree_.names.end(), name);
    if (found != tree_.names.end()) return static_cast<int>(found - tree_.names.begin());
    tree_.names.push_back(name);
    return static_cast<int>(tree_.names.size()) - 1;
  }

  // Statements up to a tag named in `ends`, whose name is then the current token.
  Body body(const std::vector<std::string_view>& ends) {
    const Depth depth(*this);
    Body out;
    for (;;) {
      if (is(Kind::End)) {
        if (ends.empty()) return out;
        syntax(fmt::format("unexpected end of template, expected the tag '{}'", ends.back()));
      }
      if (is(Kind::Data)) {
        Statement statement;
        statement.line = now().line;
        statement.text = take().text;
        out.push_back(std::move(statement));
      } else if (is(Kind::VariableBegin)) {
        take();
        Statement statement;
        statement.kind = SK::Print;
        statement.line = now().line;
        statement.value = tuple(/*with_condition=*/true);
        if (!is(Kind::VariableEnd)) unexpected("the end of the print statement");
        take();
        out.push_back(std::move(statement));
      } else {
        take();  // the block's begin
        if (!is(Kind::Name)) unexpected("the name of a tag");
        if (std::find(ends.begin(), ends.end(), now().text) != ends.end()) return out;
        out.push_back(statement());
      }
    }
  }
  Body block(std::string_view end) {
    need_block_end();
    Body out = body({end});
    take();
    return out;
  }

  Statement statement() {
    Statement out;
    out.line = now().line;
    const std::string tag = take().text;
    if (tag == "if") {
      if_statement(out);
    } else if (tag == "for") {
      for_statement(out);
    } else if (tag == "set") {
      set_statement(out);
    } else if (tag == "with") {
      out.kind = SK::With;
      while (!is(Kind::BlockEnd)) {
        if (!out.assignments.empty()) need_op(",");
        Target to = target(/*members=*/false);
        need_op("=");
        out.assignments.emplace_back(std::move(to), expression());
      }
      out.body = block("endwith");
    } else if (tag == "macro") {
      out.kind = SK::Macro;
      macro_statement(out);
    } else if (tag == "call") {
      out.kind = SK::Call;
      if (is_op("(")) parameters(out);
      out.value = unary(true);
      if (out.value->kind != EK::Call) syntax("expected call");
      caller_body(out, "endcall");
    } else if (tag == "filter") {
      out.kind = SK::Filter;
      out.value = filters(nullptr, /*first=*/true);
      out.body = block("endfilter");
    } else if (tag == "generation") {
      out.kind = SK::Generation;
      tree_.has_generation = true;
      out.body = block("endgeneration");
    } else if (tag == "block") {
      out.kind = SK::Scope;
      const std::string name = need_identifier();
      if (is_name("scoped")) take();
      if (is_name("required")) take();
      out.body = body_after_block_end(name);
    } else if (tag == "autoescape") {
      const auto value = expression();
      if (value->kind != EK::Constant || value->constant.truthy()) {
        syntax("autoescape is not known here: prompts are no HTML");
      }
      out.kind = SK::Scope;
      out.body = block("endautoescape");
    } else if (tag == "break" || tag == "continue") {
      if (loops_ == 0) syntax(fmt::format("'{}' outside loop", tag));
      out.kind = tag == "break" ? SK::Break : SK::Continue;
    } else if (tag == "include" || tag == "import" || tag == "extends" || tag == "from") {
      out.kind = SK::Loader;
      while (!is(Kind::BlockEnd) && !is(Kind::End)) take();
    } else {
      syntax(fmt::format("Encountered unknown tag '{}'.", printable(tag, 40)));
    }
    need_block_end();
    return out;
  }
  Body body_after_block_end(const std::string& name) {
    Body out = block("endblock");
    if (is(Kind::Name) && now().text == name) take();
    return out;
  }

  void if_statement(Statement& out) {
    out.kind = SK::If;
    out.value = tuple(/*with_condition=*/false);
    need_block_end();
    out.body = body({"elif", "else", "endif"});
    const std::string tag = take().text;
    if (tag == "elif") {
      const Depth depth(*this);
      Statement other;
      other.line = now().line;
      if_statement(other);
      out.otherwise.push_back(std::move(other));
    } else if (tag == "else") {
      out.otherwise = block("endif");
    }
  }

  void for_statement(Statement& out) {
    out.kind = SK::For;
    out.target = targets(/*members=*/false);
    need_name("in");
    out.value = tuple(/*with_condition=*/false, /*stop_at_recursive=*/true);
    if (skip_name("if")) out.condition = expression();
    out.recursive = skip_name("recursive");
    need_block_end();
    ++loops_;
    out.body = body({"else", "endfor"});
    --loops_;
    if (take().text == "else") out.otherwise = block("endfor");
  }

  void set_statement(Statement& out) {
    out.target = targets(/*members=*/true);
    if (skip_op("=")) {
      out.kind = SK::Set;
      out.value = tuple(/*with_condition=*/true);
      return;
    }
    out.kind = SK::SetBlock;
    if (is_op("|")) out.value = filters(nullptr, /*first=*/false);
    out.body = block("endset");
  }

  Target target(bool members) {
    if (skip_op("(")) {
      Target out = targets(members);
      need_op(")");
      return out;
    }
    Target out;
    out.name = need_identifier();
    check_assignable(out.name);
    out.id = id_of(out.name);
    if (members && skip_op(".")) out.member = need_identifier();
    return out;
  }
  Target targets(bool members) {
    const Depth depth(*this);
    Target first = target(members);
    if (!is_op(",")) return first;
    Target out;
    out.parts.push_back(std::move(first));
    while (skip_op(",")) {
      if (!is(Kind::Name) && !is_op("(")) break;
      if (is_name("in")) break;
      out.parts.push_back(target(members));
    }
    return out;
  }
  void check_assignable(const std::string& name) const {
    for (const std::string_view constant : {"true", "false", "none", "True", "False", "None"}) {
      if (name == constant) syntax(fmt::format("can't assign to '{}'", name));
    }
  }

  void parameters(Statement& out) {
    need_op("(");
    while (!is_op(")")) {
      if (!out.parameters.empty()) need_op(",");
      Parameter parameter;
      parameter.name = need_identifier();
      check_assignable(parameter.name);
      parameter.id = id_of(parameter.name);
      if (skip_op("=")) {
        parameter.fallback = expression();
      } else if (!out.parameters.empty() && out.parameters.back().fallback) {
        syntax("non-default argument follows default argument");
      }
      out.parameters.push_back(std::move(parameter));
    }
    need_op(")");
  }

  // The body of something that is called: loops around it can't be left from there.
  void caller_body(Statement& out, std::string_view end) {
    const int loops = std::exchange(loops_, 0);
    const auto seen = std::exchange(specials_, {});
    out.body = block(end);
    out.uses_caller = specials_.caller;
    out.uses_varargs = specials_.varargs;
    out.uses_kwargs = specials_.kwargs;
    specials_ = seen;
    loops_ = loops;
  }
  void macro_statement(Statement& out) {
    out.target.name = need_identifier();
    check_assignable(out.target.name);
    out.target.id = id_of(out.target.name);
    parameters(out);
    caller_body(out, "endmacro");
  }

  // Expressions.
  ExpressionPointer make(EK kind) const {
    auto out = std::make_unique<Expression>();
    out->kind = kind;
    out->line = now().line;
    return out;
  }
  template <class... Items>
  ExpressionPointer make(EK kind, Items... items) const {
    auto out = make(kind);
    (out->items.push_back(std::move(items)), ...);
    return sized(std::move(out));
  }
  // With its height, once all is in it.
  ExpressionPointer sized(ExpressionPointer out) const {
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
  ExpressionPointer binary(Operator op, ExpressionPointer left, ExpressionPointer right) const {
    auto out = make(EK::Binary, std::move(left), std::move(right));
    out->op = op;
    return out;
  }

  ExpressionPointer expression(bool with_condition = true) {
    const Depth depth(*this);
    return with_condition ? choice() : or_expression();
  }
  ExpressionPointer choice() {
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
  ExpressionPointer or_expression() {
    auto left = and_expression();
    while (skip_name("or")) {
      left = make(EK::Or, std::move(left), and_expression());
    }
    return left;
  }
  ExpressionPointer and_expression() {
    auto left = not_expression();
    while (skip_name("and")) {
      left = make(EK::And, std::move(left), not_expression());
    }
    return left;
  }
  ExpressionPointer not_expression() {
    if (!skip_name("not")) return comparison();
    const Depth depth(*this);
    auto out = make(EK::Unary, not_expression());
    out->op = Operator::Not;
    return out;
  }
  std::optional<Operator> comparison_operator() {
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
  ExpressionPointer comparison() {
    auto first = sum();
    ExpressionPointer out;
    while (const auto op = comparison_operator()) {
      if (!out) out = make(EK::Compare, std::move(first));
      out->ops.push_back(*op);
      out->items.push_back(sum());
    }
    return out ? sized(std::move(out)) : std::move(first);
  }
  ExpressionPointer sum() {
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
  ExpressionPointer concatenation() {
    auto first = product();
    if (!is_op("~")) return first;
    auto out = make(EK::Concat, std::move(first));
    while (skip_op("~")) out->items.push_back(product());
    return sized(std::move(out));
  }
  ExpressionPointer product() {
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
  ExpressionPointer power() {
    auto left = unary(true);
    while (skip_op("**")) {
      left = binary(Operator::Power, std::move(left), unary(true));
    }
    return left;
  }
  ExpressionPointer unary(bool with_filters) {
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

  ExpressionPointer constant(Value value) const {
    auto out = make(EK::Constant);
    out->constant = std::move(value);
    return out;
  }
  ExpressionPointer number(const Token& token) const {
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
    return constant(BigInteger{std::make_shared<const std::string>(digits)});
  }
  ExpressionPointer primary() {
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

  bool tuple_ends(bool stop_at_recursive) const {
    if (is(Kind::VariableEnd) || is(Kind::BlockEnd) || is_op(")")) return true;
    return stop_at_recursive && is_name("recursive");
  }
  ExpressionPointer tuple(bool with_condition, bool stop_at_recursive = false,
                          bool may_be_empty = false) {
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

  ExpressionPointer postfix(ExpressionPointer node) {
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
  ExpressionPointer member(ExpressionPointer node) {
    need_op(".");
    if (is(Kind::Integer)) {
      return make(EK::Item, std::move(node), number(take()));
    }
    auto out = make(EK::Member, std::move(node));
    out->name = need_identifier();
    return out;
  }
  ExpressionPointer subscript(ExpressionPointer node) {
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

  CallArguments call_arguments() {
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
  ExpressionPointer call(ExpressionPointer node) {
    auto out = make(EK::Call, std::move(node));
    out->arguments = call_arguments();
    return sized(std::move(out));
  }

  std::string dotted_name() {
    std::string name = need_identifier();
    while (skip_op(".")) name += "." + need_identifier();
    return name;
  }
  ExpressionPointer filters(ExpressionPointer node, bool first) {
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
  ExpressionPointer filter_chain(ExpressionPointer node) {
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
  ExpressionPointer test(ExpressionPointer node) {
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

  std::vector<Token> tokens_;
  size_t at_ = 0;
  SyntaxTree tree_;
  int depth_ = 0;
  int loops_ = 0;  // around the current place
  struct Specials {
    bool caller = false, varargs = false, kwargs = false;
  } specials_;
};

}  // namespace

SyntaxTree parse_template(std::string_view source) { return Parser(source).run(); }

}  // namespace quern::chat_template
