#include <fmt/format.h>

#include <chrono>
#include <ctime>

#include "core/error.h"
#include "tools/builtin.h"

namespace quern {
namespace {

using namespace std::chrono;

constexpr int64_t kMostSteps = 4'000'000;  // of any unit that is added
constexpr std::string_view kWeekdays[] = {"Sunday",   "Monday", "Tuesday", "Wednesday",
                                          "Thursday", "Friday", "Saturday"};

year_month_day read_date(std::string_view text, std::string_view today) {
  if (text == "now") text = "today";
  for (const auto& [word, shift] :
       {std::pair("today", 0), std::pair("tomorrow", 1), std::pair("yesterday", -1)}) {
    if (text == word) return sys_days(read_date(today.substr(0, 10), today)) + days(shift);
  }
  const auto digits = [&](size_t at, size_t count) {
    int value = 0;
    for (size_t i = at; i < at + count; ++i) {
      if (text[i] < '0' || text[i] > '9') return -1;
      value = 10 * value + (text[i] - '0');
    }
    return value;
  };
  if (text.size() == 10 && text[4] == '-' && text[7] == '-' && digits(0, 4) > 0 &&
      digits(5, 2) > 0 && digits(8, 2) > 0) {
    const year_month_day date(year(digits(0, 4)), month(static_cast<unsigned>(digits(5, 2))),
                              day(static_cast<unsigned>(digits(8, 2))));
    if (date.ok()) return date;
    throw_bad_input(fmt::format("there is no day {}", printable(text, 20)));
  }
  throw_bad_input(fmt::format("'{}' is no date", printable(text, 40)),
                  "expected YYYY-MM-DD, today, tomorrow or yesterday");
}

std::string iso(const year_month_day& date) {
  return fmt::format("{:04}-{:02}-{:02}", static_cast<int>(date.year()),
                     static_cast<unsigned>(date.month()), static_cast<unsigned>(date.day()));
}

int64_t day_of_year(const year_month_day& date) {
  return (sys_days(date) - sys_days(date.year() / January / 1)).count() + 1;
}

// ISO 8601: the week of a date is that of its Thursday.
int64_t week_of(const year_month_day& date) {
  const sys_days thursday =
      sys_days(date) + days(4 - static_cast<int>(weekday(sys_days(date)).iso_encoding()));
  return (day_of_year(year_month_day(thursday)) - 1) / 7 + 1;
}

std::string described(const year_month_day& date) {
  return fmt::format("{} {}, day {} and ISO week {} of the year", iso(date),
                     kWeekdays[weekday(sys_days(date)).c_encoding()], day_of_year(date),
                     week_of(date));
}

// Months first, as calendars do: the day is the month's last where it has fewer.
year_month_day moved(year_month_day date, const DateQuestion& by) {
  for (const int64_t count : {by.years, by.months, by.weeks, by.days}) {
    if (count > kMostSteps || count < -kMostSteps) throw_bad_input("that is too far away");
  }
  const int64_t all_months = by.years * 12 + by.months;
  if (all_months > 120'000 || all_months < -120'000) throw_bad_input("that is too far away");
  const year_month shifted = date.year() / date.month() + months(all_months);
  const year_month_day end = shifted / std::chrono::last;
  date = shifted / std::min(date.day(), end.day());
  date = year_month_day(sys_days(date) + days(7 * by.weeks + by.days));
  if (date.year() < year(1) || date.year() > year(9999)) {
    throw_bad_input("the result lies outside of the years 1 to 9999");
  }
  return date;
}

class DateTool : public Tool {
 public:
  DateTool() : Tool(make_spec()) {}
  ToolResult call(const OrderedJson& arguments, const CallContext&) override {
    DateQuestion question;
    question.date = text_argument(arguments, "date", "today");
    question.until = text_argument(arguments, "until");
    for (const auto& [name, count] :
         {std::pair("years", &question.years), std::pair("months", &question.months),
          std::pair("weeks", &question.weeks), std::pair("days", &question.days)}) {
      *count = static_cast<int64_t>(number_argument(arguments, name, 0));
    }
    return {answer_date(question, today_here())};
  }

 private:
  static ToolSpec make_spec() {
    ToolSpec spec;
    spec.name = "date";
    spec.description =
        "Today's date and time, the weekday of a date, a date so many days, weeks, months or years "
        "later or earlier, and the days from one date until another.";
    spec.parameters = object_schema(
        R"({"date": {"type": "string", "description": "YYYY-MM-DD, today, tomorrow or yesterday"},
            "until": {"type": "string", "description": "count the days until this date"},
            "years": {"type": "integer", "minimum": -9999, "maximum": 9999},
            "months": {"type": "integer", "minimum": -99999, "maximum": 99999},
            "weeks": {"type": "integer", "minimum": -500000, "maximum": 500000},
            "days": {"type": "integer", "minimum": -3500000, "maximum": 3500000}})",
        {"date"});
    spec.timeout_s = 5;
    spec.origin = "built in";
    const auto example = [&](const char* query, const char* arguments, DateQuestion question,
                             const char* answer) {
      spec.examples.push_back({query, OrderedJson::parse(arguments, "an example"),
                               answer_date(question, "2026-01-01"), answer});
    };
    example("What weekday is 2024-03-01?", R"({"date": "2024-03-01"})", {.date = "2024-03-01"},
            "2024-03-01 is a Friday.");
    example("Which date is 45 days after 2023-11-20?", R"({"date": "2023-11-20", "days": 45})",
            {.date = "2023-11-20", .days = 45}, "2024-01-04");
    return spec;
  }
};

}  // namespace

std::string answer_date(const DateQuestion& question, std::string_view today) {
  const year_month_day first = read_date(question.date, today);
  const year_month_day date = moved(first, question);
  if (!question.until.empty()) {
    const year_month_day until = read_date(question.until, today);
    const int64_t count = (sys_days(until) - sys_days(date)).count();
    return fmt::format("from {} until {}: {} days", iso(date), iso(until), count);
  }
  const bool now = (question.date == "today" || question.date == "now") && date == first;
  return described(date) +
         (now && today.size() > 11 ? fmt::format("; the time is {}", today.substr(11)) : "");
}

std::string today_here() {
  const std::time_t now = std::time(nullptr);
  std::tm local{};
  ::localtime_r(&now, &local);
  return fmt::format("{:04}-{:02}-{:02} {:02}:{:02}:{:02}", local.tm_year + 1900, local.tm_mon + 1,
                     local.tm_mday, local.tm_hour, local.tm_min, local.tm_sec);
}

std::unique_ptr<Tool> make_date() { return std::make_unique<DateTool>(); }

}  // namespace quern
