#include "text/template/interpreter.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "core/utf8.h"
#include "text/template/builtins.h"
#include "text/template/python_text.h"

namespace quern::chat_template {
namespace {

using EK = Expression::Kind;
using SK = Statement::Kind;
using Cause = TemplateError::Cause;

constexpr size_t kBytesOfAStep = 8;

Value undefined(std::string problem, bool unsafe = false) {
  return Undefined{std::make_shared<const std::string>(std::move(problem)), unsafe};
}

std::string repr_of(const Value& value) {
  if (value.weight() > 1000) return "a " + value.type_name();
  MarkedText out;
  append_repr(out, value);
  return std::string(out.bytes());
}

std::string type_in_words(const Value& object) {
  return object.is_none() ? "None" : object.type_name() + " object";
}

Value missing_member(const Value& object, std::string_view name) {
  return undefined(fmt::format("'{}' has no attribute '{}'", type_in_words(object), name));
}

Value unsafe_member(const Value& object, std::string_view name) {
  return undefined(
      fmt::format("access to attribute '{}' of '{}' object is unsafe.", name, object.type_name()),
      true);
}

// Bounds of a slice as Python's slice.indices.
struct SliceBounds {
  int64_t begin, end, step;
};

std::optional<int64_t> slice_bound(const Value& value) {
  if (value.is_none()) return std::nullopt;
  const auto whole = value.as_integer();
  if (!whole) {
    Interpreter::need_defined(value);
    fail_type("slice indices must be integers or None or have an __index__ method");
  }
  return whole;
}

SliceBounds slice_bounds(const Value& begin, const Value& end, const Value& step, int64_t length) {
  const int64_t by = slice_bound(step).value_or(1);
  if (by == 0) fail_value("slice step cannot be zero");
  const int64_t low = by < 0 ? -1 : 0, high = by < 0 ? length - 1 : length;
  const auto clamped = [&](const Value& value, int64_t fallback) {
    const auto given = slice_bound(value);
    if (!given) return fallback;
    return *given < 0 ? std::max(*given < -length ? low : *given + length, low)
                      : std::min(*given, high);
  };
  return {clamped(begin, by < 0 ? high : low), clamped(end, by < 0 ? low : high), by};
}

int64_t overflow() {
  throw TemplateError(Cause::Other, "integers past 64 bits are not calculated with",
                      "OverflowError");
}

int64_t floor_divide(int64_t a, int64_t b) {
  if (b == -1) return a == INT64_MIN ? overflow() : -a;
  return a / b - ((a % b != 0 && (a < 0) != (b < 0)) ? 1 : 0);
}

int64_t modulo(int64_t a, int64_t b) {
  if (b == -1) return 0;
  const int64_t rest = a % b;
  return rest != 0 && (rest < 0) != (b < 0) ? rest + b : rest;
}

Value integer_power(int64_t base, int64_t power) {
  if (power < 0) {
    if (base == 0) {
      throw TemplateError(Cause::Other, "0.0 cannot be raised to a negative power",
                          "ZeroDivisionError");
    }
    return std::pow(static_cast<double>(base), static_cast<double>(power));
  }
  int64_t result = 1;
  if (base == 0 || base == 1) return power == 0 ? int64_t{1} : base;
  if (base == -1) return power % 2 == 0 ? int64_t{1} : int64_t{-1};
  for (; power > 0; --power) {
    if (__builtin_mul_overflow(result, base, &result)) overflow();
  }
  return result;
}

const char* symbol(Operator op) {
  constexpr const char* kSymbols[] = {"+",           "-",  "*",      "/", "//", "%",
                                      "** or pow()", "==", "!=",     "<", "<=", ">",
                                      ">=",          "in", "not in", "-", "+",  "not"};
  return kSymbols[static_cast<size_t>(op)];
}

}  // namespace

struct Interpreter::Scope {
  Scope* parent = nullptr;
  bool captured = false;  // by a macro, which may outlive it
  std::vector<std::pair<int, Value>> variables;

  Value* find(int id) {
    for (auto& [name, value] : variables) {
      if (name == id) return &value;
    }
    return nullptr;
  }
};

// One level deeper, for as long as it lives.
class Interpreter::Nesting {
 public:
  explicit Nesting(Interpreter& interpreter) : interpreter_(interpreter) {
    if (++interpreter_.depth_ > interpreter_.limits_.depth) {
      --interpreter_.depth_;
      fail(Cause::Limit,
           fmt::format("it nests or recurses deeper than {} levels", interpreter_.limits_.depth));
    }
  }
  ~Nesting() { --interpreter_.depth_; }
  Nesting(const Nesting&) = delete;
  Nesting& operator=(const Nesting&) = delete;

 private:
  Interpreter& interpreter_;
};

// A scope within `parent`, for as long as it lives.
class Interpreter::Inner {
 public:
  Inner(Interpreter& interpreter, Scope* parent)
      : interpreter_(interpreter), outer_(interpreter.scope_) {
    if (interpreter.free_scopes_.empty()) {
      interpreter.scopes_.push_back(std::make_unique<Scope>());
      scope_ = interpreter.scopes_.back().get();
    } else {
      scope_ = interpreter.free_scopes_.back();
      interpreter.free_scopes_.pop_back();
    }
    scope_->parent = parent;
    interpreter.scope_ = scope_;
  }
  ~Inner() {
    interpreter_.scope_ = outer_;
    if (scope_->captured) return;
    scope_->variables.clear();
    interpreter_.free_scopes_.push_back(scope_);
  }
  Inner(const Inner&) = delete;
  Inner& operator=(const Inner&) = delete;

 private:
  Interpreter& interpreter_;
  Scope* outer_;
  Scope* scope_;
};

Interpreter::Interpreter(const SyntaxTree& tree, const TemplateLimits& limits, const LocalTime& now)
    : tree_(tree), limits_(limits), now_(now), left_(limits.steps) {}

Interpreter::~Interpreter() {
  // Macros and namespaces can hold each other in circles: they are parted first.
  for (const auto& scope : scopes_) scope->variables.clear();
  for (const NamespacePointer& space : namespaces_) {
    const auto members = std::exchange(space->members, {});
  }
}

void Interpreter::out_of_steps() const {
  fail(Cause::Limit, fmt::format("it takes more than {} steps", limits_.steps));
}

void Interpreter::spend_bytes(size_t bytes) {
  if (bytes > limits_.text_bytes) {
    fail(Cause::Limit, fmt::format("it makes a text of more than {} bytes", limits_.text_bytes));
  }
  spend(bytes / kBytesOfAStep);
}

int Interpreter::value_depth(int depth) const {
  if (depth > limits_.value_depth) {
    fail(Cause::Limit,
         fmt::format("it nests lists and dicts deeper than {} levels", limits_.value_depth));
  }
  return depth;
}

Value Interpreter::make_list(std::vector<Value> items, Sequence::Kind kind) {
  spend(items.size());
  auto list = std::make_shared<Sequence>();
  list->kind = kind;
  for (const Value& item : items) {
    list->depth = std::max(list->depth, item.depth() + 1);
    list->weight = add_weights(list->weight, item.weight());
  }
  value_depth(list->depth);
  list->items = std::move(items);
  return list;
}

Value Interpreter::make_text(MarkedText text) {
  spend_bytes(text.size());
  return text;
}

void Interpreter::need_defined(const Value& value) {
  const auto* missing = value.as<Undefined>();
  if (missing == nullptr) return;
  fail(missing->unsafe ? Cause::Security : Cause::Undefined, *missing->problem);
}

MarkedText Interpreter::render(const Variables& variables) {
  globals_.assign(tree_.names.size(), Undefined{});
  for (size_t id = 0; id < tree_.names.size(); ++id) {
    const std::string& name = tree_.names[id];
    const auto given = std::find_if(variables.begin(), variables.end(),
                                    [&](const auto& row) { return row.first == name; });
    if (given != variables.end()) {
      globals_[id] = given->second;
    } else if (auto builtin = find_global(name)) {
      globals_[id] = std::move(*builtin);
    } else {
      globals_[id] = undefined(fmt::format("'{}' is undefined", name));
    }
  }
  MarkedText out;
  out_ = &out;
  const Inner scope(*this, nullptr);
  run(tree_.body);
  return out;
}

// ---- Statements

Interpreter::Flow Interpreter::run(const Body& body) {
  const Nesting nesting(*this);
  for (const Statement& statement : body) {
    if (const Flow flow = run(statement); flow != Flow::Normal) return flow;
  }
  return Flow::Normal;
}

template <class Work>
MarkedText Interpreter::captured(const Work& work) {
  struct Restore {
    MarkedText*& slot;
    MarkedText* old;
    ~Restore() { slot = old; }
  } const restore{out_, out_};
  MarkedText text;
  out_ = &text;
  work();
  return text;
}

void Interpreter::print(const Value& value) {
  if (!value.is_undefined()) spend(value.weight());
  append_str(*out_, value);
  if (out_->size() > limits_.text_bytes) spend_bytes(out_->size());
}

Interpreter::Flow Interpreter::run(const Statement& statement) {
  spend(1);
  switch (statement.kind) {
    case SK::Text:
      out_->append(statement.text, kLiteral);
      spend_bytes(statement.text.size());
      if (out_->size() > limits_.text_bytes) spend_bytes(out_->size());
      return Flow::Normal;
    case SK::Print:
      print(evaluate(*statement.value));
      return Flow::Normal;
    case SK::If:
      return run(evaluate(*statement.value).truthy() ? statement.body : statement.otherwise);
    case SK::For:
      return run_for(statement, evaluate(*statement.value), 0);
    case SK::Set:
      assign(statement.target, evaluate(*statement.value));
      return Flow::Normal;
    case SK::SetBlock:
    case SK::Filter: {
      Flow flow = Flow::Normal;
      const Inner scope(*this, scope_);
      Value text = make_text(captured([&] { flow = run(statement.body); }));
      if (flow != Flow::Normal) return flow;
      if (statement.value) text = filtered(statement.value.get(), text);
      if (statement.kind == SK::Filter) {
        print(text);
      } else {
        // The target is outside of the block's scope.
        Scope* inner = std::exchange(scope_, scope_->parent);
        assign(statement.target, text);
        scope_ = inner;
      }
      return flow;
    }
    case SK::With: {
      std::vector<Value> values;
      for (const auto& [target, value] : statement.assignments) values.push_back(evaluate(*value));
      const Inner scope(*this, scope_);
      for (size_t i = 0; i < values.size(); ++i) assign(statement.assignments[i].first, values[i]);
      return run(statement.body);
    }
    case SK::Macro:
      assign(statement.target.id, macro(statement, statement.target.name));
      return Flow::Normal;
    case SK::Call: {
      const Expression& called = *statement.value;
      const Value callee = evaluate(*called.items[0]);
      Arguments given = arguments(called.arguments);
      given.named.emplace_back("caller", macro(statement, "caller"));
      print(call(callee, given));
      return Flow::Normal;
    }
    case SK::Generation: {
      const Inner scope(*this, scope_);
      const size_t begin = out_->size();
      run(statement.body);
      // Marked while it lies at the end of what was printed so far: nothing else is copied.
      MarkedText body = out_->sub(begin, out_->size());
      spend_bytes(2 * body.size());
      body.mark_generated(0, body.size());
      out_->truncate(begin);
      out_->append(body);
      return Flow::Normal;
    }
    case SK::Scope: {
      const Inner scope(*this, scope_);
      return run(statement.body);
    }
    case SK::Loader:
      fail_type("no loader for this environment specified");
    case SK::Break:
      return Flow::Break;
    case SK::Continue:
      return Flow::Continue;
  }
  return Flow::Normal;
}

// What a loop's body knows as `loop`.
struct Interpreter::Loop {
  SequencePointer items;
  size_t index = 0;
  int depth = 0;
  std::optional<std::vector<Value>> last_seen;  // by changed()

  std::optional<Value> attribute(std::string_view name) {
    const auto number = [](auto value) { return Value(static_cast<int64_t>(value)); };
    const size_t count = items->items.size();
    if (name == "index") return number(index + 1);
    if (name == "index0") return number(index);
    if (name == "revindex") return number(count - index);
    if (name == "revindex0") return number(count - index - 1);
    if (name == "length") return number(count);
    if (name == "depth") return number(depth + 1);
    if (name == "depth0") return number(depth);
    if (name == "first") return Value(index == 0);
    if (name == "last") return Value(index + 1 == count);
    if (name == "previtem") {
      return index > 0 ? items->items[index - 1] : undefined("there is no previous item");
    }
    if (name == "nextitem") {
      return index + 1 < count ? items->items[index + 1] : undefined("there is no next item");
    }
    return std::nullopt;
  }
};

Interpreter::Flow Interpreter::run_for(const Statement& statement, const Value& over, int depth) {
  const Nesting nesting(*this);
  SequencePointer items = iterate(over);
  if (statement.condition) {
    std::vector<Value> kept;
    for (const Value& item : items->items) {
      const Inner scope(*this, scope_);
      spend(1);
      assign(statement.target, item);
      if (evaluate(*statement.condition).truthy()) kept.push_back(item);
    }
    items = iterate(make_list(std::move(kept)));
  }
  if (items->items.empty()) {
    const Inner scope(*this, scope_);
    return run(statement.otherwise);
  }
  const auto loop = std::make_shared<Loop>();
  loop->items = items;
  loop->depth = depth;
  static const std::string kLoop = "loop";
  const auto known = std::find(tree_.names.begin(), tree_.names.end(), kLoop);
  Value handle = None{};
  Scope* home = scope_;
  if (known != tree_.names.end()) {
    auto function = std::make_shared<Function>();
    function->name = kLoop;
    function->type = "LoopContext";
    const std::weak_ptr<Loop> weak = loop;
    function->attribute = [weak](Interpreter& run, std::string_view name) -> std::optional<Value> {
      const auto state = weak.lock();
      if (!state) return undefined("the loop is over");
      if (auto value = state->attribute(name)) return value;
      if (name != "cycle" && name != "changed") return std::nullopt;
      auto method = std::make_shared<Function>();
      method->name = std::string(name);
      method->type = "method";
      method->call = [weak, cycle = name == "cycle"](Interpreter& runner,
                                                     const Arguments& given) -> Value {
        const auto now = weak.lock();
        if (!now) return undefined("the loop is over");
        if (cycle) {
          if (given.positional.empty()) fail_type("no items for cycling given");
          return given.positional[now->index % given.positional.size()];
        }
        runner.spend(given.positional.size());
        const bool same =
            now->last_seen && std::equal(now->last_seen->begin(), now->last_seen->end(),
                                         given.positional.begin(), given.positional.end(), equal);
        now->last_seen = given.positional;
        return !same;
      };
      (void)run;
      return Value(FunctionPointer(std::move(method)));
    };
    if (statement.recursive) {
      function->call = [&statement, home, depth](Interpreter& run,
                                                 const Arguments& given) -> Value {
        if (given.positional.size() != 1) fail_type("loop() takes one argument");
        Scope* here = std::exchange(run.scope_, home);
        struct Restore {
          Scope*& slot;
          Scope* old;
          ~Restore() { slot = old; }
        } const restore{run.scope_, here};
        return run.make_text(
            run.captured([&] { run.run_for(statement, given.positional[0], depth + 1); }));
      };
    }
    handle = FunctionPointer(std::move(function));
  }
  for (; loop->index < items->items.size(); ++loop->index) {
    const Inner scope(*this, home);
    spend(1);
    if (!handle.is_none()) assign(static_cast<int>(known - tree_.names.begin()), handle);
    assign(statement.target, items->items[loop->index]);
    if (run(statement.body) == Flow::Break) break;
  }
  return Flow::Normal;
}

Value Interpreter::macro(const Statement& statement, std::string name) {
  for (Scope* scope = scope_; scope != nullptr && !scope->captured; scope = scope->parent) {
    scope->captured = true;
  }
  auto function = std::make_shared<Function>();
  function->name = name;
  function->type = "Macro";
  function->call = [this, &statement, name, home = scope_](Interpreter&, const Arguments& given) {
    return call_macro(statement, name, home, given);
  };
  function->attribute = [name](Interpreter&, std::string_view wanted) -> std::optional<Value> {
    if (wanted == "name") return Value::text(name);
    return std::nullopt;
  };
  return FunctionPointer(std::move(function));
}

Value Interpreter::call_macro(const Statement& statement, const std::string& name, Scope* home,
                              const Arguments& given) {
  const Nesting nesting(*this);
  const auto& parameters = statement.parameters;
  if (given.positional.size() > parameters.size() && !statement.uses_varargs) {
    fail_type(
        fmt::format("macro '{}' takes not more than {} argument(s)", name, parameters.size()));
  }
  const Inner scope(*this, home);
  std::vector<bool> used(given.named.size(), false);
  const auto named = [&](std::string_view wanted) -> const Value* {
    for (size_t i = 0; i < given.named.size(); ++i) {
      if (given.named[i].first != wanted) continue;
      used[i] = true;
      return &given.named[i].second;
    }
    return nullptr;
  };
  for (size_t i = 0; i < parameters.size(); ++i) {
    spend(1);
    const Parameter& parameter = parameters[i];
    if (i < given.positional.size()) {
      assign(parameter.id, given.positional[i]);
    } else if (const Value* value = named(parameter.name)) {
      assign(parameter.id, *value);
    } else if (parameter.fallback) {
      assign(parameter.id, evaluate(*parameter.fallback));
    } else {
      assign(parameter.id,
             undefined(fmt::format("parameter '{}' was not provided", parameter.name)));
    }
  }
  const auto special = [&](const char* wanted, bool wants, Value value) {
    if (!wants) return;
    const auto known = std::find(tree_.names.begin(), tree_.names.end(), wanted);
    assign(static_cast<int>(known - tree_.names.begin()), std::move(value));
  };
  const Value* caller = named("caller");
  if (caller != nullptr && !statement.uses_caller) {
    fail_type(fmt::format("macro '{}' takes no keyword argument 'caller'", name));
  }
  special("caller", statement.uses_caller,
          caller != nullptr ? *caller : undefined("No caller defined"));
  std::vector<Value> more;
  for (size_t i = parameters.size(); i < given.positional.size(); ++i) {
    more.push_back(given.positional[i]);
  }
  special("varargs", statement.uses_varargs, make_list(std::move(more), Sequence::Kind::Tuple));
  auto others = std::make_shared<Dict>();
  for (size_t i = 0; i < given.named.size(); ++i) {
    if (used[i]) continue;
    if (!statement.uses_kwargs) {
      fail_type(
          fmt::format("macro '{}' takes no keyword argument '{}'", name, given.named[i].first));
    }
    others->set(Value::text(given.named[i].first), given.named[i].second);
  }
  special("kwargs", statement.uses_kwargs, DictPointer(std::move(others)));
  return make_text(captured([&] { run(statement.body); }));
}

// ---- Variables

Value Interpreter::lookup(int id) {
  for (Scope* scope = scope_; scope != nullptr; scope = scope->parent) {
    spend(1);
    if (const Value* found = scope->find(id)) return *found;
  }
  return globals_[static_cast<size_t>(id)];
}

void Interpreter::assign(int id, Value value) {
  if (Value* old = scope_->find(id)) {
    *old = std::move(value);
  } else {
    scope_->variables.emplace_back(id, std::move(value));
  }
}

void Interpreter::assign(const Target& target, const Value& value) {
  if (!target.parts.empty()) {
    const SequencePointer items = iterate(value);
    if (items->items.size() < target.parts.size()) {
      fail_value(fmt::format("not enough values to unpack (expected {}, got {})",
                             target.parts.size(), items->items.size()));
    }
    if (items->items.size() > target.parts.size()) {
      fail_value(fmt::format("too many values to unpack (expected {})", target.parts.size()));
    }
    for (size_t i = 0; i < target.parts.size(); ++i) assign(target.parts[i], items->items[i]);
    return;
  }
  if (target.member.empty()) return assign(target.id, value);
  const Value holder = lookup(target.id);
  Namespace* space = holder.as_namespace();
  if (space == nullptr || space->type != "Namespace") {
    throw TemplateError(Cause::Other, "cannot assign attribute on non-namespace object",
                        "TemplateRuntimeError");
  }
  if (target.member.starts_with('_')) {
    fail(Cause::Security, fmt::format("Chat templates cannot store underscore-prefixed attributes "
                                      "on a namespace, but got '{}'. Please rename the attribute.",
                                      target.member));
  }
  space->depth = value_depth(std::max(space->depth, value.depth() + 1));
  const auto found = std::find_if(space->members.begin(), space->members.end(),
                                  [&](const auto& row) { return row.first == target.member; });
  if (found != space->members.end()) {
    found->second = value;
  } else {
    space->members.emplace_back(target.member, value);
  }
}

// ---- Expressions

Value Interpreter::evaluate_or_none(const ExpressionPointer& expression) {
  return expression ? evaluate(*expression) : Value(None{});
}

Arguments Interpreter::arguments(const CallArguments& given) {
  Arguments out;
  for (const auto& argument : given.positional) out.positional.push_back(evaluate(*argument));
  for (const auto& [name, argument] : given.named)
    out.named.emplace_back(name, evaluate(*argument));
  if (given.star) {
    for (const auto all = iterate(evaluate(*given.star)); const Value& item : all->items)
      out.positional.push_back(item);
  }
  if (given.star_star) {
    const Value all = evaluate(*given.star_star);
    const Dict* dict = all.as_dict();
    if (dict == nullptr) fail_type("argument after ** must be a mapping");
    for (const auto& [name, value] : dict->members) {
      const MarkedText* text = name.as_text();
      if (text == nullptr) fail_type("keywords must be strings");
      out.named.emplace_back(std::string(text->bytes()), value);
    }
  }
  spend(out.positional.size() + out.named.size());
  return out;
}

Value Interpreter::evaluate(const Expression& e) {
  spend(1);
  const Nesting nesting(*this);
  switch (e.kind) {
    case EK::Constant:
      return e.constant;
    case EK::Name:
      return lookup(e.id);
    case EK::List:
    case EK::Tuple: {
      std::vector<Value> items;
      items.reserve(e.items.size());
      for (const auto& item : e.items) items.push_back(evaluate(*item));
      return make_list(std::move(items),
                       e.kind == EK::List ? Sequence::Kind::List : Sequence::Kind::Tuple);
    }
    case EK::Dict: {
      auto dict = std::make_shared<Dict>();
      for (size_t i = 0; i < e.items.size(); i += 2) {
        const Value key = evaluate(*e.items[i]);
        if (!hash_of(key)) fail_type(fmt::format("unhashable type: '{}'", key.type_name()));
        dict->set(key, evaluate(*e.items[i + 1]));
        spend(1);
      }
      value_depth(dict->depth);
      return DictPointer(std::move(dict));
    }
    case EK::Unary:
      return unary(e.op, evaluate(*e.items[0]));
    case EK::Binary: {
      const Value left = evaluate(*e.items[0]);
      return binary(e.op, left, evaluate(*e.items[1]));
    }
    case EK::And: {
      Value left = evaluate(*e.items[0]);
      return left.truthy() ? evaluate(*e.items[1]) : left;
    }
    case EK::Or: {
      Value left = evaluate(*e.items[0]);
      return left.truthy() ? left : evaluate(*e.items[1]);
    }
    case EK::Compare:
      return compare(e);
    case EK::Concat: {
      MarkedText text;
      for (const auto& item : e.items) {
        const Value value = evaluate(*item);
        spend(value.weight());
        append_str(text, value);
      }
      return make_text(std::move(text));
    }
    case EK::Choice:
      if (evaluate(*e.items[1]).truthy()) return evaluate(*e.items[0]);
      if (e.items[2]) return evaluate(*e.items[2]);
      return undefined(
          fmt::format("the inline if-expression on line {} evaluated to false and no "
                      "else section was defined.",
                      e.line));
    case EK::Member:
      return member(evaluate(*e.items[0]), e.name);
    case EK::Item: {
      const Value object = evaluate(*e.items[0]);
      return item(object, evaluate(*e.items[1]));
    }
    case EK::Slice: {
      const Value object = evaluate(*e.items[0]);
      const Value begin = evaluate_or_none(e.items[1]), end = evaluate_or_none(e.items[2]);
      return slice(object, begin, end, evaluate_or_none(e.items[3]));
    }
    case EK::Call: {
      const Value callee = evaluate(*e.items[0]);
      return call(callee, arguments(e.arguments));
    }
    case EK::Filter: {
      const Value input = evaluate(*e.items[0]);
      return call_filter(*this, e.name, input, arguments(e.arguments));
    }
    case EK::Test: {
      const Value input = evaluate(*e.items[0]);
      return call_test(*this, e.name, input, arguments(e.arguments));
    }
  }
  return None{};
}

Value Interpreter::filtered(const Expression* chain, const Value& input) {
  const Nesting nesting(*this);
  const Value inner = chain->items[0] ? filtered(chain->items[0].get(), input) : input;
  return call_filter(*this, chain->name, inner, arguments(chain->arguments));
}

Value Interpreter::unary(Operator op, const Value& value) {
  if (op == Operator::Not) return !value.truthy();
  need_defined(value);
  const bool negative = op == Operator::Negative;
  if (const auto* number = value.as<double>()) return negative ? -*number : *number;
  if (const auto whole = value.as_integer()) {
    if (negative && *whole == INT64_MIN) overflow();
    return negative ? -*whole : *whole;
  }
  fail_type(fmt::format("bad operand type for unary {}: '{}'", symbol(op), value.type_name()));
}

Value Interpreter::binary(Operator op, const Value& a, const Value& b) {
  need_defined(a);
  need_defined(b);
  const auto whole_a = a.as_integer(), whole_b = b.as_integer();
  const auto zero = [](const char* problem) {
    throw TemplateError(Cause::Other, problem, "ZeroDivisionError");
  };
  if (op == Operator::Modulo && a.as_text() != nullptr) {
    return make_text(format_percent(*this, *a.as_text(), b));
  }
  if (whole_a && whole_b) {
    int64_t result = 0;
    switch (op) {
      case Operator::Add:
        return __builtin_add_overflow(*whole_a, *whole_b, &result) ? overflow() : result;
      case Operator::Subtract:
        return __builtin_sub_overflow(*whole_a, *whole_b, &result) ? overflow() : result;
      case Operator::Multiply:
        return __builtin_mul_overflow(*whole_a, *whole_b, &result) ? overflow() : result;
      case Operator::Divide:
        if (*whole_b == 0) zero("division by zero");
        return static_cast<double>(*whole_a) / static_cast<double>(*whole_b);
      case Operator::FloorDivide:
      case Operator::Modulo:
        if (*whole_b == 0) zero("integer division or modulo by zero");
        return op == Operator::Modulo ? modulo(*whole_a, *whole_b)
                                      : floor_divide(*whole_a, *whole_b);
      case Operator::Power:
        return integer_power(*whole_a, *whole_b);
      default:
        break;
    }
  }
  if (a.is_number() && b.is_number()) {
    if (a.as<BigInteger>() != nullptr || b.as<BigInteger>() != nullptr) overflow();
    const double x = a.as_double(), y = b.as_double();
    switch (op) {
      case Operator::Add:
        return x + y;
      case Operator::Subtract:
        return x - y;
      case Operator::Multiply:
        return x * y;
      case Operator::Divide:
        if (y == 0) zero("float division by zero");
        return x / y;
      case Operator::FloorDivide:
        if (y == 0) zero("float floor division by zero");
        return std::floor(x / y);
      case Operator::Modulo: {
        if (y == 0) zero("float modulo");
        const double rest = std::fmod(x, y);
        return rest != 0 && (rest < 0) != (y < 0) ? rest + y : rest;
      }
      case Operator::Power:
        if (x == 0 && y < 0) zero("0.0 cannot be raised to a negative power");
        return std::pow(x, y);
      default:
        break;
    }
  }
  const MarkedText *text_a = a.as_text(), *text_b = b.as_text();
  const Sequence *list_a = a.as_sequence(), *list_b = b.as_sequence();
  const auto joins = [](const Sequence* list) {
    return list != nullptr && list->kind <= Sequence::Kind::Tuple;
  };
  if (op == Operator::Add) {
    if (text_a != nullptr && text_b != nullptr) {
      spend_bytes(text_a->size() + text_b->size());
      MarkedText text = *text_a;
      text.append(*text_b);
      return text;
    }
    if (joins(list_a) && joins(list_b) && list_a->kind == list_b->kind) {
      std::vector<Value> items = list_a->items;
      items.insert(items.end(), list_b->items.begin(), list_b->items.end());
      return make_list(std::move(items), list_a->kind);
    }
    if (text_a != nullptr || joins(list_a)) {
      fail_type(fmt::format("can only concatenate {} (not \"{}\") to {}", a.type_name(),
                            b.type_name(), a.type_name()));
    }
  }
  if (op == Operator::Multiply && (whole_a || whole_b)) {
    const Value& many = whole_a ? b : a;
    const auto count = static_cast<uint64_t>(std::max<int64_t>(whole_a ? *whole_a : *whole_b, 0));
    if (const MarkedText* text = many.as_text()) {
      if (text->size() > 0 && count > limits_.text_bytes / text->size()) {
        spend_bytes(limits_.text_bytes + 1);
      }
      spend_bytes(text->size() * count);
      MarkedText out;
      for (uint64_t i = 0; i < count && text->size() > 0; ++i) out.append(*text);
      return out;
    }
    if (joins(many.as_sequence())) {
      const std::vector<Value>& once = many.as_sequence()->items;
      std::vector<Value> items;
      if (!once.empty()) {
        if (count > left_ / once.size()) out_of_steps();
        spend(count * once.size());
        for (uint64_t i = 0; i < count; ++i) items.insert(items.end(), once.begin(), once.end());
      }
      return make_list(std::move(items), many.as_sequence()->kind);
    }
  }
  fail_type(fmt::format("unsupported operand type(s) for {}: '{}' and '{}'", symbol(op),
                        a.type_name(), b.type_name()));
}

bool Interpreter::less(const Value& a, const Value& b) {
  spend(1);
  need_defined(a);
  need_defined(b);
  if (a.is_number() && b.is_number()) {
    const auto whole_a = a.as_integer(), whole_b = b.as_integer();
    if (whole_a && whole_b) return *whole_a < *whole_b;
    return a.as_double() < b.as_double();
  }
  const MarkedText *text_a = a.as_text(), *text_b = b.as_text();
  if (text_a != nullptr && text_b != nullptr) return text_a->bytes() < text_b->bytes();
  const Sequence *list_a = a.as_sequence(), *list_b = b.as_sequence();
  if (list_a != nullptr && list_b != nullptr && list_a->kind == list_b->kind &&
      list_a->kind <= Sequence::Kind::Tuple) {
    for (size_t i = 0; i < list_a->items.size() && i < list_b->items.size(); ++i) {
      if (same(list_a->items[i], list_b->items[i])) continue;
      return less(list_a->items[i], list_b->items[i]);
    }
    return list_a->items.size() < list_b->items.size();
  }
  fail_type(fmt::format("'<' not supported between instances of '{}' and '{}'", a.type_name(),
                        b.type_name()));
}

bool Interpreter::same(const Value& a, const Value& b) {
  spend(std::min(a.weight(), b.weight()));
  return equal(a, b);
}

bool Interpreter::contains(const Value& container, const Value& item) {
  if (const MarkedText* text = container.as_text()) {
    const MarkedText* part = item.as_text();
    if (part == nullptr) {
      fail_type(
          fmt::format("'in <string>' requires string as left operand, not {}", item.type_name()));
    }
    spend_bytes(text->size());
    return text->bytes().find(part->bytes()) != std::string_view::npos;
  }
  if (const Dict* dict = container.as_dict()) {
    if (!hash_of(item)) fail_type(fmt::format("unhashable type: '{}'", item.type_name()));
    spend(item.as_text() != nullptr ? 1 : dict->weight);
    return dict->find(item) != nullptr;
  }
  if (container.is_undefined()) {
    if (container.as<Undefined>()->unsafe) need_defined(container);
    return false;
  }
  const Sequence* list = container.as_sequence();
  if (list == nullptr) {
    fail_type(fmt::format("argument of type '{}' is not iterable", container.type_name()));
  }
  spend(list->weight);
  return std::any_of(list->items.begin(), list->items.end(),
                     [&](const Value& one) { return equal(one, item); });
}

bool Interpreter::compare(Operator op, const Value& a, const Value& b) {
  switch (op) {
    case Operator::Equal:
      return same(a, b);
    case Operator::NotEqual:
      return !same(a, b);
    case Operator::In:
      return contains(b, a);
    case Operator::NotIn:
      return !contains(b, a);
    default:
      break;
  }
  need_defined(a);
  need_defined(b);
  const bool comparable = (a.is_number() && b.is_number()) ||
                          (a.as_text() != nullptr && b.as_text() != nullptr) ||
                          (a.as_sequence() != nullptr && b.as_sequence() != nullptr &&
                           a.as_sequence()->kind == b.as_sequence()->kind &&
                           a.as_sequence()->kind <= Sequence::Kind::Tuple);
  if (!comparable) {
    fail_type(fmt::format("'{}' not supported between instances of '{}' and '{}'", symbol(op),
                          a.type_name(), b.type_name()));
  }
  const bool nan = (a.as<double>() != nullptr && std::isnan(*a.as<double>())) ||
                   (b.as<double>() != nullptr && std::isnan(*b.as<double>()));
  if (nan) return false;
  switch (op) {
    case Operator::Less:
      return less(a, b);
    case Operator::Greater:
      return less(b, a);
    case Operator::LessEqual:
      return !less(b, a);
    default:
      return !less(a, b);
  }
}

Value Interpreter::compare(const Expression& e) {
  Value left = evaluate(*e.items[0]);
  for (size_t i = 0; i < e.ops.size(); ++i) {
    Value right = evaluate(*e.items[i + 1]);
    spend(1);
    if (!compare(e.ops[i], left, right)) return false;
    left = std::move(right);
  }
  return true;
}

Value Interpreter::member(const Value& object, std::string_view name) {
  need_defined(object);
  bool unsafe = false;
  if (const Function* function = object.as_function()) {
    if (function->attribute) {
      if (auto value = function->attribute(*this, name)) return std::move(*value);
    }
  }
  if (const Namespace* space = object.as_namespace()) {
    for (const auto& [key, value] : space->members) {
      if (key == name) return value;
    }
  }
  if (auto method = find_method(object, name, unsafe)) return std::move(*method);
  if (unsafe) return unsafe_member(object, name);
  if (const Dict* dict = object.as_dict()) {
    if (const Value* value = dict->find(name)) return *value;
  }
  return missing_member(object, name);
}

Value Interpreter::item(const Value& object, const Value& key) {
  need_defined(object);
  const auto whole = key.as_integer();
  if (const Dict* dict = object.as_dict()) {
    if (key.as_text() == nullptr) spend(dict->weight);
    if (const Value* value = hash_of(key) ? dict->find(key) : nullptr) return *value;
  } else if (const Sequence* list = object.as_sequence();
             list != nullptr && whole && list->kind <= Sequence::Kind::Range) {
    const auto size = static_cast<int64_t>(list->items.size());
    const int64_t at = *whole < 0 ? *whole + size : *whole;
    if (at >= 0 && at < size) return list->items[static_cast<size_t>(at)];
  } else if (const MarkedText* text = object.as_text(); text != nullptr && whole) {
    spend_bytes(text->size());
    const auto size = static_cast<int64_t>(chat_template::length(text->bytes()));
    const int64_t at = *whole < 0 ? *whole + size : *whole;
    if (at >= 0 && at < size) {
      const size_t begin = offset_of(text->bytes(), static_cast<size_t>(at));
      return text->sub(begin, begin + utf8::decode(text->bytes().substr(begin)).length);
    }
  }
  if (const MarkedText* name = key.as_text()) {
    if (object.as_dict() == nullptr) return member(object, name->bytes());
    bool unsafe = false;
    if (auto method = find_method(object, name->bytes(), unsafe)) return std::move(*method);
    if (unsafe) return unsafe_member(object, name->bytes());
    return missing_member(object, name->bytes());
  }
  return undefined(fmt::format("{} has no element {}", type_in_words(object), repr_of(key)));
}

Value Interpreter::slice(const Value& object, const Value& begin, const Value& end,
                         const Value& step) {
  need_defined(object);
  if (const MarkedText* text = object.as_text()) {
    spend_bytes(text->size());
    const auto size = static_cast<int64_t>(chat_template::length(text->bytes()));
    const SliceBounds bounds = slice_bounds(begin, end, step, size);
    if (bounds.step == 1) {
      if (bounds.begin >= bounds.end) return MarkedText();
      const size_t from = offset_of(text->bytes(), static_cast<size_t>(bounds.begin));
      const size_t count = static_cast<size_t>(bounds.end - bounds.begin);
      return text->sub(from, from + offset_of(text->bytes().substr(from), count));
    }
    std::vector<size_t> offsets;  // of each code point
    for (size_t at = 0; at < text->size(); at += utf8::decode(text->bytes().substr(at)).length) {
      offsets.push_back(at);
    }
    offsets.push_back(text->size());
    spend(offsets.size());
    MarkedText out;
    for (int64_t at = bounds.begin; bounds.step > 0 ? at < bounds.end : at > bounds.end;
         at += bounds.step) {
      out.append(*text, offsets[static_cast<size_t>(at)], offsets[static_cast<size_t>(at) + 1]);
    }
    return out;
  }
  const Sequence* list = object.as_sequence();
  if (list == nullptr || list->kind > Sequence::Kind::Range) {
    if (object.as_dict() != nullptr) fail_type("unhashable type: 'slice'");
    fail_type(fmt::format("'{}' object is not subscriptable", object.type_name()));
  }
  const SliceBounds bounds =
      slice_bounds(begin, end, step, static_cast<int64_t>(list->items.size()));
  std::vector<Value> items;
  for (int64_t at = bounds.begin; bounds.step > 0 ? at < bounds.end : at > bounds.end;
       at += bounds.step) {
    items.push_back(list->items[static_cast<size_t>(at)]);
  }
  return make_list(std::move(items), list->kind == Sequence::Kind::Tuple ? Sequence::Kind::Tuple
                                                                         : Sequence::Kind::List);
}

Value Interpreter::call(const Value& callee, const Arguments& given) {
  need_defined(callee);
  const Function* function = callee.as_function();
  if (function == nullptr || !function->call) {
    fail_type(fmt::format("'{}' object is not callable", callee.type_name()));
  }
  const Nesting nesting(*this);
  return function->call(*this, given);
}

SequencePointer Interpreter::iterate(const Value& value) {
  static const auto kNothing = std::make_shared<Sequence>();
  if (const auto* list = value.as<SequencePointer>()) {
    if ((*list)->kind != Sequence::Kind::Generator) return *list;
    if ((*list)->used_up) return kNothing;
    (*list)->used_up = true;
    return *list;
  }
  if (const auto* missing = value.as<Undefined>()) {
    if (missing->unsafe) need_defined(value);
    return kNothing;
  }
  std::vector<Value> items;
  if (const Dict* dict = value.as_dict()) {
    for (const auto& [key, member] : dict->members) items.push_back(key);
  } else if (const MarkedText* text = value.as_text()) {
    spend(text->size());
    for (size_t at = 0; at < text->size();) {
      const size_t length = utf8::decode(text->bytes().substr(at)).length;
      items.push_back(text->sub(at, at + length));
      at += length;
    }
  } else {
    fail_type(fmt::format("'{}' object is not iterable", value.type_name()));
  }
  return *make_list(std::move(items)).as<SequencePointer>();
}

size_t Interpreter::length(const Value& value) {
  if (const MarkedText* text = value.as_text()) {
    spend_bytes(text->size());
    return chat_template::length(text->bytes());
  }
  if (const Sequence* list = value.as_sequence();
      list != nullptr && list->kind != Sequence::Kind::Generator) {
    return list->items.size();
  }
  if (const Dict* dict = value.as_dict()) return dict->members.size();
  if (const auto* missing = value.as<Undefined>()) {
    if (missing->unsafe) need_defined(value);
    return 0;
  }
  fail_type(fmt::format("object of type '{}' has no len()", value.type_name()));
}

MarkedText Interpreter::str(const Value& value) {
  spend(value.weight());
  MarkedText text;
  append_str(text, value);
  spend_bytes(text.size());
  return text;
}

}  // namespace quern::chat_template
