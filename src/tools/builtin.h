// The tools that come with Quern. Each is off until it is named.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/file.h"
#include "core/json.h"
#include "tools/tool.h"

namespace quern {

// "17.5% of 2340 plus 12" → "421.5". Exact: numbers are fractions of integers of any size; functions
// that have no exact value work with 50 digits. A result that is no finite decimal is rounded to 20
// digits. Throws BadInput saying what is wrong and where.
//   + - * / ^ ** % ! ( )  and their words: plus, minus, times, divided by, over, of, mod, squared,
//   cubed, to the power of, percent; sqrt cbrt abs round floor ceil min max sum mean exp ln log
//   log10 log2 sin cos tan asin acos atan gcd lcm, pi, e. % behind a number and before an operand is
//   the remainder, else a hundredth.
std::string calculate(std::string_view expression);

// "3 mi" in km: the value as a decimal and the unit. Throws BadInput for a unit that is not known
// (with the nearest one), for units of two kinds, and for currencies, whose rates change.
std::string convert_units(const OrderedJson& value, std::string_view from, std::string_view to);

// The calendar. Dates are YYYY-MM-DD (of the proleptic Gregorian calendar), or today, tomorrow,
// yesterday. `today` is what today means. Throws BadInput for what is no date.
struct DateQuestion {
  std::string date = "today";
  int64_t years = 0, months = 0, weeks = 0, days = 0;  // added to it
  std::string until;                                   // empty: none
};
std::string answer_date(const DateQuestion& question, std::string_view today);
std::string today_here();  // YYYY-MM-DD HH:MM:SS, in the machine's time zone

std::unique_ptr<Tool> make_calculator();
std::unique_ptr<Tool> make_convert();
std::unique_ptr<Tool> make_date();

// Python in the sandbox: no network, no files of the machine but /usr. Names that one call binds are
// there in the next. Works only where the sandbox does (Unsupported is then a result that failed).
std::unique_ptr<Tool> make_python();

// Full-text search over text, Markdown, HTML and source files of a folder. Read when it is first
// asked. Throws BadInput where the folder is not there.
std::unique_ptr<Tool> make_search_folder(const fs::path& folder);

// A search engine that answers in JSON: `url` holds {query}.
struct WebSearchOptions {
  std::string url;
  std::vector<std::pair<std::string, std::string>> headers;  // secrets filled in
  std::string results = "results";                           // dotted path of the list
  std::string title = "title", link = "url", text = "content";
  std::vector<std::string> addresses;  // loopback, private, link-local: allowed beside public ones
};
std::unique_ptr<Tool> make_web_search(const WebSearchOptions& options);

const std::vector<std::string>& builtin_tool_names();

}  // namespace quern
