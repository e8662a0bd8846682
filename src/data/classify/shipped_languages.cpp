#include "data/classify/shipped_languages.h"

#include <cstddef>

asm(".pushsection .rodata\n"
    ".hidden quern_languages\n"
    ".globl quern_languages\n"
    ".hidden quern_languages_end\n"
    ".globl quern_languages_end\n"
    "quern_languages:\n"
    ".incbin \"" QUERN_LANGUAGES
    "\"\n"
    "quern_languages_end:\n"
    ".byte 0\n"
    ".popsection\n");
extern "C" const char quern_languages[], quern_languages_end[];

namespace quern {

std::string_view shipped_language_model() noexcept {
  return {quern_languages, static_cast<size_t>(quern_languages_end - quern_languages)};
}

}  // namespace quern
