#include "text/template/interpreter.h"

#include <fmt/format.h>

#include <algorithm>

#include "text/template/builtins.h"

namespace quern::chat_template {
namespace {

using SK = Statement::Kind;
using Cause = TemplateError::Cause;

}  // namespace

struct Interpreter::Scope {
  Scope* parent = nullptr;
  bool captured = false;  // by a macro, which may outlive it
  std::vector<std::pair<int, Value>> variables;
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
    : tree_(tree),
      limits_(limits),
      now_(now),
      loop_(id_of("loop")),
      caller_(id_of("caller")),
      varargs_(id_of("varargs")),
      kwargs_(id_of("kwargs")),
      left_(limits.steps) {}

Interpreter::~Interpreter() {
  // Macros and namespaces can hold each other in cycles, which are broken here.
  for (const auto& scope : scopes_) scope->variables.clear();
  for (const NamespacePointer& space : namespaces_) {
    const auto members = std::exchange(space->members, {});
  }
}

void Interpreter::enter() {
  if (depth_ >= limits_.depth) {
    fail(Cause::Limit, fmt::format("it nests or recurses deeper than {} levels", limits_.depth));
  }
  ++depth_;
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
  Value handle = None{};
  Scope* home = scope_;
  if (loop_ >= 0) {
    auto function = std::make_shared<Function>();
    function->name = "loop";
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
            now->last_seen &&
            std::equal(now->last_seen->begin(), now->last_seen->end(), given.positional.begin(),
                       given.positional.end(),
                       [&](const Value& a, const Value& b) { return runner.same(a, b); });
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
    if (loop_ >= 0) assign(loop_, handle);
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
  const Value* caller = named("caller");
  if (caller != nullptr && !statement.uses_caller) {
    fail_type(fmt::format("macro '{}' takes no keyword argument 'caller'", name));
  }
  if (statement.uses_caller) {
    assign(caller_, caller != nullptr ? *caller : undefined("No caller defined"));
  }
  std::vector<Value> more;
  for (size_t i = parameters.size(); i < given.positional.size(); ++i) {
    more.push_back(given.positional[i]);
  }
  Value rest = make_list(std::move(more), Sequence::Kind::Tuple);
  if (statement.uses_varargs) assign(varargs_, std::move(rest));
  auto others = std::make_shared<Dict>();
  for (size_t i = 0; i < given.named.size(); ++i) {
    if (used[i]) continue;
    if (!statement.uses_kwargs) {
      fail_type(
          fmt::format("macro '{}' takes no keyword argument '{}'", name, given.named[i].first));
    }
    others->set(Value::text(given.named[i].first), given.named[i].second);
  }
  if (statement.uses_kwargs) assign(kwargs_, DictPointer(std::move(others)));
  return make_text(captured([&] { run(statement.body); }));
}

// ---- Variables

int Interpreter::id_of(std::string_view name) const {
  const auto found = std::find(tree_.names.begin(), tree_.names.end(), name);
  return found == tree_.names.end() ? -1 : static_cast<int>(found - tree_.names.begin());
}

Value* Interpreter::find(Scope& scope, int id) {
  spend(scope.variables.size() / kComparisonsOfAStep);
  for (auto& [name, value] : scope.variables) {
    if (name == id) return &value;
  }
  return nullptr;
}

Value Interpreter::lookup(int id) {
  for (Scope* scope = scope_; scope != nullptr; scope = scope->parent) {
    spend(1);
    if (const Value* found = find(*scope, id)) return *found;
  }
  return globals_[static_cast<size_t>(id)];
}

void Interpreter::assign(int id, Value value) {
  if (Value* old = find(*scope_, id)) {
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
  spend(space->members.size() / kComparisonsOfAStep);
  const auto found = std::find_if(space->members.begin(), space->members.end(),
                                  [&](const auto& row) { return row.first == target.member; });
  if (found != space->members.end()) {
    found->second = value;
  } else {
    space->members.emplace_back(target.member, value);
  }
}

}  // namespace quern::chat_template
