// The tokens of a template, and its expressions by Jinja's grammar.
#pragma once

#include <algorithm>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "text/template/lexer.h"
#include "text/template/syntax_tree.h"

namespace quern::chat_template {

// All throw TemplateError of the cause Syntax.
class ExpressionParser {
 public:
  explicit ExpressionParser(std::string_view source) : tokens_(tokenize_template(source)) {}

 protected:
  // One level deeper, for as long as it lives.
  class Depth {
   public:
    explicit Depth(ExpressionParser& parser);
    ~Depth() { --parser_.depth_; }
    Depth(const Depth&) = delete;
    Depth& operator=(const Depth&) = delete;

   private:
    ExpressionParser& parser_;
  };

  const Token& now() const { return tokens_[at_]; }
  const Token& peek() const { return tokens_[std::min(at_ + 1, tokens_.size() - 1)]; }
  const Token& take() { return tokens_[at_ + 1 < tokens_.size() ? at_++ : at_]; }
  bool is(Token::Kind kind) const { return now().kind == kind; }
  bool is_op(std::string_view op) const { return is(Token::Kind::Operator) && now().text == op; }
  bool is_name(std::string_view name) const { return is(Token::Kind::Name) && now().text == name; }
  bool skip_op(std::string_view op) { return is_op(op) && (take(), true); }
  bool skip_name(std::string_view name) { return is_name(name) && (take(), true); }
  void need_op(std::string_view op);
  void need_name(std::string_view name);
  std::string need_identifier();
  [[noreturn]] void syntax(const std::string& problem) const;
  [[noreturn]] void unexpected(std::string_view expected) const;
  int id_of(const std::string& name);

  // `with_condition`: an inline if may follow.
  ExpressionPointer expression(bool with_condition = true);
  // Expressions between commas; a single one without a comma stands for itself.
  ExpressionPointer tuple(bool with_condition, bool stop_at_recursive = false,
                          bool may_be_empty = false);
  ExpressionPointer unary(bool with_filters);
  // A chain of filters over `node`; with `first`, it begins with a name rather than a bar.
  ExpressionPointer filters(ExpressionPointer node, bool first);

  SyntaxTree tree_;
  // Names that a macro's body reads, which make it take more than its parameters.
  struct Specials {
    bool caller = false, varargs = false, kwargs = false;
  } specials_;

 private:
  ExpressionPointer make(Expression::Kind kind) const;
  template <class... Items>
  ExpressionPointer make(Expression::Kind kind, Items... items) const {
    auto out = make(kind);
    (out->items.push_back(std::move(items)), ...);
    return sized(std::move(out));
  }
  ExpressionPointer sized(ExpressionPointer out) const;
  ExpressionPointer binary(Operator op, ExpressionPointer left, ExpressionPointer right) const;
  ExpressionPointer constant(Value value) const;
  ExpressionPointer number(const Token& token) const;

  ExpressionPointer choice();
  ExpressionPointer or_expression();
  ExpressionPointer and_expression();
  ExpressionPointer not_expression();
  std::optional<Operator> comparison_operator();
  ExpressionPointer comparison();
  ExpressionPointer sum();
  ExpressionPointer concatenation();
  ExpressionPointer product();
  ExpressionPointer power();
  ExpressionPointer primary();
  bool tuple_ends(bool stop_at_recursive) const;
  ExpressionPointer postfix(ExpressionPointer node);
  ExpressionPointer member(ExpressionPointer node);
  ExpressionPointer subscript(ExpressionPointer node);
  CallArguments call_arguments();
  ExpressionPointer call(ExpressionPointer node);
  std::string dotted_name();
  ExpressionPointer filter_chain(ExpressionPointer node);
  ExpressionPointer test(ExpressionPointer node);

  std::vector<Token> tokens_;
  size_t at_ = 0;
  std::unordered_map<std::string, int> ids_;  // of tree_.names
  int depth_ = 0;
};

}  // namespace quern::chat_template
