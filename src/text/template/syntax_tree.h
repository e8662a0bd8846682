// A parsed template.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "text/template/value.h"

namespace quern::chat_template {

struct Expression;
using ExpressionPointer = std::unique_ptr<Expression>;

enum class Operator : uint8_t {
  Add,
  Subtract,
  Multiply,
  Divide,
  FloorDivide,
  Modulo,
  Power,
  Equal,
  NotEqual,
  Less,
  LessEqual,
  Greater,
  GreaterEqual,
  In,
  NotIn,
  Negative,
  Positive,
  Not,
};

struct CallArguments {
  std::vector<ExpressionPointer> positional;
  std::vector<std::pair<std::string, ExpressionPointer>> named;
  ExpressionPointer star, star_star;  // *list, **dict
};

struct Expression {
  enum class Kind : uint8_t {
    Constant,
    Name,    // id
    List,    // items
    Tuple,   // items
    Dict,    // items: key, value, key, value ...
    Unary,   // op, items[0]
    Binary,  // op, items[0], items[1]
    And,
    Or,
    Compare,  // items[0] ops[0] items[1] ops[1] ...
    Concat,   // items, as texts
    Choice,   // items[0] if items[1] else items[2], which may be null
    Member,   // items[0].name
    Item,     // items[0][items[1]]
    Slice,    // items[0][items[1]:items[2]:items[3]], each of the last three may be null
    Call,     // items[0](arguments)
    Filter,   // items[0] | name(arguments); items[0] is null in a filter block
    Test,     // items[0] is name(arguments)
  };
  Kind kind = Kind::Constant;
  int line = 1;
  int height = 1;  // of the tree below it
  int id = -1;     // of a name
  Operator op = Operator::Add;
  std::string name;
  Value constant;
  std::vector<ExpressionPointer> items;
  std::vector<Operator> ops;
  CallArguments arguments;
};

struct Statement;
using Body = std::vector<Statement>;

struct Parameter {
  int id;
  std::string name;
  ExpressionPointer fallback;  // may be null
};

// A variable, a member of a namespace, or a tuple of targets.
struct Target {
  int id = -1;
  std::string name, member;
  std::vector<Target> parts;
};

struct Statement {
  enum class Kind : uint8_t {
    Text,        // printed as it is
    Print,       // value
    If,          // value, body, otherwise
    For,         // target in value [if condition] [recursive], body, otherwise
    Set,         // target = value
    SetBlock,    // target = body [| value, a chain of filters over null]
    With,        // targets = values, body
    Macro,       // target.name(parameters), body
    Call,        // value is the call, parameters and body are its caller
    Filter,      // value is a chain of filters over null, body
    Generation,  // body
    Scope,       // a block's body
    Loader,      // include and its kin: an error, since a chat template has no other files
    Break,
    Continue,
  };
  Kind kind = Kind::Text;
  int line = 1;
  std::string text;
  Target target;
  ExpressionPointer value, condition;
  Body body, otherwise;
  std::vector<Parameter> parameters;
  std::vector<std::pair<Target, ExpressionPointer>> assignments;
  bool recursive = false;
  bool uses_caller = false, uses_varargs = false, uses_kwargs = false;  // of a macro
};

struct SyntaxTree {
  Body body;
  std::vector<std::string> names;  // by id
  bool has_generation = false;
};

// Throws TemplateError of the cause Syntax, also for what nests too deep.
SyntaxTree parse_template(std::string_view source);

}  // namespace quern::chat_template
