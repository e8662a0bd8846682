// Lists of a grammar that are made of its other lists.
#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

namespace quern {

using GrammarLists = std::map<std::string, std::vector<nlohmann::ordered_json>>;

// A value for each combination of one value of every list, the last list's running fastest. In it
// slots that begin with one of the names ({o.noun} where `every` has o) are filled, keys of tables
// too; all others stay for the record.
struct ListProduct {
  std::vector<std::pair<std::string, std::string>> every;  // a name, and the list of its values
  nlohmann::ordered_json as;
};

// Throws BadInput at `where`: a list that is not there (or comes later in the file), a field that a
// value lacks, a list or table where a text should stand, more than 100,000 combinations.
std::vector<nlohmann::ordered_json> combined(const ListProduct& product, const GrammarLists& lists,
                                             const std::string& where);

}  // namespace quern
