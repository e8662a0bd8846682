// The similarity of two short texts, 0 to 100, as thefuzz's WRatio over rapidfuzz has it: the best of
// whole, partial and word-by-word likeness, each with its weight.
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace quern {

// thefuzz's preprocessing: U+0080 to U+00FF are deleted, what is neither letter nor digit becomes a
// space, the rest lower case, the ends trimmed.
std::u32string fuzzy_text(std::string_view text);
// The same for the query of extractOne, which goes through thefuzz's preprocessing twice, the first
// time without the deletion: signs among U+0080 to U+00FF become spaces, only letters are deleted.
std::u32string fuzzy_query(std::string_view text);

// For texts that are preprocessed already; 0 where one is empty. Not rounded.
double wratio(std::u32string_view a, std::u32string_view b);
double wratio(std::string_view a, std::string_view b);

// As thefuzz rounds it: half to even.
int rounded_score(double score) noexcept;
// thefuzz's score of one choice for a query.
int fuzzy_score(std::string_view query, std::string_view choice);

// thefuzz's extractOne: the choice most like the text, the first of equals. `choices` has at least
// one.
struct BestChoice {
  size_t index = 0;
  double score = 0;
};
BestChoice most_alike(std::string_view text, std::span<const std::string> choices);

}  // namespace quern
