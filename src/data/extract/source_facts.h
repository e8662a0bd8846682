// What else is true of a source file: whether a person wrote it here, and under which licence.
#pragma once

#include <string>
#include <string_view>

namespace quern {

struct SourceFacts {
  bool binary = false;  // no text in any charset
  bool generated =
      false;  // its head says so, or its name does: made by a program from something else
  bool minified = false;  // line breaks and names taken out
  bool vendored = false;  // another project's, copied
};

// Of a file's bytes: none but text has NUL bytes without a mark of UTF-16, or so many control bytes.
bool is_binary(std::string_view bytes);
// `text` is UTF-8, `language` as source_language() says.
SourceFacts source_facts(std::string_view path, std::string_view text, std::string_view language);

// The SPDX expression that a file's head names, by SPDX-License-Identifier or by the words of a known
// licence; empty where it names none. A mention ("reads MIT and GPL files", "see LICENSE") is none.
std::string source_license(std::string_view text);

}  // namespace quern
