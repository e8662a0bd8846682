#include "serve/body.h"

#include <nlohmann/json.hpp>

#include "core/field_error.h"
#include "core/json_tree.h"

namespace quern::serve {
Body Body::parse(std::string_view text) {
  constexpr JsonLimits kLimits = {
      .max_bytes = size_t{64} << 20, .max_depth = 64, .max_values = 3'000'000};
  // RFC 8259, 8.1: JSON that travels begins with no byte order mark.
  if (text.starts_with("\xEF\xBB\xBF")) throw FieldError("request", "", "is not valid JSON");
  OrderedJson tree = OrderedJson::parse(text, "request", kLimits);
  if (!tree.is_object()) throw FieldError("request", "", "is not a JSON object");
  Json fields = Json::wrap(to_json_tree(tree), "request");
  return {std::move(tree), std::move(fields)};
}

}  // namespace quern::serve
