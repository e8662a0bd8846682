#include <fmt/format.h>

#include <algorithm>

#include "text/template/builtins.h"
#include "text/template/interpreter.h"

namespace quern::chat_template {

ArgumentReader::ArgumentReader(std::string_view function, const Arguments& arguments,
                               std::initializer_list<std::string_view> names, size_t required)
    : function_(function) {
  if (arguments.positional.size() > names.size()) {
    fail_type(fmt::format("{} expected at most {} argument{}, got {}", function, names.size(),
                          names.size() == 1 ? "" : "s", arguments.positional.size()));
  }
  for (size_t i = 0; i < arguments.positional.size(); ++i) found_[i] = &arguments.positional[i];
  for (const auto& [name, value] : arguments.named) {
    const auto* known = std::find(names.begin(), names.end(), name);
    const auto index = static_cast<size_t>(known - names.begin());
    if (known == names.end()) {
      fail_type(fmt::format("{}() got an unexpected keyword argument '{}'", function,
                            printable(name, 40)));
    }
    if (found_[index] != nullptr) {
      fail_type(fmt::format("{}() got multiple values for argument '{}'", function, name));
    }
    found_[index] = &value;
  }
  for (size_t i = 0; i < required; ++i) {
    if (found_[i] == nullptr) {
      fail_type(fmt::format("{} expected at least {} argument{}, got {}", function, required,
                            required == 1 ? "" : "s", i));
    }
  }
}

int64_t ArgumentReader::integer(size_t index, int64_t fallback) const {
  if (found_[index] == nullptr || found_[index]->is_none()) return fallback;
  const auto whole = found_[index]->as_integer();
  if (whole) return *whole;
  Interpreter::need_defined(*found_[index]);
  fail_type(fmt::format("{}: '{}' object cannot be interpreted as an integer", function_,
                        found_[index]->type_name()));
}

bool ArgumentReader::flag(size_t index, bool fallback) const {
  return found_[index] == nullptr ? fallback : found_[index]->truthy();
}

const MarkedText* ArgumentReader::text(size_t index) const {
  return found_[index] == nullptr ? nullptr : found_[index]->as_text();
}

const MarkedText& ArgumentReader::need_text(size_t index) const {
  if (const MarkedText* given = text(index)) return *given;
  if (found_[index] != nullptr) Interpreter::need_defined(*found_[index]);
  fail_type(fmt::format("{}: an argument is {}, expected str", function_,
                        found_[index] != nullptr ? found_[index]->type_name() : "missing"));
}

}  // namespace quern::chat_template
