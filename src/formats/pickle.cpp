#include "formats/pickle.h"

#include <fmt/format.h>

#include <cstring>
#include <memory>
#include <optional>
#include <unordered_map>
#include <utility>

#include "core/error.h"

namespace quern {
namespace {

constexpr size_t kMaxValues = 20'000'000;
constexpr size_t kMaxRank = 8;

struct Value;
using Ref = std::shared_ptr<Value>;

struct Value {
  enum class Type {
    None,
    Bool,
    Int,
    Float,
    String,
    Tuple,
    List,
    Dict,
    Global,
    Storage,
    Tensor,
    Mark
  };
  Type kind = Type::None;
  int64_t number = 0;
  std::string text;                          // String, Global ("module name"), Storage key
  std::vector<Ref> items;                    // Tuple, List
  std::vector<std::pair<Ref, Ref>> entries;  // Dict
  DType dtype = DType::F32;                  // Storage
  std::shared_ptr<PickledTensor> tensor;
};
using Type = Value::Type;

std::optional<DType> storage_dtype(std::string_view global) {
  constexpr std::pair<std::string_view, DType> kStorages[] = {
      {"torch FloatStorage", DType::F32},     {"torch HalfStorage", DType::F16},
      {"torch BFloat16Storage", DType::BF16}, {"torch DoubleStorage", DType::F64},
      {"torch LongStorage", DType::I64},      {"torch IntStorage", DType::I32},
      {"torch ShortStorage", DType::I16},     {"torch CharStorage", DType::I8},
      {"torch ByteStorage", DType::U8},       {"torch BoolStorage", DType::Bool},
  };
  for (const auto& [name, dtype] : kStorages) {
    if (name == global) return dtype;
  }
  return std::nullopt;
}

constexpr std::string_view kOrderedDict = "collections OrderedDict";
constexpr std::string_view kRebuildTensor = "torch._utils _rebuild_tensor_v2";
constexpr std::string_view kRebuildParameter = "torch._utils _rebuild_parameter";

bool is_known(std::string_view global) {
  return global == kOrderedDict || global == kRebuildTensor || global == kRebuildParameter ||
         storage_dtype(global).has_value();
}

// A stack machine with a memo, as pickle defines it, over a handful of instructions.
class Machine {
 public:
  Machine(std::string_view code, const std::string& source) : code_(code), source_(source) {}

  Ref run() {
    while (true) {
      const size_t at = position_;
      const auto instruction = static_cast<unsigned char>(take(1)[0]);
      if (instruction == '.') break;
      step(instruction, at);
    }
    if (stack_.size() != 1) fail("does not end with one value");
    return stack_[0];
  }

 private:
  [[noreturn]] void fail(const std::string& problem) const {
    throw_bad_input(fmt::format("{}: the pickle {} (byte {})", source_, problem, position_));
  }

  std::string_view take(uint64_t count) {
    if (count > code_.size() - position_) fail("is cut off");
    const std::string_view bytes = code_.substr(position_, count);
    position_ += count;
    return bytes;
  }
  uint64_t take_number(size_t bytes) {
    const std::string_view text = take(bytes);
    uint64_t value = 0;
    for (size_t i = bytes; i-- > 0;) value = value << 8 | static_cast<unsigned char>(text[i]);
    return value;
  }
  std::string_view take_line() {
    const size_t end = code_.find('\n', position_);
    if (end == code_.npos) fail("is cut off");
    const std::string_view line = code_.substr(position_, end - position_);
    position_ = end + 1;
    return line;
  }

  Ref make(Type kind) {
    if (++made_ > kMaxValues) fail("makes too many values");
    auto value = std::make_shared<Value>();
    value->kind = kind;
    return value;
  }
  void push(Ref value) { stack_.push_back(std::move(value)); }
  Ref push_new(Type kind) {
    push(make(kind));
    return stack_.back();
  }
  Ref pop() {
    if (stack_.empty() || stack_.back()->kind == Type::Mark) fail("takes from an empty stack");
    Ref value = std::move(stack_.back());
    stack_.pop_back();
    return value;
  }
  const Ref& top() {
    if (stack_.empty()) fail("looks at an empty stack");
    return stack_.back();
  }
  std::vector<Ref> pop_to_mark() {
    size_t at = stack_.size();
    while (at > 0 && stack_[at - 1]->kind != Type::Mark) --at;
    if (at == 0) fail("lacks a mark");
    std::vector<Ref> items(stack_.begin() + static_cast<int64_t>(at), stack_.end());
    stack_.resize(at - 1);
    return items;
  }
  void push_int(int64_t value) { push_new(Type::Int)->number = value; }
  void push_text(std::string_view text) { push_new(Type::String)->text = std::string(text); }
  void push_tuple(size_t count) {
    Ref tuple = make(Type::Tuple);
    for (size_t i = 0; i < count; ++i) tuple->items.insert(tuple->items.begin(), pop());
    push(std::move(tuple));
  }
  void push_global(std::string_view module, std::string_view name) {
    std::string global = std::string(module) + " " + std::string(name);
    if (!is_known(global)) {
      throw_bad_input(fmt::format("{}: asks for {}.{}, which is no part of a tensor", source_,
                                  printable(module, 80), printable(name, 80)),
                      "the file could run code when PyTorch loads it; get the weights as "
                      "safetensors from a source you trust");
    }
    push_new(Type::Global)->text = std::move(global);
  }
  void remember(uint64_t index) {
    if (memo_.size() > kMaxValues) fail("remembers too many values");
    memo_[index] = top();
  }
  void recall(uint64_t index) {
    const auto found = memo_.find(index);
    if (found == memo_.end()) fail("recalls what it did not remember");
    push(found->second);
  }
  void add_entries(std::vector<Ref> items) {
    if (items.size() % 2 != 0) fail("has a key without a value");
    const Ref& target = top();
    if (target->kind != Type::Dict) fail("sets items of what is no dictionary");
    for (size_t i = 0; i < items.size(); i += 2) {
      target->entries.emplace_back(items[i], items[i + 1]);
    }
  }

  void step(unsigned char instruction, size_t at);
  void long_integer(uint64_t bytes);
  void persistent();
  void reduce();
  Ref rebuild(const Value& arguments);
  std::vector<int64_t> integers(const Ref& tuple);

  std::string_view code_;
  const std::string& source_;
  size_t position_ = 0;
  std::vector<Ref> stack_;
  std::unordered_map<uint64_t, Ref> memo_;
  uint64_t next_memo_ = 0;
  size_t made_ = 0;
};

void Machine::step(unsigned char instruction, size_t at) {
  switch (instruction) {
    case 0x80:  // PROTO
      if (const uint64_t protocol = take_number(1); protocol > 5) {
        fail(fmt::format("has the protocol {}", protocol));
      }
      break;
    case 0x95:
      take(8);
      break;  // FRAME: its length says nothing that is needed
    case '(':
      push(make(Type::Mark));
      break;
    case 'N':
      push(make(Type::None));
      break;
    case 0x88:
      push_new(Type::Bool)->number = 1;
      break;
    case 0x89:
      push(make(Type::Bool));
      break;
    case 'K':
      push_int(static_cast<int64_t>(take_number(1)));
      break;
    case 'M':
      push_int(static_cast<int64_t>(take_number(2)));
      break;
    case 'J':
      push_int(static_cast<int32_t>(take_number(4)));
      break;
    case 0x8A:
      long_integer(take_number(1));
      break;
    case 0x8B:
      long_integer(take_number(4));
      break;
    case 'G':
      take(8), push(make(Type::Float));
      break;
    case 'X':
      push_text(take(take_number(4)));
      break;
    case 0x8C:
      push_text(take(take_number(1)));
      break;
    case 0x8D:
      push_text(take(take_number(8)));
      break;
    case ')':
      push(make(Type::Tuple));
      break;
    case 0x85:
      push_tuple(1);
      break;
    case 0x86:
      push_tuple(2);
      break;
    case 0x87:
      push_tuple(3);
      break;
    case 't': {
      Ref tuple = make(Type::Tuple);
      tuple->items = pop_to_mark();
      push(std::move(tuple));
      break;
    }
    case ']':
      push(make(Type::List));
      break;
    case '}':
      push(make(Type::Dict));
      break;
    case 'a': {
      Ref item = pop();
      if (top()->kind != Type::List) fail("appends to what is no list");
      top()->items.push_back(std::move(item));
      break;
    }
    case 'e': {
      std::vector<Ref> items = pop_to_mark();
      if (top()->kind != Type::List) fail("appends to what is no list");
      top()->items.insert(top()->items.end(), items.begin(), items.end());
      break;
    }
    case 's': {
      Ref value = pop(), key = pop();
      add_entries({key, value});
      break;
    }
    case 'u':
      add_entries(pop_to_mark());
      break;
    case 'b':
      pop(), top();
      break;  // BUILD: attributes of a dictionary, such as _metadata
    case '0':
      pop();
      break;
    case 'q':
      remember(take_number(1));
      break;
    case 'r':
      remember(take_number(4));
      break;
    case 0x94:
      remember(next_memo_++);
      break;
    case 'h':
      recall(take_number(1));
      break;
    case 'j':
      recall(take_number(4));
      break;
    case 'c': {
      const std::string_view module = take_line();
      push_global(module, take_line());
      break;
    }
    case 0x93: {
      const Ref name = pop(), module = pop();
      if (name->kind != Type::String || module->kind != Type::String) fail("has a nameless global");
      push_global(module->text, name->text);
      break;
    }
    case 'Q':
      persistent();
      break;
    case 'R':
      reduce();
      break;
    default:
      position_ = at;
      fail(fmt::format("has the instruction 0x{:02x}, which no dictionary of tensors needs",
                       instruction));
  }
}

void Machine::long_integer(uint64_t bytes) {
  const std::string_view digits = take(bytes);
  if (bytes > 8) fail(fmt::format("has an integer of {} bytes", bytes));
  uint64_t value = 0;
  for (size_t i = digits.size(); i-- > 0;) {
    value = value << 8 | static_cast<unsigned char>(digits[i]);
  }
  const bool negative = !digits.empty() && (static_cast<unsigned char>(digits.back()) & 0x80) != 0;
  if (negative && bytes < 8) value |= ~uint64_t{0} << (8 * bytes);
  push_int(static_cast<int64_t>(value));
}

// ("storage", <storage type>, key, device, elements)
void Machine::persistent() {
  const Ref id = pop();
  if (id->kind != Type::Tuple || id->items.size() != 5 || id->items[0]->text != "storage" ||
      id->items[1]->kind != Type::Global || id->items[2]->kind != Type::String ||
      id->items[4]->kind != Type::Int) {
    fail("refers to something that is no storage");
  }
  const auto dtype = storage_dtype(id->items[1]->text);
  if (!dtype) fail("has a storage of an unknown type");
  Ref storage = make(Type::Storage);
  storage->dtype = *dtype;
  storage->text = id->items[2]->text;
  storage->number = id->items[4]->number;
  push(std::move(storage));
}

std::vector<int64_t> Machine::integers(const Ref& tuple) {
  if (tuple->kind != Type::Tuple || tuple->items.size() > kMaxRank)
    fail("has a shape that is none");
  std::vector<int64_t> out;
  for (const Ref& item : tuple->items) {
    if (item->kind != Type::Int || item->number < 0) fail("has a shape that is none");
    out.push_back(item->number);
  }
  return out;
}

// _rebuild_tensor_v2(storage, offset, shape, strides, requires_grad, hooks)
Ref Machine::rebuild(const Value& arguments) {
  if (arguments.items.size() < 4 || arguments.items[0]->kind != Type::Storage ||
      arguments.items[1]->kind != Type::Int) {
    fail("builds a tensor from something else");
  }
  const Value& storage = *arguments.items[0];
  Ref value = make(Type::Tensor);
  value->tensor = std::make_shared<PickledTensor>(PickledTensor{{},
                                                                storage.text,
                                                                storage.dtype,
                                                                storage.number,
                                                                arguments.items[1]->number,
                                                                integers(arguments.items[2]),
                                                                integers(arguments.items[3])});
  return value;
}

void Machine::reduce() {
  const Ref arguments = pop(), callee = pop();
  if (callee->kind != Type::Global || arguments->kind != Type::Tuple)
    fail("calls what is no function");
  if (callee->text == kOrderedDict) {
    push(make(Type::Dict));
  } else if (callee->text == kRebuildTensor) {
    push(rebuild(*arguments));
  } else if (callee->text == kRebuildParameter && !arguments->items.empty() &&
             arguments->items[0]->kind == Type::Tensor) {
    push(arguments->items[0]);
  } else {
    fail(fmt::format("calls {}", printable(callee->text, 80)));
  }
}

}  // namespace

std::vector<PickledTensor> read_pickled_tensors(std::string_view pickle,
                                                const std::string& source) {
  const Ref root = Machine(pickle, source).run();
  const Value* dictionary = root.get();
  // Training checkpoints keep the weights under "state_dict" or "model".
  if (dictionary->kind == Type::Dict) {
    for (const auto& [key, value] : dictionary->entries) {
      const bool wrapper = key->text == "state_dict" || key->text == "model";
      if (wrapper && value->kind == Type::Dict) dictionary = value.get();
    }
  }
  if (dictionary->kind != Type::Dict) {
    throw_bad_input(source + ": holds no dictionary of tensors");
  }
  std::vector<PickledTensor> tensors;
  for (const auto& [key, value] : dictionary->entries) {
    if (value->kind != Type::Tensor) continue;
    if (key->kind != Type::String || key->text.empty()) {
      throw_bad_input(source + ": holds a tensor without a name");
    }
    tensors.push_back(*value->tensor);
    tensors.back().name = key->text;
  }
  if (tensors.empty()) throw_bad_input(source + ": holds no tensors");
  return tensors;
}

}  // namespace quern
