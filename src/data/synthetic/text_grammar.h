// Records made by a grammar: productions, lists, numbers with arithmetic, and names that agree
// wherever they stand. docs/data.md describes the file.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "core/file.h"
#include "core/rng.h"
#include "data/synthetic/derived_list.h"
#include "data/synthetic/text_template.h"

namespace quern {

// Conditions and arithmetic over names, as "a > b * 2 and unit == 'km'".
struct Alternative {
  std::string text;
  double weight = 1;
  std::string when;  // empty: always
};

// A name that holds one value in a record.
struct Binding {
  enum class Kind : uint8_t {
    Drawn,   // from a list or a rule, or a text with slots
    Number,  // from..to in steps
    Value,   // an expression, rounded to `digits`
    Some,    // several of a list, each once, in random order
    Each     // a rule for each of several: `item` is one of them
  };
  Kind kind = Kind::Drawn;
  std::string source;    // list, rule, text or expression; of Each a rule
  std::string from, to;  // expressions
  double step = 1;
  std::optional<int> digits;
  int64_t least = 1, most = 1;  // of Some
  std::string with;             // of Some: this name's value is among them
  std::string when;             // of Some: only values, as `item`, for which this holds
  std::string over;             // of Each: a name that holds several
  std::string join = "\n";
};

class TextGrammar {
 public:
  // A file that includes others has their lists, rules and names, too. Throws BadInput naming the
  // file and the key: a name that nothing defines or that two files define, a list without values, a
  // rule without alternatives, a template that is none.
  static TextGrammar load(const fs::path& path);

  // Record `index` as one line of JSON; the same for a seed whatever came before it. Throws BadInput
  // where an expression has no value, no alternative applies, or rules nest without an end.
  std::string record(uint64_t seed, uint64_t index, uint64_t attempt = 0) const;
  // Files that this one includes, and those that they do.
  const std::vector<fs::path>& included() const noexcept { return included_; }
  // A field of the record that must differ from record to record; empty: none must.
  const std::string& distinct() const noexcept { return distinct_; }

 private:
  friend class RecordDraw;
  void read(const fs::path& path, int depth);
  void check() const;
  void check_text(const std::string& text, const std::string& where, bool in_each) const;
  void check_value(const nlohmann::ordered_json& value, const std::string& where) const;
  void check_name(const std::vector<std::string>& path, const std::string& where,
                  bool in_each) const;
  void check_expression(const std::string& expression, const std::string& where) const;

  std::string source_;  // the file's name
  std::string distinct_;
  std::vector<fs::path> included_;
  GrammarLists lists_;
  std::set<std::string> product_names_;  // that lists made of others give to their parts
  std::map<std::string, std::vector<Alternative>> rules_;
  std::map<std::string, Binding> bindings_;
  nlohmann::ordered_json record_;
};

}  // namespace quern
