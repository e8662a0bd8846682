// The statements of a template by Jinja's grammar.
#include <fmt/format.h>

#include <algorithm>

#include "text/template/expression_parser.h"
#include "text/template/template_error.h"

namespace quern::chat_template {
namespace {

using Kind = Token::Kind;
using EK = Expression::Kind;
using SK = Statement::Kind;

class Parser : ExpressionParser {
 public:
  using ExpressionParser::ExpressionParser;

  SyntaxTree run() {
    tree_.body = body({});
    return std::move(tree_);
  }

 private:
  void need_block_end() {
    if (!is(Kind::BlockEnd)) unexpected("the end of the statement block");
    take();
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
      out.body = called_body("endgeneration");
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
  Body called_body(std::string_view end) {
    const int loops = std::exchange(loops_, 0);
    Body out = block(end);
    loops_ = loops;
    return out;
  }
  void caller_body(Statement& out, std::string_view end) {
    const auto seen = std::exchange(specials_, {});
    out.body = called_body(end);
    out.uses_caller = specials_.caller;
    out.uses_varargs = specials_.varargs;
    out.uses_kwargs = specials_.kwargs;
    specials_ = seen;
  }
  void macro_statement(Statement& out) {
    out.target.name = need_identifier();
    check_assignable(out.target.name);
    out.target.id = id_of(out.target.name);
    parameters(out);
    caller_body(out, "endmacro");
  }

  int loops_ = 0;  // around the current place
};

}  // namespace

SyntaxTree parse_template(std::string_view source) { return Parser(source).run(); }

}  // namespace quern::chat_template
