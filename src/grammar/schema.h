// JSON Schemas taken apart: references followed, what several schemas say of one value put together,
// what each keyword asks for. Inside grammar/; grammar_schema.cpp makes grammars of it.
//
// A keyword that is not known is refused by name: nothing of a schema is left out in silence.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "grammar/decimal.h"
#include "grammar/regex.h"

namespace quern {

// Schemas all of which hold of one value. None of them has a $ref or an allOf.
using SchemaList = std::vector<const nlohmann::ordered_json*>;

enum JsonType : uint8_t {
  kNull = 1,
  kBoolean = 2,
  kInteger = 4,
  kFraction = 8,  // a number that is no integer
  kString = 16,
  kArray = 32,
  kObject = 64,
  kNumber = kInteger | kFraction,
  kAllTypes = 127,
};

// What a list of schemas asks for, without their anyOf and oneOf.
struct Shape {
  uint8_t types = kAllTypes;
  uint8_t written = kAllTypes;  // of these a value is made: those that the keywords speak of
  bool says_nothing = true;     // any value fits
  std::optional<std::vector<const nlohmann::ordered_json*>> values;  // of enum and const
  NumberBounds numbers;
  int64_t least_length = 0, most_length = -1;  // -1: no bound
  std::vector<Regex> texts;
  int64_t least_items = 0, most_items = -1;
  bool unique_items = false;
  int64_t least_members = 0, most_members = -1;
};

struct ArrayParts {
  std::vector<SchemaList> first;     // the first items
  std::optional<SchemaList> others;  // those behind them; none where there are none
  bool others_named = false;         // some schema says what they are
};

struct ObjectParts {
  struct Member {
    std::string name;
    SchemaList schema;
    bool required = false;
  };
  std::vector<Member> members;       // in the order of the schemas
  std::optional<SchemaList> others;  // members with names of their own; none where there are none
};

class Schemas {
 public:
  explicit Schemas(const nlohmann::ordered_json& root);

  SchemaList root() { return flat({&root_}); }
  // Throws BadInput for a schema that refers to itself alone, and for what is wrong in it.
  SchemaList flat(const std::vector<const nlohmann::ordered_json*>& schemas);

  // The alternatives of the first anyOf or oneOf in the list, each with all else that the list says;
  // empty where there is none. `exclusive`: they are oneOf's.
  std::vector<SchemaList> alternatives(const SchemaList& list, bool& exclusive);
  Shape shape(const SchemaList& list);
  ArrayParts array_parts(const SchemaList& list);
  ObjectParts object_parts(const SchemaList& list);

  bool fits(const nlohmann::ordered_json& value, const SchemaList& list, int depth = 0);
  // No value that is written by `a` fits `b`: certain where it says true.
  bool are_apart(const SchemaList& a, const SchemaList& b, int depth = 0);

  [[noreturn]] void fail(const SchemaList& list, const std::string& problem) const;

 private:
  using Json = nlohmann::ordered_json;
  [[noreturn]] void fail(const Json* schema, const std::string& problem) const;
  void check_keywords(const Json& schema);
  // What `flat` follows its schemas with: those it stands in, and those it has been to.
  struct Walk {
    std::vector<const Json*> active;
    std::set<const Json*> seen;
  };
  void flatten(const Json& schema, Walk& walk, SchemaList& out);
  const Json& target(const Json& schema, const Json& name);
  const Json* without(const Json* schema, const std::vector<std::string>& keywords);
  const Json* child(const Json& parent, const Json& schema, const std::string& path);
  int64_t count(const Json& schema, const char* name, int64_t fallback) const;
  Regex text(const Json& schema, const char* keyword);
  bool are_apart(JsonType type, const SchemaList& a, const SchemaList& b, int depth);

  const Json& root_;
  std::deque<Json> made_;  // schemas that are parts of others
  std::map<std::pair<const Json*, std::vector<std::string>>, const Json*> made_of_;
  std::unordered_map<const Json*, std::string> paths_;
  std::set<const Json*> checked_;
  std::map<std::pair<std::string, std::string>, Regex> texts_;  // by keyword and its text
  std::map<const RegexNode*, TextAutomaton> automata_;
  int64_t work_ = 0;  // comparisons made
};

}  // namespace quern
