#include "text/pipeline/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <fmt/format.h>
#include <pcre2.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "core/error.h"
#include "core/utf8.h"

namespace quern {
namespace {

// Steps that one try at one place may take: so many, and some for each byte of the text, for a
// piece may be the whole of it. Oniguruma has no limit.
constexpr uint64_t kSteps = 200'000, kStepsPerByte = 32;
// Places at which one call may try, so that tries that fail everywhere come back in time.
constexpr uint64_t kStepsPerCall = 400'000'000;
constexpr size_t kMinWindow = 16, kMaxWindow = 1 << 20;
constexpr std::chrono::milliseconds kTime{3000};  // for a text, and per megabyte of it
constexpr size_t kStackBytes = 32 << 10, kMaxStackBytes = 32 << 20;

struct MatchMemory {
  pcre2_match_data* data = pcre2_match_data_create(1, nullptr);
  pcre2_match_context* context = pcre2_match_context_create(nullptr);
  pcre2_jit_stack* stack = pcre2_jit_stack_create(kStackBytes, kMaxStackBytes, nullptr);
  MatchMemory() {
    if (data == nullptr || context == nullptr || stack == nullptr) throw std::bad_alloc();
    pcre2_jit_stack_assign(context, nullptr, stack);
  }
  ~MatchMemory() {
    pcre2_match_data_free(data);
    pcre2_match_context_free(context);
    pcre2_jit_stack_free(stack);
  }
  MatchMemory(const MatchMemory&) = delete;
  MatchMemory& operator=(const MatchMemory&) = delete;
};

}  // namespace

struct Regex::Code {
  pcre2_code* code = nullptr;
  ~Code() { pcre2_code_free(code); }
};

Regex::Regex(std::string_view pattern, std::string source)
    : code_(std::make_unique<Code>()), pattern_(pattern), source_(std::move(source)) {
  std::string theirs;
  try {
    theirs = pcre_syntax(pattern);
  } catch (const Error& error) {
    throw_bad_input(source_ + ": " + error.what());
  }
  int problem = 0;
  size_t offset = 0;
  code_->code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(theirs.data()), theirs.size(),
                              PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C |
                                  PCRE2_USE_OFFSET_LIMIT | PCRE2_NO_UTF_CHECK,
                              &problem, &offset, nullptr);
  if (code_->code == nullptr) {
    PCRE2_UCHAR text[200] = {};
    pcre2_get_error_message(problem, text, sizeof text);
    throw_bad_input(fmt::format("{}: the expression {} is not understood: {}", source_,
                                printable(pattern_, 200), reinterpret_cast<const char*>(text)));
  }
  pcre2_jit_compile(code_->code, PCRE2_JIT_COMPLETE);  // without it the interpreter runs
}

Regex::~Regex() = default;
Regex::Regex(Regex&&) noexcept = default;
Regex& Regex::operator=(Regex&&) noexcept = default;

void Regex::each_match(std::string_view text,
                       const std::function<void(size_t, size_t)>& take) const {
  using Clock = std::chrono::steady_clock;
  thread_local MatchMemory memory;
  const uint64_t steps = std::min<uint64_t>(kSteps + kStepsPerByte * text.size(), UINT32_MAX);
  const size_t window = std::clamp<size_t>(kStepsPerCall / steps, kMinWindow, kMaxWindow);
  pcre2_set_match_limit(memory.context, static_cast<uint32_t>(steps));
  pcre2_set_depth_limit(memory.context, static_cast<uint32_t>(steps));
  const auto too_much = [&] {
    throw_bad_input(fmt::format("{}: the expression {} takes too many steps on a text of {} bytes",
                                source_, printable(pattern_, 100), text.size()),
                    "an expression that repeats what repeats can take forever; the text was not "
                    "encoded");
  };
  const auto* const subject = reinterpret_cast<PCRE2_SPTR>(text.data());
  const size_t* const found = pcre2_get_ovector_pointer(memory.data);
  const auto deadline = [&] {
    return Clock::now() + kTime + kTime * static_cast<int64_t>(text.size() >> 20);
  };
  auto end_time = Clock::time_point{};
  size_t at = 0, last_end = text.npos, calls = 0;
  const auto step_over = [&](size_t from) {
    return from < text.size() ? from + utf8::decode(text.substr(from)).length : from + 1;
  };
  while (at <= text.size()) {
    size_t limit = std::min(at + window, text.size());
    while (limit < text.size() && (static_cast<unsigned char>(text[limit]) & 0xC0) == 0x80) ++limit;
    pcre2_set_offset_limit(memory.context, limit);
    const int result = pcre2_match(code_->code, subject, text.size(), at, PCRE2_NO_UTF_CHECK,
                                   memory.data, memory.context);
    if (++calls % 256 == 0 || result == PCRE2_ERROR_NOMATCH) {
      const auto now = Clock::now();
      if (end_time == Clock::time_point{}) end_time = deadline();
      if (now > end_time) too_much();
    }
    if (result == PCRE2_ERROR_NOMATCH) {
      if (limit == text.size()) return;
      at = limit + 1;
      while (at < text.size() && (static_cast<unsigned char>(text[at]) & 0xC0) == 0x80) ++at;
      continue;
    }
    if (result < 0) too_much();  // a limit of steps, of depth, of memory
    const size_t begin = found[0], end = found[1];
    if (end <= begin && last_end == end) {
      at = step_over(at);
      continue;
    }
    // \K and look-behind may begin a match before where the search began.
    if (begin > end || begin < (last_end == text.npos ? 0 : last_end)) {
      at = step_over(std::max(at, end));
      continue;
    }
    last_end = end;
    at = end;
    take(begin, end);
  }
}

}  // namespace quern
