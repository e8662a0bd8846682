// The parameters of requests: one table says where each may stand, what it may be and what it
// means. Parsing and the refusal of unknown ones read it.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/json.h"

namespace quern::serve {

enum Where : uint8_t { Chat = 1, Text = 2, Embeddings = 4, Responses = 8, Messages = 16 };

struct Parameter {
  // Ignored: accepted, but it has no meaning for a model that runs here.
  enum class Type { Integer, Number, Boolean, Other, Ignored };
  std::string_view name;
  uint8_t where;  // of Where
  Type type;
  double min, max;  // of numbers
  std::string_view meaning;
};

// A request's body.
class Parameters {
 public:
  // Throws BadInput naming the first parameter that is not known here; with `lenient`, leaves
  // unknown ones out and appends their names to it.
  Parameters(const Json& body, Where where, std::vector<std::string>* lenient = nullptr);

  // Absent and null ones give nothing. Throw BadInput for a wrong type or range.
  std::optional<int64_t> integer(std::string_view name) const;
  std::optional<double> number(std::string_view name) const;
  bool boolean(std::string_view name, bool fallback = false) const;
  std::optional<Json> other(std::string_view name) const { return body_.find(name); }
  Json required(std::string_view name) const;
  const Json& body() const noexcept { return body_; }
  Where where() const noexcept { return where_; }

 private:
  const Parameter& known(std::string_view name) const;

  Json body_;
  Where where_;
};

// Throws BadInput naming the first member of an object that is not in `names`; null counts as
// absent.
void only_members(const Json& object, std::span<const std::string_view> names);

}  // namespace quern::serve
