// The functions that every template finds.
#include <fmt/format.h>

#include <algorithm>
#include <unordered_map>

#include "text/template/builtins.h"
#include "text/template/interpreter.h"
#include "text/template/methods.h"
#include "text/template/python_text.h"

namespace quern::chat_template {
namespace {

using R = Interpreter&;
using V = const Value&;
using A = const Arguments&;

constexpr int64_t kMaxRange = 100'000;  // as Jinja's sandbox has it

Value range(R run, A given) {
  const auto integer = [&](size_t index) {
    const auto whole = given.positional[index].as_integer();
    if (!whole) {
      Interpreter::need_defined(given.positional[index]);
      fail_type(fmt::format("'{}' object cannot be interpreted as an integer",
                            given.positional[index].type_name()));
    }
    return *whole;
  };
  const size_t count = given.positional.size();
  if (count < 1 || count > 3 || !given.named.empty()) {
    fail_type(fmt::format("range expected 1 to 3 arguments, got {}", count));
  }
  const int64_t begin = count > 1 ? integer(0) : 0, end = integer(count > 1 ? 1 : 0);
  const int64_t step = count > 2 ? integer(2) : 1;
  if (step == 0) fail_value("range() arg 3 must not be zero");
  auto list = std::make_shared<Sequence>();
  list->kind = Sequence::Kind::Range;
  list->range[0] = begin;
  list->range[1] = end;
  list->range[2] = step;
  for (int64_t at = begin; step > 0 ? at < end : at > end;) {
    if (static_cast<int64_t>(list->items.size()) >= kMaxRange) {
      throw TemplateError(TemplateError::Cause::Other,
                          fmt::format("Range too big. The sandbox blocks ranges larger than "
                                      "MAX_RANGE ({}).",
                                      kMaxRange),
                          "OverflowError");
    }
    list->items.emplace_back(at);
    if (__builtin_add_overflow(at, step, &at)) break;
  }
  run.spend(list->items.size());
  list->weight += list->items.size();
  return SequencePointer(std::move(list));
}

Value make_dict(R run, A given) {
  auto dict = std::make_shared<Dict>();
  if (given.positional.size() > 1) {
    fail_type(fmt::format("dict expected at most 1 argument, got {}", given.positional.size()));
  }
  if (!given.positional.empty()) {
    if (const Dict* other = given.positional[0].as_dict()) {
      *dict = *other;
      run.spend(other->members.size());
    } else {
      for (const auto all = run.iterate(given.positional[0]); const Value& pair : all->items) {
        const SequencePointer items = run.iterate(pair);
        if (items->items.size() != 2) {
          fail_value("dictionary update sequence element has not two items");
        }
        run.need_hashable(items->items[0]);
        run.set(*dict, items->items[0], items->items[1]);
      }
    }
  }
  for (const auto& [name, value] : given.named) dict->set(Value::text(name), value);
  run.value_depth(dict->depth);
  return DictPointer(std::move(dict));
}

Value make_namespace(R run, A given) {
  const Value dict = make_dict(run, given);
  auto space = std::make_shared<Namespace>();
  for (const auto& [key, value] : dict.as_dict()->members) {
    const MarkedText* name = key.as_text();
    if (name == nullptr) continue;
    if (name->bytes().starts_with('_')) {
      fail(TemplateError::Cause::Security,
           fmt::format("Chat templates cannot store underscore-prefixed attributes on a namespace, "
                       "but got '{}'. Please rename the attribute.",
                       printable(name->bytes(), 40)));
    }
    space->members.emplace_back(std::string(name->bytes()), value);
  }
  space->depth = run.value_depth(dict.depth());
  run.keep(space);
  return NamespacePointer(std::move(space));
}

Value raise_exception(R run, A given) {
  const ArgumentReader args("raise_exception", given, {"message"}, 1);
  fail(TemplateError::Cause::Raise, std::string(run.str(*args[0]).bytes()));
}

Value strftime_now(R run, A given) {
  const ArgumentReader args("strftime_now", given, {"format"}, 1);
  const MarkedText& format = args.need_text(0);
  if (format.size() > 1000) fail_value("strftime_now: the format has more than 1000 bytes");
  // A leading mark tells an empty result from a buffer that is too small.
  const std::string marked = "." + std::string(format.bytes());
  std::vector<char> buffer(16384);
  const size_t size = std::strftime(buffer.data(), buffer.size(), marked.c_str(), &run.now());
  if (size == 0) fail_value("strftime_now: the result is too long");
  return run.make_text({std::string_view(buffer.data() + 1, size - 1), kLiteral});
}

// Gives one of its items after the other.
Value make_cycler(R run, A given) {
  if (given.positional.empty()) {
    throw TemplateError(TemplateError::Cause::Other, "at least one item has to be provided",
                        "RuntimeError");
  }
  struct State {
    std::vector<Value> items;
    size_t at = 0;
  };
  const auto state = std::make_shared<State>(State{given.positional});
  auto made = std::make_shared<Function>();
  made->name = "cycler";
  made->type = "Cycler";
  for (const Value& item : given.positional) made->depth = std::max(made->depth, item.depth() + 1);
  run.value_depth(made->depth);
  made->attribute = [state, depth = made->depth](R, std::string_view name) -> std::optional<Value> {
    if (name == "current") return state->items[state->at];
    if (name == "next") {
      return make_function(
          name,
          [state](R, A) {
            const size_t now = state->at;
            state->at = (now + 1) % state->items.size();
            return state->items[now];
          },
          depth + 1);
    }
    if (name == "reset") {
      return make_function(
          name,
          [state](R, A) {
            state->at = 0;
            return Value(None{});
          },
          depth + 1);
    }
    return std::nullopt;
  };
  return FunctionPointer(std::move(made));
}

// Nothing at its first call, the separator at later ones.
Value make_joiner(R run, A given) {
  const ArgumentReader args("joiner", given, {"sep"});
  const auto used = std::make_shared<bool>(false);
  const Value separator = args[0] != nullptr ? *args[0] : Value::text(", ");
  return make_function(
      "joiner",
      [used, separator](R, A) {
        return std::exchange(*used, true) ? separator : Value(MarkedText());
      },
      run.value_depth(separator.depth() + 1));
}

}  // namespace

std::optional<Value> find_global(std::string_view name) {
  using Call = Value (*)(R, A);
  static const std::unordered_map<std::string_view, Call> kFunctions = {
      {"range", range},
      {"dict", make_dict},
      {"namespace", make_namespace},
      {"raise_exception", raise_exception},
      {"strftime_now", strftime_now},
      {"cycler", make_cycler},
      {"joiner", make_joiner},
  };
  const auto found = kFunctions.find(name);
  if (found == kFunctions.end()) return std::nullopt;
  return make_function(name, found->second, 0);
}

}  // namespace quern::chat_template
