#include "formats/name_pattern.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <fmt/format.h>
#include <pcre2.h>

#include "core/error.h"

namespace quern {
namespace {

constexpr size_t kMaxPatternBytes = 1 << 16;
constexpr uint32_t kMaxSteps = 100'000;

}  // namespace

NamePattern::NamePattern(std::string_view pattern, const std::string& where)
    : text_(pattern), where_(where) {
  int failure = 0;
  PCRE2_SIZE offset = 0;
  pcre2_code* code = nullptr;
  if (pattern.size() <= kMaxPatternBytes) {
    code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                         PCRE2_UTF | PCRE2_ANCHORED | PCRE2_ENDANCHORED | PCRE2_NEVER_BACKSLASH_C,
                         &failure, &offset, nullptr);
  }
  if (code == nullptr) {
    throw_bad_input(fmt::format("{}: '{}' is no regular expression, at its byte {}", where,
                                printable(text_, 80), offset));
  }
  code_ =
      std::shared_ptr<void>(code, [](void* p) { pcre2_code_free(static_cast<pcre2_code*>(p)); });
}

bool NamePattern::matches(std::string_view name) const {
  const auto* code = static_cast<const pcre2_code*>(code_.get());
  const std::unique_ptr<pcre2_match_context, decltype(&pcre2_match_context_free)> limits(
      pcre2_match_context_create(nullptr), pcre2_match_context_free);
  pcre2_set_match_limit(limits.get(), kMaxSteps);
  const std::unique_ptr<pcre2_match_data, decltype(&pcre2_match_data_free)> found(
      pcre2_match_data_create(1, nullptr), pcre2_match_data_free);
  const int result = pcre2_match(code, reinterpret_cast<PCRE2_SPTR>(name.data()), name.size(), 0, 0,
                                 found.get(), limits.get());
  if (result >= 0) return true;
  if (result == PCRE2_ERROR_NOMATCH) return false;
  throw_bad_input(fmt::format("{}: '{}' searches '{}' without an end", where_, printable(text_, 80),
                              printable(name, 80)));
}

}  // namespace quern
