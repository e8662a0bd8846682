#include "text/template/template.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <ctime>

#include "core/utf8.h"

namespace quern::chat_template {
namespace {

std::string_view checked(std::string_view source) {
  if (source.size() > kMaxTemplateBytes) {
    fail(TemplateError::Cause::Limit,
         fmt::format("it has {} bytes, at most {} are taken", source.size(), kMaxTemplateBytes));
  }
  if (!utf8::is_valid(source)) fail(TemplateError::Cause::Syntax, "it is not UTF-8");
  return source;
}

}  // namespace

Template::Template(std::string_view source)
    : source_(checked(source)), tree_(parse_template(source_)) {}

MarkedText Template::render(const Variables& variables, const LocalTime& now,
                            const TemplateLimits& limits) const {
  return Interpreter(tree_, limits, now).render(variables);
}

bool Template::mentions(std::string_view name) const {
  if (std::find(tree_.names.begin(), tree_.names.end(), name) != tree_.names.end()) return true;
  return source_.find(name) != std::string::npos;
}

LocalTime local_time_now() {
  const std::time_t now = std::time(nullptr);
  LocalTime out{};
  ::localtime_r(&now, &out);
  return out;
}

LocalTime parse_local_time(const std::string& text) {
  LocalTime out{};
  char rest = 0;
  int year = 0, month = 0, day = 0;
  const int read = std::sscanf(text.c_str(), "%4d-%2d-%2d%*1[ T]%2d:%2d:%2d%c", &year, &month, &day,
                               &out.tm_hour, &out.tm_min, &out.tm_sec, &rest);
  const bool date = read == 3 && text.size() == 10;
  const bool good = (date || read == 6) && year >= 1 && month >= 1 && month <= 12 && day >= 1 &&
                    day <= 31 && out.tm_hour < 24 && out.tm_min < 60 && out.tm_sec < 61;
  if (!good) {
    throw_bad_input(fmt::format("the time is '{}'", printable(text, 40)),
                    "expected YYYY-MM-DD HH:MM:SS");
  }
  out.tm_year = year - 1900;
  out.tm_mon = month - 1;
  out.tm_mday = day;
  // The day of the week and of the year, without a zone's say.
  LocalTime noon = out;
  noon.tm_hour = 12;
  ::timegm(&noon);
  out.tm_wday = noon.tm_wday;
  out.tm_yday = noon.tm_yday;
  out.tm_isdst = -1;
  return out;
}

}  // namespace quern::chat_template
