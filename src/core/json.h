// JSON from outside, read strictly: limits on size, depth and number of keys, no duplicate keys, no
// silent conversions (1.9, "1", true and 2^40 are not the int 1). Every getter throws BadInput with
// the source and the path of the field: "config.json: rope_scaling.factor is a string, expected a
// number". TOML is read into the same tree (core/toml.h), so one accessor serves both.
#pragma once

#include <cstdint>
#include <limits>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace quern {

struct JsonLimits {
  size_t max_bytes = size_t{64} << 20;
  int max_depth = 64;
  size_t max_values = 4'000'000;  // keys and array items together
};

// A value in a parsed document, which all values taken from it keep alive. Cheap to copy.
class Json {
 public:
  // `source` names the text in messages: a path, or "request".
  static Json parse(std::string_view text, std::string source, const JsonLimits& limits = {});
  static Json parse_file(const std::string& path, const JsonLimits& limits = {});

  // Wraps a tree that was built, not parsed.
  static Json wrap(nlohmann::json tree, std::string source);

  bool is_null() const;
  bool is_object() const;
  bool is_array() const;
  bool is_string() const;
  bool is_number() const;
  bool is_integer() const;
  bool is_bool() const;

  // The value itself as a type, or an error.
  int64_t integer(int64_t min = std::numeric_limits<int64_t>::min(),
                  int64_t max = std::numeric_limits<int64_t>::max()) const;
  double number(double min = std::numeric_limits<double>::lowest(),
                double max = std::numeric_limits<double>::max()) const;  // finite
  bool boolean() const;
  const std::string& string() const;  // valid UTF-8

  size_t size() const;  // items of an array or members of an object
  Json operator[](size_t index) const;
  std::vector<Json> items() const;                            // of an array
  std::vector<std::pair<std::string, Json>> members() const;  // of an object, sorted by key

  // Members of an object. `find` gives nothing when the key is absent or null; `at` throws then.
  std::optional<Json> find(std::string_view key) const;
  Json at(std::string_view key) const;
  bool has(std::string_view key) const { return find(key).has_value(); }

  // Members with a default for absent or null ones.
  int64_t integer_or(std::string_view key, int64_t fallback,
                     int64_t min = std::numeric_limits<int64_t>::min(),
                     int64_t max = std::numeric_limits<int64_t>::max()) const;
  double number_or(std::string_view key, double fallback,
                   double min = std::numeric_limits<double>::lowest(),
                   double max = std::numeric_limits<double>::max()) const;
  bool boolean_or(std::string_view key, bool fallback) const;
  std::string string_or(std::string_view key, std::string_view fallback) const;

  // Throws if the object has a key that is not in `known`, naming the nearest known one.
  void only_keys(const std::vector<std::string_view>& known) const;

  // "source: path", the beginning of a message about this value.
  std::string where() const;
  [[noreturn]] void fail(const std::string& problem, std::string hint = {}) const;

  const nlohmann::json& raw() const { return *node_; }  // for bulk reading of checked structures

 private:
  struct Document;
  struct Path;
  Json(std::shared_ptr<const Document> document, const nlohmann::json* node,
       std::shared_ptr<const Path> path);
  Json child(const nlohmann::json* node, std::string key, size_t index) const;
  const char* type_name() const;

  std::shared_ptr<const Document> document_;
  const nlohmann::json* node_;
  std::shared_ptr<const Path> path_;
};

// `value` as JSON text. Bad UTF-8 in strings becomes U+FFFD instead of an exception.
std::string dump(const nlohmann::json& value, int indent = -1);
std::string dump(const nlohmann::ordered_json& value, int indent = -1);

}  // namespace quern
