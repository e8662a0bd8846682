// The classifier of languages that is part of the program (models/languages).
#pragma once

#include <string_view>

namespace quern {

std::string_view shipped_language_model() noexcept;  // the bytes of its file

}  // namespace quern
