// Runs a parsed template. One object renders once.
#pragma once

#include <ctime>
#include <deque>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "text/template/syntax_tree.h"
#include "text/template/template_error.h"
#include "text/template/value.h"

namespace quern::chat_template {

// What a template may use. A step is about one operation, eight bytes of text, or an item of a
// list.
struct TemplateLimits {
  uint64_t steps = 10'000'000;
  size_t text_bytes = size_t{64} << 20;  // of the result, and of any text on the way
  int depth = 1000;                      // of blocks, expressions and macro calls within each other
  int value_depth = 100;                 // of lists and dicts within each other
};

// The time that strftime_now gives, without a zone.
using LocalTime = std::tm;

using Variables = std::vector<std::pair<std::string, Value>>;

class Interpreter {
 public:
  Interpreter(const SyntaxTree& tree, const TemplateLimits& limits, const LocalTime& now);
  ~Interpreter();
  Interpreter(const Interpreter&) = delete;
  Interpreter& operator=(const Interpreter&) = delete;

  // Throws TemplateError.
  MarkedText render(const Variables& variables);

  // For the builtins. All throw TemplateError as Python would.
  void spend(uint64_t steps) {
    if (steps > left_) out_of_steps();
    left_ -= steps;
  }
  void spend_bytes(size_t bytes);
  int value_depth(int depth) const;  // the same, or an error where it is too much
  Value make_list(std::vector<Value> items, Sequence::Kind kind = Sequence::Kind::List);
  Value make_text(MarkedText text);
  const LocalTime& now() const noexcept { return now_; }

  Value member(const Value& object, std::string_view name);
  Value item(const Value& object, const Value& key);
  Value call(const Value& callee, const Arguments& arguments);
  // What iterating gives. Uses up a generator.
  SequencePointer iterate(const Value& value);
  size_t length(const Value& value);
  bool less(const Value& a, const Value& b);  // Python's <
  bool same(const Value& a, const Value& b);  // and ==
  bool contains(const Value& container, const Value& item);
  void need_hashable(const Value& key);
  // A dict's member, and a new one; the key can be hashed.
  const Value* find(const Dict& dict, const Value& key);
  void set(Dict& dict, const Value& key, Value value);
  Value binary(Operator op, const Value& a, const Value& b);
  MarkedText str(const Value& value);

  // Namespaces can hold themselves; the interpreter empties them when it ends.
  void keep(NamespacePointer space) { namespaces_.push_back(std::move(space)); }

  // Fails for an undefined value with its own message.
  static void need_defined(const Value& value);

 private:
  struct Scope;
  struct Loop;
  enum class Flow : uint8_t { Normal, Break, Continue };
  // One level deeper, for as long as it lives.
  class Nesting {
   public:
    explicit Nesting(Interpreter& interpreter) : interpreter_(interpreter) { interpreter_.enter(); }
    ~Nesting() { --interpreter_.depth_; }
    Nesting(const Nesting&) = delete;
    Nesting& operator=(const Nesting&) = delete;

   private:
    Interpreter& interpreter_;
  };
  class Inner;

  static constexpr size_t kBytesOfAStep = 8, kComparisonsOfAStep = 16;

  [[noreturn]] void out_of_steps() const;
  void enter();
  void spend_search(const Dict& dict, const Value& key);
  Flow run(const Body& body);
  Flow run(const Statement& statement);
  Flow run_for(const Statement& statement, const Value& over, int depth);
  Value macro(const Statement& statement, std::string name);
  Value call_macro(const Statement& statement, const std::string& name, Scope* home,
                   const Arguments& arguments);
  // Runs what prints, and gives what it printed.
  template <class Work>
  MarkedText captured(const Work& work);
  void print(const Value& value);

  Value evaluate(const Expression& expression);
  Value evaluate_or_none(const ExpressionPointer& expression);
  int id_of(std::string_view name) const;  // -1 where the template names it nowhere
  Value* find(Scope& scope, int id);
  Value lookup(int id);
  void assign(int id, Value value);
  void assign(const Target& target, const Value& value);
  Arguments arguments(const CallArguments& given);
  Value unary(Operator op, const Value& value);
  Value compare(const Expression& expression);
  bool compare(Operator op, const Value& a, const Value& b);
  Value slice(const Value& object, const Value& begin, const Value& end, const Value& step);
  Value filtered(const Expression* chain, const Value& input);

  const SyntaxTree& tree_;
  TemplateLimits limits_;
  LocalTime now_;
  const int loop_, caller_, varargs_, kwargs_;  // ids of names that have a meaning of their own
  uint64_t left_;
  int depth_ = 0;
  MarkedText* out_ = nullptr;
  Scope* scope_ = nullptr;
  std::deque<std::unique_ptr<Scope>> scopes_;  // all that were made; macros may point to any
  std::vector<Scope*> free_scopes_;
  std::vector<Value> globals_;                // by the name's id; undefined where there is none
  std::vector<NamespacePointer> namespaces_;  // emptied at the end: they may hold each other
};

}  // namespace quern::chat_template
