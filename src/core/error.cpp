#include "core/error.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <numeric>
#include <vector>

#include "core/utf8.h"

namespace quern {

Error::Error(Kind kind, const std::string& message, std::string hint)
    : std::runtime_error(message), kind_(kind), hint_(std::move(hint)) {}

std::string Error::line() const {
  constexpr size_t kLongest = 4000;
  std::string text = printable(what(), kLongest);
  if (!hint_.empty()) text += " (" + printable(hint_, kLongest) + ")";
  return text;
}

void throw_bad_input(const std::string& message, std::string hint) {
  throw Error(Kind::BadInput, message, std::move(hint));
}

void throw_errno(const std::string& path, std::string_view what) {
  const int code = errno;
  Kind kind = Kind::Failed;
  std::string hint;
  if (code == ENOSPC || code == EDQUOT || code == EFBIG) {
    kind = Kind::NoResources;
    hint = "free some disk space and run it again";
  } else if (code == ENOMEM) {
    kind = Kind::NoResources;
  } else if (code == ENOENT || code == ENOTDIR || code == EISDIR || code == ELOOP ||
             code == ENAMETOOLONG) {
    kind = Kind::BadInput;
  } else if (code == EACCES || code == EPERM || code == EROFS) {
    kind = Kind::BadInput;
    hint = "look at its owner and permissions";
  } else if (code == EEXIST || code == ENOTEMPTY) {
    kind = Kind::Misused;
    hint = "name another one, or remove it";
  }
  throw Error(kind, fmt::format("{}: {}: {}", path, what, std::strerror(code)), hint);
}

std::string printable(std::string_view text, size_t max_bytes) {
  std::string out;
  size_t i = 0;
  while (i < text.size()) {
    if (out.size() >= max_bytes) return out + "…";
    const auto point = utf8::decode(text.substr(i));
    const bool control = point.value < 0x20 || (point.value >= 0x7F && point.value < 0xA0);
    if (point.valid && !control) {
      out.append(text.substr(i, point.length));
    } else {
      for (size_t k = 0; k < point.length; ++k) {
        out += fmt::format("\\x{:02x}", static_cast<unsigned char>(text[i + k]));
      }
    }
    i += point.length;
  }
  return out;
}

size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t substituted = diagonal + (a[i - 1] != b[j - 1]);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, substituted});
    }
  }
  return row[b.size()];
}

}  // namespace quern
