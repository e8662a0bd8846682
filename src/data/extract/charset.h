// Bytes of a page to UTF-8: which charset they are in, by what the bytes themselves allow.
//
// A byte order mark decides, then valid UTF-8; after that the declarations (HTTP header, <meta>) and
// what detection finds are judged by the text that each gives, since one page in several declares
// what it isn't in. Names mean what browsers read by them: gb2312 and gbk are GB18030, euc-kr is
// CP949, iso-8859-1 is windows-1252, shift_jis is CP932.
#pragma once

#include <string>
#include <string_view>

namespace quern {

struct DecodedText {
  std::string utf8;     // bytes that mean nothing as U+FFFD, NUL left out
  std::string charset;  // in lower case, as in the Encoding Standard: "gb18030", "windows-1251"
};

// `header` is the value of Content-Type, `html` says whether <meta> is looked for.
DecodedText decode_text(std::string_view bytes, std::string_view header, bool html);

// charset=... of a Content-Type; empty where there is none.
std::string charset_parameter(std::string_view content_type);

}  // namespace quern
