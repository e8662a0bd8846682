#include "evaluate/extract/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <fmt/format.h>
#include <pcre2.h>

#include "core/error.h"
#include "core/utf8.h"

namespace quern::python {

struct Regex::Code {
  pcre2_code* code = nullptr;
  pcre2_match_context* limits = nullptr;
  explicit Code(pcre2_code* compiled) : code(compiled) {}
  Code(const Code&) = delete;
  Code& operator=(const Code&) = delete;
  ~Code() {
    pcre2_match_context_free(limits);
    pcre2_code_free(code);
  }
};

namespace {

pcre2_code* compile(std::string_view pattern, uint32_t options, Regex::Case letters) {
  options |= PCRE2_UTF;
  if (letters == Regex::Case::Ignored) options |= PCRE2_CASELESS;
  pcre2_compile_context* context = pcre2_compile_context_create(nullptr);
  pcre2_set_newline(context, PCRE2_NEWLINE_LF);
  int failure = 0;
  size_t offset = 0;
  pcre2_code* code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                                   options, &failure, &offset, context);
  pcre2_compile_context_free(context);
  if (code == nullptr) {
    throw Error(Kind::Failed, fmt::format("pattern '{}' is wrong at byte {} (PCRE2 error {})",
                                          printable(pattern), offset, failure));
  }
  return code;
}

struct MatchData {
  explicit MatchData(const pcre2_code* code)
      : data(pcre2_match_data_create_from_pattern(code, nullptr)) {}
  ~MatchData() { pcre2_match_data_free(data); }
  MatchData(const MatchData&) = delete;
  MatchData& operator=(const MatchData&) = delete;
  pcre2_match_data* data;
};

}  // namespace

Regex::Regex(std::unique_ptr<Code> code) : code_(std::move(code)) {
  code_->limits = pcre2_match_context_create(nullptr);
  pcre2_set_match_limit(code_->limits, kMaxSteps);
  pcre2_set_heap_limit(code_->limits, 64 << 10);  // KiB
}

Regex::Regex(const std::string& pattern, Case letters)
    : Regex(std::make_unique<Code>(compile(pattern, PCRE2_UCP, letters))) {}

Regex Regex::literal(std::string_view text, Case letters) {
  return Regex(std::make_unique<Code>(compile(text, PCRE2_LITERAL, letters)));
}

Regex::~Regex() = default;
Regex::Regex(Regex&&) noexcept = default;
Regex& Regex::operator=(Regex&&) noexcept = default;

std::optional<Match> Regex::search(std::string_view text) const {
  return utf8::is_valid(text) ? search_from(text, 0) : std::nullopt;
}

std::optional<Match> Regex::search_from(std::string_view text, size_t from) const {
  if (from > text.size()) return std::nullopt;
  const MatchData match(code_->code);
  const int count = pcre2_match(code_->code, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(),
                                from, PCRE2_NO_UTF_CHECK, match.data, code_->limits);
  if (count == PCRE2_ERROR_NOMATCH) return std::nullopt;
  if (count < 0) {
    throw Error(Kind::Failed,
                fmt::format("reading an answer of {} bytes takes too many steps", text.size()),
                "the text is of a kind that no answer is; leave the item out");
  }
  const size_t* places = pcre2_get_ovector_pointer(match.data);
  Match out{places[0], places[1], {}};
  for (uint32_t i = 0; i < pcre2_get_ovector_count(match.data); ++i) {
    const bool took_part = places[2 * i] != PCRE2_UNSET;
    out.group.push_back(took_part ? text.substr(places[2 * i], places[2 * i + 1] - places[2 * i])
                                  : std::string_view());
  }
  return out;
}

namespace {

// The offset where the search continues after `match`: one character on after an empty match.
size_t next_start(std::string_view text, const Match& match) {
  if (match.end > match.begin || match.end >= text.size()) {
    return match.end > match.begin ? match.end : match.end + 1;
  }
  return match.end + utf8::decode(text.substr(match.end)).length;
}

}  // namespace

std::optional<Match> Regex::last(std::string_view text) const {
  std::optional<Match> last;
  if (!utf8::is_valid(text)) return last;
  for (size_t from = 0; auto match = search_from(text, from);) {
    from = next_start(text, *match);
    last = std::move(match);
  }
  return last;
}

std::string Regex::replace_all(std::string_view text, std::string_view with) const {
  if (!utf8::is_valid(text)) return std::string(text);
  std::string out;
  size_t copied = 0;
  for (size_t from = 0; const auto match = search_from(text, from);) {
    out.append(text.substr(copied, match->begin - copied)).append(with);
    copied = match->end;
    from = next_start(text, *match);
  }
  return out.append(text.substr(std::min(copied, text.size())));
}

}  // namespace quern::python
